"""Training on Ray Tune: one `Tuner.fit` fed by the board, workers that live on from cell to cell."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import ray
from ray import tune

from augbench.planning.plan import Plan
from augbench.runner.mailbox import Work
from augbench.runner.process_title import at_work_on
from augbench.runner.resources import Allotment
from augbench.runner.scheduler import Scheduler
from augbench.runner.trainables import registered
from augbench.runner.tune_dispatch import CellByCell, Dispatch, ReadyCells, Workers
from augbench.runner.tune_tracking import Tracking
from augbench.runner.worker import Job, WorkerSetup, attempt
from augbench.stages.context import Context
from augbench.stages.decoded_images import DecodedImages, Geometry
from augbench.stages.train import headline, numbers
from augbench.storage.store import Store

CELLS_PER_FIT = 5000  # the driver grows by some 20 kB per trial (bench/scale.py); a new fit gives that back


def run_training(
    plan: Plan,
    store: Store,
    board: Scheduler,
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
        job: what a slot does with a cell; `stages.train.train_cell` but in benchmarks.
        tracking: what hears of each training; None: nobody does.
    """
    run_id = f"{plan.grid.name}-{time.time_ns()}"
    work, dispatch = ray.put(Work(plan, ray.put)), Dispatch(board, tracking)
    try:
        while board.cells_left:
            _wait_until(board, lambda: board.ready_count or not board.cells_left)
            shared = {
                "setup": WorkerSetup.of(plan, store),
                "use_gpu": allotment.train.gpu > 0,
                "work": [work],  # in lists, references stay references until the worker asks for them
                "real": {key: [reference] for key, reference in real.items()},
                "handout": dispatch.handout,
                "job": job,
                "grid": plan.grid.name,
                "tracked": tracking is not None,
            }
            with dispatch.named(run_id):
                _fit(run_id, allotment, shared)
    finally:
        if tracking:
            tracking.end()


def _wait_until(board: Scheduler, condition: Callable[[], object]) -> None:
    while not condition() and not board.stopped:
        time.sleep(0.1)


def _fit(run_id: str, allotment: Allotment, shared: dict[str, Any]) -> None:
    trainable = registered(CellTrainable, shared, allotment.train.bundle)
    with tempfile.TemporaryDirectory(prefix="augbench-tune-") as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=ReadyCells(run_id),
                scheduler=CellByCell(run_id),
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
                callbacks=[Workers(run_id)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        tuner.fit()


def _trial_name(trial: tune.experiment.Trial) -> str:
    return trial.config["key"]


class CellTrainable(tune.Trainable):
    """One slot: a step is a cell. It keeps its process, decoded pictures and GPU context from cell to cell."""

    def setup(self, config: dict[str, Any], shared: dict[str, Any]) -> None:
        """Once per process."""
        # A slot that reserves no GPU uses none, and need not load torch to see whether there is one.
        self.context: Context = shared["setup"].context(shared["use_gpu"])
        self.work: Work = ray.get(shared["work"][0])
        self.references = shared["real"]  # kept, so that the arrays below stay mapped
        real = {key: ray.get(reference[0]) for key, reference in self.references.items()}
        self.pictures = DecodedImages(self.context.store, real)
        self.job: Job = shared["job"]
        self.grid: str = shared["grid"]
        self.tracked: bool = shared["tracked"]
        self.handout: ray.actor.ActorHandle = shared["handout"]
        self.key: str | None = config["key"]  # of the next cell; None: the handout knows it

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another trial in this process."""
        self.config, self.key = new_config, new_config["key"]
        return True

    def step(self) -> dict[str, Any]:
        """The whole cell. An exception is a result too; only a dying process is an error to Tune."""
        key, self.key = self.key or ray.get(self.handout.take.remote(self.trial_id)), None
        cell, takes = self.work.of(key, ray.get)
        record: dict = {}
        with at_work_on(cell.key):
            failure = attempt(
                self.context, cell, lambda: record.update(self.job(self.context, self.pictures, cell, takes))
            )
        _free_gpu(self.context.device)
        # As text: Tune keeps the last result of every trial, and flattens what is nested.
        if failure:
            return {"failure": json.dumps(asdict(failure))}
        shown = {"numbers": json.dumps(numbers(record))} if self.tracked else {}
        return {"headline": json.dumps(headline(record)), **shown}

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
