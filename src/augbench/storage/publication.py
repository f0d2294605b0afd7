"""Publications: folders with a store's records and scores in a few archives, read under the file names of a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from augbench.core.errors import UserError
from augbench.storage.files import LocalFiles
from augbench.storage.scores import rows_by_key, rows_bytes

if TYPE_CHECKING:
    import pyarrow

RECORDS = "records.jsonl"
ARCHIVES = {
    "cells": RECORDS,
    "scores": "scores.parquet",
    "fidelity": "fidelity.jsonl",
    "searches": "searches.jsonl",
    "audits": "audits.jsonl",
}
"""Folder of a store -> the file of a publication that holds its content.

A ``.jsonl`` file has one record per line. The Parquet file has the rows of all score tables, with a column ``key``.
"""


class PublicationFiles(LocalFiles):
    """The files of a publication: ``cells/<key>.json`` is a line of ``records.jsonl``, and so on.

    Only reports are written, see `Store.require_writable`. An archive is read whole on its first use, and refused whole
    if it is damaged.
    """

    publication = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, there=True)
        self._read: dict[str, Mapping[str, bytes | pyarrow.Table]] = {}  # folder -> file -> its content
        if folders := [f"{kind}/" for kind in ARCHIVES if (self.folder / kind).exists()]:
            raise UserError(
                f"'{folder}' holds {RECORDS} and also {', '.join(folders)}: remove the one or the other, or export "
                "the store again to a new folder"
            )

    def _files(self, kind: str) -> Mapping[str, bytes | pyarrow.Table]:
        """Return the content of an archive by file name. Raises UserError if it is damaged."""
        if kind not in self._read:
            path = self.folder / ARCHIVES[kind]
            data = super().read(path.name) if path.exists() else None
            try:
                index = rows_by_key if kind == "scores" else _lines_by_key
                suffix = ".parquet" if kind == "scores" else ".json"
                found = {} if data is None else index(data)
                self._read[kind] = {f"{key}{suffix}": content for key, content in found.items()}
            except ValueError as error:
                raise UserError(f"'{path}' is damaged ({error}): restore it, or export the store again") from None
        return self._read[kind]

    @override
    def where(self, name: str) -> str:
        kind, _, file = name.partition("/")
        return super().where(f"{ARCHIVES[kind]}, {file.rpartition('.')[0]}" if kind in ARCHIVES else name)

    @override
    def names(self, folder: str) -> set[str]:
        if folder in ARCHIVES:
            return set(self._files(folder))
        found = super().names(folder)
        return found if folder else found | {kind for kind, archive in ARCHIVES.items() if archive in found}

    @override
    def exists(self, name: str) -> bool:
        kind, _, file = name.partition("/")
        return file in self._files(kind) if kind in ARCHIVES else super().exists(name)

    @override
    def read(self, name: str) -> bytes:
        kind, _, file = name.partition("/")
        if kind not in ARCHIVES:
            return super().read(name)
        content = self._files(kind).get(file)
        if content is None:
            raise FileNotFoundError(name)
        return content if isinstance(content, bytes) else rows_bytes(content)

    @override
    def age(self, name: str) -> float | None:
        kind = name.partition("/")[0]
        if kind not in ARCHIVES:
            return super().age(name)
        return super().age(ARCHIVES[kind]) if self.exists(name) else None

    @override
    def ages(self, folder: str) -> dict[str, float | None]:
        if folder not in ARCHIVES:
            return super().ages(folder)
        return dict.fromkeys(self.names(folder), super().age(ARCHIVES[folder]))


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
