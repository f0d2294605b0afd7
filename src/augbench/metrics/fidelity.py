"""How close made pictures are to real ones, how much they differ, and whether they are copies; on features N,D.

Numbers of different extractors, or of different numbers of pictures, must not be compared.
"""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95


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
    within, across = _kernels(real, made)
    return float(sum(_off_diagonal_mean(own) for own in within) - 2 * across.mean())


def kid_interval(real: np.ndarray, made: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The percentile bootstrap interval of `kid`, at `CONFIDENCE`: real and made pictures are drawn again.

    A picture that is drawn twice is not compared with itself, or KID would be too large by what a picture is like
    itself. Arguments and errors as in `kid`; ``rng`` draws.
    """
    within, across = _kernels(real, made)
    drawn = [rng.multinomial(len(own), np.full(len(own), 1 / len(own)), RESAMPLES).astype(np.float64) for own in within]
    found = -2 * np.einsum("bn,nm,bm->b", drawn[0], across, drawn[1], optimize=True) / across.size
    for own, times in zip(within, drawn, strict=True):
        pairs = own - np.diag(np.diag(own))
        weight = times.sum(1) ** 2 - (times**2).sum(1)  # of pairs of different pictures
        found += np.einsum("bn,nm,bm->b", times, pairs, times, optimize=True) / np.maximum(weight, 1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def fid(real: np.ndarray, made: np.ndarray) -> float | None:
    """Frechet Inception Distance (Heusel et al., NeurIPS 2017), by torchmetrics.

    Returns:
        None where one side has no more pictures than features: its covariance would be singular, and FID would say
        more of how many pictures there are than of what they show.
    """
    if min(len(real), len(made)) <= real.shape[1]:
        return None
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    seen = torch.nn.Identity()  # these are features already
    seen.num_features = real.shape[1]
    measure = FrechetInceptionDistance(feature=seen).set_dtype(torch.float64)
    for features, is_real in ((real, True), (made, False)):
        measure.update(torch.from_numpy(np.asarray(features, np.float64)), real=is_real)
    return float(measure.compute())


def diversity(made: np.ndarray) -> float:
    """Mean Euclidean distance between two different pictures; 0 if all are the same. At least two rows."""
    from scipy.spatial.distance import pdist

    if len(made) < 2:
        raise ValueError("diversity needs at least two pictures")
    return float(pdist(np.asarray(made, np.float64)).mean())


def memorisation(made: np.ndarray, shots: np.ndarray, unseen: np.ndarray) -> float:
    """How near made pictures are to those that were learned from, against how near other real pictures are to them.

    The median distance of made pictures to the nearest shot, over that of real pictures that nothing was learned from:
    1 is as far as they, 0 is copies. Both are measured to the same shots, so their number does not matter. What rows
    hold must not hide a copy behind what any generator does to grain: thumbnails, see classifiers.features.
    """
    return float(np.median(nearest(made, shots)) / max(np.median(nearest(unseen, shots)), 1e-12))


def _kernels(real: np.ndarray, made: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Of pairs within each side, and across."""
    if min(len(real), len(made)) < 2:
        raise ValueError("KID needs at least two pictures on each side")
    real, made = (np.asarray(features, np.float64) for features in (real, made))
    return [_kernel(own, own) for own in (real, made)], _kernel(real, made)


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
