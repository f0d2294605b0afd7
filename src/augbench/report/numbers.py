"""Statistics and number formats that all tables share."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, isnan, log10, nan

DASH = "\N{EN DASH}"
INCOMPLETE = "*"
COLLAPSED = "!"  # at every number that rests on a run whose classifier has collapsed


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (ddof=1) of a metric; NaN where there is none."""

    mean: float = nan
    std: float = nan  # NaN also for a single number
    n: int = 0  # count of numbers; in an average, count of rows

    @property
    def text(self) -> str:
        """Mean (std): ``.626 (.059)``; a dash for NaN."""
        return DASH if isnan(self.mean) else f"{share(self.mean)} ({share(self.std)})"


def named_shots(shots: object) -> tuple[int, str] | None:
    """Return the number and the digest of named shots (``ids5_1f3a9c``, see `core.specs.regime`); None for others."""
    found = re.fullmatch(r"ids(\d+)_([0-9a-f]+)", str(shots))
    return (int(found[1]), found[2]) if found else None


def shots_text(shots: int | str) -> str:
    """Format a shot regime: ``zero-shot``, ``5 shots``, ``1 shot``, ``5 named shots (1f3a9c)``, ``full-shot``."""
    if named := named_shots(shots):
        return f"{named[0]} named shot{'s' * (named[0] != 1)} ({named[1]})"
    return {0: "zero-shot", 1: "1 shot", "all": "full-shot"}.get(shots, f"{shots} shots")


def flagged(text: str, collapsed: int) -> str:
    """Mark the text of a number that rests on collapsed runs: ``.615 (.000) !``."""
    return f"{text} {COLLAPSED}" if collapsed and text != DASH else text


def share(value: float) -> str:
    """Format with three decimals and without a leading zero: ``.626``, ``1.000``, ``-.004``."""
    if isnan(value):
        return DASH
    text = f"{value:z.3f}"  # z: no "-0.000"
    sign = "-" if text.startswith("-") else ""
    return sign + text.removeprefix("-").removeprefix("0")


def signed(value: float) -> str:
    """Format a difference as `share`, with its sign: ``+.012``, ``-.004``, ``.000``; a dash for NaN."""
    text = share(value)
    return f"+{text}" if value > 0 and text != ".000" else text


def range_text(numbers: Iterable[int]) -> str:
    """Format the range of numbers: ``100``, or ``80 to 100``; a dash for none."""
    numbers = sorted(numbers)
    if not numbers:
        return DASH
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"


def decimals(value: float, digits: int) -> str:
    """Format with a fixed number of decimals; a dash for NaN."""
    return DASH if isnan(value) else f"{value:z.{digits}f}"


def count_text(value: float, digits: int = 3, sign: str = "") -> str:
    """Format an expected number of defects, never in powers of ten: ``4.8``, ``12.7``, ``1344``.

    Args:
        value: the number.
        digits: significant ones; integers are never rounded.
        sign: "+": positive numbers begin with it.
    """
    return f"{value:{sign}.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:{sign}.{digits}g}"


def seconds_text(value: float) -> str:
    """Format with two significant digits, but never round integers: ``0.0038``, ``1.2``, ``12``, ``345``."""
    if isnan(value) or value <= 0:
        return DASH if isnan(value) else "0"
    return f"{value:.{max(0, 1 - floor(log10(value)))}f}"


def stat_of(values: Iterable[float]) -> Stat:
    """Return mean and sample std of the values, without NaN."""
    values = [float(value) for value in values if not isnan(value)]
    if not values:
        return Stat()
    return Stat(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else nan, len(values))


def average_of(stats: Sequence[Stat]) -> Stat:
    """Average over N_aug as the papers do: mean of the means and mean of the standard deviations."""
    known = [stat for stat in stats if stat.n]
    if not known:
        return Stat()
    return Stat(statistics.fmean(s.mean for s in known), statistics.fmean(s.std for s in known), len(known))
