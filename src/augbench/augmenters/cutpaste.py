"""CutPaste: a piece of the picture, colour-jittered, pasted elsewhere into the same picture.

Li, Sohn, Yoon, Pfister, "CutPaste: Self-supervised learning for anomaly detection and localization", CVPR 2021. It
reads good pictures alone. The paper's lengths are for 256 x 256 pictures; here they scale with ``sqrt(H * W) / 256``,
so a scar covers the same share of a picture of any size and aspect (our choice). A piece larger than the picture is
clipped to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from augbench.augmenters._photometric import from_hsv, to_hsv
from augbench.core.contracts import Augmenter, Request, Settings, Synthetic, TrainView
from augbench.core.errors import UserError

JITTER = 0.1  # largest relative change of brightness, contrast and saturation, and of the hue circle


class CutPaste(Augmenter):
    """Pastes a patch (a large rectangle) or a scar (a small, long, turned one) cut from the same negative."""

    title = "CutPaste"
    paper = "Li et al., CVPR 2021"
    licence = "Apache-2.0"

    class Config(Settings):
        """Which variant; "both" draws one of the two for each picture."""

        variant: Literal["patch", "scar", "both"] = "both"

    config: Config

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """One picture per request; its mask is the pasted piece, its meta holds source and variant."""
        ids = view.negatives["id"].tolist()
        if not ids:
            raise UserError("cutpaste needs training negatives, and there are none: give the dataset good pictures")
        return [self._one(request, ids, view) for request in requests]

    def _one(self, request: Request, ids: list[str], view: TrainView) -> Synthetic:
        rng = request.rng
        source_id = ids[rng.integers(len(ids))]
        image = view.image(source_id)  # H,W,3 uint8
        variant = self.config.variant
        if variant == "both":
            variant = ("patch", "scar")[rng.integers(2)]
        cut = cut_patch(rng, image) if variant == "patch" else cut_scar(rng, image)
        composited, mask = paste(rng, image, *cut)
        return Synthetic(composited, request.label, mask, {"source": source_id, "variant": variant})


def cut_patch(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle of 2 to 15 % of the area, aspect 0.3 to 1 or 1 to 3.3: piece (h,w,3 uint8) and cover (h,w bool)."""
    height, width = image.shape[:2]
    area = rng.uniform(0.02, 0.15) * height * width
    aspect = rng.uniform(0.3, 1) if rng.random() < 0.5 else rng.uniform(1, 3.3)
    piece = jitter(rng, _crop(rng, image, round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))))
    return piece, np.ones(piece.shape[:2], bool)


def cut_scar(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A strip 2 to 16 wide, 10 to 25 long (pixels at 256), turned by up to 45 degrees. Returns as `cut_patch`."""
    scale = np.sqrt(image.shape[0] * image.shape[1]) / 256
    strip = jitter(rng, _crop(rng, image, round(rng.uniform(10, 25) * scale), round(rng.uniform(2, 16) * scale)))
    return _turned(strip, np.deg2rad(rng.uniform(-45, 45)), image.shape)


def _turned(strip: np.ndarray, angle: float, limit: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The strip turned about its centre, nearest pixels, on a canvas no larger than ``limit``: piece and cover.

    The middle of the canvas always shows the middle of the strip, so the cover is never empty.
    """
    h, w = strip.shape[:2]
    cos, sin = np.cos(angle), np.sin(angle)
    height = min(int(np.ceil(h * cos + w * abs(sin))), limit[0])
    width = min(int(np.ceil(w * cos + h * abs(sin))), limit[1])
    y, x = np.arange(height)[:, None] - height // 2, np.arange(width)[None, :] - width // 2
    v, u = np.floor(y * cos - x * sin + h / 2).astype(int), np.floor(x * cos + y * sin + w / 2).astype(int)
    cover = (v >= 0) & (v < h) & (u >= 0) & (u < w)
    return strip[v.clip(0, h - 1), u.clip(0, w - 1)], cover


def paste(
    rng: np.random.Generator, image: np.ndarray, piece: np.ndarray, cover: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The piece at a random place: H,W,3 uint8 picture and H,W bool mask of the pasted pixels."""
    height, width = cover.shape
    top = rng.integers(image.shape[0] - height + 1)
    left = rng.integers(image.shape[1] - width + 1)
    result, mask = image.copy(), np.zeros(image.shape[:2], bool)
    mask[top : top + height, left : left + width] = cover
    result[mask] = piece[cover]
    return result, mask


def jitter(rng: np.random.Generator, piece: np.ndarray) -> np.ndarray:
    """Brightness, contrast, saturation and hue changed by up to `JITTER`; a grey piece stays grey. h,w,3 uint8."""
    from PIL import Image, ImageEnhance

    picture = Image.fromarray(piece)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = kind(picture).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    hsv = to_hsv(np.asarray(picture))
    hsv[..., 0] += np.uint8(round(rng.uniform(-JITTER, JITTER) * 255) % 256)  # wraps round the circle
    return from_hsv(hsv)


def _crop(rng: np.random.Generator, image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A random window of that size, at least 1 and at most the picture."""
    height, width = (int(np.clip(n, 1, limit)) for n, limit in zip((height, width), image.shape[:2], strict=True))
    top = rng.integers(image.shape[0] - height + 1)
    left = rng.integers(image.shape[1] - width + 1)
    return image[top : top + height, left : left + width]
