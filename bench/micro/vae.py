"""The VAE of the micro bundles: what it is, what it is trained on, how it is finished and saved.

diffusers' `AutoencoderKL` as in Stable Diffusion, but f = 2: 64 x 64 pictures become 4 x 32 x 32 latents. Four
channels, as diffusers' inpainting takes U-Nets with 4 or 9 input channels only; and then f = 4 keeps too little of
pictures that are all grain: of 4 x 4 patches the four best linear functions leave 24.5 dB, of 2 x 2 patches 29.0 dB
(PCA of the corpus). Pictures are N,3,H,W float in [-1, 1] unless said otherwise.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from corpus.pictures import SHAPE
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn
from torch.nn import functional

from augbench.classifiers import micro_resnet

LATENT_CHANNELS = 4
WIDTHS = (24, 48)  # one halving: f = 2
GRADIENT, LOW = 0.5, 0.5  # weights of the terms beside L1
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of micro_resnet's input
BATCH = {"cpu": 16, "cuda": 256}  # of a round trip; on a CPU larger ones leave the cache and are half as fast
BAKING_ERROR = 1e-3  # of [-1, 1]; rounding of float32


def build(widths: Sequence[int] = WIDTHS) -> AutoencoderKL:
    """An untrained VAE. ``scaling_factor`` is 1: `bake` makes that true."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,  # over 32 x 32 places it would cost more than all else
        sample_size=SHAPE[0],
        scaling_factor=1.0,
        force_upcast=False,
    )


def to_pixels(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 of the same shape, rounded as diffusers' pipelines round."""
    return ((pictures.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def from_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 to float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


@torch.inference_mode()
def encode(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """N,3,H,W uint8 -> the means of their latents, N,4,H/2,W/2 float32."""
    return encode_float(vae, from_pixels(pixels))


@torch.inference_mode()
def encode_float(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """The same from pictures in [-1, 1]."""
    parts = pictures.split(BATCH[pictures.device.type])
    return torch.cat([vae.encode(part).latent_dist.mode() for part in parts]).float()


@torch.inference_mode()
def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Latents -> pictures, N,3,H,W uint8."""
    return torch.cat([to_pixels(vae.decode(part).sample) for part in latents.split(BATCH[latents.device.type])])


def round_trip(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """N,3,H,W uint8 -> what the VAE makes of them, N,3,H,W uint8."""
    return decode(vae, encode(vae, pixels))


def psnr(pixels: torch.Tensor, others: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 stacks, from the mean squared error over all of them."""
    error = ((pixels.float() - others.float()) ** 2).mean().item()
    return 10 * math.log10(255**2 / max(error, 1e-9))


class Perceptual(nn.Module):
    """How different two pictures look to the shipped `micro_resnet`: LPIPS with that network and no learned weights."""

    def __init__(self) -> None:
        super().__init__()
        micro_resnet.register()
        self.net = timm.create_model(micro_resnet.NAME, pretrained=True).eval().requires_grad_(False)
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Maps N,C,h,w of the stem and the four stages, each position scaled to length 1."""
        net = self.net
        maps = [net.act1(net.bn1(net.conv1((pictures / 2 + 0.5 - self.mean) / self.std)))]
        inside = net.maxpool(maps[0])
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            inside = stage(inside)
            maps.append(inside)
        return [functional.normalize(one.float(), dim=1, eps=1e-4) for one in maps]

    def forward(self, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The mean over stages and positions of the squared distance, a scalar in [0, 4]."""
        with torch.no_grad():
            targets = self.features(wanted)
        pairs = zip(self.features(made), targets, strict=True)
        return torch.stack([((a - b) ** 2).sum(1).mean() for a, b in pairs]).mean()


def pixel_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """L1 of the pixels, of their differences to the right and below (edges), and of 4 x 4 means (shade and colour)."""

    def apart(change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return functional.l1_loss(change(made), change(wanted))

    edges = apart(lambda x: x.diff(dim=3)) + apart(lambda x: x.diff(dim=2))
    return functional.l1_loss(made, wanted) + GRADIENT * edges + LOW * apart(lambda x: functional.avg_pool2d(x, 4))


def divergence(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL divergence from the standard normal, in nats per latent value."""
    return 0.5 * (mean.float() ** 2 + logvar.float().exp() - 1 - logvar.float()).mean()


@torch.no_grad()
def bake(vae: AutoencoderKL, pixels: torch.Tensor) -> dict[str, list[float]]:
    """Give each latent channel mean 0 and deviation 1 over these pictures, and undo that before decoding.

    A change of the two 1 x 1 convolutions only, and exact: the decoded picture stays the same. Without it a U-Net has
    to cope with channels of different size, for which one ``scaling_factor`` is not enough.

    Args:
        vae: changed in place; float32.
        pixels: N,3,H,W uint8.

    Returns:
        For each channel ``mean`` and ``std`` before, and ``noise``: the deviation of the encoder's noise afterwards,
        that is, relative to the latents.
    """
    latents = encode(vae, pixels)
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    sample = from_pixels(pixels[:8])
    before = vae(sample).sample
    count = vae.config.latent_channels
    out, back = vae.quant_conv, vae.post_quant_conv
    out.weight[:count] /= std.view(-1, 1, 1, 1)
    out.bias[:count] = (out.bias[:count] - mean) / std
    out.bias[count:] -= 2 * std.log()  # the other half are log-variances
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= std.view(1, -1, 1, 1)
    error = (vae(sample).sample - before).abs().max().item()
    assert error < BAKING_ERROR, f"baking changed a picture by {error}"
    vae.register_to_config(scaling_factor=1.0)
    noise = vae.encode(sample).latent_dist.std.mean((0, 2, 3))
    return {"mean": mean.tolist(), "std": std.tolist(), "noise": noise.tolist()}


def save(vae: AutoencoderKL, folder: Path) -> None:
    """A diffusers folder: config.json and fp16 safetensors, readable by all."""
    halved = copy.deepcopy(vae).cpu().to(memory_format=torch.contiguous_format)
    for tensor in [*halved.parameters(), *halved.buffers()]:
        tensor.data = tensor.data.half()  # not .to(), which warns of a cast that does no harm here
    halved.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def load(folder: Path, device: str = "cpu") -> AutoencoderKL:
    """The saved VAE in float32, for judging: with the rounding of the file, without that of fp16 arithmetic."""
    vae = AutoencoderKL.from_pretrained(folder, dtype=torch.float32)
    return vae.to(device, memory_format=torch.channels_last).eval()


def digest(folder: Path) -> str:
    """SHA-256 of the saved weights."""
    return hashlib.sha256((folder / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()


def sheet(pixels: torch.Tensor, made: torch.Tensor, columns: int = 12, scale: int = 2) -> Image.Image:
    """Originals above what was made of them, both N,3,H,W uint8: rows of ``columns`` pairs."""
    rows = []
    for i in range(0, len(pixels) - columns + 1, columns):
        pairs = torch.cat([pixels[i : i + columns], made[i : i + columns]], 2)  # columns,3,2H,W
        framed = functional.pad(pairs, (1, 1, 1, 5))
        rows.append(torch.cat(list(framed), 2))
    whole = torch.cat(rows, 1).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.repeat(np.repeat(whole, scale, 0), scale, 1))
