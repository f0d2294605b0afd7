"""The resident data loader: decoded uint8 pictures on the device, batches cut and normalised there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from augbench.core.protocol import Protocol

if TYPE_CHECKING:
    import torch


class DeviceImages:
    """Pictures of one cell: rows of arrays that stay on the device as uint8. A batch is cut and normalised there."""

    def __init__(self, parts: list[torch.Tensor], rows: np.ndarray, protocol: Protocol, device: torch.device) -> None:
        """A selection of pictures that copies none.

        Args:
            parts: N_i,H,W,3 uint8 each, on ``device``, seen as one after the other.
            rows: picture i of this object is row ``rows[i]`` of the parts.
            protocol: mean and standard deviation, of values in [0, 1].
            device: where batches are made.
        """
        import torch

        self.parts = parts
        self.rows = rows
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self.device = device
        self.mean = torch.tensor(protocol.mean, device=device).view(1, 3, 1, 1) * 255
        self.scale = 1 / (torch.tensor(protocol.std, device=device).view(1, 3, 1, 1) * 255)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray) -> torch.Tensor:
        """N,3,H,W float32, normalised, channels_last."""
        import torch

        rows = self.rows[indices]
        part_of = np.searchsorted(self.starts, rows, side="right") - 1
        picked = torch.empty((len(rows), *self.parts[0].shape[1:]), dtype=torch.uint8, device=self.device)
        for number in np.unique(part_of):
            here = np.flatnonzero(part_of == number)
            inside = torch.from_numpy(rows[here] - self.starts[number]).to(self.device)
            picked[torch.from_numpy(here).to(self.device)] = self.parts[number][inside]
        pictures = picked.permute(0, 3, 1, 2)  # a view: NHWC memory seen as NCHW is channels_last
        return (pictures.float() - self.mean) * self.scale


def on_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array as a tensor; on a CPU the same memory, which may be read-only."""
    import warnings

    import torch

    with warnings.catch_warnings():
        # Pictures in Ray's object store are read-only. They are only ever read here.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


class CyclingSampler:
    """Draws members of a set so that none comes up again before all others have.

    mixed-segdec's frequency sampling, taken to its end: there those shown least are strongly favoured, here they come
    first.
    """

    def __init__(self, members: np.ndarray, rng: np.random.Generator) -> None:
        self.members = members
        self.used = np.zeros(len(members), np.int64)
        self.rng = rng

    def draw(self, count: int) -> np.ndarray:
        """``count`` members, the least used first, ties at random."""
        chosen = []
        while count:
            order = np.lexsort((self.rng.random(len(self.members)), self.used))[:count]
            self.used[order] += 1
            chosen.append(self.members[order])
            count -= len(order)
        return np.concatenate(chosen)


class BalancedSampler:
    """As many positives as negatives in an epoch, each drawn in turns.

    Without ``pictures`` an epoch holds every positive once, as in mixed-segdec; then more synthetic pictures also mean
    a longer training. With it an epoch has that many pictures whatever there is to draw from.
    """

    def __init__(self, labels: np.ndarray, rng: np.random.Generator, pictures: int | None = None) -> None:
        self.positives = CyclingSampler(np.flatnonzero(labels), rng)
        self.negatives = CyclingSampler(np.flatnonzero(labels == 0), rng)
        self.half = pictures // 2 if pictures else len(self.positives.members)
        self.rng = rng

    def epoch(self) -> np.ndarray:
        """Indices of one epoch, shuffled."""
        return self.rng.permutation(np.concatenate([self.positives.draw(self.half), self.negatives.draw(self.half)]))


class ClassBalancedSampler:
    """As many pictures of each class in an epoch, each drawn in turns: recognition among defects alone.

    Without ``pictures`` an epoch holds every picture of the largest class once.
    """

    def __init__(self, labels: np.ndarray, rng: np.random.Generator, pictures: int | None = None) -> None:
        self.classes = [CyclingSampler(np.flatnonzero(labels == label), rng) for label in np.unique(labels)]
        each = pictures // len(self.classes) if pictures else max(len(turns.members) for turns in self.classes)
        self.each = max(each, 1)
        self.rng = rng

    def epoch(self) -> np.ndarray:
        """Indices of one epoch, shuffled."""
        return self.rng.permutation(np.concatenate([turns.draw(self.each) for turns in self.classes]))


class ShuffleSampler:
    """Every sample once per epoch; with ``pictures``, that many in turns."""

    def __init__(self, labels: np.ndarray, rng: np.random.Generator, pictures: int | None = None) -> None:
        self.all = CyclingSampler(np.arange(len(labels)), rng)
        self.pictures = pictures or len(labels)
        self.rng = rng

    def epoch(self) -> np.ndarray:
        """Indices of one epoch, shuffled."""
        return self.rng.permutation(self.all.draw(self.pictures))


Sampler = BalancedSampler | ClassBalancedSampler | ShuffleSampler


def make_sampler(protocol: Protocol, labels: np.ndarray, rng: np.random.Generator, good: bool) -> Sampler:
    """The protocol's sampler.

    Args:
        protocol: which sampler, and the pictures of an epoch.
        labels: N int.
        rng: of the order.
        good: whether label 0 means a good picture. Where it does not, "balanced" means all classes alike.
    """
    kind = ShuffleSampler if protocol.sampler == "shuffle" else BalancedSampler if good else ClassBalancedSampler
    return kind(labels, rng, protocol.epoch_pictures)


def batches(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive slices of ``indices``; a last batch of one joins the one before (BatchNorm needs two values)."""
    starts = list(range(0, len(indices), size))
    if len(starts) > 1 and len(indices) - starts[-1] == 1:
        starts.pop()
    ends = [*starts[1:], len(indices)]
    yield from (indices[a:b] for a, b in zip(starts, ends, strict=True))
