"""Labels from masks, for KSDD and KSDD2: an image has a defect if its mask has a non-zero pixel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS
from augbench.core.errors import DatasetError, UserError
from augbench.core.images import read_grey

DEFECT = "defect"


def labelled(name: str, root: Path, rows: Sequence[tuple[str, str, str, str, str]]) -> pd.DataFrame:
    """Make the table of `Dataset.samples` from rows of id, image, mask, split, group. Reads every mask.

    Raises:
        DatasetError: some masks cannot be read; it names each of them.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        labels = list(pool.map(_label, (root / mask for _, _, mask, _, _ in rows)))
    problems = [str(label) for label in labels if isinstance(label, UserError)]
    full = [
        (name, image, mask, label if isinstance(label, str) else "", split, group)
        for (name, image, mask, split, group), label in zip(rows, labels, strict=True)
    ]
    table = pd.DataFrame(full, columns=SAMPLE_COLUMNS).sort_values("id", ignore_index=True)
    if problems:
        raise DatasetError(name, problems, table)
    return table


def _label(mask: Path) -> str | UserError:
    try:
        return DEFECT if read_grey(mask).any() else GOOD
    except UserError as error:
        return error
