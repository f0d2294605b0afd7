"""Self-paste: a piece of CutPaste, pasted back to where it was cut. Nothing is left of CutPaste but its seam.

The seam is a hard-edged step: inside the outline of a piece, brightness, contrast, saturation and hue differ by the
jitter of CutPaste (up to 10 %), and values are rounded to the 8 bits of HSV and back. No pixel moves: there is no
foreign content, no rotation, no resampling and no soft edge. Without the jitter nothing would be left, since CutPaste
composites by copying pixels; for the same reason MemSeg has no seam of its own (`blend` of an image with itself is that
image), and its control is ``noise_patch``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augbench.augmenters._pieces import PieceSettings, cut, jitter, paste_at, random_window
from augbench.augmenters._sources import normal_ids
from augbench.core.contracts import Augmenter, Request, Synthetic, TrainView

TRIES = 16  # jitters drawn until a pixel changes: on grey pieces a slight one rounds to nothing


class SelfPaste(Augmenter):
    """Recolours a piece of a normal image where it is, in the shapes of CutPaste: what CutPaste's seam alone gains."""

    title = "CutPaste onto the same place"
    licence = "Apache-2.0"
    control = "CutPaste's seam alone: the same pieces and colour jitter, each pasted back to where it was cut"

    Config = PieceSettings
    config: PieceSettings

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Make one image per request; its mask is the piece, its meta holds source and variant."""
        ids = normal_ids("self_paste", view)
        return [self._one(request, ids, view) for request in requests]

    def _one(self, request: Request, ids: list[str], view: TrainView) -> Synthetic:
        rng = request.rng
        source_id = ids[rng.integers(len(ids))]
        image = view.image(source_id)  # H,W,3 uint8
        _, pasted, variant = cut(rng, image, self.config.variant)  # only the outline is used
        window = random_window(rng, image, *pasted.shape)
        for _ in range(TRIES):
            composited, mask = paste_at(window, image, jitter(rng, image[window]), pasted)
            if not np.array_equal(composited, image):
                break
        return Synthetic(composited, request.label, mask, {"source": source_id, "variant": variant})
