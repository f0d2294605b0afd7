"""Train the VAE of the micro pipelines from random weights.

    python bench/micro/train_vae.py --out FOLDER
    python bench/micro/train_vae.py --out FOLDER --images 200000 --steps 40000 --batch 256 --lr 2e-3 \\
        --mixed-precision bf16      # on a GPU, which is used if available

Writes a diffusers folder (fp16), `training.json`, and `sheet.png`: originals, each row above its reconstructions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import bundle
import timm
import torch
from accelerate import Accelerator
from corpus.images import make
from diffusers import AutoencoderKL
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchvision.transforms.functional import normalize
from torchvision.utils import make_grid, save_image
from training import about_run, batches, fit, options, tensor_of

from augbench.classifiers import micro_resnet
from augbench.core.seeds import derive_seed

SEEDS = {"training": 4, "watched": 5}  # of the corpus
WATCHED = 48  # images of the sheet and its PSNR
COVERED = 8  # one image in 8 is partly covered with gray, like the input of inpainting
GRADIENT, LOW = 0.5, 0.5  # weights of the terms beside L1
KL = 1e-5  # weight of a nat per latent value
PERCEPTUAL = 0.1  # weight of the distance of micro_resnet's features
RISE = (0.25, 0.5)  # shares of the steps between which that term ramps up: earlier, it delays colours


def augmented(pixels: torch.Tensor) -> torch.Tensor:
    """Flip, rotate by right angles, relight, and partly cover some of N,3,H,W uint8; return floats in [-1, 1]."""
    count, size, device = len(pixels), pixels.shape[-1], pixels.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, device=device) * (high - low) + low

    images = pixels.float() / 255
    for dims in ((2,), (3,)):
        images = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, images.flip(dims), images)
    images = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, images.transpose(2, 3), images)
    light = uniform(0.7, 1.25, 1, 1, 1) * uniform(0.9, 1.1, 3, 1, 1)
    images = (images * light).clamp(0, 1) * 2 - 1
    pixel = torch.arange(size, device=device)
    near, far = uniform(0, size, 2, 1), uniform(0, size, 2, 1)
    inside = (pixel >= torch.minimum(near, far)) & (pixel < torch.maximum(near, far))  # N,2,size
    box = inside[:, 0, :, None] & inside[:, 1, None, :]
    box &= (torch.arange(count, device=device) % COVERED == 0).view(-1, 1, 1)
    return images.masked_fill(box[:, None], 0.0)


def perceptual_loss(net: nn.Module, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Compute LPIPS without learned weights: the squared distance of feature maps, normalised at each position."""
    both = normalize(torch.cat([made, wanted]) / 2 + 0.5, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    pairs = [functional.normalize(maps.float(), dim=1, eps=1e-4).chunk(2) for maps in net(both)]
    return torch.stack([((a - b) ** 2).sum(1).mean() for a, b in pairs]).mean()


def pixel_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Sum L1 of the pixels, of their differences to the right and below (edges), and of 4 x 4 means (colour)."""

    def apart(change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return functional.l1_loss(change(made), change(wanted))

    edges = apart(lambda x: x.diff(dim=3)) + apart(lambda x: x.diff(dim=2))
    return functional.l1_loss(made, wanted) + GRADIENT * edges + LOW * apart(lambda x: functional.avg_pool2d(x, 4))


@torch.no_grad()
def bake(vae: AutoencoderKL, pixels: torch.Tensor) -> dict[str, list[float]]:
    """Normalise each latent channel to mean 0 and deviation 1 over these images, and invert that before decoding.

    Changes only the two 1 x 1 convolutions, exactly: decoded images stay the same. Otherwise a U-Net has to handle
    channels of different scales, for which a single ``scaling_factor`` is not enough.

    Changes a VAE in float32 in place. Returns ``mean`` and ``std`` of each channel before.
    """
    latents = bundle.encode(vae, bundle.from_pixels(pixels))
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    count = len(mean)
    out, back = vae.quant_conv, vae.post_quant_conv
    out.weight[:count] /= std.view(-1, 1, 1, 1)
    out.bias[:count] = (out.bias[:count] - mean) / std
    out.bias[count:] -= 2 * std.log()  # the other half are log-variances
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= std.view(1, -1, 1, 1)
    return {"mean": mean.tolist(), "std": std.tolist()}


def sheet(pixels: torch.Tensor, made: torch.Tensor, path: Path, columns: int = 12) -> None:
    """Draw rows of originals, each above its reconstructions; both N,3,H,W uint8."""
    rows = [torch.cat(pair) for pair in zip(pixels.split(columns), made.split(columns), strict=True)]
    save_image(make_grid(torch.cat(rows) / 255, nrow=columns), path)


def main(given: list[str] | None = None) -> None:
    """Make the corpus, train, normalise the latents, save."""
    args = options(__doc__, images=40_000, steps=6_000, batch=16, lr=1.5e-3).parse_args(given)
    torch.manual_seed(derive_seed("micro-vae", args.seed))
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    pixels = tensor_of(make(args.images, SEEDS["training"]).images)
    micro_resnet.register()  # its stem and four stages give the features of the perceptual loss
    net = timm.create_model(micro_resnet.NAME, pretrained=True, features_only=True).eval().requires_grad_(False)
    net.to(accelerator.device)
    vae = bundle.vae()

    def loss(step: int, batch: torch.Tensor) -> torch.Tensor:
        wanted = augmented(batch)
        latent = vae.encode(wanted).latent_dist
        made = vae.decode(latent.sample()).sample.float()
        kl = latent.kl().mean() / latent.mean[0].numel()
        risen = min(max((step / args.steps - RISE[0]) / (RISE[1] - RISE[0]), 0.0), 1.0)
        perceptual = perceptual_loss(net, made, wanted) if risen else 0.0
        return pixel_loss(made, wanted) + KL * kl + PERCEPTUAL * risen * perceptual

    loader = batches(TensorDataset(pixels), args.batch, args.steps)
    seconds = fit(accelerator, vae, loader, loss, lr=args.lr, warm_up=100, weight_decay=1e-3, ema=0.999)

    about = about_run(args, seconds, accelerator.device) | {"kl": KL, "perceptual": PERCEPTUAL}
    about["latents"] = bake(vae.eval(), pixels[:4096])
    vae.half().save_pretrained(args.out)
    watched = tensor_of(make(WATCHED, SEEDS["watched"]).images)
    made = bundle.round_trip(bundle.load_vae(args.out, accelerator.device), watched)
    about["psnr"] = peak_signal_noise_ratio(made.float(), watched.float(), data_range=255.0).item()
    sheet(watched, made, args.out / "sheet.png")
    (args.out / "training.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(about))


if __name__ == "__main__":
    main()
