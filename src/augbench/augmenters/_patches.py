"""Patches of MemSeg: where they are, and how they are blended in."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from augbench.augmenters._photometric import to_grey
from augbench.augmenters._settings import setting
from augbench.core.contracts import Settings
from augbench.procedural.noise import Shape, perlin

LARGEST_EXPONENT = 5  # Perlin noise has 2**0 ... 2**5 cells per axis
THRESHOLD = 0.5  # noise above it is the mask
TRIES = 16  # masks drawn before the maximum of the noise serves as the mask
REIMPLEMENTATIONS = "re-implementations of MemSeg"

Share = Annotated[float, Field(ge=0, le=1)]


class PatchSettings(Settings):
    """What decides a patch besides its content."""

    opacity: tuple[Share, Share] = setting(
        (0.15, 1.0), "range of the weight of the source inside the mask", REIMPLEMENTATIONS
    )
    foreground: bool = setting(
        False,
        "patch only the object in front of a plain background, found by Otsu's threshold",
        f"{REIMPLEMENTATIONS}: on for objects, off for textures",
    )

    @model_validator(mode="after")
    def _opacity_rises(self) -> Self:
        if self.opacity[0] > self.opacity[1]:
            raise ValueError(f"opacity {list(self.opacity)}: the first number must not be larger than the second")
        return self


def patch_mask(rng: np.random.Generator, image: np.ndarray, settings: PatchSettings) -> np.ndarray:
    """Draw the mask of a patch for an image H,W,3 uint8: H,W bool with at least one pixel."""
    return perlin_mask(rng, image.shape[:2], otsu_foreground(image) if settings.foreground else None)


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
