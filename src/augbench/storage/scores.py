"""Score tables as bytes and back: a row per judged picture, as Parquet."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow


def scores_bytes(scores: pd.DataFrame) -> bytes:
    """A score table as a Parquet file: equal tables give equal bytes."""
    buffer = io.BytesIO()
    scores.to_parquet(buffer, index=False, engine="pyarrow", compression="zstd")
    return buffer.getvalue()


def scores_table(data: bytes) -> pyarrow.Table:
    """What a Parquet file holds.

    Read in this thread alone: the pools of threads that Arrow starts otherwise may end the process with SIGABRT when
    Python leaves (apache/arrow#34314), after all work was done well. Tables of scores are small.

    Raises:
        ValueError: it is no whole Parquet file.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(pyarrow.BufferReader(data), pre_buffer=False).read(use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def scores_frame(data: bytes) -> pd.DataFrame:
    """The same as a DataFrame. Raises ValueError as `scores_table`."""
    return scores_table(data).to_pandas(use_threads=False)
