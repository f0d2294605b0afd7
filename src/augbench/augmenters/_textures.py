"""Random coloured textures, for augmenters that paste foreign texture and have no folder of texture images."""

from __future__ import annotations

import numpy as np

from augbench.procedural.noise import Shape, perlin, spectral, streaks


def procedural_texture(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Draw a texture of no particular material, H,W,3 uint8: a random field in a palette of four random colours."""
    field = _FIELDS[rng.integers(len(_FIELDS))](rng, shape)
    low, high = np.quantile(field[:: max(1, shape[0] // 64)], (0.02, 0.98))
    level = np.clip((field - low) * (255 / (high - low + 1e-6)), 0, 255).astype(np.uint8)
    return _palette(rng)[level]


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Return a colour map, 256,3 uint8: a gradient of four colours of one tint, as in photographs of textures."""
    tint = rng.normal(0, 35, 3)
    colours = np.clip(rng.uniform(0, 255, (4, 1)) + tint + rng.normal(0, 15, (4, 3)), 0, 255)
    stops = np.linspace(0, 255, 4)
    return np.stack([np.interp(np.arange(256), stops, colours[:, c]) for c in range(3)], 1).astype(np.uint8)


def _stripes(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Return warped sinusoidal bands of 4 to 40 pixels, half of the time crossed by a second set."""
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(4, 40)
    warp = np.float32(rng.uniform(0, 1.5)) * perlin(rng, shape, (3, 3)) * 2
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    bands = np.sin((x * cos + y * sin) * np.float32(2 * np.pi / pitch) + warp)
    return bands * np.sin((y * cos - x * sin) * np.float32(2 * np.pi / pitch) + warp) if rng.random() < 0.5 else bands


_FIELDS = (  # clouds, grain, brushed metal, stripes, and flat patches with sharp borders as in stone or camouflage
    lambda rng, shape: spectral(rng, shape, rng.uniform(0.3, 2.2)),
    lambda rng, shape: spectral(rng, shape, 0.0, lowest=rng.uniform(0.02, 0.15), highest=rng.uniform(0.2, 0.6)),
    lambda rng, shape: streaks(rng, shape, rng.uniform(0, np.pi), rng.uniform(4, 30), rng.uniform(0.3, 2)),
    _stripes,
    lambda rng, shape: np.round(1.5 * spectral(rng, shape, rng.uniform(1.0, 2.0))),
)
