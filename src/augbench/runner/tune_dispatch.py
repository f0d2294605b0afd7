"""Assign cells to Tune trials, and report their results to the scheduler.

A trial is one batch of cells, and the worker of a finished trial is reused for the next one. But if Tune is still
starting a worker for that trial, it kills the new worker: a grid of short cells would run on the first worker only, and
lost workers would never be replaced. So while workers are still starting, a trial processes further batches instead of
ending. Its worker gets their keys from `Mailbox`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from augbench.runner.scheduler import Scheduler
from augbench.runner.tune_tracking import Tracking
from augbench.runner.worker import Failure
from augbench.stages.train import numbers
from augbench.storage.unit_logs import UnitLog

_open: dict[str, Dispatch] = {}  # by run id: Tune pickles its callbacks, and a scheduler has locks


class Dispatch:
    """Hands cells to trials and reports their results to the scheduler and to trackers, if any."""

    def __init__(self, scheduler: Scheduler, tracking: Tracking | None = None, mailbox: Any = None) -> None:
        """``mailbox`` is the actor that passes further batches to workers; None: a new one on this node."""
        self.scheduler, self.tracking = scheduler, tracking
        if mailbox is None:  # on this node: on another one it could be lost with the node
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            mailbox = Mailbox.options(scheduling_strategy=here).remote()
        self.mailbox = mailbox
        self._starting: set[str] = set()  # trials that have no worker yet
        self._at: dict[str, dict[str, str]] = {}  # trial -> keys of its batch, each with the name of the attempt
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def named(self, run_id: str) -> Iterator[None]:
        """Register the dispatch under a run id, by which Tune's callbacks find it."""
        _open[run_id] = self
        try:
            yield
        finally:
            del _open[run_id]

    def suggest(self, trial_id: str) -> list[str]:
        """Return the keys of the cells of a new trial; none if no cell is ready."""
        keys = self._next_keys()
        if keys:
            self._starting.add(trial_id)
        return keys

    def started(self, trial: tune.experiment.Trial) -> None:
        """Note that a trial has a worker."""
        self._starting.discard(trial.trial_id)
        self._begin(trial.trial_id, trial.config["keys"])

    def ended(self, trial_id: str, outcomes: Sequence[dict[str, Any]]) -> None:
        """Report the results and failures of a trial's cells: fewer than cells if the store is out of reach."""
        for (key, attempt), outcome in zip(self._at.pop(trial_id).items(), outcomes, strict=False):
            if self.tracking is not None:
                self.tracking.ended(attempt, outcome.get("numbers"))
            if "failure" in outcome:
                self.scheduler.cell_failed(key, Failure(**outcome["failure"]))
            else:
                self.scheduler.cell_done(key, outcome["headline"], outcome["seconds"])

    def goes_on(self, trial_id: str) -> bool:
        """Return whether a trial continues with another batch; if so, send its keys to the worker."""
        keys = self._next_keys() if self._starting else []
        if keys:
            self._begin(trial_id, keys)
            self.mailbox.give.remote(trial_id, keys)
        return bool(keys)

    def lost(self, trial: tune.experiment.Trial) -> None:
        """Note that a trial's worker died or could not be set up."""
        self._starting.discard(trial.trial_id)
        attempts = self._at.pop(trial.trial_id, {})
        keys = list(attempts) or trial.config["keys"]
        left = self.scheduler.cells_lost(keys)
        _note_loss(self.scheduler, left[0] if left else keys[-1], trial)
        if self.tracking is not None:
            for key, attempt in attempts.items():
                record = None if key in left else self.scheduler.store.read_json("cells", key)
                self.tracking.ended(attempt, record and numbers(record))

    def _next_keys(self) -> list[str]:
        return [cell.key for cell, _ in self.scheduler.next_cells()]

    def _begin(self, trial_id: str, keys: Sequence[str]) -> None:
        self._at[trial_id] = {key: f"{trial_id}-{next(self._numbers)}" for key in keys}
        if self.tracking is not None:
            for key, attempt in self._at[trial_id].items():
                self.tracking.started(attempt, key)


def _note_loss(scheduler: Scheduler, key: str, trial: tune.experiment.Trial) -> None:
    """Write Ray's error to the cell's log. On the console it would be a traceback for each harmless loss."""
    # Not by `trial.get_error()`: it reads a copy of this file that Tune makes only at intervals.
    error = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "Ray gives no reason"
    log = UnitLog(scheduler.store.files, scheduler.store.log_name(key))
    log.say(f"=== the worker of this cell was lost:\n{error}")
    log.close()


@ray.remote(num_cpus=0)
class Mailbox:
    """An actor that passes further batches of cells to the workers of trials."""

    def __init__(self) -> None:
        self._batches: dict[str, asyncio.Future] = defaultdict(lambda: asyncio.get_running_loop().create_future())

    async def give(self, trial_id: str, keys: list[str]) -> None:
        """Set the keys of the next batch of a trial."""
        self._batches[trial_id].set_result(keys)

    async def take(self, trial_id: str) -> list[str]:
        """Wait for the keys of the next batch of a trial."""
        try:
            return await self._batches[trial_id]
        finally:
            del self._batches[trial_id]


class ReadyCells(Searcher):
    """A Tune searcher that suggests ready cells."""

    def __init__(self, run_id: str) -> None:
        super().__init__(metric="done", mode="max")
        self.run_id = run_id

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the keys of the next batch; None: no cell is ready yet; FINISHED: none is left."""
        dispatch = _open[self.run_id]
        if keys := dispatch.suggest(trial_id):
            return {"keys": keys}
        return None if dispatch.scheduler.cells_left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: `BatchByBatch` reports results."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a run resumes by planning again."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, see `save`."""


class BatchByBatch(FIFOScheduler):
    """A Tune scheduler that reports the results of each batch and decides whether the trial ends."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id

    def on_trial_result(self, tune_controller: Any, trial: tune.experiment.Trial, result: dict[str, Any]) -> str:
        """Report the results of a batch; return STOP if the worker is free for the next trial."""
        dispatch = _open[self.run_id]
        dispatch.ended(trial.trial_id, json.loads(result["outcomes"]))
        return TrialScheduler.CONTINUE if dispatch.goes_on(trial.trial_id) else TrialScheduler.STOP


class Workers(Callback):
    """A Tune callback that reports started trials and lost workers."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def on_trial_start(self, iteration: int, trials: list, trial: tune.experiment.Trial, **info: Any) -> None:
        """Report that a new or reused worker has the trial."""
        _open[self.run_id].started(trial)

    def on_trial_error(self, iteration: int, trials: list, trial: tune.experiment.Trial, **info: Any) -> None:
        """Report a worker that died or could not be set up; exceptions in a cell are results instead."""
        _open[self.run_id].lost(trial)
