"""Options shared by several commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from augbench.planning.grid import Grid
    from augbench.storage.store import Store

GridArgument = Annotated[Path, typer.Argument(metavar="GRID", help="A grid file, e.g. tune_configs/demo.yaml.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the grid, e.g. --set seeds=[0,1]. May be repeated."),
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="The store of the results: a folder or a URL (s3://...). Default: runs/<grid name>."),
]
RootOption = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        metavar="[NAME=]DIR",
        help="Directory of a dataset's files; several datasets need NAME. Default: $AUGBENCH_DATA/NAME.",
    ),
]
GridOption = Annotated[
    str | None,
    typer.Option("--grid", metavar="GRID", help="A grid of the store by name, or a grid file. Default: all of it."),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Write there instead of STORE/reports/<grid>.")]


def named_dataset(asked: str, roots: Sequence[str] | None = None) -> tuple[str, Path | None]:
    """Return the dataset that is meant by a name or a path, and its root: a path is a folder of dataset `folder`.

    Raises:
        UserError: it is neither, or a root names another dataset or no folder.
    """
    from augbench.core import registry
    from augbench.core.errors import UserError
    from augbench.planning.library import resolve_roots
    from augbench.storage.files import expanded

    if asked not in registry.find("datasets"):
        if (folder := expanded(asked)).is_dir():
            if roots:
                raise UserError(f"--root '{roots[0]}': '{asked}' is the folder already: leave out --root")
            return "folder", folder
        if "/" in asked or "\\" in asked:
            raise UserError(f"'{asked}' is neither a dataset (see augbench datasets list) nor a folder")
    registry.get("datasets", asked)  # raises with the nearest name
    root = resolve_roots(roots or (), {asked: asked}).get(asked)
    return asked, None if root is None else Path(root)


VerboseOption = Annotated[bool, typer.Option("--verbose", help="Print every column, and all notes beside each table.")]
VerdictsOption = Annotated[
    bool, typer.Option("--verdicts", help="State above each table which differences exceed chance, as compare does.")
]


def print_line(console: Console, line: str = "") -> None:
    """Print a line as it is: without markup, and broken by the terminal alone."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def store_of(location: str | None, grid_name: str) -> Store:
    """Open the store of ``--store``, or the default store of a grid."""
    from augbench.storage.store import Store

    return Store(location if location is not None else Path("runs") / grid_name)


def reported_grid(
    grid: str | None, changes: Sequence[str] | None, roots: Sequence[str] | None, out: Path | None
) -> str | Grid | None:
    """Return the grid to report on: by its name in the store, or read from a file; check the other options.

    Raises:
        UserError: the grid is invalid, ``out`` is a file, or the changes and roots have no grid file that they could be
            for.
    """
    from augbench.api import load_grid
    from augbench.core.errors import UserError
    from augbench.planning.grid import is_grid_file

    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    if grid is None or not is_grid_file(grid):
        if changes or roots:
            raise UserError("--set and --root are for the datasets of a grid file: give --grid FILE too")
        return grid
    return load_grid(grid, changes or (), roots or ())
