"""`augbench compare`: significance tests of the differences between augmenters."""

from __future__ import annotations

from typing import Annotated

import typer

from augbench.cli.options import GridOption, OutOption, RootOption, SetOption, VerboseOption, reported_cells


def compare(
    store: Annotated[str, typer.Argument(help="The store whose rows are compared: a folder or a URL.")],
    grid: GridOption = None,
    changes: SetOption = None,
    roots: RootOption = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="NAME", help="The augmenter to compare with. Default: none, else memseg."),
    ] = None,
    out: OutOption = None,
    resamples: Annotated[int, typer.Option(min=200, max=100_000, help="Number of bootstrap resamples.")] = 2000,
    verbose: VerboseOption = False,
) -> None:
    """Print which differences in a store's tables are significant, what they cost, and how certain that is."""
    from augbench.report.evidence.comparison_report import compare as write_comparison
    from augbench.report.render.terminal import standard_output
    from augbench.storage.store import Store

    target, console = Store(store), standard_output()
    name, expected = reported_cells(grid, changes, roots, out, target)
    write_comparison(target, name, expected, against, resamples, out, console, verbose)
