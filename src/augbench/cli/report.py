"""`augbench report`: the tables of a store."""

from __future__ import annotations

from typing import Annotated

import typer

from augbench.cli.options import (
    GridOption,
    OutOption,
    RootOption,
    SetOption,
    VerboseOption,
    VerdictsOption,
    reported_grid,
)


def report(
    store: Annotated[str, typer.Argument(help="The store to report on: a folder or a URL.")],
    grid: GridOption = None,
    changes: SetOption = None,
    roots: RootOption = None,
    out: OutOption = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            metavar="NAME",
            help="Compare with a table of a paper, e.g. inout_table5 (an unknown name lists all).",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="NAME", help="With --layout: the dataset to use.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", metavar="NAME", help="With --layout: the protocol to use.")
    ] = None,
    verdicts: VerdictsOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print the mean (std) tables of a store, and write them as Markdown, LaTeX, CSV and JSON.

    Example: augbench report results/demo --out runs/report
    """
    from augbench.api import cells_of
    from augbench.core.errors import UserError
    from augbench.report.papers.layout_report import report_layout
    from augbench.report.papers.layouts import find_layout
    from augbench.report.render.terminal import standard_output
    from augbench.report.store_report import report as write_report
    from augbench.storage.store import Store

    target, console = Store(store), standard_output()
    if layout is None and (dataset or protocol):
        raise UserError("--dataset and --protocol choose what a paper's table is filled with: give --layout NAME too")
    if layout is not None and verdicts:
        raise UserError("--verdicts is about the tables of the grid: leave out --layout")
    if layout is not None:
        find_layout(layout)  # before planning, which may take long
    name, expected = cells_of(target, reported_grid(grid, changes, roots, out))
    if layout is None:
        write_report(target, name, expected=expected, out=out, console=console, verdicts=verdicts, verbose=verbose)
    else:
        report_layout(target, layout, name, expected, dataset, protocol, out=out, console=console)
