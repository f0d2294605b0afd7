"""DreamBooth steps per second: ours against the plain loop that encodes pictures and texts at every step.

    python bench/finetune.py [--bundle micro-sd] [--steps 20] [--rounds 5] [--batch 12] [--device cuda]

Both do the same updates: equal pictures, noise, times, weights and layers; the losses are compared. The plain loop runs
the VAE on every picture of a batch, and the text encoder on the prompt of every picture, as a script does that caches
nothing. Rounds alternate, so that what disturbs one disturbs the other; the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from augbench.core.seeds import derive_seed
from augbench.diffusion.bundles import Bundle, find, load
from augbench.diffusion.dreambooth import Recipe, Training, encode
from augbench.jobs.provenance import device_name, versions

PROMPTS = ("skt background", "background")
INSTANCES, CLASS_PICTURES = 5, 40


class Plain(Training):
    """The same training with nothing kept from one step to the next."""

    pictures: tuple[list[np.ndarray], list[np.ndarray]]
    bundle: Bundle

    def loss(self, step: int) -> torch.Tensor:
        """As the base class, from pictures and texts."""
        recipe, pipeline = self.recipe, self.pipeline
        device = pipeline.device
        kinds, which = self.rows(step)
        chosen = np.stack([self.pictures[kind][i] for kind, i in zip(kinds, which, strict=True)])
        batch = torch.from_numpy(chosen).permute(0, 3, 1, 2).to(device, pipeline.vae.dtype) / 127.5 - 1
        with torch.no_grad():
            found = pipeline.vae.encode(batch).latent_dist
        scale = pipeline.vae.config.scaling_factor
        mean, std = found.mean.float() * scale, found.std.float() * scale
        draw = torch.Generator().manual_seed(derive_seed("dreambooth-step", self.seed, step))
        encoder_noise, noise = (torch.randn(mean.shape, generator=draw).to(device) for _ in range(2))
        times = torch.randint(len(self.kept), (len(mean),), generator=draw).to(device)
        latents = mean + std * encoder_noise
        kept = self.kept[times].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        target = kept.sqrt() * noise - (1 - kept).sqrt() * latents if self.predicts_v else noise
        texts = [PROMPTS[kind] for kind in kinds]
        settings = {"padding": "max_length", "max_length": self.ids.shape[1], "return_tensors": "pt"}
        ids = pipeline.tokenizer(texts, **settings).input_ids.to(device)
        reduced = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision, torch.float32)
        with torch.autocast(device.type, reduced, enabled=recipe.precision != "fp32"):
            states = pipeline.text_encoder(ids, output_hidden_states=True).hidden_states[-recipe.clip_skip]
            inner = getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder)
            made = pipeline.unet(noisy, times, inner.final_layer_norm(states), return_dict=False)[0]
        each = ((made.float() - target) ** 2).mean((1, 2, 3)) * self.weights(times)
        prior = torch.from_numpy(kinds).to(device) == 1
        return (each * torch.where(prior, recipe.prior_weight, 1.0)).mean()


def trainings(args: argparse.Namespace) -> dict[str, Training]:
    """Both, on the same drawn pictures."""
    bundle = find(args.bundle)
    draw = np.random.default_rng(0)
    size = (bundle.size, bundle.size)
    pictures = [
        [draw.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(n)] for n in (INSTANCES, CLASS_PICTURES)
    ]
    found: dict[str, Training] = {}
    for name, kind in (("ours", Training), ("plain", Plain)):
        pipeline = load(bundle, args.device, torch.float16 if args.device == "cuda" else torch.float32)
        recipe = Recipe(epochs=1000, batch=args.batch, precision="fp16" if args.device == "cuda" else "fp32")
        examples = [encode(pipeline, size, part) for part in pictures]
        found[name] = kind(pipeline, bundle, recipe, PROMPTS, *examples, seed=0)
    found["plain"].pictures = pictures
    return found


def seconds(training: Training, first: int, steps: int, device: str) -> tuple[float, list[float]]:
    """Of ``steps`` updates, and their losses."""
    begun = time.perf_counter()
    losses = [training.step(step) for step in range(first, first + steps)]
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun, losses


def main() -> None:
    """Alternate, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="micro-sd")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    both = trainings(args)
    for training in both.values():
        seconds(training, 0, 3, args.device)
    took: dict[str, list[float]] = {name: [] for name in both}
    apart = 0.0
    for number in range(args.rounds):
        order = list(both) if number % 2 else list(both)[::-1]
        losses = {}
        for name in order:
            spent, losses[name] = seconds(both[name], 3 + number * args.steps, args.steps, args.device)
            took[name].append(spent)
        apart = max(apart, *(abs(a - b) for a, b in zip(losses["ours"], losses["plain"], strict=True)))
    ratios = [plain / ours for plain, ours in zip(took["plain"], took["ours"], strict=True)]
    table = Table("loop", "steps/s, median", title=f"DreamBooth on {args.bundle}, batches of {args.batch}")
    rates = {name: args.steps / statistics.median(spent) for name, spent in took.items()}
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.2f}")
    Console().print(table)
    middle = statistics.median(ratios)
    print(f"ours is {middle:.2f} times as fast (rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"losses differ by at most {apart:.1e}")
    found = {"ratio": round(middle, 3), "ratios": ratios, "steps_per_second": rates, "losses_apart": apart}
    about = {"bundle": args.bundle, "batch": args.batch, "device": device_name(args.device), "versions": versions()}
    print(json.dumps({"bench": "finetune", **found, **about}))


if __name__ == "__main__":
    main()
