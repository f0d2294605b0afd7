"""Load data from decoded uint8 images on the device, where batches are gathered and normalised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from augbench.core.protocol import Protocol

if TYPE_CHECKING:
    import torch


class DeviceImages:
    """Device-resident images of one cell: rows of uint8 tensors. Batches are gathered and normalised on the device."""

    def __init__(self, parts: list[torch.Tensor], rows: np.ndarray, protocol: Protocol, device: torch.device) -> None:
        """Select images without copying them.

        Args:
            parts: tensors N_i,H,W,3 uint8 on ``device``, treated as concatenated.
            rows: image i of this object is row ``rows[i]`` of the concatenation.
            protocol: gives mean and standard deviation for values in [0, 1].
            device: of the parts and batches.
        """

        self.parts = parts
        self.rows = rows
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self.device = device
        self.normalise = normaliser(protocol, device)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray) -> torch.Tensor:
        """Return the batch of these indices: N,3,H,W float32, normalised, channels_last."""
        import torch

        rows = self.rows[indices]
        part_of = np.searchsorted(self.starts, rows, side="right") - 1
        batch = torch.empty((len(rows), *self.parts[0].shape[1:]), dtype=torch.uint8, device=self.device)
        for number in np.unique(part_of):
            positions = np.flatnonzero(part_of == number)
            rows_in_part = torch.from_numpy(rows[positions] - self.starts[number]).to(self.device)
            batch[torch.from_numpy(positions).to(self.device)] = self.parts[number][rows_in_part]
        return self.normalise(batch)


def normaliser(protocol: Protocol, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that normalises images N,H,W,3 uint8 to N,3,H,W float32, channels_last."""
    import torch

    mean = torch.tensor(protocol.mean, device=device).view(1, 3, 1, 1) * 255
    scale = 1 / (torch.tensor(protocol.std, device=device).view(1, 3, 1, 1) * 255)
    # A permutation is a view: NHWC memory as NCHW is channels_last.
    return lambda images: (images.permute(0, 3, 1, 2).float() - mean) * scale


def on_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return the array as a tensor; on a CPU it shares the memory, which may be read-only."""
    import warnings

    import torch

    with warnings.catch_warnings():
        # Arrays in Ray's object store are read-only, and these tensors are never written.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


class CyclingSampler:
    """Draw members of a set so that none repeats before all others were drawn.

    A strict form of mixed-segdec's frequency sampling, which only favours the least drawn members.
    """

    def __init__(self, members: np.ndarray, rng: np.random.Generator) -> None:
        self.members = members
        self.counts = np.zeros(len(members), np.int64)
        self.rng = rng

    def draw(self, count: int) -> np.ndarray:
        """Return ``count`` members, the least drawn first, ties at random."""
        chosen = []
        while count:
            order = np.lexsort((self.rng.random(len(self.members)), self.counts))[:count]
            self.counts[order] += 1
            chosen.append(self.members[order])
            count -= len(order)
        return np.concatenate(chosen)


class Sampler:
    """Sample equally many members of each group in an epoch, each group by a `CyclingSampler`."""

    def __init__(self, groups: list[np.ndarray], each: int, rng: np.random.Generator) -> None:
        self.groups, self.each, self.rng = [CyclingSampler(members, rng) for members in groups], each, rng

    def epoch(self) -> np.ndarray:
        """Return the shuffled indices of one epoch."""
        return self.rng.permutation(np.concatenate([group.draw(self.each) for group in self.groups]))


def make_sampler(protocol: Protocol, labels: np.ndarray, rng: np.random.Generator, good: bool) -> Sampler:
    """Return the protocol's sampler; with ``epoch_pictures`` an epoch has that many samples, cycling through all.

    - shuffle: every image once.
    - balanced: as many negatives as positives, every positive once, as in mixed-segdec; more synthetic images then also
      mean longer training. Among defect classes alone, equally many of each class, every image of the largest once.

    Args:
        protocol: names the sampler and the samples of an epoch.
        labels: N int.
        rng: of the order.
        good: whether label 0 means a normal image.
    """
    samples = protocol.epoch_pictures
    if protocol.sampler == "shuffle":
        return Sampler([np.arange(len(labels))], samples or len(labels), rng)
    if good:
        positives = np.flatnonzero(labels)
        return Sampler([positives, np.flatnonzero(labels == 0)], samples // 2 if samples else len(positives), rng)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    each = samples // len(classes) if samples else max(map(len, classes))
    return Sampler(classes, max(each, 1), rng)


def batches(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield consecutive batches of ``indices``; a last batch of one joins the one before (BatchNorm needs two)."""
    starts = list(range(0, len(indices), size))
    if len(starts) > 1 and len(indices) - starts[-1] == 1:
        starts.pop()
    ends = [*starts[1:], len(indices)]
    yield from (indices[a:b] for a, b in zip(starts, ends, strict=True))
