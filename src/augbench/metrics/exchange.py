"""The exchange rate: how many real defects give what a few real and many synthetic ones give together.

The metric without synthetic images is measured at several numbers of real defects. Made monotone (isotonic regression)
and interpolated over the logarithm of that number, it says which number k* reaches the metric of a row with k real
defects and synthetic images: these are worth k* - k real defects. Where the curve is flat, or the row lies beside it,
there is no such number, and none is given. Everything is resampled together, as in `resampling`: the same test items,
draws of the shots, and seeds on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, nan

import numpy as np

from augbench.metrics.inference import Verdict
from augbench.metrics.resampling import CONFIDENCE, unit_weights, welch

FEWEST_POINTS = 3  # of a curve
LEAVING = (1 - CONFIDENCE) / 2  # share of resamples that may leave the curve on either side
WIDEST = 10.0  # ratio of the ends of an interval from which on it says nothing
TOLERANCE = 1e-9  # of the metric: equal up to rounding
AXES = {"draw": 1, "seed": 2, "adapter": 3}
"""What is resampled within folds -> its place in a run (fold, draw, seed, adapter)."""


@dataclass(frozen=True)
class Cells:
    """The metric of the R cells of one row."""

    runs: Sequence[tuple[int, int, int, int]]  # fold, draw, seed and adapter of each; -1 for an axis it does not have
    values: np.ndarray  # R
    sampled: np.ndarray  # R,B: under each resample of the test items


class Rate(StrEnum):
    """What can be said of a row."""

    WORTH = "worth"
    FEWER = "fewer than none"
    UNKNOWN = "not identifiable"
    TOO_FEW = Verdict.TOO_FEW.value  # the row, or a number of real defects of the curve; there is no number


@dataclass(frozen=True)
class Exchange:
    """How many real defects a row is worth. Counts are of independent defects, as the curve has them."""

    count: float  # k: real defects in the row
    worth: float = nan  # k*; 0 below the curve, infinite above it, NaN with too few runs
    low: float = nan
    high: float = nan
    leaving: float = nan  # share of resamples that leave the curve
    rate: Rate = Rate.UNKNOWN

    @property
    def extra(self) -> float:
        """Real defects that the synthetic images stand for."""
        return self.worth - self.count


def exchange(
    curve: Mapping[float, Cells],
    row: Cells,
    count: float,
    rng: np.random.Generator,
    item_freedom: int,
    folds_drawn: bool = False,
) -> Exchange:
    """Read off how many real defects without synthetic images do as well as a row.

    Args:
        curve: number of real defects -> the cells without synthetic images; at least `FEWEST_POINTS`.
        row: the cells of the row.
        count: its number of real defects; 0 at zero-shot.
        rng: random generator.
        item_freedom: degrees of freedom of the test items.
        folds_drawn: each fold is a random split, and resampled; else folds are parts of one evaluation.
    """
    from scipy import stats

    counts = sorted(curve)
    parts = [curve[number] for number in counts]
    weights = _Weights([run for one in (*parts, row) for run in one.runs], row.sampled.shape[1], rng, folds_drawn)
    means, level = np.array([one.values.mean() for one in parts])[:, None], float(row.values.mean())
    worth = float(read_off(counts, isotonic(means), np.array([level]))[0])
    # Few runs widen the resamples of the metric, before they are read off: beside the curve there is nothing to widen.
    freedom = weights.freedom(row, curve.get(count), item_freedom)
    stretch = stats.t.ppf(1 - LEAVING, freedom) / stats.norm.ppf(1 - LEAVING)
    resampled = means + stretch * (np.array([weights.mean(one) for one in parts]) - means)  # K,B
    every = read_off(counts, isotonic(resampled), level + stretch * (weights.mean(row) - level))
    every = every[~np.isnan(every)]
    below, above = float((every == 0).mean()), float((every == inf).mean())
    ends = np.quantile(every, [LEAVING, 1 - LEAVING], method="inverted_cdf")
    low, high = min(float(ends[0]), worth), max(float(ends[1]), worth)
    return Exchange(count, worth, low, high, below + above, _rate(count, low, high, below, above))


def _rate(count: float, low: float, high: float, below: float, above: float) -> Rate:
    """Say what an interval allows: none where more than `LEAVING` of the resamples leave, or it is too wide."""
    if above > LEAVING or high == inf:
        return Rate.UNKNOWN
    if high < count:
        return Rate.FEWER
    if below > LEAVING or low == 0 or high > WIDEST * low:
        return Rate.UNKNOWN
    return Rate.WORTH


def isotonic(values: np.ndarray) -> np.ndarray:
    """Make each column of K,B the nearest one that does not fall (least squares, as scikit-learn's).

    By the max-min formula (Robertson, Wright, Dykstra 1988, section 1.4), since scikit-learn takes one column at a time
    and there are thousands of a few numbers each.
    """
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    count = len(values)
    made = np.full(values.shape, -inf)
    for start in range(count):
        means = [(sums[end] - sums[start]) / (end - start) for end in range(start + 1, count + 1)]
        least = np.minimum.accumulate(means[::-1])[::-1]  # over all ends from each on
        made[start:] = np.maximum(made[start:], least)
    return made


def read_off(counts: Sequence[float], curve: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the smallest number at which each curve reaches its level.

    Args:
        counts: K, rising.
        curve: K,B: columns that do not fall.
        levels: B.

    Returns:
        B: interpolated over the logarithm of the numbers; 0 below the curve, infinite above it; NaN where one of the
        two has no metric, as under a resample without any defect.
    """
    place = (curve < levels - TOLERANCE).sum(0)  # points below the level
    right, each = np.clip(place, 1, len(counts) - 1), np.arange(curve.shape[1])
    start, end = curve[right - 1, each], curve[right, each]
    logs = np.log(np.asarray(counts, np.float64))
    share = np.divide(levels - start, end - start, out=np.zeros(len(levels)), where=end > start).clip(0, 1)
    found = np.exp(logs[right - 1] + share * (logs[right] - logs[right - 1]))
    found[place == 0] = np.where(levels < curve[0] - TOLERANCE, 0.0, counts[0])[place == 0]
    found[place == len(counts)] = inf
    found[np.isnan(levels + curve.sum(0))] = nan
    return found


@dataclass
class _Weights:
    """The weights of runs in each resample, the same for equal runs of all rows."""

    every: Sequence[tuple[int, int, int, int]]
    resamples: int
    rng: np.random.Generator
    folds_drawn: bool
    of: dict[str, dict[tuple[int, int], np.ndarray]] = field(default_factory=dict)  # axis -> (fold, its value) -> B

    def __post_init__(self) -> None:
        for name, place in AXES.items():
            units = sorted({(run[0], run[place]) for run in self.every if run[place] >= 0})
            self.of[name] = self._drawn(units, [unit[0] for unit in units])
        folds = sorted({(run[0], 0) for run in self.every})
        self.of["fold"] = self._drawn(folds, [0] * len(folds)) if self.folds_drawn else {}

    def _drawn(self, units: list[tuple[int, int]], strata: list[int]) -> dict[tuple[int, int], np.ndarray]:
        return dict(zip(units, unit_weights(np.array(strata, int), self.resamples, self.rng), strict=True))

    def factor(self, name: str, runs: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
        """Return R,B: the weights of these runs by one axis alone."""
        ones = np.ones(self.resamples)
        place = AXES.get(name)
        return np.stack([self.of[name].get((run[0], 0 if place is None else run[place]), ones) for run in runs])

    def mean(self, row: Cells) -> np.ndarray:
        """Return B: the mean of the metric over runs and items."""
        weights = np.prod([self.factor(name, row.runs) for name in self.of], axis=0)
        return _mean(row.sampled, weights)

    def freedom(self, row: Cells, beside: Cells | None, item_freedom: int) -> float:
        """Return the degrees of freedom (Welch and Satterthwaite) of what a row adds to the same real defects."""
        items = row.sampled.mean(0) - (0 if beside is None else beside.sampled.mean(0))
        variances, freedoms = {"items": float(np.nanvar(items))}, {"items": max(item_freedom, 1)}
        for name, units in self.of.items():
            strata = len({fold for fold, _ in units}) if name in AXES else 1
            own = [_mean(one.values[:, None], self.factor(name, one.runs)) for one in (row, beside) if one is not None]
            if len(units) > strata:
                variances[name] = float(np.nanvar(own[0] - own[1] if len(own) > 1 else own[0]))
                freedoms[name] = len(units) - strata
        return welch(variances, freedoms)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(0)
    return np.divide((values * weights).sum(0), total, out=np.full(total.shape, np.nanmean(values)), where=total > 0)


def independent(sizes: Sequence[int], number: int) -> float:
    """Return how many items are expected among images drawn without replacement.

    Args:
        sizes: images of each item.
        number: of images drawn, at most all.
    """
    from scipy.special import gammaln

    total = float(np.sum(sizes))
    rest = total - np.asarray(sizes, np.float64)  # images of the other items
    with np.errstate(invalid="ignore"):
        log_none = gammaln(rest + 1) - gammaln(rest - number + 1) - gammaln(total + 1) + gammaln(total - number + 1)
    return float(np.where(rest >= number, 1 - np.exp(log_none), 1.0).sum())
