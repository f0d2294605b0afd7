"""`augbench plan`: expand a grid without running it."""

from __future__ import annotations

from augbench.cli.options import GridArgument, RootOption, SetOption, StoreOption, store_of, with_roots


def plan(grid: GridArgument, changes: SetOption = None, roots: RootOption = None, store: StoreOption = None) -> None:
    """Print the trainings and images of a grid, and which are done or left. Starts nothing."""
    from augbench.cli.plan_view import print_plan
    from augbench.planning.grid import load_grid
    from augbench.planning.plan import make_plan
    from augbench.planning.remaining import subtract
    from augbench.report.render.terminal import standard_output

    loaded = load_grid(grid, with_roots(grid, changes, roots))
    target = store_of(store, loaded.base)
    made = make_plan(loaded, target if target.exists() else None)
    print_plan(made, subtract(made, target), target, standard_output())
