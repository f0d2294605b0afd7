"""Comparison of a paper's table with the results of a store.

A row has a difference only where `matching` finds no mismatch; otherwise the mismatches are numbered. Missing results
are marked, never left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from math import isnan
from operator import attrgetter
from typing import Any

import pandas as pd

from augbench.core.errors import UserError
from augbench.report.numbers import average_of, share, stat_of
from augbench.report.papers.layouts import Layout, LayoutComparison, Line
from augbench.report.papers.matching import CHECKS, differences, ours_of
from augbench.report.papers.printed import METRICS, Paper, Reference
from augbench.report.runs import averaged, basis_of, over_runs
from augbench.report.table_notes import captions, caveat_notes, near_copies_text, table_caveats
from augbench.report.tables import folds_of

MARKS = "Bold is the best of a column, underlined the second best; of ours, among complete rows."
ORACLE = (
    "Precision and recall are those at the best F1 on the test images, so test labels chose the threshold; that theirs "
    "are, too, is read from published code."
)
LAST = len(CHECKS)  # mismatches of seeds and draws are listed after all that `matching` finds


def compare(
    layout: Layout, cells: pd.DataFrame, records: pd.DataFrame, contents: Mapping[str, Mapping[str, Any]],
    where: Callable[[str], str] = str,
) -> LayoutComparison:  # fmt: skip
    """Compare a paper's table with ours.

    Args:
        layout: the paper's table.
        cells: the expected cells of its rows, see `choose`.
        records: the cell records, see `frame.load_records`.
        contents: key -> the whole record, for each of ``records``.
        where: key -> name of its record in error messages.

    Raises:
        UserError: one augmenter stands for several settings, or a record is damaged.
    """
    found = {record.key: record for record in records.itertuples(index=False)}
    planned: dict[tuple[str, int], list[Any]] = {}
    for cell in cells.itertuples(index=False):
        planned.setdefault((cell.augmenter, cell.n_aug), []).append(cell)
    _check_one_meaning(layout, records)
    protocol = _main_protocol(layout, cells)
    lines = [
        _line(layout.paper, row, planned.get((row.augmenter, row.n_aug), []), found, protocol) for row in layout.rows
    ]
    lines, mismatches = _matched(layout, lines, contents, where)
    marked = _with_averages(layout, _ranked(_ranked(lines, "theirs"), "ours"))
    own = {cell.key: cell for line in lines for cell in line.cells}
    used = [record for key, record in found.items() if key in own]
    embedded = tuple(sorted({part for record in used for part in record.embedded}))
    return LayoutComparison(
        layout=layout,
        dataset=next((cell.dataset for cell in own.values()), ""),
        protocol=protocol,
        lines=tuple(marked),
        captions=(_their_caption(layout), *_our_captions(protocol, lines, used)),
        mismatches=mismatches,
        notes=(*_notes(layout, marked, used), *_ties(lines, contents)),
        embedded=embedded,
        caveats=table_caveats(next((cell.audit for cell in own.values()), None), folds_of(own.values()), embedded),
    )


def _check_one_meaning(layout: Layout, records: pd.DataFrame) -> None:
    """Raise UserError where one name stands for several settings, since their numbers must not be averaged."""
    names = ("dataset", "protocol")
    several = [name for name in names if (records.groupby(name)[f"{name}_id"].nunique() > 1).any()]
    # Rows with N_aug = 0 count separately, since they have no pool.
    settings = records.groupby(["augmenter", records["n_aug"] > 0])["augmenter_id"].nunique()
    several += [f"augmenter '{name}'" for name, _ in settings.index[settings > 1]]
    if several:
        what = f"{several[0]} stands for several settings among the store's cells of {layout.name}"
        raise UserError(f"{what}: give --grid FILE, the grid that is meant")


def _main_protocol(layout: Layout, cells: pd.DataFrame) -> str:
    """Return the protocol of the rows that are not copied; "" without cells."""
    names = list(dict.fromkeys(cells["protocol"]))
    theirs = layout.paper.about.protocol
    return theirs if theirs in names or not names else names[0]


def _line(paper: Paper, row: Reference, cells: list[Any], found: Mapping[str, Any], protocol: str) -> Line:
    basis, runs = basis_of(row.augmenter, cells, found)
    return Line(
        augmenter=row.augmenter,
        label=paper.about.printed_as[row.augmenter],
        n_aug=row.n_aug,
        theirs=row.stats,
        ours={metric: over_runs(runs, attrgetter(metric)) for metric in METRICS},
        reference=row,
        cells=tuple(cells),
        comparable=row.augmenter not in paper.about.baselines,
        elsewhere=next((cell.protocol for cell in cells if cell.protocol != protocol), ""),
        **basis.basis(),
    )


def _matched(
    layout: Layout, lines: Sequence[Line], contents: Mapping[str, Mapping[str, Any]], where: Callable[[str], str]
) -> tuple[list[Line], tuple[str, ...]]:
    """Return the lines with the numbers of their mismatches; and the mismatches, with the rows that they apply to."""
    about = layout.paper.about
    reasons: list[list[tuple[int, str]]] = []
    for line in lines:
        ours = [ours_of(contents[cell.key], where(cell.key)) for cell in line.cells if cell.key in contents]
        found = [reason for one in ours for reason in differences(line.reference, about, one)]
        if ours:
            found += [(LAST, text) for text in _spread(line, about.seeds)]
        reasons.append(found)
    order: dict[str, int] = {}
    for _, text in sorted((reason for found in reasons for reason in found), key=lambda reason: reason[0]):
        order.setdefault(text, len(order) + 1)
    numbered = [
        replace(line, differs=tuple(sorted({order[text] for _, text in found})))
        for line, found in zip(lines, reasons, strict=True)
    ]
    return numbered, tuple(f"{text}{_scope(numbered, number)}" for text, number in order.items())


def _spread(line: Line, seeds: int | None) -> Iterator[str]:
    """Yield mismatches in seeds and draws, of expected cells, since missing ones are marked anyway."""
    counts = {axis: len({getattr(cell, axis) for cell in line.cells}) for axis in ("seed", "draw")}
    if seeds is not None and any(cell.seed is None for cell in line.cells):
        yield f"no seed, as nothing is random in it; theirs {seeds}"
    elif seeds is not None and counts["seed"] != seeds:
        yield f"{counts['seed']} seed{'s' * (counts['seed'] > 1)}, theirs {seeds}"
    if counts["draw"] > 1:
        yield f"{counts['draw']} draws of the shots, theirs 1"


def _scope(lines: Sequence[Line], number: int) -> str:
    """Name the rows that a mismatch applies to, `` (DDPM, In&Out 80)``; "" where it applies to all with records."""
    held = [line for line in lines if line.found]
    if all(number in line.differs for line in held):
        return ""
    labels = []
    for name in dict.fromkeys(line.augmenter for line in held):
        block = [line for line in held if line.augmenter == name]
        hit = [line for line in block if number in line.differs]
        labels += [block[0].label] if len(hit) == len(block) else [f"{line.label} {line.n_aug}" for line in hit]
    return f" ({', '.join(labels)})"


def _ranked(lines: Sequence[Line], side: str) -> list[Line]:
    """Mark the best and the second best of each metric, if several lines are complete.

    Values that are equal at the printed digits tie.
    """
    marks: list[dict[str, str]] = [{} for _ in lines]
    for metric in METRICS:
        values = {
            index: getattr(line, side)[metric].mean
            for index, line in enumerate(lines)
            if side == "theirs" or not (line.incomplete or line.collapsed)
        }
        texts = {index: share(value) for index, value in values.items() if not isnan(value)}
        best = sorted(set(texts.values()), key=float, reverse=True)[:2] if len(texts) > 1 else []
        for index, text in texts.items():
            if text in best:
                marks[index][metric] = ("best", "second")[best.index(text)]
    return [replace(line, best={**line.best, side: mark}) for line, mark in zip(lines, marks, strict=True)]


def _with_averages(layout: Layout, lines: Sequence[Line]) -> list[Line]:
    if not layout.paper.about.tables[layout.number].average:
        return list(lines)
    result: list[Line] = []
    for _, block in groupby(lines, key=lambda line: line.augmenter):
        result += (block := list(block))
        averaged = [line for line in block if line.n_aug]
        result += [_average(averaged)] if len(averaged) > 1 else []
    return result


def _average(block: Sequence[Line]) -> Line:
    """Average over N_aug > 0 as the papers do: mean of the means and mean of the standard deviations."""
    return Line(
        augmenter=block[0].augmenter,
        label="Average",
        n_aug=None,
        theirs={metric: average_of([line.theirs[metric] for line in block]) for metric in METRICS},
        ours={metric: average_of([line.ours[metric] for line in block]) for metric in METRICS},
        differs=tuple(sorted({number for line in block for number in line.differs})),
        **averaged(block) | ({} if all(line.expected for line in block) else {"expected": 0}),
    )


def _their_caption(layout: Layout) -> str:
    about, row = layout.paper.about, next(row for row in layout.rows if not row.copied_from)
    spread = "mean (standard deviation)" if about.prints_std else "mean, without standard deviation"
    seeds = f"over {about.seeds} seeds" if about.seeds else "of seeds whose number is not stated"
    return f"Theirs: {row.dataset}, protocol {row.protocol}; {spread} {seeds}; AP is {row.ap_words}."


def _our_captions(protocol: str, lines: Sequence[Line], records: list[Any]) -> list[str]:
    planned = [list(line.cells) for line in sorted(lines, key=lambda line: bool(line.elsewhere)) if line.cells]
    if not planned:
        return ["Ours: no grid of this store has any of these rows."]
    leak = near_copies_text(planned[0][0].audit, folds_of([cell for cells in planned for cell in cells]))
    ours = f"Ours: {planned[0][0].dataset}, protocol {protocol}."
    return [ours, *captions(planned, records), *([leak] if leak else [])]


def _notes(layout: Layout, lines: Sequence[Line], records: list[Any]) -> list[str]:
    about = layout.paper.about
    rows = [line for line in lines if not line.is_average]
    copied = dict.fromkeys(_copied_text(layout, row) for row in layout.rows if row.copied_from)
    notes = [
        *_missing(rows),
        *caveat_notes(rows, "detection"),
        *(f"\N{DAGGER} {text}" for text in copied),
        *_from_elsewhere(rows),
    ]
    if any(line.is_average for line in lines):
        notes.append(
            "Average: mean of the means and mean of the standard deviations over N_aug > 0, as the paper does."
        )
    notes += [MARKS, ORACLE]
    notes += [f"{text[0].upper()}{text[1:]}." for text in about.not_stated.values()]
    return notes + list(dict.fromkeys(note for record in records for note in record.notes))


def _ties(lines: Sequence[Line], contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Give the AP of rows in which images of equal score raise the trapezoidal AP, where records hold both."""
    found = []
    for line in lines:
        results = [contents[cell.key]["result"] for cell in line.cells if cell.key in contents]
        if results and all("ap_trapezoidal_ties" in result for result in results):
            spread = share(stat_of(result["ap_trapezoidal_ties"] for result in results).mean)
            if spread != share(stat_of(result["ap"] for result in results).mean):
                found.append(f"{line.label} {line.n_aug} {spread}")
    return [f"With images of equal score spread over one another, our AP is: {', '.join(found)}."] if found else []


def _missing(rows: Sequence[Line]) -> list[str]:
    open_rows = [line for line in rows if line.incomplete]
    if not open_rows:
        return []
    found, expected = sum(line.found for line in rows), sum(line.expected for line in rows)
    unplanned = sum(not line.expected for line in open_rows)
    parts = [f"{found} of {expected} cells have a record"] if found < expected else []
    if unplanned:
        parts.append(f"{unplanned} of {sum(line.comparable for line in rows)} rows are in no grid of the store")
    return [f"* incomplete: {'; '.join(parts or ['folds are missing'])}. Such a row has no difference."]


def _from_elsewhere(rows: Sequence[Line]) -> list[str]:
    labels: dict[str, list[str]] = {}
    for protocol, label in dict.fromkeys((line.elsewhere, line.label) for line in rows if line.elsewhere):
        labels.setdefault(protocol, []).append(label)
    reason = "as theirs are: they compare with theirs, and not with our other rows"
    return [f"{', '.join(names)}: ours are under protocol {protocol}, {reason}." for protocol, names in labels.items()]


def _copied_text(layout: Layout, row: Reference) -> str:
    """Describe a row that the paper copied from elsewhere, so from another protocol than its other rows."""
    about = layout.paper.about
    source, table = row.source_paper, row.copied_from.partition(" table ")[2]
    where = about.sources.get(source, source) + (f", Table {table}" if table else "")
    name = about.printed_as[row.augmenter]
    what = f"{name}: copied by the paper from {where}"
    if row.augmenter in about.baselines:
        return f"{what}: {about.baselines[row.augmenter]}; it has no counterpart here."
    return f"{what}, so obtained under protocol {row.protocol}, not {about.protocol}; AP is {row.ap_words}."
