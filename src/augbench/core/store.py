"""The store: adapters, pools, cells and scores by key. The one path rule, and atomic writes.

A file is either whole or not there: it is written beside its place, flushed to disk, and renamed. What marks a unit as
done (the commit marker) is written last: an adapter's ``adapter.json``, a chunk's metadata file, a cell's record.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import traceback
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from augbench.core.errors import UserError
from augbench.core.specs import AdapterSpec, PoolSpec

Kind = Literal["adapters", "pools", "fidelity", "cells", "scores", "weights", "failures", "fingerprints", "grids"]
SUFFIX = {
    "cells": ".json",
    "scores": ".parquet",
    "weights": ".safetensors",
    "failures": ".json",
    "fingerprints": ".json",
    "grids": ".json",
    "fidelity": ".json",
    "adapters": "",
    "pools": "",
}


class Store:
    """A directory that holds everything a grid makes. Nothing is created before the first write."""

    def __init__(self, root: str | Path) -> None:
        if not str(root).strip():
            raise UserError("--store is empty: give a folder")
        if "://" in str(root):
            raise UserError(f"store '{root}': only local folders are supported so far: give a path")
        self.root = Path(root).expanduser().resolve()
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"store '{root}' is a file: give a folder")
        if self.root.is_dir() and any(self.root.iterdir()) and not self.exists():
            raise UserError(f"store '{root}' is a folder with other things in it: give a new or an empty one")

    def exists(self) -> bool:
        """Whether anything has been written yet."""
        return any((self.root / kind).is_dir() for kind in (*SUFFIX, "leases", "reports"))

    # -- paths: readers, writers and the planner all come through here

    def path(self, kind: Kind, key: str) -> Path:
        """Where the unit ``key`` of that kind lies (a folder for adapters and pools)."""
        return self.root / kind / f"{key}{SUFFIX[kind]}"

    def chunk_path(self, pool: PoolSpec, chunk: int) -> Path:
        """The commit marker of a chunk: one JSON line per picture."""
        return self.path("pools", pool.key) / "chunks" / f"{chunk:05d}.jsonl"

    def image_path(self, pool: PoolSpec, index: int) -> Path:
        """The picture with that place in the pool."""
        return self.path("pools", pool.key) / "images" / f"{index:05d}.png"

    def mask_path(self, pool: PoolSpec, index: int) -> Path:
        """The mask of the picture with that place in the pool."""
        return self.path("pools", pool.key) / "masks" / f"{index:05d}.png"

    def report_path(self, grid_name: str) -> Path:
        """The folder of a grid's reports."""
        return self.root / "reports" / grid_name

    # -- what is there

    def keys(self, kind: Kind) -> set[str]:
        """Keys of the files of that kind, in one directory listing (folders of adapters and pools: see below)."""
        folder, suffix = self.root / kind, SUFFIX[kind]
        if not folder.is_dir():
            return set()
        with os.scandir(folder) as entries:
            return {e.name.removesuffix(suffix) for e in entries if e.name.endswith(suffix) and e.name[0] != "."}

    def has_adapter(self, spec: AdapterSpec) -> bool:
        """Whether the adapter is committed."""
        return (self.path("adapters", spec.key) / "adapter.json").is_file()

    def chunks(self, pool: PoolSpec) -> set[int]:
        """Numbers of the committed chunks of a pool."""
        folder = self.path("pools", pool.key) / "chunks"
        return {int(path.stem) for path in folder.glob("*.jsonl")} if folder.is_dir() else set()

    # -- reading and writing

    def read_json(self, kind: Kind, key: str) -> dict[str, Any] | None:
        """The JSON object of that key, or None where there is none.

        Raises:
            UserError: the file is not whole.
        """
        path = self.path(kind, key)
        try:
            return read_json_file(path)
        except FileNotFoundError:
            return None

    def write_json(self, kind: Kind, key: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object, atomically."""
        write_atomic(self.path(kind, key), json_bytes(value))

    def read_record(self, key: str) -> dict[str, Any]:
        """A cell's record.

        Raises:
            UserError: it is missing, not whole, or belongs to another key.
        """
        path = self.path("cells", key)
        record = self.read_json("cells", key)
        if record is None:
            raise UserError(f"record '{path}' is missing: run the grid again")
        if not {"key", "spec", "result", "provenance"} <= record.keys() or record["key"] != key:
            raise UserError(f"record '{path}' is not the record of '{key}': {MEND}")
        return record

    def chunk_lines(self, pool: PoolSpec, chunk: int) -> list[dict[str, Any]]:
        """The metadata of a committed chunk's pictures."""
        path = self.chunk_path(pool, chunk)
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except json.JSONDecodeError as error:
            raise UserError(f"chunk '{path}' is damaged ({error}): {MEND}") from None

    # -- failures

    def record_failure(self, key: str, spec: Mapping[str, Any], error: BaseException) -> None:
        """Note that a unit failed, with its traceback; a later success removes the note."""
        earlier = self.read_json("failures", key)
        self.write_json(
            "failures",
            key,
            {
                "key": key,
                "spec": spec,
                "error": f"{type(error).__name__}: {error}",
                "by_user": isinstance(error, UserError),
                "attempts": (earlier["attempts"] if earlier else 0) + 1,
                "traceback": "".join(traceback.format_exception(error)),
            },
        )

    def clear_failure(self, key: str) -> None:
        """The unit succeeded: no failure is on record any more."""
        self.path("failures", key).unlink(missing_ok=True)

    def check(self) -> list[str]:
        """What is damaged, one sentence each: records that are not whole, or without their scores; stray parts."""
        problems = []
        for key in sorted(self.keys("cells")):
            try:
                self.read_record(key)
            except UserError as error:
                problems.append(str(error))
                continue
            problems += _check_scores(self.path("scores", key))
        for path in sorted((self.root / "pools").glob("*/chunks/*.jsonl")):
            problems += _check_chunk(path)
        return problems


MEND = "delete it, and run the grid again to make it anew"


def _check_scores(path: Path) -> list[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        parquet.read_table(path)
    except FileNotFoundError:
        return [f"scores '{path}' are missing: run the grid again to make them anew"]
    except (pyarrow.ArrowException, OSError):
        return [f"scores '{path}' are damaged: {MEND}"]
    return []


def _check_chunk(path: Path) -> list[str]:
    """A chunk's pictures against the digests in its metadata."""
    pool = path.parent.parent
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        pairs = [pair for line in lines for pair in _digests(line)]
    except (json.JSONDecodeError, KeyError):
        return [f"chunk '{path}' is damaged: {MEND}"]
    bad = []
    for name, expected in pairs:
        file = pool / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            bad.append(f"chunk '{path}': '{name}' is missing or damaged: {MEND}")
    return bad


def _digests(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(file, SHA-256) of a picture's line, and of its mask if it has one. Flat, for Hugging Face's column types."""
    found = [(line["file_name"], line["sha256"])]
    return [*found, (line["mask_file_name"], line["mask_sha256"])] if "mask_file_name" in line else found


def read_json_file(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is not a whole JSON object.
    """
    data = path.read_bytes()
    try:
        value = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is damaged ({error}): {MEND}") from None
    if not isinstance(value, dict):
        raise UserError(f"'{path}' is damaged (not a JSON object): {MEND}")
    return value


def json_bytes(value: object) -> bytes:
    """Readable JSON with sorted keys: equal values give equal bytes. NaN is refused."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def json_lines(values: Iterable[object]) -> bytes:
    """One JSON value a line, keys sorted."""
    return b"".join(
        (json.dumps(v, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode() for v in values
    )


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or not there, also when the machine loses power in between."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise UserError(f"cannot write '{path}' ({error.strerror}): make room or rights, or write elsewhere") from error


def commit_folder(made: Path, target: Path) -> None:
    """Move a finished folder into its place; one that is already there was made from the same spec and stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(made)
