"""`augbench run`: complete a grid."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from augbench.cli.options import (
    GridArgument,
    RootOption,
    SetOption,
    StoreOption,
    VerdictsOption,
    print_line,
    store_of,
)

Executor = StrEnum("Executor", ["ray", "inline"])


def run(
    grid: GridArgument,
    changes: SetOption = None,
    roots: RootOption = None,
    store: StoreOption = None,
    executor: Annotated[Executor, typer.Option(help="ray, or inline: in this process only.")] = Executor.ray,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster, e.g. auto.")] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOOL[=WHERE]",
            help="Report trainings to tensorboard[=DIR], mlflow[=URI] or wandb[=PROJECT]. May be repeated.",
        ),
    ] = None,
    verdicts: VerdictsOption = False,
) -> None:
    """Complete a grid: generate images, train, print the table. Finished work is not repeated.

    Example: augbench run tune_configs/first_look.yaml --executor inline
    """
    from augbench import api
    from augbench.cli.output import lasting_console
    from augbench.runner.sigterm import STATUS

    loaded = api.load_grid(grid, changes or (), roots or ())
    target = store_of(store, loaded.base)
    with lasting_console(f"see augbench status {target.url}; the same command makes what is missing") as console:
        options = {"address": address, "track": track or (), "verdicts": verdicts}
        summary = api.run(loaded, target, executor.value, partial=True, console=console, **options).summary
        again = f"run the same command again to go on (store: {target.url})"
        if summary.interrupted:
            print_line(console, f"Stopped: {summary.done} of {summary.cells} cells are done; {again}.")
            raise typer.Exit(STATUS if summary.terminated else 130)
        for key, line in list(summary.failures.items())[:10]:
            waiting = f" ({summary.blocked[key]} cells wait for it)" if summary.blocked[key] else ""
            print_line(console, f"failed: {key}: {line}{waiting}")
        if summary.failures:
            missing = f"{summary.cells - summary.done} of {summary.cells} cells are missing"
            print_line(console, f"{missing}; logs: augbench log {target.url} KEY; fix what failed, then {again}.")
            raise typer.Exit(2 if summary.user_error else 1)
        closing = f"All {summary.cells} cells were done already: nothing to do."
        if summary.trained:
            closing = f"{summary.cells} cells done, {summary.trained} of them now, in {summary.seconds:.0f} s."
        print_line(console, f"{closing} Store: {target.url}")
