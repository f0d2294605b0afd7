"""Pictures of the page: what is good, what is defective, what augmenters make of it, and where classifiers err."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD
from augbench.report.leaderboard.board import Board
from augbench.report.leaderboard.headings import shots_text
from augbench.report.leaderboard.merge import Gathered
from augbench.report.leaderboard.misclassified import Errors
from augbench.report.leaderboard.score_tables import Scores
from augbench.report.leaderboard.sources import OpenDataset, Pool, pools_of, sources_of
from augbench.report.leaderboard.thumbs import Thumbs

COLUMNS = 8  # of the sheet
EACH = 16  # pictures of a pool under it


@dataclass
class GalleryImages:
    """What the template shows. Each picture stands in ``library`` once and is used by its id."""

    library: list[dict[str, Any]] = field(default_factory=list)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # sentences: what is not shown, and why
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)  # of a table, by its id


def images_of(gathered: Gathered, board: Board, scores: Scores, say: Callable[[str], None]) -> GalleryImages:
    """The pictures of every dataset and pool at hand; what is not at hand is said in a sentence.

    Args:
        gathered: the stores.
        board: with the tables whose errors are shown.
        scores: of its cells.
        say: hears of each dataset whose pictures are embedded, with its licence.

    Raises:
        UserError: a damaged picture, named.
    """
    thumbs, sources, pools = Thumbs(), sources_of(gathered), pools_of(gathered)
    found = GalleryImages(library=thumbs.library)
    shown: set[str] = set()
    for label, source in sources.items():
        before = len(thumbs.library)
        section = _section(source, pools.get(label, []), thumbs)
        if section["sheet"]:
            found.datasets.append(section)
        found.absent += _absent(source, pools.get(label, []))
        shown |= {label} if len(thumbs.library) > before else set()
    errors = Errors(gathered, scores, thumbs)
    for table, cells in zip(board.content["tables"], board.cells, strict=True):
        source, before = sources.get(table["dataset"]), len(thumbs.library)
        if source is not None and (one := errors.of(table, cells, source)):
            found.errors[table["id"]] = one
            shown |= {source.label} if len(thumbs.library) > before else set()
    for label in sources:
        if label in shown:
            say(f"Pictures of {label} are embedded in the page; licence: {sources[label].licence}")
    return found


def _absent(source: OpenDataset, pools: Sequence[Pool]) -> list[str]:
    missing = []
    if source.dataset is None:
        missing.append("its files were not at hand when this page was made")
    if not pools:
        missing.append("the stores hold no pool of it")
    return [f"Of {source.label} not everything is shown: {' and '.join(missing)}."] if missing else []


def _section(source: OpenDataset, pools: Sequence[Pool], thumbs: Thumbs) -> dict[str, Any]:
    """The sheet as DIAG's Figure 2 has it, and more of each pool."""
    sheet = _real_rows(source, thumbs) if source.dataset is not None else []
    firsts = {pool.augmenter: pool for pool in reversed(pools)}
    for pool in reversed(firsts.values()):
        shown = [_made(pool, place, thumbs, outlined=False) for place in range(min(COLUMNS, len(pool.lines)))]
        sheet.append({"name": pool.augmenter, "note": _regime(pool), "augmenter": pool.augmenter, "pictures": shown})
    return {
        "title": source.label,
        "about": "Columns are examples, rows are where they come from. Good pictures and real defects are of the "
        "training split, evenly spaced in its table; of each augmenter the first pictures of its pool with the lowest "
        "seed. Nothing is chosen by how it looks. A mixture takes from the pools of its parts.",
        "sheet": sheet,
        "pools": [
            {
                "augmenter": pool.augmenter,
                "name": pool.augmenter,
                "note": f"{_regime(pool)}, seed {pool.spec.seed}: {min(EACH, len(pool.lines))} of {len(pool.lines):,} "
                "pictures, the mask outlined where the augmenter gives one",
                "pictures": [_made(pool, place, thumbs) for place in range(min(EACH, len(pool.lines)))],
            }
            for pool in pools
        ],
    }


def _regime(pool: Pool) -> str:
    """What of the shots it read."""
    return "no shots read" if pool.spec.shots is None else shots_text(pool.spec.shots)


def _real_rows(source: OpenDataset, thumbs: Thumbs) -> list[dict[str, Any]]:
    """Good pictures and real defects of training; where it has no defects, those of the test split."""
    split = source.split
    defects, place = split.positives[split.positives["label"] != GOOD], "training"
    if defects.empty:
        defects, place = split.test[split.test["label"] != GOOD], "test"
    kinds = (("good", "training", split.negatives), ("real defect", place, _mixed(defects)))
    return [
        {"name": name, "note": where, "augmenter": "", "pictures": [_real(source, row, name, thumbs) for row in rows]}
        for name, where, table in kinds
        if (rows := _spaced(table))
    ]


def _mixed(defects: pd.DataFrame) -> pd.DataFrame:
    """Classes in turn, so that a few rows show several."""
    turn = defects.groupby("label").cumcount()
    return defects.assign(_turn=turn).sort_values(["_turn", "label", "id"]).head(COLUMNS)


def _spaced(table: pd.DataFrame) -> list[dict[str, str]]:
    if table.empty:
        return []
    places = np.unique(np.linspace(0, len(table) - 1, min(COLUMNS, len(table))).round().astype(int))
    return table.iloc[places].to_dict("records")


def _real(source: OpenDataset, row: dict[str, str], name: str, thumbs: Thumbs) -> dict[str, Any]:
    image, _ = source.picture(row["id"])
    what = name if row["label"] == GOOD else f"{name}, {row['label']}"
    return thumbs.add(image, f"{what}: {row['id']}")


def _made(pool: Pool, place: int, thumbs: Thumbs, outlined: bool = True) -> dict[str, Any]:
    image, mask = pool.picture(place)
    line = pool.lines[place]
    label = "" if line["label"] == "defect" else f", {line['label']}"
    caption = str(line["meta"].get("prompt") or label.removeprefix(", "))[:60] if outlined else ""
    words = f"made by {pool.augmenter}{label}, number {line['index']}"
    return thumbs.add(image, words, caption, mask if outlined else None)
