"""Train the two diffusion pipelines from random weights, given the VAE: tokenizer, text encoders and U-Nets.

    python bench/micro/train_unet.py micro-sd --vae FOLDER --out OUT
    python bench/micro/train_unet.py micro-sdxl-inpaint --out OUT --steps 3000      # continues from OUT/micro-sd
    ... --images 200000 --steps 40000 --batch 256 --mixed-precision bf16      # on a GPU, used if available

Writes OUT/NAME, a diffusers folder in fp16 with `training.json`, and a sheet OUT/NAME.png; for `micro-sd` also
OUT/nine, its U-Net with 9 channels, which initialises the other pipeline. The shipped weights were trained with Muon
and two hand-written layers (group norm and attention), by the scripts of version 0.1.0, else with the same recipe.

A text encoder is pretrained on captions (`reading.py`), then frozen, as in Stable Diffusion; the U-Net is trained with
v-prediction. Errors weigh more inside defects, which cover a tenth of an image, and images of hard defects are sampled
more often. Timesteps that determine shapes are sampled more often than those of nearly pure noise. Errors of inpainting
outside the mask, where the image is given, weigh more too, and their mean most of all. A quarter of the samples of
`micro-sd` are inpainting; the others have zeros in the five mask channels, so that the first four channels alone form a
text-to-image U-Net. A tenth of the captions is dropped (a fifth for `micro-sdxl-inpaint`), a fifth of the rest is
vague. `micro-sd` reads its text encoder's last layer in three of four steps, else the last but one, so that clip skip 2
works. `micro-sdxl-inpaint` reads the last but one of both encoders, as SDXL does; only its second encoder is new.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import bundle
import torch
from accelerate import Accelerator
from bundle import SD, SDXL
from corpus.images import DEFECT_WORDS, captions, make, plan
from diffusers import DDPMScheduler, UNet2DConditionModel
from reading import READING, teach
from sheets import bundle_sheet
from stock import CAPTIONS, VAGUE, encoded, tokenized
from torch import nn
from training import about_run, batches, fit, options
from transformers import CLIPTextModel, CLIPTokenizer

from augbench.core.seeds import derive_seed
from augbench.core.weights import digest
from augbench.diffusion.text_encoding import encode_tokens

SEED = 11  # of the corpus
TOKENIZER_ITEMS = 20_000  # images whose captions the tokenizer learns from
INPAINTING = {SD: 0.25, SDXL: 0.8}  # share of the samples
DROPPED = {SD: 0.1, SDXL: 0.2}  # share of the captions; guidance amplifies errors of inpainting without a caption
DEFECT_WEIGHT = {SD: 3.0, SDXL: 2.0}  # of errors inside a defect; 1 elsewhere
HARD = {"scratch": 2.0, "chip": 2.0}  # factors of that weight for defects that were generated as white marks
HARD_SHARE = 0.25  # share of the samples drawn from images of these defects only
OUTSIDE_WEIGHT = {SD: 1.0, SDXL: 3.0}  # of inpainting errors outside the mask, where the image is given
TONE_WEIGHT = {SD: 0.0, SDXL: 30.0}  # of the squared mean of that error, which guidance amplifies to a tint
BANDS = (
    (0.2, 0.0, 0.3),
    (0.65, 0.3, 0.8),
    (0.15, 0.8, 1.0),
)  # share of samples, from, to (of the schedule)
SKIPPED = 0.25  # share of the steps of micro-sd that read the last but one layer


class Text(nn.Module):
    """The conditions of the U-Net: hidden states of frozen text encoders, and SDXL's added conditions."""

    def __init__(self, name: str, encoders: list[nn.Module], tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.name, self.encoders = name, nn.ModuleList(encoders).eval().requires_grad_(False)
        self.register_buffer("empty", tokenized([""], tokenizer))

    @torch.no_grad()
    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        """Encode N,LENGTH tokens, some of them dropped.

        Dropped captions are encoded as the empty text; for SDXL half of them as zeros, as its pipeline does without a
        negative prompt.
        """
        chance = torch.rand(len(tokens), device=tokens.device)
        tokens = torch.where((chance < DROPPED[self.name])[:, None], self.empty, tokens)
        if self.name == SD:
            return encode_tokens(self.encoders[0], tokens, 2 if torch.rand(1).item() < SKIPPED else 1), None
        first, second = (encoder(tokens, output_hidden_states=True) for encoder in self.encoders)
        keep = (chance >= DROPPED[self.name] / 2).view(-1, 1, 1)
        hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], 2) * keep
        size = 2.0 * bundle.LATENT
        sizes = torch.tensor([size, size, 0.0, 0.0, size, size], device=tokens.device).expand(len(tokens), -1)
        return hidden, {"text_embeds": second.text_embeds * keep[:, 0], "time_ids": sizes}


def banded(spread: torch.Tensor) -> torch.Tensor:
    """Map N uniform numbers in [0, 1) to fractions of the schedule in [0, 1), with the shares of `BANDS`."""
    fractions, below = torch.zeros_like(spread), 0.0
    for share, start, end in BANDS:
        inside = (spread - below) / share
        fractions = torch.where(inside >= 0, start + inside.clamp(max=1) * (end - start), fractions)
        below += share
    return fractions.clamp(max=0.9999)


def weights(name: str, words: torch.Tensor, defects: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Compute the weight of errors at each position, N,1,h,w.

    ``words`` are the defects of the images (N, indices in `DEFECT_WORDS`), ``defects`` is 1 inside them (N,1,h,w), and
    ``given`` is 1 outside the mask of an inpainting.
    """
    extra = torch.tensor([DEFECT_WEIGHT[name] * HARD.get(word, 1.0) - 1 for word in DEFECT_WORDS])
    extra = extra.to(defects.device)[words].view(-1, 1, 1, 1)
    return 1 + extra * defects + (OUTSIDE_WEIGHT[name] - 1) * given


def tone(error: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Square the mean of an error (N,C,h,w) over the given area of an inpainting (N,1,h,w).

    Each image is weighted by the share of its given area.
    """
    mean = (error * given).sum((2, 3)) / given.sum((2, 3)).clamp(min=1)
    return (mean**2 * given.mean((2, 3))).mean()


def row_weights(words: torch.Tensor) -> torch.Tensor:
    """Compute the sampling probability of each image from its defect (N, indices in `DEFECT_WORDS`)."""
    hard = torch.isin(words, torch.tensor([DEFECT_WORDS.index(word) for word in HARD])).double()
    return (1 - HARD_SHARE) / len(hard) + HARD_SHARE * hard / hard.sum().clamp(min=1)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = options(__doc__, images=60_000, steps=7_500, batch=32, lr=1e-3)
    parser.add_argument("name", choices=[SD, SDXL])
    parser.add_argument("--vae", type=Path, help="the folder that train_vae.py wrote; for micro-sd")
    args = parser.parse_args(given)
    if args.name == SDXL:
        args.vae = args.out / SD / "vae"
    if not (args.vae and args.vae.is_dir()):
        parser.error("micro-sd needs --vae, the folder that train_vae.py wrote; micro-sdxl-inpaint OUT/micro-sd")
    return args


def main(given: list[str] | None = None) -> None:
    """Make and encode the corpus, train, save."""
    args = arguments(given)
    torch.manual_seed(derive_seed("micro-unet", args.name, args.seed))
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    source, folder = args.out / SD, args.out / args.name

    # micro-sd is randomly initialised, the other pipeline from micro-sd.
    if args.name == SD:
        texts = (text for index in range(TOKENIZER_ITEMS) for text in captions(plan(SEED, index), CAPTIONS))
        tokenizer = bundle.trained_tokenizer(texts)
        encoders = [bundle.text_encoder(tokenizer)]
        unet = bundle.unet(SD)
    else:
        tokenizer = CLIPTokenizer.from_pretrained(source / "tokenizer")
        first = CLIPTextModel.from_pretrained(source / "text_encoder", dtype=torch.float32)
        encoders = [first, bundle.text_encoder(tokenizer, bundle.SECOND_WIDTH, projected=True)]
        unet = bundle.widened(UNet2DConditionModel.from_pretrained(args.out / "nine", dtype=torch.float32))
    right = teach(accelerator, encoders[-1], tokenizer, READING)
    print("accuracy of the text encoder:", right, flush=True)
    text = Text(args.name, encoders, tokenizer).to(accelerator.device)

    vae = bundle.load_vae(args.vae, accelerator.device)
    stock = encoded(make(args.images, SEED), vae, tokenizer)
    scheduler = DDPMScheduler(**bundle.DIFFUSION)

    def loss(_: int, *batch: torch.Tensor) -> torch.Tensor:
        latents, masked, masks, defects, words, tokens = batch
        latents, masked = latents.float(), masked.float()
        count, device = len(latents), latents.device
        noise = torch.randn_like(latents)
        spread = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
        times = (banded(spread) * scheduler.config.num_train_timesteps).long()
        inpainting = (torch.rand(count, 1, 1, 1, device=device) < INPAINTING[args.name]).float()
        noisy = scheduler.add_noise(latents, noise, times)
        vague = torch.rand(count, device=device) < VAGUE / (CAPTIONS + VAGUE)
        drawn = torch.rand(count, device=device)
        which = torch.where(vague, CAPTIONS + drawn * VAGUE, drawn * CAPTIONS).long()
        hidden, added = text(tokens[torch.arange(count, device=device), which].long())
        seen = torch.cat([noisy, masks * inpainting, masked * inpainting], 1)
        made = unet(seen, times, hidden, added_cond_kwargs=added, return_dict=False)[0]
        error = made.float() - scheduler.get_velocity(latents, noise, times)
        given = inpainting * ~masks
        weighted = (weights(args.name, words, defects, given) * error**2).mean()
        return weighted + TONE_WEIGHT[args.name] * tone(error, given)

    loader = batches(stock, args.batch, args.steps, row_weights(stock.tensors[4]))
    seconds = fit(accelerator, unet, loader, loss, lr=args.lr, warm_up=200, weight_decay=1e-3, ema=0.999)

    if args.name == SD:
        bundle.save(bundle.sd_pipeline(vae, encoders[0], tokenizer, unet), folder)
        unet.cpu().half().save_pretrained(args.out / "nine")
        vae_training = json.loads((args.vae / "training.json").read_text(encoding="utf-8"))
    else:
        bundle.save(bundle.sdxl_pipeline(vae, encoders, tokenizer, unet), folder)
        vae_training = json.loads((source / "training.json").read_text(encoding="utf-8"))["vae_training"]
    about = {"name": args.name, **about_run(args, seconds, accelerator.device), "reading": READING | {"right": right}}
    about |= {"vae": digest(args.vae / "diffusion_pytorch_model.safetensors"), "vae_training": vae_training}
    (folder / "training.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    bundle_sheet(folder, args.out / f"{args.name}.png")
    print(json.dumps(about))


if __name__ == "__main__":
    main()
