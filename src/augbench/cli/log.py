"""The command that prints what was said while a unit was made."""

from __future__ import annotations

from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Put this command into the command line."""
    app.command()(log)


def log(
    store: Annotated[str, typer.Argument(help="The store to look in: a folder or a URL.")],
    key: Annotated[
        str,
        typer.Argument(help="Of a cell, a pool, an adapter, a search or a measurement; its beginning is enough."),
    ],
) -> None:
    """Print what was said while something was made: its attempts, losses, warnings and what ended it.

    Of a pool that is the log of every chunk; KEY/2 is that of chunk 2.
    """
    from augbench.core.errors import UserError
    from augbench.monitoring.status import printable
    from augbench.storage.store import Store
    from augbench.storage.unit_logs import logs_of

    target = Store(store)
    for name in logs_of(target, key):
        try:
            text = target.files.read(name).decode(errors="replace")
        except FileNotFoundError:
            raise UserError(f"'{target.files.where(name)}' was removed meanwhile") from None
        for line in text.splitlines():  # of programs and plug-ins: they may hold anything
            typer.echo(printable(line.expandtabs()))
