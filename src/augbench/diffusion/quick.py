"""How the steps of a training are computed in less time: other sums for the same updates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from augbench.diffusion import attention, lowrank
from augbench.diffusion.lora import ADAPTER, MODELS

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import nn


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
        before = [(module, name, module.__dict__.get(name)) for module, name, _ in self.own]
        for module, name, own in self.own:
            module.__dict__[name] = own
        try:
            with attention.for_training(self.device, self.places):
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
