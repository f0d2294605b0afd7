"""Progress of a run on the console: phase, done/total, rate, time left, the cell that finished last."""

from __future__ import annotations

import time
from math import inf

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from augbench.runner.scheduler import Scheduler

PLAIN_EVERY = 10.0  # seconds between lines if the output is not a terminal
LOOK_EVERY = 0.1  # seconds: thousands of cells may end in each, and nobody reads faster


class RunProgress:
    """A context manager that reports the progress of a scheduler: live bars on a terminal, else a line at intervals."""

    def __init__(self, scheduler: Scheduler, console: Console) -> None:
        self.scheduler = scheduler
        self.console = console
        self._printed = self._looked = -inf
        self._paces = {"generate": _Pace(scheduler.chunks_done), "features": _Pace(scheduler.features_done)}
        self._paces["train"] = _Pace(scheduler.done)
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
        """Show the current state of the scheduler, unless it was shown a moment ago."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY and not final:
            return
        self._looked = now
        scheduler = self.scheduler
        adapted = scheduler.adapters_total - len(scheduler.adapters)
        searched = scheduler.searches_total - len(scheduler.searches)
        self._bars.update(self._search, completed=searched)
        self._bars.update(self._adapt, completed=adapted, note=self._learning())
        self._bars.update(self._fidelity, completed=scheduler.fidelity_total - len(scheduler.fidelity))
        self._bars.update(self._generate, completed=scheduler.chunks_done, note="chunks")
        self._bars.update(self._features, completed=scheduler.features_done)
        note = self._note()
        self._bars.update(self._train, completed=scheduler.done, note=note)
        if not self.console.is_terminal and (final or now - self._printed > PLAIN_EVERY):
            self._printed = now
            parts = [f"search {searched}/{scheduler.searches_total}"] if scheduler.searches_total else []
            if scheduler.adapters_total:
                parts.append(f"adapt {adapted}/{scheduler.adapters_total} {self._learning()}".rstrip())
            if scheduler.chunks_total:
                parts.append(f"generate {scheduler.chunks_done}/{scheduler.chunks_total} chunks")
            if scheduler.features_total:
                parts.append(f"features {scheduler.features_done}/{scheduler.features_total} chunks")
            line = ", ".join([*parts, f"train {scheduler.done}/{scheduler.total} {note}"])
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _learning(self) -> str:
        return " · ".join(
            f"{key.rpartition('-')[0]} step {step}/{steps} loss {loss:.3f}"
            for key, (step, steps, loss) in list(self.scheduler.learning.items())
        )

    def _note(self) -> str:
        parts = [f"{len(self.scheduler.failures)} failed"] if self.scheduler.failures else []
        scheduler = self.scheduler
        chunks, features = scheduler.chunks_open
        blocked = sum(scheduler.blocked.values())
        cells = max(scheduler.total - scheduler.done - blocked, 0)
        stages = {
            "generate": (scheduler.chunks_done, chunks),
            "features": (scheduler.features_done, features),
            "train": (scheduler.done, cells),
        }
        rates = {stage: self._paces[stage].rate(done, done + count) for stage, (done, count) in stages.items()}
        if rate := rates["train"]:
            parts.append(f"{rate:.2f} cells/s" if rate >= 0.1 else f"{1 / rate:.0f} s/cell")
        unknown = scheduler.searches or scheduler.adapters or scheduler.fidelity
        left = {stage: count / rates[stage] if rates[stage] else None for stage, (_, count) in stages.items() if count}
        if left and not unknown and None not in left.values():
            parts.append(f"{_clock(max(left.values()))} left")  # stages run side by side
        if self.scheduler.last:
            key, headline = scheduler.last
            parts.append(f"{key.rpartition('-')[0]} " + " ".join(f"{k.upper()} {v:.3f}" for k, v in headline.items()))
        return " · ".join(parts)


class _Pace:
    """How fast a stage goes, from the first item on that it finishes: before that it may have waited for others."""

    FEWEST = 0.1  # share of its items that tell: the first few come in bursts

    def __init__(self, done: int) -> None:
        self._before = done
        self._first: tuple[int, float] | None = None

    def rate(self, done: int, total: int) -> float | None:
        """Return items per second; None before the second of this run, and before `FEWEST` of its items."""
        now = time.monotonic()
        if self._first is None and done > self._before:
            self._first = done, now
        if self._first is None:
            return None
        number, seconds = done - self._first[0], now - self._first[1]
        enough = number >= max(1, self.FEWEST * (total - self._before))
        return number / seconds if enough and seconds else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
