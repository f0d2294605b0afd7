"""Status of the grids of a store: units that are done, running, failed and missing; drivers; rates and time left.

Everything is read from the store, by one listing per directory: any machine with access can report it, without Ray,
torch, datasets or a running driver. Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from augbench.core.errors import UserError
from augbench.monitoring.known_grids import KnownGrid
from augbench.planning.outline import FeatureWork, Outline, PoolWork
from augbench.planning.remaining import Holdings, Missing, find_missing
from augbench.storage.leases import Driver, survey
from augbench.storage.store import LOGS, Store, parse_json

WINDOW = 600.0  # seconds that a rate covers if at least `FEW` units finished in them
FEW = 5  # units that a rate should cover: with fewer in the window it covers a longer time
ERROR_LENGTH = 300  # maximum characters of an error line
EARLIER = (
    "an earlier version planned it: what is running, pools and adapters are not known; "
    "run it again, or give --grid FILE"
)

State = Literal["done", "running", "failed", "missing"]
STATES: tuple[State, ...] = ("done", "running", "failed", "missing")
LEASED = ("searches", "adapters", "pools", "features")  # each unit has a lease of its own; cells have one per block
STAGES = (*LEASED, "cells", "fidelity")
"""In the order in which they run. Fidelity has no leases, so its units never appear as running."""


@dataclass(frozen=True)
class Failed:
    """A unit whose last attempt failed."""

    key: str
    stage: str  # one of `STAGES`
    error: str  # one line, at most `ERROR_LENGTH` characters
    attempts: int
    by_user: bool  # the user can fix it
    waiting: int  # cells that it blocks
    log: str | None = None  # name of its log in the store, for a pool of the folder of its logs; None: no log


@dataclass(frozen=True)
class Rate:
    """How fast units of one kind are finished.

    ``per_minute`` and ``eta_seconds`` are None if no driver works on the grid, if no unit was finished, or if the
    storage has no modification times.
    """

    finished: int  # in the last `seconds`
    seconds: float | None
    left: int
    per_minute: float | None
    eta_seconds: float | None


@dataclass(frozen=True)
class GridStatus:
    """The status of one grid."""

    name: str
    source: str
    stages: Mapping[str, Mapping[State, int] | None]  # of `STAGES`; None: unknown
    chunks: tuple[int, int] | None  # of pools: done, total
    feature_chunks: tuple[int, int] | None  # of features: done, total; (0, 0) where no cell reads any
    blocked: int  # missing cells that need a failed unit
    failures: Sequence[Failed]  # by stage, then by key
    drivers: Sequence[str]  # owners that work on it
    rates: Mapping[str, Rate]  # of cells; of chunks, if known; of feature_chunks, if cells read features
    again: str | None
    notes: Sequence[str] = field(default=())

    @property
    def done(self) -> bool:
        """Whether a run would have no work left."""
        return all(not stage or stage["done"] == sum(stage.values()) for stage in self.stages.values())

    @property
    def eta_seconds(self) -> float | None:
        """Time left for the grid: that of cells or chunks, whichever is longest, as they run concurrently."""
        left = [rate for rate in self.rates.values() if rate.left]
        known = [rate.eta_seconds for rate in left if rate.eta_seconds is not None]
        return max(known) if known and len(known) == len(left) else None


@dataclass(frozen=True)
class Status:
    """The status of a store."""

    store: str
    drivers: Sequence[Driver]
    grids: Sequence[GridStatus]

    @property
    def done(self) -> bool:
        """Whether every grid is done."""
        return all(grid.done for grid in self.grids)


class _Snapshot(Holdings):
    """A store as it is now: what it holds, its drivers and failures."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.drivers = survey(store.files)
        self.leased = {key: age for driver in self.drivers if driver.lives for key, age in driver.holds.items()}
        self.failures = self.ages("failures")

    def state(self, key: str, missing: Container[str], lease: str = "") -> State:
        """Return the state of the unit ``key``, covered by the lease of that name: by default its own."""
        if key not in missing:
            return "done"
        lease = lease or key
        failed, leased = self.failures.get(key), self.leased.get(lease)
        failed_since = failed is not None and leased is not None and failed < leased
        if lease in self.leased and not failed_since:
            return "running"
        return "failed" if key in self.failures else "missing"


def look(store: Store, grids: Iterable[KnownGrid]) -> Status:
    """Report the current status of these grids in a store.

    Raises:
        UserError: the store is out of reach.
    """
    snapshot = _Snapshot(store)
    return Status(store.url, snapshot.drivers, [_grid_status(snapshot, grid) for grid in grids])


def _grid_status(snapshot: _Snapshot, grid: KnownGrid) -> GridStatus:
    outline, missing = grid.outline, find_missing(grid.outline, snapshot)
    states = _states(snapshot, outline, missing)
    culprits = {pool: unit for pool in missing.chunks if (unit := _culprit(pool, outline.pools[pool], states))}
    culprits |= {key: key for key in missing.features if states["features"][key] == "failed"}
    waiting: Counter[str] = Counter()  # failed unit -> cells that it blocks
    lost = {**missing.chunks, **missing.features}
    for key, cell in missing.cells.items():
        needs = {**cell.takes, **cell.features}
        units = [culprits[unit] for unit, n in needs.items() if unit in culprits and lost[unit][0] < n]
        if units:
            waiting[units[0]] += 1
            states["cells"][key] = "missing"
    drivers = _at_work(snapshot, grid, states)
    cell_ages = [age for key, age in snapshot.cells.items() if key in outline.cells]
    cells_left = sum(states["cells"][key] != "failed" for key in missing.cells) - waiting.total()
    rates = {"cells": _rate(cell_ages, cells_left, drivers)}
    notes = [EARLIER]
    if grid.complete:
        needed = {pool for cell in missing.cells.values() for pool in cell.takes}
        chunk_ages = [age for pool in needed for age in snapshot.chunks(pool).values()]
        chunks_left = sum(len(chunks) for pool, chunks in missing.chunks.items() if pool not in culprits)
        rates["chunks"] = _rate(chunk_ages, chunks_left, drivers)
        gone = len(outline.fidelity) - len(states["fidelity"])
        notes = [f"the images of {gone} pools are gone: their fidelity is left out"] if gone else []
    if grid.complete and outline.features:
        needed = {key for cell in missing.cells.values() for key in cell.features}
        feature_ages = [age for key in needed for age in snapshot.features(key).values()]
        waits = {key for key, work in outline.features.items() if {key, work.pool} & culprits.keys()}
        features_left = sum(len(chunks) for key, chunks in missing.features.items() if key not in waits)
        rates["feature_chunks"] = _rate(feature_ages, features_left, drivers)
    known = STAGES if grid.complete else ("cells",)
    return GridStatus(
        name=grid.name,
        source=grid.source,
        stages={stage: _counts(states[stage]) if stage in known else None for stage in STAGES},
        chunks=_done_of(outline.pools, missing.chunks) if grid.complete else None,
        feature_chunks=_done_of(outline.features, missing.features) if grid.complete else None,
        blocked=waiting.total(),
        failures=_failures(snapshot.store, states, waiting),
        drivers=[driver.owner for driver in drivers],
        rates=rates,
        again=grid.again,
        notes=notes,
    )


def _done_of(work: Mapping[str, PoolWork | FeatureWork], missing: Mapping[str, Sequence[int]]) -> tuple[int, int]:
    """Return how many chunks of these units are done, and how many there are."""
    total = sum(one.chunks for one in work.values())
    return total - sum(map(len, missing.values())), total


def _states(snapshot: _Snapshot, outline: Outline, missing: Missing) -> dict[str, dict[str, State]]:
    """Return the state of each unit by stage and key. Searches and adapters that no run needs any more are done."""
    work = outline.pools.values()
    measured = [key for key in outline.fidelity if key in snapshot.keys("fidelity") or key in missing.fidelity]
    return {
        "searches": {pool.search: snapshot.state(pool.search, missing.searches) for pool in work if pool.search},
        "adapters": {pool.adapter: snapshot.state(pool.adapter, missing.adapters) for pool in work if pool.adapter},
        "pools": {key: snapshot.state(key, missing.chunks) for key in outline.pools},
        "features": {key: snapshot.state(key, missing.features) for key in outline.features},
        "cells": {key: snapshot.state(key, missing.cells, cell.block) for key, cell in outline.cells.items()},
        "fidelity": {key: snapshot.state(key, missing.fidelity) for key in measured},
    }


def _culprit(pool: str, work: PoolWork, states: Mapping[str, Mapping[str, State]]) -> str | None:
    """Return the failed unit that keeps a pool from being completed: its search, its adapter or the pool itself."""
    units = (("searches", work.search), ("adapters", work.adapter), ("pools", pool))
    return next((key for stage, key in units if key and states[stage][key] == "failed"), None)


def _counts(states: Mapping[str, State]) -> dict[State, int]:
    found = Counter(states.values())
    return {state: found[state] for state in STATES}


def _at_work(snapshot: _Snapshot, grid: KnownGrid, states: Mapping[str, Mapping[str, State]]) -> list[Driver]:
    """Return the living drivers that hold a lease of the grid, or none at all yet; all if its leases are unknown."""
    leases = {cell.block for cell in grid.outline.cells.values()}.union(*(states[stage] for stage in LEASED))
    living = [driver for driver in snapshot.drivers if driver.lives]
    return [one for one in living if not (grid.complete and one.holds) or one.holds.keys() & leases]


# -- failures and rates


def _failures(store: Store, states: Mapping[str, Mapping[str, State]], waiting: Mapping[str, int]) -> list[Failed]:
    found = [(stage, key) for stage in STAGES for key, state in sorted(states[stage].items()) if state == "failed"]
    notes = store.files.read_many([store.name("failures", key) for _, key in found])
    logs = store.files.names(LOGS) if found else set()
    return [
        replace(_failed(stage, key, data, store, waiting.get(key, 0)), log=_log_of(key, logs))
        for (stage, key), data in zip(found, notes, strict=True)
        if data is not None  # None: it has succeeded meanwhile
    ]


def _log_of(key: str, logs: set[str]) -> str | None:
    return next((f"{LOGS}/{name}" for name in (f"{key}.log", key) if name in logs), None)


def _failed(stage: str, key: str, data: bytes, store: Store, waiting: int) -> Failed:
    try:
        note: dict[str, Any] = parse_json(data, store.where("failures", key))
        attempts = int(note["attempts"])
        error, by_user = str(note["error"]), bool(note.get("by_user"))
    except (UserError, KeyError, TypeError, ValueError):
        return Failed(key, stage, "the record of its failure is damaged", 1, False, waiting)
    return Failed(key, stage, one_line(error), attempts, by_user, waiting)


def printable(text: str) -> str:
    """Replace each unprintable character, such as terminal control codes, by a ``?``."""
    return "".join(c if c.isprintable() else "?" for c in text)


def one_line(text: str) -> str:
    """Return an untrusted text as one line of printable characters, cut at `ERROR_LENGTH`."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= ERROR_LENGTH else f"{line[: ERROR_LENGTH - 3]}..."


def _rate(ages: Sequence[float | None], left: int, drivers: Sequence[Driver]) -> Rate:
    """Compute the rate over the last `WINDOW` seconds or `FEW` units, but not from before the drivers began."""
    known = sorted(max(0.0, age) for age in ages if age is not None)
    if not drivers or (ages and not known):
        return Rate(0, None, left, None, None if left else 0.0)
    lifetimes = [driver.seconds for driver in drivers]
    reach = max(seconds for seconds in lifetimes if seconds is not None) if None not in lifetimes else WINDOW
    recent = [age for age in known if age <= reach]
    back = recent[FEW - 1] if len(recent) >= FEW else reach
    seconds = min(reach, max(WINDOW, back))
    finished = sum(age <= seconds for age in recent)
    if not left:
        return Rate(finished, seconds, left, None, 0.0)
    if not finished or seconds <= 0:
        return Rate(finished, seconds, left, None, None)
    return Rate(finished, seconds, left, 60 * finished / seconds, left * seconds / finished)
