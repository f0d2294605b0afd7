"""What it cost to make the parts of a store: class pictures, adapters, searches, pools; seconds, and on which device.

A published store comes without pools and adapters, so it brings these numbers along in ``costs.json`` at its top::

    {"schema": 1, "costs": {KEY: {"kind": "pools", "seconds": 12.5, "pictures": 80, "device": ..., "spec": ...}, ...}}

``kind`` is the folder that KEY stands in: ``pools``, ``adapters``, ``searches`` or ``shared``. ``seconds`` is the time
of one worker on that device, null where an older store does not tell. ``pictures`` and ``spec`` are those of a pool,
null elsewhere. An adapter has ``shared`` too: what it uses of the shared parts, key -> the seconds that making it took
within the adapter's own, 0 where it was there; null where it is not told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from augbench.core.errors import UserError
from augbench.core.specs import PoolSpec
from augbench.storage.store import ADAPTER_MARKER, FIX_HINT, SHARED_MARKER, Kind, Store, parse_json

COSTS = "costs.json"
SCHEMA = 1
KINDS: tuple[Kind, ...] = ("shared", "searches", "adapters", "pools")
"""In the order in which they are made."""


@dataclass(frozen=True)
class MadePart:
    """What one part of a store cost."""

    kind: Kind
    seconds: float | None  # None: not on record
    pictures: int | None = None  # of a pool
    device: str = ""
    spec: Mapping[str, Any] | None = None  # of a pool, see `PoolSpec.as_dict`
    shared: Mapping[str, float] | None = field(default=None)  # of an adapter; None: not told

    @property
    def own_seconds(self) -> float | None:
        """Without the shared parts that were made on the way."""
        return None if self.seconds is None else self.seconds - sum((self.shared or {}).values())


def costs_of(store: Store) -> dict[str, Any]:
    """The content of ``costs.json``: what the store's own parts tell, and what such a file in it tells of others.

    Raises:
        UserError: a damaged file, named.
    """
    return {"schema": SCHEMA, "costs": {key: _as_json(part) for key, part in sorted(read_costs(store).items())}}


def read_costs(store: Store) -> dict[str, MadePart]:
    """What every part cost, by key: as the part itself says, else ``costs.json``, else the fidelity of a pool.

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
            if data is not None:  # else it is not finished
                place = store.files.where(name)
                yield key, _part(kind, parse_json(data, place), place)


def marker_of(store: Store, kind: Kind, key: str) -> str:
    """The file, relative to the store, in which a part itself tells what it cost."""
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
    """Pools whose fidelity is on record, be they there or gone. On which device they were made it does not say."""
    keys = sorted(store.keys("fidelity"))
    names = [store.name("fidelity", key) for key in keys]
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
    """What the store's ``costs.json`` tells."""
    try:
        place, content = store.files.where(COSTS), store.parsed(COSTS)
    except FileNotFoundError:
        return
    if content.get("schema") != SCHEMA or not isinstance(content.get("costs"), dict):
        raise UserError(f"'{place}' is not a list of costs of schema {SCHEMA}: export the results again")
    for key, entry in content["costs"].items():
        try:
            part = MadePart(**entry)
            _seconds(part.seconds, place)
            if part.kind not in KINDS or (part.kind == "pools") != isinstance(part.spec, dict):
                raise ValueError(f"kind '{part.kind}'")
            if part.kind == "pools" and not (isinstance(part.pictures, int) and part.pictures > 0):
                raise ValueError(f"pictures {part.pictures}")
            for seconds in (part.shared or {}).values():
                _seconds(seconds, place)
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"'{place}' is damaged at '{key}' ({error}): export the results again") from None
        yield key, part


def _seconds(value: Any, place: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value >= 0):
        raise UserError(f"'{place}' tells {value!r} seconds: {FIX_HINT}")
    return float(value)
