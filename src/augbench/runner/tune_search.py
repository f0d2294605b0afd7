"""Quality searches on Ray Tune: each arm of each search is a trial."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import ray
from ray import tune

from augbench.core.specs import SearchSpec
from augbench.runner.process_title import at_work_on
from augbench.runner.resources import Allotment, WorkerLane
from augbench.runner.scheduler import Scheduler
from augbench.runner.trainables import registered
from augbench.runner.worker import Failure, WorkerSetup, attempt
from augbench.stages.context import Context
from augbench.stages.search import arm_rows, arms_to_run, decide, run_arm

_schedulers: dict[str, Scheduler] = {}  # by store URL: a run has one search thread at a time


class SearchThread(threading.Thread):
    """A thread that runs searches for a scheduler. An exception that ends it is kept in `error`."""

    def __init__(
        self,
        specs: Sequence[SearchSpec],
        setup: WorkerSetup,
        scheduler: Scheduler,
        allotment: Allotment,
        progress: ray.actor.ActorHandle,
    ) -> None:
        super().__init__(name="searching", daemon=True)
        self.specs = {spec.key: spec for spec in specs}
        self.setup, self.scheduler, self.allotment, self.progress = setup, scheduler, allotment, progress
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run all arms, then decide each search."""
        _schedulers[self.setup.store] = self.scheduler
        try:
            context = self.setup.context(gpu=0)
            failed: dict[str, Failure] = {}
            for lane in self.allotment.adapt:
                failed |= self._run_arms(lane, context)
            for key, spec in self.specs.items():
                if self.scheduler.stopped:
                    return
                # Not the whole process: other threads of the driver log and print too.
                work = partial(decide, context, spec)
                if failure := failed.get(key) or attempt(context, spec, work, whole_process=False):
                    self.scheduler.search_failed(key, failure)
                else:
                    self.scheduler.search_done(key)
        except BaseException as error:  # the generation thread passes it to the main thread
            self.error = error
            self.scheduler.stop()
        finally:
            del _schedulers[self.setup.store]

    def _run_arms(self, lane: WorkerLane, context: Context) -> dict[str, Failure]:
        """Run every arm of a lane that is not in the store as a trial; return the failures by search."""
        arms = [
            {"search": key, "arm": number}
            for key, spec in self.specs.items()
            if lane.serves(spec.adapter)
            for number in range(arms_to_run(context, spec))
            if arm_rows(context.store, spec, number) is None
        ]
        if not arms:
            return {}
        shared = {"setup": self.setup, "specs": self.specs, "progress": self.progress, "gpu": lane.share.gpu}
        trainable = registered(_arm, shared, lane.share.bundle)
        with tempfile.TemporaryDirectory(prefix="augbench-tune-") as scratch:
            tuner = tune.Tuner(
                trainable,
                param_space={"unit": tune.grid_search(arms)},
                tune_config=tune.TuneConfig(
                    max_concurrent_trials=lane.share.workers,
                    trial_name_creator=_trial_name,
                    trial_dirname_creator=_trial_name,
                ),
                run_config=tune.RunConfig(
                    name="search",
                    storage_path=scratch,  # the store has everything
                    verbose=0,
                    stop=_SchedulerStops(self.setup.store),
                    failure_config=tune.FailureConfig(max_failures=2),  # of workers that die
                ),
            )
            return _failures(tuner.fit())


def _failures(results: tune.ResultGrid) -> dict[str, Failure]:
    """Return the first failure of an arm of each failed search."""
    found: dict[str, Failure] = {}
    for result in results:
        if result.error is not None:
            line = f"its worker died ({type(result.error).__name__}; out of memory?)"
            found.setdefault(result.config["unit"]["search"], Failure(line, by_user=False))
        elif failure := (result.metrics or {}).get("failure"):
            found.setdefault(result.config["unit"]["search"], Failure(**failure))
    return found


class _SchedulerStops(tune.Stopper):
    """Ends a search with the run. Finds the scheduler by name: Tune pickles the stopper, and a scheduler has locks."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.name in _schedulers and _schedulers[self.name].stopped


def _trial_name(trial: tune.experiment.Trial) -> str:
    unit = trial.config["unit"]
    return f"{unit['search']}-arm{unit['arm']:03d}"


def _arm(config: dict[str, Any], shared: dict[str, Any]) -> None:
    """Run an arm as a trial. An exception is returned as a result; only a dying process is an error to Tune."""
    unit = config["unit"]
    spec, setup = shared["specs"][unit["search"]], shared["setup"]
    context: Context = setup.context(shared["gpu"] if setup.uses_gpu(spec.adapter) else 0)
    number = unit["arm"]
    with at_work_on(f"{spec.key}, arm {number}"):
        work = partial(run_arm, context, spec, number, shared["progress"].report.remote)
        failure = attempt(context, spec, work, part=number)
    tune.report({"failure": asdict(failure)} if failure else {"done": True})
