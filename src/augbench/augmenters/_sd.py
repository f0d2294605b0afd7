"""What the augmenters with a pretrained pipeline share: choice of pipeline, precision and image size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from augbench.core.contracts import Augmenter
from augbench.core.errors import UserError, listed
from augbench.diffusion.pipelines import BUNDLES, PipelineSource, canvas, embedded, fetch, find, load, of_content
from augbench.diffusion.prompts import UNKNOWN

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Aspect = Literal["squeeze", "keep"]

PRECISION = "number format of the weights; auto: fp16 on a GPU, else fp32; bf16 is faster on CPUs that support it"
CHECKPOINTING = "recompute activations in the backward pass: less memory, more time, the same result"
OPTIMISER = (
    "adamw8bit: AdamW of bitsandbytes, whose moments have 8 bits; adamw: PyTorch's; auto: adamw8bit on a GPU with "
    "bitsandbytes, else adamw; the adapter's record names the one that was used"
)
ASPECT = "squeeze: generate squares and resize them to the size of a real image; keep: generate at its aspect ratio"


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


def generation_size(source: PipelineSource, aspect: Aspect, images: Sequence[np.ndarray]) -> tuple[int, int]:
    """Return height and width at which the pipeline generates: its square, or the median aspect of ``images`` H,W,3."""
    if aspect == "squeeze":
        return source.size, source.size
    return canvas(source, float(np.median([image.shape[1] / image.shape[0] for image in images])))


@contextmanager
def enough_memory(*settings: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into a `UserError` that names the settings that save memory."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
        found = f"{free:.1f} of {total:.1f} GiB free"
        raise UserError(f"not enough memory on the GPU ({found}): change {listed(settings)}") from error


class PipelineAugmenter(Augmenter):
    """An augmenter with a pretrained pipeline, which its settings ``bundle`` and ``precision`` choose."""

    uses_gpu = True
    kind: ClassVar[str] = "sd"  # of its pipeline, see `augbench.diffusion.pipelines.KINDS`

    def key_settings(self) -> dict:
        """Return the settings that enter keys; a pipeline in a folder or file enters by its content."""
        return of_content(super().key_settings(), "bundle")

    def prompts_from(self) -> str:
        """Return that nobody recorded what its prompts were chosen by looking at."""
        return UNKNOWN

    def embedded(self) -> bool:
        """Whether the pipeline's weights come with the package."""
        return embedded(self.config.bundle)

    def ready(self) -> None:
        """Check that the pipeline is of the right kind, and download it if necessary."""
        fetch(self.find_pipeline())

    def find_pipeline(self) -> PipelineSource:
        """Find the pipeline.

        Raises:
            UserError: there is none, or it is of another kind.
        """
        source = find(self.config.bundle)
        if source.kind != self.kind:
            fitting = " or ".join(name for name, known in reversed(BUNDLES.items()) if known.kind == self.kind)
            what = f"augmenter '{self.name}' cannot use pipeline '{source.name}' ({source.title})"
            raise UserError(f"{what}: set bundle to {fitting}")
        return source

    def load_pipeline(self, source: PipelineSource, device: str) -> DiffusionPipeline:
        """Load the pipeline with weights in the configured precision.

        Raises:
            UserError: fp16 without a GPU, or the pipeline cannot be loaded.
        """
        import torch

        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return load(source, device, dtypes[arithmetic(self.config.precision, device)])
