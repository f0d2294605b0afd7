"""Report trainings to experiment trackers through Ray Tune's callbacks: one run per cell, named by its key.

To Tune a trial is only keys and a line of JSON, so that the driver stays small over many cells. The callbacks get a
stand-in for the trial: the cell as parameters, and its record as numbers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray.tune.logger import LoggerCallback, TBXLoggerCallback

from augbench.core.errors import UserError
from augbench.core.specs import Cell
from augbench.core.temporary import default_variables, log_levels
from augbench.planning.outline import shots_and_draw
from augbench.planning.plan import Plan
from augbench.runner.trackers import Tracker

PROJECT = "augbench"  # of W&B
UPLOAD_SECONDS = 120  # W&B's time limit for uploads at the end of the run
FOLDER = "runs/tensorboard"  # of TensorBoard; has a folder per grid
BRIEF = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Defaults: a run waits for each report, and MLflow would retry for minutes."""
HELP = {
    "tensorboard": "give a folder that can be written, --track tensorboard=DIR",
    "mlflow": "check its URI, --track mlflow=URI or MLFLOW_TRACKING_URI",
    "wandb": "run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline",
}


class Run:
    """A training with the attributes of a Tune trial that the callbacks read."""

    def __init__(self, trial_id: str, cell: Cell, grid: str, folder: Path) -> None:
        self.trial_id = trial_id  # another for each attempt
        self.name = cell.key
        self.config = self.evaluated_params = params_of(cell, grid)
        self.experiment_dir_name = grid
        self.local_path = str(folder)

    def init_local_path(self) -> None:
        """Create the folder for the callback's files."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.name


def params_of(cell: Cell, grid: str) -> dict[str, Any]:
    """Return a cell as flat values, without those that are None: the fold of an official split, a probe's epochs."""
    regime = shots_and_draw(cell.shots, cell.draw)
    params = {
        "key": cell.key,
        "grid": grid,
        "dataset": cell.data.alias,
        "fold": cell.data.fold,
        "augmenter": cell.augmenter.alias,
        "shots": str(regime["shots"]),
        "draw": regime["draw"],
        "n_aug": cell.n_aug,
        "seed": cell.seed,
        "adapter_seed": cell.adapter_seed or None,  # not of the first adapter, the only one in most grids
        "protocol": cell.protocol.name,
        "kind": cell.protocol.kind,
        "backbone": cell.protocol.backbone,
        "weights": cell.protocol.weights,
        "epochs": cell.protocol.epochs,
    }
    return {name: value for name, value in params.items() if value is not None}


class Tracking:
    """The trackers of a run. A tracker that fails is not used any more; no training fails for it."""

    def __init__(self, trackers: Sequence[Tracker], plan: Plan, report: Callable[[str], None]) -> None:
        """Set up each tracker, so that wrong addresses and missing rights are found before any work starts.

        Raises:
            UserError: a tracker cannot be used.
        """
        self._plan, self._report = plan, report
        self._loggers: dict[Tracker, LoggerCallback] = {}
        self._runs: dict[str, dict[Tracker, Run]] = {}  # running ones, by attempt
        self._overrides = ExitStack()
        # Their logs would disturb the progress bars.
        self._overrides.enter_context(log_levels(logging.ERROR, "ray.air.integrations", "mlflow"))
        self._overrides.enter_context(default_variables(BRIEF))
        for tracker in trackers:
            try:
                self._loggers[tracker] = logger = _logger(tracker, plan.grid.name)
                logger.setup()
            except Exception as error:  # three libraries raise many types
                self._overrides.close()
                raise UserError(f"--track {tracker.tool}: {_line(error)}: {HELP[tracker.tool]}") from error

    def started(self, attempt: str, key: str) -> None:
        """Report the start of a training; ``attempt`` is a unique name."""
        cell, grid = self._plan.by_key[key], self._plan.grid.name
        runs = self._runs[attempt] = {}
        for tracker in self._loggers:
            folder = _folder(tracker, grid)
            own = folder / cell.key if tracker.tool == "tensorboard" else folder  # TensorBoard shows folders as runs
            runs[tracker] = Run(attempt, cell, grid, own)
        self._notify(attempt, lambda logger, run: logger.log_trial_start(run))

    def ended(self, attempt: str, numbers: Mapping[str, float] | None) -> None:
        """Report the end of a training: `stages.train.numbers` of its record; None if it failed."""
        if numbers is not None:
            result = {**numbers, "training_iteration": 1}
            self._notify(attempt, lambda logger, run: logger.log_trial_result(1, run, result))
        self._end(attempt, failed=numbers is None)

    def end(self) -> None:
        """End the run: report interrupted trainings as failed, and wait for pending uploads."""
        for attempt in list(self._runs):
            self._end(attempt, failed=True)
        for tracker, logger in list(self._loggers.items()):
            self._attempt(tracker, lambda logger=logger: logger.on_experiment_end(trials=[]))
        self._overrides.close()

    def _end(self, attempt: str, failed: bool) -> None:
        self._notify(attempt, lambda logger, run: logger.log_trial_end(run, failed=failed))
        self._runs.pop(attempt, None)

    def _notify(self, attempt: str, call: Callable[[LoggerCallback, Any], None]) -> None:
        for tracker, run in self._runs.get(attempt, {}).items():
            if logger := self._loggers.get(tracker):
                self._attempt(tracker, lambda logger=logger, run=run: call(logger, run))

    def _attempt(self, tracker: Tracker, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # if it were raised, Tune would end the run
            del self._loggers[tracker]
            self._report(f"--track {tracker.tool}: {_line(error)}. Nothing more is reported there; the run goes on.")


def _logger(tracker: Tracker, grid: str) -> LoggerCallback:
    """Create Ray's callback of a tool. Its module imports the tool, so it is imported here."""
    if tracker.tool == "tensorboard":
        _folder(tracker, grid).mkdir(parents=True, exist_ok=True)  # fail now rather than at the first training
        return TBXLoggerCallback()
    if tracker.tool == "mlflow":
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        return MLflowLoggerCallback(tracking_uri=tracker.where, experiment_name=grid)
    from ray.air.integrations.wandb import WandbLoggerCallback

    # A separate process per training talks to W&B; its environment may differ.
    mode = {"mode": os.environ["WANDB_MODE"]} if os.environ.get("WANDB_MODE") else {}
    project = tracker.where or os.environ.get("WANDB_PROJECT") or PROJECT
    return WandbLoggerCallback(project=project, group=grid, upload_timeout=UPLOAD_SECONDS, **mode)


def _folder(tracker: Tracker, grid: str) -> Path:
    """Return the folder for the callback's files on this machine."""
    if tracker.tool == "tensorboard":
        return Path(tracker.where or f"{FOLDER}/{grid}").absolute()
    return Path(os.environ.get("WANDB_DIR") or ".").absolute()


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()).partition(". ")[0]
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
