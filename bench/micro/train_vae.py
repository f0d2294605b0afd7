"""Makes the VAE of the micro bundles from nothing.

    python bench/micro/train_vae.py --out FOLDER                  # two CPU threads, half an hour
    python bench/micro/train_vae.py --out FOLDER --preset gpu     # a GPU
    python bench/micro/train_vae.py --out FOLDER --resume         # goes on from the last checkpoint, same result
    python bench/micro/train_vae.py --out FOLDER --minutes 30     # as many steps as these minutes allow
    python bench/micro/train_vae.py --out FOLDER --session 9      # save and stop after 9 minutes; go on with --resume

Writes a diffusers folder (fp16) with `sheet.png` (originals above reconstructions) and `training.json` beside it in
FOLDER. The learning rate falls along the steps, so `--minutes` is turned into a number of steps before the first one,
by timing some on a copy: what follows depends on steps alone, never on the clock. `evaluate_vae.py` judges the result.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import torch
import vae as micro_vae
from corpus.pictures import make
from diffusers import AutoencoderKL
from torch import nn
from training import add_common, add_presets, descend, follow, parse, pixels_of, rows_of, run, set_rate, steps_in

from augbench.core.keys import canonical_json
from augbench.core.seeds import derive_seed

PRESETS = {
    "cpu": {"device": "cpu", "threads": 2, "pictures": 40_000, "steps": 6_000, "batch": 16, "lr": 1.5e-3},
    "gpu": {"device": "cuda", "threads": 8, "pictures": 200_000, "steps": 40_000, "batch": 256, "lr": 2e-3},
}
SEEDS = {"training": 4, "watched": 5}  # of the corpus
WATCHED = 64  # pictures of the PSNR in the progress lines
DECISIVE = ("pictures", "steps", "batch", "lr", "seed", "widths", "kl", "perceptual")
WARM_UP = 100  # steps
COVERED = 8  # one picture in so many is partly covered with gray, as inpainting encodes them
EMA = 0.999
RISE = (0.25, 0.5)  # shares of the steps between which the perceptual term comes in: before, it holds up colours


class Trainer(nn.Module):
    """The VAE in training, its moving average, and what the loss is made of."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.args = args
        torch.manual_seed(derive_seed("micro-vae-weights", args.seed))
        self.vae = micro_vae.build(args.widths)
        self.ema = copy.deepcopy(self.vae).requires_grad_(False)
        self.perceptual = micro_vae.Perceptual() if args.perceptual else None
        self.to(args.device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(
            self.vae.parameters(), args.lr, betas=(0.9, 0.98), weight_decay=1e-3, fused=True
        )

    def loss(self, wanted: torch.Tensor, step: int, draw: torch.Generator) -> torch.Tensor:
        """Of one batch, N,3,H,W in [-1, 1]."""
        risen = min(max((step / self.args.steps - RISE[0]) / (RISE[1] - RISE[0]), 0.0), 1.0)
        with torch.autocast(wanted.device.type, torch.bfloat16):
            latent = self.vae.encode(wanted).latent_dist
            made = self.vae.decode(latent.sample(draw)).sample
            looks = self.perceptual(made, wanted) if self.perceptual and risen else 0.0
        kl = micro_vae.divergence(latent.mean, latent.logvar)
        pixels = micro_vae.pixel_loss(made.float(), wanted)
        return pixels + self.args.kl * kl + self.args.perceptual * risen * looks

    def step(self, stock: torch.Tensor, step: int) -> torch.Tensor:
        """One update; everything random in it follows from the seed and the step. Returns the loss."""
        args = self.args
        draw = torch.Generator().manual_seed(derive_seed("micro-vae-step", args.seed, step))
        set_rate(self.optimiser, args.lr, step, args.steps, WARM_UP)
        rows = rows_of("micro-vae-order", args.seed, step, args.batch, len(stock)).to(stock.device)
        loss = self.loss(augmented(stock[rows], draw), step, draw)
        descend(loss, self.vae.parameters(), self.optimiser)
        follow(self.ema.parameters(), self.vae.parameters(), step, EMA)
        return loss.detach()


def augmented(pixels: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Mirrored, turned by right angles, in other light; some partly covered.

    Args:
        pixels: N,3,H,W uint8, H = W.
        draw: on the CPU, so that every device sees the same.

    Returns:
        N,3,H,W float32 in [-1, 1], channels_last.
    """
    count, size, device = len(pixels), pixels.shape[-1], pixels.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (torch.rand(count, *shape, generator=draw) * (high - low) + low).to(device)

    pictures = pixels.float() / 255
    for dims in ((2,), (3,)):
        pictures = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, pictures.flip(dims), pictures)
    pictures = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, pictures.transpose(2, 3), pictures)
    light = uniform(0.7, 1.25, 1, 1, 1) * uniform(0.9, 1.1, 3, 1, 1)
    pictures = (pictures * light).clamp(0, 1) * 2 - 1
    place = torch.arange(size, device=device)
    near, far = (uniform(0, size, 2, 1) for _ in range(2))
    inside = (place >= torch.minimum(near, far)) & (place < torch.maximum(near, far))  # N,2,size
    box = inside[:, 0, :, None] & inside[:, 1, None, :]
    box &= (torch.arange(count, device=device) % COVERED == 0).view(-1, 1, 1)
    return pictures.masked_fill(box[:, None], 0.0).contiguous(memory_format=torch.channels_last)


def finish(vae: AutoencoderKL, stock: torch.Tensor, watched: torch.Tensor, about: dict, out: Path) -> None:
    """Bake, save, and draw the sheet from what was saved."""
    vae = vae.float().eval()
    about["latents"] = micro_vae.bake(vae, stock[:4096])
    micro_vae.save(vae, out)
    saved = micro_vae.load(out, watched.device.type)
    made = micro_vae.round_trip(saved, watched)
    about["psnr"] = micro_vae.psnr(watched, made)
    micro_vae.sheet(watched, made).save(out / "sheet.png")
    (out / "training.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    print(canonical_json(about))


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_presets(parser, PRESETS)
    parser.add_argument("--widths", type=int, nargs="+", default=list(micro_vae.WIDTHS), help="channels")
    parser.add_argument("--kl", type=float, default=1e-5, help="weight of a nat per latent value against L1")
    parser.add_argument("--perceptual", type=float, default=0.1, help="weight of micro_resnet's opinion; 0: unasked")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, augmentation and noise")
    add_common(parser, "runs/micro_vae/checkpoint.safetensors")
    parser.add_argument("--out", type=Path, required=True)
    return parse(parser, given, PRESETS)


def main(given: list[str] | None = None) -> None:
    """Draw the corpus, train, bake, save."""
    args = arguments(given)
    torch.set_num_threads(args.threads)
    begun = time.perf_counter()
    sizes = {"training": args.pictures, "watched": WATCHED}
    corpora = [make(count, SEEDS[use], workers=args.workers) for use, count in sizes.items()]
    stock, watched = (pixels_of(corpus, args.device) for corpus in corpora)
    print(f"{len(stock)} pictures drawn in {time.perf_counter() - begun:.0f} s", flush=True)
    if args.minutes is not None:
        args.steps = WARM_UP
        trial = Trainer(args)
        args.steps = steps_in(args.minutes, lambda step: trial.step(stock, step))
    trainer = Trainer(args)
    parts = {"vae": trainer.vae, "ema": trainer.ema, "adam": trainer.optimiser}
    seconds = run(
        args,
        {name: getattr(args, name) for name in DECISIVE},
        parts,
        lambda step: trainer.step(stock, step),
        lambda: f"  PSNR {micro_vae.psnr(watched, micro_vae.round_trip(trainer.ema, watched)):.2f} dB",
    )
    if seconds is not None:
        about = {name: getattr(args, name) for name in (*DECISIVE, "device", "threads")} | {"seconds": seconds}
        finish(trainer.ema, stock, watched, about, args.out)


if __name__ == "__main__":
    main()
