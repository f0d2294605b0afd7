"""Serialise score tables, one row per evaluated image, as Parquet."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow


def scores_bytes(scores: pd.DataFrame) -> bytes:
    """Serialise a score table to Parquet: equal tables give equal bytes."""
    buffer = io.BytesIO()
    scores.to_parquet(buffer, index=False, engine="pyarrow", compression="zstd")
    return buffer.getvalue()


def scores_table(data: bytes) -> pyarrow.Table:
    """Parse a Parquet file.

    Uses no threads: Arrow's thread pools may abort the process at exit with SIGABRT (apache/arrow#34314), and score
    tables are small.

    Raises:
        ValueError: not a complete Parquet file.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(pyarrow.BufferReader(data), pre_buffer=False).read(use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def scores_frame(data: bytes) -> pd.DataFrame:
    """Parse a Parquet file to a DataFrame. Raises ValueError as `scores_table`."""
    return scores_table(data).to_pandas(use_threads=False)
