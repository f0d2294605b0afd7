"""Training on Ray Tune: one `Tuner.fit` fed by the board, workers that live on from cell to cell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.search import Searcher

from augbench.core.logs import UnitLog
from augbench.core.plan import Plan
from augbench.core.store import Store
from augbench.engine.board import Board
from augbench.engine.resources import Allotment
from augbench.engine.titles import at_work_on
from augbench.engine.tracked import Tracking
from augbench.engine.trainables import registered
from augbench.engine.work import Work
from augbench.engine.worker import Failure, Job, WorkerSetup, attempt
from augbench.jobs.context import Context
from augbench.jobs.pictures import Geometry, Pictures
from augbench.jobs.train import headline, numbers

CELLS_PER_FIT = 5000  # the driver grows by some 20 kB per trial (bench/scale.py); a new fit gives that back
BARRIER_SECONDS = 60.0

_boards: dict[str, Board] = {}  # by run id: Tune pickles its searcher, and a board has locks
_trackings: dict[str, Tracking] = {}  # by run id, of runs that are tracked: Tune pickles its callbacks too


def run_training(
    plan: Plan,
    store: Store,
    board: Board,
    allotment: Allotment,
    real: Mapping[tuple[str, Geometry], Any],
    job: Job,
    tracking: Tracking | None = None,
) -> None:
    """Train every cell that the board hands out; returns when none is left or the board was stopped.

    Args:
        plan: the grid.
        store: where records go; workers write them themselves, at once.
        board: what may start.
        allotment: slots and what each reserves.
        real: (dataset, geometry) -> reference to its decoded pictures in the object store.
        job: what a slot does with a cell; `jobs.train.train_cell` but in benchmarks.
        tracking: what hears of each training; None: nobody does.
    """
    run_id = f"{plan.grid.name}-{time.time_ns()}"
    _boards[run_id] = board
    if tracking:
        _trackings[run_id] = tracking
    work = ray.put(Work(plan, ray.put))
    try:
        while board.cells_left:
            _wait_until(board, lambda: board.ready_count or not board.cells_left)
            first = min(allotment.train.workers, max(board.ready_count, 1))
            barrier = StartBarrier.options(max_concurrency=first + 1).remote(first)
            shared = {
                "setup": WorkerSetup.of(plan, store),
                "use_gpu": allotment.train.gpu > 0,
                "work": [work],  # in lists, references stay references until the worker asks for them
                "real": {key: [reference] for key, reference in real.items()},
                "barrier": barrier,
                "job": job,
                "grid": plan.grid.name,
                "tracked": tracking is not None,
            }
            _fit(run_id, allotment, shared)
    finally:
        del _boards[run_id]
        if tracking:
            del _trackings[run_id]
            tracking.end()


def _wait_until(board: Board, condition: Callable[[], object]) -> None:
    while not condition() and not board.stopped:
        time.sleep(0.1)


def _fit(run_id: str, allotment: Allotment, shared: dict[str, Any]) -> None:
    trainable = registered(CellTrainable, shared, allotment.train.bundle)
    with tempfile.TemporaryDirectory(prefix="augbench-tune-") as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=ReadyCells(run_id),
                num_samples=CELLS_PER_FIT,
                max_concurrent_trials=allotment.train.workers,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name="cells",
                storage_path=scratch,  # Tune's own files are not kept: the store has everything
                verbose=0,
                callbacks=[_Report(run_id)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        tuner.fit()


def _trial_name(trial: tune.experiment.Trial) -> str:
    return trial.config["key"]


class ReadyCells(Searcher):
    """Hands a cell to Tune the moment its pools are committed; None while nothing is ready."""

    def __init__(self, run_id: str) -> None:
        super().__init__(metric="done", mode="max")
        self.run_id = run_id

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next cell's key, None = ask again, FINISHED = nothing is left."""
        board = _boards[self.run_id]
        unit = board.next_cell()
        if unit is not None:
            return {"key": unit[0].key}
        return None if board.cells_left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn from: results go to the board through `_Report`."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: resuming is planning again."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _Report(Callback):
    """Tells the board what became of each trial, and trackers, where there are any."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def on_trial_start(self, iteration: int, trials: list, trial: tune.experiment.Trial, **info: Any) -> None:
        if tracking := _trackings.get(self.run_id):
            tracking.started(trial)

    def on_trial_complete(self, iteration: int, trials: list, trial: tune.experiment.Trial, **info: Any) -> None:
        board, outcome = _boards[self.run_id], trial.last_result
        if tracking := _trackings.get(self.run_id):
            tracking.ended(trial, outcome.get("numbers"))
        if "failure" in outcome:
            board.cell_failed(trial.config["key"], Failure(**json.loads(outcome["failure"])))
        else:
            board.cell_done(trial.config["key"], json.loads(outcome["headline"]))

    def on_trial_error(self, iteration: int, trials: list, trial: tune.experiment.Trial, **info: Any) -> None:
        # An exception in a cell comes back as a result: only a worker that died, or could not be set up, ends here.
        board, key = _boards[self.run_id], trial.config["key"]
        _note_loss(board.store, key, trial)
        board.cell_lost(key)
        if tracking := _trackings.get(self.run_id):
            tracking.ended(trial, None)


def _note_loss(store: Store, key: str, trial: tune.experiment.Trial) -> None:
    """In the cell's log: what Ray knows of it. On screen it would be a traceback for each death that does no harm."""
    # Not by `trial.get_error()`: it reads a copy of this file, which Tune makes now and then.
    told = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "Ray does not say why"
    log = UnitLog(store.files, store.log_name(key))
    log.say(f"=== the worker of this cell was lost:\n{told}")
    log.close()


@ray.remote(num_cpus=0)
class StartBarrier:
    """Lets no worker end its first cell before the other first workers are up.

    Tune gives a finished worker the next trial and kills the one that is still starting, so without this a grid of
    short cells would run on its first worker alone.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.arrived = 0
        self.latest = time.monotonic()  # when the last one arrived
        self.open = asyncio.Event()

    async def arrive(self) -> None:
        """A worker is up."""
        self.arrived += 1
        self.latest = time.monotonic()
        if self.arrived >= self.expected:
            self.open.set()

    async def all_here(self) -> None:
        """Returns when all expected workers are here, or `BARRIER_SECONDS` after the last that came.

        Many workers on few cores take minutes to come up: as long as they keep coming, those who wait go on waiting.
        Once open it stays open: whoever comes later has nobody to wait for.
        """
        while not self.open.is_set() and (left := self.latest + BARRIER_SECONDS - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.open.wait(), left)
        self.open.set()


class CellTrainable(tune.Trainable):
    """One slot: trains one cell per trial, and keeps its process, decoded pictures and GPU context in between."""

    def setup(self, config: dict[str, Any], shared: dict[str, Any]) -> None:
        """Once per process."""
        # A slot that reserves no GPU uses none, and need not load torch to see whether there is one.
        self.context: Context = shared["setup"].context(shared["use_gpu"])
        self.work: Work = ray.get(shared["work"][0])
        self.references = shared["real"]  # kept, so that the arrays below stay mapped
        real = {key: ray.get(reference[0]) for key, reference in self.references.items()}
        self.pictures = Pictures(self.context.store, real)
        self.job: Job = shared["job"]
        self.grid: str = shared["grid"]
        self.tracked: bool = shared["tracked"]
        self.barrier: ray.actor.ActorHandle | None = shared["barrier"]  # None: it was passed

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another cell in this process."""
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """The whole cell. An exception is a result too; only a dying process is an error to Tune."""
        if self.barrier is not None:
            self.barrier.arrive.remote()  # not in `setup`: only now Tune knows that this one has started
        cell, takes = self.work.of(self.config["key"], ray.get)
        record: dict = {}
        with at_work_on(cell.key):
            failure = attempt(
                self.context, cell, lambda: record.update(self.job(self.context, self.pictures, cell, takes))
            )
        _free_gpu(self.context.device)
        self._meet_others()
        # As text: Tune keeps the last result of every trial, and flattens what is nested.
        if failure:
            return {"done": True, "failure": json.dumps(asdict(failure))}
        shown = {"numbers": json.dumps(numbers(record))} if self.tracked else {}
        return {"done": True, "headline": json.dumps(headline(record)), **shown}

    def _meet_others(self) -> None:
        """After the first cell, whose record is in the store by now: see `StartBarrier`."""
        if self.barrier is not None:
            with contextlib.suppress(ray.exceptions.RayError):  # it may have been on a machine that is gone
                ray.get(self.barrier.all_here.remote())
            self.barrier = None

    def __repr__(self) -> str:
        # What Ray calls the slot, for good: its cells change. It may ask where nothing could be set up.
        return f"CellTrainable({getattr(self, 'grid', '')})"


def _free_gpu(device: str) -> None:
    """Give the cell's GPU memory back: the process lives on, and others share the device."""
    if device != "cpu":
        import gc

        import torch

        gc.collect()
        torch.cuda.empty_cache()
