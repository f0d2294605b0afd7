"""Metrics against scikit-learn if it has the metric, else against cases calculated by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk

from augbench.metrics import detection, recognition
from augbench.metrics.collapse import collapsed

SEEDS = range(5)
RATES = (0.001, 0.01, 0.05, 0.1, 0.29, 0.5, 0.99)


def drawn(seed, n=60, levels=None):
    """Labels and float32 scores; few levels make many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    labels[:2] = True, False
    scores = rng.normal(labels.astype(float), 1).astype(np.float32)
    return labels, np.round(scores * levels) / np.float32(levels) if levels else scores


drawn_cases = pytest.mark.parametrize(
    ("labels", "scores"), [drawn(seed, levels=levels) for levels in (None, 2) for seed in SEEDS]
)


@drawn_cases
def test_curves_agree_with_scikit_learn(labels, scores):
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    assert detection.average_precision(labels, scores) == sk.average_precision_score(labels, scores)
    assert detection.average_precision_trapezoidal(labels, scores) == pytest.approx(sk.auc(recall, precision))
    assert detection.auroc(labels, scores) == sk.roc_auc_score(labels, scores)


@drawn_cases
def test_counts_at_a_threshold_agree_with_scikit_learn(labels, scores):
    for threshold in (*scores[:5], 0.1):
        found, called = detection.at_threshold(labels, scores, float(threshold)), scores >= threshold
        assert found["precision"] == pytest.approx(sk.precision_score(labels, called, zero_division=1))
        assert found["recall"] == pytest.approx(sk.recall_score(labels, called))
        assert found["f1"] == pytest.approx(sk.f1_score(labels, called, zero_division=0))
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, called))
        assert found["false_alarm_rate"] == pytest.approx(called[~labels].mean())


@drawn_cases
def test_best_f1_threshold_is_the_best_of_all(labels, scores):
    best = detection.at_threshold(labels, scores, detection.best_f1_threshold(labels, scores))["f1"]
    assert best == pytest.approx(max(sk.f1_score(labels, scores >= t) for t in np.unique(scores)))


def test_the_two_definitions_of_ap_by_hand():
    # By decreasing score: defect, normal, defect. Points (recall, precision): (1/2, 1), (1/2, 1/2), (1, 2/3).
    labels, scores = np.array([1, 0, 1]), np.array([3.0, 2.0, 1.0])
    assert detection.average_precision(labels, scores) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert detection.average_precision_trapezoidal(labels, scores) == pytest.approx(1 / 2 + 1 / 2 * (1 / 2 + 2 / 3) / 2)


def test_all_scores_tied():
    labels, scores = np.array([1, 0, 0, 0]), np.zeros(4, np.float32)
    assert detection.average_precision(labels, scores) == pytest.approx(1 / 4)
    assert detection.auroc(labels, scores) == 0.5
    assert detection.best_f1_threshold(labels, scores) == 0
    assert detection.at_threshold(labels, scores, 0.0)["false_alarm_rate"] == 1


def test_of_equally_good_thresholds_the_highest():
    # 1 predicted positive (precision 1, recall 1/2) and 4 (1/2, 1) both give F1 = 2/3.
    labels, scores = np.array([1, 0, 0, 1]), np.array([4.0, 3.0, 2.0, 1.0])
    assert detection.best_f1_threshold(labels, scores) == 4


def test_no_predicted_positives():
    found = detection.at_threshold(np.array([1, 0]), np.array([0.2, 0.1]), 0.5)
    assert (found["precision"], found["recall"], found["f1"], found["false_alarm_rate"]) == (1, 0, 0, 0)
    assert found["accuracy"] == 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("rate", RATES)
def test_fpr_never_exceeds_the_rate(dtype, levels, rate):
    for seed in SEEDS:
        _, scores = drawn(seed, n=100, levels=levels)
        scores = scores.astype(dtype)
        threshold = detection.threshold_for_false_alarms(scores, rate)
        labels = np.append(np.zeros(100, bool), True)  # at_threshold needs both classes
        tested = np.append(scores, dtype(9))
        assert detection.at_threshold(labels, tested, threshold)["false_alarm_rate"] <= rate


def test_a_float32_score_equal_to_the_highest_negative_is_negative():
    # The threshold is one float64 step above the score. Rounded to float32 it would equal the score.
    heldout = np.array([0.1, 0.7], np.float32)
    threshold = detection.threshold_for_false_alarms(heldout, 0.01)
    assert threshold > float(heldout[1])
    found = detection.at_threshold(np.array([0, 1]), np.array([0.7, 0.8], np.float32), threshold)
    assert (found["false_alarm_rate"], found["recall"]) == (0, 1)


def test_the_threshold_is_the_lowest_within_the_rate():
    scores = np.arange(100, dtype=np.float32)
    for rate, called in ((0.0, 0), (0.01, 1), (0.07, 7), (0.29, 29), (0.295, 29)):
        assert (scores.astype(float) >= detection.threshold_for_false_alarms(scores, rate)).sum() == called


def test_with_ties_the_threshold_stays_above_them():
    threshold = detection.threshold_for_false_alarms(np.array([0.0, 1.0, 1.0, 1.0], np.float32), 0.5)
    assert threshold > 1  # three scores tie for the second allowed false positive: none may be positive


@pytest.mark.parametrize("seed", SEEDS)
def test_recognition_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, 4, 50), rng.integers(1, 5, 50)  # class 0 never predicted, 4 never occurs
    matrix = recognition.confusion_matrix(labels, predicted, 6)  # class 5 neither
    assert np.array_equal(matrix, sk.confusion_matrix(labels, predicted, labels=range(6)))
    assert recognition.accuracy(matrix) == pytest.approx(sk.accuracy_score(labels, predicted))
    assert recognition.macro_f1(matrix) == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    found = recognition.by_class(matrix)
    theirs = sk.precision_recall_fscore_support(labels, predicted, labels=range(6), zero_division=0)
    for metric, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert [one[metric] for one in found] == pytest.approx(values.tolist()), metric


def test_recognition_by_hand():
    # Class 0: found 2 of 2, and 1 of class 1 predicted as it. Class 2 never occurs.
    matrix = recognition.confusion_matrix(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), 3)
    assert matrix.tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert recognition.macro_f1(matrix) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert recognition.accuracy(matrix) == 0.75
    assert recognition.by_class(matrix) == [
        {"precision": 2 / 3, "recall": 1.0, "f1": 4 / 5, "support": 2},
        {"precision": 1.0, "recall": 1 / 2, "f1": 2 / 3, "support": 2},
        {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    ]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("levels", [None, 1, 3])
def test_recall_at_false_alarms_is_the_best_point_of_the_roc_curve(levels, rate):
    for seed in SEEDS:
        labels, scores = drawn(seed, n=150, levels=levels)
        false_alarms, recall, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
        expected = recall[false_alarms <= rate + 1e-9].max()
        assert detection.recall_at_false_alarms(labels, scores, rate) == pytest.approx(expected)


def test_recall_at_false_alarms_by_hand():
    good = np.arange(100, dtype=np.float32)  # one may be a false positive: the score 99
    labels = np.append(np.zeros(100, bool), np.ones(4, bool))
    for defective, recall in (([98.5, 98, 97, 120], 2 / 4), ([99, 99, 98, 98], 2 / 4), ([0, 1, 2, 98], 0)):
        scores = np.append(good, np.array(defective, np.float32))
        assert detection.recall_at_false_alarms(labels, scores) == recall
    tied = np.append(np.minimum(good, 98), np.array([98, 98, 98, 98.5], np.float32))
    # Two normal images tie at the top: neither may be a false positive.
    assert detection.recall_at_false_alarms(labels, tied) == 1 / 4
    few = np.append(good[:50], np.array([49, 50, 51, 52], np.float32))
    assert detection.recall_at_false_alarms(labels[50:], few) == 3 / 4  # of 50 none may be a false positive


@pytest.mark.parametrize("levels", [None, 1, 3])
def test_scores_of_each_defect_class(levels):
    for seed in SEEDS:
        labels, scores = drawn(seed, n=80, levels=levels)
        rng = np.random.default_rng(seed)
        names = np.where(labels, rng.choice(["dent", "scratch"], 80), "good")
        names[0] = "stain"  # a class of one
        found = detection.by_class(names, scores, "good", detection.average_precision)
        assert list(found) == sorted(set(names) - {"good"}) and found["stain"]["support"] == 1
        assert sum(one["support"] for one in found.values()) == labels.sum()
        for name, one in found.items():
            used = np.isin(names, (name, "good"))
            assert one["ap"] == sk.average_precision_score(names[used] == name, scores[used])
        for threshold in (float(scores[3]), 0.2):
            recalls = detection.recall_by_class(names, scores, "good", threshold)
            called = scores.astype(np.float64) >= threshold
            for name in found:
                assert recalls[name] == pytest.approx(sk.recall_score(names == name, called & (names == name)))
            total = sum(recalls[name] * found[name]["support"] for name in found) / labels.sum()
            assert total == pytest.approx(detection.at_threshold(labels, scores, threshold)["recall"])


@pytest.mark.parametrize("seed", SEEDS)
def test_trapezoidal_ap_with_ties_spread_rewards_no_tie(seed):
    rng = np.random.default_rng(seed)
    labels = np.append(rng.random(60) < 0.3, [True, False])
    apart = rng.permutation(len(labels)).astype(np.float32)
    spread, plain = detection.average_precision_trapezoidal_ties, detection.average_precision_trapezoidal
    assert spread(labels, apart) == pytest.approx(plain(labels, apart), abs=1e-12)
    assert spread(labels, np.zeros(len(labels))) == pytest.approx(labels.mean(), abs=1e-12)
    assert plain(labels, np.zeros(len(labels))) == pytest.approx((1 + labels.mean()) / 2)
    tied = rng.integers(0, 3, len(labels))
    in_some_order = [plain(labels, tied + rng.random(len(labels)) / 2) for _ in range(300)]
    assert abs(spread(labels, tied) - np.mean(in_some_order)) < 0.04 < plain(labels, tied) - spread(labels, tied)


def test_trapezoidal_ap_with_ties_spread_by_hand():
    """One defect image on top, then one among two normal ones: the curve goes from (1/2, 1) to (1, 2/4)."""
    labels, scores = np.array([1, 1, 0, 0]), np.array([9.0, 1, 1, 1])
    assert detection.average_precision_trapezoidal_ties(labels, scores) == pytest.approx(1 / 2 + (1 + 1 / 2) / 4)
    # Both among one normal image: precision is 2/3 at every recall.
    assert detection.average_precision_trapezoidal_ties(np.array([1, 1, 0]), np.zeros(3)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0] * 10, True),
        ([1.0] * 6 + [2, 3, 4, 5], True),
        ([1.0] * 5 + [2, 3, 4, 5, 6], False),
        ([0.0, 1.0] * 5, False),
        (3 + np.arange(10) * 2e-7, True),  # a few units in the last place
        (3 + np.arange(10) * 2e-5, False),
        (np.random.default_rng(0).normal(0, 1e-4, 10), False),  # at chance, but it tells images apart
        ([1.0], False),
        ([[1.0, 2.0]] * 6 + [[1.0, 3.0], [1.0, 4.0], [2.0, 2.0], [0.0, 0.0]], True),
        ([[1.0, number] for number in range(10)], False),  # one class has one logit, the others decide
    ],
)
def test_collapse_is_over_half_of_the_scores_tied_or_all_equal_up_to_rounding(scores, expected):
    assert collapsed(np.array(scores, np.float32)) is expected
    assert collapsed(np.array(scores, np.float32)[::-1]) is expected
