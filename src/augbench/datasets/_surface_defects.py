"""The defects of the dataset `surfaces`. `DEFECTS` is the one list of them, with their ranges.

A defect is a profile, H,W float32 in about [-1, 1], that says where and how it changes the albedo; contrast, polarity
and tint are drawn around it. Pixels whose profile is at least `MASK_LEVEL` in size are the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from augbench.core.noise import Shape, spectral
from augbench.datasets._surface_materials import Colour, Range, Surface

MASK_LEVEL = 0.25


@dataclass(frozen=True)
class Defect:
    """A recipe: the shape and the range of its contrast, from barely visible to obvious."""

    draw: Callable[[np.random.Generator, Shape], np.ndarray]
    contrast: Range  # albedo units, log-uniform; the surface's own texture is added on top, or grain would hide it
    dark: float  # chance that it is darker than the surface, where the surface leaves the choice
    tints: tuple[Colour, ...] = ((1.0, 1.0, 1.0),)  # how strongly red, green and blue change


def strokes(shape: Shape, segments: np.ndarray, widths: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Anti-aliased line segments: H,W float32 in [0, 1], the strongest where they overlap.

    ``segments`` is N,2,2 (start and end, each y,x) in pixels; ``widths`` (pixels) and ``levels`` ([0, 1]) are N.
    """
    margin = widths.max() / 2 + 1
    low = np.clip(np.floor(segments.min((0, 1)) - margin), 0, None).astype(int)
    high = np.minimum(np.ceil(segments.max((0, 1)) + margin + 1).astype(int), shape)
    canvas = np.zeros(shape, np.float32)
    if (high <= low).any():
        return canvas
    y = np.arange(low[0], high[0], dtype=np.float32)[None, :, None]
    x = np.arange(low[1], high[1], dtype=np.float32)[None, None, :]
    start, reach = segments[:, 0].astype(np.float32), (segments[:, 1] - segments[:, 0]).astype(np.float32)
    dy, dx = y - start[:, 0, None, None], x - start[:, 1, None, None]  # N,h,w
    ry, rx = reach[:, 0, None, None], reach[:, 1, None, None]
    t = np.clip((dy * ry + dx * rx) / (ry * ry + rx * rx + 1e-6), 0, 1)
    distance = np.sqrt((dy - t * ry) ** 2 + (dx - t * rx) ** 2)
    cover = np.clip(widths.astype(np.float32)[:, None, None] / 2 + 0.5 - distance, 0, 1)
    canvas[low[0] : high[0], low[1] : high[1]] = (cover * levels.astype(np.float32)[:, None, None]).max(0)
    return canvas


def _place(rng: np.random.Generator, shape: Shape, margin: float) -> np.ndarray:
    """A random y,x at least ``margin`` pixels from the edges, as far as the picture is large enough."""
    margins = np.minimum(margin, np.array(shape) / 2 - 1)
    return rng.uniform(margins, np.array(shape) - 1 - margins)


def _scratch(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """One to three nearly parallel, slightly bent strokes that fade out, each with the shadow of its burr."""
    centre, angle, length = _place(rng, shape, 14), rng.uniform(0, np.pi), rng.uniform(18, 70)
    profile = np.zeros(shape, np.float32)
    for _ in range(rng.integers(1, 4)):
        bend, tilt = rng.normal(0, 0.25), angle + rng.normal(0, 0.1)
        along = np.linspace(-0.5, 0.5, 8)
        heading = tilt + bend * along
        middle = centre + rng.normal(0, 3, 2)
        points = middle + (along * length * rng.uniform(0.6, 1))[:, None] * np.stack(
            [np.sin(heading), np.cos(heading)], 1
        )
        segments = np.stack([points[:-1], points[1:]], 1)
        fading = rng.uniform(0.6, 1) * np.linspace(1, rng.uniform(0.4, 1), 7)
        width = rng.uniform(0.7, 1.9)
        profile = np.maximum(profile, strokes(shape, segments, np.full(7, width), fading))
    burr = np.roll(profile, (1, 1), (0, 1))
    return profile - np.float32(rng.uniform(0, 0.5)) * np.clip(burr - profile, 0, 1)


def _spot(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """One to six pits or inclusions, round or drawn out a little, close together."""
    centre, spread = _place(rng, shape, 6), rng.uniform(2, 9)
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    profile = np.zeros(shape, np.float32)
    for number in range(rng.integers(1, 7)):
        cy, cx = centre + (number > 0) * rng.normal(0, spread, 2)
        radius, stretch = rng.uniform(1.4, 3.6), rng.uniform(0.75, 1.3)
        distance = np.sqrt(((y - cy) / stretch) ** 2 + ((x - cx) * stretch) ** 2)
        profile = np.maximum(profile, np.clip(radius + 0.5 - distance, 0, 1) * np.float32(rng.uniform(0.7, 1)))
    return profile


def _mark(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A scuff: a bundle of short soft rubbing lines, as something hard or greasy slid over the surface."""
    centre, angle = _place(rng, shape, 10), rng.uniform(0, np.pi)
    number, breadth = int(rng.integers(5, 12)), rng.uniform(2.5, 7)
    heading = angle + rng.normal(0, 0.12, number)
    direction = np.stack([np.sin(heading), np.cos(heading)], 1)
    normal = np.array([np.cos(angle), -np.sin(angle)])
    middle = centre + rng.normal(0, breadth, (number, 1)) * normal + rng.normal(0, 4, (number, 1)) * direction
    half = rng.uniform(3, 12, (number, 1)) * direction
    lines = strokes(
        shape, np.stack([middle - half, middle + half], 1), rng.uniform(1.2, 3.2, number), rng.uniform(0.5, 1, number)
    )
    patchy = np.clip(0.85 + 0.3 * spectral(rng, shape, 0.8), 0.3, 1.1)
    return _blurred(lines) * patchy.astype(np.float32)


def _crack(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A jagged thin line that thins out and may fork."""
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(22, 75)
    start = _place(rng, shape, 12) - 0.4 * length * np.array([np.sin(angle), np.cos(angle)])
    trunk = _walk(rng, np.clip(start, 2, np.array(shape) - 3), angle, length)
    pieces, widths = [trunk], [np.linspace(rng.uniform(1.0, 2.0), 0.7, len(trunk))]
    for _ in range(rng.integers(0, 3)):
        fork = trunk[rng.integers(len(trunk)), 1]
        pieces.append(
            _walk(rng, fork, angle + rng.choice((-1, 1)) * rng.uniform(0.4, 1.1), length * rng.uniform(0.2, 0.4))
        )
        widths.append(np.full(len(pieces[-1]), 0.8))
    segments = np.concatenate(pieces)
    return strokes(shape, segments, np.concatenate(widths), rng.uniform(0.75, 1, len(segments)))


def _walk(rng: np.random.Generator, start: np.ndarray, angle: float, length: float) -> np.ndarray:
    """N,2,2 segments of 2 to 5 pixels that stagger around ``angle``."""
    steps = rng.uniform(2, 5, max(2, round(length / 3.5)))
    heading = angle + rng.normal(0, 0.55, len(steps))
    points = start + np.cumsum(steps[:, None] * np.stack([np.sin(heading), np.cos(heading)], 1), 0)
    points = np.concatenate([start[None], points])
    return np.stack([points[:-1], points[1:]], 1)


def _stain(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A dried liquid: an irregular patch with a stronger rim."""
    cy, cx = _place(rng, shape, 8)
    radius, stretch = rng.uniform(5, 15), rng.uniform(0.7, 1.4)
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    distance = np.sqrt(((y - cy) / stretch) ** 2 + ((x - cx) * stretch) ** 2)
    inside = 1 - distance / np.float32(radius) + np.float32(0.2) * spectral(rng, shape, 1.8, lowest=0.01)
    inside[distance > 2 * radius] = -1  # no islands far away
    patch = np.clip(inside * radius / 1.5, 0, 1)
    rim = np.clip(1 - np.abs(inside * radius - 1.5) / 1.5, 0, 1)
    return (0.65 * patch + np.float32(rng.uniform(0, 0.35)) * rim).astype(np.float32)


def _blurred(field: np.ndarray) -> np.ndarray:
    padded = np.pad(field, 1, mode="edge")
    padded = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return ((padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 16).astype(np.float32)


DEFECTS: dict[str, Defect] = {
    "scratch": Defect(_scratch, (0.14, 0.65), 0.35),
    "spot": Defect(_spot, (0.14, 0.65), 0.7, ((1.0, 1.0, 1.0), (0.7, 0.95, 1.1))),
    "mark": Defect(_mark, (0.12, 0.60), 0.3, ((1.0, 1.0, 1.0), (1.0, 0.97, 0.9))),
    "crack": Defect(_crack, (0.13, 0.65), 0.85),
    "stain": Defect(_stain, (0.11, 0.50), 0.8, ((0.7, 1.0, 1.25), (1.0, 0.9, 0.8), (1.1, 1.0, 0.8))),
}


def add_defect(rng: np.random.Generator, surface: Surface, label: str) -> np.ndarray:
    """Damages ``surface`` with a defect of that class and returns where: H,W bool, never empty."""
    recipe = DEFECTS[label]
    shape = surface.albedo.shape[:2]
    profile = recipe.draw(rng, shape)
    mask = np.abs(profile) >= min(MASK_LEVEL, np.abs(profile).max())

    low, high = np.log(recipe.contrast)
    contrast = np.exp(rng.uniform(low, high)) + surface.texture
    tint = np.array(recipe.tints[rng.integers(len(recipe.tints))], np.float32)
    change = np.float32(contrast * _polarity(rng, surface.albedo[mask].mean(), recipe.dark)) * tint
    surface.albedo = np.clip(surface.albedo + profile[..., None] * change, 0.01, 1)
    return mask


def _polarity(rng: np.random.Generator, brightness: float, dark: float) -> int:
    """+1 or -1: defects on very dark surfaces are bright and on very bright ones dark, else ``dark`` decides."""
    chance = rng.random()
    if brightness < 0.3:
        return 1
    return -1 if brightness > 0.7 or chance < dark else 1
