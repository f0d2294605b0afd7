"""Inpainting of what lies around a mask, in batches of different pictures and masks.

Diffusers' ``padding_mask_crop`` cuts the smallest square around the mask out of a picture, paints it at the bundle's
full size, and lays the masked part back over the picture; it takes one picture at a time. Here cutting and laying back
are done outside the pipeline, so that a batch holds a cut of each picture. With a batch of one the result is that of
diffusers to the last bit; with larger ones it differs by the rounding of larger matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from augbench.diffusion.pipelines import PipelineSource
from augbench.diffusion.sampling import fit_image, sample
from augbench.procedural.drawing import blurred

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels; right and bottom are not inside."""

HALF = 128  # of 255: diffusers paints where a resized mask is at least that bright


@dataclass(frozen=True)
class Inpainted:
    """What a bundle painted of a square picture."""

    image: np.ndarray  # S,S,3 uint8: the whole cut, the surroundings of the mask included
    box: Box  # where it belongs


def inpaint_around(
    pipeline: DiffusionPipeline,
    bundle: PipelineSource,
    prompts: Sequence[str],
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    *,
    seeds: Sequence[int],
    padding: int,
    batch: int,
    **amount: Any,
) -> list[Inpainted]:
    """Paint each picture anew in the smallest square that holds its mask.

    Args:
        pipeline: from `augbench.diffusion.pipelines.load`, an inpainting one.
        bundle: the same that was loaded.
        prompts: N texts.
        images: N squares of the bundle's size, S,S,3 uint8.
        masks: of N pictures, S,S uint8: 255 where to paint, grey where partly; at least one pixel above 0.
        seeds: N seeds, one for each picture.
        padding: pixels around the mask that belong to the cut.
        batch: pictures at a time. Another number changes pictures by rounding.
        amount: steps, guidance, strength and negative, as in `augbench.diffusion.sampling.sample`.

    Raises:
        UserError: a prompt is longer than the bundle reads, or what was made is no picture.
    """
    boxes = [box_around(mask, padding) for mask in masks]
    cuts = [_cut(image, box) for image, box in zip(images, boxes, strict=True)]
    marked = [_marked(_cut(mask, box)) for mask, box in zip(masks, boxes, strict=True)]
    places = {"image": np.stack(cuts), "mask": np.stack(marked)}
    made = sample(pipeline, bundle, prompts, seeds=seeds, batch=batch, **places, **amount)
    return [Inpainted(image, box) for image, box in zip(made, boxes, strict=True)]


def box_around(mask: np.ndarray, padding: int) -> Box:
    """The smallest square box in the square S,S ``mask`` that holds its pixels above 0 and ``padding`` more each way.

    Where the mask is nearer to an edge than that, there is less padding; a box that would stick out is pushed inside.
    """
    size = len(mask)
    spans = []
    for axis in (0, 1):
        marked = np.flatnonzero(mask.any(axis))
        spans.append((max(int(marked[0]) - padding, 0), min(int(marked[-1]) + 1 + padding, size)))
    side = max(end - start for start, end in spans)
    starts = [min(max(start - (side - (end - start)) // 2, 0), size - side) for start, end in spans]
    return starts[0], starts[1], starts[0] + side, starts[1] + side


def overlaid(image: np.ndarray, mask: np.ndarray, painted: Inpainted) -> np.ndarray:
    """What diffusers makes of it: the painted cut laid over ``image``, as far as ``mask`` is bright.

    Args:
        image: S,S,3 uint8.
        mask: S,S uint8; 255: as painted, 0: as it was.
        painted: of them.

    Returns:
        S,S,3 uint8.
    """
    size = (len(image), len(image))
    # In these steps, for premultiplied colours are rounded: where the mask is grey another order gives other numbers.
    kept = Image.new("RGBa", size)
    kept.paste(Image.fromarray(image).convert("RGBA").convert("RGBa"), mask=ImageOps.invert(Image.fromarray(mask)))
    result = Image.new("RGB", size)
    result.paste(Image.fromarray(_fitted(painted)), painted.box[:2])
    result = result.convert("RGBA")
    result.alpha_composite(kept.convert("RGBA"))
    return np.asarray(result.convert("RGB"))


def composited(source: np.ndarray, region: np.ndarray, painted: Inpainted) -> np.ndarray:
    """The painted cut in the picture at the picture's own size: only what was painted goes through resizing.

    Args:
        source: H,W,3 uint8, of which a square was painted (stretched, if it is none).
        region: H,W bool.
        painted: of that square.

    Returns:
        H,W,3 uint8: as painted inside the region, and equal to the source but for a soft edge, see `feathered`.
    """
    size = len(painted.image)
    square = fit_image(source, (size, size)).copy()
    left, top, right, bottom = painted.box
    square[top:bottom, left:right] = _fitted(painted)
    weight = feathered(region)[..., None]
    mixed = source + weight * (fit_image(square, source.shape[:2]) - source.astype(np.float32))
    return np.round(mixed).astype(np.uint8)


def feathered(region: np.ndarray) -> np.ndarray:
    """H,W float32 in [0, 1]: 1 in the region, up to a half on the pixels that touch it, 0 elsewhere."""
    return np.maximum(region, blurred(region.astype(np.float32))).astype(np.float32)


def _cut(picture: np.ndarray, box: Box) -> np.ndarray:
    """The box at the size of the whole, as diffusers resizes it."""
    size = len(picture)
    return np.asarray(Image.fromarray(picture).crop(box).resize((size, size), Image.Resampling.LANCZOS))


def _marked(mask: np.ndarray) -> np.ndarray:
    """Where diffusers would paint, bool. Where no pixel is bright enough for that, the brightest are."""
    return mask >= min(HALF, max(int(mask.max()), 1))


def _fitted(painted: Inpainted) -> np.ndarray:
    """The painted cut at the size of its box."""
    left, top, right, bottom = painted.box
    return fit_image(painted.image, (bottom - top, right - left))
