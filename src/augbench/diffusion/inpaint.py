"""Inpaint a square crop around a mask, in batches of different images and masks.

Diffusers' ``padding_mask_crop`` crops the smallest square around the mask, inpaints it at the pipeline's full size, and
composites the masked part over the image; it supports one image at a time. Here cropping and compositing are outside
the pipeline, so that a batch can hold crops of different images. With a batch of one the result is bit-identical to
that of diffusers; with larger ones it is equal up to rounding.
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
"""Left, top, right, bottom, in pixels; right and bottom are exclusive."""

MASK_THRESHOLD = 128  # of 255: diffusers inpaints where the resized mask has at least this value


@dataclass(frozen=True)
class Inpainted:
    """An inpainted crop of a square image."""

    image: np.ndarray  # S,S,3 uint8: the whole crop, the surroundings of the mask included
    box: Box  # of the crop in the image


def inpaint_around(
    pipeline: DiffusionPipeline,
    source: PipelineSource,
    prompts: Sequence[str],
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    *,
    seeds: Sequence[int],
    padding: int,
    batch: int,
    **amount: Any,
) -> list[Inpainted]:
    """Inpaint each image in the smallest square crop that holds its mask.

    Args:
        pipeline: from `augbench.diffusion.pipelines.load`, an inpainting one.
        source: what ``pipeline`` was loaded from.
        prompts: N texts.
        images: N squares of the pipeline's size, S,S,3 uint8.
        masks: N masks, S,S uint8: 255 where to inpaint, grey for a partial blend; at least one pixel above 0.
        seeds: N seeds, one for each image.
        padding: pixels around the mask that belong to the crop.
        batch: images per batch. Results of different batch sizes are equal up to rounding.
        amount: steps, guidance, strength and negative, as in `augbench.diffusion.sampling.sample`.

    Raises:
        UserError: a prompt is too long for the text encoder, or the result is NaN.
    """
    boxes = [box_around(mask, padding) for mask in masks]
    crops = [_crop(image, box) for image, box in zip(images, boxes, strict=True)]
    marked = [_marked(_crop(mask, box)) for mask, box in zip(masks, boxes, strict=True)]
    inputs = {"image": np.stack(crops), "mask": np.stack(marked)}
    inpainted = sample(pipeline, source, prompts, seeds=seeds, batch=batch, **inputs, **amount)
    return [Inpainted(image, box) for image, box in zip(inpainted, boxes, strict=True)]


def box_around(mask: np.ndarray, padding: int) -> Box:
    """Return the smallest square box that holds the nonzero pixels of an S,S mask and ``padding`` pixels on each side.

    Padding is clipped at the image's edges, and a box that would stick out is shifted inside.
    """
    size = len(mask)
    spans = []
    for axis in (0, 1):
        nonzero = np.flatnonzero(mask.any(axis))
        spans.append((max(int(nonzero[0]) - padding, 0), min(int(nonzero[-1]) + 1 + padding, size)))
    side = max(end - start for start, end in spans)
    starts = [min(max(start - (side - (end - start)) // 2, 0), size - side) for start, end in spans]
    return starts[0], starts[1], starts[0] + side, starts[1] + side


def overlaid(image: np.ndarray, mask: np.ndarray, inpainted: Inpainted) -> np.ndarray:
    """Composite an inpainted crop over ``image`` as diffusers does, with ``mask`` as opacity.

    Args:
        image: S,S,3 uint8.
        mask: S,S uint8; 255: inpainted, 0: unchanged.
        inpainted: result of `inpaint_around` for this image.

    Returns:
        S,S,3 uint8.
    """
    size = (len(image), len(image))
    # Premultiplied colours are rounded, so another order of these steps gives other values where the mask is grey.
    background = Image.new("RGBa", size)
    background.paste(
        Image.fromarray(image).convert("RGBA").convert("RGBa"), mask=ImageOps.invert(Image.fromarray(mask))
    )
    result = Image.new("RGB", size)
    result.paste(Image.fromarray(_fitted(inpainted)), inpainted.box[:2])
    result = result.convert("RGBA")
    result.alpha_composite(background.convert("RGBA"))
    return np.asarray(result.convert("RGB"))


def composited(source: np.ndarray, region: np.ndarray, inpainted: Inpainted) -> np.ndarray:
    """Composite an inpainted crop into the image at its native size: only inpainted pixels are resized.

    Args:
        source: H,W,3 uint8, the image that was resized to a square and inpainted.
        region: H,W bool.
        inpainted: result of `inpaint_around` for that square.

    Returns:
        H,W,3 uint8: inpainted inside the region, the source elsewhere, with a soft edge, see `feathered`.
    """
    size = len(inpainted.image)
    square = fit_image(source, (size, size)).copy()
    left, top, right, bottom = inpainted.box
    square[top:bottom, left:right] = _fitted(inpainted)
    weight = feathered(region)[..., None]
    mixed = source + weight * (fit_image(square, source.shape[:2]) - source.astype(np.float32))
    return np.round(mixed).astype(np.uint8)


def feathered(region: np.ndarray) -> np.ndarray:
    """Return blending weights H,W float32 in [0, 1]: 1 in the region, at most 0.5 on pixels next to it, 0 elsewhere."""
    return np.maximum(region, blurred(region.astype(np.float32))).astype(np.float32)


def _crop(image: np.ndarray, box: Box) -> np.ndarray:
    """Crop the box and resize it to the image's size, as diffusers does."""
    size = len(image)
    return np.asarray(Image.fromarray(image).crop(box).resize((size, size), Image.Resampling.LANCZOS))


def _marked(mask: np.ndarray) -> np.ndarray:
    """Binarise a mask as diffusers does, S,S bool. Where no pixel reaches the threshold, the brightest ones count."""
    return mask >= min(MASK_THRESHOLD, max(int(mask.max()), 1))


def _fitted(inpainted: Inpainted) -> np.ndarray:
    """Resize the inpainted crop to the size of its box."""
    left, top, right, bottom = inpainted.box
    return fit_image(inpainted.image, (bottom - top, right - left))
