"""Defect classes of the dataset `surfaces`, with their parameter ranges, in `DEFECTS`.

A defect's shape gives its profile: where it changes the albedo, and how strongly. Contrast, polarity and tint are drawn
at random. Pixels whose absolute profile is at least `MASK_LEVEL` form the mask. The corpus that pretrains the shipped
weights uses the same shapes with other ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from augbench.datasets._surface_materials import Surface
from augbench.procedural.defects import Crack, DefectShape, Scratch, Scuff, Spots, Stain
from augbench.procedural.drawing import Colour, Range

MASK_LEVEL = 0.25
# Contrasts were chosen on the dataset with `seed: 1`, where the protocol `demo` reached an AP of about .85 with all
# real defects and of .53 with five: neither solved nor hopeless. Reports use the default seed.


@dataclass(frozen=True)
class Defect:
    """One defect class: its shape and its range of contrast, from barely visible to obvious."""

    shape: DefectShape
    contrast: Range  # albedo units, log-uniform; the surface's own texture is added on top, or grain would hide it
    dark: float  # probability of a dark defect, where the surface is neither very dark nor very bright
    tints: tuple[Colour, ...] = ((1.0, 1.0, 1.0),)  # relative change of red, green and blue


SCRATCH = Scratch(
    number=(1, 3), length=(18, 70), width=(0.7, 1.9), bend=0.25, tilt=0.1, scatter=3, fade=(0.4, 1), burr=(0, 0.5)
)
SPOT = Spots(number=(1, 6), spread=(2, 9), radius=(1.4, 3.6))
MARK = Scuff(number=(5, 11), breadth=(2.5, 7), shift=4, half=(3, 12), width=(1.2, 3.2), tilt=0.12)
CRACK = Crack(length=(22, 75), width=(1.0, 2.0), tip=0.7, fork_width=0.8, forks=(0, 2), step=(2, 5), wander=0.55)
STAIN = Stain(radius=(5, 15), stretch=(0.7, 1.4), ragged=0.2, rim=(0, 0.35))

DEFECTS: dict[str, Defect] = {
    "scratch": Defect(SCRATCH, (0.035, 0.40), 0.35),
    "spot": Defect(SPOT, (0.035, 0.40), 0.7, ((1.0, 1.0, 1.0), (0.7, 0.95, 1.1))),
    "mark": Defect(MARK, (0.03, 0.36), 0.3, ((1.0, 1.0, 1.0), (1.0, 0.97, 0.9))),
    "crack": Defect(CRACK, (0.033, 0.40), 0.85),
    "stain": Defect(STAIN, (0.028, 0.30), 0.8, ((0.7, 1.0, 1.25), (1.0, 0.9, 0.8), (1.1, 1.0, 0.8))),
}


def add_defect(rng: np.random.Generator, surface: Surface, label: str) -> np.ndarray:
    """Add a defect of class ``label`` to ``surface`` in place and return its mask: H,W bool, never empty."""
    recipe = DEFECTS[label]
    profile = recipe.shape(rng, surface.albedo.shape[:2])
    mask = np.abs(profile) >= min(MASK_LEVEL, np.abs(profile).max())

    low, high = np.log(recipe.contrast)
    contrast = np.exp(rng.uniform(low, high)) + surface.texture
    tint = np.array(recipe.tints[rng.integers(len(recipe.tints))], np.float32)
    change = np.float32(contrast * _polarity(rng, surface.albedo[mask].mean(), recipe.dark)) * tint
    surface.albedo = np.clip(surface.albedo + profile[..., None] * change, 0.01, 1)
    return mask


def _polarity(rng: np.random.Generator, brightness: float, dark: float) -> int:
    """Draw +1 (brighter) or -1 (darker): fixed on very dark and very bright surfaces, else by chance ``dark``."""
    chance = rng.random()
    if brightness < 0.3:
        return 1
    return -1 if brightness > 0.7 or chance < dark else 1
