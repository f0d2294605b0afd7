"""Detection metrics of one logit per image. Pure functions; scikit-learn where it has the metric.

``labels`` are N bool or 0/1 (1 = defect), ``scores`` N float, higher = more likely a defect. Both classes must occur.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

AveragePrecision = Callable[[np.ndarray, np.ndarray], float]


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Compute step-wise AP (scikit-learn's), in [0, 1]: the sum of precision times the gain in recall."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores))


def average_precision_trapezoidal(labels: np.ndarray, scores: np.ndarray) -> float:
    """Compute the area under the precision-recall curve by the trapezoidal rule, as mixed-segdec and In&Out do.

    It interpolates linearly between points of the curve and is therefore slightly optimistic.
    """
    from sklearn.metrics import auc, precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(auc(recall, precision))


def average_precision_trapezoidal_ties(labels: np.ndarray, scores: np.ndarray) -> float:
    """Compute the area under the precision-recall curve by the trapezoidal rule, without a reward for ties.

    Images with one score are spread evenly over one another (the interpolation of Davis and Goadrich, ICML 2006), so
    constant scores give the prevalence; by `average_precision_trapezoidal` they give (1 + prevalence) / 2. Without
    ties between defect and normal images both are equal.
    """
    from augbench.metrics.resampling import ap_under_weights

    scores = np.asarray(scores)
    return float(ap_under_weights(labels, scores, np.zeros(len(scores), int), np.ones((1, 1)), "trapezoidal_ties")[0])


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Compute the area under the ROC curve, in [0, 1]."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def best_f1_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the threshold with the best F1 (positive if score >= threshold); the highest of equal ones.

    It is an oracle, since it is chosen on the labels that evaluate it. The papers report precision and recall at it.
    """
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    f1 = f1[:-1]  # the curve's end point (1, 0) has no threshold
    return float(thresholds[np.flatnonzero(f1 == f1.max())[-1]])


def at_threshold(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """Compute precision, recall, F1, accuracy and FPR; a sample is predicted positive if score >= ``threshold``.

    Without positive predictions, precision is 1 and F1 is 0.
    """
    labels = np.asarray(labels, bool)
    # float64: NumPy would round the threshold to float32, and one just above a score would become equal to it.
    predicted = np.asarray(scores, np.float64) >= threshold
    hits, positives = int((predicted & labels).sum()), int(predicted.sum())
    precision = hits / positives if positives else 1.0
    recall = hits / int(labels.sum())
    return {
        "threshold": float(threshold),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "accuracy": float((predicted == labels).mean()),
        "false_alarm_rate": float(predicted[~labels].mean()),
    }


def threshold_for_false_alarms(negative_scores: np.ndarray, rate: float) -> float:
    """Return the lowest threshold at which the FPR on these negatives is at most ``rate`` (score >= threshold).

    It is chosen on held-out normal images only, so it needs no defect image and is defined at zero-shot, too.
    """
    ordered = np.sort(np.asarray(negative_scores, np.float64))[::-1]
    allowed = int(np.floor(rate * len(ordered) + 1e-9))  # 0.29 * 100 < 29 in floats
    # Just above the score of the first negative that must not be predicted positive, so its ties are not, either.
    return float(np.nextafter(ordered[allowed], np.inf))


def recall_at_false_alarms(labels: np.ndarray, scores: np.ndarray, rate: float = 0.01) -> float:
    """Compute the highest recall, in [0, 1], at an FPR of at most ``rate``.

    It is an oracle, since the threshold is chosen on the normal images that evaluate it. With fewer than 1 / ``rate``
    normal images no false positive is allowed. A defect image that ties with the first disallowed one is missed.
    """
    labels = np.asarray(labels, bool)
    threshold = threshold_for_false_alarms(np.asarray(scores)[~labels], rate)
    return float((np.asarray(scores, np.float64)[labels] >= threshold).mean())


def by_class(names: np.ndarray, scores: np.ndarray, good: str, ap: AveragePrecision) -> dict[str, dict[str, float]]:
    """Compute how well each defect class is separated from the normal images.

    Args:
        names: N str: the class of each image.
        scores: N float.
        good: the class name of normal images; it and another class must occur.
        ap: `average_precision`, `average_precision_trapezoidal` or `average_precision_trapezoidal_ties`.

    Returns:
        For each class except ``good``, sorted: ``support``, its number of images, and ``ap`` against the normal images.
        AP depends on the class frequency: compare it between augmenters, not between classes.
    """
    names, scores = np.asarray(names), np.asarray(scores)
    found = {}
    for name in sorted(set(names.tolist()) - {good}):
        own, used = names == name, (names == name) | (names == good)
        found[name] = {"support": int(own.sum()), "ap": ap(own[used], scores[used])}
    return found


def recall_by_class(names: np.ndarray, scores: np.ndarray, good: str, threshold: float) -> dict[str, float]:
    """Compute the recall of each defect class at ``threshold``; arguments as in `by_class`."""
    names, predicted = np.asarray(names), np.asarray(scores, np.float64) >= threshold
    return {name: float(predicted[names == name].mean()) for name in sorted(set(names.tolist()) - {good})}
