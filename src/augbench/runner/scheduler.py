"""The board: what of a plan waits, may start, runs, is done. Shared by generation and training, without Ray.

A cell may start the moment the chunks it takes are committed. The board also holds the leases, so that a second driver
on the same store works on other cells and pools, and its finished work is noticed.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator

from augbench.core.errors import StoreError
from augbench.core.specs import AdapterSpec, AugmenterSpec, Cell, FidelitySpec, PoolSpec, SearchSpec
from augbench.planning.plan import Plan, PoolSlice
from augbench.planning.remaining import Remaining
from augbench.runner.cell_blocks import Blocks, committed
from augbench.runner.fidelity_queue import Measurements
from augbench.runner.lease_cache import LeaseCache
from augbench.runner.worker import Failure
from augbench.storage.leases import Leases
from augbench.storage.store import Store

ATTEMPTS = 3  # times a cell is started when its worker dies under it, in one run
LOOK_INTO = 16  # pools of another driver whose chunks are listed at each look: they take turns

Of = Callable[[AugmenterSpec], bool]
"""Which augmenters' work is asked for."""


class Scheduler:
    """Thread-safe. Methods named ``*_next`` hand out work, the others report what became of it."""

    def __init__(self, plan: Plan, remaining: Remaining, store: Store, leases: Leases) -> None:
        self.plan = plan
        self.store = store
        self._claims = LeaseCache(leases)
        self.total = len(plan.cells)
        self.done = remaining.done
        self.trained = 0  # by this driver, in this run
        self.failures: dict[str, str] = {}  # key of a cell, pool or adapter -> one line
        self.user_error = False  # a failure that the user can mend
        self.blocked: Counter[str] = Counter()  # key of what failed -> cells that wait for it in vain
        self.chunks_total = len(remaining.chunks)
        self.chunks_done = 0
        self.last: tuple[str, dict] | None = None  # the cell finished last and its headline
        self.stopped = False
        self.fatal: StoreError | None = None  # the store is out of reach: why, in one line
        self.on_change: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        self._chunks: dict[str, list[int]] = defaultdict(list)  # pool key -> chunks still to make
        self._pools = {pool.key: pool for pool, _ in remaining.chunks}
        for pool, chunk in remaining.chunks:
            self._chunks[pool.key].append(chunk)
        self.adapters = {adapter.key: adapter for adapter in remaining.adapters}
        self.adapters_total = len(self.adapters)
        self.learning: dict[str, tuple[int, int, float]] = {}  # key of an adapter or search in work: step, steps, loss
        self.searches = {search.key: search for search in remaining.searches}
        self.searches_total = len(self.searches)
        learns = self.adapters or self.searches
        self._adapter_keys = {key: pool.adapter.key for key, pool in self._pools.items()} if learns else {}
        self.fidelity = {spec.key: spec for spec in remaining.fidelity}
        self.fidelity_total = len(self.fidelity)
        self._measurements = Measurements(remaining.fidelity, self._chunks)
        self._missing: dict[str, set[tuple[str, int]]] = {}  # cell key -> chunks it waits for
        self._waiting: dict[tuple[str, int], list[str]] = defaultdict(list)  # chunk -> cells that wait for it
        self._ready: deque[str] = deque()
        self._running: dict[str, int] = {}  # cell key -> attempt
        self._attempts: Counter[str] = Counter()
        self._blocks = Blocks(remaining.cells, store, self._claims)
        for cell in remaining.cells:
            self._place(cell)

    def _place(self, cell: Cell) -> None:
        """Put a cell where it belongs: ready, or waiting for chunks."""
        missing = {
            (take.pool.key, chunk)
            for take in self.plan.needs[cell.key]
            for chunk in self._chunks.get(take.pool.key, ())
            if chunk < take.chunks
        }
        if missing:
            self._missing[cell.key] = missing
            for unit in missing:
                self._waiting[unit].append(cell.key)
        else:
            self._ready.append(cell.key)

    # -- cells

    def next_cell(self) -> tuple[Cell, tuple[PoolSlice, ...]] | None:
        """A cell that may start now, or None. Its block's lease is held from here until the block is done."""
        with self._lock, self._or_stop():
            self._ready.extend(self._blocks.returned())
            while self._ready and not self.stopped:
                key = self._ready.popleft()
                cell = self.plan.by_key[key]
                if not self._blocks.take(cell):
                    continue
                if self._blocks.made_elsewhere(key):
                    self.done += 1
                    self._leave_block(key)
                    continue
                self._attempts[key] += 1
                self._running[key] = self._attempts[key]
                return cell, self.plan.needs[key]
        return None

    @property
    def ready_count(self) -> int:
        """Cells that could start now."""
        with self._lock, self._or_stop():
            self._ready.extend(self._blocks.returned())
        return len(self._ready)

    @property
    def cells_left(self) -> bool:
        """Whether any cell still waits, may start, runs, or is worked on elsewhere."""
        with self._lock:
            here = self._missing or self._ready or self._running
            return not self.stopped and bool(here or self._blocks.any_elsewhere)

    def cell_done(self, key: str, headline: dict) -> None:
        """A cell's record is in the store."""
        with self._lock:
            self._running.pop(key, None)
            self.done += 1
            self.trained += 1
            self.last = (key, headline)
            self._leave_block(key)
        self.on_change()

    def cell_failed(self, key: str, failure: Failure) -> None:
        """A cell raised; its failure record is in the store."""
        with self._lock:
            self._running.pop(key, None)
            self._fail(key, failure)
            self._leave_block(key)
        self.on_change()

    def cell_lost(self, key: str) -> None:
        """The worker died under a cell. It starts again, unless that happened `ATTEMPTS` times."""
        with self._lock, self._or_stop():
            self._running.pop(key, None)
            if committed(self.store, [key]):  # it died after its last write
                self.done += 1
                self._leave_block(key)
            elif self._attempts[key] < ATTEMPTS:
                self._ready.appendleft(key)
            else:
                error = RuntimeError(f"its worker died {ATTEMPTS} times (out of memory?)")
                self.store.record_failure(key, self.plan.by_key[key].as_dict(), error)
                self._fail(key, Failure(str(error), by_user=False))
                self._leave_block(key)
        self.on_change()

    def _leave_block(self, key: str) -> None:
        self._blocks.leave(self.plan.by_key[key])

    def _fail(self, key: str, failure: Failure) -> None:
        if failure.fatal:  # the unit is not to blame
            self._end(StoreError(failure.line))
            return
        self.failures[key] = failure.line
        self.user_error |= failure.by_user

    @contextlib.contextmanager
    def _or_stop(self) -> Iterator[None]:
        """Where the store is out of reach the run ends; the driver raises `fatal` when everything has come to rest."""
        try:
            yield
        except StoreError as error:
            self._end(error)

    def _end(self, error: StoreError) -> None:
        self.fatal = self.fatal or error
        self.stopped = True

    # -- searches, adapters and chunks

    @property
    def pools_left(self) -> bool:
        """Whether anything is left to do for pools or with them."""
        with self._lock:
            return not self.stopped and bool(self.searches or self.adapters or self._chunks or self.fidelity)

    def next_searches(self) -> list[SearchSpec]:
        """Searches to make now; another driver's are left to it, and looked at again every `LOOK_AGAIN` seconds."""
        with self._lock, self._or_stop():
            self._claims.look()
            ready = []
            for key, spec in list(self.searches.items()):
                is_new = key not in self._claims
                if self._claims.obtain(key):
                    if is_new and self.store.has("searches", key):
                        self.search_done(key)
                    else:
                        ready.append(spec)
            return ready
        return []

    def search_done(self, key: str) -> None:
        """What was searched for is decided: the adapter may be learned."""
        with self._lock:
            self.searches.pop(key, None)
            self.learning.pop(key, None)
            self._claims.release(key)
        self.on_change()

    def search_failed(self, key: str, failure: Failure) -> None:
        """A search could not be made: its adapter, and the pools that need it, fail with it."""
        with self._lock:
            spec = self.searches.pop(key)
            self.learning.pop(key, None)
            self._fail(key, failure)
            self._claims.release(key)
            self.adapters.pop(spec.adapter.key, None)
            self._drop_pools_of(spec.adapter, key)

    def _searched_for(self) -> set[str]:
        """Keys of the adapters, learned or not, whose settings are not chosen yet."""
        return {search.adapter.key for search in self.searches.values()}

    def next_adapters(self, most: int | None = None, of: Of = lambda augmenter: True) -> list[AdapterSpec]:
        """Adapters to make now; another driver's are left to it, and looked at again every `LOOK_AGAIN` seconds.

        No more than ``most`` at once, those in work among them: what is not begun is left to other drivers, too. Only
        ``of`` some augmenters.
        """
        with self._lock, self._or_stop():
            self._claims.look()
            self._take_over_adapters()
            waiting, ready = self._searched_for(), []
            for key, spec in list(self.adapters.items()):
                if key in waiting or not of(spec.augmenter):
                    continue
                if len(ready) == most:
                    break
                is_new = key not in self._claims
                if self._claims.obtain(key):
                    if is_new and self.store.has_adapter(spec):
                        self.adapter_done(key)
                    else:
                        ready.append(spec)
            return ready
        return []

    def _take_over_adapters(self) -> None:
        """Every now and then, note which adapters that are not ours another driver has made: by one listing."""
        theirs = {key for key in self.adapters if key not in self._claims}
        if theirs and self._claims.due("adapters"):
            for key in self.store.keys("adapters") & theirs:
                if self.store.has_adapter(self.adapters[key]):
                    self.adapter_done(key)

    def adapter_at(self, key: str, step: int, steps: int, loss: float) -> None:
        """How far a learning adapter is, or the one that a search learns."""
        with self._lock:
            if key in self.adapters or key in self.searches:
                self.learning[key] = (step, steps, loss)
        self.on_change()

    def adapter_done(self, key: str) -> None:
        """The adapter is in the store."""
        with self._lock:
            self.adapters.pop(key, None)
            self.learning.pop(key, None)
            self._claims.release(key)
        self.on_change()

    def adapter_failed(self, key: str, failure: Failure) -> None:
        """An adapter could not be made: the pools that need it fail with it."""
        with self._lock:
            spec = self.adapters.pop(key)
            self.learning.pop(key, None)
            self._fail(key, failure)
            self._claims.release(key)
            self._drop_pools_of(spec, key)

    def next_chunks(self, of: Of = lambda augmenter: True) -> list[tuple[PoolSpec, int]]:
        """All chunks that can be made now, oldest need first: adapter at hand, lease ours, not made elsewhere.

        Only ``of`` some augmenters. Of pools that another driver has, only some are looked into, and not at each call.
        """
        with self._or_stop():
            with self._lock:
                self._claims.look()
                waiting = self._searched_for() | self.adapters.keys()
                # Nobody makes chunks without the adapter.
                keys = [key for key in self._chunks if self._adapter_keys.get(key) not in waiting]
                pools = [pool for key in keys if of((pool := self._pools[key]).augmenter)]
                elsewhere = self._claims.in_turn(keys, LOOK_INTO)
            for key in elsewhere:  # cells may wait for chunks that another driver makes
                self._take_over_chunks(self._pools[key])
            units: list[tuple[PoolSpec, int]] = []
            for pool in pools:  # without the lock: a question takes time on a remote store, and trainings go on
                if self.stopped:
                    return []
                if self._claims.obtain(pool.key):
                    self._take_over_chunks(pool)  # what a driver before us committed since we planned
                    with self._lock:
                        units += [(pool, chunk) for chunk in self._chunks.get(pool.key, ())]
                        if pool.key not in self._chunks:  # all made, or dropped meanwhile
                            self._claims.release(pool.key)
            return units
        return []

    def _take_over_chunks(self, pool: PoolSpec) -> None:
        there = self.store.chunks(pool)
        with self._lock:
            for chunk in there & set(self._chunks.get(pool.key, ())):
                self.chunk_done(pool.key, chunk)

    @property
    def chunks_left(self) -> bool:
        """Whether any chunk is still to be made."""
        with self._lock:
            return not self.stopped and bool(self._chunks)

    def chunks_left_of(self, of: Of) -> bool:
        """Whether any chunk of some augmenters is still to be made."""
        with self._lock:
            return not self.stopped and any(of(self._pools[key].augmenter) for key in self._chunks)

    def chunk_done(self, pool_key: str, chunk: int) -> None:
        """A chunk is committed: cells that waited for it alone may start."""
        with self._lock:
            if chunk not in self._chunks.get(pool_key, ()):  # its pool failed meanwhile, or it was seen in the store
                return
            self.chunks_done += 1
            for key in self._waiting.pop((pool_key, chunk), ()):
                missing = self._missing.get(key)
                if missing is None:
                    continue
                missing.discard((pool_key, chunk))
                if not missing:
                    del self._missing[key]
                    self._ready.append(key)
            self._chunks[pool_key].remove(chunk)
            if not self._chunks[pool_key]:
                del self._chunks[pool_key]
                self._claims.release(pool_key)
            self._measurements.note(pool_key, self._chunks.get(pool_key, ()))
        self.on_change()

    def chunk_failed(self, pool_key: str, failure: Failure) -> None:
        """A chunk could not be made: the cells that need the pool's missing chunks are blocked."""
        with self._lock:
            if pool_key in self._chunks:
                self._fail(pool_key, failure)
                self._drop_pool(pool_key, pool_key)
        self.on_change()

    def _drop_pools_of(self, adapter: AdapterSpec, culprit: str) -> None:
        for pool in [p for p in self._pools.values() if p.adapter == adapter and p.key in self._chunks]:
            self._drop_pool(pool.key, culprit)

    def _drop_pool(self, pool_key: str, culprit: str) -> None:
        for key in self._measurements.drop(pool_key):
            del self.fidelity[key]
        for chunk in self._chunks.pop(pool_key):
            for key in self._waiting.pop((pool_key, chunk), ()):
                if self._missing.pop(key, None) is not None:
                    self.blocked[culprit] += 1
                    self._leave_block(key)
        self._claims.release(pool_key)

    # -- fidelity

    def next_fidelity(self) -> list[FidelitySpec]:
        """Pools to compare with real defects now: those whose pictures are all there. Each is handed out once."""
        with self._lock, self._or_stop():
            found = []
            for spec in self._measurements.take():
                if self.store.has("fidelity", spec.key):  # by another driver; one more would have been harmless
                    self.fidelity_done(spec.key)
                else:
                    found.append(spec)
            return found
        return []

    def fidelity_done(self, key: str) -> None:
        """The record is in the store."""
        with self._lock:
            self.fidelity.pop(key, None)
        self.on_change()

    def fidelity_failed(self, key: str, failure: Failure) -> None:
        """A pool could not be measured: no cell waits for that."""
        with self._lock:
            self.fidelity.pop(key, None)
            self._fail(key, failure)
        self.on_change()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._lock:
            self.stopped = True
        self.on_change()
