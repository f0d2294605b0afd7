"""MemSeg's abnormal-sample simulation: Perlin-noise masks filled with foreign texture or the shuffled image itself.

Yang, Wu, Feng, "MemSeg: A semi-supervised method for image surface defect detection using differences and
commonalities", EAAI 2023. It reads normal images only. The steps and numbers are those of the common
re-implementations: Perlin noise of 2^0 to 2^5 cells per axis, rotated by up to 90 degrees, thresholded at 0.5; texture
or structure source with equal chance; opacity uniform in [0.15, 1].

Our choices where these are silent:
- An empty mask is drawn again. Cells are at least 2 pixels wide, so small images get fewer scales.
- A texture image is resized to the size of the normal image. Without a texture folder the texture is procedural.
- The structure source cuts any size: cells differ by one pixel where the grid does not divide the image. The paper's
  text says 4 x 8 cells, re-implementations use 8 x 8, the default.
- The corners of a rotated structure source are filled with the image's mean colour.
- Recognition has no normal images. There patches go onto real defect images (``source: shots``), which keep
  their class.
- On a grey image (R = G = B) the source is converted to grey: colour alone would identify the synthetic image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from augbench.augmenters._patches import REIMPLEMENTATIONS, PatchSettings, Share, blend, patch_mask
from augbench.augmenters._photometric import cut_and_shuffle, is_grey, three_of_ten, to_grey
from augbench.augmenters._settings import OURS, setting
from augbench.augmenters._sources import normal_ids, shot_ids
from augbench.augmenters._textures import TexturedAugmenter, TextureSettings
from augbench.core.contracts import Reads, Request, Shots, Synthetic, TrainView

Count = Annotated[int, Field(ge=1)]


class MemSeg(TexturedAugmenter):
    """Blends Perlin-noise-shaped patches of texture or shuffled structure into a random normal image."""

    title = "MemSeg patches"
    paper = "Yang et al., EAAI 2023"
    licence = "Apache-2.0"

    class Config(TextureSettings, PatchSettings):
        """Defaults: the numbers of the re-implementations."""

        texture_share: Share = setting(
            0.5, "probability of a texture source; otherwise the source is the shuffled image", REIMPLEMENTATIONS
        )
        grid: tuple[Count, Count] = setting(
            (8, 8),
            "rows and columns of the cells that the structure source shuffles",
            f"{REIMPLEMENTATIONS}; the paper's text says 4 x 8",
        )
        source: Literal["negatives", "shots"] = setting(
            "negatives",
            "images that patches go onto: normal images, or real defect images, which keep their class",
            f"negatives: paper; shots: {OURS}",
        )

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        if self.config.source == "shots":
            self.tasks = frozenset({"detection", "recognition"})

    def reads(self, shots: Shots) -> frozenset[Reads]:
        """Read the images that patches go onto."""
        return frozenset({self.config.source})

    def refuses(self, shots: Shots) -> str:
        """Refuse zero-shot with ``source: shots``: there is no image to patch."""
        return "it patches real defect images" if self.config.source == "shots" and not shots else ""

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Make one image per request; its mask is the patch, its meta holds source, kind and opacity."""
        found = {label: self._sources(view, label) for label in {request.label for request in requests}}
        return [self._one(request, found[request.label], view) for request in requests]

    def _sources(self, view: TrainView, label: str) -> list[str]:
        """Return the ids of the images that patches for that class go onto."""
        return normal_ids("memseg", view) if self.config.source == "negatives" else shot_ids("memseg", view, label)

    def _one(self, request: Request, ids: list[str], view: TrainView) -> Synthetic:
        rng = request.rng
        source_id = ids[rng.integers(len(ids))]
        image = view.image(source_id)  # H,W,3 uint8
        mask = patch_mask(rng, image, self.config)

        kind = "texture" if rng.random() < self.config.texture_share else "structure"
        opacity = rng.uniform(*self.config.opacity)
        if kind == "texture":
            patch = self.texture(rng, image.shape[:2])
        else:
            patch = cut_and_shuffle(rng, three_of_ten(rng, image), self.config.grid)
        if is_grey(image):
            patch = to_grey(patch)
        meta = {"source": source_id, "kind": kind, "opacity": opacity}
        return Synthetic(blend(image, patch, mask, opacity), request.label, mask, meta)
