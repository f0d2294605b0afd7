"""Regular and cellular patterns of materials, beside the random fields of `augbench.procedural.noise`."""

from __future__ import annotations

import numpy as np

from augbench.procedural.drawing import axes
from augbench.procedural.noise import Shape, spectral


def upright_or_level(rng: np.random.Generator, error: float = 0.08) -> float:
    """Draw the direction of brushing, grain or fibres, in radians."""
    return float(rng.integers(2) * np.pi / 2 + rng.normal(0, error))


def turned_axes(shape: Shape, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates along and across ``angle`` in pixels: two H,W float32 fields."""
    y, x = axes(shape)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def waver(rng: np.random.Generator, shape: Shape, pixels: float) -> np.ndarray:
    """Draw a smooth displacement of lines, H,W float32 with a standard deviation of ``pixels``."""
    return np.float32(pixels) * spectral(rng, shape, 1.8)


def cells(rng: np.random.Generator, shape: Shape, pitch: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw Voronoi cells about ``pitch`` pixels wide, with one seed per square of a lattice.

    Returns:
        Distances to the nearest and second nearest seed, in units of the pitch, and a number in [0, 1) that is
        constant within a cell. All are H,W float32.
    """
    y, x = axes(shape)
    v, u = np.broadcast_arrays(y / np.float32(pitch) + 2, x / np.float32(pitch) + 2)
    row, column = np.floor(v).astype(np.intp), np.floor(u).astype(np.intp)
    lattice = rng.random((3, int(row.max()) + 3, int(column.max()) + 3), dtype=np.float32)
    near = np.full(shape, 9.0, np.float32)
    second, number = near.copy(), np.zeros(shape, np.float32)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            seed_y, seed_x, tone = lattice[:, row + i, column + j]
            apart = np.sqrt((row + i + seed_y - v) ** 2 + (column + j + seed_x - u) ** 2)
            closer = apart < near
            second = np.where(closer, near, np.minimum(second, apart))
            number = np.where(closer, tone, number)
            near = np.minimum(near, apart)
    return near, second, number


def bond(shape: Shape, brick: tuple[float, float], offset: np.ndarray, shift: float, joint: float):
    """Draw a wall of tiles or bricks.

    Args:
        shape: height and width of the image.
        brick: height and width of a piece with its joint, in pixels.
        offset: origin of the lattice (y,x), in pixels.
        shift: offset of every second course, in bricks.
        joint: width in pixels.

    Returns:
        The joints, H,W float32 in [0, 1], and the number of the piece, H,W int.
    """
    y, x = axes(shape)
    row = np.floor((y + offset[0]) / brick[0])
    v = (y + offset[0]) % brick[0]
    u = x + offset[1] + (row % 2) * shift * brick[1]
    column = np.floor(u / brick[1])
    edge = np.minimum(np.minimum(v, brick[0] - v), np.minimum(u % brick[1], brick[1] - u % brick[1]))
    return np.clip(joint / 2 + 0.5 - edge, 0, 1).astype(np.float32), (row * 31 + column * 7).astype(int)


def weave(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Draw a plain weave; ``u`` and ``v`` count threads. Brightness around 0, H,W float32."""
    over = (np.floor(u) + np.floor(v)) % 2 > 0
    warp, weft = np.sin(np.pi * (u % 1)), np.sin(np.pi * (v % 1))
    return np.where(over, 0.1 + warp * (0.5 + 0.3 * weft), weft * (0.5 + 0.3 * warp)) - 0.45
