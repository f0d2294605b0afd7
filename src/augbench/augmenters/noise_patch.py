"""Noise patches: MemSeg's masks and opacities with plain noise in place of texture and structure.

Each value inside a mask is drawn from 0 to 255 alone and uniformly; a grey image (R = G = B) gets grey noise. What
MemSeg gains over this row, its textures and shuffled structure add.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augbench.augmenters._patches import PatchSettings, blend, patch_mask
from augbench.augmenters._photometric import is_grey
from augbench.augmenters._sources import normal_ids
from augbench.core.contracts import Augmenter, Request, Synthetic, TrainView


class NoisePatch(Augmenter):
    """Blends plain noise into a random normal image, in MemSeg's masks: what MemSeg gains without its content."""

    title = "noise in MemSeg's masks"
    licence = "Apache-2.0"
    control = "MemSeg's masks and opacities, filled with noise in place of texture and structure"

    Config = PatchSettings
    config: PatchSettings

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Make one image per request; its mask is the patch, its meta holds source and opacity."""
        ids = normal_ids("noise_patch", view)
        return [self._one(request, ids, view) for request in requests]

    def _one(self, request: Request, ids: list[str], view: TrainView) -> Synthetic:
        rng = request.rng
        source_id = ids[rng.integers(len(ids))]
        image = view.image(source_id)  # H,W,3 uint8
        mask, opacity = patch_mask(rng, image, self.config), rng.uniform(*self.config.opacity)
        noise = rng.integers(0, 256, (*image.shape[:2], 1 if is_grey(image) else 3)).astype(np.uint8)
        meta = {"source": source_id, "opacity": opacity}
        return Synthetic(blend(image, noise, mask, opacity), request.label, mask, meta)
