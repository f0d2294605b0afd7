"""Pictures of the corpus, one or many. Every picture has its own derived seeds, so order and workers decide nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from augbench.core.seeds import rng
from augbench.procedural.drawing import expose, lighting
from augbench.procedural.noise import Shape
from corpus.defects import DEFECTS, MASK_LEVEL
from corpus.materials import MATERIALS, RESERVED
from corpus.words import caption, vague_caption

SHAPE = (64, 64)
GOOD_SHARE = 0.3
BLOCK = 256  # pictures that a process makes in one go

TRAINED = tuple(name for name in MATERIALS if name not in RESERVED)
MATERIAL_WORDS = tuple(MATERIALS)
DEFECT_WORDS = ("", *DEFECTS)  # "" is a good picture


@dataclass(frozen=True)
class Item:
    """What one picture shows."""

    seed: int
    index: int
    material: str
    colour: str  # a word, or "" where the material has its own colour
    defect: str  # a word, or "" for a good picture


def plan(seed: int, index: int, materials: tuple[str, ...] = TRAINED) -> Item:
    """What picture ``index`` of the corpus of that seed shows."""
    draw = rng("corpus-plan", seed, index)
    defect = "" if draw.random() < GOOD_SHARE else list(DEFECTS)[draw.integers(len(DEFECTS))]
    material = materials[draw.integers(len(materials))]
    return Item(seed, index, material, choose_colour(draw, material, defect), defect)


def choose_colour(draw: np.random.Generator, material: str, defect: str) -> str:
    """A colour word, or "". White marks are not put on white."""
    recipe = MATERIALS[material]
    choices = [*recipe.colours, *([""] * len(recipe.tones))]
    if defect == "white marks":
        choices = [word for word in choices if word != "white"]
    return choices[draw.integers(len(choices))]


def render(item: Item, shape: Shape = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """The picture (H,W,3 uint8) and its mask (H,W bool, all False if good).

    With another ``defect``, or none, the same item is the same piece under the same light.
    """
    names = (item.seed, item.index, item.material, item.colour)
    piece = rng("corpus-piece", *names)
    material = MATERIALS[item.material]
    albedo = material.draw(piece, shape, material.colour(piece, item.colour))
    mask = np.zeros(shape, bool)
    if item.defect:
        albedo, cover = DEFECTS[item.defect](rng("corpus-defect", *names, item.defect), np.clip(albedo, 0, 1))
        mask = cover >= MASK_LEVEL
    camera = rng("corpus-camera", *names)
    light = lighting(camera, shape, material.gloss, gain=(0.88, 1.1), fall=(0, 0.3))
    return expose(camera, albedo, light, balance=0.01, blur=(0, 0.04), noise=(0, 0.0035)), mask


def captions(item: Item, count: int = 1) -> list[str]:
    """``count`` captions of one picture; a larger count changes none of the first."""
    names = MATERIALS[item.material].names
    return [
        caption(rng("corpus-caption", item.seed, item.index, i), item.material, names, item.colour, item.defect)
        for i in range(count)
    ]


def vague_captions(item: Item, count: int = 1) -> list[str]:
    """As `captions`, with made-up letters for the material or a general word for the defect."""
    names = MATERIALS[item.material].names
    return [
        vague_caption(rng("corpus-vague", item.seed, item.index, i), item.material, names, item.colour, item.defect)
        for i in range(count)
    ]


@dataclass
class Arrays:
    """Many pictures."""

    images: np.ndarray  # N,H,W,3 uint8
    masks: np.ndarray  # N,H,W bool
    material: np.ndarray  # N int64, a place in MATERIAL_WORDS
    defect: np.ndarray  # N int64, a place in DEFECT_WORDS: 0 is good
    items: list[Item]

    def __len__(self) -> int:
        return len(self.items)


def make(
    count: int,
    seed: int,
    *,
    start: int = 0,
    materials: tuple[str, ...] = TRAINED,
    workers: int | None = None,
) -> Arrays:
    """Pictures ``start`` to ``start + count`` of the corpus of that seed.

    Args:
        count: how many.
        seed: which corpus.
        start: the first picture's index.
        materials: what it may show; `TRAINED` is everything but `RESERVED`.
        workers: processes; 1 makes all in this one, None one per processor.
    """
    items = [plan(seed, index, materials) for index in range(start, start + count)]
    return of_items(items, workers)


def of_items(items: list[Item], workers: int | None = None) -> Arrays:
    """The pictures of given items."""
    workers = workers or os.cpu_count() or 1
    blocks = [items[i : i + BLOCK] for i in range(0, len(items), BLOCK)]
    if workers == 1 or len(blocks) == 1:
        parts: Iterable[tuple[np.ndarray, np.ndarray]] = map(_block, blocks)
        return _gathered(items, parts)
    with ProcessPoolExecutor(workers) as pool:
        return _gathered(items, pool.map(_block, blocks))


def _gathered(items: list[Item], parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> Arrays:
    images = np.empty((len(items), *SHAPE, 3), np.uint8)
    masks = np.empty((len(items), *SHAPE), bool)
    for number, (pictures, covers) in enumerate(parts):
        images[number * BLOCK : number * BLOCK + len(pictures)] = pictures
        masks[number * BLOCK : number * BLOCK + len(pictures)] = covers
    material = np.array([MATERIAL_WORDS.index(item.material) for item in items], np.int64)
    defect = np.array([DEFECT_WORDS.index(item.defect) for item in items], np.int64)
    return Arrays(images, masks, material, defect, items)


def _block(items: list[Item]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [render(item) for item in items]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])
