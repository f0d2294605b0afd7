"""Confusion matrices of recognition: a row's cells -> shares of each true class, and how renderers see them.

Each cell's matrix is divided by the pictures of each true class before the mean is taken, so that every run counts
alike, as in all other columns. Files hold the matrix of every row; the terminal and LaTeX have room for two: the best
row's and that of training without synthetic pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from augbench.report.numbers import Column, Stat, share, stat_of

MATRICES = "Confusion matrices"
TRUE = "true class"
NARROWEST = 16  # columns of the terminal that names of classes need at least


@dataclass(frozen=True)
class Confusion:
    """Of the cells of one row. C classes; true ones down, predicted ones across."""

    classes: tuple[str, ...]  # C, as records order them
    total: list[list[int]]  # C,C: the sum over cells
    shares: list[list[Stat]]  # C,C: of the true class's pictures, in [0, 1], over the cells that have any
    runs: int  # cells

    @property
    def has_gaps(self) -> bool:
        """Whether a cell has no test pictures of some class."""
        return any(stat.n < self.runs for line in self.shares for stat in line)


def confusion_of(records: Iterable[Any]) -> Confusion | None:
    """The matrices of these records' cells, by name of class; None where no record has one."""
    found = [record.confusion for record in records if record.confusion]
    if not found:
        return None
    classes = tuple(dict.fromkeys(name for one in found for name in one["classes"]))
    counts = np.stack([_counts(one, classes) for one in found])  # N,C,C int64
    shares = np.stack([_shares(matrix) for matrix in counts])  # N,C,C float64
    stats = [[stat_of(shares[:, true, predicted]) for predicted in range(len(classes))] for true in range(len(classes))]
    return Confusion(classes, counts.sum(axis=0).tolist(), stats, len(found))


def _counts(one: dict[str, Any], classes: tuple[str, ...]) -> np.ndarray:
    """C,C int64: a record's matrix, with zeros for classes that it does not know."""
    at = [classes.index(name) for name in one["classes"]]
    counts = np.zeros((len(classes), len(classes)), np.int64)
    counts[np.ix_(at, at)] = one["matrix"]
    return counts


def _shares(counts: np.ndarray) -> np.ndarray:
    """C,C float64: each row over its sum; NaN where there is nothing to share."""
    pictures = counts.sum(axis=1, keepdims=True)  # C,1
    return np.divide(counts, pictures, out=np.full(counts.shape, nan), where=pictures > 0)


# -- as renderers see them


@dataclass(frozen=True)
class MatrixRow:
    """A true class."""

    name: str
    entries: tuple[str, ...]  # C
    first, is_average = True, False  # what renderers ask of other rows too

    def text(self, column: Column) -> str:
        """What stands in that column."""
        return self.name if column.key == "class" else self.entries[int(column.key)]


@dataclass(frozen=True)
class Matrix:
    """One matrix, as renderers print tables."""

    columns: list[Column]
    rows: list[MatrixRow]
    title: str = ""
    label: str = ""
    captions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    in_blocks = False  # true classes are not set apart

    def is_best(self, row: MatrixRow, column: Column) -> bool:
        """Nothing is set bold: entries of a matrix do not compete."""
        return False


@dataclass(frozen=True)
class Named:
    """The matrix of a row of the table above."""

    name: str  # "memseg, N_aug 100 (best accuracy)"
    confusion: Confusion
    is_chosen: bool  # for the terminal and LaTeX

    def matrix(self) -> Matrix:
        """Every entry as mean (std), without words around."""
        classes = self.confusion.classes
        return _matrix(classes, classes, [[stat.text for stat in line] for line in self.confusion.shares])

    def narrow(self, width: int, gap: int) -> Matrix | None:
        """Means alone, in so many columns with a gap between any two; None where they do not fit.

        Where the names of classes are too long for headings, these are numbers, and the names of rows begin with them.
        """
        classes = self.confusion.classes
        means = [[share(stat.mean) for stat in line] for line in self.confusion.shares]
        entry = len(share(1))
        words = [max([entry, *map(len, name.split())]) for name in classes]  # headings are broken at spaces
        if width - sum(words) - gap * len(words) >= max(map(len, (TRUE, *classes))):
            return _matrix(classes, classes, means)
        if width - (entry + gap) * len(classes) < NARROWEST:
            return None
        numbers = [str(number) for number in range(1, len(classes) + 1)]
        names = [f"{number} {name}" for number, name in zip(numbers, classes, strict=True)]
        return _matrix(names, numbers, means)


def _matrix(names: Sequence[str], headings: Sequence[str], entries: Sequence[Sequence[str]]) -> Matrix:
    columns = [Column("class", TRUE), *(Column(str(place), heading) for place, heading in enumerate(headings))]
    return Matrix(columns, [MatrixRow(name, tuple(line)) for name, line in zip(names, entries, strict=True)])


@dataclass(frozen=True)
class Confusions:
    """What renderers print under a table; without matrices in detection and where there are no records."""

    title: str  # of the table above
    label: str  # likewise
    matrices: list[Named]

    @property
    def chosen(self) -> list[Named]:
        """The best row's matrix, and that of training without synthetic pictures."""
        return [one for one in self.matrices if one.is_chosen]

    def captions(self, means_only: bool = False) -> tuple[str, ...]:
        """What the numbers are, one sentence each."""
        std = "" if means_only else " (sample standard deviation)"
        return (
            f"Shares of each true class (down) by predicted class (across): mean{std} over runs.",
            "The diagonal is what is recognised rightly.",
        )

    def notes(self, of: Sequence[Named]) -> tuple[str, ...]:
        """What a reader of these matrices must know."""
        gaps = any(one.confusion.has_gaps for one in of)
        return ("A run without test pictures of a class has no shares of it; a dash where no run has any.",) * gaps

    def alone(self, one: Named) -> Matrix:
        """A matrix with all words that it needs far from the table above."""
        plain = one.matrix()
        title = f"{self.title}: confusion of {one.name}"
        return Matrix(plain.columns, plain.rows, title, self.label, self.captions(), self.notes([one]))


def confusions_of(title: str, label: str, rows: Sequence[Any], headline: str) -> Confusions:
    """The matrices of a table's rows.

    Args:
        title: of the table.
        label: what forbids to take its numbers as they stand, else "".
        rows: its rows, see `tables.Row`; those without a matrix are left out.
        headline: the metric that says which row is best.
    """
    having = [row for row in rows if row.confusion]
    chosen = _chosen(having, headline)
    return Confusions(title, label, [Named(_name(row, headline), row.confusion, row in chosen) for row in having])


def _chosen(rows: Sequence[Any], headline: str) -> list[Any]:
    """The best row, and the first without synthetic pictures. Of equally good ones the first with such pictures."""
    if not rows:
        return []
    best = max(
        rows, key=lambda row: (row.best, not row.incomplete, round(row.stats[headline].mean, 3), bool(row.n_aug))
    )
    return [best, *[row for row in rows if not row.n_aug][:1]]


def _name(row: Any, headline: str) -> str:
    words = [
        *([f"best {headline}"] if row.best else []),
        *([] if row.n_aug else ["no synthetic pictures"]),
        *([f"incomplete: {row.found} of {row.expected} runs"] if row.incomplete else []),
    ]
    return f"{row.augmenter}, N_aug {row.n_aug}" + (f" ({'; '.join(words)})" if words else "")
