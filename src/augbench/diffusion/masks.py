"""Regions to inpaint: procedural ones, and mask images drawn by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from augbench.core.errors import UserError
from augbench.core.images import read_grey
from augbench.procedural.drawing import Range, distance, place, strokes, walk
from augbench.procedural.noise import Shape, perlin

Kind = Literal["noise", "line", "blob"]

MASK_THRESHOLD = 127  # pixels of a mask image above it are the region, as in most datasets
LARGEST_EXPONENT = 5  # Perlin noise has 2**0 ... 2**5 cells per axis, as in MemSeg
CELL = 8  # smallest cell in pixels, as in MemSeg at 256 x 256: smaller cells give rows of dots
LINE_LENGTHS = (0.15, 0.9)  # range, relative to the square root of the image's area
MIN_ELONGATION = 2.0  # least length of a line, relative to the square root of its area
TURN = 0.25  # radians by which a line turns per step


def procedural_region(
    rng: np.random.Generator, shape: Shape, kinds: Sequence[Kind], area: Range
) -> tuple[np.ndarray, Kind]:
    """Draw a random defect region.

    - noise: thresholded Perlin noise all over the image, the shapes of MemSeg
    - line: a slightly curved line; its width follows from area and length
    - blob: one irregular patch

    Args:
        rng: source of randomness.
        shape: height and width.
        kinds: choices, equally likely.
        area: range of the region's share of the image, drawn log-uniformly. Lines that leave the image are smaller.

    Returns:
        H,W bool with at least one pixel, and its kind.
    """
    kind = kinds[rng.integers(len(kinds))]
    share = float(np.exp(rng.uniform(*np.log(area))))
    if kind == "line":
        return _line(rng, shape, share), kind
    height = _islands(rng, shape) if kind == "noise" else _hill(rng, shape)
    count = min(max(round(share * height.size), 1), height.size)
    return height >= np.partition(height, -count, axis=None)[-count], kind


def _islands(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Return a height map H,W: Perlin noise with random cells and angle."""
    exponents = [rng.integers(min(LARGEST_EXPONENT, int(np.log2(max(n // CELL, 1)))) + 1) for n in shape]
    return perlin(rng, shape, (2 ** int(exponents[0]), 2 ** int(exponents[1])), rng.uniform(-np.pi / 2, np.pi / 2))


def _hill(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Return a height map H,W with one peak at a random position and an irregular slope."""
    length = float(np.sqrt(shape[0] * shape[1]))
    centre = place(rng, shape, length / 10)
    cells = (max(1, round(8 * shape[0] / length)), max(1, round(8 * shape[1] / length)))
    return 0.5 * perlin(rng, shape, cells) - 4 * distance(shape, centre, rng.uniform(0.5, 2.0)) / np.float32(length)


def _line(rng: np.random.Generator, shape: Shape, share: float) -> np.ndarray:
    """Return a curved line of about that area, H,W bool. Its middle lies in the image, so it is never empty."""
    scale = float(np.sqrt(shape[0] * shape[1]))
    pixels = share * shape[0] * shape[1]
    length = max(rng.uniform(*LINE_LENGTHS) * scale, MIN_ELONGATION * np.sqrt(pixels))
    width = max(1.5, (np.sqrt(length**2 + np.pi * pixels) - length) * 2 / np.pi)  # its ends are round
    angle, middle = rng.uniform(0, 2 * np.pi), place(rng, shape, scale / 10)
    step = (max(1.0, length / 12), max(1.5, length / 8))
    halves = [walk(rng, middle, turned, length / 2, step, TURN) for turned in (angle, angle + np.pi)]
    segments = np.concatenate(halves)
    ones = np.ones(len(segments))
    return strokes(shape, segments, width * ones, ones) > 0.5


def read_drawn(path: Path) -> np.ndarray:
    """Read a mask image as H,W bool: where its brightest channel is above `MASK_THRESHOLD`.

    Raises:
        UserError: it is no image, has 16 bits a channel or transparent pixels, or is empty.
    """
    region = read_grey(path) > MASK_THRESHOLD
    if not region.any():
        raise UserError(
            f"mask '{path}' is empty (no pixel above {MASK_THRESHOLD}): mark in white where to inpaint, or remove it"
        )
    return region
