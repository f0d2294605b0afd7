"""KSDD2, the Kolektor Surface-Defect Dataset 2: 2,331 training and 1,004 test images of about 230 x 630, with masks.

Bozic, Tabernik, Skocaj, "Mixed supervision for surface-defect detection", Computers in Industry 129, 2021.
"""

from __future__ import annotations

from functools import cached_property

import pandas as pd

from augbench.core.contracts import GOOD, Dataset
from augbench.core.errors import UserError
from augbench.datasets._mask_labels import DEFECT, labelled


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
        rows = [row for split in ("train", "test") for row in self._rows(split)]
        return labelled("ksdd2", self.root(), rows)

    def _rows(self, split: str) -> list[tuple[str, str, str, str, str]]:
        folder = self.root() / split
        images = [path for path in sorted(folder.glob("[!.]*.png")) if _is_image(path.stem)]
        if not images:
            raise UserError(f"dataset 'ksdd2': no images in '{folder}': unpack the archive of {self.homepage} there")
        return [(path.stem, f"{split}/{path.name}", f"{split}/{path.stem}_GT.png", split, path.stem) for path in images]


def _is_image(stem: str) -> bool:
    return not stem.endswith("_GT") and "(copy)" not in stem
