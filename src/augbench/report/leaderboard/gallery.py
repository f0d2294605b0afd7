"""Images of the page: normal and defect images, synthetic ones of each augmenter, and those classified wrongly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD
from augbench.report.leaderboard.board import Board
from augbench.report.leaderboard.merge import Gathered
from augbench.report.leaderboard.misclassified import Errors
from augbench.report.leaderboard.score_tables import Scores
from augbench.report.leaderboard.sources import OpenDataset, Pool, Thumbs, pools_of, shots_of, sources_of
from augbench.report.numbers import shots_text

COLUMNS = 8  # of the sheet
EACH = 16  # images of each pool below it


@dataclass
class GalleryImages:
    """Images for the template. ``library`` holds each image once; the rest refers to it by id."""

    library: list[dict[str, Any]] = field(default_factory=list)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # sentences: what is missing, and why
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)  # id of a table -> its errors


def images_of(
    gathered: Gathered,
    board: Board,
    scores: Scores,
    say: Callable[[str], None],
    settings: Mapping[str, Mapping[str, Any]],
    roots: Sequence[str],
) -> GalleryImages:
    """Collect the images of every dataset and pool that can be read; a sentence names what cannot.

    Arguments as in `write_page.write_leaderboard`; ``scores`` are those of the cells of ``board``.

    Raises:
        UserError: an image is damaged, or a dataset with settings cannot be opened; the message names it.
    """
    thumbs, sources, pools = Thumbs(), sources_of(gathered, settings, roots), pools_of(gathered)
    found = GalleryImages(library=thumbs.library)
    embedded: set[str] = set()
    for label, source in sources.items():
        before = len(thumbs.library)
        section = _section(source, pools.get(label, []), thumbs)
        if section["sheet"]:
            found.datasets.append(section)
        found.absent += _absent(source, pools.get(label, []))
        embedded |= {label} if len(thumbs.library) > before else set()
    errors = Errors(gathered, scores, thumbs)
    for table, cells in zip(board.content["tables"], board.cells, strict=True):
        source, before = sources.get(table["dataset"]), len(thumbs.library)
        if source is not None and (one := errors.of(table, cells, source)):
            found.errors[table["id"]] = one
            embedded |= {source.label} if len(thumbs.library) > before else set()
    for label in sources:
        if label in embedded:
            say(f"Images of {label} are embedded in the page; licence: {sources[label].licence}")
    return found


def _absent(source: OpenDataset, pools: Sequence[Pool]) -> list[str]:
    missing = []
    if source.dataset is None:
        missing.append("its files were not available when this page was made")
    if not pools:
        missing.append("the stores hold no pool of it")
    return [f"{source.label} is not shown in full: {' and '.join(missing)}."] if missing else []


def _section(source: OpenDataset, pools: Sequence[Pool], thumbs: Thumbs) -> dict[str, Any]:
    """Lay out the sheet like DIAG's Figure 2, and more images of each pool."""
    sheet = real_rows(source, thumbs) if source.dataset is not None else []
    firsts = {pool.augmenter: pool for pool in reversed(pools)}
    for pool in reversed(firsts.values()):
        images = [synthetic(pool, i, thumbs, outlined=False) for i in range(min(COLUMNS, len(pool.lines)))]
        sheet.append({"name": pool.augmenter, "note": _regime(pool), "augmenter": pool.augmenter, "images": images})
    return {
        "title": source.label,
        "about": "Columns are examples, rows are their sources. Normal images and real defects come from the training "
        "split, evenly spaced in its table; of each augmenter, the sheet shows the first images of its pool with the "
        "lowest seed. Nobody picked images by their looks. A mixture draws from the pools of its parts. "
        f"Licence of the dataset: {source.licence}. {source.citation}".rstrip(),
        "sheet": sheet,
        "pools": [
            {
                "augmenter": pool.augmenter,
                "note": f"{_regime(pool)}, seed {pool.spec.seed}: {min(EACH, len(pool.lines))} of {len(pool.lines):,} "
                "images, with the outline of the mask if the augmenter provides one",
                "images": [synthetic(pool, i, thumbs) for i in range(min(EACH, len(pool.lines)))],
            }
            for pool in pools
        ],
    }


def _regime(pool: Pool) -> str:
    return "no shots read" if (shots := shots_of(pool.spec)) is None else shots_text(shots)


def real_rows(source: OpenDataset, thumbs: Thumbs, outlined: bool = False) -> list[dict[str, Any]]:
    """Lay out normal images and real defects of the training split; without any there, defects of the test split.

    Args:
        source: the dataset.
        thumbs: takes the images.
        outlined: with the outline of each mask.

    Returns:
        Rows with name, note, augmenter ("") and images.
    """
    split = source.split
    defects, part = split.positives[split.positives["label"] != GOOD], "training"
    if defects.empty:
        defects, part = split.test[split.test["label"] != GOOD], "test"
    sources = (("normal", "training", split.negatives), ("real defect", part, _mixed(defects)))
    return [
        {
            "name": name,
            "note": where,
            "augmenter": "",
            "images": [_real(source, row, name, thumbs, outlined) for row in rows],
        }
        for name, where, table in sources
        if (rows := _spaced(table))
    ]


def _mixed(defects: pd.DataFrame) -> pd.DataFrame:
    """Interleave the classes, so that a few rows cover several."""
    turn = defects.groupby("label").cumcount()
    return defects.assign(_turn=turn).sort_values(["_turn", "label", "id"]).head(COLUMNS)


def _spaced(table: pd.DataFrame) -> list[dict[str, str]]:
    rows = np.unique(np.linspace(0, len(table) - 1, min(COLUMNS, len(table))).round().astype(int))
    return table.iloc[rows].to_dict("records")


def _real(source: OpenDataset, row: dict[str, str], name: str, thumbs: Thumbs, outlined: bool) -> dict[str, Any]:
    image, mask = source.load(row["id"])
    kind = name if row["label"] == GOOD else f"{name}, {row['label']}"
    return thumbs.add(image, f"{kind}: {row['id']}", mask=mask if outlined else None)


def synthetic(pool: Pool, index: int, thumbs: Thumbs, outlined: bool = True) -> dict[str, Any]:
    """Add a synthetic image; with the outline of its mask and a caption if ``outlined``."""
    image, mask = pool.load(index)
    line = pool.lines[index]
    label = "" if line["label"] == "defect" else f", {line['label']}"
    caption = str(line["meta"].get("prompt") or label.removeprefix(", "))[:60] if outlined else ""
    alt = f"generated by {pool.augmenter}{label}, number {line['index']}"
    return thumbs.add(image, alt, caption, mask if outlined else None)
