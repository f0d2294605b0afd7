"""What passes between augmenters and the benchmark: plain values, frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Request:
    """One synthetic picture to make."""

    index: int  # its place in the pool
    seed: int  # its own derived seed, in [0, 2**63)
    label: str  # the class it shall show

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator for this picture alone."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class Synthetic:
    """One synthetic picture."""

    image: np.ndarray  # H,W,3 uint8 RGB, at the dataset's native size
    label: str
    mask: np.ndarray | None = None  # H,W bool: where the defect is, if the augmenter knows
    meta: dict = field(default_factory=dict)  # JSON values, e.g. {"source": sample id, "prompt": ...}


@dataclass(frozen=True)
class Part:
    """A share of a mixture: an augmenter by name, its settings, and how much of N_aug it gives."""

    augmenter: str
    settings: Mapping[str, object]
    share: float


@dataclass(frozen=True)
class Candidate:
    """Settings that a quality search tries in place of an augmenter's own."""

    adapting: Mapping[str, Any] = field(default_factory=dict)  # those that `adapt` reads
    generating: Mapping[str, Any] = field(default_factory=dict)  # those that `generate` alone reads

    @property
    def settings(self) -> dict[str, Any]:
        """All of them."""
        return {**self.adapting, **self.generating}


@dataclass(frozen=True)
class Scoring:
    """How a quality search judges what a candidate made from half of the shots, by the other half."""

    extractor: str  # of features, see classifiers.features
    pictures: int  # made for each class
    least_distance: float  # a candidate whose pictures are nearer to what it saw is refused, see metrics.memorisation
    metric: Literal["kid", "fid"] = "kid"
    folds: int = 1  # 2: each half is adapted on once


@dataclass(frozen=True)
class AdaptContext:
    """Where an adapter is made, beside what it may see.

    ``shared(key, make)`` gives the folder of that key, which ``make(folder)`` fills where there is none yet: for what
    all adapters of a store use alike, such as pictures of a class prompt. The key says all that decides its content.
    """

    scratch: Path  # a folder of its own that outlives an interruption: for checkpoints
    shared: Callable[[str, Callable[[Path], None]], Path]
    device: str = "cpu"  # a torch device
    say: Callable[[int, int, float], None] = lambda step, steps, loss: None  # progress
