"""What the augmenters with a pretrained pipeline share: choice of pipeline, precision and image size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from augbench.core import registry
from augbench.core.contracts import Augmenter
from augbench.core.errors import UserError
from augbench.core.gpu import enough_memory
from augbench.diffusion.dreambooth import LARGE_UNET
from augbench.diffusion.pipelines import BUNDLES, PipelineSource, canvas, embedded, fetch, find, load, of_content
from augbench.diffusion.prompts import UNKNOWN
from augbench.planning.gpu_memory import generating, learning, pipeline_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
Aspect = Literal["squeeze", "keep"]

PRECISION = (
    "number format of the weights; auto: fp16 on a GPU, else fp32; bf16 is faster on CPUs that support it; tf32: fp32 "
    "whose products round their inputs, on GPUs of compute capability 8.0 or newer"
)
CHECKPOINTING = (
    "recompute activations in the backward pass: less memory, more time, the same result; pipelines of the size of "
    "Stable Diffusion always do"
)
OPTIMISER = (
    "adamw8bit: AdamW of bitsandbytes, whose moments have 8 bits; adamw: PyTorch's; auto: adamw8bit on a GPU with "
    "bitsandbytes, else adamw; the adapter's record names the one that was used"
)
SAMPLE_BATCH = 10  # images per batch; fixed, because an image depends slightly on its batch
ASPECT = "squeeze: generate squares and resize them to the size of a real image; keep: generate at its aspect ratio"


def arithmetic(precision: Precision, device: str) -> str:
    """Return what a precision setting means on a device: fp32, tf32, bf16 or fp16.

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


class PipelineAugmenter(Augmenter):
    """An augmenter with a pretrained pipeline, which its settings ``bundle`` and ``precision`` choose."""

    uses_gpu = True
    kind: ClassVar[str] = "sd"  # of its pipeline, see `augbench.diffusion.pipelines.KINDS`
    loaded: ClassVar[tuple[str, ...]] = ("_pipeline", "_pipeline_source")  # what `load` leaves in it

    @property
    def pipeline(self) -> DiffusionPipeline:
        """The pipeline, once `load` has run."""
        return self._pipeline

    def trying(self, prompt: str, negative_prompt: str = "", **settings: Any) -> Self:
        """Return this augmenter with another prompt and other settings of generation, and with what it has loaded.

        For a person who tries some out: the pipeline stays where it is.

        Raises:
            UserError: a setting is out of range.
        """
        given = self.config.model_dump() | settings
        other = registry.make("augmenters", self.name, given, f"augmenter '{self.name}'")
        for name in self.loaded:
            setattr(other, name, getattr(self, name))
        return other

    def key_settings(self) -> dict:
        """Return the settings that enter keys; a pipeline in a folder or file enters by its content."""
        return of_content(super().key_settings(), "bundle")

    def precision_on(self, device: str) -> str:
        """Return what the setting means on that device."""
        return arithmetic(self.config.precision, device)

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

    def gpu_memory(self, stage: Literal["adapt", "generate"]) -> float | None:
        """Estimate the GPU memory of a stage in GiB; None where there is no such pipeline, as `ready` says."""
        config = self.config
        try:
            source = self.find_pipeline()
        except UserError:
            return None
        pipeline, width = pipeline_of(source.kind, source.size), 4 if "32" in self.precision_on("cuda") else 2
        batch, decoded = self.batches()
        generated = generating(pipeline, source.size, batch, width, decoded)
        if stage == "generate":
            return generated
        saves = config.gradient_checkpointing or pipeline.unet >= LARGE_UNET
        learned = learning(pipeline, source.size, config.batch, width, saves)
        return max(learned, generated)  # class images are generated before the training

    def batches(self) -> tuple[int, int]:
        """Return how many images are denoised at a time, and how many are decoded at a time."""
        return SAMPLE_BATCH, SAMPLE_BATCH

    def load_pipeline(self, source: PipelineSource, device: str) -> DiffusionPipeline:
        """Load the pipeline with weights in the configured precision.

        Raises:
            UserError: fp16 without a GPU, too little memory, or the pipeline cannot be loaded.
        """
        import torch

        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        with enough_memory("precision"):
            return load(source, device, dtypes.get(self.precision_on(device), torch.float32))
