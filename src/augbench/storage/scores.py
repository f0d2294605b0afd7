"""Serialise score tables, one row per evaluated image, as Parquet: one file per cell, or one file for many cells."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from augbench.core.contracts import GOOD

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

ABOUT = ("id", "part", "label", "group")
"""The columns of a score table that identify the evaluated image; the others hold logits."""

KEY = "key"
"""The first column of an archive of score tables: the cell that a row belongs to."""


def scores_bytes(scores: pd.DataFrame) -> bytes:
    """Serialise a score table to Parquet: equal tables give equal bytes."""
    buffer = io.BytesIO()
    scores.to_parquet(buffer, index=False, engine="pyarrow", compression="zstd")
    return buffer.getvalue()


def scores_table(data: bytes, encoded: Sequence[str] = ()) -> pyarrow.Table:
    """Parse a Parquet file; where text columns ``encoded`` are given, check its columns, and dictionary-encode these.

    Uses no threads: Arrow's thread pools may abort the process at exit with SIGABRT (apache/arrow#34314), and score
    tables are small.

    Raises:
        ValueError: not a complete Parquet file, or other columns.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        if encoded:
            _check_columns(parquet.read_schema(pyarrow.BufferReader(data)), encoded)
        file = parquet.ParquetFile(pyarrow.BufferReader(data), pre_buffer=False, read_dictionary=list(encoded))
        return file.read(use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"its scores are no whole Parquet file ({' '.join(str(error).split())})") from None


def scores_frame(data: bytes) -> pd.DataFrame:
    """Parse a Parquet file to a DataFrame. Raises ValueError as `scores_table`."""
    return scores_table(data).to_pandas(use_threads=False)


def evaluated_part(data: bytes, *names: str) -> np.ndarray:
    """Read columns of the test images from the Parquet file of one score table, and nothing else of it.

    Args:
        data: the file.
        names: names of columns, or "logit" for all of its logits.

    Returns:
        N,C: float32 logits, or str objects.

    Raises:
        ValueError: not a complete Parquet file, or without these columns.
    """
    import pyarrow
    from pyarrow import compute, parquet

    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data), pre_buffer=False)
        columns = [one for one in file.schema_arrow.names if one in names or (names == ("logit",) and _is_logit(one))]
        table = file.read(["part", *columns], use_threads=False)
        test = table.filter(compute.equal(table["part"], "test"))
        return np.stack([test[one].to_numpy() for one in (names if names[0] in columns else columns)], axis=1)
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"its scores cannot be read ({' '.join(str(error).split())})") from None


def _is_logit(name: str) -> bool:
    return name == "logit" or name.startswith("logit_")


def checked_scores(data: bytes) -> pyarrow.Table:
    """Parse the Parquet file of one score table.

    Raises:
        ValueError: not a complete Parquet file, columns that are not those of scores, no rows, or rows without an id.
    """
    table = scores_table(data)
    _check_columns(table.schema, ABOUT)
    if not table.num_rows or any(table[name].null_count for name in ABOUT):
        raise ValueError(f"its scores lack rows, or values of {', '.join(ABOUT)}")
    return table


def _check_columns(schema: pyarrow.Schema, text: Sequence[str]) -> None:
    from pyarrow import types

    for name, kind in zip(schema.names, schema.types, strict=True):
        is_text = types.is_string(kind) or types.is_large_string(kind)
        if not (is_text if name in text else _is_logit(name) and types.is_float32(kind)):
            raise ValueError(
                f"its scores have the column '{name}' of type {kind}: text is in {tuple(text)}, logits are float32"
            )
    missing = [name for name in text if name not in schema.names]
    if missing or len(set(schema.names)) < len(schema.names):
        raise ValueError(f"its scores lack {', '.join(missing)}" if missing else "its scores name a column twice")


# -- the scores of many cells in one file


def scores_archive(tables: Iterable[tuple[str, pyarrow.Table]]) -> bytes:
    """Serialise the score tables of many cells to one Parquet file: equal tables give equal bytes.

    Args:
        tables: (key, table as `checked_scores` returns it), sorted by key.

    Returns:
        A table with the column `KEY`, the columns `ABOUT`, and the logits of all tables: "good" first, then by name,
        as in every score table; null where the cell has no such logit.
    """
    import pyarrow
    from pyarrow import parquet

    parts = []
    for key, table in tables:
        keys = pyarrow.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int32), [key])
        texts = {name: table[name].cast(pyarrow.string()).dictionary_encode() for name in ABOUT}
        logits = {name: table[name] for name in table.column_names if name not in ABOUT}
        parts.append(pyarrow.table({KEY: keys, **texts, **logits}))
    whole = pyarrow.concat_tables(parts, promote_options="default").unify_dictionaries().combine_chunks()
    columns = sorted({*whole.column_names} - {KEY, *ABOUT}, key=lambda name: (name != f"logit_{GOOD}", name))
    sink = pyarrow.BufferOutputStream()
    # Splitting the bytes of floats saves a quarter; it goes without a dictionary. The level saves 6 % more.
    layout = {"use_dictionary": [KEY, *ABOUT], "use_byte_stream_split": columns}
    packing = {"compression": "zstd", "compression_level": 19, "store_schema": False}
    parquet.write_table(whole.select([KEY, *ABOUT, *columns]), sink, **layout, **packing)
    return sink.getvalue().to_pybytes()


def rows_by_key(data: bytes) -> dict[str, pyarrow.Table]:
    """Map each key of an archive of score tables to its rows, with all columns of the archive.

    Raises:
        ValueError: not a complete Parquet file, columns that are not those of an archive or are empty, or rows of one
            key that do not follow each other.
    """
    table = scores_table(data, (KEY, *ABOUT))
    for name in table.column_names:
        if table[name].null_count == table.num_rows:
            raise ValueError(f"its scores have nothing in the column '{name}'")
    table = table.unify_dictionaries().combine_chunks()
    codes = table[KEY].combine_chunks().indices.fill_null(-1).to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-2)).tolist()
    found: dict[str, pyarrow.Table] = {}
    for start, end in pairwise([*starts, len(codes)]):
        key = table[KEY][start].as_py()
        if key is None or key in found:
            raise ValueError(f"row {start + 1} " + ("has no key" if key is None else f"repeats the key '{key}'"))
        found[key] = table.slice(start, end - start)
    return found


def rows_bytes(rows: pyarrow.Table) -> bytes:
    """Serialise the rows of one key to Parquet as a score table: without `KEY`, and without columns of nulls."""
    import pyarrow
    from pyarrow import parquet

    texts = {name: rows[name].combine_chunks().dictionary_decode() for name in ABOUT}
    logits = {name: rows[name] for name in rows.column_names if name not in (KEY, *ABOUT)}
    held = {name: column for name, column in logits.items() if column.null_count < len(column)}
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({**texts, **held}), sink, compression="none", use_dictionary=False)
    return sink.getvalue().to_pybytes()
