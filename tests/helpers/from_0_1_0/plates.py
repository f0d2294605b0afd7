"""plates: what it shows, in a line. Where to get it, and who made it (authors, title, venue, year)."""

from __future__ import annotations

from functools import cached_property

import pandas as pd
from augbench import GOOD, Dataset, UserError


class Plates(Dataset):
    """Layout: ``train/good/PLATE_1.png``, ``train/scratch/PLATE_2.png``, ``test/...``; ``masks/`` with the same below.

    The part of a name before the last ``_`` is the physical item. A mask is a picture that is not black where the
    defect is; a defective picture without one is taken as it is.
    """

    title = "plates"  # in lists
    task = "detection"  # or "recognition": no good pictures, several classes of defects
    licence = "unknown"
    citation = ""
    homepage = ""
    official_counts: dict[str, int] = {}  # e.g. {"train good": 2085, "test scratch": 110}: `datasets check` compares
    folds = 0  # 0: the split is official; k: `split` below is "" and the grid runs over k grouped folds

    # Settings go into a class `Config(Dataset.Config)`, each with a description; they are part of keys. Masks that are
    # no pictures: override `decode_mask`.

    def samples(self) -> pd.DataFrame:
        """One row a picture, sorted by id; what cannot be read is a `UserError` that names the file."""
        return self._table

    @cached_property
    def _table(self) -> pd.DataFrame:
        root = self.root()
        rows = []
        for path in sorted(root.glob("t*/*/[!.]*.png")):
            split, label, file = path.relative_to(root).parts
            mask = f"masks/{split}/{label}/{file}"
            has_mask = label != GOOD and (root / mask).is_file()
            group = path.stem.rpartition("_")[0] or path.stem  # one item is never on both sides of a split
            name = f"{split}/{label}/{file}"
            rows.append((name, name, mask if has_mask else "", label, split, group))
        if not rows:
            raise UserError(f"dataset 'plates': no pictures like train/{GOOD}/*.png in '{root}'")
        table = pd.DataFrame(rows, columns=["id", "image", "mask", "label", "split", "group"])
        return table.sort_values("id", ignore_index=True)
