"""KSDD, the Kolektor Surface-Defect Dataset (the first version): 399 grey images of about 500 x 1260, with masks.

Tabernik, Sela, Skvarc, Skocaj, "Segmentation-based deep-learning approach for surface-defect detection", Journal of
Intelligent Manufacturing 31, 2020. Each folder holds about eight images of one electrical commutator, so the folder is
the group. There is no official split; the paper evaluates by 3-fold cross validation with whole items in a fold. Our
three folds follow that rule, but they are not the paper's lists.
"""

from __future__ import annotations

import re
from functools import cached_property

import pandas as pd

from augbench.core.contracts import GOOD, Dataset
from augbench.core.errors import UserError
from augbench.core.walk import by_stem, walk
from augbench.datasets._mask_labels import DEFECT, labelled

IMAGE = re.compile(r"kos[0-9][0-9]/Part[^/]*(?<!_label)\.(jpe?g|jfif)", re.IGNORECASE)


class KSDD(Dataset):
    """Layout: ``kos01/Part0.jpg`` with ``kos01/Part0_label.bmp``, ... ``kos50/``.

    An image has the label ``defect`` if its mask has a non-zero pixel.
    """

    title = "KolektorSDD"
    licence = "CC BY-NC-SA 4.0"
    citation = (
        "Tabernik et al.: Segmentation-based deep-learning approach for surface-defect detection. "
        "Journal of Intelligent Manufacturing 31, 759-776, 2020"
    )
    homepage = "https://www.vicos.si/resources/kolektorsdd/"
    official_counts = {GOOD: 347, DEFECT: 52}
    folds = 3

    def samples(self) -> pd.DataFrame:
        """Return the sample table; ids are folder and file name, e.g. ``kos01/Part0``, and the group is the folder."""
        return self._table

    @cached_property
    def _table(self) -> pd.DataFrame:
        root = self.root()
        found = walk(root).images()
        images = by_stem((name for name in found if IMAGE.fullmatch(name)), ".jpg")
        masks = by_stem((name for name in found if name.count("/") == 1), ".bmp")
        rows = [
            (name, image, masks.get(f"{name}_label", f"{name}_label.bmp"), "", name.split("/")[0])
            for name, image in sorted(images.items())
        ]
        if not rows:
            fix = f"unpack the archive of {self.homepage} there"
            raise UserError(f"dataset 'ksdd': no images kos01/Part0.jpg, ... in '{root}': {fix}")
        return labelled("ksdd", root, rows)
