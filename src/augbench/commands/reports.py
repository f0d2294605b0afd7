"""Commands that say what came out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from augbench.commands.options import SetOption


def add_to(app: typer.Typer) -> None:
    """Put these commands into the command line."""
    app.command()(report)
    app.command()(compare)
    app.command()(leaderboard)


def report(
    store: Annotated[str, typer.Argument(help="The store to report on: a folder or a URL.")],
    grid: Annotated[Path | None, typer.Option("--grid", help="Report on the cells of this grid file.")] = None,
    changes: SetOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write there instead of STORE/reports/<grid>.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            metavar="NAME",
            help="Lay it beside a paper's table, e.g. inout_table5 (a wrong name lists them).",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="NAME", help="With --layout: which of the store's datasets.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", metavar="NAME", help="With --layout: which of its protocols.")
    ] = None,
) -> None:
    """Print the mean (std) tables of a store, and write them as Markdown, LaTeX, CSV and JSON."""
    from augbench.core.errors import UserError
    from augbench.core.expected import expected_of
    from augbench.core.grid import load_grid
    from augbench.core.plan import make_plan
    from augbench.core.store import Store
    from augbench.report.papers.layouts import find_layout
    from augbench.report.papers.write import report_layout
    from augbench.report.render import standard_output
    from augbench.report.write import report as write_report

    target, console = Store(store), standard_output()
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    if changes and grid is None:
        raise UserError("--set changes a grid: give --grid FILE too")
    if layout is None and (dataset or protocol):
        raise UserError("--dataset and --protocol choose what a paper's table is filled with: give --layout NAME too")
    if layout is not None:
        find_layout(layout)  # before a grid is planned, which may take long
    name, expected = None, None
    if grid is not None:
        made = make_plan(load_grid(grid, changes or ()), target)
        for label in made.absent:
            made.library.dataset(label).root()  # its keys need its files
        name, expected = made.grid.name, expected_of(made)
    if layout is None:
        write_report(target, name, expected=expected, out=out, console=console)
    else:
        report_layout(target, layout, name, expected, dataset, protocol, out=out, console=console)


def compare(
    store: Annotated[str, typer.Argument(help="The store whose rows are compared: a folder or a URL.")],
    grid: Annotated[
        str | None, typer.Option("--grid", metavar="GRID", help="A grid of the store by name, or a grid file.")
    ] = None,
    changes: SetOption = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="NAME", help="The augmenter to compare with. Default: none, else memseg."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write there instead of STORE/reports/<grid>.")] = None,
    resamples: Annotated[int, typer.Option(min=200, max=100_000, help="Of the bootstrap.")] = 2000,
) -> None:
    """Say which differences of a store's tables are more than chance, what they cost, and how sure that is."""
    from augbench.core.errors import UserError
    from augbench.core.expected import expected_of
    from augbench.core.grid import load_grid
    from augbench.core.plan import make_plan
    from augbench.core.store import Store
    from augbench.report.evidence.write import compare as write_comparison
    from augbench.report.render import standard_output

    target, console = Store(store), standard_output()
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    name, expected = grid, None
    is_file = grid is not None and (grid.endswith((".yaml", ".yml")) or Path(grid).is_file())
    if changes and not is_file:
        raise UserError("--set changes a grid: give --grid FILE too")
    if grid is not None and is_file:
        made = make_plan(load_grid(grid, changes or ()), target)
        for label in made.absent:
            made.library.dataset(label).root()  # its keys need its files
        name, expected = made.grid.name, expected_of(made)
    write_comparison(target, name, expected, against, resamples, out, console)


class PicturesOf(StrEnum):
    """Which pictures a leaderboard embeds."""

    all = "all"
    none = "none"


def leaderboard(
    stores: Annotated[list[str], typer.Argument(metavar="STORE", help="Folders or URLs; cells are merged by key.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for index.html, leaderboard.md and records/.")],
    pictures: Annotated[
        PicturesOf, typer.Option(help="Embed small pictures of pools and datasets: mind the licences it names.")
    ] = PicturesOf.all,
) -> None:
    """Write one self-contained page of several stores: tables, plots, pictures, and the records behind every number."""
    from functools import partial

    from augbench.core.store import Store
    from augbench.report.leaderboard.write import write_leaderboard
    from augbench.report.render import standard_output

    say = partial(standard_output().print, markup=False, highlight=False, soft_wrap=True)
    page, _ = write_leaderboard([Store(store) for store in stores], out, pictures is PicturesOf.all, say)
    say(f"Written: {page}")
