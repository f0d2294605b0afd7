"""KSDD, the Kolektor Surface-Defect Dataset (the first one): 399 grey pictures of about 500 x 1260, with masks.

Tabernik, Sela, Skvarc, Skocaj, "Segmentation-based deep-learning approach for surface-defect detection", Journal of
Intelligent Manufacturing 31, 2020. Each folder holds the about eight photographs of one electrical commutator, so the
folder is the group. There is no official split; the paper judged by 3-fold cross validation with whole items in a fold.
Our three folds follow that rule but are our own, not the paper's lists.
"""

from __future__ import annotations

from functools import cached_property

import pandas as pd

from augbench.core.contracts import GOOD, Dataset
from augbench.core.errors import UserError
from augbench.datasets._mask_labels import DEFECT, labelled


class KSDD(Dataset):
    """Layout: ``kos01/Part0.jpg`` with ``kos01/Part0_label.bmp``, ... ``kos50/``.

    A picture is defective where its mask has any non-zero pixel.
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
        """Ids are folder and file name, e.g. ``kos01/Part0``; the group is the folder, one physical item."""
        return self._table

    @cached_property
    def _table(self) -> pd.DataFrame:
        root = self.root()
        rows = []
        for path in sorted(root.glob("kos[0-9][0-9]/Part*.jpg")):
            item = path.parent.name
            rows.append((f"{item}/{path.stem}", f"{item}/{path.name}", f"{item}/{path.stem}_label.bmp", "", item))
        if not rows:
            raise UserError(
                f"dataset 'ksdd': no pictures kos01/Part0.jpg, ... in '{root}': "
                f"unpack the archive of {self.homepage} there"
            )
        return labelled("ksdd", root, rows)
