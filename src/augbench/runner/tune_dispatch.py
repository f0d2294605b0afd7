"""Which slot is at which cell: what Ray Tune asks the driver while it trains, and what it tells it.

To Tune a trial is a cell, and a trial that ends leaves its worker to the next. But if Tune is still starting a worker
for that one, it kills it: a grid of short cells would run on the first worker alone, and no lost worker would ever be
replaced. So while any worker comes up, a trial does not end with its cell but goes on with another, of which `Mailbox`
tells its worker.
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

_open: dict[str, Dispatch] = {}  # by run id: Tune pickles what it calls back, and a board has locks


class Dispatch:
    """Hands the board's cells to trials, and tells the board, and trackers where there are any, what became of them."""

    def __init__(self, board: Scheduler, tracking: Tracking | None = None, handout: Any = None) -> None:
        """
        Args:
            board: what may start.
            tracking: what hears of each training; None: nobody does.
            handout: the actor through which workers hear of further cells; None: a new one, on this machine.
        """
        self.board, self.tracking = board, tracking
        self.handout = _handout() if handout is None else handout
        self._coming: set[str] = set()  # trials that have no worker yet
        self._at: dict[str, tuple[str, str]] = {}  # trial -> key of its cell, name of the attempt
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def named(self, run_id: str) -> Iterator[None]:
        """What Tune calls back finds it by that name within."""
        _open[run_id] = self
        try:
            yield
        finally:
            del _open[run_id]

    def suggest(self, trial_id: str) -> str | None:
        """The key of a new trial's cell; None: nothing is ready."""
        unit = self.board.next_cell()
        if unit is None:
            return None
        self._coming.add(trial_id)
        return unit[0].key

    def started(self, trial: tune.experiment.Trial) -> None:
        """A trial has a worker."""
        self._coming.discard(trial.trial_id)
        self._begin(trial.trial_id, trial.config["key"])

    def ended(self, trial_id: str, outcome: dict[str, Any]) -> None:
        """A trial's cell is over, well or not."""
        key, attempt = self._at.pop(trial_id)
        if self.tracking is not None:
            self.tracking.ended(attempt, outcome.get("numbers"))
        if "failure" in outcome:
            self.board.cell_failed(key, Failure(**json.loads(outcome["failure"])))
        else:
            self.board.cell_done(key, json.loads(outcome["headline"]))

    def goes_on(self, trial_id: str) -> bool:
        """Whether a trial whose cell is over goes on with another; if so its worker is told which."""
        unit = self.board.next_cell() if self._coming else None
        if unit is None:
            return False
        key = unit[0].key
        self._begin(trial_id, key)
        self.handout.give.remote(trial_id, key)
        return True

    def lost(self, trial: tune.experiment.Trial) -> None:
        """A trial's worker died, or could not be set up."""
        self._coming.discard(trial.trial_id)
        key, attempt = self._at.pop(trial.trial_id, (trial.config["key"], None))
        _note_loss(self.board, key, trial)
        self.board.cell_lost(key)
        if self.tracking is not None and attempt:
            self.tracking.ended(attempt, None)

    def _begin(self, trial_id: str, key: str) -> None:
        attempt = f"{trial_id}-{next(self._numbers)}"
        self._at[trial_id] = key, attempt
        if self.tracking is not None:
            self.tracking.started(attempt, key)


def _handout() -> Any:
    """An actor on this machine: with another one it could be lost."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Mailbox.options(scheduling_strategy=here).remote()


def _note_loss(board: Scheduler, key: str, trial: tune.experiment.Trial) -> None:
    """In the cell's log: what Ray knows of it. On screen it would be a traceback for each death that does no harm."""
    # Not by `trial.get_error()`: it reads a copy of this file, which Tune makes now and then.
    told = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "Ray does not say why"
    log = UnitLog(board.store.files, board.store.log_name(key))
    log.say(f"=== the worker of this cell was lost:\n{told}")
    log.close()


@ray.remote(num_cpus=0)
class Mailbox:
    """Tells the worker of a trial which cell to go on with."""

    def __init__(self) -> None:
        self._cells: dict[str, asyncio.Future[str]] = defaultdict(lambda: asyncio.get_running_loop().create_future())

    async def give(self, trial_id: str, key: str) -> None:
        """The next cell of that trial."""
        self._cells[trial_id].set_result(key)

    async def take(self, trial_id: str) -> str:
        """Returns when there is one."""
        try:
            return await self._cells[trial_id]
        finally:
            del self._cells[trial_id]


class ReadyCells(Searcher):
    """Hands a cell to Tune the moment its pools are committed; None while nothing is ready."""

    def __init__(self, run_id: str) -> None:
        super().__init__(metric="done", mode="max")
        self.run_id = run_id

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next cell's key, None = ask again, FINISHED = nothing is left."""
        dispatch = _open[self.run_id]
        if key := dispatch.suggest(trial_id):
            return {"key": key}
        return None if dispatch.board.cells_left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn from: what became of a cell is told by `CellByCell`."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: resuming is planning again."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class CellByCell(FIFOScheduler):
    """Each result is that of a whole cell: tells it, and decides whether the trial ends."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id

    def on_trial_result(self, tune_controller: Any, trial: tune.experiment.Trial, result: dict[str, Any]) -> str:
        """STOP: the worker is free for the next trial."""
        dispatch = _open[self.run_id]
        dispatch.ended(trial.trial_id, result)
        return TrialScheduler.CONTINUE if dispatch.goes_on(trial.trial_id) else TrialScheduler.STOP


class Workers(Callback):
    """Tells of each worker that took up a trial, and of those that were lost."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def on_trial_start(self, iteration: int, trials: list, trial: tune.experiment.Trial, **info: Any) -> None:
        """A worker, new or free again, has the trial."""
        _open[self.run_id].started(trial)

    def on_trial_error(self, iteration: int, trials: list, trial: tune.experiment.Trial, **info: Any) -> None:
        """A worker died, or could not be set up: an exception in a cell comes back as a result."""
        _open[self.run_id].lost(trial)
