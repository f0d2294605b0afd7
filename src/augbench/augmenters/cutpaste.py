"""CutPaste: cut a piece out of a normal image, jitter its colours, paste it elsewhere into the same image.

Li, Sohn, Yoon, Pfister, "CutPaste: Self-supervised learning for anomaly detection and localization", CVPR 2021. It
reads normal images only. The paper's lengths are for 256 x 256 images; here they scale with ``sqrt(H * W) / 256``, so
that a scar covers the same share of an image of any size and aspect (our choice). A piece larger than the image is
clipped to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from augbench.augmenters._pieces import PieceSettings, cut, paste
from augbench.augmenters._sources import normal_ids
from augbench.core.contracts import Augmenter, Request, Synthetic, TrainView


class CutPaste(Augmenter):
    """Pastes a patch (a large rectangle) or a scar (a thin, rotated strip) cut from the same normal image."""

    title = "CutPaste"
    paper = "Li et al., CVPR 2021"
    licence = "Apache-2.0"

    Config = PieceSettings
    config: PieceSettings

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Make one image per request; its mask is the pasted piece, its meta holds source and variant."""
        ids = normal_ids("cutpaste", view)
        return [self._one(request, ids, view) for request in requests]

    def _one(self, request: Request, ids: list[str], view: TrainView) -> Synthetic:
        rng = request.rng
        source_id = ids[rng.integers(len(ids))]
        image = view.image(source_id)  # H,W,3 uint8
        piece, pasted, variant = cut(rng, image, self.config.variant)
        composited, mask = paste(rng, image, piece, pasted)
        return Synthetic(composited, request.label, mask, {"source": source_id, "variant": variant})
