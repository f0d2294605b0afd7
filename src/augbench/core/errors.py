"""The exceptions that a user can cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


class UserError(Exception):
    """Something the user gave (a file, a key, an option) cannot be used.

    The message is one line: it names the thing and the way out. The command line prints it without a traceback and
    leaves with exit status 2.
    """


class StoreError(UserError):
    """The store cannot be read or written: nothing could be committed any more, so a run ends instead of going on."""


class DatasetError(UserError):
    """Rows of a dataset's table cannot be made, for example because a mask that decides a label cannot be read.

    ``table`` has the columns of `Dataset.samples`; a row whose label could not be told has the label "".
    """

    def __init__(self, name: str, problems: Sequence[str], table: pd.DataFrame) -> None:
        more = f" (and {len(problems) - 1} more: see augbench datasets check {name})" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.name = name
        self.problems = list(problems)
        self.table = table

    def __reduce__(self) -> tuple:
        return type(self), (self.name, self.problems, self.table)  # a worker's error travels to the driver


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest known word, else the list of known words."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f" (did you mean '{near[0]}'?)"
    return f" (known: {', '.join(known)})" if known else ""


def listed(values: Iterable[str], most: int = 3) -> str:
    """``'a', 'b', 'c' and 5 more``."""
    values = list(values)
    quoted = [f"'{value}'" for value in values[:most]]
    if len(values) > most:
        return f"{', '.join(quoted)} and {len(values) - most} more"
    return " and ".join(quoted) if len(quoted) < 3 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
