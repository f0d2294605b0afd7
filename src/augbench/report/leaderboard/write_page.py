"""Write a leaderboard: page, Markdown and copies of the records. The page comes from one template, self-contained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from augbench.core.errors import UserError
from augbench.report.leaderboard.board import Board, board_of
from augbench.report.leaderboard.board_plots import plots_of
from augbench.report.leaderboard.gallery import GalleryImages, images_of
from augbench.report.leaderboard.headings import COLUMN_HELP, Content
from augbench.report.leaderboard.markdown import markdown_of
from augbench.report.leaderboard.merge import Gathered, gather
from augbench.report.leaderboard.page_versions import COLUMNS, FILE, PageVersion, to_json, versions_of
from augbench.report.leaderboard.row_costs import Source
from augbench.report.leaderboard.score_tables import Scores
from augbench.report.numbers import DASH
from augbench.report.plots import PALETTE, shape_of
from augbench.report.render.self_contained import asset, markup, render_page
from augbench.storage.files import write_atomic
from augbench.storage.publication import RECORDS
from augbench.storage.store import Store

WRITERS = 16  # threads, since each write waits for the disk
PAGE, MARKDOWN = "index.html", "leaderboard.md"
FOLDER = "leaderboard"
TITLE = "augbench leaderboard"


def write_leaderboard(
    stores: Sequence[Store],
    out: Path,
    pictures: bool = True,
    say: Callable[[str], None] = print,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    roots: Sequence[str] = (),
) -> list[Path]:
    """Write the leaderboard of these stores.

    Equal stores give equal bytes under one version of matplotlib, over an equal page before, which the new one names.

    Args:
        stores: where the records are; equal keys are one cell.
        out: the folder for ``index.html``, ``leaderboard.md``, ``versions.json`` and ``records/``; created if needed.
            Copies of records of an earlier leaderboard are removed from it; other files stay.
        pictures: embed images of pools and datasets where they can be read.
        say: prints a line for each dataset whose images are embedded, with its licence.
        settings: name of a dataset -> settings besides those in its keys.
        roots: folders of datasets, as ``--root`` has them.

    Returns:
        The paths of the page and of the Markdown.

    Raises:
        UserError: a store has no records or damaged ones, one key has two results of the same origin, the folder is
            not writable or a store, or a dataset with settings cannot be opened.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    if (out / "cells").is_dir() or any((out / name).is_file() for name in RECORDS):
        raise UserError(f"--out '{out}' holds the results of runs: give a folder of its own")
    is_over_another = (out / PAGE).is_file() or (out / MARKDOWN).is_file()
    gathered = gather(stores)
    board, scores = board_of(gathered), Scores(gathered)
    images = images_of(gathered, board, scores, say, settings or {}, roots) if pictures else GalleryImages()
    versions = versions_of(gathered, board.files, out)
    page = page_of(board, plots_of(board, scores), images, versions)
    _write_records(gathered, board, out)
    write_atomic(out / FILE, to_json(versions))
    write_atomic(out / MARKDOWN, markdown_of(board, versions).encode())
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


# -- the page


def page_of(
    board: Board, plots: Mapping[str, Sequence[Content]], images: GalleryImages, versions: Sequence[PageVersion]
) -> bytes:
    """Render ``index.html`` in UTF-8. The template escapes text of records and plug-ins, `script_json` the data.

    Args:
        board: tables, runs and notes.
        plots: id of a table -> its plots, see `board_plots.plots_of`.
        images: thumbnails of datasets, pools and errors.
        versions: of the page, newest first.
    """
    content = board.content
    colours = "".join(f".c{index} {{ color: {colour}; }}\n" for index, colour in enumerate(PALETTE))
    data = _data(content)
    return render_page(
        f"{FOLDER}/index.html",
        asset(f"{FOLDER}/style.css") + colours,
        asset(f"{FOLDER}/script.js"),
        title=TITLE,
        data=markup(script_json(data)),
        facts=content["facts"],
        embedded=", ".join(content["embedded"]),
        filters=content["filters"],
        augmenters=content["augmenters"],
        overview=content["overview"],
        tables=[table | {"columns": _columns(table)} for table in content["tables"]],
        plots=plots,
        glossary=[(title, COLUMN_HELP[key]) for key, title in data["titles"].items()],
        images=images,
        older=content["older"],
        versions=versions,
        version_columns=COLUMNS,
        colours=content["colours"],
        palette=len(PALETTE),
        shape_of=shape_of,
        dash=DASH,
    )


def script_json(value: object) -> str:
    """Dump JSON for a ``<script>``: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _columns(table: Content) -> list[dict[str, Any]]:
    """Return the columns of the page, each with the keys of the entries printed below its own."""
    every = table["columns"]
    columns = []
    for column in every:
        if not column["under"]:
            below = [one for one in every if one["under"] == column["key"]]
            group = ", ".join(filter(None, (column["group"], *(one["title"] for one in below))))
            columns.append(column | {"below": [one["key"] for one in below], "group": group})
    return columns


def _data(content: Content) -> dict[str, Any]:
    """Return the data of the script: the runs and files behind each entry."""
    rows = {}
    for table in content["tables"]:
        for row in table["rows"]:
            files = {key: entry["files"] for key, entry in row["values"].items() if entry["files"]}
            rows[row["id"]] = {name: row[name] for name in ("augmenter", "runs", "partner")}
            rows[row["id"]] |= {"files": files, "headline": table["headline"]}
    columns = [column for table in content["tables"] for column in table["columns"]]
    titles = {column["key"]: f"{column['title']} {column['group']}".rstrip() for column in columns}
    return {"rows": rows, "runs": content["runs"], "titles": titles}
