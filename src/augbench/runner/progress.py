"""Progress of a run on the console: phase, done/total, rate, time left, the cell that finished last."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from augbench.runner.scheduler import Scheduler

PLAIN_EVERY = 10.0  # seconds between lines if the output is not a terminal


class RunProgress:
    """A context manager that reports the progress of a scheduler: live bars on a terminal, else a line at intervals."""

    def __init__(self, scheduler: Scheduler, console: Console) -> None:
        self.scheduler = scheduler
        self.console = console
        self.done_before = scheduler.done
        self.started = time.monotonic()
        self._printed = 0.0
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._search = self._add_stage("search", scheduler.searches_total)
        self._adapt = self._add_stage("adapt", scheduler.adapters_total)
        self._generate = self._add_stage("generate", scheduler.chunks_total)
        self._features = self._add_stage("features", scheduler.features_total, "chunks")
        self._fidelity = self._add_stage("fidelity", scheduler.fidelity_total, "pools")
        self._train = self._bars.add_task("train", total=scheduler.total, completed=scheduler.done, note="")

    def _add_stage(self, name: str, total: int, note: str = "") -> TaskID:
        return self._bars.add_task(name, total=total, note=note, visible=total > 0)

    def __enter__(self) -> RunProgress:
        self.scheduler.on_change = self.update
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.update(final=True)
        self._bars.stop()

    def update(self, final: bool = False) -> None:
        """Show the current state of the scheduler."""
        scheduler = self.scheduler
        adapted = scheduler.adapters_total - len(scheduler.adapters)
        searched = scheduler.searches_total - len(scheduler.searches)
        self._bars.update(self._search, completed=searched)
        self._bars.update(self._adapt, completed=adapted, note=self._learning())
        self._bars.update(self._fidelity, completed=scheduler.fidelity_total - len(scheduler.fidelity))
        self._bars.update(self._generate, completed=scheduler.chunks_done, note="chunks")
        self._bars.update(self._features, completed=scheduler.features_done)
        self._bars.update(self._train, completed=scheduler.done, note=self._note())
        due = time.monotonic() - self._printed > PLAIN_EVERY
        if not self.console.is_terminal and (due or final):
            self._printed = time.monotonic()
            parts = [f"search {searched}/{scheduler.searches_total}"] if scheduler.searches_total else []
            if scheduler.adapters_total:
                parts.append(f"adapt {adapted}/{scheduler.adapters_total} {self._learning()}".rstrip())
            if scheduler.chunks_total:
                parts.append(f"generate {scheduler.chunks_done}/{scheduler.chunks_total} chunks")
            if scheduler.features_total:
                parts.append(f"features {scheduler.features_done}/{scheduler.features_total} chunks")
            line = ", ".join([*parts, f"train {scheduler.done}/{scheduler.total} {self._note()}"])
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _learning(self) -> str:
        return " · ".join(
            f"{key.rpartition('-')[0]} step {step}/{steps} loss {loss:.3f}"
            for key, (step, steps, loss) in list(self.scheduler.learning.items())
        )

    def _note(self) -> str:
        parts = [f"{len(self.scheduler.failures)} failed"] if self.scheduler.failures else []
        done = self.scheduler.done - self.done_before
        if done:
            rate = done / (time.monotonic() - self.started)
            blocked = sum(self.scheduler.blocked.values())
            left = max(self.scheduler.total - self.scheduler.done - blocked, 0) / rate
            parts.append(f"{rate:.2f} cells/s" if rate >= 0.1 else f"{1 / rate:.0f} s/cell")
            parts.append(f"{_clock(left)} left")
        if self.scheduler.last:
            key, headline = self.scheduler.last
            parts.append(f"{key.rpartition('-')[0]} " + " ".join(f"{k.upper()} {v:.3f}" for k, v in headline.items()))
        return " · ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
