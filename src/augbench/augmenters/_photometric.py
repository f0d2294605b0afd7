"""Photometric and geometric image operations that augmenters share: H,W,3 uint8 RGB in and out, by Pillow if it can."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


def is_grey(image: np.ndarray) -> bool:
    """Whether red, green and blue are equal everywhere."""
    return bool((image == image[..., :1]).all())


def to_grey(image: np.ndarray) -> np.ndarray:
    """Return the luma (BT.601) in all three channels: H,W,3 uint8."""
    luma = image @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat(np.round(luma).astype(np.uint8)[..., None], 3, axis=2)


def to_hsv(image: np.ndarray) -> np.ndarray:
    """Convert RGB to hue, saturation and value, each 0 to 255: H,W,3 uint8, a copy."""
    return np.array(Image.fromarray(image).convert("HSV"))


def from_hsv(hsv: np.ndarray) -> np.ndarray:
    """Convert the output of `to_hsv` back to RGB: H,W,3 uint8."""
    planes = [Image.fromarray(np.ascontiguousarray(hsv[..., c])) for c in range(3)]
    return np.asarray(Image.merge("HSV", planes).convert("RGB"))


def cut_and_shuffle(rng: np.random.Generator, image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Cut the image into ``grid`` (rows, columns) cells and permute them at random.

    Where the grid does not divide the image, cell sizes differ by one pixel: a smaller cell that moves to a larger
    position is extended by its neighbouring pixels. A grid finer than the image is reduced to one cell per pixel.
    """
    height, width = image.shape[:2]
    tops = np.linspace(0, height, min(grid[0], height) + 1).astype(int)
    lefts = np.linspace(0, width, min(grid[1], width) + 1).astype(int)
    columns = len(lefts) - 1
    result = np.empty_like(image)
    for target, cell in enumerate(rng.permutation((len(tops) - 1) * columns)):
        top, left = tops[target // columns], lefts[target % columns]
        h, w = tops[target // columns + 1] - top, lefts[target % columns + 1] - left
        y, x = min(tops[cell // columns], height - h), min(lefts[cell % columns], width - w)
        result[top : top + h, left : left + w] = image[y : y + h, x : x + w]
    return result


def three_of_ten(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Apply three different ones of the ten `OPERATIONS`, in random order."""
    for index in rng.choice(len(OPERATIONS), 3, replace=False):
        image = OPERATIONS[index](rng, image)
    return image


def _gamma(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Raise each channel to a power of its own in [0.5, 2]."""
    tables = (np.arange(256)[:, None] / 255) ** rng.uniform(0.5, 2, 3) * 255  # 256,3
    return np.round(tables).astype(np.uint8)[image, np.arange(3)]


def _brightness(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Multiply by 0.8 to 1.2 and add -30 to 30 (of 255)."""
    table = np.arange(256) * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30)
    return np.clip(np.round(table), 0, 255).astype(np.uint8)[image]


def _sharpness(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Blur (factor 0.1) to sharpen (factor 1.9)."""
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(rng.uniform(0.1, 1.9)))


def _hue_and_saturation(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Shift hue (modulo 256) and saturation (clipped to 255) by -50 to 50 each."""
    hsv = to_hsv(image)
    hue, saturation = rng.integers(-50, 51, 2)
    hsv[..., 0] = ((np.arange(256) + hue) % 256).astype(np.uint8)[hsv[..., 0]]
    hsv[..., 1] = np.clip(np.arange(256) + saturation, 0, 255).astype(np.uint8)[hsv[..., 1]]
    return from_hsv(hsv)


def _solarize(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Half of the time, invert values at or above a threshold in 32 to 128."""
    if rng.random() < 0.5:
        return image
    return np.where(image >= rng.integers(32, 129), 255 - image, image)


def _posterize(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Keep the upper 1 to 7 bits."""
    return image & np.uint8(256 - 2 ** rng.integers(1, 8))


def _invert(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    return 255 - image


def _autocontrast(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Stretch values over the full range, cutting off up to 20 % at either end."""
    return np.asarray(ImageOps.autocontrast(Image.fromarray(image), cutoff=int(rng.integers(0, 21))))


def _equalize(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


def _rotate(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Rotate by -45 to 45 degrees about the centre; fill the corners with the mean colour."""
    mean = tuple(int(c) for c in image.mean((0, 1)).round())
    rotated = Image.fromarray(image).rotate(rng.uniform(-45, 45), Image.Resampling.BILINEAR, fillcolor=mean)
    return np.asarray(rotated)


# Re-implementations of MemSeg took these operations and their ranges from DRAEM (Zavrtanik et al., ICCV 2021).
OPERATIONS: tuple[Callable[[np.random.Generator, np.ndarray], np.ndarray], ...] = (
    _gamma,
    _brightness,
    _sharpness,
    _hue_and_saturation,
    _solarize,
    _posterize,
    _invert,
    _autocontrast,
    _equalize,
    _rotate,
)
