"""Training on Ray Tune: one `Tuner.fit` fed by the scheduler. Workers are reused from batch to batch of cells."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import ray
from ray import tune

from augbench.core.gpu import free_gpu
from augbench.planning.plan import Plan
from augbench.runner.mailbox import Work
from augbench.runner.process_title import at_work_on
from augbench.runner.resources import Allotment
from augbench.runner.scheduler import Scheduler
from augbench.runner.trainables import registered
from augbench.runner.tune_dispatch import BatchByBatch, Dispatch, ReadyCells, Workers
from augbench.runner.tune_tracking import Tracking
from augbench.runner.worker import Job, WorkerSetup, attempt
from augbench.stages.context import Context
from augbench.stages.decoded_images import DecodedImages, Geometry
from augbench.stages.train import headline, numbers
from augbench.storage.store import Store

TRIALS_PER_FIT = 5000  # the driver needs some 20 kB per trial (bench/scale.py); a new fit frees them


def run_training(
    plan: Plan,
    store: Store,
    scheduler: Scheduler,
    allotment: Allotment,
    real: Mapping[tuple[str, Geometry], Any],
    features: Mapping[str, Any],
    job: Job,
    tracking: Tracking | None = None,
) -> None:
    """Train every cell that the scheduler hands out, until none is left or the scheduler is stopped.

    ``real`` and ``features`` have references to the decoded images of datasets and to their features, in the object
    store.
    """
    scheduler.workers = allotment.train.workers
    run_id = f"{plan.grid.name}-{time.time_ns()}"
    work, dispatch = ray.put(Work(plan, ray.put)), Dispatch(scheduler, tracking)
    try:
        while scheduler.cells_left:
            while not scheduler.ready_count and scheduler.cells_left:
                time.sleep(0.1)
            shared = {
                "setup": WorkerSetup.of(plan, store),
                "gpu": allotment.train.gpu,
                "work": [work],  # inside lists, Ray does not resolve references
                "real": {key: [reference] for key, reference in real.items()},
                "features": {key: [reference] for key, reference in features.items()},
                "mailbox": dispatch.mailbox,
                "job": job,
                "grid": plan.grid.name,
                "tracked": tracking is not None,
            }
            with dispatch.named(run_id):
                _fit(run_id, allotment, shared)
    finally:
        if tracking:
            tracking.end()


def _fit(run_id: str, allotment: Allotment, shared: dict[str, Any]) -> None:
    trainable = registered(CellTrainable, shared, allotment.train.bundle)
    with tempfile.TemporaryDirectory(prefix="augbench-tune-") as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=ReadyCells(run_id),
                scheduler=BatchByBatch(run_id),
                num_samples=TRIALS_PER_FIT,
                max_concurrent_trials=allotment.train.workers,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name="cells",
                storage_path=scratch,  # Tune's own files are not needed: the store has everything
                verbose=0,
                callbacks=[Workers(run_id)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        tuner.fit()


def _trial_name(trial: tune.experiment.Trial) -> str:
    return trial.config["keys"][0]


class CellTrainable(tune.Trainable):
    """A training slot; each step trains a batch of cells. Process, decoded images and GPU context are reused."""

    def setup(self, config: dict[str, Any], shared: dict[str, Any]) -> None:
        """Set up the process, once."""
        # A slot that reserves no GPU uses none: it need not load torch to look for one.
        self.context: Context = shared["setup"].context(shared["gpu"])
        self.work: Work = ray.get(shared["work"][0])
        self.references = shared["real"], shared["features"]  # references keep the arrays below mapped
        real, self.context.shared_features = (
            {key: ray.get(reference[0]) for key, reference in references.items()} for references in self.references
        )
        self.images = DecodedImages(self.context.store, real)
        self.job: Job = shared["job"]
        self.grid: str = shared["grid"]
        self.tracked: bool = shared["tracked"]
        self.mailbox: ray.actor.ActorHandle = shared["mailbox"]
        self.keys: list[str] | None = config["keys"]  # of the next batch; None: ask the mailbox

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Continue with another trial in this process."""
        self.config, self.keys = new_config, new_config["keys"]
        return True

    def step(self) -> dict[str, Any]:
        """Train a batch. An exception is returned as a result; only a dying process is an error to Tune."""
        keys, self.keys = self.keys or ray.get(self.mailbox.take.remote(self.trial_id)), None
        outcomes: list[dict[str, Any]] = []
        for key in keys:
            outcomes.append(self._train(key))
            if outcomes[-1].get("failure", {}).get("fatal"):  # no other cell could be committed either
                break
        free_gpu(self.context.device)
        # As JSON text: Tune stores the last result of every trial and flattens nested values.
        return {"outcomes": json.dumps(outcomes)}

    def _train(self, key: str) -> dict[str, Any]:
        """Train and commit one cell; return its failure, or what the driver wants to know of its record."""
        began, context, record = time.monotonic(), self.context, {}
        cell, slices = self.work.of(key, ray.get)
        with at_work_on(cell.key):
            failure = attempt(context, cell, lambda: record.update(self.job(context, self.images, cell, slices)))
        if failure:
            return {"failure": asdict(failure)}
        tracked = {"numbers": numbers(record)} if self.tracked else {}
        return {"headline": headline(record), "seconds": time.monotonic() - began, **tracked}

    def __repr__(self) -> str:
        # Ray's permanent name of the slot, so without its cell. Ray may call this although `setup` failed.
        return f"CellTrainable({getattr(self, 'grid', '')})"
