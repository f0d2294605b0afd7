"""The store: adapters, pools, cells and scores by key. It defines all file names and does all reads and writes.

The commit marker of a unit is written last: an adapter's ``adapter.json``, a chunk's metadata file, a cell's record.
`storage.files` makes each write atomic.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np

from augbench.core.errors import StoreError, UserError, brief, did_you_mean, listed
from augbench.core.images import decode_rgb
from augbench.core.specs import AdapterSpec, FeatureSpec, PoolSpec, SearchSpec
from augbench.storage.files import Files, LocalFiles, expanded
from augbench.storage.publication import RECORDS, PublicationFiles
from augbench.storage.remote_files import RemoteFiles
from augbench.storage.scores import scores_table

Folder = Literal["adapters", "pools", "shared", "features"]
JsonFile = Literal["audits", "cells", "failures", "fidelity", "fingerprints", "grids", "searches", "versions"]
Kind = Folder | JsonFile | Literal["scores", "weights"]
SUFFIX: dict[str, str] = dict.fromkeys(get_args(Folder), "") | dict.fromkeys(get_args(JsonFile), ".json")
SUFFIX |= {"scores": ".parquet", "weights": ".safetensors"}
ADAPTER_MARKER = "adapter.json"
SHARED_MARKER = "shared.json"
LOGS = "logs"
DIRECTORIES = {*SUFFIX, LOGS, "leases", "reports", "scratch"}
FIX_HINT = "delete it, and run the grid again to make it anew"


class Store:
    """Storage for all results of grids, in a folder or at a URL. Nothing is created before the first write."""

    def __init__(self, location: str | Path, look: bool = True) -> None:
        """Open a store.

        Args:
            location: a path, or a URL that fsspec knows, such as ``s3://bucket/folder``.
            look: check the location. Workers skip this, since their driver has checked it.

        Raises:
            UserError: the location is unusable, has other contents, or is unreachable.
        """
        self.files = open_files(location, there=not look)
        top = self.files.top() if look else set()
        if top.intersection(RECORDS) and not self.files.publication:
            raise UserError(f"'{location}' is a publication: copy it to a local folder to read it")
        if top and not top & DIRECTORIES:
            raise UserError(f"store '{location}' is a folder with other contents: give a new or an empty one")

    @property
    def url(self) -> str:
        """The path or URL that opens the same store in any process."""
        return self.files.url

    def exists(self) -> bool:
        """Whether anything has been written yet."""
        return bool(self.files.top() & DIRECTORIES)

    def require_writable(self) -> None:
        """Raise UserError if this is a publication."""
        if self.files.publication:
            raise UserError(f"'{self.url}' is a publication: give --store another folder")

    # -- names

    def name(self, kind: Kind, key: str) -> str:
        """Return the name of a unit (a folder for adapters and pools), relative to the store."""
        return f"{kind}/{key}{SUFFIX[kind]}"

    def chunk_name(self, spec: PoolSpec | FeatureSpec, chunk: int) -> str:
        """Return the name of a chunk's commit marker: of a pool one JSON line per image; of features their file."""
        if isinstance(spec, FeatureSpec):
            return f"{self.name('features', spec.key)}/{chunk:05d}.safetensors"
        return f"{self.name('pools', spec.key)}/chunks/{chunk:05d}.jsonl"

    def chunk_provenance_name(self, spec: PoolSpec | FeatureSpec, chunk: int) -> str:
        """Return the name of a chunk's provenance: seconds, device, versions."""
        return f"{self.chunk_name(spec, chunk).rpartition('.')[0]}.provenance.json"

    def image_name(self, pool: PoolSpec, index: int) -> str:
        """Return the name of the image with that index in the pool."""
        return f"{self.name('pools', pool.key)}/images/{index:05d}.png"

    def mask_name(self, pool: PoolSpec, index: int) -> str:
        """Return the name of the mask of the image with that index in the pool."""
        return f"{self.name('pools', pool.key)}/masks/{index:05d}.png"

    def arm_name(self, search: SearchSpec, arm: int) -> str:
        """Return the name of the result of one arm of an unfinished search."""
        return f"searches/{search.key}.arms/{arm:03d}.json"

    def log_name(self, key: str, part: int | None = None) -> str:
        """Return the name of a unit's log. A chunk of a pool, or an arm of a search, is a ``part``."""
        return f"{LOGS}/{key}.log" if part is None else f"{LOGS}/{key}/{part:05d}.log"

    def report_name(self, grid_name: str, file: str) -> str:
        """Return the name of a file of a grid's report."""
        return f"reports/{grid_name}/{file}"

    def where(self, kind: Kind, key: str) -> str:
        """Return the path or URL of a unit, for messages."""
        return self.files.where(self.name(kind, key))

    # -- existence

    def keys(self, kind: Kind) -> set[str]:
        """List the keys of a kind, with one listing; includes uncommitted adapters and pools."""
        suffix = SUFFIX[kind]
        return {name.removesuffix(suffix) for name in self.files.names(kind) if name.endswith(suffix)}

    def full_key(self, kind: Literal["cells", "pools"], asked: str) -> str:
        """Return the key that a user asks for: the key, or a prefix that only one has. Raises UserError otherwise."""
        keys, one = sorted(self.keys(kind)), kind.removesuffix("s")
        found = [asked] if asked in keys else [key for key in keys if key.startswith(asked)]
        if len(found) > 1:
            some = f"'{found[0]}' and '{found[1]}' among them"
            raise UserError(f"'{asked}' begins {len(found)} keys, {some}: give a longer prefix")
        if not found:
            near = did_you_mean(asked, keys)  # which lists all where none is near
            known = near if near.startswith(" (did") else f" (it has {listed(keys)})"
            hint = known if keys else f": no {one} has been made there"
            raise UserError(f"{one} '{brief(asked)}' is not in the store{hint}: see {self.files.where(kind)}")
        return found[0]

    def has(self, kind: Kind, key: str) -> bool:
        """Whether the file of that key exists."""
        return self.files.exists(self.name(kind, key))

    def has_adapter(self, spec: AdapterSpec) -> bool:
        """Whether the adapter is committed."""
        return self.files.exists(f"{self.name('adapters', spec.key)}/{ADAPTER_MARKER}")

    def read_adapter(self, spec: AdapterSpec) -> dict[str, Any]:
        """Read the record of an adapter that the store has."""
        return self.parsed(f"{self.name('adapters', spec.key)}/{ADAPTER_MARKER}")

    def shared(self, key: str, make: Callable[[Path], None]) -> Path:
        """Return a local path of the shared folder of that key; ``make`` fills it if it does not exist.

        If two processes fill it, one result is stored. Its marker records the ``seconds`` that it took; markers of
        older stores do not.
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

    def chunks(self, spec: PoolSpec | FeatureSpec) -> set[int]:
        """Return the numbers of the committed chunks of a pool, or of features."""
        folder, _, marker = self.chunk_name(spec, 0).rpartition("/")
        suffix = marker[marker.index(".") :]
        return set(numbered(self.files.names(folder), suffix))

    # -- reading and writing

    def read_json(self, kind: Kind, key: str) -> dict[str, Any] | None:
        """Read the JSON object of that key; None if it does not exist. Raises UserError if the file is damaged."""
        with contextlib.suppress(FileNotFoundError):
            return self.parsed(self.name(kind, key))
        return None

    def parsed(self, name: str) -> dict[str, Any]:
        """Read the JSON object in that file. Raises FileNotFoundError, or UserError if it is damaged."""
        return parse_json(self.files.read(name), self.files.where(name))

    def write_json(self, kind: Kind, key: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object."""
        self.write_json_at(self.name(kind, key), value)

    def write_json_at(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object to the file of that name."""
        self.files.write(name, json_bytes(value))

    def read_record(self, key: str) -> dict[str, Any]:
        """Read a cell's record. Raises UserError if it is missing, damaged, or belongs to another key."""
        return next(self.read_records([key]))

    def read_records(self, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield records in the order of the keys; remote reads are concurrent. Raises as `read_record`."""
        for key, data in zip(keys, self.files.read_many([self.name("cells", key) for key in keys]), strict=True):
            yield self._record(key, data)

    def _record(self, key: str, data: bytes | None, kind: Kind = "cells") -> dict[str, Any]:
        location = self.where(kind, key)
        if data is None:
            raise UserError(f"record '{location}' is missing: run the grid again")
        record = parse_json(data, location)
        if not {"key", "spec", "result", "provenance"} <= record.keys() or record["key"] != key:
            raise UserError(f"record '{location}' is not the record of '{key}': {FIX_HINT}")
        return record

    def chunk_lines(self, pool: PoolSpec, chunk: int) -> list[dict[str, Any]]:
        """Read the metadata of a committed chunk's images."""
        name = self.chunk_name(pool, chunk)
        return parse_lines(self.files.read(name), self.files.where(name))

    def read_image(self, pool: PoolSpec, line: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
        """Read the image of a line of `chunk_lines`: H,W,3 uint8; and its mask: H,W bool, or None if it has none.

        Raises:
            UserError: one of them is missing or damaged.
        """
        names = [self.image_name(pool, line["index"])]
        names += [self.mask_name(pool, line["index"])] if "mask_file_name" in line else []
        files = zip(names, self.files.read_many(names), strict=True)
        image, *masks = [self.decoded(pool, name, data) for name, data in files]
        return image, masks[0][..., 0] > 127 if masks else None

    def decoded(self, pool: PoolSpec, name: str, data: bytes | None) -> np.ndarray:
        """Decode a file of a pool: H,W,3 uint8; masks are grey.

        Args:
            pool: the pool.
            name: of an image or a mask.
            data: its content; None: it does not exist.

        Raises:
            UserError: it is missing or damaged; the message names the chunk to delete.
        """
        try:
            return decode_rgb(data or b"", name)
        except UserError:
            chunk = self.chunk_name(pool, int(PurePosixPath(name).stem) // pool.chunk_size)
            raise UserError(_broken_image(self.files.where(name), self.files.where(chunk))) from None

    def pool_file(self, key: str) -> str:
        """Return the name of a pool's summary: its spec, its committed chunks, its cost."""
        return f"{self.name('pools', key)}/pool.json"

    def read_pool(self, key: str) -> dict[str, Any] | None:
        """Read the summary of a pool; None if it has none yet. Raises UserError if the file is damaged."""
        return next(self.read_pools([key]))

    def pool_spec(self, asked: str) -> PoolSpec:
        """Return the spec of a pool by its key, or a unique prefix. Raises UserError if there is none."""
        key = self.full_key("pools", asked)
        record = self.read_pool(key)
        if record is None:
            raise UserError(f"pool '{key}' is not finished: run its grid again")
        return PoolSpec.from_dict(record["spec"])

    def read_pools(self, keys: Sequence[str]) -> Iterator[dict[str, Any] | None]:
        """Yield the summaries of pools, in order; remote reads are concurrent."""
        names = [self.pool_file(key) for key in keys]
        for name, data in zip(names, self.files.read_many(names), strict=True):
            yield None if data is None else parse_json(data, self.files.where(name))

    # -- failures

    def record_failure(self, key: str, spec: Mapping[str, Any], error: BaseException) -> None:
        """Record a unit's failure with its traceback; a later success removes it."""
        if isinstance(error, StoreError):
            return  # not an error of the unit, and the store cannot be written
        with contextlib.suppress(StoreError):  # the caller reports the error
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
        """Remove the failure of a unit that succeeded."""
        self.files.remove(self.name("failures", key))

    # -- files of killed processes

    def unfinished(self, pools: Iterable[PoolSpec]) -> list[str]:
        """List unfinished files in the directories that workers write to, in these pools, and in features."""
        directories = sorted({*SUFFIX, LOGS, "leases", "leases/drivers"} - {"fingerprints", "grids", "versions"})
        folders = [f"{self.name('pools', pool.key)}/{part}" for pool in pools for part in ("chunks", "images", "masks")]
        features = sorted(self.keys("features"))
        folders += [self.name("features", key) for key in features]
        folders += [f"{LOGS}/{key}" for key in (*(pool.key for pool in pools), *features)]
        return [name for folder in (*directories, *folders) for name in self.files.unfinished(folder)]

    def remove_features(self) -> int:
        """Remove the features of all datasets and pools; return how many. A run that needs them makes them again."""
        keys = self.keys("features")
        self.files.remove_folder("features")
        return len(keys)

    # -- damage

    def check(self) -> list[str]:
        """List damaged files, one sentence each."""
        problems: list[str] = []
        intact = [self.name("scores", key) for key in self._intact("cells", problems)]
        for kind in ("audits", "fidelity", "searches"):
            self._intact(kind, problems)
        for name, data in zip(intact, self.files.read_many(intact), strict=True):
            problems += _check_scores(data, self.files.where(name))
        kinds: tuple[JsonFile, ...] = ("failures", "fingerprints", "grids")
        problems += self._damaged([self.name(kind, key) for kind in kinds for key in sorted(self.keys(kind))])
        adapters = [f"{self.name('adapters', key)}/{ADAPTER_MARKER}" for key in sorted(self.keys("adapters"))]
        problems += self._damaged(adapters)
        weights = [self.name("weights", key) for key in sorted(self.keys("weights"))]
        problems += self._damaged(
            weights, "restore it, or delete it and the record of its cell, and run the grid again"
        )
        for folder in sorted(self.name("features", key) for key in self.keys("features")):
            chunks = sorted(numbered(self.files.names(folder), ".safetensors").values())
            problems += self._damaged([f"{folder}/{chunk}" for chunk in chunks])
        for key in sorted(self.keys("pools")):
            problems += self._check_pool(key)
        return problems

    def _damaged(self, names: Sequence[str], way_out: str = FIX_HINT) -> list[str]:
        """Parse files of JSON and of tensors; those that do not exist are of unfinished work."""
        from safetensors import SafetensorError, deserialize

        problems = []
        for name, data in zip(names, self.files.read_many(names), strict=True):
            try:
                if data is not None and name.endswith(".safetensors"):
                    deserialize(data)
                elif data is not None:
                    parse_json(data, name)
            except (SafetensorError, UserError):
                problems.append(f"'{self.files.where(name)}' is damaged: {way_out}")
        return problems

    def _check_pool(self, key: str) -> list[str]:
        """Check the summary of a pool, its chunks, and their names."""
        summary, folder = self.pool_file(key), f"{self.name('pools', key)}/chunks"
        problems = self._damaged([summary])
        record = None if problems else self.read_pool(key)  # None also of an unfinished pool
        size = record["spec"]["chunk_size"] if record else None
        names = {name for name in self.files.names(folder) if name.endswith(".jsonl")}
        chunks = numbered(names, ".jsonl")
        for number, name in sorted(chunks.items()):
            indices = None if size is None else range(number * size, (number + 1) * size)
            problems += self._check_chunk(self.name("pools", key), f"{folder}/{name}", indices)
        for name in sorted(names - set(chunks.values())):
            problems.append(f"'{self.files.where(f'{folder}/{name}')}' is not the name of a chunk: remove it")
        return problems

    def _intact(self, kind: Kind, problems: list[str]) -> list[str]:
        """Return the sorted keys of the undamaged records of a kind; append the others to ``problems``."""
        keys, intact = sorted(self.keys(kind)), []
        for key, data in zip(keys, self.files.read_many([self.name(kind, key) for key in keys]), strict=True):
            try:
                self._record(key, data, kind)
                intact.append(key)
            except UserError as error:
                problems.append(str(error))
        return intact

    def _check_chunk(self, pool: str, chunk: str, indices: range | None) -> list[str]:
        """Compare a chunk's images with the digests in its metadata, and its lines with ``indices``; None: unknown."""
        location, data = self.files.where(chunk), self.files.read(chunk)
        try:
            lines = parse_lines(data, location)
            digests = dict(pair for line in lines for pair in _digests(line))
            is_whole = indices is None or [line["index"] for line in lines] == list(indices)
        except (UserError, KeyError):
            is_whole = False
        if not is_whole:
            return [f"chunk '{location}' is damaged: {FIX_HINT}"]
        contents = self.files.read_many([f"{pool}/{file}" for file in digests])
        return [
            _broken_image(self.files.where(f"{pool}/{file}"), location)
            for (file, expected), data in zip(digests.items(), contents, strict=True)
            if data is None or hashlib.sha256(data).hexdigest() != expected
        ]


def open_files(location: str | Path, there: bool = False) -> Files:
    """Return the files of a store or a publication at a path or an fsspec URL, without reading or creating anything.

    ``there``: the store exists, so a missing folder is an error.

    Raises:
        UserError: the location is unusable.
    """
    text = str(location).strip()
    if not text:
        raise UserError("--store is empty: give a folder or a URL")
    protocol, separator, rest = text.partition("://")
    if not separator:
        _refuse_half_a_url(text)
    if not separator or protocol in ("file", "local"):
        folder = expanded(rest if separator else text)
        published = any((folder / name).is_file() for name in RECORDS)
        return PublicationFiles(folder) if published else LocalFiles(folder, there)
    return RemoteFiles(f"{protocol}://{rest.rstrip('/')}", protocol)


def numbered(names: Iterable[str], suffix: str) -> dict[int, str]:
    """Map number -> name of the files of chunks; others, such as copies that a synchronised folder makes, are none."""
    stems = ((name.removesuffix(suffix), name) for name in names if name.endswith(suffix))
    return {int(stem): name for stem, name in stems if stem.isdecimal()}


def _refuse_half_a_url(text: str) -> None:
    """Refuse ``s3:/bucket/x``, which would be a folder called ``s3:``. Such a folder that exists is one."""
    protocol, colon, rest = text.partition(":")
    if protocol not in ("file", "local"):
        rest = rest.lstrip("/")
    if not colon or len(protocol) < 2 or not protocol.isalnum() or Path(text).exists():
        return
    import fsspec

    if protocol in fsspec.available_protocols():
        raise UserError(f"store '{text}' is no URL: write {protocol}://{rest}, or ./{text} for a folder")


def _check_scores(data: bytes | None, location: str) -> list[str]:
    if data is None:
        return [f"scores '{location}' are missing: run the grid again to make them anew"]
    try:
        scores_table(data)
    except ValueError:
        return [f"scores '{location}' are damaged: {FIX_HINT}"]
    return []


def _broken_image(location: str, chunk: str) -> str:
    """Say what to do about an image or a mask of a pool: a run makes whole chunks, those without a marker."""
    return f"pool image '{location}' is missing or damaged: chunk '{chunk}': {FIX_HINT}"


def _digests(line: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (file, SHA-256) of an image and of its mask, if any. Fields are flat for Hugging Face datasets."""
    kinds = ("", "mask_") if "mask_file_name" in line else ("",)
    return [(line[f"{kind}file_name"], line[f"{kind}sha256"]) for kind in kinds]


def parse_json(data: bytes, location: str) -> dict[str, Any]:
    """Parse a JSON object. Raises UserError, naming ``location``, if it is damaged."""
    try:
        value = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"'{location}' is damaged ({error}): {FIX_HINT}") from None
    if not isinstance(value, dict):
        raise UserError(f"'{location}' is damaged (not a JSON object): {FIX_HINT}")
    return value


def parse_lines(data: bytes, location: str) -> list[dict[str, Any]]:
    """Parse one JSON object per line. Raises UserError as `parse_json`."""
    return [parse_json(line, location) for line in data.splitlines()]


def json_bytes(value: object) -> bytes:
    """Serialise to indented JSON with sorted keys: equal values give equal bytes. Refuses NaN."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def json_lines(values: Iterable[object]) -> bytes:
    """Serialise one JSON value per line, with sorted keys. Refuses NaN."""
    lines = (json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n" for value in values)
    return "".join(lines).encode()
