"""Images of the corpus. Every image has its own derived seeds, so order and number of workers have no effect."""

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
NORMAL_SHARE = 0.3
BLOCK = 256  # images per task of a process

TRAINED = tuple(name for name in MATERIALS if name not in RESERVED)
MATERIAL_WORDS = tuple(MATERIALS)
DEFECT_WORDS = ("", *DEFECTS)  # "": a normal image


@dataclass(frozen=True)
class Item:
    """The content of one image."""

    seed: int
    index: int
    material: str
    colour: str  # a name, or "" for the material's own colour
    defect: str  # a name, or "" for a normal image


def plan(seed: int, index: int, materials: tuple[str, ...] = TRAINED) -> Item:
    """Draw the content of image ``index`` of the corpus of that seed."""
    draw = rng("corpus-plan", seed, index)
    defect = "" if draw.random() < NORMAL_SHARE else list(DEFECTS)[draw.integers(len(DEFECTS))]
    material = materials[draw.integers(len(materials))]
    return Item(seed, index, material, choose_colour(draw, material, defect), defect)


def choose_colour(draw: np.random.Generator, material: str, defect: str) -> str:
    """Draw a colour name, or "". White marks never come on white."""
    recipe = MATERIALS[material]
    choices = [*recipe.colours, *([""] * len(recipe.tones))]
    if defect == "white marks":
        choices = [word for word in choices if word != "white"]
    return choices[draw.integers(len(choices))]


def render(item: Item, shape: Shape = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Draw the image (H,W,3 uint8) and its mask (H,W bool, all False if normal).

    The same item with another ``defect``, or none, shows the same piece under the same light.
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
    """Draw ``count`` captions of one image; a larger count only appends."""
    names = MATERIALS[item.material].names
    return [
        caption(rng("corpus-caption", item.seed, item.index, i), item.material, names, item.colour, item.defect)
        for i in range(count)
    ]


def vague_captions(item: Item, count: int = 1) -> list[str]:
    """Draw captions with random letters for the material or a general term for the defect."""
    names = MATERIALS[item.material].names
    return [
        vague_caption(rng("corpus-vague", item.seed, item.index, i), item.material, names, item.colour, item.defect)
        for i in range(count)
    ]


@dataclass
class Arrays:
    """Many images as arrays."""

    images: np.ndarray  # N,H,W,3 uint8
    masks: np.ndarray  # N,H,W bool
    material: np.ndarray  # N int64, index in MATERIAL_WORDS
    defect: np.ndarray  # N int64, index in DEFECT_WORDS; 0: normal
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
    """Make the images ``start`` to ``start + count`` of the corpus of that seed.

    Args:
        count: number of images.
        seed: of the corpus.
        start: index of the first image.
        materials: allowed materials; `TRAINED` is all except `RESERVED`.
        workers: processes; 1: this process only, None: one per processor.
    """
    items = [plan(seed, index, materials) for index in range(start, start + count)]
    return of_items(items, workers)


def of_items(items: list[Item], workers: int | None = None) -> Arrays:
    """Make the images of given items."""
    workers = workers or os.cpu_count() or 1
    blocks = [items[i : i + BLOCK] for i in range(0, len(items), BLOCK)]
    if workers == 1 or len(blocks) == 1:
        parts: Iterable[tuple[np.ndarray, np.ndarray]] = map(_block, blocks)
        return _stacked(items, parts)
    with ProcessPoolExecutor(workers) as pool:
        return _stacked(items, pool.map(_block, blocks))


def _stacked(items: list[Item], parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> Arrays:
    images = np.empty((len(items), *SHAPE, 3), np.uint8)
    masks = np.empty((len(items), *SHAPE), bool)
    for number, (block_images, block_masks) in enumerate(parts):
        rows = slice(number * BLOCK, number * BLOCK + len(block_images))
        images[rows], masks[rows] = block_images, block_masks
    material = np.array([MATERIAL_WORDS.index(item.material) for item in items], np.int64)
    defect = np.array([DEFECT_WORDS.index(item.defect) for item in items], np.int64)
    return Arrays(images, masks, material, defect, items)


def _block(items: list[Item]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [render(item) for item in items]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])
