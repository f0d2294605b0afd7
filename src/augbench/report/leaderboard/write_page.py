"""Write a leaderboard: page, Markdown and copies of the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from augbench.core.errors import UserError
from augbench.report.leaderboard.board import Board, board_of
from augbench.report.leaderboard.board_plots import plots_of
from augbench.report.leaderboard.gallery import GalleryImages, images_of
from augbench.report.leaderboard.markdown import markdown_of
from augbench.report.leaderboard.merge import Gathered, gather
from augbench.report.leaderboard.page import page_of
from augbench.report.leaderboard.row_costs import Source
from augbench.report.leaderboard.score_tables import Scores
from augbench.storage.files import write_atomic
from augbench.storage.publication import RECORDS
from augbench.storage.store import Store

WRITERS = 16  # threads, since each write waits for the disk
PAGE, MARKDOWN = "index.html", "leaderboard.md"


def write_leaderboard(
    stores: Sequence[Store],
    out: Path,
    pictures: bool = True,
    say: Callable[[str], None] = print,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Write the leaderboard of these stores. Equal stores give equal bytes under one version of matplotlib.

    Args:
        stores: where the records are; equal keys are one cell.
        out: the folder for ``index.html``, ``leaderboard.md`` and ``records/``; created if needed. Copies of records
            of an earlier leaderboard are removed from it; other files stay.
        pictures: embed images of pools and datasets where they can be read.
        say: prints a line for each dataset whose images are embedded, with its licence.
        settings: name of a dataset -> settings besides those in its keys, such as its root.

    Returns:
        The paths of the page and of the Markdown.

    Raises:
        UserError: a store has no records or damaged ones, one key has two results of the same origin, the folder is
            not writable or a store, or a dataset with settings cannot be opened.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    if (out / "cells").is_dir() or (out / RECORDS).is_file():
        raise UserError(f"--out '{out}' holds the results of runs: give a folder of its own")
    is_over_another = (out / PAGE).is_file() or (out / MARKDOWN).is_file()
    gathered = gather(stores)
    board, scores = board_of(gathered), Scores(gathered)
    images = images_of(gathered, board, scores, say, settings or {}) if pictures else GalleryImages()
    page = page_of(board, plots_of(board, scores), images)
    _write_records(gathered, board, out)
    write_atomic(out / MARKDOWN, markdown_of(board).encode())
    write_atomic(out / PAGE, page)  # last: its links resolve as soon as it exists
    if is_over_another:
        _remove_records(out, board)
    return [out / PAGE, out / MARKDOWN]


def _write_records(gathered: Gathered, board: Board, out: Path) -> None:
    """Copy the files behind the numbers; a copy with the same bytes is left alone."""

    def copy(item: tuple[str, Source]) -> None:
        name, source = item
        data = gathered.raw[source.key] if source.kind == "cells" else source.store.files.read(source.name)
        path = out / name
        if not (path.is_file() and path.read_bytes() == data):
            write_atomic(path, data)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(copy, board.files.items()))  # the list re-raises their errors


def _remove_records(out: Path, board: Board) -> None:
    """Remove the copies that an earlier leaderboard left: the page does not link to them."""
    for pattern in ("*.json", "*/*.json"):
        for path in (out / "records").glob(pattern):
            if path.relative_to(out).as_posix() not in board.files:
                path.unlink()
