"""Statistical inference: tests over seeds, average ranks over datasets, variance components.

Pure functions on arrays. Intervals are in `resampling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, log2, nan, sqrt
from statistics import NormalDist

import numpy as np

FEWEST_RUNS = 3  # paired runs below which a difference gets no verdict
FEWEST_SEEDS = 7  # paired seeds below which nothing is tested: p = 2 ** -6 can pass Holm's correction
FEWEST_DATASETS = 8  # datasets below which ranks are not averaged
LEVEL = 0.05
RULE_OF_THREE = 3  # none of n shows a share below 3 / n, at 95 %
POWER = 0.8  # probability with which a difference is to be detected
ENUMERATED = 16  # seeds up to which all sign assignments are enumerated: 65,536
FLIPS = 100_000  # random sign assignments for more seeds


class Verdict(StrEnum):
    """Verdict on a difference."""

    BETTER = "better"
    WORSE = "worse"
    NONE = "no detectable difference"
    TOO_FEW = "too few runs to say"


def verdict(low: float, high: float, runs: int, is_random: bool = True) -> Verdict:
    """Return the verdict for the interval of a difference over ``runs`` paired runs.

    ``is_random``: something in the runs is random; else one is as good as many, and none is too few.
    """
    if runs < (FEWEST_RUNS if is_random else 1):
        return Verdict.TOO_FEW
    return Verdict.BETTER if low > 0 else Verdict.WORSE if high < 0 else Verdict.NONE


class Finding(StrEnum):
    """What a null, which shares all with an augmenter but the defects, tells about the augmenter's gain."""

    SHOWN = "gain over null shown"
    NOT_SHOWN = "gain over null not shown"
    NULL_GAINS = "null itself gains"
    NO_GAIN = "no gain to explain"
    TOO_FEW = Verdict.TOO_FEW.value


def finding(gain: Verdict, over_null: Verdict, null_gain: Verdict) -> Finding:
    """Return the finding from three verdicts: the augmenter and its null against the baseline, and their difference."""
    if Verdict.TOO_FEW in (gain, over_null, null_gain):
        return Finding.TOO_FEW
    if gain != Verdict.BETTER:
        return Finding.NO_GAIN
    if over_null == Verdict.BETTER:
        return Finding.SHOWN
    return Finding.NULL_GAINS if null_gain == Verdict.BETTER else Finding.NOT_SHOWN


def smallest_difference(
    parts: Mapping[str, float], freedom: float, comparisons: int = 1, scale: Mapping[str, float] | None = None
) -> float:
    """Return the difference that an interval tells from 0 with probability `POWER`.

    For one comparison with many degrees of freedom it is 2.8 standard errors: 1.96 + 0.84.

    Args:
        parts: standard error of a paired difference by its source, see `resampling.Interval`.
        freedom: degrees of freedom of their sum.
        comparisons: number of simultaneous intervals (Bonferroni).
        scale: source -> its variance in the planned runs, over that in these.
    """
    from scipy import stats

    variance = sum(error**2 * (scale or {}).get(name, 1.0) for name, error in parts.items())
    tail = LEVEL / (2 * max(comparisons, 1))
    return float((stats.t.ppf(1 - tail, freedom) + stats.norm.ppf(POWER)) * sqrt(variance))


def wilson(value: float, number: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of a share of ``number`` independent items (Wilson 1927); (0, 1) without any."""
    if not number:
        return 0.0, 1.0
    square = NormalDist().inv_cdf(1 - level / 2) ** 2
    centre = value + square / (2 * number)
    half = sqrt(square * (value * (1 - value) / number + square / (4 * number**2)))
    low, high = ((centre + sign * half) / (1 + square / number) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def share_interval(value: float, number: int) -> tuple[float, float]:
    """Return the interval of a share of ``number`` items: `wilson`, and above a share of 0 the rule of three."""
    low, high = wilson(value, number)
    return low, high if value or not number else min(1.0, RULE_OF_THREE / number)


# -- tests over seeds


def sign_flip_p(differences: np.ndarray, rng: np.random.Generator) -> float:
    """Compute the two-sided p of the paired permutation test of the mean (Fisher; Pitman 1937).

    Under the null hypothesis the sign of each seed's difference is random. p is the share of sign assignments whose
    mean is at least as far from 0. Unlike the paired t-test, it assumes no normal distribution, which few seeds cannot
    support; unlike Wilcoxon's test, it uses the sizes of the differences.

    Args:
        differences: S floats, one per seed.
        rng: draws signs if there are more than `ENUMERATED` seeds.
    """
    differences = np.asarray(differences, np.float64)
    seeds = len(differences)
    if seeds > ENUMERATED:
        signs = rng.choice((-1.0, 1.0), (FLIPS, seeds))
    else:
        signs = 1.0 - 2.0 * (np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1)
    observed = abs(differences.sum())
    extreme = int((np.abs(signs @ differences) >= observed * (1 - 1e-9) - 1e-15).sum())
    return (extreme + 1) / (FLIPS + 1) if seeds > ENUMERATED else extreme / len(signs)


def smallest_p(seeds: int) -> float:
    """Return the minimum of `sign_flip_p`: 2 of the 2 ** seeds assignments are most extreme; of random ones none."""
    if seeds > ENUMERATED:
        return 1 / (FLIPS + 1)
    return min(1.0, 2.0 ** (1 - seeds)) if seeds else 1.0


def seeds_needed(comparisons: int) -> int:
    """Return the paired seeds needed to reach `LEVEL` with Holm's correction; at least `FEWEST_SEEDS`."""
    return max(FEWEST_SEEDS, ceil(1 + log2(max(comparisons, 1) / LEVEL) - 1e-9))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values for multiple comparisons, in their order (Holm, Scandinavian Journal of Statistics 1979)."""
    order = sorted(range(len(p)), key=lambda index: p[index])
    adjusted, least = [nan] * len(p), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = least
    return adjusted


# -- ranks over datasets


@dataclass(frozen=True)
class Ranks:
    """Average ranks of K augmenters over D datasets, and their critical difference."""

    average: tuple[float, ...]  # 1 is best; ties share their mean rank
    datasets: int
    p: float  # of Friedman's test that all are equal, with the correction by Iman and Davenport
    critical_difference: float  # Nemenyi, at `LEVEL`
    cliques: tuple[tuple[int, ...], ...]  # maximal sets of indices without a significant difference, by rank


def average_ranks(values: np.ndarray) -> Ranks:
    """Compute average ranks of augmenters by a metric (Demsar, JMLR 2006, sections 3.2.2 and 3.2.4).

    Args:
        values: D,K floats, higher = better, K >= 2.

    Raises:
        ValueError: fewer than `FEWEST_DATASETS` datasets.
    """
    from scipy import stats

    datasets, count = values.shape
    if datasets < FEWEST_DATASETS:
        raise ValueError(f"{datasets} datasets are too few for average ranks")
    average = stats.rankdata(-np.asarray(values), axis=1).mean(0)
    chi = 12 * datasets / (count * (count + 1)) * float(((average - (count + 1) / 2) ** 2).sum())
    rest = datasets * (count - 1) - chi
    f = (datasets - 1) * chi / rest if rest > 1e-12 else np.inf
    p = float(stats.f.sf(f, count - 1, (count - 1) * (datasets - 1)))
    critical = critical_difference(count, datasets)
    return Ranks(tuple(map(float, average)), datasets, p, critical, _cliques(average, critical))


def critical_difference(augmenters: int, datasets: int) -> float:
    """Compute the critical difference of average ranks at `LEVEL` (Nemenyi; Demsar 2006, section 3.2.2)."""
    from scipy import stats

    quantile = float(stats.studentized_range.ppf(1 - LEVEL, augmenters, np.inf)) / sqrt(2)
    return quantile * sqrt(augmenters * (augmenters + 1) / (6 * datasets))


def _cliques(average: np.ndarray, critical: float) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(average, kind="stable")
    found: list[tuple[int, ...]] = []
    for start in range(len(order)):
        near = [int(index) for index in order[start:] if average[index] - average[order[start]] < critical]
        if len(near) > 1 and not (found and set(near) <= set(found[-1])):
            found.append(tuple(near))
    return tuple(found)


# -- variance components


@dataclass(frozen=True)
class VarianceSplit:
    """Standard deviation of the metric by source; NaN where the design does not identify it."""

    fold: float = nan
    draw: float = nan  # draw of the shots
    seed: float = nan
    rest: float = nan  # interaction of draw and seed; with only one of them varied, included in the other
    balanced: bool = True  # False: runs are missing, so there are no components

    @property
    def is_split(self) -> bool:
        """Whether more than one source was identified."""
        return sum(value == value for value in (self.fold, self.draw, self.seed)) > 1


def variance_split(runs: Sequence[tuple[int, int, int]], values: Sequence[float]) -> VarianceSplit:
    """Estimate variance components by the method of moments (random-effects ANOVA; Searle et al. 1992, ch. 4).

    Draws and seeds are crossed, and both are nested in folds. Negative estimates become 0.

    Args:
        runs: (fold, draw, seed) of each run, -1 for an absent axis.
        values: the metric of each run.
    """
    folds, draws, seeds = (sorted({run[axis] for run in runs}) for axis in range(3))
    found = dict(zip(runs, values, strict=True))
    design = [(f, d, s) for f in folds for d in draws for s in seeds]
    if len(runs) < 2 or sorted(found) != design:
        return VarianceSplit(balanced=sorted(found) == design)
    table = np.array([found[run] for run in design]).reshape(len(folds), len(draws), len(seeds))
    a, b, c = table.shape
    by_fold, by_draw, by_seed = (table.mean(axes, keepdims=True) for axes in ((1, 2), 2, 1))
    squares = {
        "fold": (b * c * (by_fold - table.mean()) ** 2).sum(),
        "draw": (c * (by_draw - by_fold) ** 2).sum(),
        "seed": (b * (by_seed - by_fold) ** 2).sum(),
        "rest": ((table - by_draw - by_seed + by_fold) ** 2).sum(),
    }
    freedom = {"fold": a - 1, "draw": a * (b - 1), "seed": a * (c - 1), "rest": a * (b - 1) * (c - 1)}
    mean = {name: float(squares[name]) / freedom[name] if freedom[name] else 0.0 for name in squares}
    rest = mean["rest"]
    inner = mean["draw"] + mean["seed"] - rest if b > 1 and c > 1 else mean["draw"] + mean["seed"]
    components = {
        "fold": (mean["fold"] - inner) / (b * c),
        "draw": (mean["draw"] - rest) / c,
        "seed": (mean["seed"] - rest) / b,
        "rest": rest,
    }
    return VarianceSplit(**{n: sqrt(max(v, 0.0)) if freedom[n] else nan for n, v in components.items()})
