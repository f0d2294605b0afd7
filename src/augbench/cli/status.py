"""`augbench status`: the progress of the grids of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from augbench.cli.options import GridOption, RootOption, SetOption

if TYPE_CHECKING:
    from augbench.monitoring.known_grids import KnownGrid
    from augbench.storage.store import Store


def status(
    store: Annotated[str, typer.Argument(help="The store to look at: a folder or a URL.")],
    grid: GridOption = None,
    changes: SetOption = None,
    roots: RootOption = None,
    watch: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=1, max=86_400, help="Repeat at this interval until all is done."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line and report.")] = False,
) -> None:
    """Print the progress of a store: units done, running, failed, missing; drivers; time left.

    Example: augbench status results/demo
    """
    import time
    from functools import partial

    from augbench.cli.status_view import print_status, to_json
    from augbench.monitoring.status import look
    from augbench.report.render.terminal import standard_output
    from augbench.storage.store import Store

    target = Store(store)
    grids = _grids(target, grid, changes, roots)
    console = standard_output()
    print_report = (lambda found: typer.echo(to_json(found))) if as_json else partial(print_status, console=console)
    was_running = False
    while True:
        found = look(target, grids)
        if watch is not None and console.is_terminal and not as_json:
            console.clear()
        print_report(found)
        at_work = any(grid.drivers for grid in found.grids)
        if watch is None or found.done or (was_running and not at_work):  # all drivers have gone
            return
        was_running = was_running or at_work
        try:
            time.sleep(watch)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _grids(store: Store, grid: str | None, changes: list[str] | None, roots: list[str] | None) -> list[KnownGrid]:
    """Return the grids to report on: planned from a file, or read from the store."""
    from augbench.core.errors import UserError
    from augbench.monitoring.known_grids import known_from_plan, known_from_store
    from augbench.planning.grid import is_grid_file, load_grid
    from augbench.planning.library import with_roots

    if grid is None or not is_grid_file(grid):
        if changes or roots:
            raise UserError("--set and --root are for the datasets of a grid file: give --grid FILE too")
        return known_from_store(store, grid)
    from augbench.planning.plan import make_plan

    every = with_roots(grid, changes, roots)
    loaded = load_grid(grid, every)
    made = make_plan(loaded, store if store.exists() else None)
    if made.absent:
        raise UserError(
            f"dataset '{made.absent[0]}' of grid '{grid}' is not available, and keys depend on its files: "
            f"give --root {made.absent[0]}=DIR, or the grid by its name, --grid {loaded.name}"
        )
    arguments = [grid, *(argument for change in every for argument in ("--set", change))]
    return [known_from_plan(made, store, arguments)]
