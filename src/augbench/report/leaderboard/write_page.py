"""Write a leaderboard: page, Markdown, and the records behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from augbench.storage.store import Store

AT_ONCE = 16  # files that are written: each waits for the disk
PAGE, MARKDOWN = "index.html", "leaderboard.md"


def write_leaderboard(
    stores: Sequence[Store], out: Path, pictures: bool = True, say: Callable[[str], None] = print
) -> list[Path]:
    """Write the leaderboard of these stores. Equal stores give equal bytes.

    Args:
        stores: cells of equal key are one cell.
        out: the folder for ``index.html``, ``leaderboard.md`` and ``records/``; made where it is not there. Other files
            in it stay.
        pictures: embed pictures of pools and datasets where they are at hand.
        say: hears a line for each dataset whose pictures are embedded, with its licence.

    Returns:
        The page and the Markdown.

    Raises:
        UserError: no records, damaged ones, one key with two results made alike, or a folder that cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    gathered = gather(stores)
    board, scores = board_of(gathered), Scores(gathered)
    shown = images_of(gathered, board, scores, say) if pictures else GalleryImages()
    page = page_of(board, plots_of(board, scores), shown)
    _write_records(gathered, board, out)
    write_atomic(out / MARKDOWN, markdown_of(board).encode())
    write_atomic(out / PAGE, page)  # last: what it links to is there
    return [out / PAGE, out / MARKDOWN]


def _write_records(gathered: Gathered, board: Board, out: Path) -> None:
    """Copies of the files behind the numbers; one that is there already with the same bytes is left as it is."""

    def copy(item: tuple[str, Source]) -> None:
        place, source = item
        data = gathered.raw[source.key] if source.kind == "cells" else source.store.files.read(source.name)
        path = out / place
        if not (path.is_file() and path.read_bytes() == data):
            write_atomic(path, data)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(copy, board.files.items()))  # the list brings errors back
