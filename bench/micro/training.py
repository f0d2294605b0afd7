"""Shared code of the training scripts: command line, random batches, and the training loop.

The loop uses accelerate: AdamW, a cosine schedule with warm-up, clipped gradients, and optionally a moving average of
the weights; on the GPU if there is one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler

Loss = Callable[..., torch.Tensor]
"""Takes the number of the step and the tensors of a batch; returns a scalar."""


def options(description: str | None, images: int, steps: int, batch: int, lr: float) -> argparse.ArgumentParser:
    """Make the command line of a training script with these defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=images, help="images of the corpus (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=steps, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=batch, help="images per step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=lr, help="the highest learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, augmentation and noise")
    parser.add_argument(
        "--mixed-precision", choices=("no", "bf16"), default="no", help="bf16: for a GPU or CPU that supports it"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    return parser


def about_run(args: argparse.Namespace, seconds: float, device: torch.device) -> dict[str, object]:
    """Collect the fields of `training.json` that all trainings have."""
    names = ("images", "steps", "batch", "lr", "seed", "mixed_precision")
    settings = {name: getattr(args, name) for name in names}
    return settings | {"device": device.type, "threads": torch.get_num_threads(), "seconds": round(seconds, 1)}


def tensor_of(images: np.ndarray) -> torch.Tensor:
    """Convert images N,H,W,3 uint8 to N,3,H,W."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def batches(dataset: TensorDataset, batch: int, steps: int, weights: torch.Tensor | None = None) -> DataLoader:
    """Make a loader of exactly ``steps`` random batches.

    ``weights`` (N) are the sampling probabilities of the rows; without them, rows are permuted epoch by epoch.
    """
    count = steps * batch
    if weights is None:
        return DataLoader(dataset, batch, sampler=RandomSampler(dataset, num_samples=count))
    return DataLoader(dataset, batch, sampler=WeightedRandomSampler(weights.tolist(), count))


def fit(
    accelerator: Accelerator,
    model: nn.Module,
    loader: DataLoader,
    loss: Loss,
    lr: float,
    warm_up: int,
    weight_decay: float,
    ema: float | None = None,
) -> float:
    """Train a model in place, one step for each batch of the loader, and return the seconds that it took.

    ``lr`` is the highest learning rate, reached after ``warm_up`` steps. ``ema`` is the decay of a moving average of
    the weights, which the model has at the end.
    """
    model.to(accelerator.device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr, weight_decay=weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimiser, warm_up, len(loader))
    optimiser, loader, schedule = accelerator.prepare(optimiser, loader, schedule)
    average = EMAModel(parameters, decay=ema) if ema else None
    begun = time.perf_counter()
    bar = tqdm(loader, mininterval=10)
    for step, batch in enumerate(bar):
        with accelerator.autocast():
            value = loss(step, *batch)
        accelerator.backward(value)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if average:
            average.step(parameters)
        bar.set_postfix(loss=f"{value.item():.3f}", refresh=False)
    if average:
        average.copy_to(parameters)
    return time.perf_counter() - begun
