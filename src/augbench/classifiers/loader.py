"""The resident data loader: decoded uint8 pictures on the device, batches cut and normalised there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from augbench.core.protocol import Protocol

if TYPE_CHECKING:
    import torch


class Resident:
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


class BalancedSampler:
    """All positives once per epoch and as many negatives, the least used first (mixed-segdec's frequency sampling).

    Every negative is shown once before any is shown twice. With more positives than negatives, negatives repeat.
    """

    def __init__(self, labels: np.ndarray, rng: np.random.Generator) -> None:
        self.positives = np.flatnonzero(labels)
        self.negatives = np.flatnonzero(labels == 0)
        self.used = np.zeros(len(self.negatives), np.int64)
        self.rng = rng

    def epoch(self) -> np.ndarray:
        """Indices of one epoch, shuffled."""
        left, chosen = len(self.positives), []
        while left:
            order = np.lexsort((self.rng.random(len(self.negatives)), self.used))[:left]
            self.used[order] += 1
            chosen.append(self.negatives[order])
            left -= len(order)
        return self.rng.permutation(np.concatenate([self.positives, *chosen]))


class ShuffleSampler:
    """Every sample once per epoch."""

    def __init__(self, labels: np.ndarray, rng: np.random.Generator) -> None:
        self.count = len(labels)
        self.rng = rng

    def epoch(self) -> np.ndarray:
        """Indices of one epoch, shuffled."""
        return self.rng.permutation(self.count)


SAMPLERS = {"balanced": BalancedSampler, "shuffle": ShuffleSampler}


def batches(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive slices of ``indices``; a last batch of one joins the one before (BatchNorm needs two values)."""
    starts = list(range(0, len(indices), size))
    if len(starts) > 1 and len(indices) - starts[-1] == 1:
        starts.pop()
    ends = [*starts[1:], len(indices)]
    yield from (indices[a:b] for a, b in zip(starts, ends, strict=True))
