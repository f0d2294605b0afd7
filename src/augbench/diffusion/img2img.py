"""Pictures that start from given ones: noise is added up to an intermediate step, and taken away from there.

This is "image-oriented generation" of StableSDG (arXiv 2405.01872), and diffusers' ordinary image-to-image pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from augbench.diffusion.pipelines import PipelineSource
from augbench.diffusion.sampling import PromptEncoder, check_prompts, fit_image, sample, sample_batch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def img2img(
    pipeline: DiffusionPipeline,
    bundle: PipelineSource,
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
    """A picture for each of ``images``: N,H,W,3 uint8.

    Args:
        pipeline: from `augbench.diffusion.pipelines.load`, a text-to-image one.
        bundle: the same that was loaded.
        prompts: N texts.
        images: N pictures, each H,W,3 uint8 of any size; they are resized to ``shape``.
        seeds: N seeds, one for each picture.
        steps: of the whole way from noise; the share ``strength`` of them is gone, rounded, at least one.
        guidance: classifier-free guidance scale; up to 1 there is none.
        strength: how far towards noise a picture is perturbed, in [0, 1]. At 0 it goes through the VAE and comes back.
            At 1 pictures start from noise alone, as `sample` makes them; diffusers' way would leave the square root of
            alpha bar at the last step, some 7 % of a picture with the schedule of Stable Diffusion.
        shape: height and width at which the bundle draws.
        clip_skip: which layer of the text encoder is read, as `text_encoding.encode_tokens` counts.
        batch: pictures at a time. Another number changes pictures by rounding.

    Raises:
        UserError: a prompt is longer than the bundle reads, or what was made is no picture.
    """
    from diffusers import StableDiffusionImg2ImgPipeline

    if not len(prompts) == len(images) == len(seeds):
        raise ValueError(f"{len(images)} pictures need as many prompts and seeds, not {len(prompts)} and {len(seeds)}")
    check_prompts(pipeline, bundle, prompts)
    if strength == 0:
        return round_trip(pipeline, images, shape, batch)
    if strength == 1:
        told: dict[str, Any] = {"steps": steps, "guidance": guidance, "clip_skip": clip_skip}
        return sample(pipeline, bundle, prompts, seeds=seeds, shape=shape, batch=batch, **told)
    painter = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    painter.set_progress_bar_config(disable=True)
    speak = PromptEncoder(pipeline, bundle, None, clip_skip)
    amount = {"num_inference_steps": steps, "guidance_scale": guidance}
    perturbed = max(1, round(steps * strength))
    amount["strength"] = min(1.0, (perturbed + 0.1) / steps)  # diffusers cuts it down to whole steps: these
    parts = []
    for start in range(0, len(images), batch):
        own = slice(start, start + batch)
        begin = [Image.fromarray(fit_image(image, shape)) for image in images[own]]
        parts.append(sample_batch(painter, bundle, seeds[own], {**speak(prompts[own]), "image": begin, **amount}))
    return np.concatenate(parts)


def round_trip(
    pipeline: DiffusionPipeline, images: Sequence[np.ndarray], shape: tuple[int, int], batch: int = 8
) -> np.ndarray:
    """Pictures through the VAE and back, at ``shape``: N,H,W,3 uint8. What no perturbation at all leaves of them."""
    import torch

    parts = []
    for start in range(0, len(images), batch):
        fitted = np.stack([fit_image(image, shape) for image in images[start : start + batch]])
        pixels = torch.from_numpy(fitted).permute(0, 3, 1, 2).to(pipeline.device, pipeline.vae.dtype) / 127.5 - 1
        with torch.inference_mode():
            made = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mode()).sample
        made = ((made.float() / 2 + 0.5).clamp(0, 1) * 255).round()
        parts.append(made.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy())
    return np.concatenate(parts)
