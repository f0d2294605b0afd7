"""Drawing primitives for procedural images: lines, blur, lighting and a camera model. No materials.

Fields are H,W float32. Positions and lengths are in pixels, y before x; angles are in radians as in `procedural.noise`.
The dataset `surfaces` and the corpus for pretraining must not resemble each other: they share these functions and
`augbench.procedural.defects`, but use different parameters.
"""

from __future__ import annotations

import numpy as np

from augbench.procedural.noise import Shape

Colour = tuple[float, float, float]
"""RGB in [0, 1]."""
Range = tuple[float, float]
"""Lower and upper bound of a random value."""


def axes(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return row coordinates H,1 and column coordinates 1,W, float32."""
    return np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]


def place(rng: np.random.Generator, shape: Shape, margin: float) -> np.ndarray:
    """Draw a position (y,x) at least ``margin`` pixels from the edges, or less in a small image."""
    margins = np.minimum(margin, np.array(shape) / 2 - 1)
    return rng.uniform(margins, np.array(shape) - 1 - margins)


def distance(shape: Shape, centre: np.ndarray, stretch: float = 1.0) -> np.ndarray:
    """Return the distance of each pixel from ``centre`` (y,x); ``stretch`` scales height, 1 / ``stretch`` width."""
    y, x = axes(shape)
    cy, cx = centre
    return np.sqrt(((y - cy) / stretch) ** 2 + ((x - cx) * stretch) ** 2)


def strokes(shape: Shape, segments: np.ndarray, widths: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Draw anti-aliased line segments: H,W float32 in [0, 1], the maximum where they overlap.

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
    """Return the N,2,2 segments between N + 1 points (each y,x)."""
    return np.stack([points[:-1], points[1:]], 1)


def walk(
    rng: np.random.Generator, start: np.ndarray, angle: float, length: float, step: Range, wander: float
) -> np.ndarray:
    """Draw N,2,2 segments of a random walk from ``start`` along ``angle``: steps in pixels, ``wander`` in radians."""
    steps = rng.uniform(*step, max(2, round(length / (sum(step) / 2))))
    heading = angle + rng.normal(0, wander, len(steps))
    points = start + np.cumsum(steps[:, None] * np.stack([np.sin(heading), np.cos(heading)], 1), 0)
    return joined(np.concatenate([start[None], points]))


def blurred(field: np.ndarray) -> np.ndarray:
    """Apply a 3 x 3 binomial blur; edges repeat."""
    padded = np.pad(field, 1, mode="edge")
    padded = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return ((padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 16).astype(np.float32)


def soften(image: np.ndarray, share: float) -> np.ndarray:
    """Apply a 3 x 3 blur to H,W,3: each neighbour along an axis has weight ``share`` (0 to 0.2); edges repeat."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        image = image + np.float32(share) * (before + after - 2 * image)
    return image


def lighting(rng: np.random.Generator, shape: Shape, gloss: float, gain: Range, fall: Range) -> np.ndarray:
    """Draw a light field, H,W float32 around 1: gain, linear fall-off, a broad soft reflection up to ``gloss``."""
    y = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[None, :]
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(*fall) * (x * np.cos(angle) + y * np.sin(angle))
    band = np.exp(-(((y - rng.uniform(-0.6, 0.6)) + 0.3 * rng.normal() * x) ** 2) / rng.uniform(0.02, 0.12))
    return (rng.uniform(*gain) * (1 + slope) + gloss * rng.random() * band).astype(np.float32)


def expose(
    rng: np.random.Generator, albedo: np.ndarray, light: np.ndarray, balance: float, blur: Range, noise: Range
) -> np.ndarray:
    """Simulate a camera image of a lit surface: H,W,3 uint8.

    Args:
        rng: the generator to draw from.
        albedo: H,W,3 float32.
        light: H,W float32.
        balance: relative standard deviation of the white balance error.
        blur: range of the share for `soften`.
        noise: range of the sensor noise's standard deviation.
    """
    errors = rng.normal(1, balance, 3).astype(np.float32)
    image = soften(albedo * light[..., None] * errors, rng.uniform(*blur))
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(*noise))
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
