"""Products of fp32 matrices on a CPU, by oneDNN.

PyTorch computes a linear layer by its BLAS, and a 1 x 1 convolution of a small batch on one thread, too. Where that
BLAS is MKL and the processor AMD's, oneDNN, which computes all other convolutions, takes half the time; on other
processors it was not measured. The sums are the same but for their order. `bench/finetune.py` shows what a step gains.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x ...,I and a weight O,I, in any layout -> ...,O. It has no gradient."""
    import torch

    if not by_onednn():
        return torch.nn.functional.linear(x, weight, bias)
    return _by_onednn(x, weight, bias)


def pointwise(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x N,I,H,W and a weight O,I,1,1 -> N,O,H,W."""
    import torch

    return torch.nn.functional.conv2d(x, weight, bias, dilation=_dilation())


def of_pointwise(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """The gradient of `pointwise`'s weight, O,I, from x N,I,H,W and the gradient of what was made, N,O,H,W."""
    import torch

    weight = grad.new_empty(grad.shape[1], x.shape[1], 1, 1)  # of it the shape alone is read
    _, of_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, (1, 1), (0, 0), _dilation(), False, (0, 0), 1, (False, True, False)
    )
    return of_weight.flatten(1)


def _dilation() -> tuple[int, int]:
    """Nothing to a kernel of one place; but where PyTorch has oneDNN it leaves dilated convolutions to it."""
    return (2, 2) if by_onednn() else (1, 1)


@cache
def by_onednn() -> bool:
    """Whether PyTorch can be asked for it: on x86, where it was measured, and if the operation is what it was.

    It is made for PyTorch's compiler, and promised to nobody else. Where it is gone linear layers are PyTorch's.
    """
    import torch

    if platform.machine().lower() not in {"x86_64", "amd64"} or not torch.backends.mkldnn.is_available():
        return False
    small = torch.arange(6.0).view(2, 3)
    try:
        found = _by_onednn(small, small, torch.ones(2))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, torch.tensor([[6.0, 15.0], [15.0, 51.0]]))


def _by_onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    import torch

    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
