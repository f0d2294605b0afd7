"""Confusion matrices of recognition, normalised by true class and averaged over the cells of a table row.

Each cell's matrix is normalised before the mean is taken, so that every cell of a run and every run has the same
weight, as in all other columns. Files hold the matrix of every row. The terminal and LaTeX print two: that of the best
row and that of training without synthetic images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from operator import itemgetter
from typing import Any

import numpy as np

from augbench.report.numbers import COLLAPSED, Stat, share
from augbench.report.runs import over_runs
from augbench.report.sheet import GAP, NARROWEST, WIDTH, Legend, Medium, Section, Sheet

MATRICES = "Confusion matrices"
TRUE = "true class"


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of a table row with C classes: rows are true classes, columns predicted ones."""

    classes: tuple[str, ...]  # C, in the order of the records
    total: list[list[int]]  # C,C: the sum over cells
    shares: list[list[Stat]]  # C,C: fraction of the true class's images, in [0, 1], over the runs that have any
    has_gaps: bool  # whether some cell has no test images of some class


def confusion_of(runs: Sequence[Sequence[Any]]) -> Confusion | None:
    """Merge the matrices of the records of these runs by class name; None where no record has one."""
    found = [having for run in runs if (having := [record.confusion for record in run if record.confusion])]
    if not found:
        return None
    every = [one for run in found for one in run]
    classes = tuple(dict.fromkeys(name for one in every for name in one["classes"]))
    counts = [[_counts(one, classes) for one in run] for run in found]  # of each run its cells, C,C int64
    shares = [[_shares(matrix) for matrix in run] for run in counts]  # C,C float64
    indices = range(len(classes))
    stats = [[over_runs(shares, itemgetter((true, other)), gaps=True) for other in indices] for true in indices]
    total = np.sum([matrix for run in counts for matrix in run], axis=0)
    has_gaps = any(np.isnan(matrix).any() for run in shares for matrix in run)
    return Confusion(classes, total.tolist(), stats, has_gaps)


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


# -- for print


@dataclass(frozen=True)
class Named:
    """The matrix of one row of the table above, with its name."""

    name: str  # "memseg, N_aug 100 (best accuracy)"
    confusion: Confusion
    is_chosen: bool  # printed in the terminal and in LaTeX: the best row, and training without synthetic images

    def sheet(self, **texts: Any) -> Sheet:
        """Return the matrix with every entry as mean (std)."""
        classes = self.confusion.classes
        entries = [[stat.text for stat in line] for line in self.confusion.shares]
        return _sheet(self.name, classes, classes, entries, **texts)

    def narrow(self, width: int = WIDTH) -> Sheet | None:
        """Return the matrix of means for the terminal; None where it does not fit.

        Where class names are too long for headings, the headings are numbers and each row name starts with its number.
        """
        classes = self.confusion.classes
        means = [[share(stat.mean) for stat in line] for line in self.confusion.shares]
        entry = len(share(1))
        widths = [max([entry, *map(len, name.split())]) for name in classes]  # headings wrap at spaces
        if width - sum(widths) - GAP * len(widths) >= max(map(len, (TRUE, *classes))):
            return _sheet(self.name, classes, classes, means)
        if width - (entry + GAP) * len(classes) < NARROWEST:
            return None
        numbers = [str(number) for number in range(1, len(classes) + 1)]
        names = [f"{number} {name}" for number, name in zip(numbers, classes, strict=True)]
        return _sheet(self.name, names, numbers, means)


def _sheet(
    title: str, names: Sequence[str], heads: Sequence[str], entries: Sequence[Sequence[str]], **texts: Any
) -> Sheet:
    rows = [(name, *line) for name, line in zip(names, entries, strict=True)]
    return replace(Sheet.of([TRUE], heads, rows, title), **texts)


def confusion_sections(
    title: str, label: str, matrices: Sequence[Named], medium: Medium, width: int = WIDTH
) -> list[Section]:
    """Return the section under the table with that title and label; none without matrices.

    Markdown has all, folded; LaTeX the chosen ones; a terminal of ``width`` columns the means of these.
    """
    if not matrices:
        return []
    chosen = [one for one in matrices if one.is_chosen]
    captions = _captions(" (sample standard deviation)")
    sentences: tuple[str, ...] = ()
    if medium == "markdown":
        sentences = (*captions, *_notes(matrices))
        sheets = [one.sheet(is_folded=True) for one in matrices]
    elif medium == "latex":
        sheets = [one.sheet(captions=captions, notes=_notes([one])) for one in chosen]
    else:
        sheets = [sheet for one in chosen if (sheet := one.narrow(width))]
        rest = "with standard deviations" if sheets else "whose classes are too many for the terminal"
        if sheets:
            sentences = (*_captions(""), *_notes(chosen))
        sentences = (*sentences, Legend(f"Those of all rows, {rest}, are in report.md.", about=MATRICES))
    return [Section(MATRICES, label, sentences, sheets, under=title)]


def _captions(std: str) -> tuple[str, ...]:
    return (
        Legend(f"Shares of each true class (rows) by predicted class (columns): mean{std} over runs.", about=MATRICES),
        Legend("The diagonal is the recall of each class.", about=MATRICES),
    )


def _notes(of: Sequence[Named]) -> tuple[str, ...]:
    gaps = any(one.confusion.has_gaps for one in of)
    gap = "A run without test images of a class is left out of its shares; a dash where no run has any."
    return (Legend(gap, about=MATRICES),) * gaps


def confusions_of(rows: Sequence[Any], headline: str) -> list[Named]:
    """Build the confusion matrices of `tables.Row` objects, of those that have one; the best has the best headline."""
    having = [row for row in rows if row.confusion]
    chosen = _chosen(having, headline)
    return [Named(_name(row, headline), row.confusion, row in chosen) for row in having]


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
        *([f"{len(row.collapsed)} of {row.trainings} collapsed {COLLAPSED}"] if row.collapsed else []),
        *([f"incomplete: {row.runs} of {row.expected_runs} runs"] if row.incomplete else []),
    ]
    return f"{row.augmenter}, N_aug {row.n_aug}" + (f" ({'; '.join(remarks)})" if remarks else "")
