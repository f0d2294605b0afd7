"""Read the tables of datasets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file as text, "" where a cell is empty.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or no table.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first values of each row for its name
        raise ValueError("line 2 has more values than the header: write a value with a comma in quotes")
    return table
