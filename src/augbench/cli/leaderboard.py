"""`augbench leaderboard`: one HTML page of the results of several stores."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from augbench.cli.options import print_line

EmbeddedImages = StrEnum("EmbeddedImages", ["all", "none"])


def leaderboard(
    stores: Annotated[list[str], typer.Argument(metavar="STORE", help="Folders or URLs; cells are merged by key.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for index.html, leaderboard.md and records/.")],
    pictures: Annotated[
        EmbeddedImages, typer.Option(help="Embed thumbnails of pools and datasets: mind the licences it names.")
    ] = EmbeddedImages.all,
) -> None:
    """Write one self-contained page of several stores: tables, plots, images, and the records behind every number."""
    from augbench.report.leaderboard.write_page import write_leaderboard
    from augbench.report.render.terminal import standard_output
    from augbench.storage.store import Store

    lines: list[str] = []  # printed last: a closed pipe must not cost a file
    page, _ = write_leaderboard([Store(store) for store in stores], out, pictures is EmbeddedImages.all, lines.append)
    console = standard_output()
    for line in (*lines, f"Written: {page}"):
        print_line(console, line)
