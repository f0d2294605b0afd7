"""The materials of the corpus. `MATERIALS` lists them all; those in `RESERVED` are never trained on.

A material draws the albedo of a normal piece, H,W,3 float32 in about [0, 1], in a given colour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from augbench.procedural.drawing import Colour, axes
from augbench.procedural.noise import Shape, relief, spectral, streaks
from corpus.patterns import bond, cells, turned_axes, upright_or_level, waver, weave

COLOURS: dict[str, Colour] = {
    "red": (0.70, 0.15, 0.13),
    "orange": (0.86, 0.45, 0.12),
    "yellow": (0.84, 0.70, 0.18),
    "green": (0.18, 0.48, 0.24),
    "blue": (0.16, 0.29, 0.62),
    "brown": (0.42, 0.27, 0.16),
    "beige": (0.76, 0.66, 0.50),
    "white": (0.86, 0.86, 0.84),
    "gray": (0.50, 0.50, 0.50),
    "black": (0.14, 0.14, 0.15),
}
ALL = tuple(COLOURS)


@dataclass(frozen=True)
class Material:
    """The look of a material, and its names."""

    draw: Callable[[np.random.Generator, Shape, np.ndarray], np.ndarray]  # rng, shape, colour 3 -> albedo H,W,3
    names: tuple[str, ...]  # names in captions, beside its own
    colours: tuple[str, ...] = ()  # its colours, keys of `COLOURS`
    tones: tuple[Colour, ...] = ()  # or its own colours, without a name
    gloss: float = 0.0  # strength of the soft reflection that lighting may add

    def colour(self, rng: np.random.Generator, word: str) -> np.ndarray:
        """Draw the RGB of one piece, 3 float32, near the named colour, or one of its own tones."""
        base = COLOURS[word] if word else self.tones[rng.integers(len(self.tones))]
        hue = 0.004 + 0.03 * (max(base) - min(base))  # grays stay gray
        varied = np.array(base) * rng.uniform(0.85, 1.15) + rng.normal(0, hue, 3)
        return np.clip(varied, 0.05, 0.9).astype(np.float32)


def shaded(colour: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Apply a relative change of brightness (H,W) to the colour (3): H,W,3."""
    return colour * (1 + change.astype(np.float32))[..., None]


def _brushed(rng, shape, colour):
    lines = streaks(rng, shape, upright_or_level(rng), rng.uniform(20, 40), rng.uniform(0.7, 1.1))
    return shaded(colour, rng.uniform(0.09, 0.17) * lines)


def _iron(rng, shape, colour):
    """Sand casting: coarse grains under raking light."""
    height = spectral(rng, shape, rng.uniform(0.8, 1.3), lowest=0.04)
    return shaded(colour, rng.uniform(0.16, 0.28) * relief(height, 0.8) + 0.06 * spectral(rng, shape, 1))


def _copper(rng, shape, colour):
    lines = streaks(rng, shape, upright_or_level(rng), rng.uniform(8, 20), rng.uniform(1.2, 2.0))
    bloom = spectral(rng, shape, 1.8)[..., None] * np.array([0.02, 0.05, 0.07], np.float32)  # tarnish
    return shaded(colour, rng.uniform(0.04, 0.08) * lines) * (1 + bloom)


def _zinc(rng, shape, colour):
    """Hot-dip galvanised: flat crystals, each with a sheen and a direction of its own."""
    near, second, number = cells(rng, shape, rng.uniform(11, 18))
    ripple = np.sin(6 * np.pi * number + 9 * near)
    return shaded(colour, 0.32 * (number - 0.5) + 0.05 * ripple - 0.12 * np.clip(1 - 12 * (second - near), 0, 1))


def _fabric(rng, shape, colour):
    pitch = rng.uniform(4.0, 7.0)
    along, across = turned_axes(shape, rng.normal(0, 0.04))
    bend = waver(rng, shape, 0.35)
    return shaded(colour, rng.uniform(0.55, 0.85) * weave((along + bend) / pitch + 40, (across + bend) / pitch + 40))


def _carpet(rng, shape, colour):
    """Loop pile in rows."""
    pile = spectral(rng, shape, 0.2, lowest=0.09, highest=0.3)
    rows = np.sin(2 * np.pi * (axes(shape)[0] + waver(rng, shape, 0.4)) / rng.uniform(4.5, 6))
    return shaded(colour, 0.2 * pile + 0.1 * rows)


def _concrete(rng, shape, colour):
    """Blotches, a fine grain, and the round bubbles of air at the formwork."""
    near, _, number = cells(rng, shape, 13)
    bubble = np.clip(2.5 - 40 * near, 0, 1) * (number < 0.35) + np.clip(3.4 - 25 * near, 0, 1) * (number > 0.85)
    return shaded(colour, 0.10 * spectral(rng, shape, 1.5) + 0.05 * spectral(rng, shape, 0.3) - 0.3 * bubble)


def _wood(rng, shape, colour):
    angle = upright_or_level(rng, 0.06)
    _, across = turned_axes(shape, angle)
    rings = (across + waver(rng, shape, rng.uniform(2, 5))) / rng.uniform(7, 14)
    late = rings % 1  # dark towards the end of a year, then a sudden edge
    ring = np.where(late < 0.8, late / 0.8, (1 - late) / 0.2)
    return shaded(colour, 0.12 - 0.34 * ring + 0.08 * streaks(rng, shape, angle, 14, 0.5))


def _plastic(rng, shape, colour):
    return shaded(colour, 0.02 * spectral(rng, shape, 0.6, lowest=0.05) + 0.03 * spectral(rng, shape, 2.2))


def _tile(rng, shape, colour):
    side = rng.uniform(20, 36)
    joint, number = bond(shape, (side, side), rng.uniform(0, side, 2), 0, rng.uniform(1.6, 2.6))
    tones = rng.normal(0, 0.05, 64)[number % 64]
    glaze = shaded(colour, tones + 0.03 * spectral(rng, shape, 1.6))
    grout = np.float32(rng.uniform(0.25, 0.4) if colour.mean() > 0.55 else rng.uniform(0.6, 0.8))
    return glaze + joint[..., None] * (grout - glaze)


def _leather(rng, shape, colour):
    near, second, _ = cells(rng, shape, rng.uniform(4.5, 7.5))
    pebble = np.clip((second - near) * 3, 0, 1)
    return shaded(colour, rng.uniform(0.4, 0.6) * (pebble - 0.65) + 0.06 * spectral(rng, shape, 1.6))


def _wall(rng, shape, colour):
    """Roughcast: grains thrown on, under light from above."""
    grains = np.clip(spectral(rng, shape, 0.5, lowest=0.05, highest=0.24), -0.3, 2)
    pale = colour * np.float32(0.65) + np.float32(0.3)  # walls are pastel
    return shaded(pale, rng.uniform(0.07, 0.13) * relief(grains, rng.uniform(1.2, 1.9)))


def _marble(rng, shape, colour):
    along, _ = turned_axes(shape, rng.uniform(0, np.pi))
    veins = 1 - np.abs(np.sin(np.pi * (along + waver(rng, shape, 9)) / rng.uniform(26, 50)))
    thin = np.clip(veins, 0, 1) ** rng.uniform(5, 10)
    stone = shaded(colour, 0.07 * spectral(rng, shape, 1.6))
    vein = np.float32(0.42 if colour.mean() > 0.5 else 0.8)
    return stone + (0.75 * thin)[..., None].astype(np.float32) * (vein - stone)


def _cardboard(rng, shape, colour):
    """The flutes show through; fibres lie about."""
    angle = upright_or_level(rng, 0.03)
    _, across = turned_axes(shape, angle)
    flutes = np.sin(2 * np.pi * across / rng.uniform(6.5, 9))
    fibres = streaks(rng, shape, rng.uniform(0, np.pi), 2.5, 0.6)
    return shaded(colour, 0.05 * flutes + 0.05 * fibres + 0.03 * spectral(rng, shape, 1.0))


def _rubber(rng, shape, colour):
    """A mat of round studs."""
    pitch = rng.uniform(7, 11)
    along, across = turned_axes(shape, rng.integers(2) * np.pi / 4)
    u, v = (along + 60) / pitch % 1 - 0.5, (across + 60) / pitch % 1 - 0.5
    stud = np.clip((0.34 - np.sqrt(u * u + v * v)) * pitch * 0.8, 0, 1)
    side = np.clip(-(u + v) * 1.6, -1, 1) * stud
    return shaded(colour, 0.55 * stud + 0.35 * side + 0.05 * spectral(rng, shape, 0.3)) + np.float32(0.03)


def _granite(rng, shape, colour):
    stone = shaded(colour, 0.10 * spectral(rng, shape, 0.4, lowest=0.05))
    mica, quartz = (spectral(rng, shape, 0.5, lowest=0.06, highest=0.35) for _ in range(2))
    stone = np.where((mica > rng.uniform(0.9, 1.3))[..., None], stone * np.float32(0.3), stone)
    return np.where((quartz > rng.uniform(1.1, 1.4))[..., None], stone * np.float32(0.4) + np.float32(0.5), stone)


def _cork(rng, shape, colour):
    """Pressed granules, each of its own shade."""
    near, second, number = cells(rng, shape, rng.uniform(6, 9))
    seam = np.clip(1 - 8 * (second - near), 0, 1)
    return shaded(colour, 0.5 * (number - 0.5) - 0.35 * seam * (number > 0.4) + 0.05 * spectral(rng, shape, 0.3))


def _brick(rng, shape, colour):
    high = rng.uniform(11, 15)
    joint, number = bond(shape, (high, 2.4 * high), rng.uniform(0, 40, 2), 0.5, rng.uniform(1.6, 2.6))
    clay = shaded(colour, rng.normal(0, 0.12, 64)[number % 64] + 0.09 * spectral(rng, shape, 0.6))
    mortar = shaded(np.full(3, 0.66, np.float32), 0.06 * spectral(rng, shape, 0.4))
    return clay + joint[..., None] * (mortar - clay)


def _slate(rng, shape, colour):
    """Split layers, seen as steps under raking light."""
    height = spectral(rng, shape, 1.9) * 4
    steps = np.floor(height) + np.clip((height % 1 - 0.75) * 4, 0, 1)
    return shaded(colour, 0.14 * np.clip(relief(steps, 0.9), -2.5, 2.5) + 0.05 * spectral(rng, shape, 1.0))


GRAYS = ((0.40, 0.40, 0.41), (0.51, 0.51, 0.52), (0.62, 0.62, 0.63))

MATERIALS: dict[str, Material] = {
    "brushed metal": Material(_brushed, ("metal", "metal plate"), tones=GRAYS, gloss=0.18),
    "cast iron": Material(_iron, ("iron", "iron casting"), tones=((0.28, 0.28, 0.30), (0.40, 0.40, 0.41))),
    "copper metal": Material(_copper, ("copper", "copper plate"), tones=((0.74, 0.44, 0.29),), gloss=0.22),
    "zinc sheet": Material(_zinc, ("zinc", "galvanised metal"), tones=((0.56, 0.58, 0.61), (0.66, 0.67, 0.69))),
    "fabric": Material(_fabric, ("woven fabric", "textile"), colours=ALL),
    "carpet": Material(_carpet, ("carpet floor",), colours=("red", "green", "blue", "brown", "beige", "gray")),
    "concrete": Material(_concrete, ("cement", "concrete floor"), colours=("gray",), tones=((0.58, 0.56, 0.53),)),
    "wood": Material(
        _wood,
        ("wood grain", "wooden plank"),
        colours=("brown",),
        tones=((0.62, 0.42, 0.25), (0.74, 0.57, 0.38), (0.47, 0.30, 0.17)),
        gloss=0.05,
    ),
    "plastic": Material(_plastic, ("plastic part", "smooth plastic"), colours=ALL, gloss=0.3),
    "tile": Material(_tile, ("ceramic tile", "tiles"), colours=("white", "gray", "beige", "blue", "green"), gloss=0.1),
    "leather": Material(_leather, ("leather hide",), colours=("brown", "black", "red", "beige"), gloss=0.1),
    "wall": Material(
        _wall, ("plaster wall", "rough wall"), colours=("white", "beige", "gray", "blue", "yellow", "green")
    ),
    "marble": Material(_marble, ("marble slab",), colours=("white", "green", "black"), gloss=0.08),
    "cardboard": Material(_cardboard, ("corrugated cardboard", "carton"), tones=((0.70, 0.55, 0.38),)),
    "rubber": Material(_rubber, ("rubber mat",), colours=("black", "gray", "blue", "red")),
    "granite": Material(
        _granite, ("granite stone", "stone"), colours=("gray",), tones=((0.60, 0.45, 0.38), (0.38, 0.39, 0.41))
    ),
    "cork": Material(_cork, ("cork board",), tones=((0.66, 0.48, 0.30), (0.56, 0.39, 0.24))),
    "brick": Material(_brick, ("brick wall",), colours=("red", "orange", "brown")),
    "slate": Material(_slate, ("slate stone",), colours=("gray", "black")),
}

RESERVED = ("cork", "brick", "slate")
"""Never trained on: they test models on unseen materials."""
