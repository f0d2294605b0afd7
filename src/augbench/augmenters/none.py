"""No augmentation: the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Sequence

from augbench.core.contracts import Augmenter, Request, Shots, Synthetic, TrainView


class NoAugmentation(Augmenter):
    """Makes no images, so N_aug is always 0: the baseline of every comparison."""

    title = "no augmentation"
    licence = "Apache-2.0"
    tasks = frozenset({"detection", "recognition"})
    makes_images = False

    def reads(self, shots: Shots) -> frozenset[str]:
        """Return nothing: it reads no sample."""
        return frozenset()

    def refuses(self, shots: Shots) -> str:
        """Refuse zero-shot: without augmentation there is no positive to train on."""
        return "no augmentation leaves no positives to train on at zero-shot" if shots == 0 else ""

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Never called, because `makes_images` is False."""
        raise AssertionError("'none' makes no images")
