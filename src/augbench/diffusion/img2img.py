"""Image-to-image sampling: noise a given image up to an intermediate timestep, and denoise it from there.

This is "image-oriented generation" of StableSDG (arXiv 2405.01872), by diffusers' image-to-image pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from augbench.diffusion.pipelines import PipelineSource
from augbench.diffusion.sampling import (
    PromptEncoder,
    as_pixels,
    check_prompts,
    fit_image,
    refuse_nan,
    sample,
    sample_batch,
)

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def img2img(
    pipeline: DiffusionPipeline,
    source: PipelineSource,
    prompts: Sequence[str],
    images: Sequence[np.ndarray],
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    strength: float,
    shape: tuple[int, int],
    clip_skip: int = 1,
    batch: int = 8,
) -> np.ndarray:
    """Sample one image from each of ``images``.

    Args:
        pipeline: from `augbench.diffusion.pipelines.load`, a text-to-image one.
        source: what ``pipeline`` was loaded from.
        prompts: N texts.
        images: N images, each H,W,3 uint8 of any size; they are resized to ``shape``.
        seeds: N seeds, one for each image.
        steps: inference steps of a full denoising; the share ``strength`` of them is run, rounded, at least one.
        guidance: classifier-free guidance scale; up to 1 there is no guidance.
        strength: how much noise is added, in [0, 1]. 0: VAE reconstruction only. 1: pure noise, as in `sample`;
            diffusers would keep sqrt(alpha bar) of the last timestep, some 7 % of an image with the schedule of
            Stable Diffusion.
        shape: height and width of the result.
        clip_skip: layer of the text encoder, as `text_encoding.encode_tokens` counts.
        batch: images per batch. Results of different batch sizes are equal up to rounding.

    Returns:
        N,H,W,3 uint8.

    Raises:
        UserError: a prompt is too long for the text encoder, or the result is NaN.
    """
    from diffusers import StableDiffusionImg2ImgPipeline

    if not len(prompts) == len(images) == len(seeds):
        raise ValueError(f"{len(images)} images need as many prompts and seeds, not {len(prompts)} and {len(seeds)}")
    check_prompts(pipeline, source, prompts)
    if strength == 0:
        return round_trip(pipeline, source, images, shape, batch)
    if strength == 1:
        amount: dict[str, Any] = {"steps": steps, "guidance": guidance, "clip_skip": clip_skip, "batch": batch}
        return sample(pipeline, source, prompts, seeds=seeds, shape=shape, **amount)
    img2img_pipeline = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    img2img_pipeline.set_progress_bar_config(disable=True)
    encode = PromptEncoder(pipeline, source, None, clip_skip)
    settings = {"num_inference_steps": steps, "guidance_scale": guidance}
    noised_steps = max(1, round(steps * strength))
    settings["strength"] = min(1.0, (noised_steps + 0.1) / steps)  # diffusers truncates to whole steps: to these
    parts = []
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        initial = [Image.fromarray(fit_image(image, shape)) for image in images[rows]]
        options = {**encode(prompts[rows]), "image": initial, **settings}
        parts.append(sample_batch(img2img_pipeline, source, seeds[rows], options))
    return np.concatenate(parts)


def round_trip(
    pipeline: DiffusionPipeline,
    source: PipelineSource,
    images: Sequence[np.ndarray],
    shape: tuple[int, int],
    batch: int,
) -> np.ndarray:
    """Reconstruct images with the VAE, without noise, at ``shape``: N,H,W,3 uint8.

    Raises:
        UserError: the result is NaN.
    """
    import torch

    parts = []
    for start in range(0, len(images), batch):
        pixels = as_pixels(pipeline, images[start : start + batch], shape)
        with torch.inference_mode():
            made = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mode()).sample
        refuse_nan(source, bool(made.isfinite().all()))
        made = ((made.float() / 2 + 0.5).clamp(0, 1) * 255).round()
        parts.append(made.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy())
    return np.concatenate(parts)
