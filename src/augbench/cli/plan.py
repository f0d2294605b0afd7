"""`augbench plan`: expand a grid without running it."""

from __future__ import annotations

from augbench.cli.options import GridArgument, RootOption, SetOption, StoreOption


def plan(grid: GridArgument, changes: SetOption = None, roots: RootOption = None, store: StoreOption = None) -> None:
    """Print the trainings and images of a grid, and which are done or left. Starts nothing.

    Example: augbench plan tune_configs/first_look.yaml
    """
    from augbench import api
    from augbench.cli.plan_view import print_plan
    from augbench.report.render.terminal import standard_output

    made = api.plan(api.load_grid(grid, changes or (), roots or ()), store)
    print_plan(made.plan, made.remaining, made.store, standard_output())
