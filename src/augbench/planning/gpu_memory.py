"""Estimate the GPU memory that each stage of a plan needs: for plans, and for the default shares of a GPU.

An estimate is the weights by their parameter count, what an optimiser adds to those that are trained, `MARGIN` times
the activations, and `CONTEXT`. The activations are the bytes of the tensors alive at once in a pass of the architecture
on PyTorch's meta device, per image (`bench/gpu_memory.py` counts them again), with the casts of autocast and with
attention by a fused kernel. They grow with the pixels and the batch. `MARGIN` stands for what that cannot see: the
workspace of cuDNN, and what the allocator loses to fragments. No estimate was ever compared with a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal

from augbench.core.filters import make_filters
from augbench.core.protocol import Protocol
from augbench.core.specs import PoolSpec

if TYPE_CHECKING:
    from augbench.planning.plan import Plan

Stage = Literal["adapt", "generate", "features", "fidelity", "train"]

GIB = 2**30
CONTEXT = 0.5  # GiB of a process outside of PyTorch's allocator: CUDA context and libraries
MARGIN = 1.2  # of activations
FP32 = 1.5  # activations of a training of LoRA matrices in fp32, in those of autocast (counted: 1.44 to 1.57)
ENCODE_BATCH = 8  # images per call of the VAE before a training
FORWARD_BATCH = 32  # images per pass of a frozen backbone
MICRO = 256  # pixels: below this size a pipeline is one for smoke tests
STATES = {"sgd": 3, "adam": 4, "adamw": 4}  # numbers per trained parameter: weight, gradient, moments


@dataclass(frozen=True)
class Pipeline:
    """An architecture: parameters, and activations per image of its own size with weights of 16 bits."""

    unet: int
    vae: int
    text_encoders: int
    size: int  # side length of its images in pixels
    denoise: float  # GiB: one pass of the U-Net
    decode: float  # GiB: one pass of the VAE; encoding takes less
    learn: float = inf  # GiB: forward and backward pass of the U-Net with LoRA matrices
    relearn: float = inf  # GiB: the same with gradient checkpointing
    trained: int = 0  # parameters of these matrices in the U-Net, at the ranks of In&Out
    upcast: bool = False  # the VAE computes in 32 bits

    @property
    def weights(self) -> int:
        """The number of parameters."""
        return self.unet + self.vae + self.text_encoders


PIPELINES = {
    "sd": Pipeline(859_520_964, 83_653_863, 123_060_480, 512, 0.063, 0.375, 1.314, 0.305, 18_394_112),
    "sdxl-inpaint": Pipeline(2_567_478_084, 83_653_863, 817_720_320, 1024, 0.154, 1.5, upcast=True),
    "micro-sd": Pipeline(2_656_676, 353_839, 335_136, 64, 0.0012, 0.0011, 0.012, 0.012),
    "micro-sdxl-inpaint": Pipeline(2_778_532, 353_839, 513_504, 64, 0.0012, 0.0011),
}
"""Kind of a pipeline -> its architecture; "micro-" and kind for pipelines for smoke tests."""


@dataclass(frozen=True)
class Backbone:
    """A classifier: parameters with one output, and activations per image of 224 x 224."""

    parameters: int
    fp32: float  # GiB: forward and backward pass
    bf16: float  # GiB: the same under autocast
    forward: float  # GiB: forward pass in fp32


BACKBONES = {
    "resnet18": Backbone(11_177_025, 0.0198, 0.0109, 0.0060),
    "resnet34": Backbone(21_285_185, 0.0288, 0.0154, 0.0060),
    "resnet50": Backbone(23_510_081, 0.0774, 0.0395, 0.0097),
    "wide_resnet50_2": Backbone(66_836_289, 0.1017, 0.0515, 0.0097),
    "tf_efficientnet_lite0": Backbone(3_372_289, 0.0745, 0.0372, 0.0124),
    "inception_v3": Backbone(21_787_617, 0.0452, 0.0242, 0.0071),
    "vit_small_patch14_dinov2": Backbone(21_629_185, 0.0857, 0.0479, 0.0044),
    "micro_resnet": Backbone(486_841, 0.0053, 0.0031, 0.0015),
    "test_efficientnet": Backbone(99_453, 0.0118, 0.0062, 0.0034),
    "test_resnet": Backbone(372_785, 0.0106, 0.0060, 0.0030),
}
"""Architecture of timm -> what it needs; of others nothing is known."""


def pipeline_of(kind: str, size: int) -> Pipeline:
    """Return the architecture of a pipeline's kind whose images have sides of ``size`` pixels."""
    return PIPELINES[kind if size >= MICRO else f"micro-{kind}"]


def generating(pipeline: Pipeline, size: int, batch: int, width: int, decoded: int | None = None) -> float:
    """Estimate the GiB of generation with classifier-free guidance.

    Args:
        pipeline: the architecture.
        size: side length of the images in pixels; another aspect has the same area.
        batch: images at a time.
        width: bytes of a weight, 2 or 4.
        decoded: images that the VAE decodes at a time; None: the batch.
    """
    vae_width = 4 if pipeline.upcast else width
    weights = pipeline.weights * width + pipeline.vae * (vae_width - width)
    passes = pipeline.denoise * 2 * batch * width / 2, pipeline.decode * (decoded or batch) * vae_width / 2
    return weights / GIB + MARGIN * max(passes) * (size / pipeline.size) ** 2 + CONTEXT


def learning(pipeline: Pipeline, size: int, batch: int, width: int, saves: bool) -> float:
    """Estimate the GiB of a training of LoRA matrices; ``saves``: with gradient checkpointing, the rest as above."""
    step = batch * (pipeline.relearn if saves else pipeline.learn) * (FP32 if width == 4 else 1)
    passes = step, ENCODE_BATCH * pipeline.decode * width / 2
    weights = pipeline.weights * width + 4 * STATES["adamw"] * pipeline.trained
    return weights / GIB + MARGIN * max(passes) * (size / pipeline.size) ** 2 + CONTEXT


def training(protocol: Protocol, images: int) -> float | None:
    """Estimate the GiB of a fine-tuning whose ``images`` lie on the GPU; None: nothing is known of the backbone."""
    backbone = BACKBONES.get(protocol.backbone.partition(".")[0])
    if backbone is None:
        return None
    pixels = protocol.width * protocol.height
    assert protocol.batch is not None  # that of every protocol that fine-tunes
    batch = 1 if protocol.gradients == "summed" else protocol.batch
    step = batch * (backbone.bf16 if protocol.precision == "bf16" else backbone.fp32)
    passes = step, protocol.eval_batch * backbone.forward
    states = 4 * STATES[protocol.optimiser] * backbone.parameters
    return (states + 3 * images * pixels) / GIB + MARGIN * max(passes) * pixels / 224**2 + CONTEXT


def extracting(name: str, pixels: int) -> float | None:
    """Estimate the GiB of features of images with that many pixels by a frozen backbone; None: it is not known."""
    backbone = BACKBONES.get(name.partition(".")[0])
    if backbone is None:
        return None
    return 4 * backbone.parameters / GIB + MARGIN * FORWARD_BATCH * backbone.forward * pixels / 224**2 + CONTEXT


def estimates(plan: Plan) -> dict[Stage, dict[str, float | None]]:
    """Estimate what a plan's units need that can use a GPU: stage -> name of augmenter, protocol or extractor -> GiB.

    A search adapts and generates. None: nothing is known, for example of a third-party augmenter.
    """
    found: dict[Stage, dict[str, float | None]] = {}

    def note(stage: Stage, name: str, gib: float | None) -> None:
        before = found.setdefault(stage, {}).get(name, 0.0)
        found[stage][name] = None if gib is None or before is None else max(gib, before)

    for pool in {pool.augmenter.digest: pool for pool in plan.pools.values()}.values():
        augmenter = plan.library.augmenter(pool.augmenter)
        if augmenter.uses_gpu:
            if augmenter.learns:
                note("adapt", augmenter.name, augmenter.gpu_memory("adapt"))
            if augmenter.candidates():
                note("adapt", augmenter.name, augmenter.gpu_memory("generate"))
            note("generate", augmenter.name, _with_judge(pool, augmenter.gpu_memory("generate")))
    for spec in plan.features.values():
        protocol, vae = spec.protocol, spec.protocol.vae() if spec.pool is None else None
        if vae:
            note("features", vae.name, vae.gpu_memory("generate"))
        if not spec.pixels:
            note("features", protocol.backbone, extracting(protocol.backbone, protocol.width * protocol.height))
    for extractor in {spec.extractor for spec in plan.fidelity.values()} if "generate" in found else ():
        note("fidelity", extractor, extracting(extractor, 299**2))
    for protocol in plan.grid.protocols:
        if protocol.kind == "finetune":
            note("train", protocol.name, training(protocol, _images(plan, protocol)))
    return found


def _with_judge(pool: PoolSpec, gib: float | None) -> float | None:
    """Add what the backbone of a filter needs beside its augmenter; None: it is not known."""
    judge = make_filters(pool.augmenter.filters).unseen
    more = extracting(judge.backbone, judge.width * judge.height) if judge else 0.0
    return None if gib is None or more is None else gib + more


def _images(plan: Plan, protocol: Protocol) -> int:
    """Return the most images that a training holds: all of its dataset, if that is here, and N_aug synthetic ones."""
    cells = [cell for cell in plan.cells if cell.protocol == protocol]
    datasets = {cell.data.alias for cell in cells} - set(plan.absent)
    rows = max((len(plan.library.row_of(alias)) for alias in datasets), default=0)
    return rows + max((sum(one.n for one in plan.needs[cell.key]) for cell in cells), default=0)
