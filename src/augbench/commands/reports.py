"""Commands that say what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augbench.commands.options import SetOption


def add_to(app: typer.Typer) -> None:
    """Put these commands into the command line."""
    app.command()(report)


def report(
    store: Annotated[str, typer.Argument(help="The store to report on: a folder or a URL.")],
    grid: Annotated[Path | None, typer.Option("--grid", help="Report on the cells of this grid file.")] = None,
    changes: SetOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write there instead of STORE/reports/<grid>.")] = None,
) -> None:
    """Print the mean (std) tables of a store, and write them as Markdown, LaTeX, CSV and JSON."""
    from augbench.core.errors import UserError
    from augbench.core.expected import expected_of
    from augbench.core.grid import load_grid
    from augbench.core.plan import make_plan
    from augbench.core.store import Store
    from augbench.report.render import standard_output
    from augbench.report.write import report as write_report

    target, console = Store(store), standard_output()
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    if changes and grid is None:
        raise UserError("--set changes a grid: give --grid FILE too")
    if grid is None:
        write_report(target, None, out=out, console=console)
        return
    made = make_plan(load_grid(grid, changes or ()), target)
    for label in made.absent:
        made.library.dataset(label).root()  # its keys need its files
    write_report(target, made.grid.name, expected=expected_of(made), out=out, console=console)
