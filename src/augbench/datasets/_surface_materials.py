"""Materials of the dataset `surfaces`, in `MATERIALS`: defect-free surfaces, their lighting and their exposure.

The corpus that pretrains the shipped weights does not contain these materials.
Colours and albedo are RGB in [0, 1]; fields are H,W float32; angles are as in `augbench.procedural.noise`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from augbench.procedural.drawing import Colour, Range, expose, lighting
from augbench.procedural.noise import Shape, relief, spectral, streaks


@dataclass(frozen=True)
class Material:
    """Base colours, a texture of standard deviation about 1, and how strongly it modulates the colour."""

    colours: tuple[Colour, ...]
    texture: Callable[[np.random.Generator, Shape, float], np.ndarray]  # rng, shape, grain angle -> H,W float32
    amplitude: Range  # relative brightness change of one standard deviation
    grain: float  # mean direction of brushing, grinding or weaving, radians
    gloss: float  # strength of the soft reflection that lighting may add


@dataclass
class Surface:
    """One physical item, before `photograph` renders an exposure of it."""

    albedo: np.ndarray  # H,W,3 float32
    texture: float  # standard deviation of the brightness texture, in albedo units
    grain: float  # radians
    gloss: float


def _anodised(rng: np.random.Generator, shape: Shape, grain: float) -> np.ndarray:
    """Etched aluminium: a fine matt grain over what is left of the rolling lines."""
    return 0.75 * streaks(rng, shape, grain, rng.uniform(6, 18), 0.5) + 0.55 * spectral(rng, shape, 0.2, lowest=0.1)


def _painted(rng: np.random.Generator, shape: Shape, grain: float) -> np.ndarray:
    """Sprayed lacquer: orange peel under grazing light."""
    return relief(spectral(rng, shape, rng.uniform(1.0, 1.6), lowest=0.03, highest=0.3), grain)


def _resin(rng: np.random.Generator, shape: Shape, grain: float) -> np.ndarray:
    """Cast resin with filler: soft clouds and a few pinpoint pores."""
    pores = spectral(rng, shape, 0.0, lowest=0.12) > rng.uniform(3.0, 3.6)
    return spectral(rng, shape, rng.uniform(1.2, 1.7)) + 0.4 * spectral(rng, shape, 0.0) - 1.5 * pores


def _ground(rng: np.random.Generator, shape: Shape, grain: float) -> np.ndarray:
    """Ground steel: long fine lines, uneven from pass to pass."""
    return 0.8 * streaks(rng, shape, grain, rng.uniform(15, 50), 0.25) + 0.6 * streaks(rng, shape, grain, 40, 2.5)


def _laminate(rng: np.random.Generator, shape: Shape, grain: float) -> np.ndarray:
    """Fibre laminate: a two-over-two twill under clear resin, its threads never quite straight."""
    pitch = rng.uniform(4.5, 8.0)  # pixels per thread
    wander = spectral(rng, shape, 1.8) * np.float32(0.12)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    cos, sin = np.cos(grain - np.pi / 2), np.sin(grain - np.pi / 2)
    u, v = (x * cos + y * sin) / pitch + wander, (y * cos - x * sin) / pitch + wander
    over = (np.floor(u) + np.floor(v)) % 4 < 2  # warp on top, else weft
    crown = np.sin(np.pi * np.where(over, u % 1, v % 1))  # threads are round: bright on top, dark in the valleys
    return 1.3 * (crown - 0.64) * 2 + np.where(over, 0.35, -0.35) + 0.25 * spectral(rng, shape, 0.0)


def _enamel(rng: np.random.Generator, shape: Shape, grain: float) -> np.ndarray:
    """Fired enamel: even, with the fine two-tone speckle of its pigment."""
    fine = spectral(rng, shape, 0.3, lowest=0.1)
    return 0.6 * spectral(rng, shape, 1.4) + 0.9 * np.clip(fine - 1.2, 0, 1.2) - 0.9 * np.clip(-1.3 - fine, 0, 1.2)


UPRIGHT, LEVEL = np.pi / 2, 0.0

MATERIALS: dict[str, Material] = {
    "anodised aluminium": Material(
        colours=((0.62, 0.63, 0.65), (0.66, 0.60, 0.48), (0.40, 0.46, 0.54), (0.30, 0.27, 0.25)),
        texture=_anodised,
        amplitude=(0.02, 0.05),
        grain=UPRIGHT,
        gloss=0.10,
    ),
    "painted panel": Material(
        colours=((0.75, 0.74, 0.70), (0.22, 0.34, 0.50), (0.52, 0.17, 0.15), (0.24, 0.42, 0.33)),
        texture=_painted,
        amplitude=(0.015, 0.045),
        grain=0.8,
        gloss=0.16,
    ),
    "cast resin": Material(
        colours=((0.52, 0.50, 0.46), (0.35, 0.36, 0.37), (0.66, 0.58, 0.46)),
        texture=_resin,
        amplitude=(0.02, 0.05),
        grain=0.3,
        gloss=0.08,
    ),
    "ground steel": Material(
        colours=((0.50, 0.51, 0.53), (0.63, 0.63, 0.63), (0.41, 0.42, 0.45)),
        texture=_ground,
        amplitude=(0.04, 0.09),
        grain=LEVEL,
        gloss=0.14,
    ),
    "fibre laminate": Material(
        colours=((0.22, 0.23, 0.24), (0.58, 0.55, 0.42), (0.38, 0.42, 0.36)),
        texture=_laminate,
        amplitude=(0.05, 0.10),
        grain=UPRIGHT,
        gloss=0.06,
    ),
    "fired enamel": Material(
        colours=((0.80, 0.79, 0.76), (0.60, 0.66, 0.68), (0.28, 0.30, 0.34)),
        texture=_enamel,
        amplitude=(0.02, 0.05),
        grain=1.2,
        gloss=0.12,
    ),
}


def make_surface(rng: np.random.Generator, shape: Shape) -> Surface:
    """Draw a defect-free item of a random material, with its own shade, texture and harmless blemishes."""
    material = MATERIALS[list(MATERIALS)[rng.integers(len(MATERIALS))]]
    grain = material.grain + rng.normal(0, 0.06)
    colour = np.array(material.colours[rng.integers(len(material.colours))], np.float32)
    colour = colour * np.float32(rng.uniform(0.88, 1.12)) + rng.normal(0, 0.012, 3).astype(np.float32)
    amplitude = rng.uniform(*material.amplitude)

    brightness = np.float32(amplitude) * material.texture(rng, shape, grain).astype(np.float32)
    brightness += _blemishes(rng, shape, grain)
    albedo = colour * (1 + brightness)[..., None]
    return Surface(albedo, float(amplitude * colour.mean()), grain, material.gloss)


def _blemishes(rng: np.random.Generator, shape: Shape, grain: float) -> np.ndarray:
    """Draw harmless blemishes as relative brightness (H,W): dust, faint straight tool marks, wiping haze."""
    change = np.zeros(shape, np.float32)
    for _ in range(rng.poisson(2.5)):  # a speck is a pixel or two; a defect spot is larger
        y, x = rng.integers(shape[0]), rng.integers(shape[1])
        change[y : y + rng.integers(1, 3), x : x + rng.integers(1, 3)] += rng.choice((-1, 1)) * rng.uniform(0.03, 0.14)
    if rng.random() < 0.35:
        for _ in range(rng.integers(1, 4)):
            change += _tool_mark(rng, shape, grain)
    if rng.random() < 0.3:
        change += np.float32(rng.uniform(0.008, 0.03)) * spectral(rng, shape, 2.2)
    return change


def _tool_mark(rng: np.random.Generator, shape: Shape, grain: float) -> np.ndarray:
    """Draw a faint straight line along the grain from edge to edge; a scratch stops, bends or crosses the grain."""
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    across = (y - rng.uniform(0, shape[0])) * np.cos(grain) - (x - rng.uniform(0, shape[1])) * np.sin(grain)
    strength = rng.choice((-1, 1)) * rng.uniform(0.015, 0.05)
    return (strength * np.clip(rng.uniform(0.6, 1.2) - np.abs(across), 0, 1)).astype(np.float32)


def photograph(rng: np.random.Generator, surface: Surface) -> np.ndarray:
    """Render one exposure, H,W,3 uint8: lighting gradient, reflection, white balance, slight blur, sensor noise."""
    light = lighting(rng, surface.albedo.shape[:2], surface.gloss, gain=(0.85, 1.12), fall=(0, 0.25))
    return expose(rng, surface.albedo, light, balance=0.02, blur=(0, 0.2), noise=(0.004, 0.014))
