"""Contact sheets of what the bundles make, from the saved folders and by the ordinary diffusers pipelines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from bundle import SD
from corpus.pictures import DEFECT_WORDS, Arrays, make
from corpus.words import WORDS
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLInpaintPipeline
from PIL import Image
from stock import region

STEPS, GUIDANCE = 20, 4.0
SHEET_MATERIALS = (
    "brushed metal",
    "copper metal",
    "concrete",
    "wood",
    "blue plastic",
    "white wall",
    "red leather",
    "tile",
)
SHEET_SEED = 14  # of the corpus


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    """The bundle of that folder."""
    kind = StableDiffusionPipeline if folder.name == SD else StableDiffusionXLInpaintPipeline
    pipeline = kind.from_pretrained(folder, dtype=dtype).to(device)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.to(memory_format=torch.channels_last)
    return pipeline


def seeded(seed: int, count: int) -> list[torch.Generator]:
    """A generator for each picture."""
    return [torch.Generator().manual_seed(1000 * seed + i) for i in range(count)]


def painted(
    pipeline: DiffusionPipeline, prompts: list[str], seed: int, batch: int = 16, **options: float
) -> np.ndarray:
    """Text to image: N,64,64,3 uint8."""
    options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE} | options
    generators = seeded(seed, len(prompts))
    parts = [
        pipeline(prompts[i : i + batch], generator=generators[i : i + batch], output_type="np", **options).images
        for i in range(0, len(prompts), batch)
    ]
    return (np.concatenate(parts) * 255).round().astype(np.uint8)


def inpainted(
    pipeline: DiffusionPipeline, corpus: Arrays, prompts: list[str], masks: np.ndarray, seed: int, batch: int = 16
) -> np.ndarray:
    """The pictures of a corpus with the masks (N,H,W bool) painted anew, not pasted back: N,64,64,3 uint8."""
    generators, parts = seeded(seed, len(prompts)), []
    for i in range(0, len(prompts), batch):
        own = slice(i, i + batch)
        result = pipeline(
            prompt=prompts[own],
            image=[Image.fromarray(image) for image in corpus.images[own]],
            mask_image=[Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks[own]],
            generator=generators[own],
            height=corpus.images.shape[1],
            width=corpus.images.shape[2],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            strength=0.99,
            output_type="np",
        )
        parts.append(result.images)
    return (np.concatenate(parts) * 255).round().astype(np.uint8)


def regions(corpus: Arrays) -> np.ndarray:
    """The mask to paint in for each picture of a corpus: N,H,W bool."""
    return np.stack([region(item, mask) for item, mask in zip(corpus.items, corpus.masks, strict=True)])


def tiled(pictures: np.ndarray, columns: int, scale: int = 2) -> Image.Image:
    """N,H,W,3 uint8 in rows, with a white line between."""
    framed = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = [np.concatenate(list(framed[i : i + columns]), 1) for i in range(0, len(framed), columns)]
    whole = np.concatenate(rows)
    return Image.fromarray(whole.repeat(scale, 0).repeat(scale, 1))


def bundle_sheet(folder: Path) -> Image.Image:
    """Text to image: a material a row, a defect a column. Inpainting: source, mask, result, for as many defects."""
    pipeline = load(folder)
    if folder.name == SD:
        prompts = [
            f"{material} background" + (f" with {WORDS[defect].one}" if defect else "")
            for material in SHEET_MATERIALS
            for defect in DEFECT_WORDS
        ]
        return tiled(painted(pipeline, prompts, 0), len(DEFECT_WORDS))
    corpus = make(24, SHEET_SEED, workers=1)
    masks = regions(corpus)
    prompts = [
        f"{item.material} with {WORDS[item.defect].one}" if item.defect else f"{item.material}, defect free"
        for item in corpus.items
    ]
    made = inpainted(pipeline, corpus, prompts, masks, 0)
    shown = np.stack([corpus.images, masks[..., None].repeat(3, 3).astype(np.uint8) * 255, made], 1)
    return tiled(shown.reshape(-1, *made.shape[1:]), 12)
