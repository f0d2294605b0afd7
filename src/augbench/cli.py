"""The command line: thin and lazy. Heavy imports happen inside the commands, so that ``augbench --help`` is instant."""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augbench.commands import logs, looking, new, reports, results, status
from augbench.commands.options import SetOption

if TYPE_CHECKING:
    from augbench.core.store import Store

app = typer.Typer(
    name="augbench",
    help="Which way of making synthetic defects improves a surface-inspection classifier, by how much, at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Executor(StrEnum):
    """How a run is executed."""

    ray = "ray"
    inline = "inline"


class Room(StrEnum):
    """What can be listed."""

    datasets = "datasets"
    augmenters = "augmenters"
    models = "models"
    protocols = "protocols"


GridArgument = Annotated[Path, typer.Argument(metavar="GRID", help="A grid file, e.g. tune_configs/demo.yaml.")]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="Where results are kept: a folder or a URL (s3://...). Default: runs/<grid name>."),
]


@app.callback(invoke_without_command=True)
def _options(
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", metavar="FILE", help="Add the plug-ins of a Python file.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Options of every command."""
    if version:
        import augbench

        typer.echo(f"augbench {augbench.__version__}")
        raise typer.Exit
    if plugin:
        from augbench.core import plugins

        for file in plugin:
            plugins.load_file(file)


@app.command()
def plan(grid: GridArgument, changes: SetOption = None, store: StoreOption = None) -> None:
    """Show what a grid means: trainings, pictures, what is done, what is left. Starts nothing."""
    from augbench.core.grid import load_grid
    from augbench.core.plan import make_plan
    from augbench.core.remaining import subtract
    from augbench.report.plan import print_plan
    from augbench.report.render import standard_output

    loaded = load_grid(grid, changes or ())
    target = _store(store, loaded.base)
    made = make_plan(loaded, target if target.exists() else None)
    print_plan(made, subtract(made, target), target, standard_output())


@app.command()
def run(
    grid: GridArgument,
    changes: SetOption = None,
    store: StoreOption = None,
    executor: Annotated[Executor, typer.Option(help="ray, or inline: this process alone.")] = Executor.ray,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster, e.g. auto.")] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOOL[=WHERE]",
            help="Report trainings to tensorboard[=DIR], mlflow[=URI] or wandb[=PROJECT]. May be repeated.",
        ),
    ] = None,
) -> None:
    """Complete a grid: make pictures, train, print the table. What is done already is not done again."""
    from augbench.core.grid import load_grid
    from augbench.engine.driver import run as run_grid
    from augbench.report.render import standard_output
    from augbench.report.write import report as write_report

    console = standard_output()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    loaded = load_grid(grid, changes or ())
    target = _store(store, loaded.base)
    summary = run_grid(loaded, target, executor=executor.value, address=address, console=console, track=track or ())
    again = f"run the same command again to go on (store: {target.url})"
    if summary.interrupted:
        say(f"Stopped: {summary.done} of {summary.cells} cells are done; {again}.")
        raise typer.Exit(130)
    if summary.done:
        write_report(target, loaded.name, console=console)
    for key, line in list(summary.failures.items())[:10]:
        waiting = f" ({summary.blocked[key]} cells wait for it)" if summary.blocked[key] else ""
        say(f"failed: {key}: {line}{waiting}")
    if summary.failures:
        missing = f"{summary.cells - summary.done} of {summary.cells} cells are missing"
        say(f"{missing}; what was said: augbench log {target.url} KEY; mend what failed, then {again}.")
        raise typer.Exit(2 if summary.user_error else 1)
    say(_closing(summary.cells, summary.trained, summary.seconds, target))


def _closing(cells: int, trained: int, seconds: float, store: Store) -> str:
    if not trained:
        return f"All {cells} cells were done already: nothing to do. Store: {store.url}"
    return f"{cells} cells done, {trained} of them now, in {seconds:.0f} s. Store: {store.url}"


@app.command("list")
def list_(what: Annotated[Room, typer.Argument(help="datasets, augmenters, models or protocols")]) -> None:
    """List what is there, each found by itself."""
    from augbench.report.listing import listing
    from augbench.report.render import standard_output

    standard_output().print(listing(what.value))


status.add_to(app)
logs.add_to(app)
reports.add_to(app)
results.add_to(app)
new.add_to(app)
looking.add_to(app)


def _store(location: str | None, grid_name: str) -> Store:
    from augbench.core.store import Store

    return Store(location if location is not None else Path("runs") / grid_name)


def main() -> None:
    """Entry point: whatever a user got wrong ends in one line and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except Exception as error:
        from augbench.core.errors import UserError

        usage = getattr(error, "format_message", None)  # of the argument parser
        if "--debug" in sys.argv or not (isinstance(error, UserError) or usage):
            raise
        message = usage() if usage else str(error)
        if len(sys.argv) == 1 or not message:  # a command without its arguments: its help has been shown
            typer.echo(message)
        else:
            hint = " (see augbench --help)" if usage else ""
            typer.echo(f"augbench: {' '.join(message.split())}{hint}", err=True)
        raise SystemExit(2) from None
    raise SystemExit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
