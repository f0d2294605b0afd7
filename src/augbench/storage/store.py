"""The store: adapters, pools, cells and scores by key. The one rule for names; every read and write comes through here.

What marks a unit as done (the commit marker) is written last: an adapter's ``adapter.json``, a chunk's metadata file, a
cell's record. How a file comes to be whole or not there is the business of `storage.files`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from augbench.core.errors import StoreError, UserError
from augbench.core.specs import AdapterSpec, PoolSpec, SearchSpec
from augbench.storage.files import Files, LocalFiles
from augbench.storage.remote_files import RemoteFiles
from augbench.storage.scores import scores_table

Kind = Literal[
    "adapters",
    "pools",
    "fidelity",
    "searches",
    "cells",
    "scores",
    "weights",
    "failures",
    "fingerprints",
    "grids",
    "shared",
    "versions",
]
SUFFIX = {
    "cells": ".json",
    "scores": ".parquet",
    "weights": ".safetensors",
    "failures": ".json",
    "fingerprints": ".json",
    "grids": ".json",
    "fidelity": ".json",
    "searches": ".json",
    "versions": ".json",
    "adapters": "",
    "shared": "",
    "pools": "",
}
ADAPTER_MARKER = "adapter.json"
SHARED_MARKER = "shared.json"
LOGS = "logs"
FIX_HINT = "delete it, and run the grid again to make it anew"


class Store:
    """Holds everything a grid makes, in a folder or at a URL. Nothing is created before the first write."""

    def __init__(self, location: str | Path, look: bool = True) -> None:
        """Open a store.

        Args:
            location: a path, or a URL that fsspec knows, such as ``s3://bucket/folder``.
            look: see whether it can be one. A worker of a run need not: its driver has looked.

        Raises:
            UserError: it cannot be a store, holds other things, or is out of reach.
        """
        self.files = open_files(location, there=not look)
        top = self.files.top() if look else set()
        if top and not top & self._rooms():
            raise UserError(f"store '{location}' is a folder with other things in it: give a new or an empty one")

    @property
    def url(self) -> str:
        """The path or URL that opens it again, in this process or another."""
        return self.files.url

    def exists(self) -> bool:
        """Whether anything has been written yet."""
        return bool(self.files.top() & self._rooms())

    @staticmethod
    def _rooms() -> set[str]:
        return {*SUFFIX, LOGS, "leases", "reports", "scratch"}

    # -- names: readers, writers and the planner all come through here

    def name(self, kind: Kind, key: str) -> str:
        """The name of the unit ``key`` of that kind (a folder for adapters and pools), relative to the store."""
        return f"{kind}/{key}{SUFFIX[kind]}"

    def chunk_name(self, pool: PoolSpec, chunk: int) -> str:
        """The commit marker of a chunk: one JSON line per picture."""
        return f"{self.name('pools', pool.key)}/chunks/{chunk:05d}.jsonl"

    def chunk_provenance_name(self, pool: PoolSpec, chunk: int) -> str:
        """How a chunk was made: seconds, device, versions."""
        return f"{self.name('pools', pool.key)}/chunks/{chunk:05d}.provenance.json"

    def image_name(self, pool: PoolSpec, index: int) -> str:
        """The picture with that place in the pool."""
        return f"{self.name('pools', pool.key)}/images/{index:05d}.png"

    def mask_name(self, pool: PoolSpec, index: int) -> str:
        """The mask of the picture with that place in the pool."""
        return f"{self.name('pools', pool.key)}/masks/{index:05d}.png"

    def arm_name(self, search: SearchSpec, arm: int) -> str:
        """What one arm of a search that is not decided yet has found."""
        return f"searches/{search.key}.arms/{arm:03d}.json"

    def log_name(self, key: str, part: int | None = None) -> str:
        """What was said while a unit was made. A chunk of a pool, and an arm of a search, is a ``part`` of it."""
        return f"{LOGS}/{key}.log" if part is None else f"{LOGS}/{key}/{part:05d}.log"

    def report_name(self, grid_name: str, file: str) -> str:
        """A file of a grid's report."""
        return f"reports/{grid_name}/{file}"

    def where(self, kind: Kind, key: str) -> str:
        """The unit's place in words that a user can paste."""
        return self.files.where(self.name(kind, key))

    # -- what is there

    def keys(self, kind: Kind) -> set[str]:
        """Keys of that kind, in one listing (of adapters and pools also those that are not committed: see below)."""
        suffix = SUFFIX[kind]
        return {name.removesuffix(suffix) for name in self.files.names(kind) if name.endswith(suffix)}

    def has(self, kind: Kind, key: str) -> bool:
        """Whether the file of that key is there."""
        return self.files.exists(self.name(kind, key))

    def has_adapter(self, spec: AdapterSpec) -> bool:
        """Whether the adapter is committed."""
        return self.files.exists(f"{self.name('adapters', spec.key)}/{ADAPTER_MARKER}")

    def shared(self, key: str, make: Callable[[Path], None]) -> Path:
        """The folder of that key, as a local one; ``make`` fills it where there is none. Made twice it is kept once.

        Its marker tells the ``seconds`` of making it; those of older stores do not.
        """
        name = self.name("shared", key)
        if not self.files.exists(f"{name}/{SHARED_MARKER}"):
            with tempfile.TemporaryDirectory(prefix="augbench-shared-") as folder:
                made = Path(folder) / "made"
                made.mkdir()
                started = time.perf_counter()
                make(made)
                seconds = time.perf_counter() - started
                (made / SHARED_MARKER).write_bytes(json_bytes({"key": key, "seconds": seconds}))
                self.files.commit_folder(made, name, SHARED_MARKER)
        return self.files.local_folder(name)

    def chunks(self, pool: PoolSpec) -> set[int]:
        """Numbers of the committed chunks of a pool."""
        names = self.files.names(f"{self.name('pools', pool.key)}/chunks")
        return {int(name.removesuffix(".jsonl")) for name in names if name.endswith(".jsonl")}

    # -- reading and writing

    def read_json(self, kind: Kind, key: str) -> dict[str, Any] | None:
        """The JSON object of that key, or None where there is none.

        Raises:
            UserError: the file is not whole.
        """
        name = self.name(kind, key)
        try:
            return parse_json(self.files.read(name), self.files.where(name))
        except FileNotFoundError:
            return None

    def parsed(self, name: str) -> dict[str, Any]:
        """The JSON object in the file of that name. Raises FileNotFoundError, or UserError where it is not whole."""
        return parse_json(self.files.read(name), self.files.where(name))

    def write_json(self, kind: Kind, key: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object."""
        self.write_json_at(self.name(kind, key), value)

    def write_json_at(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object into the file of that name."""
        self.files.write(name, json_bytes(value))

    def read_record(self, key: str) -> dict[str, Any]:
        """A cell's record.

        Raises:
            UserError: it is missing, not whole, or belongs to another key.
        """
        return next(self.read_records([key]))

    def read_records(self, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Records in the order of the keys; remote ones are fetched many at a time. Raises as `read_record`."""
        for key, data in zip(keys, self.files.read_many([self.name("cells", key) for key in keys]), strict=True):
            yield self._record(key, data)

    def _record(self, key: str, data: bytes | None, kind: Kind = "cells") -> dict[str, Any]:
        place = self.where(kind, key)
        if data is None:
            raise UserError(f"record '{place}' is missing: run the grid again")
        record = parse_json(data, place)
        if not {"key", "spec", "result", "provenance"} <= record.keys() or record["key"] != key:
            raise UserError(f"record '{place}' is not the record of '{key}': {FIX_HINT}")
        return record

    def chunk_lines(self, pool: PoolSpec, chunk: int) -> list[dict[str, Any]]:
        """The metadata of a committed chunk's pictures."""
        name = self.chunk_name(pool, chunk)
        return parse_lines(self.files.read(name), self.files.where(name))

    def pool_file(self, key: str) -> str:
        """What sums a pool up: its spec, its committed chunks, what it cost."""
        return f"{self.name('pools', key)}/pool.json"

    def read_pool(self, key: str) -> dict[str, Any] | None:
        """The summary of a pool, or None where it has none yet.

        Raises:
            UserError: the file is not whole.
        """
        return next(self.read_pools([key]))

    def read_pools(self, keys: Sequence[str]) -> Iterator[dict[str, Any] | None]:
        """The same of many pools, in order; remote ones are asked for together."""
        names = [self.pool_file(key) for key in keys]
        for name, data in zip(names, self.files.read_many(names), strict=True):
            yield None if data is None else parse_json(data, self.files.where(name))

    # -- failures

    def record_failure(self, key: str, spec: Mapping[str, Any], error: BaseException) -> None:
        """Note that a unit failed, with its traceback; a later success removes the note."""
        if isinstance(error, StoreError):
            return  # the unit is not to blame, and where nothing can be written no note can
        with contextlib.suppress(StoreError):  # the caller has the error in hand and reports it
            earlier = self.read_json("failures", key)
            note = {
                "key": key,
                "spec": spec,
                "error": f"{type(error).__name__}: {error}",
                "by_user": isinstance(error, UserError),
                "attempts": (earlier["attempts"] if earlier else 0) + 1,
                "traceback": "".join(traceback.format_exception(error)),
            }
            self.write_json("failures", key, note)

    def clear_failure(self, key: str) -> None:
        """The unit succeeded: no failure is on record any more."""
        self.files.remove(self.name("failures", key))

    # -- what the killed left

    def unfinished(self, pools: Iterable[PoolSpec]) -> list[str]:
        """Files that were begun, in the rooms that the workers of a run write to, and in these pools."""
        rooms = sorted({*SUFFIX, LOGS, "leases", "leases/drivers"} - {"fingerprints", "grids", "versions"})
        folders = [f"{self.name('pools', pool.key)}/{part}" for pool in pools for part in ("chunks", "images", "masks")]
        logs = [f"{LOGS}/{pool.key}" for pool in pools]
        return [name for folder in (*rooms, *folders, *logs) for name in self.files.unfinished(folder)]

    # -- damage

    def check(self) -> list[str]:
        """What is damaged, one sentence each: records that are not whole, or cells' without scores; chunks."""
        problems: list[str] = []
        whole = [self.name("scores", key) for key in self._whole("cells", problems)]
        for kind in ("fidelity", "searches"):
            self._whole(kind, problems)
        for name, data in zip(whole, self.files.read_many(whole), strict=True):
            problems += _check_scores(data, self.files.where(name))
        for pool in sorted(self.files.names("pools")):
            folder = f"pools/{pool}/chunks"
            for chunk in sorted(name for name in self.files.names(folder) if name.endswith(".jsonl")):
                problems += self._check_chunk(f"pools/{pool}", f"{folder}/{chunk}")
        return problems

    def _whole(self, kind: Kind, problems: list[str]) -> list[str]:
        """Keys of the whole records of that kind, sorted; the others become ``problems``."""
        keys, whole = sorted(self.keys(kind)), []
        for key, data in zip(keys, self.files.read_many([self.name(kind, key) for key in keys]), strict=True):
            try:
                self._record(key, data, kind)
                whole.append(key)
            except UserError as error:
                problems.append(str(error))
        return whole

    def _check_chunk(self, pool: str, chunk: str) -> list[str]:
        """A chunk's pictures against the digests in its metadata."""
        place = self.files.where(chunk)
        try:
            lines = parse_lines(self.files.read(chunk), place)
            digests = dict(pair for line in lines for pair in _digests(line))
        except (UserError, KeyError):
            return [f"chunk '{place}' is damaged: {FIX_HINT}"]
        contents = self.files.read_many([f"{pool}/{file}" for file in digests])
        return [
            f"chunk '{place}': '{file}' is missing or damaged: {FIX_HINT}"
            for (file, expected), data in zip(digests.items(), contents, strict=True)
            if data is None or hashlib.sha256(data).hexdigest() != expected
        ]


def open_files(location: str | Path, there: bool = False) -> Files:
    """The files of a store at a path or an fsspec URL. Nothing is read or created yet.

    ``there``: the store has been made, so a folder that is missing is out of reach, not new.

    Raises:
        UserError: the location cannot be a store.
    """
    text = str(location).strip()
    if not text:
        raise UserError("--store is empty: give a folder or a URL")
    protocol, separator, rest = text.partition("://")
    if not separator:
        return LocalFiles(Path(text), there)
    if protocol in ("file", "local"):
        return LocalFiles(Path(rest), there)
    return RemoteFiles(f"{protocol}://{rest.rstrip('/')}", protocol)


def _check_scores(data: bytes | None, place: str) -> list[str]:
    if data is None:
        return [f"scores '{place}' are missing: run the grid again to make them anew"]
    try:
        scores_table(data)
    except ValueError:
        return [f"scores '{place}' are damaged: {FIX_HINT}"]
    return []


def _digests(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(file, SHA-256) of a picture's line, and of its mask if it has one. Flat, for Hugging Face's column types."""
    found = [(line["file_name"], line["sha256"])]
    return [*found, (line["mask_file_name"], line["mask_sha256"])] if "mask_file_name" in line else found


def parse_json(data: bytes, place: str) -> dict[str, Any]:
    """A JSON object. Raises UserError, naming the place, where it is not a whole one."""
    try:
        value = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"'{place}' is damaged ({error}): {FIX_HINT}") from None
    if not isinstance(value, dict):
        raise UserError(f"'{place}' is damaged (not a JSON object): {FIX_HINT}")
    return value


def parse_lines(data: bytes, place: str) -> list[dict[str, Any]]:
    """One JSON object a line. Raises UserError as `parse_json`."""
    return [parse_json(line, place) for line in data.splitlines()]


def json_bytes(value: object) -> bytes:
    """Readable JSON with sorted keys: equal values give equal bytes. NaN is refused."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def json_lines(values: Iterable[object]) -> bytes:
    """One JSON value a line, keys sorted."""
    return b"".join(
        (json.dumps(v, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode() for v in values
    )
