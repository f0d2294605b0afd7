"""The scheduler: which units of a plan wait, are ready, run or are done. Generation and training share it, without Ray.

A cell is ready as soon as the chunks of its pool slices, and of the features it reads, are committed. Short cells are
handed out in batches, since a hand-out can take longer than such a training. The scheduler also holds the leases: a
second driver on the same store works on other cells and pools, and its finished work is noticed.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil

from augbench.core.errors import StoreError
from augbench.core.specs import AdapterSpec, Cell, FeatureSpec, FidelitySpec, PoolSpec, SearchSpec
from augbench.planning.plan import Plan, PoolSlice
from augbench.planning.remaining import Remaining
from augbench.runner.cell_blocks import Blocks, committed
from augbench.runner.fidelity_queue import Measurements
from augbench.runner.lease_cache import LeaseCache
from augbench.runner.worker import Failure
from augbench.storage.leases import Leases
from augbench.storage.store import Store

ATTEMPTS = 3  # starts of a cell per run, if its workers die
BATCH_SECONDS = 5.0  # of work in a batch of cells: long against its hand-out, short against a lost worker or an end
LOOK_INTO = 16  # pools of other drivers whose chunks are listed per check, in rotation

Chunked = PoolSpec | FeatureSpec
"""What is made by chunks."""
Of = Callable[[AdapterSpec | Chunked], bool]
"""A filter of units."""


def _group(cell: Cell) -> tuple[str, str]:
    """Return dataset and protocol: only cells that share both share a batch, and their seconds predict each other."""
    return cell.data.alias, cell.protocol.digest


class Scheduler:
    """Thread-safe state of a run. Methods ``next_*`` hand out work, the others report its outcome."""

    def __init__(self, plan: Plan, remaining: Remaining, store: Store, leases: Leases) -> None:
        self.plan = plan
        self.store = store
        self._lease_cache = LeaseCache(leases)
        self.total = len(plan.cells)
        self.done = remaining.done
        self.trained = 0  # by this driver, in this run
        self.failed: dict[str, Failure] = {}  # by key of a cell, pool, adapter, ...
        self.user_error = False  # whether the user can fix one of the failures
        self.blocked: Counter[str] = Counter()  # key of a failed unit -> cells that it blocks
        self.chunks_total = len(remaining.chunks)  # of pools
        self.chunks_done = 0
        self.features_total = len(remaining.features)  # chunks
        self.features_done = 0
        self.last: tuple[str, dict] | None = None  # the cell finished last and its headline
        self.stopped = False
        self.fatal: StoreError | None = None  # why the store is out of reach
        self.on_change: Callable[[], None] = lambda: None
        self.workers = 1  # that train at the same time: no batch is more than a worker's share of the ready cells
        self._lock = threading.RLock()
        self._chunks: dict[str, list[int]] = defaultdict(list)  # key of a pool or of features -> chunks still to make
        self._chunked: dict[str, Chunked] = {}
        for spec, chunk in [*remaining.chunks, *remaining.features]:
            self._chunked[spec.key] = spec
            self._chunks[spec.key].append(chunk)
        self.adapters = {adapter.key: adapter for adapter in remaining.adapters}
        self.adapters_total = len(self.adapters)
        self.learning: dict[str, tuple[int, int, float]] = {}  # running adapter or search: step, steps, loss
        self.searches = {search.key: search for search in remaining.searches}
        self.searches_total = len(self.searches)
        learns = self.adapters or self.searches
        self._adapter_keys = {pool.key: pool.adapter.key for pool, _ in remaining.chunks} if learns else {}
        self.fidelity = {spec.key: spec for spec in remaining.fidelity}
        self.fidelity_total = len(self.fidelity)
        self._measurements = Measurements(remaining.fidelity, self._chunks)
        self._missing: dict[str, set[tuple[str, int]]] = {}  # cell key -> chunks it waits for
        self._waiting: dict[tuple[str, int], list[str]] = defaultdict(list)  # chunk -> cells that wait for it
        self._ready: deque[str] = deque()
        self._running: set[str] = set()  # keys of cells
        self._deaths: Counter[str] = Counter()  # cell key -> workers that died at it
        self._singly: set[str] = set()  # keys of cells that were in the batch of a worker that died
        self._measured: dict[tuple[str, str], tuple[int, float]] = {}  # `_group` -> cells done here, their seconds
        self._blocks = Blocks(remaining.cells, store, self._lease_cache)
        for cell in remaining.cells:
            self._place(cell)

    def _place(self, cell: Cell) -> None:
        """Queue a cell as ready or as waiting for chunks."""
        needed = [(one.pool.key, one.chunks) for one in self.plan.needs[cell.key]]
        needed += [(one.features.key, one.chunks) for one in self.plan.reads.get(cell.key, ())]
        missing = {(key, chunk) for key, count in needed for chunk in self._chunks.get(key, ()) if chunk < count}
        if missing:
            self._missing[cell.key] = missing
            for unit in missing:
                self._waiting[unit].append(cell.key)
        else:
            self._ready.append(cell.key)

    @property
    def failures(self) -> dict[str, str]:
        """What failed: key of a unit -> one line."""
        return {key: failure.line for key, failure in self.failed.items()}

    def carry_over(self, failed: Mapping[str, Failure]) -> None:
        """Note the failures of an earlier scheduler that are not tried again, before any work is handed out."""
        with self._lock:
            for key, failure in failed.items():
                if key in self.searches:
                    self.search_failed(key, failure)
                elif key in self.adapters:
                    self.adapter_failed(key, failure)
                elif key in self._chunked:
                    self.chunk_failed(key, failure)
                elif key in self.fidelity:
                    self.fidelity_failed(key, failure)
                elif key in self._ready:
                    self._ready.remove(key)
                    self.cell_failed(key, failure)

    # -- cells

    def next_cells(self) -> list[tuple[Cell, tuple[PoolSlice, ...]]]:
        """Return the next batch for a worker: the first ready cell, and others of its dataset and protocol.

        The leases of their blocks are held until the blocks are done.

        Returns:
            Cells with their pool slices, in the order in which to train them; none if no cell is ready.
        """
        with self._lock, self._or_stop():
            self._ready.extend(self._blocks.returned())
            batch, most, skipped = [], 1, []
            while self._ready and len(batch) < most and not self.stopped:
                key = self._ready.popleft()
                cell = self.plan.by_key[key]
                if batch and (key in self._singly or _group(cell) != _group(batch[0][0])):
                    skipped.append(key)
                    continue
                if not self._blocks.acquire(cell):
                    continue
                if self._blocks.made_elsewhere(key):
                    self.done += 1
                    self._leave_block(key)
                    continue
                self._running.add(key)
                batch.append((cell, self.plan.needs[key]))
                if len(batch) == 1:
                    most = self._batch_size(cell)
            self._ready.extendleft(reversed(skipped))
            return batch
        return []

    def _batch_size(self, first: Cell) -> int:
        """Return the maximum number of cells in the batch that begins with this cell."""
        cells, seconds = self._measured.get(_group(first), (0, 0.0))
        if not cells or first.protocol.kind == "finetune" or first.key in self._singly:
            return 1
        share = ceil((1 + len(self._ready)) / self.workers)
        return max(1, int(min(share, BATCH_SECONDS * cells / max(seconds, 1e-6))))

    @property
    def ready_count(self) -> int:
        """The number of ready cells."""
        with self._lock, self._or_stop():
            self._ready.extend(self._blocks.returned())
        return len(self._ready)

    @property
    def cells_left(self) -> bool:
        """Whether any cell still waits, is ready, runs, or is held by another driver."""
        with self._lock:
            here = self._missing or self._ready or self._running
            return not self.stopped and bool(here or self._blocks.any_elsewhere)

    def cell_done(self, key: str, headline: dict, seconds: float | None = None) -> None:
        """Note that a cell's record is in the store; ``seconds`` that it took decide the size of later batches."""
        with self._lock:
            if seconds is not None:
                group = _group(self.plan.by_key[key])
                cells, before = self._measured.get(group, (0, 0.0))
                self._measured[group] = cells + 1, before + seconds
            self.last = (key, headline)
            self._note_trained(key)
        self.on_change()

    def cell_failed(self, key: str, failure: Failure) -> None:
        """Note that a cell raised; its failure record is in the store."""
        with self._lock:
            self._running.discard(key)
            self._fail(key, failure)
            self._leave_block(key)
        self.on_change()

    def cells_lost(self, keys: Sequence[str]) -> list[str]:
        """Note that the worker of a batch died at the first cell without a record.

        That cell fails once `ATTEMPTS` workers died at it. Until then it is queued again like the cells behind it, each
        as a batch of its own, so that a cell that kills its workers takes no others with it.

        Args:
            keys: the cells of the batch, in its order.

        Returns:
            The cells without a record, in the order of the batch.
        """
        left = list(keys)
        with self._lock, self._or_stop():
            self._running.difference_update(keys)
            made = committed(self.store, keys)
            for key in made:
                self._note_trained(key)
            left = [key for key in keys if key not in made]
            self._singly.update(left)
            self._deaths.update(left[:1])
            again = left
            if left and self._deaths[left[0]] == ATTEMPTS:
                self._give_up(left[0])
                again = left[1:]
            self._ready.extendleft(reversed(again))
        self.on_change()
        return left

    def _note_trained(self, key: str) -> None:
        self._running.discard(key)
        self.done += 1
        self.trained += 1
        self._leave_block(key)

    def _give_up(self, key: str) -> None:
        error = RuntimeError(f"its worker died {ATTEMPTS} times (out of memory?)")
        self.store.record_failure(key, self.plan.by_key[key].as_dict(), error)
        self._fail(key, Failure(str(error), by_user=False))
        self._leave_block(key)

    def _leave_block(self, key: str) -> None:
        self._blocks.leave(self.plan.by_key[key])

    def _fail(self, key: str, failure: Failure) -> None:
        if failure.fatal:  # not the fault of the unit
            self._end(StoreError(failure.line))
            return
        self.failed[key] = failure
        self.user_error |= failure.by_user

    @contextlib.contextmanager
    def _or_stop(self) -> Iterator[None]:
        """End the run if the store is out of reach; the driver raises `fatal` once all workers have stopped."""
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
        """Whether any search, adapter, chunk or measurement is left."""
        with self._lock:
            return not self.stopped and bool(self.searches or self.adapters or self._chunks or self.fidelity)

    def next_searches(self) -> list[SearchSpec]:
        """Return the searches that are ready. Those of other drivers are checked again every `LOOK_AGAIN` seconds."""
        with self._lock, self._or_stop():
            self._lease_cache.look()
            ready = []
            for key, spec in list(self.searches.items()):
                is_new = key not in self._lease_cache
                if self._lease_cache.obtain(key):
                    if is_new and self.store.has("searches", key):
                        self.search_done(key)
                    else:
                        ready.append(spec)
            return ready
        return []

    def search_done(self, key: str) -> None:
        """Note that a search is decided: its adapter is ready."""
        with self._lock:
            self.searches.pop(key, None)
            self.learning.pop(key, None)
            self._lease_cache.release(key)
        self.on_change()

    def search_failed(self, key: str, failure: Failure) -> None:
        """Note that a search failed, and with it its adapter and the pools that need it."""
        with self._lock:
            spec = self.searches.pop(key)
            self.learning.pop(key, None)
            self._fail(key, failure)
            self._lease_cache.release(key)
            self.adapters.pop(spec.adapter.key, None)
            self._drop_pools_of(spec.adapter, key)

    def _searched_for(self) -> set[str]:
        """Return the keys of the adapters whose search is not decided yet."""
        return {search.adapter.key for search in self.searches.values()}

    def next_adapters(self, most: int | None = None, of: Of = lambda unit: True) -> list[AdapterSpec]:
        """Return the adapters that are ready. Those of other drivers are checked again every `LOOK_AGAIN` seconds.

        ``most`` is an upper limit, running ones included: other drivers may start the rest.
        """
        with self._lock, self._or_stop():
            self._lease_cache.look()
            self._take_over_adapters()
            waiting, ready = self._searched_for(), []
            for key, spec in list(self.adapters.items()):
                if key in waiting or not of(spec):
                    continue
                if len(ready) == most:
                    break
                is_new = key not in self._lease_cache
                if self._lease_cache.obtain(key):
                    if is_new and self.store.has_adapter(spec):
                        self.adapter_done(key)
                    else:
                        ready.append(spec)
            return ready
        return []

    def _take_over_adapters(self) -> None:
        """If due, note the adapters that other drivers have made, by one listing."""
        theirs = {key for key in self.adapters if key not in self._lease_cache}
        if theirs and self._lease_cache.due("adapters"):
            for key in self.store.keys("adapters") & theirs:
                if self.store.has_adapter(self.adapters[key]):
                    self.adapter_done(key)

    def adapter_at(self, key: str, step: int, steps: int, loss: float) -> None:
        """Note the progress of a running adapter or search."""
        with self._lock:
            if key in self.adapters or key in self.searches:
                self.learning[key] = (step, steps, loss)
        self.on_change()

    def adapter_done(self, key: str) -> None:
        """Note that an adapter is in the store."""
        with self._lock:
            self.adapters.pop(key, None)
            self.learning.pop(key, None)
            self._lease_cache.release(key)
        self.on_change()

    def adapter_failed(self, key: str, failure: Failure) -> None:
        """Note that an adapter failed, and with it the pools that need it."""
        with self._lock:
            spec = self.adapters.pop(key)
            self.learning.pop(key, None)
            self._fail(key, failure)
            self._lease_cache.release(key)
            self._drop_pools_of(spec, key)

    def next_chunks(self, of: Of = lambda unit: True) -> list[tuple[Chunked, int]]:
        """Return all chunks that are ready, oldest need first: adapter made, lease acquired, not made elsewhere.

        A chunk of the features of a pool is ready when the chunk of the pool is committed.

        Of the pools of other drivers only some are listed, and not at each call.
        """
        with self._or_stop():
            with self._lock:
                self._lease_cache.look()
                waiting = self._searched_for() | self.adapters.keys()
                # Chunks need the adapter.
                keys = [key for key in self._chunks if self._adapter_keys.get(key) not in waiting]
                specs = [spec for key in keys if of(spec := self._chunked[key])]
                elsewhere = self._lease_cache.in_turn(keys, LOOK_INTO)
            for key in elsewhere:  # cells may wait for chunks that another driver makes
                self._take_over_chunks(self._chunked[key])
            units: list[tuple[Chunked, int]] = []
            for spec in specs:  # without the lock: requests to a remote store are slow, and trainings go on
                if self.stopped:
                    return []
                if self._lease_cache.obtain(spec.key):
                    self._take_over_chunks(spec)  # committed by another driver since this run was planned
                    with self._lock:
                        pool = spec.pool if isinstance(spec, FeatureSpec) else None
                        not_yet = self._chunks.get(pool.key, ()) if pool else ()
                        units += [(spec, chunk) for chunk in self._chunks.get(spec.key, ()) if chunk not in not_yet]
                        if spec.key not in self._chunks:  # all made, or dropped meanwhile
                            self._lease_cache.release(spec.key)
            return units
        return []

    def _take_over_chunks(self, spec: Chunked) -> None:
        committed_chunks = self.store.chunks(spec)
        with self._lock:
            for chunk in committed_chunks & set(self._chunks.get(spec.key, ())):
                self.chunk_done(spec.key, chunk)

    @property
    def chunks_left(self) -> bool:
        """Whether any chunk is missing."""
        with self._lock:
            return not self.stopped and bool(self._chunks)

    @property
    def chunks_open(self) -> tuple[int, int]:
        """Chunks that are missing and can still be made: of pools, of features."""
        with self._lock:
            features = sum(
                len(left) for key, left in self._chunks.items() if isinstance(self._chunked[key], FeatureSpec)
            )
            return sum(map(len, self._chunks.values())) - features, features

    def chunks_left_of(self, of: Of) -> bool:
        """Return whether any chunk of these units is missing."""
        with self._lock:
            return not self.stopped and any(of(self._chunked[key]) for key in self._chunks)

    def chunk_done(self, spec_key: str, chunk: int) -> None:
        """Note that a chunk of a pool, or of features, is committed: cells that waited only for it become ready."""
        with self._lock:
            if chunk not in self._chunks.get(spec_key, ()):  # its unit has failed, or it was already seen in the store
                return
            if isinstance(self._chunked[spec_key], FeatureSpec):
                self.features_done += 1
            else:
                self.chunks_done += 1
            for key in self._waiting.pop((spec_key, chunk), ()):
                missing = self._missing.get(key)
                if missing is None:
                    continue
                missing.discard((spec_key, chunk))
                if not missing:
                    del self._missing[key]
                    self._ready.append(key)
            self._chunks[spec_key].remove(chunk)
            if not self._chunks[spec_key]:
                del self._chunks[spec_key]
                self._lease_cache.release(spec_key)
            self._measurements.note(spec_key, self._chunks.get(spec_key, ()))
        self.on_change()

    def chunk_failed(self, spec_key: str, failure: Failure) -> None:
        """Note that a chunk failed: the cells that need missing chunks of its pool, or features, are blocked."""
        with self._lock:
            if spec_key in self._chunks:
                self._fail(spec_key, failure)
                self._drop(spec_key, spec_key)
        self.on_change()

    @property
    def datasets_left(self) -> bool:
        """Whether features of a dataset's images are missing."""
        return self.chunks_left_of(lambda unit: isinstance(unit, FeatureSpec) and unit.pool is None)

    def _drop_pools_of(self, adapter: AdapterSpec, culprit: str) -> None:
        for spec in list(self._chunked.values()):
            if isinstance(spec, PoolSpec) and spec.adapter == adapter and spec.key in self._chunks:
                self._drop(spec.key, culprit)

    def _drop(self, spec_key: str, culprit: str) -> None:
        """Drop the missing chunks of a pool, or of features, and what waits for them."""
        for key in self._measurements.drop(spec_key):
            del self.fidelity[key]
        for chunk in self._chunks.pop(spec_key):
            for key in self._waiting.pop((spec_key, chunk), ()):
                if self._missing.pop(key, None) is not None:
                    self.blocked[culprit] += 1
                    self._leave_block(key)
        self._lease_cache.release(spec_key)
        for spec in list(self._chunked.values()):
            of_it = isinstance(spec, FeatureSpec) and spec.pool is not None and spec.pool.key == spec_key
            if of_it and spec.key in self._chunks:
                self._drop(spec.key, culprit)

    # -- fidelity

    def next_fidelity(self) -> list[FidelitySpec]:
        """Return the measurements whose chunks are all committed, each of them once."""
        with self._lock, self._or_stop():
            found = []
            for spec in self._measurements.take_ready():
                if spec.key not in self.fidelity:  # it has failed
                    continue
                if self.store.has("fidelity", spec.key):  # made by another driver
                    self.fidelity_done(spec.key)
                else:
                    found.append(spec)
            return found
        return []

    def fidelity_done(self, key: str) -> None:
        """Note that a measurement is in the store."""
        with self._lock:
            self.fidelity.pop(key, None)
        self.on_change()

    def fidelity_failed(self, key: str, failure: Failure) -> None:
        """Note that a measurement failed; no cell waits for it."""
        with self._lock:
            self.fidelity.pop(key, None)
            self._fail(key, failure)
        self.on_change()

    def stop(self) -> None:
        """Stop handing out work."""
        with self._lock:
            self.stopped = True
        self.on_change()
