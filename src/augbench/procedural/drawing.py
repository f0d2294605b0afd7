"""What procedural pictures are drawn with: lines, soft edges, light and a camera. Nothing here knows a material.

Fields are H,W float32; places and lengths are in pixels, y before x; angles are in radians as in `procedural.noise`.
Two worlds that must not resemble each other (the dataset `surfaces`, and a corpus that pretrains weights for it) share
these tools and `augbench.procedural.defects`, each with numbers of its own.
"""

from __future__ import annotations

import numpy as np

from augbench.procedural.noise import Shape

Colour = tuple[float, float, float]
"""RGB in [0, 1]."""
Range = tuple[float, float]
"""The lowest and the highest value that may be drawn."""


def axes(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Rows as H,1 and columns as 1,W, float32."""
    return np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]


def place(rng: np.random.Generator, shape: Shape, margin: float) -> np.ndarray:
    """A random y,x at least ``margin`` pixels from the edges, as far as the picture is large enough."""
    margins = np.minimum(margin, np.array(shape) / 2 - 1)
    return rng.uniform(margins, np.array(shape) - 1 - margins)


def distance(shape: Shape, centre: np.ndarray, stretch: float = 1.0) -> np.ndarray:
    """Pixels from ``centre`` (y,x); circles become ellipses, ``stretch`` times as high and 1 / ``stretch`` as wide."""
    y, x = axes(shape)
    cy, cx = centre
    return np.sqrt(((y - cy) / stretch) ** 2 + ((x - cx) * stretch) ** 2)


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
    apart = np.sqrt((dy - t * ry) ** 2 + (dx - t * rx) ** 2)
    cover = np.clip(widths.astype(np.float32)[:, None, None] / 2 + 0.5 - apart, 0, 1)
    canvas[low[0] : high[0], low[1] : high[1]] = (cover * levels.astype(np.float32)[:, None, None]).max(0)
    return canvas


def joined(points: np.ndarray) -> np.ndarray:
    """The N,2,2 segments between N + 1 points (each y,x)."""
    return np.stack([points[:-1], points[1:]], 1)


def walk(
    rng: np.random.Generator, start: np.ndarray, angle: float, length: float, step: Range, wander: float
) -> np.ndarray:
    """N,2,2 segments from ``start`` that stagger around ``angle``: steps in pixels, ``wander`` in radians."""
    steps = rng.uniform(*step, max(2, round(length / (sum(step) / 2))))
    heading = angle + rng.normal(0, wander, len(steps))
    points = start + np.cumsum(steps[:, None] * np.stack([np.sin(heading), np.cos(heading)], 1), 0)
    return joined(np.concatenate([start[None], points]))


def blurred(field: np.ndarray) -> np.ndarray:
    """The field after a 3 x 3 binomial blur; edges repeat."""
    padded = np.pad(field, 1, mode="edge")
    padded = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return ((padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 16).astype(np.float32)


def soften(picture: np.ndarray, share: float) -> np.ndarray:
    """A 3 x 3 blur of H,W,3: each neighbour along an axis gives ``share`` (0 to 0.2) to a pixel; edges repeat."""
    for axis in (0, 1):
        padded = np.pad(picture, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        picture = picture + np.float32(share) * (before + after - 2 * picture)
    return picture


def lighting(rng: np.random.Generator, shape: Shape, gloss: float, gain: Range, fall: Range) -> np.ndarray:
    """H,W float32 around 1: a gain, a linear fall-off from edge to edge, a broad soft reflection up to ``gloss``."""
    y = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[None, :]
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(*fall) * (x * np.cos(angle) + y * np.sin(angle))
    band = np.exp(-(((y - rng.uniform(-0.6, 0.6)) + 0.3 * rng.normal() * x) ** 2) / rng.uniform(0.02, 0.12))
    return (rng.uniform(*gain) * (1 + slope) + gloss * rng.random() * band).astype(np.float32)


def develop(picture: np.ndarray) -> np.ndarray:
    """A float picture in [0, 1] as uint8; what lies outside is cut off."""
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)


def expose(
    rng: np.random.Generator, albedo: np.ndarray, light: np.ndarray, balance: float, blur: Range, noise: Range
) -> np.ndarray:
    """What a camera makes of a lit surface: H,W,3 uint8.

    Args:
        rng: the generator to draw from.
        albedo: H,W,3 float32.
        light: H,W float32.
        balance: standard deviation of the white balance's error, relative.
        blur: share for `soften`.
        noise: standard deviation of the sensor's noise.
    """
    errors = rng.normal(1, balance, 3).astype(np.float32)
    picture = soften(albedo * light[..., None] * errors, rng.uniform(*blur))
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(*noise))
    return develop(picture)
