"""Collapse: a classifier whose scores do not tell its test images apart, so that its metrics measure the ties.

It is found from the scores alone, without labels: a classifier at chance whose scores differ has not collapsed.
"""

from __future__ import annotations

import numpy as np

ROUNDING = 64
"""Units in the last place of float32 by which the scores of equal images differ: sums in batches of other sizes."""


def collapsed(logits: np.ndarray) -> bool:
    """Return whether more than half of the images share one score, or all scores are equal up to rounding.

    Args:
        logits: N or N,C float32; with C columns a score is a row of them.
    """
    scores = np.asarray(logits, np.float32)
    scores = scores.reshape(len(scores), -1)
    if len(scores) < 2:
        return False
    spread = np.ptp(scores, axis=0).max()
    if spread <= ROUNDING * np.spacing(np.abs(scores).max()):
        return True
    # More than half can share a score only if the median of a column does, so no other value need be counted.
    middle = np.sort(scores[:, 0])[(len(scores) - 1) // 2 : len(scores) // 2 + 1]
    for value in dict.fromkeys(middle.tolist()):
        tied = scores[scores[:, 0] == np.float32(value)]
        if 2 * len(tied) <= len(scores):
            continue
        _, counts = np.unique(tied, axis=0, return_counts=True)
        if 2 * int(counts.max()) > len(scores):
            return True
    return False
