"""Confusion matrices of recognition, normalised by true class and averaged over the cells of a table row.

Each cell's matrix is normalised before the mean is taken, so that every run has the same weight, as in all other
columns. Files hold the matrix of every row. The terminal and LaTeX print two: that of the best row and that of training
without synthetic images.
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
NARROWEST = 16  # characters of a terminal line that class names need at least


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of a table row with C classes: rows are true classes, columns predicted ones."""

    classes: tuple[str, ...]  # C, in the order of the records
    total: list[list[int]]  # C,C: the sum over cells
    shares: list[list[Stat]]  # C,C: fraction of the true class's images, in [0, 1], over the cells that have any
    runs: int  # cells

    @property
    def has_gaps(self) -> bool:
        """Whether some cell has no test images of some class."""
        return any(stat.n < self.runs for line in self.shares for stat in line)


def confusion_of(records: Iterable[Any]) -> Confusion | None:
    """Merge the matrices of these records by class name; None where no record has one."""
    found = [record.confusion for record in records if record.confusion]
    if not found:
        return None
    classes = tuple(dict.fromkeys(name for one in found for name in one["classes"]))
    counts = np.stack([_counts(one, classes) for one in found])  # N,C,C int64
    shares = np.stack([_shares(matrix) for matrix in counts])  # N,C,C float64
    stats = [[stat_of(shares[:, true, predicted]) for predicted in range(len(classes))] for true in range(len(classes))]
    return Confusion(classes, counts.sum(axis=0).tolist(), stats, len(found))


def _counts(one: dict[str, Any], classes: tuple[str, ...]) -> np.ndarray:
    """Return a record's matrix as C,C int64, with zeros for classes that the record does not know."""
    at = [classes.index(name) for name in one["classes"]]
    counts = np.zeros((len(classes), len(classes)), np.int64)
    counts[np.ix_(at, at)] = one["matrix"]
    return counts


def _shares(counts: np.ndarray) -> np.ndarray:
    """Divide each row of a C,C matrix by its sum; NaN where the sum is 0."""
    images = counts.sum(axis=1, keepdims=True)  # C,1
    return np.divide(counts, images, out=np.full(counts.shape, nan), where=images > 0)


# -- tables for the renderers


@dataclass(frozen=True)
class MatrixRow:
    """The row of one true class."""

    name: str
    entries: tuple[str, ...]  # C
    first, is_average = True, False  # renderers read these of every kind of row

    def text(self, column: Column) -> str:
        """Return the entry of a column."""
        return self.name if column.key == "class" else self.entries[int(column.key)]


@dataclass(frozen=True)
class Matrix:
    """One matrix in the form that renderers print."""

    columns: list[Column]
    rows: list[MatrixRow]
    title: str = ""
    label: str = ""
    captions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    in_blocks = False  # no rule between rows

    def is_best(self, row: MatrixRow, column: Column) -> bool:
        """Return False: no entry of a matrix is set bold."""
        return False


@dataclass(frozen=True)
class Named:
    """The matrix of one row of the table above, with its name."""

    name: str  # "memseg, N_aug 100 (best accuracy)"
    confusion: Confusion
    is_chosen: bool  # printed in the terminal and in LaTeX

    def matrix(self) -> Matrix:
        """Return the matrix with every entry as mean (std), without title and captions."""
        classes = self.confusion.classes
        return _matrix(classes, classes, [[stat.text for stat in line] for line in self.confusion.shares])

    def narrow(self, width: int, gap: int) -> Matrix | None:
        """Return the matrix of means for the terminal; None where it does not fit.

        Where class names are too long for headings, the headings are numbers and each row name starts with its number.

        Args:
            width: characters of a line.
            gap: characters between two columns.
        """
        classes = self.confusion.classes
        means = [[share(stat.mean) for stat in line] for line in self.confusion.shares]
        entry = len(share(1))
        widths = [max([entry, *map(len, name.split())]) for name in classes]  # headings wrap at spaces
        if width - sum(widths) - gap * len(widths) >= max(map(len, (TRUE, *classes))):
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
    """The confusion matrices that renderers print under a table; none in detection and without records."""

    title: str  # of the table above
    label: str  # of the table above
    matrices: list[Named]

    @property
    def chosen(self) -> list[Named]:
        """The best row's matrix, and that of training without synthetic images."""
        return [one for one in self.matrices if one.is_chosen]

    def captions(self, means_only: bool = False) -> tuple[str, ...]:
        """Return what the entries are, one sentence each."""
        std = "" if means_only else " (sample standard deviation)"
        return (
            f"Shares of each true class (rows) by predicted class (columns): mean{std} over runs.",
            "The diagonal is the recall of each class.",
        )

    def notes(self, of: Sequence[Named]) -> tuple[str, ...]:
        """Return the footnotes of these matrices."""
        gaps = any(one.confusion.has_gaps for one in of)
        return ("A run without test images of a class is left out of its shares; a dash where no run has any.",) * gaps

    def alone(self, one: Named) -> Matrix:
        """Return a matrix with title, label and captions, to stand apart from the table above."""
        plain = one.matrix()
        title = f"{self.title}: confusion of {one.name}"
        return Matrix(plain.columns, plain.rows, title, self.label, self.captions(), self.notes([one]))


def confusions_of(title: str, label: str, rows: Sequence[Any], headline: str) -> Confusions:
    """Build the confusion matrices of a table's rows.

    Args:
        title: title of the table.
        label: warning about the numbers of the table; "" where there is none.
        rows: `tables.Row` objects; those without a matrix are left out.
        headline: the metric that decides which row is best.
    """
    having = [row for row in rows if row.confusion]
    chosen = _chosen(having, headline)
    return Confusions(title, label, [Named(_name(row, headline), row.confusion, row in chosen) for row in having])


def _chosen(rows: Sequence[Any], headline: str) -> list[Any]:
    """Return the best row and the first without synthetic images; a tie goes to the first row with such images."""
    if not rows:
        return []
    best = max(
        rows, key=lambda row: (row.best, not row.incomplete, round(row.stats[headline].mean, 3), bool(row.n_aug))
    )
    return [best, *[row for row in rows if not row.n_aug][:1]]


def _name(row: Any, headline: str) -> str:
    remarks = [
        *([f"best {headline}"] if row.best else []),
        *([] if row.n_aug else ["no synthetic images"]),
        *([f"incomplete: {row.found} of {row.expected} runs"] if row.incomplete else []),
    ]
    return f"{row.augmenter}, N_aug {row.n_aug}" + (f" ({'; '.join(remarks)})" if remarks else "")
