"""Adapters and measurements as Ray tasks, pools on Ray Data, in a thread beside the trainings that wait for them."""

from __future__ import annotations

import json
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import ray

from augbench.core.specs import AdapterSpec, FidelitySpec, PoolSpec
from augbench.core.temporary import log_levels
from augbench.planning.plan import Plan
from augbench.runner.lease_cache import LOOK_AGAIN
from augbench.runner.process_title import at_work_on
from augbench.runner.resources import Allotment, WorkerLane
from augbench.runner.scheduler import ATTEMPTS, Scheduler
from augbench.runner.tune_search import SearchThread
from augbench.runner.worker import Failure, WorkerSetup, attempt
from augbench.stages.adapt import adapt
from augbench.stages.context import Context
from augbench.stages.fidelity import measure
from augbench.stages.generate import generate_chunk
from augbench.storage.store import Store

REST_SECONDS = 10.0


class Generation(threading.Thread):
    """Makes every adapter and chunk the board asks for. What it could not do at all is in `error` afterwards."""

    def __init__(self, plan: Plan, store: Store, board: Scheduler, allotment: Allotment) -> None:
        super().__init__(name="generation", daemon=True)
        self.board = board
        self.allotment = allotment
        self.setup = WorkerSetup.of(plan, store)
        self.error: BaseException | None = None
        self._makings = [ChunkExecutor(lane, self.setup, board) for lane in allotment.generate]
        self._beside = [BackgroundMaker(making) for making in self._makings[1:]]
        self._adapting: dict[ray.ObjectRef, str] = {}
        self._measuring: dict[ray.ObjectRef, str] = {}
        self._to_measure: list[FidelitySpec] = []
        self._searching: SearchThread | None = None
        self._heard: ray.actor.ActorHandle | None = None  # where adapters in work say how far they are

    def run(self) -> None:
        """Until nothing is left to search, learn, generate or measure."""
        try:
            for thread in self._beside:
                thread.start()
            while self.board.pools_left:
                self._start_searches()
                self._start_adapters()
                self._meanwhile()
                if not self._makings[0].make_what_can_be_made(self._meanwhile):
                    time.sleep(LOOK_AGAIN / 4)
            for thread in self._beside:
                thread.join()
            for thread in (self._searching, *self._beside):
                if thread is not None and thread.error:
                    raise thread.error
        except BaseException as error:  # the main thread raises it: a thread's own traceback helps nobody
            self.error = error
            self.board.stop()

    def come_to_rest(self) -> None:
        """Wait a little for what was stopped: threads that talk to a Ray that has ended would complain on screen."""
        for thread in (self, self._searching, *self._beside):
            if thread is not None and thread.is_alive():
                thread.join(REST_SECONDS)

    def _meanwhile(self) -> None:
        """What is done again and again, also while chunks are made."""
        self._collect_adapters()
        self._measure()

    def _start_searches(self) -> None:
        """In threads of their own: a search waits for Ray Tune, and what needs none must not wait with it."""
        if self._searching is not None and self._searching.is_alive():
            return
        if specs := self.board.next_searches():
            self._heard = self._heard or ProgressMailbox.remote()
            self._searching = SearchThread(specs, self.setup, self.board, self.allotment, self._heard)
            self._searching.start()

    def _start_adapters(self) -> None:
        """As many at once as were allotted: on a CPU-only cluster they reserve nothing that would bound them."""
        started = set(self._adapting.values())
        for lane in self.allotment.adapt:
            options = lane.share.options
            for spec in self.board.next_adapters(lane.share.workers, lane.serves):
                if spec.key not in started:
                    self._heard = self._heard or ProgressMailbox.remote()
                    task = _adapt.options(name=f"adapt {spec.key}", **options)
                    self._adapting[task.remote(self.setup, spec, self._heard)] = spec.key

    def _collect_adapters(self) -> None:
        if self._heard is None:
            return
        for key, progress in ray.get(self._heard.take.remote()).items():
            self.board.adapter_at(key, *progress)
        for key, failure in _finished(self._adapting):
            if failure is None:
                self.board.adapter_done(key)
            else:
                self.board.adapter_failed(key, failure)

    def _measure(self) -> None:
        """Start what can be measured, as many at once as were allotted; collect what has been."""
        self._to_measure += self.board.next_fidelity()
        while self._to_measure and len(self._measuring) < self.allotment.measure.workers:
            spec = self._to_measure.pop(0)
            task = _fidelity.options(name=f"fidelity {spec.key}", **self.allotment.measure.options)
            self._measuring[task.remote(self.setup, spec)] = spec.key
        for key, failure in _finished(self._measuring):
            if failure is None:
                self.board.fidelity_done(key)
            else:
                self.board.fidelity_failed(key, failure)


class ChunkExecutor:
    """Makes the chunks of one lane."""

    def __init__(self, lane: WorkerLane, setup: WorkerSetup, board: Scheduler) -> None:
        self.lane, self.setup, self.board = lane, setup, board
        self._deaths = 0

    def make_what_can_be_made(self, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """One execution of Ray Data over all chunks that can be made now; False if there are none.

        ``meanwhile`` is called after each chunk.

        Raises:
            RayError: workers died `ATTEMPTS` times without any progress in between.
        """
        units, made = self.board.next_chunks(self.lane.serves), 0
        try:
            for pool_key, chunk, failure in self._execute(units) if units else ():
                self._note(pool_key, chunk, failure)
                made += 1
                meanwhile()
        except ray.exceptions.RayError:  # a dead worker ends Ray Data's execution: begin another
            self._deaths = 1 if made else self._deaths + 1
            if self._deaths == ATTEMPTS:
                raise
        return bool(units)

    def _execute(self, units: list[tuple[PoolSpec, int]]) -> Iterator[tuple[str, int, Failure | None]]:
        """One row is one chunk; yields (pool key, chunk, failure) as chunks are committed."""
        pools = {pool.key: pool for pool, _ in units}
        rows = [{"pool": pool.key, "chunk": chunk} for pool, chunk in units]
        # Materialised in as many blocks as rows: each chunk is a task of its own, and no read task needs a CPU.
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).materialize()
        made = dataset.map_batches(
            ChunkMaker,
            fn_constructor_args=(self.setup, pools),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(self.lane.share.workers, len(rows))),
            **self.lane.share.options,
            ray_remote_args_fn=_without_restarts,
        )
        for row in made.iter_rows():
            failure = Failure(**json.loads(row["failure"])) if row["failure"] else None
            yield row["pool"], int(row["chunk"]), failure

    def _note(self, pool_key: str, chunk: int, failure: Failure | None) -> None:
        if failure is None:
            self.board.chunk_done(pool_key, chunk)
        else:
            self.board.chunk_failed(pool_key, failure)


class BackgroundMaker(threading.Thread):
    """Makes the chunks of a further lane, so that neither waits for the other."""

    def __init__(self, making: ChunkExecutor) -> None:
        super().__init__(name="generation-beside", daemon=True)
        self.making = making
        self.error: BaseException | None = None

    def run(self) -> None:
        """Until nothing of this lane is left."""
        board, serves = self.making.board, self.making.lane.serves
        try:
            while board.chunks_left_of(serves):
                if not self.making.make_what_can_be_made():
                    time.sleep(LOOK_AGAIN / 4)
        except BaseException as error:  # the generation thread hands it to the main thread
            self.error = error
            board.stop()


def _without_restarts() -> dict[str, int]:
    """A restarted actor may find its arguments gone from the object store; `Generation.run` begins anew instead."""
    return {"max_restarts": 0}


class ChunkMaker:
    """An actor that makes chunks; it loads a bundle once and keeps it while chunks of one pool follow each other."""

    def __init__(self, setup: WorkerSetup, pools: dict[str, PoolSpec]) -> None:
        self.pools = pools
        self.setup = setup
        self.contexts: dict[bool, Context] = {}

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """One chunk. An exception comes back as a row; only a dying system is fatal."""
        pool, chunk = self.pools[batch["pool"][0]], int(batch["chunk"][0])
        context = self._context(pool)
        with at_work_on(f"{pool.key}/{chunk:05d}"):
            failure = attempt(context, pool, lambda: generate_chunk(context, pool, chunk), part=chunk)
        return {"pool": [pool.key], "chunk": [chunk], "failure": [json.dumps(asdict(failure)) if failure else ""]}

    def _context(self, pool: PoolSpec) -> Context:
        """With a GPU only for augmenters that use one: asking for it would load torch."""
        use_gpu = self.setup.uses_gpu(pool.augmenter)
        if use_gpu not in self.contexts:
            self.contexts[use_gpu] = self.setup.context(use_gpu)
        return self.contexts[use_gpu]


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class ProgressMailbox:
    """What adapters in work said last. It may die and begin anew: nothing but progress is lost."""

    def __init__(self) -> None:
        self.said: dict[str, tuple[int, int, float]] = {}

    def say(self, key: str, step: int, steps: int, loss: float) -> None:
        """Keep it until it is taken."""
        self.said[key] = (step, steps, loss)

    def take(self) -> dict[str, tuple[int, int, float]]:
        """What was said since this was asked last: key -> step, steps, loss."""
        said, self.said = self.said, {}
        return said


@ray.remote(max_retries=2)
def _adapt(setup: WorkerSetup, spec: AdapterSpec, heard: ray.actor.ActorHandle) -> Failure | None:
    """Make an adapter; None, or why it could not be made."""
    context = setup.context(setup.uses_gpu(spec.augmenter))
    return attempt(context, spec, lambda: adapt(context, spec, heard.say.remote))


@ray.remote(max_retries=2)
def _fidelity(setup: WorkerSetup, spec: FidelitySpec) -> Failure | None:
    """Measure a pool; None, or why it could not be measured."""
    context = setup.context(use_gpu=True)
    return attempt(context, spec, lambda: measure(context, spec))


def _finished(work: dict[ray.ObjectRef, str]) -> Iterator[tuple[str, Failure | None]]:
    """Take out the tasks that have ended: the key of each, and why it failed if it did."""
    done = ray.wait(list(work), num_returns=len(work), timeout=0)[0] if work else ()
    for reference in done:
        yield work.pop(reference), ray.get(reference)


@contextmanager
def quiet_ray_data() -> Iterator[None]:
    """Keep Ray Data's bars, plans and log off the screen, where the run's own progress is; afterwards as before."""
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False
    try:
        with log_levels(logging.CRITICAL, "ray.data"), warnings.catch_warnings():
            # For `_without_restarts`: the one way to say so that this Ray has; pyproject.toml bounds the version.
            warnings.filterwarnings("ignore", message="`ray_remote_args", category=DeprecationWarning)
            yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before
