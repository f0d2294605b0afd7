"""NSA: a patch of another normal image, resized and blended in by Poisson image editing.

Schlüter, Tan, Hou, Kainz, "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization", ECCV
2022; published code: hmsch/natural-synthetic-anomalies. It reads normal images only. Defaults are those of
the published code for the texture classes of MVTec AD.

What differs:
- The published method makes new images in every epoch and trains a network that predicts where the patch is, also from
  the difference that it makes. Here the images are made once, and the classifier learns from them as from real ones.
- Objects in front of a background are not searched for: the published code does so with a brightness that it states for
  each of eight MVTec classes.
- A patch that changes nothing is drawn again. The mask is where a patch changes the image, as published, without their
  median filter.
- Images of one dataset may differ in size: lengths are shares of the image that the patch comes from, and a patch is
  at most as large as the image that it goes onto.

``cv2.seamlessClone`` raises where a patch touches the border or is narrower than 3 pixels, and places a patch by the
bounding box of its mask: see `poisson_blend`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from augbench.augmenters._opencv import opencv
from augbench.augmenters._settings import setting
from augbench.augmenters._sources import normal_ids
from augbench.core.contracts import Augmenter, Request, Settings, Synthetic, TrainView
from augbench.core.errors import UserError

CODE = "published code"
TRIES = 16  # patches drawn until one changes the image
GAMMA = (2.0, 0.05, 0.03)  # shape, scale and offset of the half-width of a patch, as a share of the image's side
SPREAD = 0.5  # standard deviation of the factor by which a patch is resized
CHANGED = 1.0  # mean difference of the three values in 0..255 above which a pixel is changed
NARROWEST = 3  # pixels of a mask that can be cloned
SMALLEST = 5  # pixels of a side of a patch, whose outermost ones are not cloned
PAD = 2  # pixels around an image, so that no patch touches its border

HalfWidth = Annotated[float, Field(gt=0, le=0.5)]
Factor = Annotated[float, Field(gt=0)]


class NSA(Augmenter):
    """Blends patches of another normal image into a normal image, without a seam."""

    title = "NSA"
    paper = "Schlüter et al., ECCV 2022"
    licence = "Apache-2.0"

    class Config(Settings):
        """Defaults: the published code, for textures."""

        patches: int = setting(
            4, "patches of an image, at most: after the first, each with a chance of one half", CODE, ge=1
        )
        half_width: tuple[HalfWidth, HalfWidth] = setting(
            (0.03, 0.4), "range of half the side of a patch, as a share of the image's", CODE
        )
        resize: tuple[Factor, Factor] = setting((0.5, 2.0), "range of the factor by which a patch is resized", CODE)
        blend: Literal["normal", "mixed"] = setting(
            "normal", "gradients inside a patch: its own, or the larger of its own and the image's", CODE
        )

        @model_validator(mode="after")
        def _ranges_rise(self) -> Self:
            for name in ("half_width", "resize"):
                low, high = getattr(self, name)
                if low > high:
                    raise ValueError(f"{name} {[low, high]}: the first number must not be larger than the second")
            return self

    config: Config

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Make one image per request; its mask is what changed, its meta holds both sources and number of patches.

        Raises:
            UserError: an image is smaller than a patch can be.
        """
        ids = normal_ids("nsa", view)
        return [self._one(request, ids, view) for request in requests]

    def _one(self, request: Request, ids: list[str], view: TrainView) -> Synthetic:
        rng = request.rng
        onto = int(rng.integers(len(ids)))
        of = (onto + int(rng.integers(1, len(ids)))) % len(ids) if len(ids) > 1 else onto  # another one, if there is
        image, other = (_large_enough(view.image(ids[index]), ids[index]) for index in (onto, of))  # H,W,3 uint8
        number = 1 + sum(int(rng.integers(2)) for _ in range(self.config.patches - 1))
        for _ in range(TRIES):
            blended = image
            for _ in range(number):
                blended = self._with_patch(rng, blended, other)
            changed = np.abs(blended.astype(np.float32) - image).mean(-1) > CHANGED
            if changed.any():
                break
        else:  # two images without any structure
            changed[:] = True
        meta = {"source": ids[onto], "patch_source": ids[of], "patches": number}
        return Synthetic(blended, request.label, changed, meta)

    def _with_patch(self, rng: np.random.Generator, image: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Cut a patch out of ``other``, resize it, and blend it in at a random place."""
        bounds = self.config.half_width
        half = [np.clip(GAMMA[2] + rng.gamma(*GAMMA[:2]), *bounds) * side for side in other.shape[:2]]
        least = [bounds[0] * side for side in other.shape[:2]]
        centre = [rng.uniform(low, side - low) for low, side in zip(least, other.shape[:2], strict=True)]
        window = tuple(_span(*one) for one in zip(centre, half, other.shape[:2], strict=True))
        patch = other[window]
        factor = float(np.clip(rng.normal(1, SPREAD), *self.config.resize))
        size = [
            int(np.clip(round(factor * side), SMALLEST, max(SMALLEST, min(2 * bounds[1] * whole, limit))))
            for side, whole, limit in zip(patch.shape[:2], other.shape[:2], image.shape[:2], strict=True)
        ]
        patch = opencv().resize(patch, tuple(reversed(size)))
        corner = tuple(
            int(rng.integers(limit - side + 1)) for limit, side in zip(image.shape[:2], patch.shape[:2], strict=True)
        )
        inner = np.zeros(patch.shape[:2], bool)
        inner[1:-1, 1:-1] = True  # as in the published code, which avoids artefacts so
        return poisson_blend(image, patch, inner, corner, self.config.blend == "mixed")


def _large_enough(image: np.ndarray, name: str) -> np.ndarray:
    if min(image.shape[:2]) < SMALLEST:
        height, width = image.shape[:2]
        raise UserError(
            f"nsa: image '{name}' is {width} x {height} pixels, a patch needs {SMALLEST} x {SMALLEST}: leave it out"
        )
    return image


def _span(centre: float, half: float, side: int) -> slice:
    """Return the rows or columns of a patch, at least `SMALLEST` and within the image."""
    low = int(np.clip(round(centre - half), 0, side - SMALLEST))
    return slice(low, int(np.clip(round(centre + half), low + SMALLEST, side)))


def poisson_blend(
    image: np.ndarray, patch: np.ndarray, mask: np.ndarray, corner: tuple[int, int], mixed: bool = False
) -> np.ndarray:
    """Blend a patch into an image by its gradients (Pérez, Gangnet and Blake, SIGGRAPH 2003), by OpenCV.

    Args:
        image: H,W,3 uint8; the patch may touch its border.
        patch: h,w,3 uint8.
        mask: h,w bool: the pixels to blend in, at least `NARROWEST` wide and high.
        corner: row and column of the image where the patch begins; it lies within the image.
        mixed: keep the larger of both gradients, so that what is under the patch shines through.

    Returns:
        H,W,3 uint8; only pixels inside the mask differ.

    Raises:
        ValueError: the mask is too small.
    """
    cv2 = opencv()
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    sides = [int(at[-1] - at[0]) + 1 if len(at) else 0 for at in (rows, columns)]
    if min(sides) < NARROWEST:
        raise ValueError(f"a mask of {sides[0]} x {sides[1]} pixels cannot be blended: {NARROWEST} are needed")
    around = ((PAD, PAD), (PAD, PAD))
    wide = np.pad(image, (*around, (0, 0)), "edge")
    # The centre of the mask's bounding box, as OpenCV has it, is what it places; x comes first.
    y, x = (
        PAD + start + int(at[0]) + side // 2 for start, at, side in zip(corner, (rows, columns), sides, strict=True)
    )
    inside = np.pad(mask, around).astype(np.uint8) * 255
    mode = cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE
    cloned = cv2.seamlessClone(np.pad(patch, (*around, (0, 0)), "edge"), wide, inside, (x, y), mode)
    result = image.copy()
    window = tuple(slice(start, start + side) for start, side in zip(corner, mask.shape, strict=True))
    result[window][mask] = cloned[PAD:-PAD, PAD:-PAD][window][mask]
    return result
