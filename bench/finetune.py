"""Measure DreamBooth steps per second: ours against a plain loop that encodes images and prompts at every step.

    python bench/finetune.py [--bundle micro-sd] [--steps 20] [--rounds 5] [--batch 12] [--threads 2] [--device cuda]

Both do the same updates: equal images, noise, timesteps, weights and layers; the losses are compared. The plain loop,
like a script without caches, runs the VAE on every image of a batch and the text encoder on the prompt of every image.
Rounds alternate, so that disturbances affect both; the ratio is computed per round. On a CPU both use one thread, as
adaptations do in augbench, so that sums do not depend on the number of cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from augbench.diffusion.dreambooth import Recipe, Training, encode
from augbench.diffusion.pipelines import find, load
from augbench.diffusion.text_encoding import tokens
from augbench.stages.provenance import device_name, versions

PROMPTS = ("skt background", "background")
INSTANCES, CLASS_IMAGES = 5, 40


class Plain(Training):
    """The same training without caches."""

    images: tuple[list[np.ndarray], list[np.ndarray]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.pipeline.device.type == "cpu":
            self.optimiser = torch.optim.AdamW(self.parameters, lr=self.recipe.lr)

    def encoded(self, kinds: np.ndarray, which: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode every image with the VAE."""
        chosen = [self.images[kind][i] for kind, i in zip(kinds, which, strict=True)]
        examples = encode(self.pipeline, chosen[0].shape[:2], chosen)
        return examples.mean, examples.std

    def conditions(self, kinds: np.ndarray) -> dict[str, Any]:
        """Encode the prompt of every image with tokenizer and text encoder."""
        ids = tokens(self.pipeline, [PROMPTS[kind] for kind in kinds]).to(self.pipeline.device)
        encoder = self.pipeline.text_encoder
        states = encoder(ids, output_hidden_states=True).hidden_states[-self.recipe.clip_skip]
        return {"encoder_hidden_states": getattr(encoder, "text_model", encoder).final_layer_norm(states)}


def trainings(args: argparse.Namespace) -> dict[str, Training]:
    """Make both trainings, on the same random images."""
    bundle = find(args.bundle)
    rng = np.random.default_rng(0)
    size = (bundle.size, bundle.size)
    images = [[rng.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(n)] for n in (INSTANCES, CLASS_IMAGES)]
    found: dict[str, Training] = {}
    for name, kind in (("ours", Training), ("plain", Plain)):
        pipeline = load(bundle, args.device, torch.float16 if args.device == "cuda" else torch.float32)
        recipe = Recipe(epochs=1000, batch=args.batch, precision="fp16" if args.device == "cuda" else "fp32")
        examples = [encode(pipeline, size, part) for part in images]
        found[name] = kind(pipeline, recipe, PROMPTS, *examples, seed=0)
    found["plain"].images = images
    return found


def seconds(training: Training, first: int, steps: int, device: str) -> tuple[float, list[float]]:
    """Run ``steps`` updates; return their seconds and losses."""
    begun = time.perf_counter()
    losses = [training.step(step) for step in range(first, first + steps)]
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun, losses


def main() -> None:
    """Alternate both loops, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="micro-sd")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
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
    about = {"bundle": args.bundle, "batch": args.batch, "threads": args.threads}
    about |= {"device": device_name(args.device), "versions": versions()}
    print(json.dumps({"bench": "finetune", **found, **about}))


if __name__ == "__main__":
    main()
