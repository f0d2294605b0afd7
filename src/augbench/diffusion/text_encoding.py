"""Encode prompts as hidden states of the text encoder, with the clip skip that diffusers does not support."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import nn


def tokens(pipeline: DiffusionPipeline, prompts: Sequence[str]) -> torch.Tensor:
    """Tokenize N prompts as diffusers does: N,L int64 on the CPU. Truncates: call `check_prompts` before."""
    length = pipeline.text_encoder.config.max_position_embeddings
    settings = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
    return pipeline.tokenizer(list(prompts), **settings).input_ids


def encode_tokens(encoder: nn.Module, ids: torch.Tensor, clip_skip: int) -> torch.Tensor:
    """Encode tokens N,L as hidden states N,L,D.

    Args:
        encoder: a `CLIPTextModel`.
        ids: on the encoder's device.
        clip_skip: layer, counted from the end: 1 is the last, as Stable Diffusion was trained; 2 the last but one (as
            In&Out's fine-tuning), also passed through the final layer norm. diffusers' pipelines count from 0 and do
            not support it with the encoders of transformers 5.6 and newer.
    """
    if clip_skip == 1:
        return encoder(ids)[0]
    inner = getattr(encoder, "text_model", encoder).encoder
    layers = inner.layers
    inner.layers = layers[: len(layers) + 1 - clip_skip]  # later layers are not used, so they need not be computed
    try:
        return encoder(ids)[0]
    finally:
        inner.layers = layers
