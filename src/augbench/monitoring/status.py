"""Status of the grids of a store: units that are done, running, failed and missing; drivers; rates and time left.

Everything is read from the store, by one listing per directory: any machine with access can report it, without Ray,
torch, datasets or a running driver. Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from augbench.core.errors import UserError
from augbench.monitoring.known_grids import KnownGrid
from augbench.planning.outline import CellWork, FidelityWork, Outline
from augbench.storage.leases import Driver, survey
from augbench.storage.store import ADAPTER_MARKER, LOGS, Store, parse_json

WINDOW = 600.0  # seconds that a rate covers if at least `FEW` units finished in them
FEW = 5  # units that a rate should cover: with fewer in the window it covers a longer time
ERROR_LENGTH = 300  # maximum characters of an error line

State = Literal["done", "running", "failed", "missing"]
STATES: tuple[State, ...] = ("done", "running", "failed", "missing")
STAGES = ("searches", "adapters", "pools", "cells", "fidelity")
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
    blocked: int  # missing cells that need a failed unit
    failures: Sequence[Failed]  # by stage, then by key
    drivers: Sequence[str]  # owners that work on it
    rates: Mapping[str, Rate]  # of cells, and of chunks if known
    again: str | None
    notes: Sequence[str] = field(default=())

    @property
    def done(self) -> bool:
        """Whether a run would have no work left."""
        return all(not stage or stage["done"] == sum(stage.values()) for stage in self.stages.values())

    @property
    def eta_seconds(self) -> float | None:
        """Time left for the grid: that of cells or chunks, whichever is longer, as both run concurrently."""
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


# -- listing


class StoreListing:
    """A snapshot of a store: each directory is listed once, on first use."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.drivers = survey(store.files)
        self._chunks: dict[str, dict[int, float | None]] = {}

    @cached_property
    def cells(self) -> dict[str, float | None]:
        """Key of each done cell -> seconds since its record was written."""
        scored = self.store.keys("scores")  # as for the planner: a cell without scores is trained again
        return {key: age for key, age in self._ages("cells").items() if key in scored}

    @cached_property
    def failures(self) -> dict[str, float | None]:
        """Key of each failed unit -> seconds since its failure."""
        return self._ages("failures")

    @cached_property
    def searches(self) -> set[str]:
        """Keys of the decided searches."""
        return self.store.keys("searches")

    @cached_property
    def fidelity(self) -> set[str]:
        """Keys of the recorded measurements."""
        return self.store.keys("fidelity")

    @cached_property
    def held(self) -> dict[str, float | None]:
        """Key of each lease of a living driver -> seconds since it was acquired."""
        return {key: age for driver in self.drivers if driver.lives for key, age in driver.holds.items()}

    @cached_property
    def _begun(self) -> set[str]:
        return self.store.keys("pools")

    @cached_property
    def _adapters(self) -> set[str]:
        return self.store.keys("adapters")

    def has_adapter(self, key: str) -> bool:
        """Return whether an adapter is committed: an unfinished one has no marker."""
        marker = f"{self.store.name('adapters', key)}/{ADAPTER_MARKER}"
        return key in self._adapters and self.store.files.exists(marker)

    def chunks(self, pool: str) -> dict[int, float | None]:
        """Return the committed chunks of a pool: chunk number -> seconds since. One listing per pool that exists."""
        if pool not in self._chunks:
            listed = self.store.files.ages(f"{self.store.name('pools', pool)}/chunks") if pool in self._begun else {}
            stems = ((name.removesuffix(".jsonl"), age) for name, age in listed.items() if name.endswith(".jsonl"))
            self._chunks[pool] = {int(stem): age for stem, age in stems if stem.isdecimal()}
        return self._chunks[pool]

    def state(self, key: str, done: bool, lease: str | None) -> State:
        """Return the state of the unit ``key``, which ``lease`` covers."""
        if done:
            return "done"
        if lease in self.held and not (key in self.failures and _younger(self.failures[key], self.held[lease])):
            return "running"
        return "failed" if key in self.failures else "missing"

    def _ages(self, kind: Literal["cells", "failures"]) -> dict[str, float | None]:
        ages = self.store.files.ages(kind)
        return {name.removesuffix(".json"): age for name, age in ages.items() if name.endswith(".json")}


def _younger(age: float | None, other: float | None) -> bool:
    """Return whether ``age`` is less than ``other``; False if one is unknown."""
    return age is not None and other is not None and age < other


def look(store: Store, grids: Iterable[KnownGrid]) -> Status:
    """Report the current status of these grids in a store.

    Raises:
        UserError: the store is out of reach.
    """
    listing = StoreListing(store)
    return Status(store.url, listing.drivers, [_grid_status(listing, grid) for grid in grids])


def _grid_status(listing: StoreListing, grid: KnownGrid) -> GridStatus:
    if grid.outline is None:
        return _cells_alone(listing, grid)
    work = _Work(listing, grid.outline)
    failures = _failures(listing, work.states, work.waiting)
    drivers = _at_work(listing, work.leases)
    left = {
        "cells": sum(state in ("running", "missing") for state in work.states["cells"].values()) - len(work.blocked),
        "chunks": work.chunks_left,
    }
    ages = {"cells": [listing.cells[key] for key in grid.cells if key in listing.cells], "chunks": work.chunk_ages}
    return GridStatus(
        name=grid.name,
        source=grid.source,
        stages={stage: _counts(work.states[stage].values()) for stage in STAGES},
        chunks=(work.chunks_total - len(work.chunks_missing), work.chunks_total),
        blocked=len(work.blocked),
        failures=failures,
        drivers=[driver.owner for driver in drivers],
        rates={what: _rate(ages[what], left[what], drivers) for what in left},
        again=grid.again,
        notes=[f"the images of {work.gone} pools are gone: their fidelity is left out"] if work.gone else [],
    )


def _cells_alone(listing: StoreListing, grid: KnownGrid) -> GridStatus:
    """Return the status of a grid without an outline: the leases of its cells and earlier stages are unknown."""
    states = {key: listing.state(key, key in listing.cells, None) for key in grid.cells}
    drivers = [driver for driver in listing.drivers if driver.lives]
    left = sum(state == "missing" for state in states.values())
    ages = [listing.cells[key] for key in grid.cells if key in listing.cells]
    return GridStatus(
        name=grid.name,
        source=grid.source,
        stages={stage: _counts(states.values()) if stage == "cells" else None for stage in STAGES},
        chunks=None,
        blocked=0,
        failures=_failures(listing, {"cells": states}, Counter()),
        drivers=[driver.owner for driver in drivers],
        rates={"cells": _rate(ages, left, drivers)},
        again=grid.again,
        notes=[
            "an earlier version planned it: what is running, pools and adapters are not known; "
            "run it again, or give --grid FILE"
        ],
    )


def _counts(states: Iterable[State]) -> dict[State, int]:
    found = Counter(states)
    return {state: found[state] for state in STATES}


class _Work:
    """The states of all units of a grid, and what blocks them."""

    def __init__(self, listing: StoreListing, outline: Outline) -> None:
        self._listing, self._outline = listing, outline
        done = listing.cells.keys() & outline.cells.keys()
        wanted: dict[str, int] = {}  # pool -> chunks that unfinished cells need, as for the planner
        for cell in (cell for key, cell in outline.cells.items() if key not in done):
            for pool, n in cell.takes.items():
                wanted[pool] = max(wanted.get(pool, 0), n)
        self.chunks_missing = [
            (pool, chunk) for pool, n in wanted.items() for chunk in range(n) if chunk not in listing.chunks(pool)
        ]
        self.chunks_total = sum(pool.chunks for pool in outline.pools.values())
        self.chunk_ages = [age for pool in wanted for age in listing.chunks(pool).values()]
        unfinished = {pool for pool, _ in self.chunks_missing}
        self.states: dict[str, dict[str, State]] = {
            **self._preparation(unfinished),
            "pools": {key: listing.state(key, key not in unfinished, key) for key in outline.pools},
            "cells": {key: listing.state(key, key in done, cell.block) for key, cell in outline.cells.items()},
        }
        self.waiting: Counter[str] = Counter()  # failed unit -> cells that it blocks
        self.blocked = {key for key, cell in outline.cells.items() if key not in done and self._is_blocked(cell)}
        for key in self.blocked:
            self.states["cells"][key] = "missing"
        failed = {pool for pool in unfinished if self._culprit(pool)}
        self.chunks_left = sum(pool not in failed for pool, _ in self.chunks_missing)
        measured = {
            key: one
            for key, one in outline.fidelity.items()
            if key in listing.fidelity or self._measurable(one, wanted)
        }
        self.gone = len(outline.fidelity) - len(measured)
        self.states["fidelity"] = {key: listing.state(key, key in listing.fidelity, None) for key in measured}
        self.leases = {*outline.pools, *self.states["adapters"], *self.states["searches"]} | {
            cell.block for cell in outline.cells.values()
        }

    def _preparation(self, unfinished: set[str]) -> dict[str, dict[str, State]]:
        """Return the states of searches and adapters. Those that no unfinished pool needs count as done."""
        listing, pools = self._listing, self._outline.pools
        needed = {one for key in unfinished for one in (pools[key].adapter, pools[key].search)}
        searches = dict.fromkeys(pool.search for pool in pools.values() if pool.search)
        adapters = dict.fromkeys(pool.adapter for pool in pools.values() if pool.adapter)
        return {
            "searches": {
                key: listing.state(key, key not in needed or key in listing.searches, key) for key in searches
            },
            "adapters": {
                key: listing.state(key, key not in needed or listing.has_adapter(key), key) for key in adapters
            },
        }

    def _culprit(self, pool: str) -> str | None:
        """Return the failed unit that keeps a pool from being completed: the pool itself, its adapter or search."""
        work = self._outline.pools[pool]
        for stage, key in (("searches", work.search), ("adapters", work.adapter), ("pools", pool)):
            if key and self.states[stage][key] == "failed":
                return key
        return None

    def _is_blocked(self, cell: CellWork) -> bool:
        """Return whether a failed unit blocks the cell, and count the cell for that unit."""
        for pool, n in cell.takes.items():
            culprit = self._culprit(pool)
            if culprit and any(chunk not in self._listing.chunks(pool) for chunk in range(n)):
                self.waiting[culprit] += 1
                return True
        return False

    def _measurable(self, one: FidelityWork, wanted: Mapping[str, int]) -> bool:
        """Return whether a run would measure it: no pool is generated for fidelity alone."""
        made = self._listing.chunks(one.pool)
        return wanted.get(one.pool, 0) >= one.chunks or all(chunk in made for chunk in range(one.chunks))


# -- failures and rates


def _failures(
    listing: StoreListing, states: Mapping[str, Mapping[str, State]], waiting: Mapping[str, int]
) -> list[Failed]:
    found = [
        (stage, key) for stage in STAGES for key, state in sorted(states.get(stage, {}).items()) if state == "failed"
    ]
    notes = listing.store.files.read_many([listing.store.name("failures", key) for _, key in found])
    logs = listing.store.files.names(LOGS) if found else set()
    return [
        replace(_failed(stage, key, data, listing.store, waiting.get(key, 0)), log=_log_of(key, logs))
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


def _at_work(listing: StoreListing, leases: set[str]) -> list[Driver]:
    """Return the living drivers that hold a lease of the grid, or no lease at all yet."""
    return [driver for driver in listing.drivers if driver.lives and (not driver.holds or driver.holds.keys() & leases)]


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
