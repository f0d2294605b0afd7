"""Numbers and columns as tables print them: what is shared by all of their kinds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, isnan, log10, nan

DASH = "\N{EN DASH}"
INCOMPLETE = "*"


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (ddof=1) of a metric; NaN where there is none."""

    mean: float = nan
    std: float = nan  # NaN also where only one number is there
    n: int = 0  # how many numbers; of an average: how many rows

    @property
    def text(self) -> str:
        """``.626 (.059)``; a dash for what is not there."""
        return DASH if isnan(self.mean) else f"{share(self.mean)} ({share(self.std)})"


def share(value: float) -> str:
    """Three decimals of a number about [0, 1], without a leading zero: ``.626``, ``1.000``, ``-.004``."""
    if isnan(value):
        return DASH
    text = f"{value:z.3f}"  # z: no "-0.000"
    sign = "-" if text.startswith("-") else ""
    return sign + text.removeprefix("-").removeprefix("0")


def numbers_words(numbers: Iterable[int]) -> str:
    """``100``, or ``80 to 100``; a dash for none."""
    numbers = sorted(numbers)
    if not numbers:
        return DASH
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"


def decimals(value: float, digits: int) -> str:
    """A number with so many decimals; a dash for NaN."""
    return DASH if isnan(value) else f"{value:z.{digits}f}"


def seconds_text(value: float) -> str:
    """Two significant digits, and all before the point: ``0.0038``, ``1.2``, ``12``, ``345``."""
    if isnan(value) or value <= 0:
        return DASH if isnan(value) else "0"
    return f"{value:.{max(0, 1 - floor(log10(value)))}f}"


def stat_of(values: Iterable[float]) -> Stat:
    """Mean and sample std of the values that are not NaN."""
    values = [float(value) for value in values if not isnan(value)]
    if not values:
        return Stat()
    return Stat(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else nan, len(values))


def average_of(stats: Sequence[Stat]) -> Stat:
    """As the papers average over N_aug: the mean of the means, and the mean of the standard deviations."""
    there = [stat for stat in stats if stat.n]
    if not there:
        return Stat()
    return Stat(statistics.fmean(s.mean for s in there), statistics.fmean(s.std for s in there), len(there))


@dataclass(frozen=True)
class Column:
    """A column of a table. Neighbours of one ``group`` share that heading."""

    key: str  # "augmenter", "n_aug", "extractor", "runs", "pools", a metric; of a matrix "class" or a place
    title: str
    group: str = ""

    @property
    def is_number(self) -> bool:
        """Whether it is set flush right or centred, as numbers are."""
        return self.key not in ("augmenter", "n_aug", "extractor", "class")
