"""Assign cells to Tune trials, and report their results to the scheduler.

A trial is one cell, and the worker of a finished trial is reused for the next one. But if Tune is still starting a
worker for that trial, it kills the new worker: a grid of short cells would run on the first worker only, and lost
workers would never be replaced. So while workers are still starting, a trial processes further cells instead of ending.
Its worker gets their keys from `Mailbox`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
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
from augbench.storage.unit_logs import UnitLog

_open: dict[str, Dispatch] = {}  # by run id: Tune pickles its callbacks, and a scheduler has locks


class Dispatch:
    """Hands cells to trials and reports their results to the scheduler and to trackers, if any."""

    def __init__(self, scheduler: Scheduler, tracking: Tracking | None = None, mailbox: Any = None) -> None:
        """``mailbox`` is the actor that passes further cells to workers; None: a new one on this node."""
        self.scheduler, self.tracking = scheduler, tracking
        if mailbox is None:  # on this node: on another one it could be lost with the node
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            mailbox = Mailbox.options(scheduling_strategy=here).remote()
        self.mailbox = mailbox
        self._starting: set[str] = set()  # trials that have no worker yet
        self._at: dict[str, tuple[str, str]] = {}  # trial -> key of its cell, name of the attempt
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def named(self, run_id: str) -> Iterator[None]:
        """Register the dispatch under a run id, by which Tune's callbacks find it."""
        _open[run_id] = self
        try:
            yield
        finally:
            del _open[run_id]

    def suggest(self, trial_id: str) -> str | None:
        """Return the key of the cell of a new trial; None if no cell is ready."""
        unit = self.scheduler.next_cell()
        if unit is None:
            return None
        self._starting.add(trial_id)
        return unit[0].key

    def started(self, trial: tune.experiment.Trial) -> None:
        """Note that a trial has a worker."""
        self._starting.discard(trial.trial_id)
        self._begin(trial.trial_id, trial.config["key"])

    def ended(self, trial_id: str, outcome: dict[str, Any]) -> None:
        """Report the result or failure of a trial's cell."""
        key, attempt = self._at.pop(trial_id)
        if self.tracking is not None:
            self.tracking.ended(attempt, outcome.get("numbers"))
        if "failure" in outcome:
            self.scheduler.cell_failed(key, Failure(**json.loads(outcome["failure"])))
        else:
            self.scheduler.cell_done(key, json.loads(outcome["headline"]))

    def goes_on(self, trial_id: str) -> bool:
        """Return whether a trial continues with another cell; if so, send its key to the worker."""
        unit = self.scheduler.next_cell() if self._starting else None
        if unit is None:
            return False
        key = unit[0].key
        self._begin(trial_id, key)
        self.mailbox.give.remote(trial_id, key)
        return True

    def lost(self, trial: tune.experiment.Trial) -> None:
        """Note that a trial's worker died or could not be set up."""
        self._starting.discard(trial.trial_id)
        key, attempt = self._at.pop(trial.trial_id, (trial.config["key"], None))
        _note_loss(self.scheduler, key, trial)
        self.scheduler.cell_lost(key)
        if self.tracking is not None and attempt:
            self.tracking.ended(attempt, None)

    def _begin(self, trial_id: str, key: str) -> None:
        attempt = f"{trial_id}-{next(self._numbers)}"
        self._at[trial_id] = key, attempt
        if self.tracking is not None:
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
    """An actor that passes further cells to the workers of trials."""

    def __init__(self) -> None:
        self._cells: dict[str, asyncio.Future[str]] = defaultdict(lambda: asyncio.get_running_loop().create_future())

    async def give(self, trial_id: str, key: str) -> None:
        """Set the key of the next cell of a trial."""
        self._cells[trial_id].set_result(key)

    async def take(self, trial_id: str) -> str:
        """Wait for the key of the next cell of a trial."""
        try:
            return await self._cells[trial_id]
        finally:
            del self._cells[trial_id]


class ReadyCells(Searcher):
    """A Tune searcher that suggests ready cells."""

    def __init__(self, run_id: str) -> None:
        super().__init__(metric="done", mode="max")
        self.run_id = run_id

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the key of the next cell; None: none is ready yet; FINISHED: none is left."""
        dispatch = _open[self.run_id]
        if key := dispatch.suggest(trial_id):
            return {"key": key}
        return None if dispatch.scheduler.cells_left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: `CellByCell` reports results."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a run resumes by planning again."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, see `save`."""


class CellByCell(FIFOScheduler):
    """A Tune scheduler that reports the result of each cell and decides whether the trial ends."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id

    def on_trial_result(self, tune_controller: Any, trial: tune.experiment.Trial, result: dict[str, Any]) -> str:
        """Report a cell's result; return STOP if the worker is free for the next trial."""
        dispatch = _open[self.run_id]
        dispatch.ended(trial.trial_id, result)
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
