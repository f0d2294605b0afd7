"""`augbench log`: the log of a work unit."""

from __future__ import annotations

from typing import Annotated

import typer


def log(
    store: Annotated[str, typer.Argument(help="The store to look in: a folder or a URL.")],
    key: Annotated[
        str, typer.Argument(help="Of a cell, a pool, an adapter, a search or a measurement; a key prefix is enough.")
    ],
) -> None:
    """Print the log of a unit: its attempts, losses, warnings and errors.

    For a pool these are the logs of all chunks; KEY/2 is the log of chunk 2.

    Example: augbench run tune_configs/first_look.yaml --executor inline &&
    augbench log runs/first_look surfaces-none-few5-
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
        for line in text.splitlines():  # untrusted: output of programs and plug-ins
            typer.echo(printable(line.expandtabs()))
