"""Magnetic tile defects: 1,344 grey images, 392 of them with a defect of one of five classes, with pixel masks.

Huang, Qiu, Yuan, "Surface defect saliency of magnetic tile", The Visual Computer 36, 2020.

About six exposures show the same tile, so a split by image leaks. We derived the grouping that comes with this package
(``assets/groups/magnetic_tile.csv``, 196 groups): runs of consecutive numbers with gaps of at most 200, merged where
high-pass correlation exceeds 0.85 and sizes differ by at most 8 pixels. It is a heuristic, not an official list. There
is no official split; the grouped folds are an axis of the grid.
"""

from __future__ import annotations

from functools import cached_property
from importlib import resources

import pandas as pd

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset
from augbench.core.errors import UserError
from augbench.core.walk import by_stem, walk

JPEG = (".jpg", ".jpeg", ".jfif")
FOLDER_OF = {
    "blowhole": "MT_Blowhole",
    "break": "MT_Break",
    "crack": "MT_Crack",
    "fray": "MT_Fray",
    "uneven": "MT_Uneven",
    GOOD: "MT_Free",
}


class MagneticTile(Dataset):
    """Layout: ``MT_<Class>/Imgs/*.jpg`` with a mask of the same name in ``.png``; sizes vary (103-632 x 222-403)."""

    title = "Magnetic Tile"
    licence = "not stated; academic use, cite the paper"
    citation = "Huang, Qiu, Yuan: Surface defect saliency of magnetic tile. The Visual Computer 36, 85-96, 2020"
    homepage = "https://github.com/abin24/Magnetic-tile-defect-datasets."
    official_counts = {"blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103, GOOD: 952}
    known = dict.fromkeys(
        ("exp3_num_45042", "exp4_num_124690", "exp4_num_352527", "exp4_num_45057"), "its mask holds no value above 127"
    )
    folds = 5
    mask_threshold = 127  # masks are anti-aliased; four of class uneven become empty, their label stays

    def samples(self) -> pd.DataFrame:
        """Return the sample table; ids are file stems, e.g. ``exp1_num_108719``. Normal images have no mask file."""
        return self._table

    @cached_property
    def _table(self) -> pd.DataFrame:
        path = resources.files("augbench") / "assets" / "groups" / "magnetic_tile.csv"
        with path.open(encoding="utf-8") as file:
            groups = pd.read_csv(file, index_col="image")["group"]
        found = walk(self.root()).images()
        rows = [row for label, folder in FOLDER_OF.items() for row in self._rows(label, folder, found, groups)]
        return pd.DataFrame(rows, columns=SAMPLE_COLUMNS).sort_values("id", ignore_index=True)

    def _rows(self, label: str, folder: str, found: list[str], groups: pd.Series) -> list[tuple[str, ...]]:
        below = f"{folder}/Imgs/"
        here = [name for name in found if name.startswith(below) and "/" not in name.removeprefix(below)]
        images = by_stem((name for name in here if name.lower().endswith(JPEG)), ".jpg")
        masks = by_stem((name for name in here if name.lower().endswith(".png")), ".png")
        if not images:
            raise UserError(
                f"dataset 'magnetic_tile': no images in '{self.root() / below}': get them at {self.homepage}"
            )
        rows = []
        for stem, image in sorted(images.items()):
            if f"{stem}.jpg" not in groups.index:
                raise UserError(f"dataset 'magnetic_tile': '{image}' is not one of the official images: remove it")
            mask = "" if label == GOOD else masks.get(stem, f"{stem}.png")
            rows.append((stem.removeprefix(below), image, mask, label, "", groups[f"{stem}.jpg"]))
        return rows

    def reason(self, name: str) -> str:
        """Explain why an image is left out."""
        empty = name.startswith("MT_Free/Imgs/") and name.lower().endswith(".png")
        return "masks of normal images, which are empty" if empty else super().reason(name)
