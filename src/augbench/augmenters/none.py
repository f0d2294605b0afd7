"""No augmentation: the row every other augmenter is measured against."""

from __future__ import annotations

from collections.abc import Sequence

from augbench.core.contracts import Augmenter, Request, Shots, Synthetic, TrainView


class NoAugmentation(Augmenter):
    """Makes no pictures, so N_aug is always 0."""

    title = "no augmentation"
    licence = "Apache-2.0"
    tasks = frozenset({"detection", "recognition"})
    makes_images = False

    def reads(self, shots: Shots) -> frozenset[str]:
        """Nothing."""
        return frozenset()

    def refuses(self, shots: Shots) -> str:
        """Refuses zero-shot: without augmentation there is no positive to train on."""
        return "no augmentation leaves no positives to train on at zero-shot" if shots == 0 else ""

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Never called, for `makes_images` is False."""
        raise AssertionError("'none' makes no images")
