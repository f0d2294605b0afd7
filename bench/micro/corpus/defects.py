"""The defects of the corpus. `DEFECTS` lists them all.

A defect takes a normal albedo (H,W,3 float32) and returns the damaged one and its cover, H,W float32 in [0, 1]. Shapes
that the dataset `surfaces` draws too come from `procedural.defects` with separate ranges in `SHAPES`: coarser, since
thin lines do not survive in small generative models, and disjoint from that dataset's ranges, which are held out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from augbench.procedural.defects import Crack, Scratch, Scuff, Spots, Stain
from augbench.procedural.drawing import axes, blurred, distance, place
from augbench.procedural.noise import spectral

MASK_LEVEL = 0.3  # of the cover

SHAPES: dict[str, Scratch | Crack | Scuff | Spots | Stain] = {
    "scratch": Scratch(
        number=(1, 3), length=(30, 60), width=(2.1, 3.8), bend=0.5, tilt=0.2, scatter=5, fade=(1.05, 1.3), burr=(0.6, 1)
    ),
    "crack": Crack(length=(34, 66), width=(3.0, 4.4), tip=2.0, fork_width=2.2, forks=(1, 3), step=(5.5, 9), wander=0.7),
    "white marks": Scuff(number=(2, 4), breadth=(7.5, 11), shift=6, half=(12.5, 17), width=(3.4, 5.2), tilt=0.3),
    "spots": Spots(number=(3, 6), spread=(9.5, 15), radius=(3.7, 5.5)),
    "stain": Stain(radius=(15.5, 22), stretch=(0.75, 1.3), ragged=0.32, rim=(0.4, 0.8)),
}

OVERLAP = {"number", "forks", "length", "stretch"}
"""Fields whose ranges may overlap those of `surfaces`: numbers, lengths (64 pixels leave little choice) and proportions
of an ellipse. All others, above all widths and radii, are disjoint."""


def _blend(albedo: np.ndarray, cover: np.ndarray, colour: np.ndarray | float) -> np.ndarray:
    """Blend ``colour`` (3, or H,W,3) over the albedo with the opacity ``cover`` (H,W in [0, 1])."""
    return albedo + cover[..., None].astype(np.float32) * (np.asarray(colour, np.float32) - albedo)


def _under(albedo: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Return the mean colour (3) below the cover."""
    return (albedo * cover[..., None]).sum((0, 1)) / cover.sum()


def _edge(cover: np.ndarray, side: int) -> np.ndarray:
    """Return a pixel-wide lit (``side`` 1) or shaded (-1) edge to the lower right or upper left, H,W in [0, 1]."""
    return np.clip(np.roll(cover, (side, side), (0, 1)) - cover, 0, 1)


def _scratch(rng, albedo):
    """Bright bare material on dark surfaces, a dark groove on bright ones, with a raised burr."""
    profile = SHAPES["scratch"](rng, albedo.shape[:2])
    cover = np.clip(profile * 1.3, 0, 1)
    under = _under(albedo, cover)
    bright = under.mean() < 0.35 or (under.mean() < 0.62 and rng.random() < 0.6)
    colour = under * 0.3 + rng.uniform(0.62, 0.7) if bright else under * rng.uniform(0.12, 0.35)
    burr = np.clip(-profile, 0, 1)[..., None] * (0.45 if bright else -0.3)
    return _blend(albedo, cover, colour) * (1 - burr), cover


def _crack(rng, albedo):
    """A dark gap with one lit edge; on dark surfaces a pale one."""
    cover = np.clip(SHAPES["crack"](rng, albedo.shape[:2]) * 1.15, 0, 1)
    dark = _under(albedo, cover).mean() > 0.24
    colour = np.array([0.05, 0.045, 0.04]) if dark else np.array([0.62, 0.60, 0.56])
    return _blend(albedo, cover, colour) + 0.12 * _edge(cover, 1)[..., None], cover


def _white_marks(rng, albedo):
    """Chalk, paint or wear in short soft strokes."""
    cover = np.clip(SHAPES["white marks"](rng, albedo.shape[:2]) * 1.25, 0, 1)
    return _blend(albedo, cover, rng.uniform(0.94, 1.0)), cover


def _spots(rng, albedo):
    """Pits, drops or inclusions; pale ones on dark surfaces."""
    cover = np.clip(SHAPES["spots"](rng, albedo.shape[:2]) * 1.2, 0, 1)
    inks = np.array([(0.08, 0.07, 0.06), (0.20, 0.10, 0.06), (0.10, 0.11, 0.16)])
    colour = inks[rng.integers(len(inks))]
    if _under(albedo, cover).mean() < 0.27:
        colour = np.array([0.72, 0.68, 0.60])
    return _blend(albedo, cover * 0.92, colour), cover


def _dent(rng, albedo):
    """A hollow: the side that faces the light is bright, the other dark."""
    shape = albedo.shape[:2]
    centre, radius = place(rng, shape, 14), rng.uniform(7, 13)
    apart = distance(shape, centre, rng.uniform(0.8, 1.25)) / radius
    hollow = np.exp(-(apart**2))
    y, x = axes(shape)
    light = rng.normal(0.8, 0.35)
    slope = ((x - centre[1]) * np.cos(light) + (y - centre[0]) * np.sin(light)) / radius * hollow
    slope *= rng.uniform(1.5, 2.1)  # about [-1, 1]
    dented = albedo * (1 + 0.8 * slope[..., None]) + 0.16 * slope[..., None]
    return dented.astype(np.float32), np.clip(1.5 * np.exp(-((apart / 1.25) ** 4)), 0, 1)


def _stain(rng, albedo):
    """A dried liquid: a translucent tint with a darker rim; pale on dark surfaces."""
    cover = np.clip(SHAPES["stain"](rng, albedo.shape[:2]), 0, 1)
    tints = np.array([(0.55, 0.40, 0.22), (0.36, 0.30, 0.28), (0.42, 0.46, 0.26), (0.30, 0.31, 0.42)])
    tint = tints[rng.integers(len(tints))]
    dark = _under(albedo, cover).mean() < 0.27
    colour = np.array([0.60, 0.57, 0.50]) if dark else tint * (0.25 + 0.75 * albedo)
    return _blend(albedo, np.clip(cover * rng.uniform(1.0, 1.25), 0, 0.9), colour), cover


def _hole(rng, albedo):
    """A roundish opening with a lit rim, dark inside."""
    shape = albedo.shape[:2]
    centre, radius = place(rng, shape, 13), rng.uniform(5.5, 10.5)
    y, x = axes(shape)
    around = np.arctan2(y - centre[0], x - centre[1])
    outline = sum(rng.normal(0, 0.07) * np.cos(k * around + rng.uniform(0, 6.3)) for k in (2, 3, 5))
    inside = radius * (1 + outline) - distance(shape, centre, rng.uniform(0.85, 1.18))
    cover, rim = np.clip(inside + 0.5, 0, 1), np.clip(1 - np.abs(inside + 1.2) / 1.6, 0, 1)
    rim = rim * np.float32(0.75 if albedo.mean() < 0.3 else 0.4)
    holed = _blend(_blend(albedo, rim, 0.85), cover, rng.uniform(0.01, 0.04))
    return holed, np.maximum(cover, rim * (rim > 0.5))


def _rust(rng, albedo):
    """Orange-brown blooms with a ragged, granular edge."""
    shape = albedo.shape[:2]
    apart = distance(shape, place(rng, shape, 14), rng.uniform(0.75, 1.3))
    ground = 1 - apart / rng.uniform(12, 20) + 0.45 * spectral(rng, shape, 1.0, lowest=0.02)
    cover = blurred(np.clip(ground * 5, 0, 1) * (apart < 26))
    grain = np.clip(0.5 + 0.3 * spectral(rng, shape, 0.7), 0, 1)[..., None]
    deep, fresh = np.array([0.32, 0.13, 0.05]), np.array([0.78, 0.38, 0.12])
    return _blend(albedo, cover * 0.92, deep + grain * (fresh - deep)), cover


def _chip(rng, albedo):
    """A broken-off piece: an angular, faceted hollow."""
    shape = albedo.shape[:2]
    y, x = axes(shape)
    centre, sides = place(rng, shape, 12), int(rng.integers(4, 7))
    turn = (np.arange(sides) + rng.uniform(-0.3, 0.3, sides) + rng.random()) * 2 * np.pi / sides
    reach = rng.uniform(6, 13, sides)
    over = (y - centre[0]) * np.sin(turn)[:, None, None] + (x - centre[1]) * np.cos(turn)[:, None, None]
    over = over / reach[:, None, None]  # K,H,W: 1 at the K-th side
    facet = over.argmax(0)
    cover = np.clip((1 - over.max(0)) * reach.mean() + 0.5, 0, 1).astype(np.float32)
    under = _under(albedo, cover)
    bare = under * 0.4 + 0.48 if under.mean() < 0.55 else under * 0.45 + 0.04
    tone = (1 + 0.28 * np.cos(turn - 0.8))[facet][..., None]  # lit from one side
    return _blend(albedo, cover * 0.95, bare * tone) * (1 - 0.3 * _edge(cover, -1)[..., None]), cover


DEFECTS: dict[str, Callable[[np.random.Generator, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "scratch": _scratch,
    "crack": _crack,
    "white marks": _white_marks,
    "spots": _spots,
    "dent": _dent,
    "stain": _stain,
    "hole": _hole,
    "rust": _rust,
    "chip": _chip,
}
