"""Sample images from a pipeline. Each image has its own seed, and the same arguments give the same images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from augbench.core.errors import UserError
from augbench.core.temporary import log_levels
from augbench.diffusion.pipelines import PipelineSource
from augbench.diffusion.text_encoding import encode_tokens, tokens

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

STRENGTH = 0.99  # nearly pure noise under the mask; at 1 even the brightness of the image would be lost


def sample(
    pipeline: DiffusionPipeline,
    source: PipelineSource,
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
    """Sample one image per prompt, at the pipeline's size, whatever the size of ``image``.

    An inpainting pipeline samples the whole image and reproduces ``image`` outside the mask only approximately; the
    result is not composited with ``image`` here.

    Args:
        pipeline: from `augbench.diffusion.pipelines.load`.
        source: what ``pipeline`` was loaded from.
        prompts: N texts; "": unconditional.
        seeds: N seeds, one for each image.
        steps: inference steps, at least 1.
        guidance: classifier-free guidance scale; up to 1 there is no guidance.
        negative: negative prompt; None: the empty one.
        image: inpainting: H,W,3 uint8 for all samples, or N,H,W,3 with one for each.
        mask: inpainting: H,W or N,H,W bool, True where to inpaint; at least one pixel each.
        strength: inpainting: how much noise is added under the mask, in (0, 1].
        clip_skip: text to image: layer of the text encoder, as `text_encoding.encode_tokens` counts.
        shape: text to image: another height and width, see `augbench.diffusion.pipelines.canvas`.
        batch: images per batch. Results of different batch sizes are equal up to rounding.

    Returns:
        N,H,W,3 uint8.

    Raises:
        UserError: a prompt is too long for the text encoder, or the result is NaN.
    """
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts need as many seeds, not {len(seeds)}")
    check_prompts(pipeline, source, [*prompts, negative or ""])
    options: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance}
    inputs: list[dict[str, Image.Image]] = []
    if source.kind == "sdxl-inpaint":
        inputs = _inpainting_inputs(image, mask, len(prompts), source.size)
        options["strength"] = min(1.0, max(strength, 1.0000001 / steps))  # diffusers truncates to whole steps
    elif image is not None or mask is not None:
        raise ValueError(f"'{source.name}' generates images from text alone")
    encode = PromptEncoder(pipeline, source, negative, clip_skip)
    options["height"], options["width"] = shape or (source.size, source.size)
    parts = []
    for start in range(0, len(prompts), batch):
        rows = slice(start, start + batch)
        chosen = {key: [each[key] for each in inputs[rows]] for key in ("image", "mask_image") if inputs}
        embeddings = encode(prompts[rows])
        parts.append(sample_batch(pipeline, source, seeds[rows], {**embeddings, **options, **chosen}))
    return np.concatenate(parts)


def check_prompts(pipeline: DiffusionPipeline, source: PipelineSource, prompts: Iterable[str]) -> None:
    """Refuse prompts that diffusers would truncate.

    Raises:
        UserError: a prompt has more tokens than the text encoder supports.
    """
    limit = pipeline.text_encoder.config.max_position_embeddings
    for prompt in dict.fromkeys(prompts):
        length = len(pipeline.tokenizer(prompt, truncation=False, verbose=False).input_ids)
        if length > limit:
            start = " ".join(prompt[:40].split())
            most = f"'{source.name}' supports {limit}, start and end tokens included"
            raise UserError(f"prompt '{start}...' is {length} tokens long and {most}: shorten it")


def fit_image(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize an image H,W,3 uint8 to ``shape`` (height, width), without keeping its aspect."""
    if image.shape[:2] == tuple(shape):
        return image
    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.LANCZOS))


def as_pixels(pipeline: DiffusionPipeline, images: Sequence[np.ndarray], shape: tuple[int, int]) -> torch.Tensor:
    """Resize images H,W,3 uint8 to ``shape`` (height, width), as input of the pipeline's VAE: N,3,H,W in [-1, 1]."""
    import torch

    fitted = torch.from_numpy(np.stack([fit_image(image, shape) for image in images]))
    return fitted.permute(0, 3, 1, 2).to(pipeline.vae.device, pipeline.vae.dtype) / 127.5 - 1


def fit_mask(mask: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resize a mask H,W bool to (height, width) or a square; a pixel the mask touches is set, so thin lines survive."""
    height, width = (size, size) if isinstance(size, int) else size
    if mask.shape == (height, width):
        return mask
    shrunk = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(shrunk) > 0


def _inpainting_inputs(
    image: np.ndarray | None, mask: np.ndarray | None, number: int, size: int
) -> list[dict[str, Image.Image]]:
    """Return diffusers' inputs for each of ``number`` images: the image, and a mask with 255 where to inpaint."""
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
    """Encode prompts for a pipeline, each distinct prompt once."""

    def __init__(
        self, pipeline: DiffusionPipeline, source: PipelineSource, negative: str | None, clip_skip: int
    ) -> None:
        self.pipeline, self.negative, self.clip_skip = pipeline, negative, clip_skip
        self.encode = self._sd if source.kind == "sd" else self._sdxl
        self.cache: dict[str, dict[str, torch.Tensor]] = {}

    def __call__(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the pipeline's embedding arguments for N prompts, each tensor N,..."""
        import torch

        for prompt in dict.fromkeys(prompts):
            if prompt not in self.cache:
                with torch.inference_mode():
                    self.cache[prompt] = self.encode(prompt)
        parts = [self.cache[prompt] for prompt in prompts]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _sd(self, prompt: str) -> dict[str, torch.Tensor]:
        """Encode without diffusers, for the clip skip."""
        encoder = self.pipeline.text_encoder
        texts = {"prompt_embeds": prompt, "negative_prompt_embeds": self.negative or ""}
        ids = {name: tokens(self.pipeline, [text]).to(encoder.device) for name, text in texts.items()}
        return {name: encode_tokens(encoder, given, self.clip_skip) for name, given in ids.items()}

    def _sdxl(self, prompt: str) -> dict[str, torch.Tensor]:
        """Encode with diffusers: hidden states of two encoders, and pooled embeddings."""
        found = self.pipeline.encode_prompt(prompt, negative_prompt=self.negative, do_classifier_free_guidance=True)
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        return dict(zip(names, found, strict=True))


def sample_batch(
    pipeline: DiffusionPipeline, source: PipelineSource, seeds: Sequence[int], options: dict[str, Any]
) -> np.ndarray:
    """Sample one batch: N,H,W,3 uint8. Raises UserError where the result is NaN."""
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    with log_levels(logging.ERROR, "diffusers"):  # diffusers warns of SDXL's VAE in fp32, which is intended
        images = pipeline(generator=generators, output_type="np", **options).images  # N,H,W,3 float32 in [0, 1]
    refuse_nan(source, bool(np.isfinite(images).all()))
    return (images * 255).round().astype(np.uint8)


def refuse_nan(source: PipelineSource, are_finite: bool) -> None:
    """Raise UserError where the pixels of a pipeline are not finite: as integers they would be black."""
    if not are_finite:
        raise UserError(f"'{source.name}' produced NaN: lower the guidance, or restore its damaged weights")
