"""How attention is computed while a bundle is trained."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

PLACES = 1024  # of a latent, height x width: up to here all products fit into little memory


def for_training(device: str, places: int) -> AbstractContextManager:
    """Plain matrix products on a CPU, where the backward pass of PyTorch's fused attention is slow for narrow heads.

    Args:
        device: type of the device, e.g. "cpu".
        places: of a latent, height x width; plain products of large ones would take too much memory.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" and places <= PLACES else nullcontext()
