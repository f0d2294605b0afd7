"""Makes the two diffusion bundles from nothing but the VAE: tokenizer, text encoders and U-Nets.

    python bench/micro/train_unet.py micro-sd --vae FOLDER --out OUT              # two CPU threads, 75 minutes
    python bench/micro/train_unet.py micro-sdxl-inpaint --start OUT --out OUT     # goes on from it, 25 minutes
    python bench/micro/train_unet.py micro-sd --init src/augbench/assets/models/micro-sd --out OUT    # more of it
    python bench/micro/train_unet.py micro-sdxl-inpaint --start OUT --init FOLDER --out OUT           # more of that
    ... --init FOLDER --new-text                        # its U-Net with a text encoder that learned to read anew
    ... --preset gpu | --resume | --minutes 30 | --session 9                      # as in train_vae.py

Writes OUT/NAME, a diffusers folder in fp16 with `training.json`, and a sheet OUT/NAME.png; for `micro-sd` also
OUT/nine, its U-Net with 9 channels, which the other bundle begins with.

A text encoder first learns to read (`reading.py`), then stays as it is, as Stable Diffusion's do; the U-Net is trained.
The prediction is v. Where a defect is, an error counts more, as it covers a tenth of a picture and is what words are
about, and shapes that are hard to draw come up more often; more steps look at times where shapes are decided than at
nearly pure noise. Where inpainting is given what to draw, an error counts more, too, and most of all its mean. A
quarter of the samples of `micro-sd` are inpainting, the others have zeros in the five channels of the mask, so that the
first four channels alone are a text-to-image U-Net. A tenth of the captions is dropped (of `micro-sdxl-inpaint`'s a
fifth), a fifth of the rest is vague. `micro-sd` reads its text encoder's last layer three times in four and else the
last but one, so that clip skip 2 works. `micro-sdxl-inpaint` reads the last but one of both encoders, as SDXL does;
only its second encoder is new.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import shutil
import time
from pathlib import Path

import bundle
import torch
import vae as micro_vae
from augbench.diffusion.attention import for_training
from bundle import SD, SDXL
from corpus.pictures import captions, plan
from diffusers import DDPMScheduler, UNet2DConditionModel
from fast import speed_up
from muon import Muon, matrices
from reading import READING, last_layers, pooled_layers, teach
from sheets import bundle_sheet
from stock import CAPTIONS, VAGUE, Stock, tokenized
from tokenizer import write as write_tokenizer
from torch import nn
from training import (
    add_common,
    add_presets,
    descend,
    finishing,
    follow,
    parse,
    place_of,
    rows_of,
    run,
    set_rate,
    steps_in,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from augbench.core.keys import canonical_json
from augbench.core.seeds import derive_seed
from augbench.diffusion.text import told

PRESETS = {
    "cpu": {"device": "cpu", "threads": 2, "pictures": 60_000, "steps": 7500, "batch": 32, "lr": 4e-3},
    "gpu": {"device": "cuda", "threads": 8, "pictures": 200_000, "steps": 40_000, "batch": 256, "lr": 4e-3},
}
SEED = 11  # of the corpus
DECISIVE = ("name", "pictures", "steps", "batch", "lr", "seed", "inpainting")
TOKENIZER_ITEMS = 20_000  # pictures whose captions the tokenizer learns from
WARM_UP = 200  # steps
EMA = 0.999
INPAINTING = {SD: 0.25, SDXL: 0.8}  # share of the samples, unless told otherwise
DROPPED = {SD: 0.1, SDXL: 0.2}  # share of the captions; guidance multiplies what inpainting without one gets wrong
DEFECT_WEIGHT = {SD: 3.0, SDXL: 2.0}  # of an error where a defect is, against 1 elsewhere
HARD = {"scratch": 2.0, "chip": 2.0}  # what the weight is multiplied with: shapes that were drawn as white marks
HARD_SHARE = 0.25  # share of the samples taken from pictures of these alone, besides those that come up anyway
OUTSIDE_WEIGHT = {SD: 1.0, SDXL: 3.0}  # of an error that inpainting makes outside the mask, where all is given
TONE_WEIGHT = {SD: 0.0, SDXL: 30.0}  # of the mean of that error, squared: guidance makes a tint of it
BANDS = ((0.2, 0.0, 0.3), (0.65, 0.3, 0.8), (0.15, 0.8, 1.0))  # share of the samples: from, to, of the schedule
SKIPPED = 0.25  # share of the steps of micro-sd that read the last but one layer


class Trainer(nn.Module):
    """A bundle's U-Net and the encoders that are trained with it, and their moving averages."""

    def __init__(self, args: argparse.Namespace, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.args = args
        torch.manual_seed(derive_seed("micro-unet-weights", args.name, args.seed))
        if args.name == SD:
            self.unet, self.first, self.second = bundle.unet(SD), bundle.text_encoder(tokenizer), None
            if args.init:
                four = UNet2DConditionModel.from_pretrained(args.init / "unet", dtype=torch.float32)
                self.unet = bundle.nine_channels(four, SD)
            if args.init and not args.new_text:
                self.first = CLIPTextModel.from_pretrained(args.init / "text_encoder", dtype=torch.float32)
        else:
            folder = args.start / SD / "text_encoder"
            self.first = CLIPTextModel.from_pretrained(folder, dtype=torch.float32)
            if args.init:
                self.unet = UNet2DConditionModel.from_pretrained(args.init / "unet", dtype=torch.float32)
                folder = args.init / "text_encoder_2"
                self.second = CLIPTextModelWithProjection.from_pretrained(folder, dtype=torch.float32)
            else:
                nine = UNet2DConditionModel.from_pretrained(args.start / "nine", dtype=torch.float32)
                self.unet = bundle.widened(nine)
                self.second = bundle.text_encoder(tokenizer, bundle.SECOND_WIDTH, projected=True)
        self.readers = nn.ModuleList(part for part in (self.first, self.second) if part is not None)
        self.readers.requires_grad_(False)
        self.trained = nn.ModuleDict({"unet": self.unet})
        self.ema = copy.deepcopy(self.trained).requires_grad_(False)
        self.to(args.device)
        speed_up(self.unet).to(memory_format=torch.channels_last)
        large = matrices(self.trained)
        small = [parameter for parameter in self.trained.parameters() if all(parameter is not one for one in large)]
        self.muon = Muon(large, args.lr)
        self.adam = torch.optim.AdamW(small, args.lr, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
        scheduler = DDPMScheduler(**bundle.DIFFUSION, prediction_type="v_prediction", clip_sample=False)
        self.register_buffer("kept", scheduler.alphas_cumprod.to(args.device))  # alpha bar
        empty = tokenized([""], tokenizer).to(args.device)
        self.register_buffer("empty", empty)

    @property
    def new_reader(self) -> nn.Module | None:
        """The text encoder that has to learn to read."""
        if self.args.init and not self.args.new_text:
            return None
        return self.first if self.second is None else self.second

    def learn_to_read(self, tokenizer: CLIPTokenizer) -> None:
        """Teach the new text encoder, if there is one."""
        if new := self.new_reader:
            new.requires_grad_(True)
            read = pooled_layers(new) if new is self.second else last_layers(new)
            teach(read, new, tokenizer, self.args.seed, READING)
            new.requires_grad_(False)

    @torch.no_grad()
    def read(self, tokens: torch.Tensor, draw: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        """What the U-Net is told by N,LENGTH tokens: hidden states, and for SDXL the added conditions.

        Dropped captions are read as the empty text; SDXL's half of the time as zeros, as its pipeline does without a
        negative prompt.
        """
        count = len(tokens)
        chance = torch.rand(count, generator=draw).to(tokens.device)
        dropped = DROPPED[self.args.name]
        tokens = torch.where((chance < dropped)[:, None], self.empty, tokens)
        if self.second is None:
            skip = torch.rand(1, generator=draw).item() < SKIPPED
            return told(self.first, tokens, 2 if skip else 1), None
        first = self.first(tokens, output_hidden_states=True).hidden_states[-2]
        second = self.second(tokens, output_hidden_states=True)
        kept = (chance >= dropped / 2).view(-1, 1, 1)
        hidden = torch.cat([first, second.hidden_states[-2]], 2) * kept
        size = float(bundle.LATENT * 2)
        sizes = torch.tensor([size, size, 0.0, 0.0, size, size], device=tokens.device).expand(count, -1)
        return hidden, {"text_embeds": second.text_embeds * kept[:, 0], "time_ids": sizes}

    def loss(self, stock: Stock, rows: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Mean squared error of v over the pictures of these rows, at times spread evenly over each of the bands."""
        device, count = self.args.device, len(rows)

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(count, *shape, generator=draw).to(device)

        latents, masked, masks = (part[rows].float() for part in (stock.latents, stock.masked, stock.masks))
        noise = torch.randn(latents.shape, generator=draw).to(device)
        times = (banded((torch.arange(count, device=device) + uniform()) / count) * len(self.kept)).long()
        signal, level = self.kept[times].sqrt().view(-1, 1, 1, 1), (1 - self.kept[times]).sqrt().view(-1, 1, 1, 1)
        inpainting = (uniform(1, 1, 1) < self.args.inpainting).float()
        seen = torch.cat([signal * latents + level * noise, masks * inpainting, masked * inpainting], 1)
        vague = uniform() < VAGUE / (CAPTIONS + VAGUE)
        which = torch.where(vague, CAPTIONS + uniform() * VAGUE, uniform() * CAPTIONS).long()
        tokens = stock.tokens[rows, which].long()
        kind = torch.device(device).type
        with torch.autocast(kind, torch.bfloat16), for_training(kind, bundle.LATENT**2):
            hidden, added = self.read(tokens, draw)
            seen = seen.contiguous(memory_format=torch.channels_last)
            made = self.unet(seen, times, hidden, added_cond_kwargs=added, return_dict=False)[0]
        given = inpainting * (1 - masks)
        weight = weights(self.args.name, words_of(rows), stock.defects[rows].float(), given)
        error = made.float() - (signal * noise - level * latents)
        return (weight * error**2).mean() + TONE_WEIGHT[self.args.name] * tone(error, given)

    def step(self, stock: Stock, step: int) -> torch.Tensor:
        """One update; everything random in it follows from the seed and the step. Returns the loss."""
        args = self.args
        draw = torch.Generator().manual_seed(derive_seed("micro-unet-step", args.name, args.seed, step))
        for optimiser in (self.muon, self.adam):
            set_rate(optimiser, args.lr, place_of(step, args), args.steps, WARM_UP)
        rows = rows_of("micro-unet-order", args.seed, step, args.batch, len(stock))
        loss = self.loss(stock, focused(rows, len(stock), draw).to(args.device), draw)
        descend(loss, self.trained.parameters(), self.muon, self.adam)
        follow(self.ema.parameters(), self.trained.parameters(), step, EMA)
        return loss.detach()


def defect_weight(name: str, word: str) -> float:
    """What an error counts where there is a defect of that word, when bundle ``name`` is trained."""
    return DEFECT_WEIGHT[name] * HARD.get(word, 1.0)


def weights(name: str, words: list[str], defects: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """What an error counts in each place, N,1,h,w, when bundle ``name`` is trained.

    Args:
        name: of the bundle.
        words: the defect of each picture, "" for none.
        defects: 1 where it is, N,1,h,w.
        given: 1 where an inpainting is given what to draw, N,1,h,w.
    """
    extra = torch.tensor([defect_weight(name, word) - 1 for word in words], device=defects.device)
    return 1 + extra.view(-1, 1, 1, 1) * defects + (OUTSIDE_WEIGHT[name] - 1) * given


def tone(error: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """How far the mean of an error (N,C,h,w) is from 0 where an inpainting is given what to draw (N,1,h,w), squared.

    Each picture counts by the share of its area that is given.
    """
    mean = (error * given).sum((2, 3)) / given.sum((2, 3)).clamp(min=1)
    return (mean**2 * given.mean((2, 3))).mean()


def words_of(rows: torch.Tensor) -> list[str]:
    """The defects of these pictures of the stock, "" for none."""
    return [plan(SEED, row).defect for row in rows.tolist()]


def focused(rows: torch.Tensor, pictures: int, draw: torch.Generator) -> torch.Tensor:
    """The rows of a batch, some of them replaced by pictures of what is hard to draw."""
    hard = _hard_rows(pictures)
    if not len(hard):  # of a handful of pictures
        return rows
    chosen = hard[torch.randint(len(hard), rows.shape, generator=draw)]
    return torch.where(torch.rand(rows.shape, generator=draw) < HARD_SHARE, chosen, rows)


@functools.cache
def _hard_rows(pictures: int) -> torch.Tensor:
    return torch.tensor([row for row in range(pictures) if plan(SEED, row).defect in HARD], dtype=torch.int64)


def banded(spread: torch.Tensor) -> torch.Tensor:
    """N numbers even in [0, 1) -> places in the schedule in [0, 1), as often in each of `BANDS` as it says."""
    places, below = torch.zeros_like(spread), 0.0
    for share, start, end in BANDS:
        inside = (spread - below) / share
        places = torch.where(inside >= 0, start + inside.clamp(max=1) * (end - start), places)
        below += share
    return places.clamp(max=0.9999)


def tokenizer_for(args: argparse.Namespace) -> CLIPTokenizer:
    """Learned for `micro-sd`, the same for what begins with one."""
    if args.name == SDXL or args.init:
        return CLIPTokenizer.from_pretrained((args.init or args.start / SD) / "tokenizer")
    texts = (text for index in range(TOKENIZER_ITEMS) for text in captions(plan(SEED, index), CAPTIONS))
    return write_tokenizer(args.checkpoint.parent / "tokenizer", texts)


def finish(trainer: Trainer, tokenizer: CLIPTokenizer, about: dict, args: argparse.Namespace) -> None:
    """Save the averages as a bundle, and draw the sheet from what was saved."""
    ema, readers, folder = trainer.ema.cpu(), list(trainer.readers.cpu()), args.out / args.name
    vae = micro_vae.load(args.vae)
    if args.name == SD:
        pipeline = bundle.sd_pipeline(vae, readers[0], tokenizer, ema["unet"])
        bundle.halve(ema["unet"]).save_pretrained(args.out / "nine")
    else:
        pipeline = bundle.sdxl_pipeline(vae, readers, tokenizer, ema["unet"])
    bundle.save(pipeline, folder)
    if args.name == SDXL:
        bundle.share(args.start / SD, folder)
    elif args.init:
        shutil.copytree(args.init / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    (folder / "training.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    bundle_sheet(folder).save(args.out / f"{args.name}.png", optimize=True)
    print(canonical_json(about))


def vae_training(args: argparse.Namespace) -> dict | None:
    """How the VAE was trained, as its own folder or the bundle that this one goes on from says."""
    if (args.vae / "training.json").exists():
        return json.loads((args.vae / "training.json").read_text(encoding="utf-8"))
    if args.init:
        return json.loads((args.init / "training.json").read_text(encoding="utf-8")).get("vae_training")
    return None


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[SD, SDXL])
    add_presets(parser, PRESETS)
    parser.add_argument("--vae", type=Path, help="the folder of the VAE (default: that of --start)")
    parser.add_argument("--start", type=Path, help="what `micro-sd` was written to; for `micro-sdxl-inpaint`")
    parser.add_argument("--init", type=Path, help="go on from this saved bundle, with a learning rate that falls anew")
    parser.add_argument(
        "--inpainting", type=float, help="share of the samples (default: 0.25 of micro-sd, 0.8 of the other)"
    )
    parser.add_argument("--new-text", action="store_true", help="with --init: not with its text encoder")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and noise")
    add_common(parser, "runs/micro_unet/checkpoint.safetensors")
    parser.add_argument("--finish", type=finishing, help="AT+STEPS: from step AT on, end within so many steps")
    parser.add_argument("--stock", type=Path, help="keep the encoded pictures in this file, and use it again")
    parser.add_argument("--out", type=Path, required=True)
    args = parse(parser, given, PRESETS)
    if args.name == SDXL and not args.start:
        parser.error("micro-sdxl-inpaint needs --start, the folder that micro-sd was written to")
    if args.new_text and not (args.init and args.name == SD):
        parser.error("--new-text is for micro-sd with --init")
    args.inpainting = INPAINTING[args.name] if args.inpainting is None else args.inpainting
    if not 0 <= args.inpainting <= 1:
        parser.error("--inpainting is a share: from 0 to 1")
    begun_with = args.init or (args.start and args.start / SD)
    args.vae = args.vae or (begun_with and begun_with / "vae")
    if not args.vae:
        parser.error("--vae is missing: the folder that train_vae.py wrote")
    return args


def main(given: list[str] | None = None) -> None:
    """Draw and encode the corpus, train, save."""
    args = arguments(given)
    torch.set_num_threads(args.threads)
    begun = time.perf_counter()
    tokenizer = tokenizer_for(args)
    stock = Stock.make(args.vae, tokenizer, args.pictures, SEED, args.device, args.workers, args.stock)
    print(f"{len(stock)} pictures drawn and encoded in {time.perf_counter() - begun:.0f} s", flush=True)
    if args.minutes is not None:
        args.steps = WARM_UP
        trial = Trainer(args, tokenizer)
        args.steps = steps_in(args.minutes, lambda step: trial.step(stock, step))
    trainer = Trainer(args, tokenizer)
    if not (args.resume and args.checkpoint.exists()):  # a checkpoint knows how to read
        trainer.learn_to_read(tokenizer)
    parts = {"trained": trainer.trained, "readers": trainer.readers, "ema": trainer.ema}
    parts |= {"muon": trainer.muon, "adam": trainer.adam}
    settings = {name: getattr(args, name) for name in DECISIVE} | {"vae": micro_vae.digest(args.vae)}
    settings |= {"defect_weight": DEFECT_WEIGHT[args.name], "hard": HARD, "hard_share": HARD_SHARE}
    settings |= {"outside_weight": OUTSIDE_WEIGHT[args.name], "tone_weight": TONE_WEIGHT[args.name]}
    settings |= {"dropped": DROPPED[args.name], "bands": [list(band) for band in BANDS]}
    if args.finish:
        settings["finish"] = args.finish
    if args.init:
        settings["init"] = micro_vae.digest(args.init / "unet")
        settings["new_text"] = args.new_text
    total = sum(args.finish) if args.finish else args.steps
    seconds = run(args, settings, parts, lambda step: trainer.step(stock, step), total=total)
    if seconds is not None:
        about = settings | {"device": args.device, "threads": args.threads, "seconds": seconds}
        if trainer.new_reader is not None:
            about["reading"] = READING
        if args.name == SD and (told := vae_training(args)):
            about["vae_training"] = told
        if args.init:
            about["before"] = json.loads((args.init / "training.json").read_text(encoding="utf-8"))
        finish(trainer, tokenizer, about, args)


if __name__ == "__main__":
    main()
