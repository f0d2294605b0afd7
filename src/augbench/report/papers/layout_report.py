"""Results of a store in the layout of a paper's table: as Markdown, LaTeX, CSV, JSON and HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from augbench.core.errors import UserError
from augbench.report.frame import CELL_FIELDS, expected_frame, load_expected, load_records
from augbench.report.numbers import Stat
from augbench.report.papers.comparison import compare
from augbench.report.papers.fidelity_layout import FidelityLayout, filled
from augbench.report.papers.layout_sheets import sections_of
from augbench.report.papers.layouts import LayoutComparison, Line, choose, find_layout
from augbench.report.papers.printed import METRICS
from augbench.report.render import data
from augbench.report.render.latex import to_latex
from augbench.report.render.markdown import to_markdown
from augbench.report.render.page import to_html
from augbench.report.render.terminal import to_terminal
from augbench.report.store_report import ALL, WAY_OUT, write_files
from augbench.storage.store import Store


def report_layout(
    store: Store,
    name: str,
    grid_name: str | None = None,
    expected: Iterable[Mapping[str, Any]] | None = None,
    dataset: str | None = None,
    protocol: str | None = None,
    out: Path | None = None,
    console: Console | None = None,
) -> list[str]:
    """Report the results next to a paper's table. Other arguments and the result as of `store_report.report`.

    Args:
        name: name of the layout, e.g. ``inout_table5``.
        grid_name: only the cells of this grid; None = those of all grids the store knows, or all its records where it
            knows none.
        dataset: name of the dataset in the grid; None = the paper's, or the only one.
        protocol: name of the protocol; None = the paper's, or the only one.
        out: output folder; None = ``STORE/reports/<grid>/``, with ``all`` for several grids or none.

    Raises:
        UserError: no such layout, grid, dataset or protocol; no store; a damaged record; one name for several settings.
    """
    known = sorted(store.keys("grids")) if grid_name is None else [grid_name]
    layout = find_layout(name)
    if isinstance(layout, FidelityLayout):
        if protocol is not None:
            raise UserError(f"--protocol does not choose images, which are all that {name} is about: leave it out")
        if not known and expected is None:
            raise UserError(f"store '{store.url}' knows no grid, so no pools: {WAY_OUT}, or give another")
        sections, table, numbers = filled(layout, store, _expected(store, known, expected), dataset)
    else:
        if not store.keys("cells"):
            raise UserError(f"store '{store.url}' does not exist or holds no records: {WAY_OUT}, or give another")
        cells = choose(layout, _expected(store, known, expected), dataset, protocol)
        records = load_records(store, cells["key"])
        whole = dict(zip(records["key"], store.read_records(list(records["key"])), strict=True))
        comparison = compare(layout, cells, records, whole, lambda key: store.where("cells", key))
        sections, table, numbers = sections_of(comparison), to_csv(comparison), to_json(comparison)
    contents = {
        f"{name}.md": to_markdown(name, sections).encode(),
        f"{name}.tex": to_latex(name, sections).encode(),
        f"{name}.csv": table.encode(),
        f"{name}.json": numbers,
        f"{name}.html": to_html(name, sections).encode(),
    }
    files = write_files(store, known[0] if len(known) == 1 else ALL, contents, out)
    if console is not None:  # last: a closed pipe or a full device must not cost a file
        console.print(to_terminal(sections[:1], console.width))
    return files


def _expected(store: Store, grids: list[str], given: Iterable[Mapping[str, Any]] | None) -> pd.DataFrame:
    """Return the expected cells of these grids without duplicates; without a grid, all records."""
    if given is not None:
        return expected_frame(given)
    if not grids:
        return expected_frame(load_records(store)[list(CELL_FIELDS)].to_dict("records"))
    cells = pd.concat([load_expected(store, name) for name in grids], ignore_index=True)
    return cells.drop_duplicates("key", ignore_index=True)


# -- numbers for other programs, at full precision


SIDES = ("theirs", "ours")


def to_csv(comparison: LayoutComparison) -> str:
    """Write one line per row of the paper's table, averages included.

    ``difference_`` is ours minus theirs, for rows without mismatches; ``mismatches`` lists the others' mismatches,
    separated by "; ".
    """
    return data.to_csv([_line(comparison, line) for line in comparison.lines])


def _line(comparison: LayoutComparison, line: Line) -> dict[str, Any]:
    layout = comparison.layout
    row = {
        "layout": layout.name,
        "paper": layout.paper.key,
        "table": layout.number,
        "dataset": comparison.dataset,
        "protocol": line.elsewhere or comparison.protocol,
        "shots": layout.rows[0].shots,
        "augmenter": line.augmenter,
        "row": "average" if line.is_average else "cells",
        "n_aug": line.n_aug,
        "found": line.found,
        "expected": line.expected,
        "copied_from": line.reference.copied_from if line.reference else "",
        "mismatches": "; ".join(comparison.mismatches[number - 1] for number in line.differs),
        "embedded": "; ".join(comparison.embedded),
    }
    for side in SIDES:
        for metric, stat in getattr(line, side).items():
            row |= {f"{side}_{metric}_mean": stat.mean, f"{side}_{metric}_std": stat.std}
    row |= {f"difference_{metric}": line.difference(metric) for metric in METRICS}
    return row | {"collapsed": len(line.collapsed), "caveats": "; ".join((*line.caveats, *comparison.caveats))}


def to_json(comparison: LayoutComparison) -> bytes:
    """Write the same numbers with captions and notes. Missing values are null."""
    layout, about = comparison.layout, comparison.layout.paper.about
    own = ("dataset", "protocol", "label", "embedded", "captions", "mismatches", "notes")
    content = {name: getattr(comparison, name) for name in own} | {
        "layout": layout.name,
        "title": layout.title,
        "paper": {"key": layout.paper.key, "table": layout.number, "reference": about.reference, "url": about.url},
        "shots": layout.rows[0].shots,
        "rows": [_row(comparison, line) for line in comparison.lines],
    }
    return data.to_json(content)


def _row(comparison: LayoutComparison, line: Line) -> dict[str, Any]:
    """Return a row; ``mismatches`` are positions in the list of the table, from 1 on."""
    names = ("augmenter", "label", "n_aug", "found", "expected", "incomplete", "comparable")
    return {name: getattr(line, name) for name in names} | {
        "collapsed": len(line.collapsed),
        "caveats": (*line.caveats, *comparison.caveats),
        "is_average": line.is_average,
        "protocol": line.elsewhere or comparison.protocol,
        "copied_from": line.reference.copied_from if line.reference else "",
        "mismatches": line.differs,
        "marks": {side: line.best.get(side, {}) for side in SIDES},
        "theirs": _stats(line.theirs),
        "ours": _stats(line.ours) if line.comparable else None,
        "difference": {metric: line.difference(metric) for metric in METRICS} if line.matches else None,
    }


def _stats(stats: Mapping[str, Stat]) -> dict[str, Any]:
    return {metric: {"mean": stat.mean, "std": stat.std} for metric, stat in stats.items()}
