"""Intervals, tests, ranks and variance components against known values."""

import math

import numpy as np
import pytest
from scipy import stats

from augbench.metrics import recognition
from augbench.metrics.detection import average_precision, average_precision_trapezoidal
from augbench.metrics.inference import (
    Verdict,
    average_ranks,
    critical_difference,
    holm,
    seeds_needed,
    sign_flip_p,
    smallest_p,
    variance_split,
    verdict,
)
from augbench.metrics.resampling import (
    accuracy_under_weights,
    ap_under_weights,
    interval,
    macro_f1_under_weights,
    run_weights,
    unit_weights,
)

AP = {"step": average_precision, "trapezoidal": average_precision_trapezoidal}


def seeds_of(count, resamples=500, seed=0):
    return run_weights([(0, -1, s) for s in range(count)], resamples, np.random.default_rng(seed), folds=False)


# -- metrics under weights


@pytest.mark.parametrize("definition", list(AP))
@pytest.mark.parametrize("case", range(40))
def test_weighted_ap_equals_ap_of_repeated_images(case, definition):
    rng = np.random.default_rng(case)
    n = int(rng.integers(4, 60))
    labels = np.append([True, False], rng.random(n - 2) < 0.4)
    scores = np.round(rng.normal(size=n) + labels, 1).astype(np.float32)  # with ties
    units, weights = rng.integers(0, 6, n), rng.integers(0, 4, (6, 8))
    found = ap_under_weights(labels, scores, units, weights.astype(float), definition)
    for column, ap in enumerate(found):
        times = weights[units, column]
        if labels[times > 0].any():
            assert ap == pytest.approx(AP[definition](np.repeat(labels, times), np.repeat(scores, times)), abs=1e-12)
        else:
            assert math.isnan(ap)
    whole = ap_under_weights(labels, scores, units, np.ones((6, 1)), definition)
    assert whole == pytest.approx(AP[definition](labels, scores), abs=1e-12)


def test_ap_does_not_depend_on_the_resamples_per_step(monkeypatch):
    rng = np.random.default_rng(0)
    labels, scores, units = rng.random(50) < 0.3, rng.normal(size=50), np.arange(50)
    weights = unit_weights(labels.astype(int), 30, rng)
    whole = ap_under_weights(labels, scores, units, weights)
    monkeypatch.setattr("augbench.metrics.resampling.AT_ONCE", 150)
    np.testing.assert_array_equal(ap_under_weights(labels, scores, units, weights), whole)


@pytest.mark.parametrize("case", range(20))
def test_weighted_recognition_metrics_equal_those_of_repeated_images(case):
    rng = np.random.default_rng(case)
    labels, predicted, units = rng.integers(0, 4, 30), rng.integers(0, 4, 30), rng.integers(0, 9, 30)
    weights = rng.integers(0, 3, (9, 5)) + (np.arange(9) == 0)[:, None]
    accuracy = accuracy_under_weights(labels, predicted, units, weights)
    f1 = macro_f1_under_weights(labels, predicted, units, weights)
    for column in range(5):
        times = weights[units, column]
        matrix = recognition.confusion_matrix(np.repeat(labels, times), np.repeat(predicted, times), 4)
        if matrix.sum():
            assert accuracy[column] == pytest.approx(recognition.accuracy(matrix), abs=1e-12)
            assert f1[column] == pytest.approx(recognition.macro_f1(matrix), abs=1e-12)


# -- resampling units


def test_weights_preserve_the_size_of_each_stratum_and_single_units():
    weights = unit_weights(np.array([0, 0, 0, 1, 1, 7]), 200, np.random.default_rng(0))
    assert weights.shape == (6, 200)
    for rows in ([0, 1, 2], [3, 4], [5]):
        np.testing.assert_allclose(weights[rows].sum(0), len(rows))
    assert (weights[5] == 1).all() and set(weights[3]) == {0.0, 2.0}


@pytest.mark.parametrize("n", [2, 3, 4, 10])
def test_the_variance_of_a_mean_is_not_too_small_for_few_units(n):
    """Rao and Wu: s^2 / n, where drawing n of n would give (n - 1) / n of it."""
    values = np.random.default_rng(n).normal(size=n)
    weights = unit_weights(np.zeros(n, int), 40_000, np.random.default_rng(1))
    assert (values @ weights / n).var() == pytest.approx(values.var(ddof=1) / n, rel=0.03)


def test_runs_are_drawn_by_draw_and_seed_crossed_within_their_fold():
    runs = [(f, d, s) for f in (0, 1) for d in (0, 1) for s in (0, 1, 2)]
    drawn = run_weights(runs, 300, np.random.default_rng(0), folds=False)
    assert drawn.freedom == {"draw": 2, "seed": 4}
    np.testing.assert_array_equal(drawn.weights, drawn.by_factor["draw"] * drawn.by_factor["seed"])
    table = drawn.by_factor["draw"].reshape(2, 2, 3, 300)
    np.testing.assert_array_equal(table[:, :, :1].repeat(3, axis=2), table)  # a draw is drawn with all its seeds
    assert not np.array_equal(table[0], table[1])  # folds have draws of their own
    np.testing.assert_allclose(drawn.by_factor["seed"].reshape(2, 2, 3, 300).sum(2), 3)


@pytest.mark.parametrize(
    ("runs", "folds", "factors"),
    [
        ([(0, -1, 0)], False, set()),
        ([(f, -1, 0) for f in range(5)], False, {"fold"}),  # nothing else differs
        ([(f, -1, -1) for f in range(5)], False, set()),  # neither draw nor seed: nothing is random
        ([(f, -1, -1) for f in range(5)], True, {"fold"}),
        ([(f, 0, -1) for f in range(5)], False, {"fold"}),
        ([(f, d, -1) for f in range(5) for d in range(3)], False, {"draw"}),
        ([(f, -1, s) for f in range(5) for s in range(3)], False, {"seed"}),  # folds of a partition are fixed
        ([(f, -1, s) for f in range(5) for s in range(3)], True, {"seed", "fold"}),  # random splits are not
    ],
)
def test_resampled_factors(runs, folds, factors):
    assert set(run_weights(runs, 50, np.random.default_rng(0), folds).by_factor) == factors


def test_runs_keep_their_order():
    runs = [(0, -1, s) for s in (2, 0, 1)]
    there = run_weights(runs, 100, np.random.default_rng(3), folds=False).weights
    ordered = seeds_of(3, 100, 3).weights
    np.testing.assert_array_equal(there, ordered[[2, 0, 1]])


# -- intervals


def test_many_units_give_the_percentile_interval_of_scipy():
    values = np.random.default_rng(0).exponential(size=400)
    weights = unit_weights(np.zeros(400, int), 20_000, np.random.default_rng(1))
    ours = interval(np.array([values.mean()]), (values @ weights / 400)[None], seeds_of(1, 20_000), 399)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.01)
    assert ours.error == pytest.approx(theirs.standard_error, rel=0.03)


def test_few_runs_give_the_interval_of_student():
    """Only seeds differ: the half width is t times s / sqrt(n), as far as a bootstrap of so few can be normal."""
    values = np.array([0.50, 0.52, 0.54, 0.56, 0.58, 0.60])
    found = interval(values, np.repeat(values[:, None], 20_000, axis=1), seeds_of(6, 20_000), 100)
    half = 2.5706 * values.std(ddof=1) / math.sqrt(6)  # t with 5 degrees of freedom
    assert found.freedom == pytest.approx(5, rel=1e-6)
    assert found.estimate - found.low == pytest.approx(half, rel=0.05)
    assert found.high - found.estimate == pytest.approx(half, rel=0.05)
    assert found.parts["seed"] == pytest.approx(values.std(ddof=1) / math.sqrt(6), rel=0.03)


def test_intervals_that_hold_together_are_wider_and_all_stay_in_bounds():
    values = np.array([0.9, 0.95, 1.0])
    sampled = np.repeat(values[:, None], 500, axis=1)
    one, many = (interval(values, sampled, seeds_of(3), 50, number, (0, 1)) for number in (1, 6))
    assert many.low < one.low < one.estimate < one.high <= many.high == 1


def random_aps(rng, runs, seeds):
    """Draw the AP of runs, in total and resampled, and weights of seeds.

    The scores of 20 defective and 40 good items, two images each, have effects of item, run, and image in a run.
    """
    units = np.repeat(np.arange(60), 2)
    labels, items = units < 20, rng.normal(size=60) * 0.7
    scores = [labels * (1.2 + 0.25 * rng.normal()) + items[units] + 0.7 * rng.normal(size=120) for _ in range(runs)]
    weights = unit_weights(np.repeat([1, 0], [20, 40]), 300, rng)
    values = np.array([average_precision(labels, one) for one in scores])
    sampled = np.array([ap_under_weights(labels, one, units, weights) for one in scores])
    return values, sampled, run_weights([(0, -1, s) for s in range(seeds)], 300, rng, folds=False)


@pytest.mark.parametrize("seeds", [3, 5])
def test_95_of_100_intervals_cover_the_true_ap(seeds):
    truth, wrong = 0.6793, 0.5793  # mean of 6,000 runs on 25 times as many items; a wrong value
    rng = np.random.default_rng(seeds)
    found = [interval(*random_aps(rng, seeds, seeds), 19, bounds=(0, 1)) for _ in range(200)]
    assert 0.91 <= sum(one.low <= truth <= one.high for one in found) / 200 <= 0.99
    assert sum(one.low <= wrong <= one.high for one in found) / 200 < 0.85


def test_false_positive_rate_of_differences():
    """Two augmenters of equal worth, four paired seeds: at most about 5 in 100 intervals exclude 0."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        values, sampled, runs = random_aps(rng, 8, 4)
        found = interval(values[:4] - values[4:], sampled[:4] - sampled[4:], runs, 19)
        wrong += verdict(found.low, found.high, 4) in (Verdict.BETTER, Verdict.WORSE)
    assert wrong / 200 <= 0.09


# -- verdicts and tests


@pytest.mark.parametrize(
    ("low", "high", "runs", "word"),
    [
        (0.01, 0.2, 3, "better"),
        (-0.2, -0.01, 3, "worse"),
        (-0.01, 0.2, 30, "no detectable difference"),
        (0.0, 0.2, 30, "no detectable difference"),
        (math.nan, math.nan, 5, "no detectable difference"),
        (0.5, 0.6, 2, "too few runs to say"),
    ],
)
def test_the_verdict_on_a_difference(low, high, runs, word):
    assert verdict(low, high, runs) == word


def test_one_run_decides_where_nothing_in_it_is_random():
    assert verdict(0.01, 0.2, 1, is_random=False) == Verdict.BETTER
    assert verdict(0.01, 0.2, 0, is_random=False) == Verdict.TOO_FEW


def test_the_sign_flip_test_is_the_exact_permutation_test_of_scipy():
    for case in range(10):
        differences = np.random.default_rng(case).normal(0.3, 1, 8)
        theirs = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_p(differences, np.random.default_rng(0)) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_the_smallest_p_is_that_of_differences_that_all_agree():
    for seeds in (1, 4, 7, 12):
        assert sign_flip_p(np.full(seeds, 0.1), np.random.default_rng(0)) == smallest_p(seeds)
    assert smallest_p(4) == 0.125 and smallest_p(7) == 0.015625
    assert sign_flip_p(np.ones(30), np.random.default_rng(0)) == smallest_p(30), "of random assignments"
    assert sign_flip_p(np.zeros(7), np.random.default_rng(0)) == 1


def test_many_seeds_are_flipped_at_random():
    differences = np.random.default_rng(0).normal(0.4, 1, 40)
    p = sign_flip_p(differences, np.random.default_rng(1))
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=0.15)
    assert p == sign_flip_p(differences, np.random.default_rng(1))


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 7), (3, 7), (4, 8), (6, 8), (7, 9), (15, 10)])
def test_how_many_seeds_holm_needs(comparisons, seeds):
    assert seeds_needed(comparisons) == seeds
    assert comparisons * smallest_p(seeds) <= 0.05


def test_holm():
    """The example of Holm's procedure with four tests, worked out by hand."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []


# -- ranks

DEMSAR = """.763 .768 .771 .798  .599 .591 .590 .569  .954 .971 .968 .967  .628 .661 .654 .657  .882 .888 .886 .898
.936 .931 .916 .931  .661 .668 .609 .685  .583 .583 .563 .625  .775 .838 .866 .875  1.00 1.00 1.00 1.00
.940 .962 .965 .962  .619 .666 .614 .669  .972 .981 .975 .9749  .957 .978 .946 .970"""
"""Demsar (JMLR 2006), Table 6: AUC of C4.5, with m, with cf, with both, on 14 data sets. The 13th row has its third and
fourth number equal as printed, but ranked 2 and 3: so one has another digit here."""


def test_average_ranks_are_those_of_demsar():
    found = average_ranks(np.array(DEMSAR.split(), float).reshape(14, 4))
    assert found.average == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)  # value of the paper
    assert found.p == pytest.approx(0.0197, abs=5e-4)  # F = 3.69 with 3 and 39 degrees of freedom
    assert found.cliques == ((3, 1, 2, 0),)  # 3.143 - 1.964 < 1.25


@pytest.mark.parametrize(("augmenters", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_are_those_of_nemenyis_table(augmenters, q):
    expected = q * math.sqrt(augmenters * (augmenters + 1) / 60)
    assert critical_difference(augmenters, 10) == pytest.approx(expected, abs=1e-3)


def test_cliques_join_ranks_without_a_significant_difference():
    values = np.tile([0.9, 0.8, 0.7, 0.1], (12, 1))
    found = average_ranks(values)
    assert found.average == (1, 2, 3, 4) and found.p < 1e-6
    assert found.cliques == ((0, 1), (1, 2), (2, 3)) and found.critical_difference == pytest.approx(1.354, abs=1e-3)


def test_few_datasets_have_no_average_ranks():
    with pytest.raises(ValueError, match="7 datasets are too few"):
        average_ranks(np.random.default_rng(0).random((7, 3)))


# -- variance


def test_components_of_variance_are_recovered():
    rng = np.random.default_rng(0)
    runs = [(f, d, s) for f in range(5) for d in range(4) for s in range(3)]
    squares = []
    for _ in range(300):
        parts = zip((0.3, 0.2, 0.1, 0.05), ((5, 1, 1), (5, 4, 1), (5, 1, 3), (5, 4, 3)), strict=True)
        table = 0.5 + sum(size * rng.normal(size=shape) for size, shape in parts)
        found = variance_split(runs, [table[run] for run in runs])
        squares.append([value**2 for value in (found.fold, found.draw, found.seed, found.rest)])
    assert np.sqrt(np.mean(squares, axis=0)) == pytest.approx([0.3, 0.2, 0.1, 0.05], rel=0.06)


def test_a_split_by_hand():
    """Two draws, two seeds: values 1 2 / 3 6. Mean squares: draws 9, seeds 4, rest 1."""
    found = variance_split([(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)], [1.0, 2.0, 3.0, 6.0])
    assert (found.draw, found.seed, found.rest) == pytest.approx((2.0, math.sqrt(1.5), 1.0))
    assert math.isnan(found.fold) and found.is_split


def test_seeds_alone_are_not_split():
    values = [0.1, 0.2, 0.6]
    found = variance_split([(0, -1, s) for s in range(3)], values)
    assert found.seed == pytest.approx(np.std(values, ddof=1)) and not found.is_split
    assert math.isnan(found.draw) and math.isnan(found.rest)


def test_a_design_with_gaps_is_not_split():
    found = variance_split([(0, 0, 0), (0, 0, 1), (0, 1, 0)], [0.1, 0.2, 0.3])
    assert not found.balanced and not found.is_split
