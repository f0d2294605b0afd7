"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the grid, e.g. --set seeds=[0,1]. May be repeated."),
]
