"""`augbench compare`: significance tests of the differences between augmenters."""

from __future__ import annotations

from typing import Annotated

import typer

from augbench.cli.options import GridOption, OutOption, RootOption, SetOption, VerboseOption, reported_grid


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
    """Print which differences in a store's tables are significant, what they cost, and how certain that is.

    Example: augbench compare results/magnetic_tile_diag --out runs/compare
    """
    from augbench import api
    from augbench.report.evidence.comparison_report import print_comparisons, write_comparisons
    from augbench.report.render.terminal import standard_output

    found = api.compare(store, reported_grid(grid, changes, roots, out), against, resamples)
    write_comparisons(found.store, found.grids, out)
    print_comparisons(found.grids, standard_output(), verbose)  # last: a closed pipe must not cost a file
