"""LoRA layers with one product instead of three, for training on a CPU in fp32.

peft computes ``W x + scale * up (down x)``: a second, narrow convolution, a third, and two more passes over the output,
and as much again backwards. Here the layer is computed once, with ``W + scale * up down``, and the gradients of the
matrices are taken by the cheaper of two ways: through the gradient of the whole weight, or through narrow products that
never make it. It is the same function by other sums.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from itertools import product as pairs
from typing import TYPE_CHECKING, Any

from augbench.diffusion import products

if TYPE_CHECKING:
    import torch
    from torch import nn

KEPT = 1_000_000  # weights of a layer: up to here the sum is kept for the way back, above it is made again


def forwards(model: nn.Module, adapter: str) -> list[tuple[nn.Module, Callable[..., torch.Tensor]]]:
    """The layers of ``model`` that peft wrapped and that can be computed at once, each with what computes it.

    Modules of diffusers that double a picture before such a layer are among them.
    """
    from diffusers.models.upsampling import Upsample2D
    from peft.tuners.lora import Conv2d, Linear

    found: list[tuple[nn.Module, Callable[..., torch.Tensor]]] = []
    for layer in model.modules():
        if type(layer) is Linear and _plain(layer, adapter):
            found.append((layer, partial(_linear, layer, adapter)))
        elif type(layer) is Conv2d and _plain(layer, adapter) and _usual(layer.get_base_layer()):
            found.append((layer, partial(_convolved, layer, adapter)))
    known = {layer for layer, _ in found}
    for module in model.modules():
        if type(module) is Upsample2D and module.interpolate and module.norm is None and module.name == "conv":
            base = module.conv.get_base_layer() if module.conv in known else None
            if base is not None and (base.kernel_size, base.padding, base.stride) == ((3, 3), (1, 1), (1, 1)):
                found.append((module, partial(_doubled, module, adapter)))
    return found


def _is_pointwise(weight: torch.Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> bool:
    return weight.shape[2:] == (1, 1) and stride == (1, 1) and padding == (0, 0)


def _usual(base: nn.Conv2d) -> bool:
    zeros = base.padding_mode == "zeros" and not isinstance(base.padding, str)
    return base.groups == 1 and base.dilation == (1, 1) and zeros


def _plain(layer: Any, adapter: str) -> bool:
    """Nothing between the matrices, nothing but them, and all in fp32."""
    import torch

    parts = [part[adapter].weight for part in (layer.lora_A, layer.lora_B) if adapter in part]
    return (
        layer.active_adapters == [adapter]
        and len(parts) == 2
        and all(weight.dtype == torch.float32 for weight in (*parts, layer.get_base_layer().weight))
        and isinstance(layer.lora_dropout[adapter], torch.nn.Identity)
        and not layer.use_dora[adapter]
        and layer.lora_B[adapter].bias is None
    )


def _linear(layer: Any, adapter: str, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    base, down, up = layer.get_base_layer(), layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    return _functions()[0].apply(x, base.weight, base.bias, down, up, layer.scaling[adapter])


def _convolved(layer: Any, adapter: str, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    base, down, up = layer.get_base_layer(), layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    return _functions()[1].apply(x, base.weight, base.bias, down, up, layer.scaling[adapter], base.stride, base.padding)


def _doubled(module: Any, adapter: str, x: torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
    if size is not None:  # not always twice its own
        return type(module).forward(module, x, size)
    layer = module.conv
    base, down, up = layer.get_base_layer(), layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    return _functions()[2].apply(x, base.weight, base.bias, down, up, layer.scaling[adapter])


@cache
def _doubling() -> torch.Tensor:
    """9,16: a kernel of 3 x 3 on a picture whose places are doubled -> what 4 x 4 half places of the picture weigh."""
    import torch

    rows = torch.eye(3, 4) + torch.eye(3, 4).roll(1, 1)
    return torch.kron(rows, rows)


def joined(weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float) -> torch.Tensor:
    """``weight + scale * up down``; convolutions are O,I,k,k with ``down`` r,I,k,k and ``up`` O,r,1,1."""
    import torch

    return torch.addmm(weight.flatten(1), up.flatten(1), down.flatten(1), alpha=scale).view(weight.shape)


def narrow_pays(rank: int, area: int, outputs: int, inputs: int) -> bool:
    """Whether narrow products cost less than the gradient of the whole weight; ``area`` is that of the kernel."""
    return 2 * rank * (area * inputs + outputs) < area * inputs * outputs


@cache
def _functions() -> tuple[Any, Any, Any]:
    """For linear layers, convolutions, those of doubled pictures; here, so that nothing loads torch before it must."""
    import torch
    from torch.autograd.function import once_differentiable
    from torch.nn import functional

    def remember(ctx: Any, x: torch.Tensor, weight: torch.Tensor, whole: torch.Tensor, *matrices: torch.Tensor) -> None:
        """Of a large model a second copy of all weights would not fit."""
        ctx.whole = weight.numel() <= KEPT
        ctx.save_for_backward(x, whole if ctx.whole else weight, *matrices)

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return products.linear(left, right.mT)

    class Linear(torch.autograd.Function):
        """x ...,I and a weight O,I."""

        @staticmethod
        def forward(
            ctx: Any,
            x: torch.Tensor,
            weight: torch.Tensor,
            bias: torch.Tensor | None,
            down: torch.Tensor,
            up: torch.Tensor,
            scale: float,
        ) -> torch.Tensor:
            whole = joined(weight, down, up, scale)
            remember(ctx, x, weight, whole, down, up)
            ctx.scale = scale
            return products.linear(x, whole, bias)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            x, whole, down, up = ctx.saved_tensors
            towards, shape = None, x.shape
            grad, x = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
            if ctx.needs_input_grad[0]:
                towards = product(grad, whole if ctx.whole else joined(whole, down, up, ctx.scale)).view(shape)
            if narrow_pays(len(down), 1, *whole.shape):
                of_down, of_up = product(product(grad, up).mT, x), product(grad.mT, product(x, down.mT))
            else:
                of_whole = product(grad.mT, x)
                of_down, of_up = up.mT @ of_whole, of_whole @ down.mT
            return towards, None, None, of_down.mul_(ctx.scale), of_up.mul_(ctx.scale), None

    class Convolution(torch.autograd.Function):
        """x N,I,H,W and a weight O,I,k,k."""

        @staticmethod
        def forward(
            ctx: Any,
            x: torch.Tensor,
            weight: torch.Tensor,
            bias: torch.Tensor | None,
            down: torch.Tensor,
            up: torch.Tensor,
            scale: float,
            stride: tuple[int, int],
            padding: tuple[int, int],
        ) -> torch.Tensor:
            whole = joined(weight, down, up, scale)
            remember(ctx, x, weight, whole, down, up)
            ctx.scale, ctx.stride, ctx.padding = scale, stride, padding
            if _is_pointwise(whole, stride, padding):
                return products.pointwise(x, whole, bias)
            return functional.conv2d(x, whole, bias, stride, padding)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            x, whole, down, up = ctx.saved_tensors
            if not ctx.whole:
                whole = joined(whole, down, up, ctx.scale)
            outputs, inputs, *kernel = whole.shape
            same = ctx.stride == (1, 1) and all(2 * p + 1 == k for p, k in zip(ctx.padding, kernel, strict=True))
            narrow = same and narrow_pays(len(down), kernel[0] * kernel[1], outputs, inputs)
            wanted = (ctx.needs_input_grad[0], not narrow, False)
            grad = grad.contiguous()
            if _is_pointwise(whole, ctx.stride, ctx.padding):
                towards = products.pointwise(grad, whole.transpose(0, 1)) if wanted[0] else None
                of_whole = None if narrow else products.of_pointwise(x, grad)
            else:
                towards, of_whole, _ = torch.ops.aten.convolution_backward(
                    grad, x, whole, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, wanted
                )
            if narrow:
                of_down, of_up = narrowly(x, grad, down, up, ctx.padding, 1)
            else:
                of_whole = of_whole.flatten(1)
                of_down, of_up = up.flatten(1).mT @ of_whole, of_whole @ down.flatten(1).mT
            of_down, of_up = of_down.view(down.shape).mul_(ctx.scale), of_up.view(up.shape).mul_(ctx.scale)
            return towards, None, None, of_down, of_up, None, None, None

    class Doubled(torch.autograd.Function):
        """x N,I,H,W, each place of it doubled in both directions, and a weight O,I,3,3.

        A 3 x 3 of doubled places holds 2 x 2 that differ: of 36 products for a place 16 are left.
        """

        @staticmethod
        def forward(
            ctx: Any,
            x: torch.Tensor,
            weight: torch.Tensor,
            bias: torch.Tensor | None,
            down: torch.Tensor,
            up: torch.Tensor,
            scale: float,
        ) -> torch.Tensor:
            whole = joined(weight, down, up, scale)
            remember(ctx, x, weight, whole, down, up)
            ctx.scale = scale
            wide, framed = doubled(whole), functional.pad(x, (1, 1, 1, 1))
            (count, _, height, width), outputs = x.shape, len(weight)
            made = x.new_empty(count, outputs, 2 * height, 2 * width)
            for i, j in pairs((0, 1), (0, 1)):
                own = framed[:, :, i : i + height + 1, j : j + width + 1]
                made[:, :, i::2, j::2] = functional.conv2d(own, wide[:, :, i::2, j::2], bias)
            return made

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            x, whole, down, up = ctx.saved_tensors
            towards, grad = None, grad.contiguous()
            if ctx.needs_input_grad[0]:
                wide = doubled(whole if ctx.whole else joined(whole, down, up, ctx.scale))
                towards = functional.conv2d(grad, wide.flip(2, 3).transpose(0, 1), stride=2, padding=1)
            of_wide, of_up = narrowly(x, grad, doubled(down), up, (1, 1), 2)
            of_down = (of_wide.flatten(2) @ _doubling().mT).view(down.shape)
            return towards, None, None, of_down.mul_(ctx.scale), of_up.view(up.shape).mul_(ctx.scale), None

    def doubled(weight: torch.Tensor) -> torch.Tensor:
        """O,I,3,3 -> O,I,4,4."""
        return (weight.flatten(2) @ _doubling()).view(*weight.shape[:2], 4, 4)

    def narrowly(
        x: torch.Tensor,
        grad: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
        padding: tuple[int, int],
        stride: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of ``down`` r,I,k,k and ``up``, without the scale.

        A place of x adds to the k x k places around it, which lie ``stride`` times as dense. A convolution to so few
        channels would be computed for 16 of them. So the k x k are laid side by side, as channels: matrix products do
        the rest.
        """
        rank, inputs, *kernel = down.shape
        count, size, shape = len(x), grad.shape[2:], {"kernel_size": kernel, "padding": padding, "stride": stride}
        spread = down.flip(2, 3).permute(0, 2, 3, 1).reshape(1, -1, inputs)  # seen from x the kernel is turned over
        x, grad = x.reshape(count, inputs, -1), grad.view(count, grad.shape[1], -1)  # N,I,HW and N,O,hw
        back = torch.bmm(up.flatten(1).mT.expand(count, -1, -1), grad)  # N,r,hw
        around = functional.unfold(back.view(count, rank, *size), **shape)  # N,r*k*k,HW
        of_spread = torch.bmm(around, x.mT).sum(0).view(rank, *kernel, inputs)
        apart = torch.bmm(spread.expand(count, -1, -1), x)  # N,r*k*k,HW
        low = functional.fold(apart, size, **shape).flatten(2)  # N,r,hw
        of_down = of_spread.flip(1, 2).permute(0, 3, 1, 2).contiguous()
        return of_down, torch.bmm(grad, low.mT).sum(0)

    return Linear, Convolution, Doubled
