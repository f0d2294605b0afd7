"""What the Stable Diffusion augmenters share: choice of pipeline, precision and image size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from augbench.core.errors import UserError
from augbench.diffusion.pipelines import PipelineSource, canvas, load

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Aspect = Literal["squeeze", "keep"]

PRECISION = "number format of the weights; auto: fp16 on a GPU, else fp32; bf16 is faster on CPUs that support it"
CHECKPOINTING = "recompute activations in the backward pass: less memory, more time, the same result"
ASPECT = "squeeze: generate squares and resize them to the size of a real image; keep: generate at its aspect ratio"


def usable(source: PipelineSource, augmenter: str) -> PipelineSource:
    """Return the pipeline if it generates images from text.

    Raises:
        UserError: it does not.
    """
    if source.kind != "sd":
        what = f"augmenter '{augmenter}' cannot use pipeline '{source.name}' ({source.title})"
        raise UserError(f"{what}: set bundle to sd15 or micro-sd")
    return source


def arithmetic(precision: Precision, device: str) -> str:
    """Return what a precision setting means on a device: fp32, bf16 or fp16.

    Raises:
        UserError: fp16 without a GPU.
    """
    if precision == "auto":
        return "fp16" if device == "cuda" else "fp32"
    if precision == "fp16" and device == "cpu":
        raise UserError("precision fp16 needs a GPU: set it to bf16 or fp32, or to auto, which is fp32 on a CPU")
    return precision


def loaded(source: PipelineSource, precision: Precision, device: str) -> DiffusionPipeline:
    """Load the pipeline with weights in the configured precision.

    Raises:
        UserError: fp16 without a GPU, or the pipeline cannot be loaded.
    """
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return load(source, device, dtypes[arithmetic(precision, device)])


def generation_size(source: PipelineSource, aspect: Aspect, images: Sequence[np.ndarray]) -> tuple[int, int]:
    """Return height and width at which the pipeline generates: its square, or the median aspect ratio of ``images``.

    Args:
        source: the pipeline.
        aspect: which of the two.
        images: real images, each H,W,3.
    """
    if aspect == "squeeze":
        return source.size, source.size
    return canvas(source, float(np.median([image.shape[1] / image.shape[0] for image in images])))
