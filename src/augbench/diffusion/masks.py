"""Where to paint: regions drawn by rules, and regions that a person drew as mask pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from augbench.core.errors import UserError
from augbench.core.images import SUFFIXES, read_grey
from augbench.procedural.drawing import Range, distance, place, strokes, walk
from augbench.procedural.noise import Shape, perlin

Kind = Literal["noise", "line", "blob"]

BRIGHT = 127  # pixels of a drawn mask above it are the region, as in the masks of most datasets
LARGEST_EXPONENT = 5  # Perlin noise has 2**0 ... 2**5 cells per axis, as in MemSeg,
CELL = 8  # and cells of at least as many pixels, as there in pictures of 256: smaller ones give rows of dots
LINE_LENGTHS = (0.15, 0.9)  # of a line, relative to the square root of the picture's pixels
SLENDER = 2.0  # the least length of a line, relative to the side of a square of its area
WANDER = 0.25  # radians by which a step of a line strays


def procedural_region(
    rng: np.random.Generator, shape: Shape, kinds: Sequence[Kind], area: Range
) -> tuple[np.ndarray, Kind]:
    """A region that no real defect stands behind: H,W bool, never empty, and of which kind it is.

    - noise: islands of Perlin noise all over the picture, the shapes of MemSeg
    - line: a line that wanders a little, as wide as its area and length ask for
    - blob: one uneven patch

    Args:
        rng: the generator to draw from.
        shape: height and width.
        kinds: one of these is drawn, each with the same chance.
        area: range of the region's share of the picture, drawn log-uniformly. Lines that leave the picture are smaller.
    """
    kind = kinds[rng.integers(len(kinds))]
    share = float(np.exp(rng.uniform(*np.log(area))))
    if kind == "line":
        return _line(rng, shape, share), kind
    height = _islands(rng, shape) if kind == "noise" else _hill(rng, shape)
    count = min(max(round(share * height.size), 1), height.size)
    return height >= np.partition(height, -count, axis=None)[-count], kind


def _islands(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Perlin noise of random cells and angle."""
    exponents = [rng.integers(min(LARGEST_EXPONENT, int(np.log2(max(n // CELL, 1)))) + 1) for n in shape]
    return perlin(rng, shape, (2 ** int(exponents[0]), 2 ** int(exponents[1])), rng.uniform(-np.pi / 2, np.pi / 2))


def _hill(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Highest at a random place, with an uneven slope."""
    length = float(np.sqrt(shape[0] * shape[1]))
    centre = place(rng, shape, length / 10)
    cells = (max(1, round(8 * shape[0] / length)), max(1, round(8 * shape[1] / length)))
    return 0.5 * perlin(rng, shape, cells) - 4 * distance(shape, centre, rng.uniform(0.5, 2.0)) / np.float32(length)


def _line(rng: np.random.Generator, shape: Shape, share: float) -> np.ndarray:
    """A wandering line of about that area. Its middle lies in the picture, so some pixel is more than half covered."""
    scale = float(np.sqrt(shape[0] * shape[1]))
    pixels = share * shape[0] * shape[1]
    length = max(rng.uniform(*LINE_LENGTHS) * scale, SLENDER * np.sqrt(pixels))
    width = max(1.5, (np.sqrt(length**2 + np.pi * pixels) - length) * 2 / np.pi)  # its ends are round
    angle, middle = rng.uniform(0, 2 * np.pi), place(rng, shape, scale / 10)
    step = (max(1.0, length / 12), max(1.5, length / 8))
    halves = [walk(rng, middle, turned, length / 2, step, WANDER) for turned in (angle, angle + np.pi)]
    segments = np.concatenate(halves)
    ones = np.ones(len(segments))
    return strokes(shape, segments, width * ones, ones) > 0.5


def drawn_files(folder: Path, way_out: str) -> list[Path]:
    """The mask pictures of a folder and of folders in it, in an order that no file system decides; hidden ones not.

    Raises:
        UserError: there is no such folder, or no picture in it; it ends with ``way_out``.
    """
    if not folder.is_dir():
        raise UserError(f"mask_folder '{folder}' is not a folder: {way_out}")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in found}
    shown = {name: path for name, path in names.items() if not any(part.startswith(".") for part in name.split("/"))}
    if not shown:
        raise UserError(f"mask_folder '{folder}' holds no pictures ({', '.join(sorted(SUFFIXES))}): {way_out}")
    return [shown[name] for name in sorted(shown)]


def drawn_digest(folder: Path, files: Sequence[Path]) -> str:
    """SHA-256 (hex) over names and bytes: a name decides which request gets which mask."""
    total = hashlib.sha256()
    for path in files:
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def read_drawn(path: Path) -> np.ndarray:
    """A mask that a person drew, H,W bool: where its brightest channel is above `BRIGHT`.

    Raises:
        UserError: it is no picture, has 16 bits a channel or transparent pixels, or nothing is marked in it.
    """
    region = read_grey(path) > BRIGHT
    if not region.any():
        raise UserError(f"mask '{path}' is empty (no pixel above {BRIGHT}): mark in white where to paint, or remove it")
    return region
