"""Repeatable arithmetic of torch: deterministic algorithms, and TF32 only where it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from augbench.core.errors import UserError

TF32_FROM = (8, 0)  # compute capability of the first GPUs with TF32


@contextmanager
def deterministic(device: str, precision: str = "fp32", strict: bool = False) -> Iterator[None]:
    """Compute with deterministic algorithms, and in TF32 if that is the precision, never otherwise.

    PyTorch's own default computes convolutions in TF32: their inputs then have 10 bits of mantissa instead of 23.

    Args:
        device: "cpu" or "cuda".
        precision: fp32, tf32, bf16 or fp16; the caller chooses weights and autocast.
        strict: operations without a deterministic algorithm raise instead of warn. Only so are the gradients of
            attention deterministic.

    Raises:
        UserError: tf32 on a device that does not have it.
    """
    import torch

    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at the first matrix product
    if precision == "tf32" and (device == "cpu" or torch.cuda.get_device_capability(device) < TF32_FROM):
        raise UserError("precision tf32 needs a GPU that has it (compute capability 8.0 or newer): set it to fp32")
    backends: tuple[Any, Any] = torch.backends.cuda.matmul, torch.backends.cudnn  # torch types no attributes of these
    tf32 = [backend.allow_tf32 for backend in backends]
    enabled = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    for backend in backends:
        backend.allow_tf32 = precision == "tf32"
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    try:
        yield
    finally:
        for backend, before in zip(backends, tf32, strict=True):
            backend.allow_tf32 = before
        torch.use_deterministic_algorithms(enabled, warn_only=warned)
