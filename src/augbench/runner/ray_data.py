"""Adapters and fidelity as Ray tasks, pools and features on Ray Data, in a background thread beside the trainings."""

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

from augbench.core.specs import AdapterSpec, FidelitySpec
from augbench.core.temporary import log_levels
from augbench.planning.plan import Plan
from augbench.runner.lease_cache import LOOK_AGAIN
from augbench.runner.process_title import at_work_on
from augbench.runner.resources import Allotment, WorkerLane
from augbench.runner.scheduler import ATTEMPTS, Chunked, Scheduler
from augbench.runner.tune_search import SearchThread
from augbench.runner.worker import Failure, WorkerSetup, attempt, chunk_maker
from augbench.stages.adapt import adapt
from augbench.stages.context import Context
from augbench.stages.fidelity import measure
from augbench.storage.store import Store

REST_SECONDS = 10.0


class Generation(threading.Thread):
    """A thread that makes all adapters and chunks of a scheduler. An exception that ends it is kept in `error`."""

    def __init__(self, plan: Plan, store: Store, scheduler: Scheduler, allotment: Allotment) -> None:
        super().__init__(name="generation", daemon=True)
        self.scheduler = scheduler
        self.allotment = allotment
        self.setup = WorkerSetup.of(plan, store)
        self.error: BaseException | None = None
        self._executors = [ChunkExecutor(lane, self.setup, scheduler) for lane in allotment.generate]
        self._background = [BackgroundMaker(executor) for executor in self._executors[1:]]
        self._adapting: dict[ray.ObjectRef, str] = {}
        self._measuring: dict[ray.ObjectRef, str] = {}
        self._to_measure: list[FidelitySpec] = []
        self._searching: SearchThread | None = None
        self._progress_mailbox: ray.actor.ActorHandle | None = None  # progress of running adaptations

    def run(self) -> None:
        """Work until nothing is left to search, adapt, generate or measure."""
        try:
            for thread in self._background:
                thread.start()
            while self.scheduler.pools_left:
                self._start_searches()
                self._start_adapters()
                self._meanwhile()
                if not self._executors[0].execute_ready(self._meanwhile):
                    time.sleep(LOOK_AGAIN / 4)
            for thread in self._background:
                thread.join()
            for thread in (self._searching, *self._background):
                if thread is not None and thread.error:
                    raise thread.error
        except BaseException as error:  # the main thread raises it
            self.error = error
            self.scheduler.stop()

    def come_to_rest(self) -> None:
        """Wait for the threads, at most `REST_SECONDS` each: after Ray's shutdown they would print errors."""
        for thread in (self, self._searching, *self._background):
            if thread is not None and thread.is_alive():
                thread.join(REST_SECONDS)

    def _meanwhile(self) -> None:
        """Poll adapters and measurements; also called while chunks are made."""
        self._collect_adapters()
        self._measure()

    def _start_searches(self) -> None:
        """Start searches in another thread: they wait for Ray Tune, and units without a search must not wait too."""
        if self._searching is not None and self._searching.is_alive():
            return
        if specs := self.scheduler.next_searches():
            self._progress_mailbox = self._progress_mailbox or ProgressMailbox.remote()
            self._searching = SearchThread(specs, self.setup, self.scheduler, self.allotment, self._progress_mailbox)
            self._searching.start()

    def _start_adapters(self) -> None:
        """Start at most the allotted number of adaptations: on a CPU-only cluster no reservation would limit them."""
        started = set(self._adapting.values())
        for lane in self.allotment.adapt:
            options = lane.share.options
            for spec in self.scheduler.next_adapters(lane.share.workers, lane.serves):
                if spec.key not in started:
                    self._progress_mailbox = self._progress_mailbox or ProgressMailbox.remote()
                    task = _adapt.options(name=f"adapt {spec.key}", **options)
                    arguments = self.setup, spec, lane.share.gpu, self._progress_mailbox
                    self._adapting[task.remote(*arguments)] = spec.key

    def _collect_adapters(self) -> None:
        if self._progress_mailbox is None:
            return
        for key, progress in ray.get(self._progress_mailbox.collect.remote()).items():
            self.scheduler.adapter_at(key, *progress)
        for key, failure in _finished(self._adapting):
            if failure is None:
                self.scheduler.adapter_done(key)
            else:
                self.scheduler.adapter_failed(key, failure)

    def _measure(self) -> None:
        """Start ready measurements, at most the allotted number; collect the finished ones."""
        self._to_measure += self.scheduler.next_fidelity()
        while self._to_measure and len(self._measuring) < self.allotment.measure.workers:
            spec = self._to_measure.pop(0)
            task = _fidelity.options(name=f"fidelity {spec.key}", **self.allotment.measure.options)
            self._measuring[task.remote(self.setup, spec, self.allotment.measure.gpu)] = spec.key
        for key, failure in _finished(self._measuring):
            if failure is None:
                self.scheduler.fidelity_done(key)
            else:
                self.scheduler.fidelity_failed(key, failure)


class ChunkExecutor:
    """Makes the chunks of one worker lane."""

    def __init__(self, lane: WorkerLane, setup: WorkerSetup, scheduler: Scheduler) -> None:
        self.lane, self.setup, self.scheduler = lane, setup, scheduler
        self._deaths = 0

    def execute_ready(self, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Run one Ray Data execution over all chunks that are ready, and return whether there were any.

        ``meanwhile`` is called after each chunk.

        Raises:
            RayError: workers died `ATTEMPTS` times without any progress in between.
        """
        units, made = self.scheduler.next_chunks(self.lane.serves), 0
        try:
            for key, chunk, failure in self._execute(units) if units else ():
                if failure is None:
                    self.scheduler.chunk_done(key, chunk)
                else:
                    self.scheduler.chunk_failed(key, failure)
                made += 1
                meanwhile()
        except ray.exceptions.RayError:  # a dead worker ends the execution: the caller starts another
            self._deaths = 1 if made else self._deaths + 1
            if self._deaths == ATTEMPTS:
                raise
        return bool(units)

    def _execute(self, units: list[tuple[Chunked, int]]) -> Iterator[tuple[str, int, Failure | None]]:
        """Make one chunk per row; yield (key of its unit, chunk, failure) as chunks are committed."""
        specs = {spec.key: spec for spec, _ in units}
        rows = [{"key": spec.key, "chunk": chunk} for spec, chunk in units]
        # Materialised with one block per row: each chunk is a task of its own, and no read task needs a CPU.
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).materialize()
        made = dataset.map_batches(
            ChunkMaker,
            fn_constructor_args=(self.setup, specs, self.lane.share.gpu),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(self.lane.share.workers, len(rows))),
            **self.lane.share.options,
            # No restarts: the arguments may be gone from the object store. `Generation.run` starts new actors.
            ray_remote_args_fn=lambda: {"max_restarts": 0},
        )
        for row in made.iter_rows():
            failure = Failure(**json.loads(row["failure"])) if row["failure"] else None
            yield row["key"], int(row["chunk"]), failure


class BackgroundMaker(threading.Thread):
    """A background thread for a further lane, so that lanes do not wait for each other."""

    def __init__(self, executor: ChunkExecutor) -> None:
        super().__init__(name="generation-beside", daemon=True)
        self.executor = executor
        self.error: BaseException | None = None

    def run(self) -> None:
        """Work until no chunk of this lane is left."""
        scheduler, serves = self.executor.scheduler, self.executor.lane.serves
        try:
            while scheduler.chunks_left_of(serves):
                if not self.executor.execute_ready():
                    time.sleep(LOOK_AGAIN / 4)
        except BaseException as error:  # the generation thread passes it to the main thread
            self.error = error
            scheduler.stop()


class ChunkMaker:
    """An actor that makes chunks; it loads a pipeline once for consecutive chunks of one pool."""

    def __init__(self, setup: WorkerSetup, specs: dict[str, Chunked], gpu: float) -> None:
        self.specs, self.setup, self.gpu = specs, setup, gpu
        self.contexts: dict[bool, Context] = {}

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """Make one chunk. An exception is returned as a row; only a dying process is an error to Ray."""
        spec, chunk = self.specs[batch["key"][0]], int(batch["chunk"][0])
        context, make = self._context(spec), chunk_maker(spec)
        with at_work_on(f"{spec.key}/{chunk:05d}"):
            failure = attempt(context, spec, lambda: make(context, spec, chunk), part=chunk)
        return {"key": [spec.key], "chunk": [chunk], "failure": [json.dumps(asdict(failure)) if failure else ""]}

    def _context(self, spec: Chunked) -> Context:
        """Return the context, with a GPU only if the unit uses one: a device query would load torch."""
        use_gpu = self.setup.uses_gpu(spec)
        if use_gpu not in self.contexts:
            self.contexts[use_gpu] = self.setup.context(self.gpu if use_gpu else 0)
        return self.contexts[use_gpu]


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class ProgressMailbox:
    """An actor with the latest progress of running adaptations. If it restarts, only progress reports are lost."""

    def __init__(self) -> None:
        self.reports: dict[str, tuple[int, int, float]] = {}

    def report(self, key: str, step: int, steps: int, loss: float) -> None:
        """Store the progress until it is collected."""
        self.reports[key] = (step, steps, loss)

    def collect(self) -> dict[str, tuple[int, int, float]]:
        """Return the progress since the last call: key -> step, steps, loss."""
        reports, self.reports = self.reports, {}
        return reports


@ray.remote(max_retries=2)
def _adapt(setup: WorkerSetup, spec: AdapterSpec, gpu: float, progress: ray.actor.ActorHandle) -> Failure | None:
    context = setup.context(gpu if setup.uses_gpu(spec) else 0)
    failure = attempt(context, spec, lambda: adapt(context, spec, progress.report.remote))
    context.free()  # Ray keeps the process for further tasks
    return failure


@ray.remote(max_retries=2)
def _fidelity(setup: WorkerSetup, spec: FidelitySpec, gpu: float) -> Failure | None:
    context = setup.context(gpu)
    failure = attempt(context, spec, lambda: measure(context, spec))
    context.free()
    return failure


def _finished(work: dict[ray.ObjectRef, str]) -> Iterator[tuple[str, Failure | None]]:
    """Remove the finished tasks; yield the key of each and its failure or None."""
    done = ray.wait(list(work), num_returns=len(work), timeout=0)[0] if work else ()
    for reference in done:
        yield work.pop(reference), ray.get(reference)


@contextmanager
def quiet_ray_data() -> Iterator[None]:
    """Silence Ray Data's progress bars, plans and log: the run prints its own progress."""
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False
    try:
        with log_levels(logging.CRITICAL, "ray.data"), warnings.catch_warnings():
            # For `max_restarts` above: this version of Ray has no other way; pyproject.toml bounds the version.
            warnings.filterwarnings("ignore", message="`ray_remote_args", category=DeprecationWarning)
            yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before
