"""`augbench leaderboard`: one HTML page of the results of several stores."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Put this command into the command line."""
    app.command()(leaderboard)


class EmbeddedImages(StrEnum):
    """Which images a leaderboard embeds."""

    all = "all"
    none = "none"


def leaderboard(
    stores: Annotated[list[str], typer.Argument(metavar="STORE", help="Folders or URLs; cells are merged by key.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for index.html, leaderboard.md and records/.")],
    pictures: Annotated[
        EmbeddedImages, typer.Option(help="Embed thumbnails of pools and datasets: mind the licences it names.")
    ] = EmbeddedImages.all,
) -> None:
    """Write one self-contained page of several stores: tables, plots, images, and the records behind every number."""
    from functools import partial

    from augbench.report.leaderboard.write_page import write_leaderboard
    from augbench.report.render.terminal import standard_output
    from augbench.storage.store import Store

    print_line = partial(standard_output().print, markup=False, highlight=False, soft_wrap=True)
    page, _ = write_leaderboard([Store(store) for store in stores], out, pictures is EmbeddedImages.all, print_line)
    print_line(f"Written: {page}")
