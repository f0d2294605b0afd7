"""`augbench leaderboard`: one HTML page of the results of several stores."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from augbench.cli.options import RootOption, print_line

EmbeddedImages = StrEnum("EmbeddedImages", ["all", "none"])


def leaderboard(
    stores: Annotated[list[str], typer.Argument(metavar="STORE", help="Folders or URLs; cells are merged by key.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for index.html, leaderboard.md and records/.")],
    pictures: Annotated[
        EmbeddedImages, typer.Option(help="Embed thumbnails of pools and datasets: mind the licences it names.")
    ] = EmbeddedImages.all,
    roots: RootOption = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="datasets.NAME.KEY=VALUE", help="A setting of a dataset whose images are shown."),
    ] = None,
) -> None:
    """Write one self-contained page of several stores: tables, plots, images, and the records behind every number.

    Example: augbench leaderboard results/magnetic_tile_diag --out runs/page
    """
    from augbench import api
    from augbench.report.render.terminal import standard_output

    lines: list[str] = []  # printed last: a closed pipe must not cost a file
    settings = _dataset_settings(changes or [])
    images = pictures is EmbeddedImages.all
    page = api.leaderboard(stores, out, images, roots=roots or (), settings=settings, say=lines.append)
    console = standard_output()
    for line in (*lines, f"Written: {page}"):
        print_line(console, line)


def _dataset_settings(changes: list[str]) -> dict[str, dict[str, Any]]:
    """Parse ``datasets.NAME.KEY=VALUE`` (value in YAML): name of a dataset -> its settings."""
    from augbench.core.documents import parse_value
    from augbench.core.errors import UserError

    settings: dict[str, dict[str, Any]] = {}
    for change in changes:
        path, equals, text = change.partition("=")
        axis, _, rest = path.partition(".")
        name, _, key = rest.rpartition(".")
        if not (equals and axis == "datasets" and name and key):
            raise UserError(f"--set '{change}': write datasets.NAME.KEY=VALUE")
        settings.setdefault(name, {})[key] = parse_value(text, f"--set '{change}'")
    return settings
