"""How far a metric would move with other test items and other runs: two-level bootstrap intervals.

Level one draws the test *groups* again (all pictures of a physical item together), the same for every cell of a table;
level two the *runs* of a row: draws of the shots, and seeds. Of n units n - 1 are drawn with replacement and weighted
by n / (n - 1) (Rao and Wu, JASA 1988, with m = n - 1), since drawing n of n makes the variance of a mean too small by
(n - 1) / n: by a third with three seeds. Groups with and without a defect are drawn apart, because splits fix how many
there are of each. Intervals are percentile intervals, stretched about the estimate by the quantile of Student's t over
that of the normal distribution (compare Hesterberg, The American Statistician 2015, section 5.3), at the degrees of
freedom that Welch and Satterthwaite give to a sum of variances: few runs widen an interval as they must. BCa is not
used: its acceleration is not defined over two levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan, sqrt

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
AT_ONCE = 130_000  # pictures times resamples that are worked on at a time: what fits the cache of a core


# -- drawing units again


def unit_weights(strata: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How much each unit counts in each resample.

    Args:
        strata: U ints: units of one stratum are drawn among themselves.
        resamples: how many, B.
        rng: draws.

    Returns:
        U,B float64; the weights of a stratum of n sum to n. A unit that is alone in its stratum always counts 1: how
        others of its kind would differ is not known.
    """
    strata = np.asarray(strata)
    weights = np.ones((len(strata), resamples))
    for stratum in np.unique(strata):
        (own,) = np.nonzero(strata == stratum)
        n = len(own)
        if n > 1:
            times = rng.multinomial(n - 1, np.full(n, 1 / n), resamples)  # B,n
            weights[own] = times.T * (n / (n - 1))
    return weights


@dataclass(frozen=True)
class RunWeights:
    """How much each run counts in each resample, and where the runs differ."""

    weights: np.ndarray  # R,B float64: all factors together
    by_factor: Mapping[str, np.ndarray]  # "draw", "seed" or "fold" -> R,B float64: that factor alone is drawn again
    freedom: Mapping[str, int]  # degrees of freedom of each factor


def run_weights(
    runs: Sequence[tuple[int, int, int]], resamples: int, rng: np.random.Generator, folds: bool
) -> RunWeights:
    """Draw the runs of a row again: within each fold its draws of the shots, and its seeds, crossed.

    Args:
        runs: (fold, draw, seed) of each, -1 where there is no such axis.
        resamples: how many, B.
        rng: draws.
        folds: the folds are drawn again, too, as they are where each is a random split. Folds of a partition are fixed,
            unless they are all that differs between the runs.
    """
    table = np.array(sorted(runs)).reshape(-1, 3)
    order = {run: place for place, run in enumerate(map(tuple, table.tolist()))}
    fold, draw, seed = table.T
    inner = {
        name: axis
        for name, axis in (("draw", draw), ("seed", seed))
        if len(set(zip(fold, axis, strict=True))) > len(set(fold))
    }
    found, freedom = {}, {}
    for name, axis in inner.items():
        pairs = sorted(set(zip(fold.tolist(), axis.tolist(), strict=True)))
        drawn = unit_weights(np.array([f for f, _ in pairs]), resamples, rng)
        place = {pair: number for number, pair in enumerate(pairs)}
        found[name] = drawn[[place[pair] for pair in zip(fold.tolist(), axis.tolist(), strict=True)]]
        freedom[name] = len(pairs) - len(set(fold.tolist()))
    if len(set(fold.tolist())) > 1 and (folds or not inner):
        levels, which = np.unique(fold, return_inverse=True)
        found["fold"] = unit_weights(np.zeros(len(levels), int), resamples, rng)[which]
        freedom["fold"] = len(levels) - 1
    back = [order[tuple(run)] for run in runs]
    by_factor = {name: weights[back] for name, weights in found.items()}
    together = np.ones((len(runs), resamples))
    for weights in by_factor.values():
        together = together * weights
    return RunWeights(together, by_factor, freedom)


# -- metrics under weights


def ap_under_weights(
    labels: np.ndarray, scores: np.ndarray, units: np.ndarray, weights: np.ndarray, trapezoidal: bool = False
) -> np.ndarray:
    """AP where each picture counts as often as its unit: `detection.average_precision`, or its trapezoidal sister.

    Args:
        labels: N bool, True = defective.
        scores: N float, higher = more defective; ties are one point of the curve.
        units: N ints: the row of ``weights`` that each picture belongs to.
        weights: U,B float, not negative.
        trapezoidal: by the trapezoidal rule instead of step-wise.

    Returns:
        B float64 in [0, 1]; NaN where no defective picture counts. With unit weights it equals the other functions.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    labels, scores, units = np.asarray(labels, bool)[order], np.asarray(scores)[order], np.asarray(units)[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # the last picture of each tie
    gains = np.diff(np.concatenate([[0], np.cumsum(labels)[ends]])) > 0  # only there recall grows
    here, before = ends[gains], np.concatenate([[-1], ends[:-1]])[gains]
    found = np.empty(weights.shape[1])
    step = max(1, AT_ONCE // max(len(labels), 1))
    for start in range(0, len(found), step):
        part = weights[:, start : start + step]
        found[start : start + step] = _area(labels, part[units], here, before, trapezoidal)
    return found


def _area(labels: np.ndarray, own: np.ndarray, here: np.ndarray, before: np.ndarray, trapezoidal: bool) -> np.ndarray:
    """Area under the curve through the points ``here`` and, where the last positive stood, ``before`` them."""
    called = np.cumsum(own, axis=0)  # N,B: the weight that is called defective
    hits = np.cumsum(own[labels], axis=0)  # positives,B
    rank = np.cumsum(labels) - 1
    hits_here = hits[rank[here]]
    hits_before = np.concatenate([np.zeros((1, own.shape[1])), hits_here[:-1]])
    precision = _share(hits_here, called[here])
    if trapezoidal:
        called_before = np.where((before >= 0)[:, None], called[before], 0.0)
        precision = (precision + _share(hits_before, called_before)) / 2
    total = hits[-1] if len(hits) else np.zeros(own.shape[1])
    with np.errstate(invalid="ignore"):
        return ((hits_here - hits_before) * precision).sum(0) / np.where(total > 0, total, nan)


def _share(hits: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Precision; 1 where nothing is called, as at the start of a curve."""
    return np.divide(hits, called, out=np.ones_like(called), where=called > 0)


def accuracy_under_weights(
    labels: np.ndarray, predicted: np.ndarray, units: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Share of right answers where each picture counts as often as its unit.

    Arguments and result as in `macro_f1_under_weights`.
    """
    pictures = np.bincount(units, minlength=len(weights))
    right = np.bincount(units[np.asarray(labels) == np.asarray(predicted)], minlength=len(weights))
    return _times(right[:, None], weights)[0] / _times(pictures[:, None], weights)[0]


def macro_f1_under_weights(
    labels: np.ndarray, predicted: np.ndarray, units: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Mean F1 over the classes that occur or were predicted, as `recognition.macro_f1`.

    Args:
        labels: N ints: the true classes.
        predicted: N ints.
        units: N ints: the row of ``weights`` that each picture belongs to.
        weights: U,B float, not negative.

    Returns:
        B float64 in [0, 1].
    """
    labels, predicted, units = (np.asarray(values) for values in (labels, predicted, units))
    classes = int(max(labels.max(), predicted.max())) + 1
    hits, both = (np.zeros((len(weights), classes)) for _ in range(2))
    np.add.at(hits, (units[labels == predicted], labels[labels == predicted]), 1)
    np.add.at(both, (units, labels), 1)
    np.add.at(both, (units, predicted), 1)
    hits, both = _times(hits, weights), _times(both, weights)  # classes,B
    there = both > 0
    return np.divide(2 * hits, both, out=np.zeros_like(both), where=there).sum(0) / there.sum(0)


def _times(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """U,C and U,B -> C,B, by einsum's own loops: the last bits of a product by BLAS go by the number of threads."""
    return np.einsum("uc,ub->cb", counts.astype(np.float64), weights, optimize=False)


# -- intervals


@dataclass(frozen=True)
class Interval:
    """An estimate with an interval about it; NaN where nothing can be said."""

    estimate: float = nan
    low: float = nan
    high: float = nan
    runs: int = 0
    error: float = nan  # standard error: of both levels together
    freedom: float = nan  # degrees of freedom of `error`
    parts: Mapping[str, float] = field(default_factory=dict)  # "items", "draw", "seed", "fold" -> its standard error

    @property
    def includes_zero(self) -> bool:
        """Whether 0 lies in it; True where it is not known."""
        return not (self.low > 0 or self.high < 0)


def interval(
    values: np.ndarray,
    resampled: np.ndarray,
    runs: RunWeights,
    item_freedom: int,
    comparisons: int = 1,
    bounds: tuple[float, float] = (-inf, inf),
) -> Interval:
    """The mean over runs with its interval at `CONFIDENCE`.

    Args:
        values: R floats: the metric of each run, or the difference of two.
        resampled: R,B floats: the same under each resample of test items.
        runs: how much each run counts in each resample.
        item_freedom: degrees of freedom of what test items add.
        comparisons: how many intervals are to hold all together (Bonferroni).
        bounds: what the metric cannot leave.
    """
    from scipy import stats

    estimate = float(np.mean(values))
    means = {"items": resampled.mean(0)}
    means |= {name: _weighted_mean(np.asarray(values)[:, None], w) for name, w in runs.by_factor.items()}
    freedoms = {"items": max(item_freedom, 1), **runs.freedom}
    variances = {name: float(np.nanvar(mean, ddof=1)) for name, mean in means.items()}
    total = sum(variances.values())
    freedom = total**2 / sum(v**2 / freedoms[name] for name, v in variances.items()) if total else inf
    every = _weighted_mean(resampled, runs.weights)
    tail = (1 - CONFIDENCE) / 2
    low, high = map(float, np.nanquantile(every, [tail, 1 - tail]))
    stretch = float(stats.t.ppf(1 - tail / comparisons, freedom) / stats.norm.ppf(1 - tail))
    return Interval(
        estimate,
        max(bounds[0], estimate - stretch * max(estimate - low, 0.0)),
        min(bounds[1], estimate + stretch * max(high - estimate, 0.0)),
        len(values),
        sqrt(float(np.nanvar(every, ddof=1))),
        float(freedom),
        {name: sqrt(variance) for name, variance in variances.items()},
    )


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """B floats; NaN where no run counts, as may be in a design with gaps."""
    total = weights.sum(0)
    return np.divide((values * weights).sum(0), total, out=np.full(total.shape, nan), where=total > 0)
