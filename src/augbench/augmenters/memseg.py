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
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from augbench.augmenters._folders import content_key, image_files
from augbench.augmenters._photometric import cut_and_shuffle, three_of_ten, to_grey
from augbench.augmenters._settings import OURS, setting
from augbench.augmenters._textures import procedural_texture
from augbench.core.contracts import Augmenter, Reads, Request, Settings, Shots, Synthetic, TrainView
from augbench.core.errors import UserError
from augbench.procedural.noise import Shape, perlin

LARGEST_EXPONENT = 5  # Perlin noise has 2**0 ... 2**5 cells per axis
THRESHOLD = 0.5  # noise above it is the mask
TRIES = 16  # masks drawn before the maximum of the noise serves as the mask
REIMPLEMENTATIONS = "re-implementations of MemSeg"

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class MemSeg(Augmenter):
    """Blends Perlin-noise-shaped patches of texture or shuffled structure into a random normal image."""

    title = "MemSeg patches"
    paper = "Yang et al., EAAI 2023"
    licence = "Apache-2.0"

    class Config(Settings):
        """Defaults: the numbers of the re-implementations."""

        texture_folder: Path | None = setting(
            None,
            "folder of texture images of any size; none: procedural textures",
            f"paper (DTD); procedural textures: {OURS}",
        )
        texture_share: Share = setting(
            0.5, "probability of a texture source; otherwise the source is the shuffled image", REIMPLEMENTATIONS
        )
        opacity: tuple[Share, Share] = setting(
            (0.15, 1.0), "range of the weight of the source inside the mask", REIMPLEMENTATIONS
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
        foreground: bool = setting(
            False,
            "patch only the object in front of a plain background, found by Otsu's threshold",
            f"{REIMPLEMENTATIONS}: on for objects, off for textures",
        )

        @model_validator(mode="after")
        def _opacity_rises(self) -> MemSeg.Config:
            if self.opacity[0] > self.opacity[1]:
                raise ValueError(f"opacity {list(self.opacity)}: the first number must not be larger than the second")
            return self

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

    def key_settings(self) -> dict[str, object]:
        """Return the settings that enter keys, with the texture folder replaced by a digest of its content.

        Two machines with the same images under different paths share a pool; a changed image makes a new one.

        Raises:
            UserError: the texture folder is missing or has no images.
        """
        settings = super().key_settings()
        if self.config.texture_folder is not None:
            settings["texture_folder"] = self._texture_content
        return settings

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Make one image per request; its mask is the patch, its meta holds source, kind and opacity."""
        found = {label: self._sources(view, label) for label in {request.label for request in requests}}
        return [self._one(request, found[request.label], view) for request in requests]

    def _sources(self, view: TrainView, label: str) -> list[str]:
        """Return the ids of the images that patches for that class go onto."""
        if self.config.source == "negatives":
            rows, what = view.negatives, "training negatives, and there are none: give the dataset normal images"
        else:
            own = view.shots["label"] == label if view.task == "recognition" else slice(None)
            rows, what = view.shots[own], f"a shot of class '{label}', and there is none: give it shots"
        if rows.empty:
            raise UserError(f"memseg needs {what}")
        return rows["id"].tolist()

    def _one(self, request: Request, ids: list[str], view: TrainView) -> Synthetic:
        rng = request.rng
        source_id = ids[rng.integers(len(ids))]
        image = view.image(source_id)  # H,W,3 uint8
        allowed = otsu_foreground(image) if self.config.foreground else None
        mask = perlin_mask(rng, image.shape[:2], allowed)

        kind = "texture" if rng.random() < self.config.texture_share else "structure"
        opacity = rng.uniform(*self.config.opacity)
        if kind == "texture":
            patch = self._texture(rng, image.shape[:2])
        else:
            patch = cut_and_shuffle(rng, three_of_ten(rng, image), self.config.grid)
        if (image == image[..., :1]).all():
            patch = to_grey(patch)
        meta = {"source": source_id, "kind": kind, "opacity": opacity}
        return Synthetic(blend(image, patch, mask, opacity), request.label, mask, meta)

    def _texture(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """Draw a texture of that size, H,W,3 uint8."""
        if self.config.texture_folder is None:
            return procedural_texture(rng, shape)
        path = self._texture_files[rng.integers(len(self._texture_files))]
        try:
            with Image.open(path) as texture:
                texture.draft("RGB", shape[::-1])  # lets JPEG decode at a smaller scale
                return np.asarray(texture.convert("RGB").resize(shape[::-1], Image.Resampling.BILINEAR))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"texture '{path}' cannot be read ({error}): take it out of the folder") from None

    @cached_property
    def _texture_files(self) -> list[Path]:
        fix = "set memseg's texture_folder to a folder of images, or leave it out for procedural textures"
        return image_files("texture_folder", self.config.texture_folder, fix)

    @cached_property
    def _texture_content(self) -> str:
        return content_key(self.config.texture_folder, self._texture_files)


def perlin_mask(rng: np.random.Generator, shape: Shape, allowed: np.ndarray | None = None) -> np.ndarray:
    """Draw a random mask, H,W bool, never empty; inside ``allowed`` (H,W bool with at least one pixel) if given."""
    for _ in range(TRIES):
        exponents = [rng.integers(min(LARGEST_EXPONENT, int(np.log2(max(n // 2, 1)))) + 1) for n in shape]
        cells = (int(2 ** exponents[0]), int(2 ** exponents[1]))
        noise = perlin(rng, shape, cells, np.deg2rad(rng.uniform(-90, 90)))
        mask = noise > THRESHOLD
        if allowed is not None:
            mask &= allowed
        if mask.any():
            return mask
    if allowed is not None:
        noise = np.where(allowed, noise, -np.inf)
    return noise >= noise.max()  # an image of a few pixels, or a tiny object


def blend(image: np.ndarray, patch: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
    """Blend the patch into the image inside the mask, with weight ``opacity``: H,W,3 uint8; the rest is unchanged."""
    result = image.copy()
    inside = image[mask].astype(np.float32)
    result[mask] = np.round(inside + np.float32(opacity) * (patch[mask] - inside)).astype(np.uint8)
    return result


def otsu_foreground(image: np.ndarray) -> np.ndarray:
    """Segment the object by Otsu's threshold (IEEE Trans. SMC 1979): H,W bool with at least one pixel.

    The object is the side of the threshold that covers less of the image border. An image of one brightness is all
    object.
    """
    grey = to_grey(image)[..., 0]
    counts = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    below, total = np.cumsum(counts), grey.size
    moment = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * below / total - moment) ** 2 / (below * (total - below))
    bright = grey > np.argmax(np.nan_to_num(between, posinf=0))
    if not bright.any() or bright.all():
        return np.ones(grey.shape, bool)
    border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    return ~bright if border.mean() > 0.5 else bright
