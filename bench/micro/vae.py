"""The VAE of the micro bundles: what it is, and what is done with a finished one.

diffusers' `AutoencoderKL` as in Stable Diffusion, but f = 2: 64 x 64 images become 4 x 32 x 32 latents. Four channels,
as diffusers' inpainting takes U-Nets with 4 or 9 input channels only; and then f = 4 keeps too little of images that
are all grain: of 4 x 4 patches the four best linear functions leave 24.5 dB, of 2 x 2 patches 29.0 dB (PCA of the
corpus). Images are N,3,H,W, uint8 or float in [-1, 1].
"""

from __future__ import annotations

from pathlib import Path

import torch
from corpus.pictures import SHAPE
from diffusers import AutoencoderKL

LATENT_CHANNELS = 4
WIDTHS = (24, 48)  # one halving: f = 2
BATCH = 64  # of a round trip


def build() -> AutoencoderKL:
    """Make an untrained VAE. Its ``scaling_factor`` is 1: train_vae.py normalises the latents in the weights."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(WIDTHS),
        up_block_types=["UpDecoderBlock2D"] * len(WIDTHS),
        block_out_channels=WIDTHS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,  # over 32 x 32 places it would cost more than all else
        sample_size=SHAPE[0],
        scaling_factor=1.0,
        force_upcast=False,
    )


def load(folder: Path, device: torch.device | str = "cpu") -> AutoencoderKL:
    """Load a saved VAE in float32: with the rounding of the file, without that of fp16 arithmetic."""
    return AutoencoderKL.from_pretrained(folder, dtype=torch.float32).to(device).eval()


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """Convert float to uint8, rounded as diffusers' pipelines round."""
    return ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def from_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """Convert uint8 to float32."""
    return pixels.float() / 127.5 - 1


@torch.inference_mode()
def encode(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Encode float images, N,3,H,W, as the means of their latents, N,4,H/2,W/2 float32."""
    return torch.cat([vae.encode(part.to(vae.device)).latent_dist.mode() for part in images.split(BATCH)]).float()


@torch.inference_mode()
def round_trip(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Encode and decode N,3,H,W uint8; returns the same, on the CPU."""
    parts = [vae.decode(encode(vae, from_pixels(part))).sample for part in pixels.split(BATCH)]
    return torch.cat([to_pixels(part).cpu() for part in parts])
