"""The exchange rate: reading off, intervals with a planted truth, and where nothing can be said."""

from dataclasses import replace
from math import inf, nan

import exchange as bench
import numpy as np
import pytest
from sklearn.isotonic import isotonic_regression

from augbench.metrics.exchange import Cells, Rate, exchange, independent, isotonic, read_off

SMALL = {"folds": 3, "items": 20, "counts": (2, 5, 10, 20, 60)}
B = 150


def simulated(number, **changes):
    """The rate of one simulated benchmark; the first setting's truth is 9.9 where 5 are real."""
    setting = replace(bench.SETTINGS[0], **{**SMALL, **changes})
    return exchange_of(setting, number), setting


def exchange_of(setting, number):
    return bench.simulate(setting, np.random.default_rng(number), B)


def test_the_number_is_read_off_over_its_logarithm():
    curve = np.array([[0.5], [0.6], [0.8]])
    counts = [2, 8, 32]
    for level, number in ((0.5, 2), (0.55, 4), (0.6, 8), (0.7, 16), (0.8, 32), (0.49, 0), (0.81, inf)):
        assert read_off(counts, curve, np.array([level]))[0] == pytest.approx(number)
    assert read_off(counts, np.full((3, 1), 0.6), np.array([0.6]))[0] == 2  # flat: the smallest number


def test_rounding_does_not_decide_whether_a_level_is_on_the_curve():
    counts, curve = [5, 10, 20, 40], isotonic(np.array([[0.6], [0.8], [0.95], [1.0]]))
    for off in (-1e-12, 0, 1e-12):
        assert read_off(counts, curve, np.array([1 + off]))[0] == pytest.approx(40)
        assert read_off(counts, curve, np.array([0.6 + off]))[0] == pytest.approx(5)


def test_resamples_without_a_metric_are_left_out():
    counts, curve = [5, 10], np.array([[0.5, nan, 0.5], [0.6, 0.6, 0.6]])
    assert np.isnan(read_off(counts, curve, np.array([nan, 0.55, 0.55]))).tolist() == [True, True, False]
    cells = [Cells([(0, -1, -1, 0)], np.array([level]), np.full((1, B), level)) for level in (0.1, 0.5, 0.9, 0.3)]
    for one in cells:
        one.sampled[0, ::2] = nan  # the same test items everywhere
    one = exchange(dict(zip((1, 10, 100), cells, strict=False)), cells[-1], 2, np.random.default_rng(0), 1000)
    assert one.rate == Rate.WORTH and one.low == pytest.approx(10**0.5) and one.leaving == 0


def test_a_curve_is_made_monotone_by_least_squares():
    made = isotonic(np.array([[0.5, 0.3], [0.4, 0.5], [0.8, 0.4]]))
    assert made == pytest.approx(np.array([[0.45, 0.3], [0.45, 0.45], [0.8, 0.45]]))
    values = np.random.default_rng(0).normal(size=(7, 30))
    assert isotonic(values) == pytest.approx(np.stack([isotonic_regression(column) for column in values.T], 1))


def test_intervals_cover_the_planted_truth():
    found = [simulated(number) for number in range(30)]
    assert all(one.rate == Rate.WORTH for one, _ in found)
    assert np.mean([bench.covers(setting, one) for one, setting in found]) >= 0.9
    assert 7 < np.median([one.worth for one, _ in found]) < 13
    assert np.mean([one.low > 5 for one, _ in found]) > 0.5 and found[0][0].extra == found[0][0].worth - 5


def test_images_that_are_worth_nothing_are_rarely_said_to_be_worth_something():
    found = [simulated(number, worth=5)[0] for number in range(30)]
    assert np.mean([one.low > 5 or one.high < 5 for one in found]) <= 0.1
    assert all((one.rate == Rate.FEWER) == (one.high < 5) for one in found)  # a mean below 5 alone shows nothing
    assert any(one.rate == Rate.WORTH and one.extra < 0 for one in found)


def test_below_the_real_defects_beside_it_a_row_is_worth_fewer_than_none():
    one, _ = simulated(0, worth=2.5)
    assert one.rate == Rate.FEWER and one.high < 5 and one.extra < 0


@pytest.mark.parametrize("changes", [{"curve": bench.flat}, {"worth": 1000}, {"curve": bench.flat, "worth": 50}])
def test_where_the_curve_says_nothing_there_is_no_number(changes):
    said = [simulated(number, **changes)[0].rate != Rate.UNKNOWN for number in range(10)]
    assert np.mean(said) <= 0.1


def test_an_interval_that_spans_more_than_tenfold_says_nothing():
    def cells(values):
        return Cells([(0, -1, -1, 0)], np.array([np.mean(values)]), np.array([values]))

    curve = {count: cells([level] * B) for count, level in ((1, 0.1), (10, 0.5), (100, 0.9))}
    narrow, wide = (cells(np.linspace(0.5 - half, 0.5 + half, B)) for half in (0.15, 0.25))
    rng = np.random.default_rng(0)
    one = exchange(curve, narrow, 5, rng, 1000)
    assert one.rate == Rate.WORTH and one.high / one.low == pytest.approx(10 ** (2 * 0.15 / 0.4), rel=0.1)
    assert exchange(curve, wide, 5, rng, 1000).rate == Rate.UNKNOWN


def test_with_few_runs_fewer_than_none_is_rarely_said_beside_the_curve_either():
    """Where the row does as its own real defects do, one interval in forty may lie below these."""
    rng = np.random.default_rng(1)

    def cells(level):
        values = level + rng.normal(0, 0.05, 3)
        return Cells([(-1, -1, seed, 0) for seed in range(3)], values, np.repeat(values[:, None], B, 1))

    def rate():
        curve = {count: cells(0.5 + 0.04 * np.log(count / 5)) for count in (5, 10, 20, 40)}
        return exchange(curve, cells(0.5 + 0.04 * np.log(2)), 10, rng, 100).rate

    assert np.mean([rate() == Rate.FEWER for _ in range(300)]) < 0.06  # 0.14 if only ends on the curve are stretched


def test_few_draws_widen_an_interval():
    def width(draws):
        found = [simulated(number, draws=draws, draw=0.05 * (draws / 4) ** 0.5)[0] for number in range(10)]
        return np.median([np.log(one.high / one.low) for one in found if one.rate == Rate.WORTH])

    assert width(2) > width(8)  # the draws' mean varies as much


def test_items_among_images_are_expected_ones():
    sizes, rng = [6, 6, 3, 1, 1], np.random.default_rng(0)
    items = np.repeat(np.arange(5), sizes)
    drawn = np.mean([len(set(rng.permutation(items)[:4])) for _ in range(4000)])
    assert independent(sizes, 4) == pytest.approx(drawn, rel=0.02)
    assert independent(sizes, 17) == 5 and independent(sizes, 1) == pytest.approx(1)
    assert independent([1] * 30, 7) == pytest.approx(7)
