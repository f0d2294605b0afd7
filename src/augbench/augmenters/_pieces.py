"""Pieces of CutPaste: their shapes, their colour jitter, and how they are pasted."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance

from augbench.augmenters._photometric import from_hsv, to_hsv
from augbench.augmenters._settings import OURS, setting
from augbench.core.contracts import Settings

JITTER = 0.1  # largest relative change of brightness, contrast and saturation, and of the hue circle

Window = tuple[slice, slice]
"""Rows and columns of an image."""


class PieceSettings(Settings):
    """Which variant."""

    variant: Literal["patch", "scar", "both"] = setting(
        "both",
        "shape of the pasted piece: a large rectangle, a thin rotated strip, or one of the two at random per image",
        f"patch and scar: paper; one of the two at random: {OURS}",
    )


def cut(rng: np.random.Generator, image: np.ndarray, variant: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Cut and recolour a piece of a variant as in `PieceSettings`.

    Returns:
        The piece, h,w,3 uint8, which of its pixels to paste, h,w bool, and the variant: patch or scar.
    """
    if variant == "both":
        variant = ("patch", "scar")[rng.integers(2)]
    return *(cut_patch(rng, image) if variant == "patch" else cut_scar(rng, image)), variant


def cut_patch(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut a rectangle of 2 to 15 % of the area, aspect 0.3 to 1 or 1 to 3.3.

    Returns:
        The piece, h,w,3 uint8, and which of its pixels to paste, h,w bool.
    """
    height, width = image.shape[:2]
    area = rng.uniform(0.02, 0.15) * height * width
    aspect = rng.uniform(0.3, 1) if rng.random() < 0.5 else rng.uniform(1, 3.3)
    piece = jitter(rng, image[random_window(rng, image, round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect)))])
    return piece, np.ones(piece.shape[:2], bool)


def cut_scar(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut a strip 2 to 16 wide and 10 to 25 long (pixels at 256), rotated by up to 45 degrees; see `cut_patch`."""
    scale = np.sqrt(image.shape[0] * image.shape[1]) / 256
    window = random_window(rng, image, round(rng.uniform(10, 25) * scale), round(rng.uniform(2, 16) * scale))
    strip = jitter(rng, image[window])
    return _rotated(strip, np.deg2rad(rng.uniform(-45, 45)), image.shape)


def _rotated(strip: np.ndarray, angle: float, limit: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rotate the strip about its centre (nearest neighbour) on a canvas of at most ``limit``: piece and its pixels.

    The centre of the canvas is always the centre of the strip, so at least one pixel is pasted.
    """
    h, w = strip.shape[:2]
    cos, sin = np.cos(angle), np.sin(angle)
    height = min(int(np.ceil(h * cos + w * abs(sin))), limit[0])
    width = min(int(np.ceil(w * cos + h * abs(sin))), limit[1])
    y, x = np.arange(height)[:, None] - height // 2, np.arange(width)[None, :] - width // 2
    v, u = np.floor(y * cos - x * sin + h / 2).astype(int), np.floor(x * cos + y * sin + w / 2).astype(int)
    pasted = (v >= 0) & (v < h) & (u >= 0) & (u < w)
    return strip[v.clip(0, h - 1), u.clip(0, w - 1)], pasted


def paste(
    rng: np.random.Generator, image: np.ndarray, piece: np.ndarray, pasted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Paste the piece at a random position: H,W,3 uint8 image and H,W bool mask of the pasted pixels."""
    return paste_at(random_window(rng, image, *pasted.shape), image, piece, pasted)


def paste_at(window: Window, image: np.ndarray, piece: np.ndarray, pasted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paste the piece into a window of its size; see `paste`."""
    result, mask = image.copy(), np.zeros(image.shape[:2], bool)
    mask[window] = pasted
    result[mask] = piece[pasted]
    return result, mask


def jitter(rng: np.random.Generator, piece: np.ndarray) -> np.ndarray:
    """Change brightness, contrast, saturation and hue by up to `JITTER`; a grey piece stays grey. h,w,3 uint8."""
    jittered = Image.fromarray(piece)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        jittered = kind(jittered).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    hsv = to_hsv(np.asarray(jittered))
    hsv[..., 0] += np.uint8(round(rng.uniform(-JITTER, JITTER) * 255) % 256)  # hue is circular
    return from_hsv(hsv)


def random_window(rng: np.random.Generator, image: np.ndarray, height: int, width: int) -> Window:
    """Draw a window of that size, at least 1 pixel and at most the image."""
    height, width = (int(np.clip(n, 1, limit)) for n, limit in zip((height, width), image.shape[:2], strict=True))
    top = rng.integers(image.shape[0] - height + 1)
    left = rng.integers(image.shape[1] - width + 1)
    return slice(top, top + height), slice(left, left + width)
