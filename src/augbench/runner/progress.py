"""What a person sees while a grid runs: phase, done/total, rate, time left, the cell that finished last."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from augbench.runner.scheduler import Scheduler

PLAIN_EVERY = 10.0  # seconds between lines where the output is no terminal


class RunProgress:
    """Follows a board; a context manager. On a terminal live bars, elsewhere a line now and then."""

    def __init__(self, board: Scheduler, console: Console) -> None:
        self.board = board
        self.console = console
        self.done_before = board.done
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
        self._search = self._bars.add_task(
            "search", total=board.searches_total, note="", visible=board.searches_total > 0
        )
        self._adapt = self._bars.add_task(
            "adapt", total=board.adapters_total, note="", visible=board.adapters_total > 0
        )
        self._generate = self._bars.add_task(
            "generate", total=board.chunks_total, note="", visible=board.chunks_total > 0
        )
        self._fidelity = self._bars.add_task(
            "fidelity", total=board.fidelity_total, note="pools", visible=board.fidelity_total > 0
        )
        self._train = self._bars.add_task("train", total=board.total, completed=board.done, note="")

    def __enter__(self) -> RunProgress:
        self.board.on_change = self.update
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.update(final=True)
        self._bars.stop()

    def update(self, final: bool = False) -> None:
        """Read the board anew."""
        board = self.board
        adapted = board.adapters_total - len(board.adapters)
        searched = board.searches_total - len(board.searches)
        self._bars.update(self._search, completed=searched)
        self._bars.update(self._adapt, completed=adapted, note=self._learning())
        self._bars.update(self._fidelity, completed=board.fidelity_total - len(board.fidelity))
        self._bars.update(self._generate, completed=board.chunks_done, note="chunks")
        self._bars.update(self._train, completed=board.done, note=self._note())
        due = time.monotonic() - self._printed > PLAIN_EVERY
        if not self.console.is_terminal and (due or final):
            self._printed = time.monotonic()
            chunks = f"generate {board.chunks_done}/{board.chunks_total} chunks, " if board.chunks_total else ""
            searches = f"search {searched}/{board.searches_total}, " if board.searches_total else ""
            adapters = f"adapt {adapted}/{board.adapters_total}" if board.adapters_total else ""
            adapters = " ".join(filter(None, (adapters, self._learning()))) + ", " if adapters else ""
            self.console.print(
                f"{searches}{adapters}{chunks}train {board.done}/{board.total} {self._note()}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _learning(self) -> str:
        return " · ".join(
            f"{key.rpartition('-')[0]} step {step}/{steps} loss {loss:.3f}"
            for key, (step, steps, loss) in list(self.board.learning.items())
        )

    def _note(self) -> str:
        parts = [f"{len(self.board.failures)} failed"] if self.board.failures else []
        done = self.board.done - self.done_before
        if done:
            rate = done / (time.monotonic() - self.started)
            blocked = sum(self.board.blocked.values())
            left = max(self.board.total - self.board.done - blocked, 0) / rate
            parts.append(f"{rate:.2f} cells/s" if rate >= 0.1 else f"{1 / rate:.0f} s/cell")
            parts.append(f"{_clock(left)} left")
        if self.board.last:
            key, headline = self.board.last
            parts.append(f"{key.rpartition('-')[0]} " + " ".join(f"{k.upper()} {v:.3f}" for k, v in headline.items()))
        return " · ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
