"""Frozen dataclasses that augmenters and the benchmark exchange."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Request:
    """A request for one synthetic image."""

    index: int  # index in the pool
    seed: int  # derived for this image, in [0, 2**63)
    label: str  # class of the defect

    @property
    def rng(self) -> np.random.Generator:
        """A new generator for this image."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class Synthetic:
    """A synthetic image."""

    image: np.ndarray  # H,W,3 uint8 RGB, in the dataset's native size
    label: str
    mask: np.ndarray | None = None  # H,W bool: defect pixels; None: unknown
    meta: dict = field(default_factory=dict)  # JSON values, e.g. {"source": sample id, "prompt": ...}


@dataclass(frozen=True)
class Part:
    """A part of a mixture: an augmenter by name, its settings, and its share of N_aug."""

    augmenter: str
    settings: Mapping[str, object]
    share: float


@dataclass(frozen=True)
class Candidate:
    """Settings that a quality search tries instead of an augmenter's own."""

    adapting: Mapping[str, Any] = field(default_factory=dict)  # settings that `adapt` reads
    generating: Mapping[str, Any] = field(default_factory=dict)  # settings that only `generate` reads

    @property
    def settings(self) -> dict[str, Any]:
        """Both kinds of settings together."""
        return {**self.adapting, **self.generating}


@dataclass(frozen=True)
class Scoring:
    """How a quality search scores a candidate: trained on half of the shots, evaluated against the other half."""

    extractor: str  # feature extractor, see classifiers.features
    pictures: int  # generated images per class
    least_distance: float  # a candidate with a lower `fidelity.memorisation` is refused
    metric: Literal["kid", "fid"] = "kid"
    folds: int = 1  # 2: train once on each half


@dataclass(frozen=True)
class AdaptContext:
    """Resources for `Augmenter.adapt`: folders, device and progress callback.

    ``shared(key, make)`` returns the folder of that key and calls ``make(folder)`` to fill it if it does not exist. It
    holds what all adapters of a store have in common, such as images of a class prompt. The key must determine the
    content.
    """

    scratch: Path  # folder for checkpoints; survives an interruption
    shared: Callable[[str, Callable[[Path], None]], Path]
    device: str = "cpu"  # a torch device
    say: Callable[[int, int, float], None] = lambda step, steps, loss: None  # progress: step, number of steps, loss
