"""Detection metrics of one logit per picture. Pure functions; scikit-learn where it has the metric.

``labels`` are N bool or 0/1 (1 = defective), ``scores`` N float, higher = more defective. Both classes must occur.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

AveragePrecision = Callable[[np.ndarray, np.ndarray], float]


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Step-wise AP (scikit-learn's), in [0, 1]: the sum of precision times the gain in recall."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores))


def average_precision_trapezoidal(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the precision-recall curve by the trapezoidal rule, as mixed-segdec's and In&Out's evaluation has it.

    It interpolates linearly between points of the curve and is therefore a little optimistic.
    """
    from sklearn.metrics import auc, precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(auc(recall, precision))


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, in [0, 1]."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def best_f1_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold ("defective" where score >= it) with the best F1; of several the highest.

    Chosen on the labels it is judged by, it is an oracle: the papers report precision and recall there.
    """
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    f1 = f1[:-1]  # the curve's end point (1, 0) has no threshold
    return float(thresholds[np.flatnonzero(f1 == f1.max())[-1]])


def at_threshold(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """Precision, recall, F1, accuracy and false-alarm rate where score >= ``threshold`` means defective.

    Precision is 1 where nothing is called defective (no call, no false call); F1 is then 0.
    """
    labels = np.asarray(labels, bool)
    # float64: NumPy would round the threshold to float32 scores, and one just above a score would then equal it.
    called = np.asarray(scores, np.float64) >= threshold
    hits, calls = int((called & labels).sum()), int(called.sum())
    precision = hits / calls if calls else 1.0
    recall = hits / int(labels.sum())
    return {
        "threshold": float(threshold),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "accuracy": float((called == labels).mean()),
        "false_alarm_rate": float(called[~labels].mean()),
    }


def threshold_for_false_alarms(negative_scores: np.ndarray, rate: float) -> float:
    """The lowest threshold at which at most ``rate`` of these negatives are called defective (score >= threshold).

    Chosen on held-out good pictures only, so it needs no defective one and exists at zero-shot too.
    """
    ordered = np.sort(np.asarray(negative_scores, np.float64))[::-1]
    allowed = int(np.floor(rate * len(ordered) + 1e-9))  # 0.29 of 100 are 29, though 0.29 * 100 < 29 in floats
    # Just above the score of the first negative that must not alarm: ties with it must not alarm either.
    return float(np.nextafter(ordered[allowed], np.inf))


def recall_at_false_alarms(labels: np.ndarray, scores: np.ndarray, rate: float = 0.01) -> float:
    """The highest recall, in [0, 1], at which at most ``rate`` of the good pictures judged are called defective.

    An oracle: the threshold is chosen on the good pictures it is judged by. Of fewer than 1 / ``rate`` good pictures
    none may be called; a defective picture that ties with one that must not be called is not found.
    """
    labels = np.asarray(labels, bool)
    threshold = threshold_for_false_alarms(np.asarray(scores)[~labels], rate)
    return float((np.asarray(scores, np.float64)[labels] >= threshold).mean())


def by_class(names: np.ndarray, scores: np.ndarray, good: str, ap: AveragePrecision) -> dict[str, dict[str, float]]:
    """How well each kind of defect is told from the good pictures.

    Args:
        names: N str: the class of each picture.
        scores: N float.
        good: the name of the pictures without a defect; it and another must occur.
        ap: `average_precision` or `average_precision_trapezoidal`.

    Returns:
        For each class but ``good``, sorted: ``support``, its pictures, and ``ap``, over them and the good ones alone.
        AP depends on how rare a class is: compare it between augmenters, not between classes.
    """
    names, scores = np.asarray(names), np.asarray(scores)
    found = {}
    for name in sorted(set(names.tolist()) - {good}):
        own, judged = names == name, (names == name) | (names == good)
        found[name] = {"support": int(own.sum()), "ap": ap(own[judged], scores[judged])}
    return found


def recall_by_class(names: np.ndarray, scores: np.ndarray, good: str, threshold: float) -> dict[str, float]:
    """The share of each kind of defect that is called defective at ``threshold``; arguments as in `by_class`."""
    names, called = np.asarray(names), np.asarray(scores, np.float64) >= threshold
    return {name: float(called[names == name].mean()) for name in sorted(set(names.tolist()) - {good})}
