"""Muon: momentum whose matrices are made orthogonal before they are added (K. Jordan et al., 2024).

A step moves every direction of a matrix alike, where Adam's follows the few that have large gradients. Convolutions
count as matrices of out x (in * height * width). Steps are scaled to the size of Adam's (Liu et al., 2025, "Muon is
scalable for LLM training"), so that one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration in the reference implementation
ITERATIONS = 5
ADAM_SIZE = 0.2  # root mean square of Adam's steps, in learning rates


class Muon(Optimizer):
    """For weights of two dimensions or more; what has fewer, embeddings, first and last layers are left to Adam."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One update; matrices of one shape are made orthogonal together."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    alike.setdefault((weight.shape[0], weight[0].numel()), []).append(weight)
            for shape, weights in alike.items():
                moves = []
                for weight in weights:
                    state = self.state[weight]
                    kept = state.setdefault("momentum", torch.zeros_like(weight))
                    kept.lerp_(weight.grad, 1 - group["momentum"])
                    moves.append(weight.grad.lerp(kept, group["momentum"]).reshape(shape))
                size = group["lr"] * ADAM_SIZE * max(shape) ** 0.5
                for weight, move in zip(weights, orthogonal(torch.stack(moves)), strict=True):
                    weight.sub_(move.reshape(weight.shape), alpha=size)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest matrices whose singular values are all near one, N,R,C float32; computed in bf16."""
    a, b, c = COEFFICIENTS
    found = matrices.bfloat16()
    tall = found.shape[1] > found.shape[2]
    found = found.mT if tall else found
    found = found / (found.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = found @ found.mT
        found = a * found + (b * square + c * (square @ square)) @ found
    return (found.mT if tall else found).float()


def matrices(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that Muon is for: not embeddings, not the layers where pictures come in and go out."""
    return [
        parameter
        for name, parameter in module.named_parameters()
        if parameter.ndim >= 2
        and not name.removesuffix(".weight").endswith(("embedding", "conv_in", "conv_out"))
        and parameter.requires_grad
    ]
