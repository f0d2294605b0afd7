"""Runs: what means and standard deviations of every table are over, and what else its numbers rest on.

A run is one draw of the shots with one adapter and one pool seed. The folds of a partition are parts of one evaluation,
no repetitions of it: a run has a training in each, and its number is their average. A run that lacks a fold has no
number. Drawn splits are repetitions, so each is a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isnan
from statistics import fmean
from typing import Any

from augbench.metrics.inference import FEWEST_RUNS
from augbench.report.numbers import INCOMPLETE, Stat, stat_of
from augbench.report.table_notes import FEW_ITEMS, folds_text, plural, run_label


@dataclass(frozen=True)
class Runs:
    """The runs of a table row."""

    complete: list[list[Any]]  # the cells of each run that has all of its folds, in the order of the grid
    partial: list[tuple[Any, list[int]]]  # a cell of each run that has some of its folds, and the folds it lacks
    expected: int


def run_of(cell: Any) -> tuple[Any, ...]:
    """Return what the cells of one run have in common."""
    return cell.draw, cell.adapter_seed, cell.seed, None if cell.test_share is None else cell.fold


def runs_of(cells: Iterable[Any], held: Collection[str]) -> Runs:
    """Group the expected cells of a row by run.

    Args:
        cells: the expected cells of the row.
        held: keys of the cells that have a record.
    """
    runs: dict[tuple[Any, ...], dict[Any, Any]] = {}
    for cell in cells:
        runs.setdefault(run_of(cell), {})[cell.fold] = cell
    folds = dict.fromkeys(fold for run in runs.values() for fold in run)
    complete, partial = [], []
    for run in runs.values():
        needed = folds if next(iter(run.values())).test_share is None else run
        there = [run[fold] for fold in needed if fold in run and run[fold].key in held]
        if len(there) == len(needed):
            complete.append(there)
        elif there:
            known = {cell.fold for cell in there}
            partial.append((there[0], [int(fold) for fold in needed if fold not in known]))
    return Runs(complete, partial, len(runs))


def over_runs(runs: Iterable[Sequence[Any]], value: Callable[[Any], float], gaps: bool = False) -> Stat:
    """Return mean and sample std over runs, each the average of its cells.

    Args:
        runs: the records of each run, or whatever else ``value`` takes.
        value: the number of one of them; NaN where there is none.
        gaps: average a run over those that have a number, as where a fold has no image of some class; else a run that
            lacks one has none.
    """
    numbers = [[value(one) for one in run] for run in runs]
    if gaps:
        numbers = [[number for number in run if not isnan(number)] for run in numbers]
    return stat_of(fmean(run) for run in numbers if run)


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What the numbers of a row rest on."""

    found: int = 0  # cells with a record
    expected: int = 0
    runs: int = 0  # complete ones: the numbers are over these
    expected_runs: int = 0
    trainings: int = 0  # cells of the complete runs
    partial: tuple[str, ...] = ()  # names of the runs that lack folds, and so are in no number
    collapsed: tuple[str, ...] = ()  # names of the trainings whose classifier has collapsed
    items: int | None = None  # test items of the kind, normal or with a defect, that has fewest in a fold
    one_adaptation: bool | None = False  # whether all runs share what the augmenter learned; None: not on record
    is_random: bool = True  # a draw, a seed or the test split is
    is_average: bool = False  # over several N_aug

    @property
    def incomplete(self) -> bool:
        """Whether a run lacks a cell; in an average row, a run of any averaged row."""
        return self.runs < self.expected_runs

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of the numbers must know, in a few words each; others are those of the whole table."""
        caveats = []
        if self.collapsed:
            what = "runs" if self.trainings == self.runs else "trainings"
            caveats.append(f"{len(self.collapsed)} of {self.trainings} {what} collapsed")
        if self.too_few:
            caveats.append(f"{plural(self.runs, 'run')}: too few to say")
        if self.items is not None and self.items < FEW_ITEMS:
            caveats.append(f"{plural(self.items, 'test item')} of a kind")
        if self.one_adaptation:
            caveats.append("no adaptation variance")
        return tuple(caveats)

    @property
    def too_few(self) -> bool:
        """Whether its runs are too few to say anything; one is as good as many where nothing in it is random."""
        return 0 < self.runs < FEWEST_RUNS and self.is_random and not self.is_average

    @property
    def runs_text(self) -> str:
        """Number of runs: ``4``, or ``2/4 *`` where some are incomplete."""
        return f"{self.runs}/{self.expected_runs} {INCOMPLETE}" if self.incomplete else str(self.runs)

    def basis(self) -> dict[str, Any]:
        """Return these fields, for another row with the same numbers behind it."""
        return {field.name: getattr(self, field.name) for field in fields(Basis)}


def basis_of(augmenter: str, cells: Sequence[Any], found: Mapping[str, Any]) -> tuple[Basis, list[list[Any]]]:
    """Return what the numbers of a row rest on, and the records of its complete runs.

    Args:
        augmenter: its name.
        cells: its expected cells.
        found: the records by key, see `frame.load_records`.
    """
    runs = runs_of(cells, found)
    used = [cell for run in runs.complete for cell in run]
    records = [[found[cell.key] for cell in run] for run in runs.complete]
    every = [record for run in records for record in run]
    partial = (f"{run_label(cell, fold=False)} (without {folds_text(lacking)})" for cell, lacking in runs.partial)
    learns = {record.learns for record in every}
    shared = (
        len(records) > 1
        and len({(cell.draw, cell.adapter_seed) for cell in used}) == 1
        and len({cell.seed for cell in used}) > 1
    )
    basis = Basis(
        found=sum(cell.key in found for cell in cells),
        expected=len(cells),
        runs=len(records),
        expected_runs=runs.expected,
        trainings=len(every),
        partial=tuple(f"{augmenter}, {name}" for name in partial),
        collapsed=tuple(f"{augmenter}, {run_label(cell)}" for cell in used if found[cell.key].collapsed),
        items=min((record.items for record in every if record.items is not None), default=None),
        is_random=any((cell.draw, cell.seed, cell.test_share) != (None, None, None) for cell in cells),
        one_adaptation=(None if None in learns else True in learns) if shared else False,
    )
    return basis, records


def averaged(rows: Sequence[Basis]) -> dict[str, Any]:
    """Return the `Basis` of an average of rows, as keyword arguments."""
    sums = {name: sum(getattr(row, name) for row in rows) for name in SUMMED}
    return sums | {
        "collapsed": tuple(run for row in rows for run in row.collapsed),
        "items": min((row.items for row in rows if row.items is not None), default=None),
        "one_adaptation": any(row.one_adaptation for row in rows),
        "is_average": True,
    }


SUMMED = ("found", "expected", "runs", "expected_runs", "trainings")
