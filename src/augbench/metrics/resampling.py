"""Two-level bootstrap intervals of metrics over test items and runs.

Level one resamples test *groups* (all images of a physical item together), identically for all cells of a table. Level
two resamples the *runs* of a row: draws of the shots, seeds, and adapters. A resample draws n - 1 of n units with
replacement and weights them by n / (n - 1) (Rao and Wu, JASA 1988, with m = n - 1): drawing n of n underestimates the
variance of a mean by (n - 1) / n, a third with three seeds. Groups with and without a defect are separate strata,
because splits fix their numbers. Percentile intervals are stretched about the estimate by the ratio of the quantiles of
Student's t and the normal distribution (compare Hesterberg, The American Statistician 2015, section 5.3), with the
degrees of freedom of Welch and Satterthwaite for a sum of variances, so that few runs widen an interval. BCa is not
used: its acceleration is not defined over two levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan, prod, sqrt

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
AT_ONCE = 130_000  # images times resamples per step: fits the cache of a core


# -- resampling units


def unit_weights(strata: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the weight of each unit in each resample.

    Args:
        strata: U ints: units are resampled within their stratum.
        resamples: number of resamples, B.
        rng: random generator.

    Returns:
        U,B float64; the weights of a stratum of n sum to n. A single unit of a stratum always has weight 1: its
        variance is unknown.
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
    """Weights of runs in each resample, in total and per factor."""

    weights: np.ndarray  # R,B float64: product over factors
    by_factor: Mapping[str, np.ndarray]  # draw, seed, adapter or fold -> R,B float64: only that factor resampled
    freedom: Mapping[str, int]  # degrees of freedom of each factor
    count: int  # runs: the folds of a partition are parts of one, drawn splits are runs of their own


def run_weights(runs: Sequence[tuple[int, ...]], resamples: int, rng: np.random.Generator, folds: bool) -> RunWeights:
    """Resample the cells of a row: within each fold the draws of the shots, the seeds and those of adapters, crossed.

    Args:
        runs: (fold, draw, seed) of each cell, -1 for an absent axis; and the seed of its adapters, if given.
        resamples: number of resamples, B.
        rng: random generator.
        folds: resample folds, too: correct if each is a random split. Folds of a partition are fixed, unless runs
            differ in nothing else; but not where runs have neither draw nor seed, so that nothing in them is random.
    """
    table, back = np.unique(np.array(runs), axis=0, return_inverse=True)  # sorted
    fold, *axes = table.T
    levels, fold_of = np.unique(fold, return_inverse=True)
    found, freedom = {}, {}
    for name, axis in zip(("draw", "seed", "adapter"), axes, strict=False):
        pairs, which = np.unique(np.stack([fold, axis], axis=1), axis=0, return_inverse=True)
        if len(pairs) > len(levels):
            found[name] = unit_weights(pairs[:, 0], resamples, rng)[which.ravel()]  # ravel: NumPy 2.0 gives a column
            freedom[name] = len(pairs) - len(levels)
    hidden = not found and (table[:, 1:3] >= 0).any()  # one draw or seed per fold: its variance is in that of the folds
    if len(levels) > 1 and (folds or hidden):
        found["fold"] = unit_weights(np.zeros(len(levels), int), resamples, rng)[fold_of]
        freedom["fold"] = len(levels) - 1
    by_factor = {name: weights[back.ravel()] for name, weights in found.items()}
    count = len(np.unique(table if folds else table[:, 1:], axis=0))
    return RunWeights(prod(by_factor.values(), start=np.ones((len(runs), resamples))), by_factor, freedom, count)


# -- metrics under weights


def ap_under_weights(
    labels: np.ndarray, scores: np.ndarray, units: np.ndarray, weights: np.ndarray, definition: str = "step"
) -> np.ndarray:
    """Compute weighted AP, as `metrics.evaluate.AP` has it by the name of its definition.

    Args:
        labels: N bool, True = defect.
        scores: N float, higher = more likely a defect; ties are one point of the curve, or spread evenly.
        units: N ints: the row of ``weights`` that each image belongs to.
        weights: U,B float, not negative: the weight of each image of a unit in each resample.
        definition: "step", "trapezoidal" or "trapezoidal_ties".

    Returns:
        B float64 in [0, 1]; NaN if all defect images have weight 0. Weights of 1 give the unweighted AP.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    labels, scores, units = np.asarray(labels, bool)[order], np.asarray(scores)[order], np.asarray(units)[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # the last image of each tie
    gains = np.diff(np.concatenate([[0], np.cumsum(labels)[ends]])) > 0  # recall increases only at these points
    here, before = ends[gains], np.concatenate([[-1], ends[:-1]])[gains]
    found = np.empty(weights.shape[1])
    step = max(1, AT_ONCE // max(len(labels), 1))
    for start in range(0, len(found), step):
        part = weights[:, start : start + step]
        own = part[units]
        if definition == "trapezoidal_ties":
            found[start : start + step] = _spread_area(labels, own, ends)
        else:
            found[start : start + step] = _area(labels, own, here, before, definition == "trapezoidal")
    return found


def _spread_area(labels: np.ndarray, own: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Integrate the curve by the trapezoidal rule, with the images of each tie spread evenly over one another.

    A tie with p defect images becomes p points, each with a p-th of the weight of its defect and of its normal images.
    """
    hits, predicted = (np.cumsum(values, axis=0)[ends] for values in (own * labels[:, None], own))  # ties,B
    counts = np.diff(np.cumsum(labels)[ends], prepend=0)  # defect images of each tie
    tie = np.repeat(np.arange(len(ends)), counts)
    share = ((np.arange(len(tie)) - np.repeat(np.cumsum(counts) - counts, counts) + 1) / counts[tie])[:, None]
    start, gained = (np.concatenate([np.zeros((1, own.shape[1])), values[:-1]]) for values in (hits, predicted))
    weight, all_weight = (hits - start)[tie], (predicted - gained)[tie]
    step = 1 / counts[tie][:, None]
    ahead, behind = (
        _share(start[tie] + weight * at, gained[tie] + all_weight * at, _share(weight, all_weight))
        for at in (share, share - step)
    )
    total = hits[-1]
    with np.errstate(invalid="ignore"):
        return (weight * step * (ahead + behind) / 2).sum(0) / np.where(total > 0, total, nan)


def _area(labels: np.ndarray, own: np.ndarray, here: np.ndarray, before: np.ndarray, trapezoidal: bool) -> np.ndarray:
    """Integrate the curve over the points ``here``; ``before`` are the points that precede them."""
    predicted = np.cumsum(own, axis=0)  # N,B: weight of predicted positives
    hits = np.cumsum(own[labels], axis=0)  # positives,B
    rank = np.cumsum(labels) - 1
    hits_here = hits[rank[here]]
    hits_before = np.concatenate([np.zeros((1, own.shape[1])), hits_here[:-1]])
    precision = _share(hits_here, predicted[here])
    if trapezoidal:
        predicted_before = np.where((before >= 0)[:, None], predicted[before], 0.0)
        precision = (precision + _share(hits_before, predicted_before)) / 2
    total = hits[-1] if len(hits) else np.zeros(own.shape[1])
    with np.errstate(invalid="ignore"):
        return ((hits_here - hits_before) * precision).sum(0) / np.where(total > 0, total, nan)


def _share(hits: np.ndarray, predicted: np.ndarray, at_start: np.ndarray | float = 1.0) -> np.ndarray:
    """Return precision; ``at_start`` without predicted positives, as at the start of a curve."""
    out = np.broadcast_to(at_start, predicted.shape).astype(np.float64)
    return np.divide(hits, predicted, out=out, where=predicted > 0)


def accuracy_under_weights(
    labels: np.ndarray, predicted: np.ndarray, units: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Compute accuracy with the weights of each image's unit; arguments and result as in `macro_f1_under_weights`."""
    images = np.bincount(units, minlength=len(weights))
    right = np.bincount(units[np.asarray(labels) == np.asarray(predicted)], minlength=len(weights))
    return _times(right[:, None], weights)[0] / _times(images[:, None], weights)[0]


def macro_f1_under_weights(
    labels: np.ndarray, predicted: np.ndarray, units: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Compute weighted mean F1 over the classes that occur or were predicted, as `recognition.macro_f1`.

    Args:
        labels: N ints: true classes.
        predicted: N ints: predicted classes.
        units: N ints: the row of ``weights`` that each image belongs to.
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
    """Multiply U,C and U,B to C,B without BLAS, whose rounding depends on the number of threads."""
    return np.einsum("uc,ub->cb", counts.astype(np.float64), weights, optimize=False)


# -- intervals


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; NaN where undefined."""

    estimate: float = nan
    low: float = nan
    high: float = nan
    runs: int = 0
    error: float = nan  # standard error of both levels together
    freedom: float = nan  # degrees of freedom of `error`
    parts: Mapping[str, float] = field(
        default_factory=dict
    )  # "items", "draw", "seed", "adapter", "fold" -> standard error
    freedoms: Mapping[str, int] = field(default_factory=dict)  # degrees of freedom of each

    @property
    def includes_zero(self) -> bool:
        """Whether the interval contains 0; True if it is undefined."""
        return not (self.low > 0 or self.high < 0)


def interval(
    values: np.ndarray,
    resampled: np.ndarray,
    runs: RunWeights,
    item_freedom: int,
    comparisons: int = 1,
    bounds: tuple[float, float] = (-inf, inf),
) -> Interval:
    """Compute the mean over runs with its interval at `CONFIDENCE`.

    Args:
        values: R floats: the metric of each run, or the difference of two.
        resampled: R,B floats: the same for each resample of test items.
        runs: weights of the runs in each resample.
        item_freedom: degrees of freedom of the test items.
        comparisons: number of simultaneous intervals (Bonferroni).
        bounds: range of the metric.
    """
    from scipy import stats

    estimate = float(np.mean(values))
    means = {"items": resampled.mean(0)}
    means |= {name: _weighted_mean(np.asarray(values)[:, None], w) for name, w in runs.by_factor.items()}
    freedoms = {"items": max(item_freedom, 1), **runs.freedom}
    variances = {name: float(np.nanvar(mean, ddof=1)) for name, mean in means.items()}
    freedom = welch(variances, freedoms)
    every = _weighted_mean(resampled, runs.weights)
    tail = (1 - CONFIDENCE) / 2
    low, high = map(float, np.nanquantile(every, [tail, 1 - tail]))
    stretch = float(stats.t.ppf(1 - tail / comparisons, freedom) / stats.norm.ppf(1 - tail))
    return Interval(
        estimate,
        max(bounds[0], estimate - stretch * max(estimate - low, 0.0)),
        min(bounds[1], estimate + stretch * max(high - estimate, 0.0)),
        runs.count,
        sqrt(float(np.nanvar(every, ddof=1))),
        float(freedom),
        {name: sqrt(variance) for name, variance in variances.items()},
        freedoms,
    )


def welch(variances: Mapping[str, float], freedoms: Mapping[str, int]) -> float:
    """Return the degrees of freedom of a sum of variances (Welch and Satterthwaite)."""
    total = sum(variances.values())
    return total**2 / sum(v**2 / freedoms[name] for name, v in variances.items()) if total else inf


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return B floats; NaN if all weights are 0, which incomplete designs allow."""
    total = weights.sum(0)
    return np.divide((values * weights).sum(0), total, out=np.full(total.shape, nan), where=total > 0)
