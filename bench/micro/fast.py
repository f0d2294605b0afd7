"""A group norm that is quick where PyTorch's is slow: in training on a CPU, with channels last.

It is the same function by other sums, and its weights fit the ordinary module. In bf16 it takes 0.4 of the time.
"""

from __future__ import annotations

import torch
from torch import nn


class GroupNorm(nn.GroupNorm):
    """For channels_last in training, where PyTorch walks over each group alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N,C,H,W; other layouts go the ordinary way."""
        if x.ndim == 4 and x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            return _Normalised.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(x)


def speed_up(module: nn.Module) -> nn.Module:
    """Let every group norm inside take the fast way."""
    for part in module.modules():
        if type(part) is nn.GroupNorm:
            part.__class__ = GroupNorm
    return module


class _Normalised(torch.autograd.Function):
    """Sums over places first, per channel, then over the channels of a group; sums in fp32."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps):
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        count, channels, height, width = x.shape
        flat = x.permute(0, 2, 3, 1).reshape(count, height * width, channels)
        each = height * width * channels // groups
        mean = _grouped(flat.sum(1, dtype=torch.float32), groups) / each
        power = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float32).square()
        spread = (_grouped(power, groups) / each - mean**2).clamp_min(0)
        mean, scale = (_spread(part, channels) for part in (mean, (spread + eps).rsqrt()))
        factor = scale * weight
        made = torch.addcmul((bias - mean * factor)[:, None].to(x.dtype), flat, factor[:, None].to(x.dtype))
        ctx.save_for_backward(flat, weight, mean, scale)
        ctx.shape, ctx.groups, ctx.each = x.shape, groups, each
        return made.view(count, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad):
        flat, weight, mean, scale = ctx.saved_tensors
        count, channels, height, width = ctx.shape
        grad = grad.permute(0, 2, 3, 1).reshape(flat.shape)
        of_bias = grad.sum(1, dtype=torch.float32)
        of_weight = ((grad * flat).sum(1, dtype=torch.float32) - mean * of_bias) * scale
        along, turned = (
            _spread(_grouped(part * weight, ctx.groups), channels) / ctx.each for part in (of_bias, of_weight)
        )
        constant = scale * (scale * turned * mean - along)
        factors = [part[:, None].to(flat.dtype) for part in (constant, -(scale**2) * turned, scale * weight)]
        made = torch.addcmul(torch.addcmul(factors[0], flat, factors[1]), grad, factors[2])
        made = made.view(count, height, width, channels).permute(0, 3, 1, 2)
        return made, of_weight.sum(0), of_bias.sum(0), None, None


def _grouped(by_channel: torch.Tensor, groups: int) -> torch.Tensor:
    """N,C -> sums N,groups."""
    return by_channel.view(len(by_channel), groups, -1).sum(2)


def _spread(by_group: torch.Tensor, channels: int) -> torch.Tensor:
    """N,groups -> N,C."""
    return by_group.repeat_interleave(channels // by_group.shape[1], 1)
