"""Contact sheets of the micro pipelines, generated from the saved folders with standard diffusers pipelines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from bundle import SD
from corpus.images import DEFECT_WORDS, Arrays, make
from corpus.words import WORDS
from diffusers import DiffusionPipeline
from PIL import Image
from stock import regions
from torchvision.utils import make_grid, save_image

from augbench.diffusion import pipelines

STEPS, GUIDANCE = 20, 4.0
BATCH = 16
SHEET_MATERIALS = ("brushed metal", "copper metal", "concrete", "wood", "blue plastic", "white wall", "red leather",
                   "tile")  # fmt: skip
SHEET_SEED, SHEET_IMAGES = 14, 24  # of the corpus


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    """Load the pipeline of that folder."""
    return pipelines.load(pipelines.find(folder.resolve()), device, dtype)


def generated(pipeline: DiffusionPipeline, prompts: list[str], seed: int, **images: list[Image.Image]) -> np.ndarray:
    """Generate an image for each prompt, in batches: N,64,64,3 uint8.

    ``images`` are the inputs of an inpainting pipeline, one for each prompt; the result is not composited.
    """
    generators = [torch.Generator().manual_seed(1000 * seed + i) for i in range(len(prompts))]
    settings: dict[str, object] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "output_type": "np"}
    if images:
        settings |= {"height": 64, "width": 64, "strength": 0.99}
    parts = []
    for i in range(0, len(prompts), BATCH):
        own = {name: stack[i : i + BATCH] for name, stack in images.items()}
        parts.append(pipeline(prompts[i : i + BATCH], generator=generators[i : i + BATCH], **own, **settings).images)
    return (np.concatenate(parts) * 255).round().astype(np.uint8)


def inpainted(
    pipeline: DiffusionPipeline, corpus: Arrays, prompts: list[str], masks: np.ndarray, seed: int
) -> np.ndarray:
    """Inpaint the images of a corpus inside their masks (N,H,W bool): N,64,64,3 uint8."""
    images = [Image.fromarray(image) for image in corpus.images]
    mask_images = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks]
    return generated(pipeline, prompts, seed, image=images, mask_image=mask_images)


def bundle_sheet(folder: Path, path: Path) -> None:
    """Draw a sheet. Text to image: materials x defects. Inpainting: triples of source, mask and result."""
    pipeline = load(folder)
    if folder.name == SD:
        columns = len(DEFECT_WORDS)
        prompts = [
            f"{material} background" + (f" with {WORDS[defect].one}" if defect else "")
            for material in SHEET_MATERIALS
            for defect in DEFECT_WORDS
        ]
        tiles = generated(pipeline, prompts, 0)
    else:
        columns, corpus = 12, make(SHEET_IMAGES, SHEET_SEED)
        masks = regions(corpus)
        prompts = [
            f"{item.material} with {WORDS[item.defect].one}" if item.defect else f"{item.material}, defect free"
            for item in corpus.items
        ]
        made = inpainted(pipeline, corpus, prompts, masks, 0)
        mask_images = masks[..., None].repeat(3, 3).astype(np.uint8) * 255
        tiles = np.stack([corpus.images, mask_images, made], 1).reshape(-1, *made.shape[1:])
    tensors = torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255
    save_image(make_grid(tensors, nrow=columns, pad_value=1.0), path)
