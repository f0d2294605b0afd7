"""DRAEM's simulated anomalies: foreign texture, changed in colour and shape, in the masks of thresholded Perlin noise.

Zavrtanik, Kristan, Skočaj, "DRAEM - A discriminatively trained reconstruction embedding for surface anomaly
detection", ICCV 2021; published code: VitjanZ/DRAEM (MIT). It reads normal images only. Perlin noise has 2^0 to 2^5
cells per axis, is rotated by up to 90 degrees and thresholded at 0.5; a texture of DTD, changed by three of ten
operations, is blended in.

What differs:
- Theirs is online: every image of every epoch gets a new anomaly with a chance of one half, for a network that
  reconstructs the image and one that finds the anomaly. Here a fixed number of images is made once, and a classifier of
  whole images learns from them.
- Without a texture folder the texture is procedural: no photographs come with augbench.
- The published code rotates a third of all training images first. Here only images with a defect are made, and rotated
  corners would tell them from real ones: none is rotated.
- An empty mask is drawn again, where theirs becomes a normal image.
- On a grey image (R = G = B) the texture is converted to grey: colour alone would identify the synthetic image.

The masks are those of `memseg`, whose re-implementations took them and the operations from DRAEM. There textures keep
their look, and half of the patches are the shuffled image instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from augbench.augmenters._patches import PatchSettings, Share, blend, patch_mask
from augbench.augmenters._photometric import is_grey, three_of_ten, to_grey
from augbench.augmenters._settings import OURS, setting
from augbench.augmenters._sources import normal_ids
from augbench.augmenters._textures import TexturedAugmenter, TextureSettings
from augbench.core.contracts import Request, Synthetic, TrainView


class DRAEM(TexturedAugmenter):
    """Blends Perlin-noise-shaped patches of changed texture into a random normal image."""

    title = "DRAEM patches"
    paper = "Zavrtanik et al., ICCV 2021"
    licence = "Apache-2.0"

    class Config(TextureSettings, PatchSettings):
        """Defaults: the published code."""

        opacity: tuple[Share, Share] = setting(
            (0.2, 1.0),
            "range of the weight of the texture inside the mask",
            "published code; the paper's text says 0.1 to 1",
        )
        foreground: bool = setting(
            False,
            "patch only the object in front of a plain background, found by Otsu's threshold",
            f"published code: off; on: {OURS}",
        )

    config: Config

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Make one image per request; its mask is the patch, its meta holds source and opacity."""
        ids = normal_ids("draem", view)
        return [self._one(request, ids, view) for request in requests]

    def _one(self, request: Request, ids: list[str], view: TrainView) -> Synthetic:
        rng = request.rng
        source_id = ids[rng.integers(len(ids))]
        image = view.image(source_id)  # H,W,3 uint8
        mask, opacity = patch_mask(rng, image, self.config), rng.uniform(*self.config.opacity)
        texture = three_of_ten(rng, self.texture(rng, image.shape[:2]))
        if is_grey(image):
            texture = to_grey(texture)
        meta = {"source": source_id, "opacity": opacity}
        return Synthetic(blend(image, texture, mask, opacity), request.label, mask, meta)
