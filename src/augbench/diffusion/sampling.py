"""Pictures from a bundle. Every picture has a seed of its own, and the same arguments give the same pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from augbench.core.errors import UserError
from augbench.diffusion.pipelines import PipelineSource, errors_only
from augbench.diffusion.text_encoding import encode_tokens, tokens

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

STRENGTH = 0.99  # nearly all is forgotten under the mask; at 1 the brightness of the picture would be, too


def sample(
    pipeline: DiffusionPipeline,
    bundle: PipelineSource,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    negative: str | None = None,
    image: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    strength: float = STRENGTH,
    clip_skip: int = 1,
    shape: tuple[int, int] | None = None,
    batch: int = 8,
) -> np.ndarray:
    """A picture for each prompt: N,H,W,3 uint8 of the bundle's own size, whatever the size of ``image``.

    An inpainting bundle paints the whole picture anew and keeps to ``image`` outside the mask as well as it can;
    nothing is pasted back here.

    Args:
        pipeline: from `augbench.diffusion.pipelines.load`.
        bundle: the same that was loaded.
        prompts: N texts; "" leaves the bundle free.
        seeds: N seeds, one for each picture.
        steps: of the scheduler, at least 1.
        guidance: classifier-free guidance scale; up to 1 there is none.
        negative: what guidance leads away from; None: nothing in particular.
        image: what an inpainting bundle paints in: H,W,3 uint8 for all pictures, or N,H,W,3 with one for each.
        mask: where it paints: H,W bool, or N,H,W; at least one pixel each.
        strength: inpainting: how much of what is under the mask is forgotten, in (0, 1].
        clip_skip: text to image: which layer of the text encoder is read, as `text_encoding.encode_tokens` counts.
        shape: text to image: another height and width, see `augbench.diffusion.pipelines.canvas`.
        batch: pictures at a time. Another number changes pictures by rounding.

    Raises:
        UserError: a prompt is longer than the bundle reads, or what was made is no picture.
    """
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts need as many seeds, not {len(seeds)}")
    check_prompts(pipeline, bundle, [*prompts, negative or ""])
    options: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance}
    places: list[dict[str, Image.Image]] = []
    if bundle.kind == "sdxl-inpaint":
        places = _places(image, mask, len(prompts), bundle.size)
        options["strength"] = min(1.0, max(strength, 1.0000001 / steps))  # diffusers cuts it down to whole steps
    elif image is not None or mask is not None:
        raise ValueError(f"'{bundle.name}' makes pictures from text alone")
    speak = PromptEncoder(pipeline, bundle, negative, clip_skip)
    options["height"], options["width"] = shape or (bundle.size, bundle.size)
    parts = []
    for start in range(0, len(prompts), batch):
        own = slice(start, start + batch)
        chosen = {key: [place[key] for place in places[own]] for key in ("image", "mask_image") if places}
        spoken = speak(prompts[own])
        parts.append(sample_batch(pipeline, bundle, seeds[own], {**spoken, **options, **chosen}))
    return np.concatenate(parts)


def check_prompts(pipeline: DiffusionPipeline, bundle: PipelineSource, prompts: Iterable[str]) -> None:
    """Diffusers would cut what is too long.

    Raises:
        UserError: a prompt has more tokens than the text encoder reads.
    """
    limit = pipeline.text_encoder.config.max_position_embeddings
    for prompt in dict.fromkeys(prompts):
        length = len(pipeline.tokenizer(prompt, truncation=False, verbose=False).input_ids)
        if length > limit:
            start = " ".join(prompt[:40].split())
            most = f"'{bundle.name}' reads {limit}, begin and end included"
            raise UserError(f"prompt '{start}...' is {length} tokens long and {most}: shorten it")


def fit_image(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """H,W,3 uint8 at another height and width; its aspect is not kept."""
    if image.shape[:2] == tuple(shape):
        return image
    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.LANCZOS))


def fit_mask(mask: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """H,W bool at another height and width, or as a square: all pixels that the mask touches, so thin lines stay."""
    height, width = (size, size) if isinstance(size, int) else size
    if mask.shape == (height, width):
        return mask
    shrunk = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(shrunk) > 0


def _places(image: np.ndarray | None, mask: np.ndarray | None, number: int, size: int) -> list[dict[str, Image.Image]]:
    """What diffusers wants for each of ``number`` pictures: image, and mask with 255 where it paints."""
    if image is None or mask is None:
        raise ValueError("inpainting needs an image and a mask")
    images = [image] * number if image.ndim == 3 else list(image)
    masks = [mask] * number if mask.ndim == 2 else list(mask)
    if len(images) != number or len(masks) != number:
        raise ValueError(f"{number} prompts, but {len(images)} images and {len(masks)} masks")
    if any(i.shape[:2] != m.shape or not m.any() for i, m in zip(images, masks, strict=True)):
        raise ValueError("each mask must have the size of its image and mark a pixel of it")
    return [
        {
            "image": Image.fromarray(fit_image(i, (size, size))),
            "mask_image": Image.fromarray(fit_mask(m, size).astype(np.uint8) * 255),
        }
        for i, m in zip(images, masks, strict=True)
    ]


class PromptEncoder:
    """What a pipeline is told: encoded texts, each encoded once for all of its pictures."""

    def __init__(
        self, pipeline: DiffusionPipeline, bundle: PipelineSource, negative: str | None, clip_skip: int
    ) -> None:
        self.pipeline, self.negative, self.clip_skip = pipeline, negative, clip_skip
        self.encode = self._sd if bundle.kind == "sd" else self._sdxl
        self.known: dict[str, dict[str, torch.Tensor]] = {}

    def __call__(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """What the pipeline takes in place of N prompts, each tensor N,..."""
        import torch

        for prompt in dict.fromkeys(prompts):
            if prompt not in self.known:
                with torch.inference_mode():
                    self.known[prompt] = self.encode(prompt)
        parts = [self.known[prompt] for prompt in prompts]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _sd(self, prompt: str) -> dict[str, torch.Tensor]:
        """By ourselves, for the clip skip."""
        encoder = self.pipeline.text_encoder
        told_of = {"prompt_embeds": prompt, "negative_prompt_embeds": self.negative or ""}
        ids = {name: tokens(self.pipeline, [text]).to(encoder.device) for name, text in told_of.items()}
        return {name: encode_tokens(encoder, given, self.clip_skip) for name, given in ids.items()}

    def _sdxl(self, prompt: str) -> dict[str, torch.Tensor]:
        """By diffusers: two encoders, and what both say of the whole text."""
        found = self.pipeline.encode_prompt(prompt, negative_prompt=self.negative, do_classifier_free_guidance=True)
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        return dict(zip(names, found, strict=True))


def sample_batch(
    pipeline: DiffusionPipeline, bundle: PipelineSource, seeds: Sequence[int], options: dict[str, Any]
) -> np.ndarray:
    """One batch: N,H,W,3 uint8."""
    import torch
    from diffusers.utils import logging

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    with errors_only(logging):  # SDXL's VAE in fp32, as it should be, is warned of
        made = pipeline(generator=generators, output_type="np", **options).images  # N,H,W,3 float32 in [0, 1]
    if not np.isfinite(made).all():
        raise UserError(f"'{bundle.name}' made no picture but NaN: lower the guidance, or restore its damaged weights")
    return (made * 255).round().astype(np.uint8)
