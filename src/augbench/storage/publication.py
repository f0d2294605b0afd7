"""Publications: folders with a store's records and scores in a few archives, read under the file names of a store."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from augbench.core.errors import UserError, listed
from augbench.storage.files import LocalFiles
from augbench.storage.scores import rows_by_key, rows_bytes

if TYPE_CHECKING:
    import pyarrow

ARCHIVES = {
    "cells": "records.jsonl.gz",
    "scores": "scores.parquet",
    "fidelity": "fidelity.jsonl.gz",
    "searches": "searches.jsonl.gz",
    "audits": "audits.jsonl.gz",
    "grids": "grids.jsonl.gz",
}
"""Folder of a store -> the file of a publication that holds its content.

A ``.jsonl.gz`` file has one JSON object per line, with its ``key``: of a grid its name. The Parquet file has the rows
of all score tables, with a column ``key``. Earlier versions left the lines plain, and wrote a folder of grids.
"""

RECORDS = (ARCHIVES["cells"], "records.jsonl")
"""The files of which one makes a folder a publication: of today and of earlier versions."""

MAX_UNPACKED = 2_000_000_000  # bytes; 5,000 records have 16 million


class PublicationFiles(LocalFiles):
    """The files of a publication: ``cells/<key>.json`` is a line of ``records.jsonl.gz``, and so on.

    Only reports are written, see `Store.require_writable`. An archive is read whole on its first use, and refused whole
    if it is damaged.
    """

    publication = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, there=True)
        self._read: dict[str, Mapping[str, bytes | pyarrow.Table]] = {}  # folder -> file -> its content
        self.archives: dict[str, str] = {}  # without the folders of an earlier version
        for kind, archive in ARCHIVES.items():
            forms = (archive, archive.removesuffix(".gz"), f"{kind}/")
            held = [name for name in dict.fromkeys(forms) if (self.folder / name).exists()]
            if len(held) > 1:
                raise UserError(
                    f"'{folder}' holds {listed(held)}, which are forms of the same: remove all but one, or export "
                    "the store again to a new folder"
                )
            if held != [f"{kind}/"]:
                self.archives[kind] = held[0] if held else archive

    def _files(self, kind: str) -> Mapping[str, bytes | pyarrow.Table]:
        """Return the content of an archive by file name. Raises UserError if it is damaged."""
        if kind not in self._read:
            path = self.folder / self.archives[kind]
            data = super().read(path.name) if path.exists() else None
            try:
                if data is None:
                    self._read[kind] = {}
                elif kind == "scores":
                    self._read[kind] = {f"{key}.parquet": rows for key, rows in rows_by_key(data).items()}
                else:
                    lines = unpacked(data) if path.suffix == ".gz" else data
                    self._read[kind] = {f"{key}.json": line for key, line in _lines_by_key(lines).items()}
            except ValueError as error:
                raise UserError(f"'{path}' is damaged ({error}): restore it, or export the store again") from None
        return self._read[kind]

    @override
    def where(self, name: str) -> str:
        kind, _, file = name.partition("/")
        return super().where(f"{self.archives[kind]}, {file.rpartition('.')[0]}" if kind in self.archives else name)

    @override
    def names(self, folder: str) -> set[str]:
        if folder in self.archives:
            return set(self._files(folder))
        found = super().names(folder)
        return found if folder else found | {kind for kind, archive in self.archives.items() if archive in found}

    @override
    def exists(self, name: str) -> bool:
        kind, _, file = name.partition("/")
        return file in self._files(kind) if kind in self.archives else super().exists(name)

    @override
    def read(self, name: str) -> bytes:
        kind, _, file = name.partition("/")
        if kind not in self.archives:
            return super().read(name)
        content = self._files(kind).get(file)
        if content is None:
            raise FileNotFoundError(name)
        return content if isinstance(content, bytes) else rows_bytes(content)

    @override
    def age(self, name: str) -> float | None:
        kind = name.partition("/")[0]
        if kind not in self.archives:
            return super().age(name)
        return super().age(self.archives[kind]) if self.exists(name) else None

    @override
    def ages(self, folder: str) -> dict[str, float | None]:
        if folder not in self.archives:
            return super().ages(folder)
        return dict.fromkeys(self.names(folder), super().age(self.archives[folder]))


def packed(lines: bytes) -> bytes:
    """Compress with gzip: equal lines give equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as file:  # `gzip.compress` adds the system
        file.write(lines)
    return buffer.getvalue()


def unpacked(data: bytes) -> bytes:
    """Inverse of `packed`. Raises ValueError: no whole gzip file, or more than `MAX_UNPACKED` bytes in it."""
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS + 16)  # of one gzip file
    try:
        lines = reader.decompress(data, MAX_UNPACKED)
    except zlib.error as error:
        raise ValueError(f"no whole gzip file: {error}") from None
    if len(lines) >= MAX_UNPACKED:
        raise ValueError(f"unpacked it has {MAX_UNPACKED:,} bytes or more")
    if not reader.eof or reader.unused_data:
        raise ValueError(f"no whole gzip file: {'more follows its end' if reader.eof else 'its end is missing'}")
    return lines


def _lines_by_key(data: bytes) -> dict[str, bytes]:
    """Map the key of each record to its line. Raises ValueError, naming a line that is no record or repeats a key."""
    found: dict[str, bytes] = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            key = json.loads(line)["key"]
        except (ValueError, TypeError, KeyError, RecursionError):
            key = None
        if not isinstance(key, str) or not key.isprintable() or "/" in key or key[:1] in ("", "."):
            raise ValueError(f"line {number} is no record with a key")
        if key in found:
            raise ValueError(f"line {number} repeats the key '{key}'")
        found[key] = line
    return found
