"""A training job that kills its process at some cells. Workers import it, so it is a module of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from pathlib import Path

from sleeping import SleepingJob


class DyingJob(SleepingJob):
    """Sleeps, commits, and adds a line to ``notes/committed``; each death is a line of ``notes/died``."""

    def __init__(self, seconds: float, notes: Path, once: Collection[str], always: Collection[str]) -> None:
        """``once`` are the keys of cells that kill their worker the first time; ``always`` do it every time."""
        super().__init__(seconds, notes)
        self.once, self.always = once, always

    def __call__(self, context, images, cell, slices):
        died = self.notes / "died"
        if cell.key in self.always or (cell.key in self.once and cell.key not in died.read_text().split()):
            _add_line(died, cell.key)
            os.kill(os.getpid(), signal.SIGKILL)
        record = super().__call__(context, images, cell, slices)
        _add_line(self.notes / "committed", cell.key)
        return record


def _add_line(file: Path, line: str) -> None:
    with file.open("a") as lines:
        lines.write(f"{line}\n")
