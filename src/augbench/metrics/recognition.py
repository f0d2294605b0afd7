"""Recognition metrics of C logits per image. Pure functions.

``labels`` are N int in 0..C-1, ``predicted`` likewise.
"""

from __future__ import annotations

import numpy as np


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Compute the confusion matrix, C,C int64: row = true class, column = predicted class."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(labels), np.asarray(predicted)), 1)
    return matrix


def accuracy(matrix: np.ndarray) -> float:
    """Compute the accuracy from a confusion matrix."""
    return float(np.trace(matrix) / matrix.sum())


def macro_f1(matrix: np.ndarray) -> float:
    """Compute the mean F1 over the classes that occur or were predicted, from a confusion matrix."""
    hits = np.diag(matrix)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)  # predicted + true
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def by_class(matrix: np.ndarray) -> list[dict[str, float]]:
    """Compute precision, recall, F1 (in [0, 1]) and support (true images) of each class, from a confusion matrix.

    A ratio with denominator 0 is 0, as in scikit-learn: precision of a class never predicted, recall of an absent one.
    """
    hits, predicted, true = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return [
        {
            "precision": _share(hits[c], predicted[c]),
            "recall": _share(hits[c], true[c]),
            "f1": _share(2 * hits[c], predicted[c] + true[c]),
            "support": int(true[c]),
        }
        for c in range(len(matrix))
    ]


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0
