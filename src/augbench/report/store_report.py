"""Reports of a store: print them and write them as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import pandas as pd
from rich.console import Console

from augbench.core.errors import UserError
from augbench.report.evidence.build import Evidence, build_evidence
from augbench.report.evidence.evidence_plots import curves_of, has_curve
from augbench.report.evidence.sheets import verdicts_of, worth_section
from augbench.report.fidelity_table import load_measured
from augbench.report.frame import expected_frame, expected_from_records, load_expected, load_records, with_audits
from augbench.report.older_versions import OlderRow, older_keys, older_records, older_rows, older_sections
from augbench.report.references import with_reference
from augbench.report.render.latex import to_latex
from augbench.report.render.markdown import to_markdown
from augbench.report.render.terminal import to_brief, to_terminal
from augbench.report.sheet import WIDTH, Medium, Section
from augbench.report.table_exports import to_csv, to_json
from augbench.report.tables import Table, build_tables
from augbench.storage.files import write_atomic
from augbench.storage.store import Store

WAY_OUT = "run a grid first: augbench run GRID.yaml"
FEW_CELLS = 200  # up to which a report says what its tables show, in some seconds
TOO_MANY = (
    f"Which differences are more than chance is said of up to {FEW_CELLS} cells, as it takes a while: "
    "see augbench compare, or --verdicts."
)
MEAN = "Number (number): mean and sample standard deviation over the runs of a row."
SHOWN = (
    "Shown to improve: the 95 % interval of the paired difference, for all rows of a table at once, is above 0; "
    "augbench compare prints each difference."
)
NAMELESS = "folder"  # the dataset of users' own images, where they gave it no name
ALL = "all"  # name of the report of a store that knows no grid


def report(
    store: Store,
    grid_name: str | None = None,
    expected: Iterable[Mapping[str, Any]] | None = None,
    out: Path | None = None,
    console: Console | None = None,
    verdicts: bool = False,
    verbose: bool = False,
) -> list[str]:
    """Report one grid of a store, or every grid it knows. Where it knows none, report all records as one.

    Of up to `FEW_CELLS` cells, and of more with ``verdicts``, it also draws the headline metric over N_aug
    (``dose.svg``) and over real defects (``real_defects.svg``), and says what synthetic images are worth in real ones.

    Args:
        store: the store of a run.
        grid_name: the grid's name; None = each grid that has a record.
        expected: the grid's cells, where the caller planned it (`planning.outline.expected_of`); None = load them
            from the store.
        out: output folder; None = ``STORE/reports/<grid>/``. Several reported grids get a folder each in it.
        console: also print the tables to it, each under a sentence that says what it shows; of a grid of more than
            `FEW_CELLS` cells only with ``verdicts``.
        verdicts: state above each table which differences exceed chance; takes as long as a comparison.
        verbose: print every column, and all notes under each table.

    Returns:
        The files written: paths, or URLs for a remote store.

    Raises:
        UserError: no store, no record, an unknown grid, or a damaged record.
    """
    files: list[str] = []
    made: dict[str, tuple[list[Table], list[OlderRow]]] = {}
    worths: dict[str, list[Section]] = {}
    found = reported(store, grid_name, expected)
    for name, cells, records in found:
        tables, older = tables_of(store, name, cells, records)
        evidence, problem = _evidence(store, cells, records, verdicts, console is not None or has_curve(tables))
        decided = verdicts_of(evidence)
        for table in tables:
            table.lead, sentences = decided.get(table.title, (problem, []))
            table.verdicts = sentences if verdicts else []
        made[name] = tables, older
        worths[name] = worth_section(evidence)
        drawn = curves_of(evidence)
        images = [(title, file) for file, (title, _) in drawn.items()]
        contents = {
            "report.md": to_markdown(name, [*sections_of(tables, "markdown", older), *worths[name]], images).encode(),
            "report.tex": to_latex(name, [*sections_of(tables, "latex", older), *worths[name]]).encode(),
            "report.csv": to_csv(tables).encode(),
            "report.json": to_json(name, tables),
            **{file: svg.encode() for file, (_, svg) in drawn.items()},
        }
        files += write_files(store, name, contents, out / name if out and len(found) > 1 else out)
    if console is not None:  # last: a closed pipe or a full device must not cost a file
        print_reports(made, console, verbose, worths)
    return files


def tables_of(
    store: Store, name: str, cells: pd.DataFrame, records: pd.DataFrame
) -> tuple[list[Table], list[OlderRow]]:
    """Return the tables of a grid, and the rows of earlier versions of plug-ins; arguments as `reported` has them."""
    tables, places = build_tables(cells, records, load_measured(store, cells)), places_of(store, name)
    for table in tables:
        table.place = places.get(table.dataset, "")
    return tables, older_rows(older_records(store, records))


def _evidence(
    store: Store, cells: pd.DataFrame, records: pd.DataFrame, verdicts: bool, wanted: bool
) -> tuple[list[Evidence], str]:
    """Return the evidence behind the sentences, curves and worths of a report, and why there is none.

    A comparison takes 10 to 30 ms a cell, so there is none of many cells without ``verdicts``.
    """
    if not verdicts and (len(records) > FEW_CELLS or not wanted):
        return [], ""
    try:
        return build_evidence(store, cells, records), ""
    except UserError as error:
        if verdicts:
            raise
        return [], f"No differences: {error}."  # the tables need no scores


def places_of(store: Store, grid_name: str) -> dict[str, str]:
    """Return dataset -> name of its folder, of the datasets that a grid calls only `folder`."""
    grid = (store.read_json("grids", grid_name) or {}).get("grid") or {}
    roots = {one["name"]: one["settings"].get("root") for one in grid.get("datasets", ()) if not one.get("as")}
    return {NAMELESS: PurePath(roots[NAMELESS]).name} if roots.get(NAMELESS) else {}


def reported(
    store: Store, grid_name: str | None, expected: Iterable[Mapping[str, Any]] | None
) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Return name, expected cells and records of the grids to report: those with a record. Arguments as in `report`.

    Raises:
        UserError: no store, no record, an unknown grid, or a damaged record.
    """
    if not store.keys("cells"):
        raise UserError(f"store '{store.url}' does not exist or holds no records: {WAY_OUT}, or give another")
    names = sorted(store.keys("grids")) if grid_name is None else [grid_name]
    if not names:
        records = load_records(store)
        records = records[~records["key"].isin(older_keys(records, named=set()))]
        return [(ALL, with_reference(expected_from_records(records), records), records)]
    planned = None if expected is None else with_audits(store, expected_frame(expected))
    every = [(name, load_expected(store, name) if planned is None else planned) for name in names]
    loaded = [(name, cells, load_records(store, cells["key"])) for name, cells in every]
    found = [(name, with_reference(cells, records), records) for name, cells, records in loaded]
    if not any(len(records) for _, _, records in found):
        what = f"grid '{names[0]}'" if len(names) == 1 else f"its {len(names)} grids"
        raise UserError(f"store '{store.url}' holds no record of {what}: {WAY_OUT}")
    return [one for one in found if len(one[2])]


def print_reports(
    made: Mapping[str, tuple[Sequence[Table], Sequence[OlderRow]]],
    console: Console,
    verbose: bool = False,
    worths: Mapping[str, Sequence[Section]] = MappingProxyType({}),
) -> None:
    """Print the tables of grids, and that rows of earlier versions of plug-ins are not among them.

    Args:
        made: name of a grid -> its tables, and the rows of earlier versions.
        console: where to.
        verbose: print every column, and all notes under each table; else what fits, and each legend once.
        worths: name of a grid -> the section of what its rows are worth in real defects.
    """
    numbers: dict[str, int] | None = None if verbose else {}
    sections = []
    for name, (tables, older) in made.items():
        sections += [Section(name), *sections_of(tables, "terminal", older, numbers, console.width)]
        sections += worths.get(name, ())
    if numbers is None:
        console.print(to_terminal(sections, console.width))
    else:
        marked = [f"({number}) {note}" for note, number in numbers.items()]
        every = [table for tables, _ in made.values() for table in tables if len(table.rows) > 1]
        about = [*[SHOWN] * any(table.lead for table in every), *[TOO_MANY] * any(not table.lead for table in every)]
        console.print(to_brief(sections, console.width, [MEAN, *about, *marked]))


def sections_of(
    tables: Sequence[Table],
    medium: Medium,
    older: Sequence[OlderRow] = (),
    numbers: dict[str, int] | None = None,
    width: int = WIDTH,
) -> list[Section]:
    """Return the sections of all tables, see `Table.sections`, and of the rows of earlier versions of plug-ins."""
    own = [section for table in tables for section in table.sections(medium, numbers, width)]
    return [*own, *older_sections(older, medium)]


def write_files(store: Store, name: str, contents: Mapping[str, bytes], out: Path | None) -> list[str]:
    """Write the files of a grid's report, each atomically.

    Args:
        store: the store to write to, unless ``out`` is given.
        name: name of the grid.
        contents: file name -> bytes.
        out: folder to write to instead of ``STORE/reports/<name>/``.

    Returns:
        The files written: paths, or URLs for a remote store.
    """
    if out is not None:
        for file, content in contents.items():
            write_atomic(out / file, content)
        return [str(out / file) for file in contents]
    for file, content in contents.items():
        store.files.write(store.report_name(name, file), content)
    return [store.files.where(store.report_name(name, file)) for file in contents]
