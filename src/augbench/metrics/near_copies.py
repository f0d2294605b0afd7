"""Find near-copies among images: re-encoded, resized, shifted or brightness-changed copies, exposures of one item.

Images of repetitive surfaces are alike without being the same, so no fixed threshold fits all datasets. The threshold
is set per dataset by target and decoy, as in database searches of mass spectra (Elias, Gygi, Nature Methods 4, 2007):
the same search against mirrored images, which show no common item, estimates how many pairs are found by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np

SIDE = 96  # of a thumbnail, in pixels
NOMINATION_BANDS = ((3, 12), (4, 24))  # half cycles per image; the coarse one survives shifts, the fine has details
CONFIRMATION_BAND = (3, 40)  # cycles per image: with the grain that tells alike surfaces apart, without JPEG's noise
COMPONENTS = 16  # principal components that hold what most images share, e.g. the bus bars of solar cells
IMAGES_PER_COMPONENT = 50  # in smaller datasets fewer components are removed, or they would hold the copies
NEAREST = 4  # nominated pairs per image and band
MAX_CANDIDATES = 30_000  # nominated pairs per band, from where on there are fewer per image, but one at least
MAX_SHIFT = SIDE // 12  # pixels of a thumbnail
FALSE_SHARE = 0.01  # of the found pairs may be false
FALSE_PAIRS = 0.05  # expected false pairs that are allowed where there are few pairs
TAIL = 20  # the decoys that the tail is extrapolated from
SAMPLE = 500  # images that the mean and the amplitudes of a dataset are measured on
BLOCK = 1024  # rows of a matrix product
BATCH = 256  # pairs that are aligned together
MIRRORED = 0.9  # score of an image and a mirrored one that show the same
MAX_CROSS = 1024  # pairs between two clusters that are looked at before they are joined

T = TypeVar("T")


@dataclass(frozen=True)
class NearCopies:
    """Pairs of images that show the same, the best first."""

    pairs: np.ndarray  # P,2 int: indices of images, the smaller first; also of those that only a cluster joins
    scores: np.ndarray  # P: correlation of the aligned images, in [0, 1]
    threshold: float  # the least score of a pair; infinite where no pair is better than chance
    expected_false: float  # how many of the pairs mirrored images let expect by chance
    mirrored: int  # pairs of an image and a mirrored image that correlate by more than `MIRRORED`
    clusters: list[list[int]]  # images that all show the same, of at least two images, the largest first
    largest_component: int  # images that are connected by pairs, at most


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduce H,W,3 uint8 to the grey `SIDE`,`SIDE` uint8 image that near-copies are searched on."""
    from PIL import Image

    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX if min(grey.size) >= SIDE else None))


def near_copies(thumbnails: np.ndarray) -> NearCopies:
    """Find the pairs of near-copies among N thumbnails.

    Pairs are nominated by the correlation of their band-passed thumbnails without the mean and the leading principal
    components of the dataset, and confirmed by aligning them. Memory grows with N only: products are made in blocks.

    Args:
        thumbnails: N,`SIDE`,`SIDE` uint8, see `thumbnail`.
    """
    if len(thumbnails) < 2:
        return NearCopies(np.empty((0, 2), int), np.empty(0), math.inf, 0.0, 0, [], min(len(thumbnails), 1))
    aligner = Aligner(thumbnails)
    found, *mirrored = nominations(thumbnails)
    scores = aligner.scores(found)
    decoys = [aligner.scores(pairs, axis) for axis, pairs in enumerate(mirrored)]
    threshold, expected = threshold_of(scores, decoys)
    good = np.argsort(-scores, kind="stable")
    good = good[scores[good] >= threshold]
    clusters = complete_linkage(found[good], lambda more: aligner.scores(more) >= threshold)
    within = [pair for cluster in clusters for pair in combinations(cluster, 2)]
    pairs = np.unique(np.concatenate([found[good], np.array(within, int).reshape(-1, 2)]), axis=0)
    scores = aligner.scores(pairs)
    order = np.argsort(-scores, kind="stable")
    return NearCopies(
        pairs[order],
        scores[order],
        threshold,
        expected,
        sum(int((one >= MIRRORED).sum()) for one in decoys),
        clusters,
        largest_component(pairs),
    )


def nominations(thumbnails: np.ndarray) -> list[np.ndarray]:
    """Nominate pairs of images, then as many of an image that is turned upside down, or left to right, and another."""
    number = min(max(MAX_CANDIDATES // len(thumbnails), 1), NEAREST, len(thumbnails) - 1)
    found: list[list[np.ndarray]] = [[], [], []]
    for band in NOMINATION_BANDS:
        features, mirrors = nomination_features(thumbnails, band)
        for pairs, signs in zip(found, (1, *mirrors), strict=True):
            pairs.append(nominate(features * signs, features, number))
    return [np.unique(np.concatenate(pairs), axis=0) for pairs in found]


def nomination_features(
    thumbnails: np.ndarray, limits: tuple[int, int]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return unit vectors whose products are the correlations of band-passed thumbnails: N,D float32.

    They are cosine coefficients. Mirroring an image changes the sign of the odd ones, so the features of mirrored
    images are products with signs: also returned, D each, for images turned upside down and left to right.
    """
    from scipy.fft import dctn
    from scipy.sparse.linalg import eigsh

    rows, columns = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot(rows, columns)
    low, top = limits
    band = (radius >= low) & (radius < top)
    kept = band[:top, :top]
    features = np.empty((len(thumbnails), int(band.sum())), np.float32)
    for start in range(0, len(thumbnails), BLOCK):
        part = thumbnails[start : start + BLOCK].astype(np.float32)
        features[start : start + BLOCK] = dctn(part, axes=(1, 2), norm="ortho")[:, :top, :top][:, kept]
    _normalise(features)
    features -= features.mean(axis=0)
    if components := min(COMPONENTS, len(features) // IMAGES_PER_COMPONENT):
        leading = eigsh(features.T @ features, components, v0=np.ones(features.shape[1], np.float32))[1]
        features -= (features @ leading) @ leading.T
    # The coarse coefficients vary most: without weights they alone would decide.
    features /= np.sqrt(features.std(axis=0)) + 1e-6
    _normalise(features)
    return features, tuple(np.where(order[band] % 2, -1, 1).astype(np.float32) for order in (rows, columns))


def _normalise(features: np.ndarray) -> None:
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)


def nominate(left: np.ndarray, right: np.ndarray, number: int) -> np.ndarray:
    """Return the pairs of each image and its nearest others: those with the largest products ``left[i] @ right[j]``.

    Args:
        left: N,D features.
        right: N,D features.
        number: how many others, less than N.

    Returns:
        P,2 indices, the smaller first, without duplicates.
    """
    pairs = []
    for start in range(0, len(left), BLOCK):
        products = left[start : start + BLOCK] @ right.T
        rows = np.arange(len(products))
        products[rows, rows + start] = -np.inf
        for _ in range(number):
            nearest = products.argmax(axis=1)
            products[rows, nearest] = -np.inf
            pairs.append(np.stack([rows + start, nearest], axis=1))
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


class Aligner:
    """Aligns pairs of thumbnails by phase correlation and tells how well they agree.

    Spectra lose the dataset's mean and are divided by its mean amplitudes and by the root of their own, so that neither
    what all images share nor a few strong frequencies decide. Gain and offset of the brightness have no influence.
    """

    def __init__(self, thumbnails: np.ndarray) -> None:
        """Measure what the images share on evenly spaced thumbnails: N,`SIDE`,`SIDE` uint8."""
        self.thumbnails = thumbnails
        rise = np.minimum(1, 3 * np.hanning(SIDE + 2)[1:-1])
        self._taper = np.outer(rise, rise).astype(np.float32)
        chosen = np.linspace(0, len(thumbnails) - 1, min(len(thumbnails), SAMPLE)).astype(int)
        sample = self._standardised(thumbnails[chosen])
        self._mean = sample.mean(axis=0)
        power = (np.abs(self._spectra(sample - self._mean)) ** 2).mean(axis=0)
        down, across = np.fft.fftfreq(SIDE) * SIDE, np.arange(CONFIRMATION_BAND[1])
        radius = np.hypot(down[:, None], across)
        band = (radius >= CONFIRMATION_BAND[0]) & (radius < CONFIRMATION_BAND[1])
        self._weights = np.where(band, 1 / np.sqrt(power + 1e-6 * power.max() + 1e-12), 0).astype(np.float32)
        # The inverse Fourier transform at small shifts only. Half of the plane stands for the whole: every column of
        # spectra but the first counts twice.
        self._counts = np.where(across, 2, 1).astype(np.float32)
        turns = 2j * np.pi / SIDE * np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
        self._down = np.exp(np.outer(turns, down)).astype(np.complex64)
        self._across = (np.exp(np.outer(across, turns)) * self._counts[:, None]).astype(np.complex64)

    @staticmethod
    def _standardised(thumbnails: np.ndarray) -> np.ndarray:
        images = thumbnails.astype(np.float32)
        images -= images.mean(axis=(1, 2), keepdims=True)
        images /= images.std(axis=(1, 2), keepdims=True) + 1
        return images

    def _spectra(self, images: np.ndarray) -> np.ndarray:
        """Return the low frequencies of standardised images without the mean: n,`SIDE`,columns complex64."""
        from scipy.fft import rfft2

        return rfft2(images * self._taper, workers=-1)[:, :, : CONFIRMATION_BAND[1]]

    def _unit_spectra(self, indices: np.ndarray, mirrored: int | None) -> np.ndarray:
        images = self._standardised(self.thumbnails[indices]) - self._mean
        spectra = self._spectra(images if mirrored is None else np.flip(images, 1 + mirrored)) * self._weights
        amplitudes = np.abs(spectra)
        energy = (amplitudes * self._counts).sum(axis=(1, 2))
        return spectra / np.sqrt(np.maximum(amplitudes, 1e-12) * np.maximum(energy, 1e-12)[:, None, None])

    def scores(self, pairs: np.ndarray, mirrored: int | None = None) -> np.ndarray:
        """Return the best correlation of each pair over shifts by up to `MAX_SHIFT` pixels: in [0, 1].

        Args:
            pairs: P,2 indices of thumbnails.
            mirrored: the axis along which the first image of each pair is mirrored; None: not at all.
        """
        scores = np.empty(len(pairs))
        for start in range(0, len(pairs), BATCH):
            part = pairs[start : start + BATCH]
            (own, at), (others, there) = (np.unique(side, return_inverse=True) for side in part.T)
            spectra = self._unit_spectra(own, mirrored)[at] * np.conj(self._unit_spectra(others, None)[there])
            scores[start : start + BATCH] = (self._down @ spectra @ self._across).real.max(axis=(1, 2))
        return scores


def threshold_of(scores: np.ndarray, decoys: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return the lowest threshold with few enough false pairs, and how many false pairs to expect at it.

    `FALSE_SHARE` of the pairs may be false, or `FALSE_PAIRS` where there are few. As many false pairs are expected as
    there are decoys, of the mirroring that leaves more; beyond the `TAIL` best decoys, an exponential continues them.

    Args:
        scores: of the nominated pairs.
        decoys: the scores of pairs of an image and a mirrored image, for each way of mirroring.

    Returns:
        Infinity and 0 where no threshold will do.
    """
    thresholds = np.sort(scores)[::-1]
    expected = np.zeros(len(thresholds))
    for one in decoys:
        ranked = np.sort(one)[::-1]
        tail = ranked[:TAIL]
        least = tail[-1]
        # A handful of decoys tells little about a tail: assume a long one.
        scale = max(float((tail - least).mean()), 0.01 if len(tail) == TAIL else 0.05)
        beyond = len(tail) * np.exp(np.minimum((least - thresholds) / scale, 0))
        counted = np.searchsorted(-ranked, -thresholds, side="right")
        expected = np.maximum(expected, np.maximum(beyond, counted))
    allowed = np.maximum(FALSE_SHARE * np.arange(1, len(thresholds) + 1), FALSE_PAIRS)
    fine = np.nonzero(expected <= allowed)[0]
    if not len(fine):
        return math.inf, 0.0
    return float(thresholds[fine[-1]]), float(expected[fine[-1]])


def complete_linkage(pairs: np.ndarray, agree: Callable[[np.ndarray], np.ndarray]) -> list[list[int]]:
    """Cluster images so that each shows the same as every other one of its cluster: no chains.

    Args:
        pairs: P,2 pairs that agree, the best first.
        agree: tells of further pairs, Q,2, whether they agree: Q bool.

    Returns:
        Clusters of at least two images, sorted, the largest first.
    """
    known = dict.fromkeys(map(tuple, pairs.tolist()), True)
    cluster_of: dict[int, list[int]] = {}
    for i, j in list(known):
        own, other = (cluster_of.setdefault(one, [one]) for one in (i, j))
        if own is other or len(own) * len(other) > MAX_CROSS:
            continue
        cross = [(min(a, b), max(a, b)) for a in own for b in other]
        unknown = [pair for pair in cross if pair not in known]
        if unknown and all(known.get(pair, True) for pair in cross):
            known.update(zip(unknown, map(bool, agree(np.array(unknown))), strict=True))
        if all(known.get(pair) for pair in cross):
            own += other
            cluster_of.update(dict.fromkeys(other, own))
    clusters = {id(cluster): sorted(cluster) for cluster in cluster_of.values() if len(cluster) > 1}
    return sorted(clusters.values(), key=lambda cluster: (-len(cluster), cluster))


def largest_component(pairs: np.ndarray) -> int:
    """Return the number of images in the largest set that pairs connect, also through others; 1 without pairs."""
    return max((len(part) for part in components(pairs.tolist())), default=1)


def components(pairs: Iterable[Sequence[T]]) -> list[list[T]]:
    """Return the sets that pairs, or longer tuples, connect, also through others; members sorted."""
    part_of: dict[T, list[T]] = {}
    for first, *others in pairs:
        own = part_of.setdefault(first, [first])
        for one in others:
            other = part_of.setdefault(one, [one])
            if own is not other:
                small, own = sorted((own, other), key=len)
                own += small
                part_of.update(dict.fromkeys(small, own))
    return sorted(sorted(part) for part in {id(part): part for part in part_of.values()}.values())
