"""`--track`: the experiment trackers of a run, checked before anything starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from augbench.core.errors import UserError, did_you_mean

LIBRARIES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""Tool -> the module that Ray's callback for it imports; an extra of augbench has the tool's name."""


@dataclass(frozen=True)
class Tracker:
    """An experiment tracker and its destination."""

    tool: str  # of `LIBRARIES`
    where: str | None = None  # tensorboard: a folder; mlflow: a URI; wandb: a project. None: see `runner.tune_tracking`

    @classmethod
    def of(cls, text: str) -> Tracker:
        """Parse ``tool`` or ``tool=where``. Raises UserError if there is no such tool, or nothing follows the ``=``."""
        tool, given, where = text.partition("=")
        if tool not in LIBRARIES:
            raise UserError(f"--track '{tool}' is not known{did_you_mean(tool, LIBRARIES)}")
        if given and not where.strip():
            raise UserError(f"--track '{text}' has no destination: leave the = out, or give one")
        return cls(tool, where.strip() or None)


def trackers_of(texts: Sequence[str], executor: str) -> tuple[Tracker, ...]:
    """Parse and check the trackers of a run.

    Raises:
        UserError: a tracker is unknown or given twice, its library is missing, or the run does not use Ray Tune,
            whose callbacks report to it.
    """
    trackers = tuple(map(Tracker.of, texts))
    for tool in {tracker.tool for tracker in trackers}:
        if sum(tracker.tool == tool for tracker in trackers) > 1:
            raise UserError(f"--track {tool} is given twice: give it once")
        if importlib.util.find_spec(LIBRARIES[tool]) is None:
            raise UserError(f"--track {tool} needs the package {LIBRARIES[tool]}: pip install 'augbench[{tool}]'")
    if trackers and executor != "ray":
        raise UserError(f"--track goes through Ray Tune: leave out --executor {executor}, or --track")
    return trackers
