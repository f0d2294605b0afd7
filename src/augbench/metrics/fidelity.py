"""Metrics of generated images on features N,D: distance to real images, diversity, memorisation.

Compare values only for the same extractor and the same number of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augbench.metrics.detection import auroc

PARTS = 5  # of the cross-validation that tells generated from normal images
STRENGTH = 0.01  # its C: features outnumber images
RESAMPLES = 1000
CONFIDENCE = 0.95


def kid(real: np.ndarray, made: np.ndarray) -> float:
    """Compute the Kernel Inception Distance: unbiased squared MMD with the kernel ``(x . y / D + 1) ** 3``.

    Binkowski et al., ICLR 2018; without random subsets, so it is deterministic. It may be slightly below 0 for equal
    sets. Unlike FID it has no bias that depends on the number of images, so it suits few real defects.

    Args:
        real: N,D float.
        made: M,D float: features of generated images.

    Raises:
        ValueError: one of them has fewer than two rows.
    """
    within, across = _kernels(real, made)
    return float(sum(_off_diagonal_mean(own) for own in within) - 2 * across.mean())


def kid_interval(real: np.ndarray, made: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of `kid` at `CONFIDENCE`, resampling real and generated images.

    Copies of one image in a resample are not compared with each other, since self-similarity would inflate KID.
    Arguments and errors as in `kid`; ``rng`` resamples.
    """
    within, across = _kernels(real, made)
    drawn = [rng.multinomial(len(own), np.full(len(own), 1 / len(own)), RESAMPLES).astype(np.float64) for own in within]
    found = -2 * np.einsum("bn,nm,bm->b", drawn[0], across, drawn[1], optimize=True) / across.size
    for own, times in zip(within, drawn, strict=True):
        pairs = own - np.diag(np.diag(own))
        weight = times.sum(1) ** 2 - (times**2).sum(1)  # number of pairs of different images
        found += np.einsum("bn,nm,bm->b", times, pairs, times, optimize=True) / np.maximum(weight, 1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def fid(real: np.ndarray, made: np.ndarray, singular: bool = False) -> float | None:
    """Compute the Frechet Inception Distance (Heusel et al., NeurIPS 2017) with torchmetrics.

    Args:
        real: N,D float.
        made: M,D float: features of generated images.
        singular: compute it for any numbers of images from two on, as papers do.

    Returns:
        None if one side has no more images than features: its covariance would be singular, and the number of images
        would dominate FID.
    """
    if min(len(real), len(made)) <= real.shape[1] and not singular:
        return None
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    identity = torch.nn.Identity()  # the inputs are features already
    identity.num_features = real.shape[1]
    measure = FrechetInceptionDistance(feature=identity).set_dtype(torch.float64)
    for features, is_real in ((real, True), (made, False)):
        measure.update(torch.from_numpy(np.asarray(features, np.float64)), real=is_real)
    return float(measure.compute())


def diversity(made: np.ndarray) -> float:
    """Compute the mean pairwise Euclidean distance; 0 if all images are equal. Needs at least two rows."""
    from scipy.spatial.distance import pdist

    if len(made) < 2:
        raise ValueError("diversity needs at least two images")
    return float(pdist(np.asarray(made, np.float64)).mean())


def told_apart(normal: np.ndarray, made: np.ndarray, groups: Sequence[str]) -> float | None:
    """Compute the AUROC with which a linear classifier tells generated images from normal ones it was not fitted on.

    Grouped cross-validation of logistic regression with the parts of `PARTS`; .5: not at all. What it sees need not be
    the defects: a seam or a generator's blur will do, which is what the value of a null shows.

    Args:
        normal: N,D float.
        made: M,D float: features of generated images.
        groups: items of the N normal, then of the M generated images; those of one are never on both sides of a fit.

    Returns:
        None where one side has fewer than `PARTS` items.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.repeat([0, 1], [len(normal), len(made)])
    items = np.asarray(groups, str)
    if min(len(set(items[labels == side])) for side in (0, 1)) < PARTS:
        return None
    features = np.concatenate([normal, made]).astype(np.float64)
    scores = np.empty(len(labels))
    for fitted, left in StratifiedGroupKFold(PARTS).split(features, labels, items):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000))
        scores[left] = model.fit(features[fitted], labels[fitted]).decision_function(features[left])
    return auroc(labels, scores)


def memorisation(made: np.ndarray, shots: np.ndarray, unseen: np.ndarray) -> float:
    """Compute the relative distance of generated images to the training images; low values indicate copies.

    It is the median distance of generated images to the nearest shot, divided by that of unseen real images: 0 for
    copies, 1 if they are as far away as unseen images. Both use the same shots, so their number cancels. Use features
    that ignore fine grain, which every generator changes: thumbnails, see classifiers.features.
    """
    return float(np.median(nearest(made, shots)) / max(np.median(nearest(unseen, shots)), 1e-12))


def _kernels(real: np.ndarray, made: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the kernel matrices within each side, and across."""
    if min(len(real), len(made)) < 2:
        raise ValueError("KID needs at least two images on each side")
    real, made = (np.asarray(features, np.float64) for features in (real, made))
    return [_kernel(own, own) for own in (real, made)], _kernel(real, made)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _off_diagonal_mean(square: np.ndarray) -> float:
    count = len(square)
    return float((square.sum() - np.trace(square)) / (count * (count - 1)))


def nearest(from_these: np.ndarray, to_those: np.ndarray | None = None) -> np.ndarray:
    """Return the distance of each row to its nearest neighbour in the other set, or in its own set: N float64."""
    a = np.asarray(from_these, np.float64)
    b = a if to_those is None else np.asarray(to_those, np.float64)
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    if to_those is None:
        np.fill_diagonal(squared, np.inf)
    return np.sqrt(np.maximum(squared.min(1), 0))
