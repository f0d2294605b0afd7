"""How the steps of a training, and pictures, are computed in less time: other sums for the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from augbench.diffusion import attention, lowrank
from augbench.diffusion.lora import ADAPTER, MODELS

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import nn


FEW_PLACES = 1024  # where PyTorch changes its way


class Passes:
    """The passes forward and backward of a pipeline in training.

    On a CPU in fp32 the layers of LoRA and of narrow attention are computed by ways of our own, in the layout of memory
    that suits them. Elsewhere those of the libraries are quick, or the arithmetic is reduced and sums are not the same.
    """

    def __init__(self, pipeline: DiffusionPipeline, precision: str, places: int) -> None:
        """
        Args:
            pipeline: on its device, wrapped if it is to be.
            precision: fp32, bf16 or fp16: of the arithmetic.
            places: of a latent, height x width.
        """
        import torch

        self.device, self.places = pipeline.device.type, places
        self.own: list[tuple[nn.Module, str, Any]] = []  # module, attribute, what it is during a pass
        self.shares_texts = False
        if self.device != "cpu" or precision != "fp32":
            return
        pipeline.unet.to(memory_format=torch.contiguous_format)  # bundles come with channels last, for sampling
        for part in MODELS:
            found = lowrank.forwards(getattr(pipeline, part), ADAPTER)
            self.own += [(layer, "forward", forward) for layer, forward in found]
        self.own += undivided(pipeline.unet)
        if places <= attention.PLACES:
            self.own += [(layer, "processor", each) for layer, each in attention.processors(pipeline.unet)]
            self.shares_texts = attention.all_ordinary(pipeline.unet)

    def conditions(self, texts: torch.Tensor, rows: torch.Tensor) -> dict[str, Any]:
        """What a U-Net takes to be told ``texts[rows]``, for N texts N,L,D of which pictures share some."""
        shared = {"cross_attention_kwargs": {"texts": texts, "rows": rows}} if self.shares_texts else {}
        return {"encoder_hidden_states": texts[rows], **shared}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """A pass; afterwards the modules are as they were."""
        with put_in(self.own), attention.for_training(self.device, self.places):
            yield


def sampling(pipeline: DiffusionPipeline, pictures: int) -> AbstractContextManager:
    """While so many pictures are made at a time: on a CPU attention, and in bf16 group norms, by ways of our own.

    A picture alone is what diffusers makes, to the last bit.
    """
    import torch

    if pictures == 1 or pipeline.device.type != "cpu":
        return nullcontext()
    own = undivided(pipeline.unet)
    own += [(layer, "processor", each) for layer, each in attention.processors(pipeline.unet, attention.FEW)]
    if pipeline.unet.dtype == torch.bfloat16:
        norms = [module for module in pipeline.unet.modules() if type(module) is torch.nn.GroupNorm]
        own += [(norm, "forward", partial(_normed, norm)) for norm in norms]
    return put_in(own)


def _normed(norm: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """A group norm of x N,C,H,W in bf16.

    Of few places PyTorch computes it many times as fast if the places of a channel lie side by side: two to five times
    with the copies there and back. Of many it does as they come.
    """
    import torch

    usual = type(norm).forward
    if x.ndim != 4 or x.shape[2] * x.shape[3] >= FEW_PLACES or not x.is_contiguous(memory_format=torch.channels_last):
        return usual(norm, x)
    return usual(norm, x.contiguous()).contiguous(memory_format=torch.channels_last)


class _One:
    """To divide by it gives the dividend, and copies nothing."""

    def __rtruediv__(self, dividend: torch.Tensor) -> torch.Tensor:
        return dividend


def undivided(unet: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Diffusers divides what a block makes by a factor, which is 1 in all of Stable Diffusion: for `put_in`."""
    from diffusers.models.resnet import ResnetBlock2D

    blocks = [block for block in unet.modules() if type(block) is ResnetBlock2D and block.output_scale_factor == 1]
    return [(block, "output_scale_factor", _One()) for block in blocks]


@contextmanager
def put_in(own: Sequence[tuple[nn.Module, str, Any]]) -> Iterator[None]:
    """Modules with other attributes for a while: each a module, a name, and what it is meanwhile."""
    before = [(module, name, module.__dict__.get(name)) for module, name, _ in own]
    for module, name, meanwhile in own:
        module.__dict__[name] = meanwhile
    try:
        yield
    finally:
        for module, name, usual in before:
            if usual is None:
                del module.__dict__[name]
            else:
                module.__dict__[name] = usual


def optimiser(parameters: Sequence[torch.nn.Parameter], lr: float, device: str) -> tuple[torch.optim.Optimizer, str]:
    """AdamW, with moments in 8 bits where that can be had, as In&Out; and its name."""
    import torch

    if device == "cuda":
        try:
            import bitsandbytes
        except ImportError:
            pass  # an extra that not every machine can have: the record names what was used
        else:
            return bitsandbytes.optim.AdamW8bit(parameters, lr=lr), "AdamW8bit"
    fused = True if device == "cpu" else None  # PyTorch's default there is a loop over hundreds of small tensors
    return torch.optim.AdamW(parameters, lr=lr, fused=fused), "AdamW"
