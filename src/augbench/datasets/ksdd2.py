"""KSDD2, the Kolektor Surface-Defect Dataset 2: 2,331 training and 1,004 test images of about 230 x 630, with masks.

Bozic, Tabernik, Skocaj, "Mixed supervision for surface-defect detection", Computers in Industry 129, 2021.
"""

from __future__ import annotations

import re
from functools import cached_property

import pandas as pd

from augbench.core.contracts import GOOD, Dataset
from augbench.core.errors import UserError
from augbench.core.mask_files import masks_among, refuse
from augbench.core.walk import by_stem, walk
from augbench.datasets._mask_labels import DEFECT, labelled

IMAGE = re.compile(r"(train|test)/(?![^/]*\(copy\))[^/]+\.png", re.IGNORECASE)


class KSDD2(Dataset):
    """Layout: ``train/10000.png`` with ``train/10000_GT.png``, ``test/20000.png`` ...

    An image has the label ``defect`` if its mask has a non-zero pixel. Duplicates in the archive, whose file names
    contain ``(copy)``, are left out.
    """

    title = "KSDD2"
    licence = "CC BY-NC-SA 4.0"
    citation = "Bozic et al.: Mixed supervision for surface-defect detection. Computers in Industry 129, 2021"
    homepage = "https://www.vicos.si/resources/kolektorsdd2/"
    official_counts = {f"train {GOOD}": 2085, f"train {DEFECT}": 246, f"test {GOOD}": 894, f"test {DEFECT}": 110}

    def samples(self) -> pd.DataFrame:
        """Return the sample table; ids are file numbers. The archive names no items: each image is its own group."""
        return self._table

    @cached_property
    def _table(self) -> pd.DataFrame:
        root = self.root()
        found = [name for name in walk(root).images() if IMAGE.fullmatch(name)]
        rows = [row for split in ("train", "test") for row in self._rows(split, found)]
        masks = masks_among(root, [image for _, image, *_ in rows])
        if masks:
            raise refuse("ksdd2", masks, "and masks are called 10000_GT.png here")
        return labelled("ksdd2", root, rows)

    def _rows(self, split: str, found: list[str]) -> list[tuple[str, str, str, str, str]]:
        files = by_stem((name for name in found if name.split("/")[0] == split), ".png")
        images = {stem: name for stem, name in sorted(files.items()) if not stem.lower().endswith("_gt")}
        if not images:
            fix = f"unpack the archive of {self.homepage} there"
            raise UserError(f"dataset 'ksdd2': no images in '{self.root() / split}': {fix}")
        masks = {stem.lower(): name for stem, name in files.items()}
        return [
            (name.split("/")[1], image, masks.get(f"{name}_gt".lower(), f"{name}_GT.png"), split, name.split("/")[1])
            for name, image in images.items()
        ]

    def reason(self, name: str) -> str:
        """Explain why an image is left out."""
        return "copies in the archive" if "(copy)" in name else super().reason(name)
