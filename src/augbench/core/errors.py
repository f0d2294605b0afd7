"""Exceptions for errors that a user can cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


class UserError(Exception):
    """User input (a file, a key, an option) cannot be used.

    The message is one line that names the input and how to fix it. The command line prints it without a traceback and
    exits with status 2.
    """


class PluginError(UserError):
    """The code of a plug-in failed, or broke its contract. Made in `core.guard` alone."""


class WeightsError(UserError):
    """Pretrained weights are neither on this machine nor downloadable."""


class StoreError(UserError):
    """The store cannot be read or written. Nothing could be committed, so the run ends."""


class DatasetError(UserError):
    """Some rows of a dataset's table cannot be built, for example because a mask that decides a label is unreadable.

    ``table`` has the columns of `Dataset.samples`; a row with an unknown label has the label "".
    """

    def __init__(self, name: str, problems: Sequence[str], table: pd.DataFrame) -> None:
        more = f" (and {len(problems) - 1} more: see augbench datasets check {name})" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.name = name
        self.problems = list(problems)
        self.table = table

    def __reduce__(self) -> tuple:
        return type(self), (self.name, self.problems, self.table)  # Ray pickles errors of workers


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known name, else the list of known names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f" (did you mean '{near[0]}'?)"
    return f" (known: {', '.join(known)})" if known else ""


def listed(values: Iterable[str], most: int = 3) -> str:
    """Join values as ``'a', 'b', 'c' and 5 more``."""
    values = list(values)
    quoted = [f"'{value}'" for value in values[:most]]
    if len(values) > most:
        return f"{', '.join(quoted)} and {len(values) - most} more"
    return " and ".join(quoted) if len(quoted) < 3 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def brief(value: object, most: int = 80) -> str:
    """Return a value for a message, on one line and not too long."""
    line = " ".join((str(value) if isinstance(value, (str, Exception)) else repr(value)).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
