"""How close made pictures are to real ones, and whether they are copies, on features N,D of any extractor."""

from __future__ import annotations

import numpy as np


def kid(real: np.ndarray, made: np.ndarray) -> float:
    """Kernel Inception Distance: squared maximum mean discrepancy with the kernel ``(x . y / D + 1) ** 3``, unbiased.

    Binkowski et al., ICLR 2018. Without subsets, so that nothing is drawn. It may be a little below 0 for equal sets,
    and unlike FID it does not depend on how many pictures there are, so it serves where real defects are few.

    Args:
        real: N,D float.
        made: M,D float.

    Raises:
        ValueError: fewer than two rows in one of them.
    """
    if min(len(real), len(made)) < 2:
        raise ValueError("KID needs at least two pictures on each side")
    real, made = (np.asarray(features, np.float64) for features in (real, made))
    within = sum(_off_diagonal_mean(_kernel(features, features)) for features in (real, made))
    return float(within - 2 * _kernel(real, made).mean())


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _off_diagonal_mean(square: np.ndarray) -> float:
    count = len(square)
    return float((square.sum() - np.trace(square)) / (count * (count - 1)))


def nearest(from_these: np.ndarray, to_those: np.ndarray | None = None) -> np.ndarray:
    """Euclidean distance of each row to the nearest of the other set, or of its own without itself: N float64."""
    a = np.asarray(from_these, np.float64)
    b = a if to_those is None else np.asarray(to_those, np.float64)
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    if to_those is None:
        np.fill_diagonal(squared, np.inf)
    return np.sqrt(np.maximum(squared.min(1), 0))
