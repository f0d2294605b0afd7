"""Count the bytes of tensors alive at once on the meta device: what `augbench.planning.gpu_memory` rests on.

    python bench/gpu_memory.py

No memory and no GPU is needed: the meta device runs an architecture without data. Casts are those of autocast on
CUDA, attention is that of a fused kernel, which holds no matrix of N x N. Not counted: the workspace of cuDNN, what the
allocator loses to fragments, and the CUDA context.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import timm
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from inpaint import SDXL
from peft import LoraConfig
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from augbench.classifiers import micro_resnet
from augbench.diffusion.lora import LoraShape
from augbench.planning.gpu_memory import BACKBONES

GIB = 2**30
SD: dict[str, dict[str, Any]] = {  # the configuration of Stable Diffusion 1.5, where it differs from the default
    "unet": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    },
    "vae": {**SDXL["vae"], "sample_size": 512, "force_upcast": False},
    "text_encoder": SDXL["text_encoder"],
}


class Alive(TorchDispatchMode):
    """Track the bytes of the storages that are alive; ``peak`` is the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs or {})):  # views of weights are no new bytes
            if isinstance(value, torch.Tensor):
                self.seen.add(value.untyped_storage())
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._note(value)
        return result

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self.seen:
            self.seen.add(storage)
            weakref.finalize(storage, self._free, storage.nbytes())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _free(self, size: int) -> None:
        self.now -= size


class Attention(torch.autograd.Function):
    """Stand-in for a fused kernel, which keeps its inputs and its result."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of the result."""
        result = query.new_empty(query.shape)
        ctx.save_for_backward(query, key, value, result)
        return result

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return tensors of the shape of the gradients."""
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def casting(name: str, to: torch.dtype) -> Callable:
    """Return a function of `torch.nn.functional` that casts its inputs first."""
    function = getattr(functional, name)

    def cast(value: Any) -> Any:
        return value.to(to) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return lambda *args, **kwargs: function(*map(cast, args), **{key: cast(value) for key, value in kwargs.items()})


def as_on_cuda(autocast: torch.dtype | None) -> dict[str, Callable]:
    """Return replacements in `torch.nn.functional`: fused attention, and the casts of autocast."""
    found: dict[str, Callable] = {"scaled_dot_product_attention": lambda q, k, v, *_, **__: Attention.apply(q, k, v)}
    if autocast is not None:
        found |= {name: casting(name, autocast) for name in ("linear", "conv2d")}
        found |= {name: casting(name, torch.float32) for name in ("group_norm", "layer_norm")}
    return found


def peak(work: Callable[[], Any], autocast: torch.dtype | None = None) -> float:
    """Return the most GiB that the work holds at once, besides what existed before."""
    with mock.patch.multiple(functional, **as_on_cuda(autocast)), Alive() as alive:
        work()
    return alive.peak / GIB


def parameters(module: nn.Module) -> int:
    """Count the parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def forward(module: Callable, *args: Any, **options: Any) -> Callable[[], Any]:
    """Return a forward pass without gradients."""
    return torch.no_grad()(lambda: module(*args, **options))


def modules(config: dict[str, dict[str, Any]]) -> tuple[UNet2DConditionModel, AutoencoderKL, list[nn.Module]]:
    """Return U-Net, VAE and text encoders of a pipeline on the meta device."""
    with torch.device("meta"):
        texts = [CLIPTextModel(CLIPTextConfig(**config["text_encoder"]))]
        if "text_encoder_2" in config:
            texts.append(CLIPTextModelWithProjection(CLIPTextConfig(**config["text_encoder_2"])))
        return UNet2DConditionModel(**config["unet"]), AutoencoderKL(**config["vae"]), texts


def denoising(unet: UNet2DConditionModel, batch: int) -> dict[str, Any]:
    """Return inputs of a U-Net at its own size."""
    config, size = unet.config, unet.config.sample_size

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(batch, *shape, dtype=unet.dtype, device="meta")

    inputs = {"sample": empty(config.in_channels, size, size), "timestep": empty()}
    inputs["encoder_hidden_states"] = empty(77, config.cross_attention_dim)
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        inputs["added_cond_kwargs"] = {"text_embeds": empty(width), "time_ids": empty(6)}
    return inputs


def step(unet: UNet2DConditionModel, batch: int) -> Callable[[], Any]:
    """Return a training step's forward and backward pass."""
    inputs = denoising(unet, batch)
    return lambda: torch.autograd.backward(unet(**inputs, return_dict=False)[0].float().square().mean())


def report_pipeline(name: str, config: dict[str, dict[str, Any]]) -> None:
    """Print the figures of a pipeline in fp16, per image."""
    unet, vae, texts = modules(config)
    print(f"{name}: unet {parameters(unet):,}, vae {parameters(vae):,}, text {sum(map(parameters, texts)):,}")
    unet, vae = unet.half(), vae.half()
    side, latent = config["vae"]["sample_size"], config["unet"]["sample_size"]
    shapes = (2, 4, latent, latent), (2, 3, side, side)
    latents, images = (torch.empty(shape, dtype=torch.float16, device="meta") for shape in shapes)
    passes = forward(unet, **denoising(unet, 2)), forward(vae.decode, latents), forward(vae.encode, images)
    print("  denoise {:.3f}, decode {:.3f}, encode {:.3f}".format(*(peak(one) / 2 for one in passes)))
    if name == "sd":  # no augmenter trains the other
        report_training(unet)


def report_training(unet: UNet2DConditionModel) -> None:
    """Print the figures of a training of LoRA matrices, per image, with and without checkpointing, and in fp32."""
    unet.requires_grad_(False)
    main, convolutions = LoraShape().layers("unet", unet)
    ranks = dict.fromkeys(convolutions, LoraShape().conv_rank)
    unet.add_adapter(LoraConfig(r=LoraShape().rank, target_modules=main + convolutions, rank_pattern=ranks))
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    unet.train()
    for name, dtype in (("fp16", torch.float16), ("fp32", None)):
        unet.to(dtype or torch.float32)
        for saves in (False, True):
            unet.enable_gradient_checkpointing() if saves else unet.disable_gradient_checkpointing()
            one, three = (peak(step(unet, n), dtype) for n in (1, 3))
            print(f"  step, checkpointing {saves}, {name}: {(three - one) / 2:.3f} and {one - (three - one) / 2:.3f}")
    print(f"  trained {sum(parameter.numel() for parameter in trained):,}")


def of_backbone(name: str) -> list[float]:
    """Return GiB per image of 224 x 224: forward and backward in fp32 and under autocast in bf16, forward alone."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=1, **({"img_size": 224} if name.startswith("vit") else {}))
        found = []
        for n in (8, 16):
            images = torch.empty(n, 3, 224, 224)

            def backward(images: torch.Tensor = images) -> None:
                model.zero_grad(set_to_none=True)
                torch.autograd.backward(model(images).mean())

            found.append([peak(backward), peak(backward, torch.bfloat16), peak(forward(model, images))])
    return [(more - less) / 8 for less, more in zip(*found, strict=True)]


def main() -> None:
    """Print all figures, in GiB."""
    report_pipeline("sd", SD)
    report_pipeline("sdxl-inpaint", SDXL)
    micro_resnet.register()
    for name in BACKBONES:
        print(f"{name}: {', '.join(f'{gib:.4f}' for gib in of_backbone(name))}")


if __name__ == "__main__":
    main()
