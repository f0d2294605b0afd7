"""What augmenters share that draw with a diffusion bundle: which bundle, its precision, the size it draws at."""

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


def usable(bundle: PipelineSource, augmenter: str) -> PipelineSource:
    """The bundle, if it makes pictures from text.

    Raises:
        UserError: it does not.
    """
    if bundle.kind != "sd":
        what = f"augmenter '{augmenter}' cannot use bundle '{bundle.name}' ({bundle.title})"
        raise UserError(f"{what}: take sd15 or micro-sd")
    return bundle


def arithmetic(precision: Precision, device: str) -> str:
    """fp32, bf16 or fp16: what a setting means on a device.

    Raises:
        UserError: fp16 without a GPU.
    """
    if precision == "auto":
        return "fp16" if device == "cuda" else "fp32"
    if precision == "fp16" and device == "cpu":
        raise UserError("precision fp16 needs a GPU: set it to bf16 or fp32, or to auto, which is fp32 on a CPU")
    return precision


def loaded(bundle: PipelineSource, precision: Precision, device: str) -> DiffusionPipeline:
    """The pipeline, with weights in the precision of the setting.

    Raises:
        UserError: fp16 without a GPU, or the bundle cannot be loaded.
    """
    import torch

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return load(bundle, device, kinds[arithmetic(precision, device)])


def drawn_at(bundle: PipelineSource, aspect: Aspect, pictures: Sequence[np.ndarray]) -> tuple[int, int]:
    """Height and width at which the bundle draws what pictures, each H,W,3, show: its square, or their aspect."""
    if aspect == "squeeze":
        return bundle.size, bundle.size
    return canvas(bundle, float(np.median([picture.shape[1] / picture.shape[0] for picture in pictures])))
