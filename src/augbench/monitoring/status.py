"""How far the grids of a store are: what is done, in work, failed and missing; who works on it; how long it will take.

Everything is read off the store, by one listing of each room: any machine that sees it can tell, without Ray, torch,
datasets or a running driver. Nothing is written.
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

WINDOW = 600.0  # seconds that a rate looks back, where so much finished in them that it means something
FEW = 5  # units that a rate should rest on: with fewer in the window it looks back further
ERROR_LENGTH = 300  # characters of an error's line

State = Literal["done", "running", "failed", "missing"]
STATES: tuple[State, ...] = ("done", "running", "failed", "missing")
STAGES = ("searches", "adapters", "pools", "cells", "fidelity")
"""In the order in which they are made. Fidelity has no leases, so it is never seen running."""


@dataclass(frozen=True)
class Failed:
    """A unit whose last attempt failed."""

    key: str
    stage: str  # one of `STAGES`
    error: str  # one line, at most `ERROR_LENGTH` characters
    attempts: int
    by_user: bool  # the user can mend it
    waiting: int  # cells that wait for it in vain
    log: str | None = None  # what was said, by its name in the store; a folder of logs, of a pool. None: there is none


@dataclass(frozen=True)
class Rate:
    """How fast units of one kind get finished.

    ``per_minute`` and ``eta_seconds`` are None where nobody is at work, where nothing was finished, or where the place
    of the store tells no times.
    """

    finished: int  # in the last `seconds`
    seconds: float | None
    left: int
    per_minute: float | None
    eta_seconds: float | None


@dataclass(frozen=True)
class GridStatus:
    """How far one grid is."""

    name: str
    source: str
    stages: Mapping[str, Mapping[State, int] | None]  # of `STAGES`; None: not known
    chunks: tuple[int, int] | None  # of pools: done, all
    blocked: int  # of the missing cells, those that wait for something that failed
    failures: Sequence[Failed]  # by stage, then by key
    drivers: Sequence[str]  # owners at work on it
    rates: Mapping[str, Rate]  # of cells, and of chunks where they are known
    again: str | None
    notes: Sequence[str] = field(default=())

    @property
    def done(self) -> bool:
        """Whether a run would find nothing to do."""
        return all(not stage or stage["done"] == sum(stage.values()) for stage in self.stages.values())

    @property
    def eta_seconds(self) -> float | None:
        """Of the whole grid: the slower of trainings and pictures, which go on at the same time."""
        left = [rate for rate in self.rates.values() if rate.left]
        known = [rate.eta_seconds for rate in left if rate.eta_seconds is not None]
        return max(known) if known and len(known) == len(left) else None


@dataclass(frozen=True)
class Status:
    """How far a store is."""

    store: str
    drivers: Sequence[Driver]
    grids: Sequence[GridStatus]

    @property
    def done(self) -> bool:
        """Whether every grid is done."""
        return all(grid.done for grid in self.grids)


# -- one look


class StoreListing:
    """One look at a store: what is in its rooms, each listed once and only when it is asked for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.drivers = survey(store.files)
        self._chunks: dict[str, dict[int, float | None]] = {}

    @cached_property
    def cells(self) -> dict[str, float | None]:
        """Key of each cell that is done -> seconds since its record was written."""
        scored = self.store.keys("scores")  # as the planner sees it: without its scores a cell is trained again
        return {key: age for key, age in self._ages("cells").items() if key in scored}

    @cached_property
    def failures(self) -> dict[str, float | None]:
        """Key of each unit that failed -> seconds since then."""
        return self._ages("failures")

    @cached_property
    def searches(self) -> set[str]:
        """Keys of the searches that are decided."""
        return self.store.keys("searches")

    @cached_property
    def fidelity(self) -> set[str]:
        """Keys of the measurements on record."""
        return self.store.keys("fidelity")

    @cached_property
    def held(self) -> dict[str, float | None]:
        """Key of each lease of a living driver -> seconds since it was taken."""
        return {key: age for driver in self.drivers if driver.lives for key, age in driver.holds.items()}

    @cached_property
    def _begun(self) -> set[str]:
        return self.store.keys("pools")

    @cached_property
    def _adapters(self) -> set[str]:
        return self.store.keys("adapters")

    def has_adapter(self, key: str) -> bool:
        """Whether it is committed; one that is only begun has no marker."""
        marker = f"{self.store.name('adapters', key)}/{ADAPTER_MARKER}"
        return key in self._adapters and self.store.files.exists(marker)

    def chunks(self, pool: str) -> dict[int, float | None]:
        """Number of each committed chunk of a pool -> seconds since then. A listing for each pool that is begun."""
        if pool not in self._chunks:
            listed = self.store.files.ages(f"{self.store.name('pools', pool)}/chunks") if pool in self._begun else {}
            stems = ((name.removesuffix(".jsonl"), age) for name, age in listed.items() if name.endswith(".jsonl"))
            self._chunks[pool] = {int(stem): age for stem, age in stems if stem.isdecimal()}
        return self._chunks[pool]

    def state(self, key: str, done: bool, lease: str | None) -> State:
        """Of the unit ``key``, which that lease covers."""
        if done:
            return "done"
        if lease in self.held and not (key in self.failures and _younger(self.failures[key], self.held[lease])):
            return "running"
        return "failed" if key in self.failures else "missing"

    def _ages(self, kind: Literal["cells", "failures"]) -> dict[str, float | None]:
        ages = self.store.files.ages(kind)
        return {name.removesuffix(".json"): age for name, age in ages.items() if name.endswith(".json")}


def _younger(age: float | None, other: float | None) -> bool:
    """Whether something happened after something else. Where times are not known: no."""
    return age is not None and other is not None and age < other


def look(store: Store, grids: Iterable[KnownGrid]) -> Status:
    """How far these grids are in a store, now.

    Raises:
        UserError: the store is out of reach.
    """
    seen = StoreListing(store)
    return Status(store.url, seen.drivers, [_grid_status(seen, grid) for grid in grids])


def _grid_status(seen: StoreListing, grid: KnownGrid) -> GridStatus:
    if grid.outline is None:
        return _cells_alone(seen, grid)
    work = _Work(seen, grid.outline)
    failures = _failures(seen, work.states, work.waiting)
    drivers = _at_work(seen, work.leases)
    left = {
        "cells": sum(state in ("running", "missing") for state in work.states["cells"].values()) - len(work.blocked),
        "chunks": work.chunks_left,
    }
    ages = {"cells": [seen.cells[key] for key in grid.cells if key in seen.cells], "chunks": work.chunk_ages}
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
        notes=[f"the pictures of {work.gone} pools are gone: their fidelity is left out"] if work.gone else [],
    )


def _cells_alone(seen: StoreListing, grid: KnownGrid) -> GridStatus:
    """Of a grid without an outline: which lease covers a cell is not known, nor what is made before it."""
    states = {key: seen.state(key, key in seen.cells, None) for key in grid.cells}
    drivers = [driver for driver in seen.drivers if driver.lives]
    left = sum(state == "missing" for state in states.values())
    ages = [seen.cells[key] for key in grid.cells if key in seen.cells]
    return GridStatus(
        name=grid.name,
        source=grid.source,
        stages={stage: _counts(states.values()) if stage == "cells" else None for stage in STAGES},
        chunks=None,
        blocked=0,
        failures=_failures(seen, {"cells": states}, Counter()),
        drivers=[driver.owner for driver in drivers],
        rates={"cells": _rate(ages, left, drivers)},
        again=grid.again,
        notes=[
            "an earlier version planned it: what is in work, pools and adapters are not known; "
            "run it again, or give --grid FILE"
        ],
    )


def _counts(states: Iterable[State]) -> dict[State, int]:
    found = Counter(states)
    return {state: found[state] for state in STATES}


class _Work:
    """The states of all units of a grid, and what they wait for."""

    def __init__(self, seen: StoreListing, outline: Outline) -> None:
        self._seen, self._outline = seen, outline
        done = seen.cells.keys() & outline.cells.keys()
        wanted: dict[str, int] = {}  # pool -> chunks that unfinished cells take, as the planner counts them
        for cell in (cell for key, cell in outline.cells.items() if key not in done):
            for pool, n in cell.takes.items():
                wanted[pool] = max(wanted.get(pool, 0), n)
        self.chunks_missing = [
            (pool, chunk) for pool, n in wanted.items() for chunk in range(n) if chunk not in seen.chunks(pool)
        ]
        self.chunks_total = sum(pool.chunks for pool in outline.pools.values())
        self.chunk_ages = [age for pool in wanted for age in seen.chunks(pool).values()]
        unfinished = {pool for pool, _ in self.chunks_missing}
        self.states: dict[str, dict[str, State]] = {
            **self._preparation(unfinished),
            "pools": {key: seen.state(key, key not in unfinished, key) for key in outline.pools},
            "cells": {key: seen.state(key, key in done, cell.block) for key, cell in outline.cells.items()},
        }
        self.waiting: Counter[str] = Counter()  # what failed -> cells that wait for it in vain
        self.blocked = {key for key, cell in outline.cells.items() if key not in done and self._waits_in_vain(cell)}
        for key in self.blocked:
            self.states["cells"][key] = "missing"
        failed = {pool for pool in unfinished if self._culprit(pool)}
        self.chunks_left = sum(pool not in failed for pool, _ in self.chunks_missing)
        measured = {
            key: one for key, one in outline.fidelity.items() if key in seen.fidelity or self._measurable(one, wanted)
        }
        self.gone = len(outline.fidelity) - len(measured)
        self.states["fidelity"] = {key: seen.state(key, key in seen.fidelity, None) for key in measured}
        self.leases = {*outline.pools, *self.states["adapters"], *self.states["searches"]} | {
            cell.block for cell in outline.cells.values()
        }

    def _preparation(self, unfinished: set[str]) -> dict[str, dict[str, State]]:
        """Searches and adapters: done are also those that nothing needs any more."""
        seen, pools = self._seen, self._outline.pools
        needed = {one for key in unfinished for one in (pools[key].adapter, pools[key].search)}
        searches = dict.fromkeys(pool.search for pool in pools.values() if pool.search)
        adapters = dict.fromkeys(pool.adapter for pool in pools.values() if pool.adapter)
        return {
            "searches": {key: seen.state(key, key not in needed or key in seen.searches, key) for key in searches},
            "adapters": {key: seen.state(key, key not in needed or seen.has_adapter(key), key) for key in adapters},
        }

    def _culprit(self, pool: str) -> str | None:
        """What failed, so that the missing chunks of a pool are not made: the pool, or what comes before it."""
        work = self._outline.pools[pool]
        for stage, key in (("searches", work.search), ("adapters", work.adapter), ("pools", pool)):
            if key and self.states[stage][key] == "failed":
                return key
        return None

    def _waits_in_vain(self, cell: CellWork) -> bool:
        """Whether the cell needs chunks that are not there and are not made; notes for what it waits."""
        for pool, n in cell.takes.items():
            culprit = self._culprit(pool)
            if culprit and any(chunk not in self._seen.chunks(pool) for chunk in range(n)):
                self.waiting[culprit] += 1
                return True
        return False

    def _measurable(self, one: FidelityWork, wanted: Mapping[str, int]) -> bool:
        """Whether a run would measure it: no pool is made again for that alone."""
        there = self._seen.chunks(one.pool)
        return wanted.get(one.pool, 0) >= one.chunks or all(chunk in there for chunk in range(one.chunks))


# -- failures, and how fast it goes


def _failures(
    seen: StoreListing, states: Mapping[str, Mapping[str, State]], waiting: Mapping[str, int]
) -> list[Failed]:
    found = [
        (stage, key) for stage in STAGES for key, state in sorted(states.get(stage, {}).items()) if state == "failed"
    ]
    notes = seen.store.files.read_many([seen.store.name("failures", key) for _, key in found])
    logs = seen.store.files.names(LOGS) if found else set()
    return [
        replace(_failed(stage, key, data, seen.store, waiting.get(key, 0)), log=_log_of(key, logs))
        for (stage, key), data in zip(found, notes, strict=True)
        if data is not None  # else it succeeded meanwhile
    ]


def _log_of(key: str, logs: set[str]) -> str | None:
    return next((f"{LOGS}/{name}" for name in (f"{key}.log", key) if name in logs), None)


def _failed(stage: str, key: str, data: bytes, store: Store, waiting: int) -> Failed:
    try:
        note: dict[str, Any] = parse_json(data, store.where("failures", key))
        attempts = int(note["attempts"])
        error, by_user = str(note["error"]), bool(note.get("by_user"))
    except (UserError, KeyError, TypeError, ValueError):
        return Failed(key, stage, "the note of its failure is damaged", 1, False, waiting)
    return Failed(key, stage, one_line(error), attempts, by_user, waiting)


def printable(text: str) -> str:
    """A text without what could move a terminal's cursor or its colours: each such character becomes a ``?``."""
    return "".join(c if c.isprintable() else "?" for c in text)


def one_line(text: str) -> str:
    """A text of a store as one line of printable characters, cut at `ERROR_LENGTH`: it may hold anything."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= ERROR_LENGTH else f"{line[: ERROR_LENGTH - 3]}..."


def _at_work(seen: StoreListing, leases: set[str]) -> list[Driver]:
    """The living drivers that hold something of a grid; one that holds nothing at all yet counts too."""
    return [driver for driver in seen.drivers if driver.lives and (not driver.holds or driver.holds.keys() & leases)]


def _rate(ages: Sequence[float | None], left: int, drivers: Sequence[Driver]) -> Rate:
    """Over the last `WINDOW` seconds, or as far back as `FEW` units reach; never from before the drivers came."""
    known = sorted(max(0.0, age) for age in ages if age is not None)
    if not drivers or (ages and not known):
        return Rate(0, None, left, None, None if left else 0.0)
    lives = [driver.seconds for driver in drivers]
    reach = max(seconds for seconds in lives if seconds is not None) if None not in lives else WINDOW
    recent = [age for age in known if age <= reach]
    back = recent[FEW - 1] if len(recent) >= FEW else reach
    seconds = min(reach, max(WINDOW, back))
    finished = sum(age <= seconds for age in recent)
    if not left:
        return Rate(finished, seconds, left, None, 0.0)
    if not finished or seconds <= 0:
        return Rate(finished, seconds, left, None, None)
    return Rate(finished, seconds, left, 60 * finished / seconds, left * seconds / finished)
