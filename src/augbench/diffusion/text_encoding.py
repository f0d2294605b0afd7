"""What the U-Net is told: hidden states of the text encoder, with the clip skip that diffusers cannot do on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import nn


def tokens(pipeline: DiffusionPipeline, prompts: Sequence[str]) -> torch.Tensor:
    """N texts as diffusers tokenizes them: N,L int64 on the CPU. Check their length before (`check_prompts`)."""
    length = pipeline.text_encoder.config.max_position_embeddings
    settings = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
    return pipeline.tokenizer(list(prompts), **settings).input_ids


def encode_tokens(encoder: nn.Module, ids: torch.Tensor, clip_skip: int) -> torch.Tensor:
    """Hidden states of tokens N,L: N,L,D.

    Args:
        encoder: a `CLIPTextModel`.
        ids: on its device.
        clip_skip: which layer counts, from the end: 1 is the last, as Stable Diffusion was trained; 2 the last but one
            (as In&Out's fine-tuning), passed through the final layer norm like the last. diffusers' pipelines count
            from 0 and cannot do it with the encoders of transformers 5.6 and newer.
    """
    if clip_skip == 1:
        return encoder(ids)[0]
    inner = getattr(encoder, "text_model", encoder).encoder
    layers = inner.layers
    inner.layers = layers[: len(layers) + 1 - clip_skip]  # what comes after is not read, and need not be computed
    try:
        return encoder(ids)[0]
    finally:
        inner.layers = layers
