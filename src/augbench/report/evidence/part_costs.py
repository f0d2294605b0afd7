"""The cost of a store's parts (class images, adapters, searches, pools): seconds, and on which device.

A published store has no pools and adapters, so it keeps these numbers in ``costs.json`` in its top folder::

    {"schema": 1, "costs": {KEY: {"kind": "pools", "seconds": 12.5, "pictures": 80, "device": ..., "spec": ...}, ...}}

``kind`` is the folder of KEY: ``pools``, ``adapters``, ``searches`` or ``shared``. ``seconds`` is the time of one
worker on that device, null where an older store does not record it. ``pictures`` (the number of images) and ``spec``
are those of a pool, null elsewhere. An adapter also has ``shared``: key of each shared part that it uses -> how many of
the adapter's seconds went into making this part, 0 where it existed already; null where this is not recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from augbench.core.errors import UserError
from augbench.core.specs import PoolSpec
from augbench.storage.store import ADAPTER_MARKER, FIX_HINT, SHARED_MARKER, Kind, Store, parse_json

COSTS = "costs.json"
SCHEMA = 1
KINDS: tuple[Kind, ...] = ("shared", "searches", "adapters", "pools")
"""The kinds of parts, in the order in which they are made."""


@dataclass(frozen=True)
class MadePart:
    """The cost of one part of a store."""

    kind: Kind
    seconds: float | None  # None: not on record
    pictures: int | None = None  # number of images of a pool
    device: str = ""
    spec: Mapping[str, Any] | None = None  # of a pool, see `PoolSpec.as_dict`
    shared: Mapping[str, float] | None = None  # of an adapter; None: not on record

    @property
    def seconds_per_image(self) -> float | None:
        """Seconds per image of a pool; None where they are not on record."""
        return self.seconds / self.pictures if self.pictures and self.seconds is not None else None

    @property
    def own_seconds(self) -> float | None:
        """Seconds without those of shared parts that were made on the way."""
        return None if self.seconds is None else self.seconds - sum((self.shared or {}).values())


def costs_of(store: Store) -> dict[str, Any]:
    """Return the content of ``costs.json``, from the store's parts and from such a file in the store.

    Raises:
        UserError: a damaged file, named.
    """
    return {"schema": SCHEMA, "costs": {key: _as_json(part) for key, part in sorted(read_costs(store).items())}}


def read_costs(store: Store) -> dict[str, MadePart]:
    """Return the cost of every part by key: as the part itself records it, else ``costs.json``, else its fidelity.

    Raises:
        UserError: a damaged file, named.
    """
    return {**dict(_measured(store)), **dict(_written(store)), **dict(_found(store))}


def _as_json(part: MadePart) -> dict[str, Any]:
    value = asdict(part)
    return value if part.kind == "adapters" else {name: value[name] for name in value if name != "shared"}


def _found(store: Store) -> Iterator[tuple[str, MadePart]]:
    for kind in KINDS:
        keys = sorted(store.keys(kind))
        names = [marker_of(store, kind, key) for key in keys]
        for key, name, data in zip(keys, names, store.files.read_many(names), strict=True):
            if data is not None:  # else the part is not finished
                place = store.files.where(name)
                yield key, _part(kind, parse_json(data, place), place)


def marker_of(store: Store, kind: Kind, key: str) -> str:
    """Return the file, relative to the store, in which a part records its own cost."""
    if kind == "pools":
        return store.pool_file(key)
    file = {"adapters": f"/{ADAPTER_MARKER}", "shared": f"/{SHARED_MARKER}"}.get(kind, "")
    return store.name(kind, key) + file


def _part(kind: Kind, record: Mapping[str, Any], place: str) -> MadePart:
    if kind == "shared":
        return MadePart(kind, _seconds(record.get("seconds"), place))
    try:
        provenance = record["provenance"]
        seconds, device = _seconds(provenance["seconds"], place), str(provenance["device"])
        if kind == "pools":
            return MadePart(kind, seconds, int(record["pictures"]), device, record["spec"])
        shared = provenance.get("shared_seconds")
        return MadePart(kind, seconds, device=device, shared=None if shared is None else dict(shared))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"'{place}' is damaged ({type(error).__name__}: {error}): {FIX_HINT}") from None


def _measured(store: Store) -> Iterator[tuple[str, MadePart]]:
    """Yield the pools with a fidelity record, whether they still exist or not; their device is unknown."""
    names = [store.name("fidelity", key) for key in sorted(store.keys("fidelity"))]
    for name, data in zip(names, store.files.read_many(names), strict=True):
        place = store.files.where(name)
        record = parse_json(data or b"", place)
        try:
            spec, made = record["spec"]["pool"], int(record["result"]["made"])
            seconds = made * (_seconds(record["provenance"]["seconds_per_picture"], place) or 0.0)
            yield PoolSpec.from_dict(spec).key, MadePart("pools", seconds, made, spec=spec)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"record '{place}' is damaged ({type(error).__name__}: {error}): {FIX_HINT}") from None


def _written(store: Store) -> Iterator[tuple[str, MadePart]]:
    try:
        place, content = store.files.where(COSTS), store.parsed(COSTS)
    except FileNotFoundError:
        return
    if content.get("schema") != SCHEMA or not isinstance(content.get("costs"), dict):
        raise UserError(f"'{place}' is not a list of costs of schema {SCHEMA}: export the results again")
    for key, entry in content["costs"].items():
        try:
            part = MadePart(**entry)
            for seconds in (part.seconds, *(part.shared or {}).values()):
                _seconds(seconds, place)
            if part.kind not in KINDS or (part.kind == "pools") != isinstance(part.spec, dict):
                raise ValueError(f"kind '{part.kind}'")
            if part.kind == "pools" and not (isinstance(part.pictures, int) and part.pictures > 0):
                raise ValueError(f"pictures {part.pictures}")
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"'{place}' is damaged at '{key}' ({error}): export the results again") from None
        yield key, part


def _seconds(value: Any, place: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value >= 0):
        raise UserError(f"'{place}' has {value!r} seconds: {FIX_HINT}")
    return float(value)
