"""Defect shapes: dataclasses of parameter ranges. Calling one draws a profile, the strength of a defect per pixel.

A profile is H,W float32 in about [-1, 1]. Every parameter that may differ between two image generators is a field, so
comparing fields shows their differences. A pair is a range (uniform; inclusive for integers), a single number is a
constant, usually a standard deviation. Lengths are in pixels, angles in radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from augbench.procedural.drawing import Range, blurred, distance, joined, place, strokes, walk
from augbench.procedural.noise import Shape, spectral

Count = tuple[int, int]


@dataclass(frozen=True)
class Scratch:
    """Nearly parallel, slightly bent strokes that fade out, each with the (negative) shadow of its burr."""

    number: Count
    length: Range
    width: Range
    bend: float  # standard deviation of a stroke's turn from end to end
    tilt: float  # standard deviation between strokes
    scatter: float  # standard deviation of the strokes' centres
    fade: Range  # relative strength at the far end
    burr: Range  # relative strength of the shadow

    def __call__(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """Draw a profile: H,W float32."""
        centre, angle, length = place(rng, shape, 14), rng.uniform(0, np.pi), rng.uniform(*self.length)
        profile = np.zeros(shape, np.float32)
        for _ in range(_count(rng, self.number)):
            bend, tilt = rng.normal(0, self.bend), angle + rng.normal(0, self.tilt)
            along = np.linspace(-0.5, 0.5, 8)
            heading = tilt + bend * along
            middle = centre + rng.normal(0, self.scatter, 2)
            reach = (along * length * rng.uniform(0.6, 1))[:, None]
            points = middle + reach * np.stack([np.sin(heading), np.cos(heading)], 1)
            fading = rng.uniform(0.6, 1) * np.linspace(1, rng.uniform(*self.fade), 7)
            width = rng.uniform(*self.width)
            profile = np.maximum(profile, strokes(shape, joined(points), np.full(7, width), fading))
        burr = np.roll(profile, (1, 1), (0, 1))
        return profile - np.float32(rng.uniform(*self.burr)) * np.clip(burr - profile, 0, 1)


@dataclass(frozen=True)
class Spots:
    """Clustered pits or inclusions, round or slightly elongated."""

    number: Count
    spread: Range  # standard deviation of their positions
    radius: Range

    def __call__(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """Draw a profile: H,W float32."""
        centre, spread = place(rng, shape, 6), rng.uniform(*self.spread)
        profile = np.zeros(shape, np.float32)
        for number in range(_count(rng, self.number)):
            spot = centre + (number > 0) * rng.normal(0, spread, 2)
            radius, stretch = rng.uniform(*self.radius), rng.uniform(0.75, 1.3)
            disc = np.clip(radius + 0.5 - distance(shape, spot, stretch), 0, 1)
            profile = np.maximum(profile, disc * np.float32(rng.uniform(0.7, 1)))
        return profile


@dataclass(frozen=True)
class Scuff:
    """A group of short soft lines, as left by an object that slid over the surface."""

    number: Count
    breadth: Range  # standard deviation of the lines' positions across their direction
    shift: float  # standard deviation along it
    half: Range  # half a line's length
    width: Range
    tilt: float  # standard deviation between lines

    def __call__(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """Draw a profile: H,W float32."""
        centre, angle = place(rng, shape, 10), rng.uniform(0, np.pi)
        number, breadth = _count(rng, self.number), rng.uniform(*self.breadth)
        heading = angle + rng.normal(0, self.tilt, number)
        direction = np.stack([np.sin(heading), np.cos(heading)], 1)
        normal = np.array([np.cos(angle), -np.sin(angle)])
        middle = centre + rng.normal(0, breadth, (number, 1)) * normal
        middle = middle + rng.normal(0, self.shift, (number, 1)) * direction
        half = rng.uniform(*self.half, (number, 1)) * direction
        ends = np.stack([middle - half, middle + half], 1)
        lines = strokes(shape, ends, rng.uniform(*self.width, number), rng.uniform(0.5, 1, number))
        patchy = np.clip(0.85 + 0.3 * spectral(rng, shape, 0.8), 0.3, 1.1)
        return blurred(lines) * patchy.astype(np.float32)


@dataclass(frozen=True)
class Crack:
    """A jagged line that gets thinner and may fork."""

    length: Range
    width: Range  # at its start
    tip: float  # width at its end
    fork_width: float
    forks: Count
    step: Range  # distance between two turns
    wander: float  # standard deviation of the heading

    def __call__(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """Draw a profile: H,W float32."""
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(*self.length)
        start = place(rng, shape, 12) - 0.4 * length * np.array([np.sin(angle), np.cos(angle)])
        start = np.clip(start, 2, np.array(shape) - 3)
        trunk = walk(rng, start, angle, length, self.step, self.wander)
        pieces, widths = [trunk], [np.linspace(rng.uniform(*self.width), self.tip, len(trunk))]
        for _ in range(_count(rng, self.forks)):
            fork = trunk[rng.integers(len(trunk)), 1]
            turned = angle + rng.choice((-1, 1)) * rng.uniform(0.4, 1.1)
            pieces.append(walk(rng, fork, turned, length * rng.uniform(0.2, 0.4), self.step, self.wander))
            widths.append(np.full(len(pieces[-1]), self.fork_width))
        segments = np.concatenate(pieces)
        return strokes(shape, segments, np.concatenate(widths), rng.uniform(0.75, 1, len(segments)))


@dataclass(frozen=True)
class Stain:
    """A dried liquid: an irregular patch with a stronger rim."""

    radius: Range
    stretch: Range
    ragged: float  # roughness of the outline, relative to the radius
    rim: Range  # strength of the rim

    def __call__(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """Draw a profile: H,W float32."""
        centre = place(rng, shape, 8)
        radius = rng.uniform(*self.radius)
        apart = distance(shape, centre, rng.uniform(*self.stretch))
        inside = 1 - apart / np.float32(radius) + np.float32(self.ragged) * spectral(rng, shape, 1.8, lowest=0.01)
        inside[apart > 2 * radius] = -1  # no islands far from the centre
        patch = np.clip(inside * radius / 1.5, 0, 1)
        rim = np.clip(1 - np.abs(inside * radius - 1.5) / 1.5, 0, 1)
        return (0.65 * patch + np.float32(rng.uniform(*self.rim)) * rim).astype(np.float32)


DefectShape = Scratch | Spots | Scuff | Crack | Stain


def _count(rng: np.random.Generator, number: Count) -> int:
    """Draw an integer from the inclusive range."""
    return int(rng.integers(number[0], number[1] + 1))
