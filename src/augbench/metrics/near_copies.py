"""Find near-copies among images: re-encoded, resized, shifted or brightness-changed copies, exposures of one item.

Images of repetitive surfaces are alike without being the same, so no fixed threshold fits all datasets. The threshold
is set per dataset by target and decoy, as in database searches of mass spectra (Elias, Gygi, Nature Methods 4, 2007):
the same search against mirrored images, which show no common item, estimates how many pairs are found by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np

SIDE = 96  # of the thumbnails that nominate pairs, in pixels
FULL_SIDE = 192  # of the images that confirm them
NOMINATION_BAND = (2, 16)  # cycles per image
CONFIRMATION_BAND = (3, 40)  # cycles per image: the grain that tells alike surfaces apart, without JPEG's noise
STRAIGHT = 2  # cycles per image: what varies less along rows or columns is bus bars, finger lines, rolling marks
NEAREST = 4  # nominated pairs per image
MAX_CANDIDATES = 80_000  # nominated pairs, from where on there are fewer per image, but one at least
MAX_SHIFT = 12  # shifts of up to 1/12 of a side are found
FALSE_SHARE = 0.01  # of the found pairs may be false
LENIENT_SHARE = 0.5  # of the pairs that are confirmed on full images may be false
FALSE_PAIRS = 0.05  # expected false pairs that are allowed where there are few pairs
TAIL = 20  # the decoys that the tail is extrapolated from
SAMPLE = 500  # images that the mean of a dataset is measured on
BLOCK = 1024  # rows of a matrix product
BATCH = 128  # pairs that are aligned together
MIRRORED = 0.9  # score of an image and a mirrored one that show the same
MAX_CROSS = 1024  # pairs between two clusters that are looked at before they are joined

T = TypeVar("T")


@dataclass(frozen=True)
class NearCopies:
    """Pairs of images that show the same, the best first."""

    pairs: np.ndarray  # P,2 int: indices of images, the smaller first; also of those that only a cluster joins
    scores: np.ndarray  # P: phase correlation of the aligned images, at most 1
    threshold: float  # the least score of a pair; infinite where no pair is better than chance
    expected_false: float  # how many of the pairs mirrored images let expect by chance
    mirrored: int  # pairs of an image and a mirrored image that correlate by more than `MIRRORED`
    clusters: list[list[int]]  # images that all show the same, of at least two images, the largest first
    largest_component: int  # images that are connected by pairs, at most


def thumbnail(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Reduce H,W,3 uint8 to the grey square uint8 image that near-copies are searched on."""
    from PIL import Image

    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((side, side), Image.Resampling.BOX if min(grey.size) >= side else None))


def near_copies(thumbnails: np.ndarray, read: Callable[[np.ndarray], np.ndarray]) -> NearCopies:
    """Find the pairs of near-copies among N images.

    Thumbnails of like amplitude spectra, which no shift changes, are nominated. Those that agree when aligned, at a
    threshold that is lenient, are aligned again as larger images. Beyond the thumbnails, memory is bounded.

    Args:
        thumbnails: N,`SIDE`,`SIDE` uint8, see `thumbnail`.
        read: reads images by their indices, n: n,`FULL_SIDE`,`FULL_SIDE` uint8.
    """
    nothing = NearCopies(np.empty((0, 2), int), np.empty(0), math.inf, 0.0, 0, [], min(len(thumbnails), 1))
    if len(thumbnails) < 2:
        return nothing
    coarse = Spectra(thumbnails.__getitem__, len(thumbnails), SIDE)
    found, mirrored = coarse.nominations()
    scores = coarse.scores(found)
    decoys = [coarse.scores(mirrored, axis) for axis in (0, 1)]
    alike = sum(int((one >= MIRRORED).sum()) for one in decoys)
    found = found[scores >= threshold_of(scores, decoys, LENIENT_SHARE)[0]]
    if not len(found):
        return replace(nothing, mirrored=alike)
    fine = Spectra(read, len(thumbnails), FULL_SIDE)
    scores = fine.scores(found)
    best = [np.sort(np.argsort(-one, kind="stable")[: max(len(found), TAIL)]) for one in decoys]
    decoys = [fine.scores(mirrored[chosen], axis) for axis, chosen in enumerate(best)]
    threshold, expected = threshold_of(scores, decoys)
    good = np.argsort(-scores, kind="stable")
    good = good[scores[good] >= threshold]
    clusters = complete_linkage(found[good], lambda more: fine.scores(more) >= threshold)
    within = [pair for cluster in clusters for pair in combinations(cluster, 2)]
    pairs = np.unique(np.concatenate([found[good], np.array(within, int).reshape(-1, 2)]), axis=0)
    scores = fine.scores(pairs)
    order = np.argsort(-scores, kind="stable")
    return NearCopies(
        pairs[order],
        scores[order],
        threshold,
        expected,
        alike,
        clusters,
        largest_component(pairs),
    )


class Spectra:
    """The low frequencies of images without what the dataset's images share: amplitudes nominate, phases confirm.

    Phase-only correlation is that of Kuglin, Hines (1975), limited to a band as by Ito et al. (IEICE Trans. E87-A,
    2004): all frequencies count alike, so a few strong ones that alike surfaces share cannot decide. Brightness (gain
    and offset) has no influence.
    """

    def __init__(self, images: Callable[[np.ndarray], np.ndarray], number: int, side: int) -> None:
        """Measure the mean of evenly spaced images.

        Args:
            images: reads images by their indices, n: n,``side``,``side`` uint8.
            number: of images.
            side: of images, in pixels.
        """
        self._images, self._number = images, number
        low, self._columns = CONFIRMATION_BAND
        rise = np.minimum(1, 3 * np.hanning(side + 2)[1:-1])
        self._taper = np.outer(rise, rise).astype(np.float32)
        self._mean = np.zeros((side, side), np.float32)
        self._mean = self._standardised(np.linspace(0, number - 1, min(number, SAMPLE)).astype(int)).mean(axis=0)
        down, across = np.fft.fftfreq(side) * side, np.arange(self._columns)
        radius = np.hypot(down[:, None], across)
        curved = (np.abs(down[:, None]) >= STRAIGHT) & (across >= STRAIGHT)
        self._nominating = (radius >= NOMINATION_BAND[0]) & (radius < NOMINATION_BAND[1]) & curved
        self._confirming = (radius >= low) & (radius < self._columns) & curved
        # The inverse Fourier transform at small shifts only; half of the plane stands for the whole.
        turns = 2j * np.pi / side * np.arange(-(side // MAX_SHIFT), side // MAX_SHIFT + 1)
        self._down = np.exp(np.outer(turns, down)).astype(np.complex64)
        self._across = (np.exp(np.outer(across, turns)) / self._confirming.sum()).astype(np.complex64)

    def _standardised(self, indices: np.ndarray) -> np.ndarray:
        images = self._images(indices).astype(np.float32)
        images -= images.mean(axis=(1, 2), keepdims=True)
        images /= images.std(axis=(1, 2), keepdims=True) + 1
        return images - self._mean

    def _spectra(self, indices: np.ndarray) -> np.ndarray:
        """Return low frequencies: n,side,columns complex64."""
        from scipy.fft import rfft2

        return rfft2(self._standardised(indices) * self._taper, workers=-1)[:, :, : self._columns]

    def nominations(self) -> tuple[np.ndarray, np.ndarray]:
        """Nominate pairs of images, P,2, and as many of a mirrored image and another, Q,2.

        Both ways of mirroring, up-down and left-right, have the same amplitudes, and so the same pairs.
        """
        number = min(max(MAX_CANDIDATES // self._number, 1), NEAREST, self._number - 1)
        features = np.empty((self._number, int(self._nominating.sum())), np.float32)
        for start in range(0, self._number, BLOCK):
            part = np.arange(start, min(start + BLOCK, self._number))
            features[part] = np.log(np.abs(self._spectra(part)[:, self._nominating]) + 1e-3)
        features -= features.mean(axis=1, keepdims=True)
        features -= features.mean(axis=0)
        features /= features.std(axis=0) + 1e-6
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
        places = np.zeros(self._nominating.shape, int)
        places[self._nominating] = np.arange(features.shape[1])
        mirrored = features[:, _mirrored(places[None], 0)[0][self._nominating]]
        return nominate(features, features, number), nominate(mirrored, features, number)

    def scores(self, pairs: np.ndarray, mirrored: int | None = None) -> np.ndarray:
        """Return the best phase correlation of each pair over shifts by up to 1/`MAX_SHIFT` of a side: at most 1.

        Args:
            pairs: P,2 indices of images.
            mirrored: the axis along which the first image of each pair is mirrored; None: not at all.
        """
        scores = np.empty(len(pairs))
        for start in range(0, len(pairs), BATCH):
            part = pairs[start : start + BATCH]
            used, places = np.unique(part, return_inverse=True)
            spectra = self._spectra(used)
            phases = spectra / np.maximum(np.abs(spectra), 1e-12) * self._confirming
            first, second = places.reshape(-1, 2).T
            own = phases[first] if mirrored is None else _mirrored(phases[first], mirrored)
            aligned = self._down @ (own * phases[second].conj()) @ self._across
            scores[start : start + BATCH] = aligned.real.max(axis=(1, 2))
        return scores


def _mirrored(spectra: np.ndarray, axis: int) -> np.ndarray:
    """Return half spectra, n,side,columns, of images that are mirrored along an axis, but for a shift by one pixel."""
    upside_down = np.roll(spectra[:, ::-1], 1, axis=1)
    return upside_down if axis == 0 else upside_down.conj()


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


def threshold_of(scores: np.ndarray, decoys: Iterable[np.ndarray], share: float = FALSE_SHARE) -> tuple[float, float]:
    """Return the lowest threshold with few enough false pairs, and how many false pairs to expect at it.

    A share of the pairs may be false, or `FALSE_PAIRS` where there are few. As many false pairs are expected as
    there are decoys, of the mirroring that leaves more; beyond the `TAIL` best decoys, an exponential continues them.

    Args:
        scores: of the nominated pairs.
        decoys: the scores of pairs of an image and a mirrored image, for each way of mirroring.
        share: of the pairs that may be false.

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
    allowed = np.maximum(share * np.arange(1, len(thresholds) + 1), FALSE_PAIRS)
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
