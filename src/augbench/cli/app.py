"""The command line. Heavy imports happen inside the commands, so that ``augbench --help`` is instant."""

from __future__ import annotations

import errno
import inspect
import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from augbench.cli import (
    augmenters,
    compare,
    datasets,
    doctor,
    leaderboard,
    log,
    models,
    new,
    plan,
    pools,
    protocols,
    report,
    results,
    run,
    status,
    stores,
    try_folder,
)
from augbench.cli.output import drop_output, fails

app = typer.Typer(
    name="augbench",
    help="Which way of making synthetic defects improves a surface-inspection classifier, by how much, at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


LISTS = {
    "datasets": datasets.datasets_list,
    "augmenters": augmenters.augmenters_list,
    "models": models.models_list,
    "protocols": protocols.protocols_list,
}
Listable = StrEnum("Listable", list(LISTS))
PATH_FAILS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES)  # of paths that users give


@app.callback(invoke_without_command=True)
def _options(
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", metavar="FILE", help="Add the plug-ins of a Python file.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Options of every command."""
    if version:
        import augbench

        typer.echo(f"augbench {augbench.__version__}")
        raise typer.Exit
    if plugin:
        from augbench.core import registry

        for file in plugin:
            registry.load_file(file)


@app.command("list")
def list_(what: Annotated[Listable, typer.Argument(help="datasets, augmenters, models or protocols")]) -> None:
    """List datasets, augmenters, models or protocols: the same as `augbench WHAT list`.

    Example: augbench list datasets
    """
    LISTS[what]()


COMMANDS = (
    doctor.doctor,
    plan.plan,
    run.run,
    status.status,
    log.log,
    report.report,
    compare.compare,
    leaderboard.leaderboard,
)
for command in COMMANDS:
    app.command()(command)
app.command("try")(try_folder.try_)
for group in (results, new, datasets, augmenters, protocols, models, pools, stores):
    app.add_typer(group.app)


def _examples_first(commands: typer.Typer) -> str:
    """Let the help of each command begin with its example, the last paragraph of its docstring; return the first one.

    Help of groups begins with that of their first command. Lists of commands have the first sentence as before.
    """
    first = ""
    for command in commands.registered_commands:
        *text, last = (inspect.getdoc(command.callback) or "").split("\n\n")
        if last.startswith("Example: "):
            command.help, command.short_help = "\n\n".join((last, *text)), text[0]
            first = first or last
    for group in commands.registered_groups:
        inner = group.typer_instance
        assert inner is not None  # of every add_typer
        if example := _examples_first(inner):
            text = inner.info.help
            group.help, group.short_help = f"{example}\n\n{text}", text
    return first


app.info.help = f"{_examples_first(app)}\n\n{app.info.help}"


def main() -> None:
    """Run the command line; a user error ends in one line on standard error and exit status 2.

    Output that cannot be written costs nothing else: a terminal without a character gets ``?``, a closed pipe ends
    quietly and a full device in one line, both with exit status 1. Commands write their files before they print;
    `augbench run` goes on without its output, and its exit status tells of the grid alone.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:  # Ctrl-C where a command does not handle it
        typer.echo("augbench: stopped", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        from augbench.core.errors import PluginError, UserError, brief

        if isinstance(error, OSError) and fails(error):
            _end_output(error)
        usage = getattr(error, "format_message", None)  # of the argument parser
        is_path = isinstance(error, OSError) and error.filename is not None and error.errno in PATH_FAILS
        if "--debug" in sys.argv or not (isinstance(error, UserError) or usage or is_path):
            raise
        message = usage() if usage else str(error)
        if is_path:
            message = f"'{brief(str(error.filename))}': {error.strerror}: give another path"
        if len(sys.argv) == 1 or not message:  # a command without its arguments: its help has been printed
            typer.echo(message)
        else:
            traceback_hint = " (augbench --debug ... shows the traceback)" if isinstance(error, PluginError) else ""
            hint = " (see augbench --help)" if usage else traceback_hint
            typer.echo(f"augbench: {' '.join(message.split())}{hint}", err=True)
        raise SystemExit(2) from None
    raise SystemExit(status if isinstance(status, int) else 0)


def _end_output(error: OSError) -> NoReturn:
    """End with exit status 1, and without a second error when Python flushes standard output."""
    drop_output()
    if error.errno != errno.EPIPE:
        typer.echo(f"augbench: the output cannot be written ({error.strerror})", err=True)
    raise SystemExit(1) from None
