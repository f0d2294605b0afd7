"""Catch trials: real defects and unmodified normal images, hidden among the images that a person certifies.

A real defect should be accepted (a hit), a normal image rejected (else a false accept). They tell how far to trust the
decisions, and never enter ``accepted/``. While there are any, the page hides what would give them away: prompt, seed,
and the comparison with the source.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from augbench.core.errors import UserError
from augbench.core.seeds import rng
from augbench.diffusion.masks import procedural_region
from augbench.metrics.inference import wilson
from augbench.studio.review import Item, Review
from augbench.studio.training import TrainingImages

MOST = 0.5  # share of the queue


class Catches:
    """Adds catch trials to a review, and counts how they were decided."""

    def __init__(self, review: Review, training: TrainingImages, share: float, label: str) -> None:
        """Add none where the share is 0.

        Args:
            review: gets the trials.
            training: they are images of it.
            share: of the queue, in [0, `MOST`].
            label: the class of synthetic images, which trials have, too.

        Raises:
            UserError: the share is out of range.
        """
        if not 0 <= share <= MOST:
            raise UserError(f"--catch {share:g}: a share from 0 to {MOST:g} of the images to certify")
        self.review, self.training, self.share, self.label = review, training, share, label

    @property
    def are_hidden(self) -> bool:
        """Whether there are trials, so that the page must not give them away."""
        return bool(self.share) or self.review.has_catches()

    def follow(self) -> None:
        """Add a trial if one is due, after an image was added: one at a random place of each run of images."""
        if not self.share:
            return
        made = sum(not item.catch for item in self.review.items()) - 1
        run, place = divmod(made, max(1, round(1 / self.share) - 1))
        if place == rng("catch", "place", run).integers(max(1, round(1 / self.share) - 1)):
            self._add(run)

    def _add(self, number: int) -> None:
        """Add a trial: real defects and normal images in turn, none twice as long as there are others."""
        kind = "defect" if number % 2 == 0 and self.training.defects else "normal"
        names = self.training.defects if kind == "defect" else self.training.normals
        before = [item.made["source"] for item in self.review.items() if item.catch == kind]
        left = [name for name in names if before.count(name) == min(map(before.count, names))]
        name = left[rng("catch", "image", kind, number).integers(len(left))]
        image = self.training.image(name)
        self.review.saw("defects" if kind == "defect" else "normal", [name])
        self.review.add(image, self._mask(name, kind, image, number), self.label, {"source": name}, kind)

    def _mask(self, name: str, kind: str, image: np.ndarray, number: int) -> np.ndarray | None:
        """Return a region like those of the other images, H,W bool; None where these have none."""
        if not any("mask_sha256" in item.made for item in self.review.items() if not item.catch):
            return None
        mask = self.training.mask(name) if kind == "defect" else None
        if mask is not None and mask.any():
            return mask
        return procedural_region(rng("catch", "mask", number), image.shape[:2], ("line", "blob"), (0.003, 0.05))[0]

    def rates(self) -> dict[str, Any]:
        """Return the share of accepted trials of each kind with its 95 % interval, as JSON values."""
        return {
            "hits": _rate([item for item in self.review.items() if item.catch == "defect" and item.decision]),
            "false_accepts": _rate([item for item in self.review.items() if item.catch == "normal" and item.decision]),
        }


def _rate(decided: list[Item]) -> dict[str, Any]:
    accepted = sum(item.decision == "accept" for item in decided)
    rate = accepted / len(decided) if decided else None
    low, high = wilson(rate or 0.0, len(decided))
    return {"accepted": accepted, "decided": len(decided), "rate": rate, "low": low, "high": high}
