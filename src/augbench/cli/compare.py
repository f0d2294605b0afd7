"""`augbench compare`: significance tests of the differences between augmenters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augbench.cli.options import RootsOption, SetOption, planned_cells, with_roots


def compare(
    store: Annotated[str, typer.Argument(help="The store whose rows are compared: a folder or a URL.")],
    grid: Annotated[
        str | None, typer.Option("--grid", metavar="GRID", help="A grid of the store by name, or a grid file.")
    ] = None,
    changes: SetOption = None,
    roots: RootsOption = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="NAME", help="The augmenter to compare with. Default: none, else memseg."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write there instead of STORE/reports/<grid>.")] = None,
    resamples: Annotated[int, typer.Option(min=200, max=100_000, help="Number of bootstrap resamples.")] = 2000,
) -> None:
    """Print which differences in a store's tables are significant, what they cost, and how certain that is."""
    from augbench.core.errors import UserError
    from augbench.report.evidence.comparison_report import compare as write_comparison
    from augbench.report.render.terminal import standard_output
    from augbench.storage.store import Store

    target, console = Store(store), standard_output()
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    name, expected = grid, None
    is_file = grid is not None and (grid.endswith((".yaml", ".yml")) or Path(grid).is_file())
    if (changes or roots) and not is_file:
        raise UserError("--set and --root are for the datasets of a grid file: give --grid FILE too")
    if grid is not None and is_file:
        name, expected = planned_cells(Path(grid), with_roots(changes, roots), target)
    write_comparison(target, name, expected, against, resamples, out, console)
