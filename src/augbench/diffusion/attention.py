"""How attention is computed on a CPU, where libraries are made for larger models than the small bundles."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

PLACES = 1024  # of a latent, height x width: up to here all products fit into little memory
FEW = 80 * 80  # pairs of what asks and what is asked: up to here plain products are quicker in the pass forward, too


def for_training(device: str, places: int) -> AbstractContextManager:
    """Plain matrix products on a CPU, where the backward pass of PyTorch's fused attention is slow for narrow heads.

    Args:
        device: type of the device, e.g. "cpu".
        places: of a latent, height x width; plain products of large ones would take too much memory.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" and places <= PLACES else nullcontext()


def processors(unet: nn.Module, pairs: int = PLACES**2) -> list[tuple[nn.Module, Processor]]:
    """The attention layers of a U-Net that are as ordinary as Stable Diffusion's, each with a quick way on a CPU.

    It is taken for up to ``pairs`` pairs of what asks and what is asked.
    """
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0

    return [
        (layer, Processor(layer.processor, pairs))
        for layer in unet.modules()
        if type(layer) is Attention and type(layer.processor) is AttnProcessor2_0 and _ordinary(layer)
    ]


def all_ordinary(unet: nn.Module) -> bool:
    """Whether `processors` finds every attention layer of a U-Net."""
    return len(processors(unet)) == sum(hasattr(layer, "processor") for layer in unet.modules())


def _ordinary(layer: Any) -> bool:
    parts = (layer.group_norm, layer.spatial_norm, layer.norm_q, layer.norm_k, layer.norm_cross)
    return not any(parts) and not layer.residual_connection and layer.rescale_output_factor == 1


class Processor:
    """What diffusers asks to compute one attention layer: the same as `AttnProcessor2_0` by other products."""

    def __init__(self, usual: Any, pairs: int) -> None:
        self.usual, self.pairs = usual, pairs

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        texts: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """B,L,C of what asks and B,M,D of what is asked (None: itself) -> B,L,C.

        Where what is asked is ``texts[rows]``, N,M,D and B int64, each of the N texts is projected once.
        """
        asked = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        large = hidden_states.shape[1] * asked.shape[1] > self.pairs
        if attention_mask is not None or hidden_states.ndim != 3 or large:
            return self.usual(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        shared = texts is not None and encoder_hidden_states is not None
        asked = texts if shared else asked
        query, key, value = attn.to_q(hidden_states), attn.to_k(asked), attn.to_v(asked)
        if shared:
            key, value = key[rows], value[rows]
        found = attended(*(attn.head_to_batch_dim(each) for each in (query, key, value)), attn.scale)
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(found)))


def attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """softmax(scale * query key') value, for query B,L,d, key and value B,M,d: B,L,d.

    Libraries are several times slower at products whose result is as narrow as a head than at the same turned over,
    so each of them is made as d,L or d,M.
    """
    return _function().apply(query, key, value, scale)


@cache
def _function() -> Any:
    """Here, so that nothing loads torch before it is needed."""
    import torch
    from torch.autograd.function import once_differentiable

    class Attended(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
        ) -> torch.Tensor:
            scores = query.new_empty(len(query), query.shape[1], key.shape[1])  # B,L,M; not read, since beta is 0
            weights = torch.baddbmm(scores, query, key.mT, beta=0, alpha=scale).softmax(-1)
            ctx.save_for_backward(query, key, value, weights)
            ctx.scale = scale
            return torch.bmm(value.mT, weights.mT).mT

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            query, key, value, weights = ctx.saved_tensors
            of_value = torch.bmm(grad.mT, weights).mT
            of_weights = torch.bmm(grad, value.mT)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(ctx.scale)
            of_query, of_key = torch.bmm(key.mT, of_scores.mT).mT, torch.bmm(query.mT, of_scores).mT
            return of_query, of_key, of_value, None

    return Attended
