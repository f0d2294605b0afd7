"""Train a classifier and predict with it. `fit` reads top to bottom; every number comes from the protocol."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from augbench.classifiers.backbone import build
from augbench.classifiers.loader import DeviceImages, batches, make_sampler
from augbench.core.errors import UserError
from augbench.core.protocol import Protocol
from augbench.core.seeds import derive_seed

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass
class Fitted:
    """A trained classifier and the course of its training."""

    model: torch.nn.Module
    losses: list[float]  # mean training loss of each epoch
    step_losses: list[float]  # mean training loss of each step's batch, over all epochs
    shown: int  # samples seen, repetitions counted


def fit(
    data: DeviceImages,
    labels: np.ndarray,
    outputs: int,
    protocol: Protocol,
    seed: int,
    after_epoch: Callable[[torch.nn.Module, int], None],
    good: bool = True,
    weights: np.ndarray | None = None,
    targets: np.ndarray | None = None,
) -> Fitted:
    """Train a classifier for the protocol's epochs. The last epoch's model is the result.

    Args:
        data: N training images.
        labels: N int: 0/1 with one output, class indices with more.
        outputs: 1 (binary cross-entropy) or C (cross-entropy).
        protocol: optimiser, epochs, sampler, precision.
        seed: of initialisation, order and flips.
        after_epoch: called with the model and the 1-based epoch; it may switch the model to eval mode.
        good: whether label 0 means a normal image; False in recognition among defect classes alone.
        weights: N float32: of each image in the loss; None: all alike.
        targets: N float32: what the loss compares with in place of ``labels``, which still decide the sampling.

    Raises:
        UserError: as `build`; or the loss of an epoch is not finite.
    """
    import torch

    model = build(protocol, outputs, derive_seed("weights", seed) % 2**31)
    model = model.to(data.device, memory_format=torch.channels_last)
    optimiser = _optimiser(model, protocol)
    sampler = make_sampler(protocol, labels, np.random.default_rng(derive_seed("order", seed)), good)
    flips = np.random.default_rng(derive_seed("flips", seed))
    targets = labels if targets is None else targets
    losses, step_losses, samples_seen = [], [], 0
    for epoch in range(1, protocol.epochs + 1):
        started = time.perf_counter()
        model.train(epoch == 1 or protocol.batchnorm == "train")
        order = list(batches(sampler.epoch(), protocol.batch))
        total = torch.zeros((), dtype=torch.float64, device=data.device)
        epoch_losses = []
        for step, indices in enumerate(order):
            _set_lr(optimiser, protocol, (epoch - 1 + step / len(order)) / protocol.epochs)
            images = data.batch(indices)
            if protocol.flip:
                images = _flip(images, flips)
            of_batch = None if weights is None else torch.from_numpy(weights[indices]).to(data.device)
            optimiser.zero_grad(set_to_none=True)
            loss = _backward(model, images, torch.from_numpy(targets[indices]).to(data.device), of_batch, protocol)
            optimiser.step()
            total += loss * len(indices)
            epoch_losses.append(loss)
        epoch_samples = sum(map(len, order))
        losses.append(float(total) / epoch_samples)
        if not math.isfinite(losses[-1]):  # once an epoch, as it synchronises with the GPU
            raise UserError(
                f"training diverged (the loss of epoch {epoch} is {losses[-1]} at lr {protocol.lr:g}): lower lr in "
                f"protocol '{protocol.name}'"
            )
        step_losses += torch.stack(epoch_losses).tolist()
        samples_seen += epoch_samples
        log.info("epoch %d of %d: loss %.4f, %.2f s", epoch, protocol.epochs, losses[-1], time.perf_counter() - started)
        after_epoch(model, epoch)
    return Fitted(model, losses, step_losses, samples_seen)


def _backward(
    model: torch.nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
    protocol: Protocol,
) -> torch.Tensor:
    """Add the gradients of a batch, as the protocol has them, to the parameters; return its mean loss."""
    import torch

    each = [slice(i, i + 1) for i in range(len(images))] if protocol.gradients == "summed" else [slice(None)]
    losses = []
    for part in each:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=protocol.precision == "bf16"):
            logits = model(images[part])
        loss = _loss(logits.float(), targets[part], None if weights is None else weights[part])
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).mean()


def predict(model: torch.nn.Module, data: DeviceImages, protocol: Protocol) -> np.ndarray:
    """Return logits of all images, N,outputs float32, in eval mode and fp32: ties of bf16 logits would distort AP."""
    import torch

    model.eval()
    with torch.inference_mode():
        starts = range(protocol.eval_batch, len(data), protocol.eval_batch)
        parts = [model(data.batch(b)).float().cpu() for b in np.split(np.arange(len(data)), starts)]
    return torch.cat(parts).numpy()


def _loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the mean loss of a batch: binary cross-entropy with one logit, cross-entropy with more."""
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    reduction = "mean" if weights is None else "none"
    if logits.shape[1] == 1:
        loss = binary_cross_entropy_with_logits(logits.squeeze(1), labels.float(), reduction=reduction)
    else:
        loss = cross_entropy(logits, labels, reduction=reduction)
    return loss if weights is None else (loss * weights).mean()


def _optimiser(model: torch.nn.Module, protocol: Protocol) -> torch.optim.Optimizer:
    import torch

    common = {"lr": protocol.lr, "weight_decay": protocol.weight_decay}
    if protocol.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=protocol.momentum, **common)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[protocol.optimiser](model.parameters(), **common)


def _set_lr(optimiser: torch.optim.Optimizer, protocol: Protocol, progress: float) -> None:
    """Set the learning rate; ``progress`` in [0, 1) is the finished share of the training."""
    factor = 0.5 * (1 + math.cos(math.pi * progress)) if protocol.schedule == "cosine" else 1.0
    for group in optimiser.param_groups:
        group["lr"] = protocol.lr * factor


def _flip(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Flip each image in each axis with probability 1/2."""
    import torch

    for axis in (2, 3):
        flipped = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
        images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(axis), images)
    return images.contiguous(memory_format=torch.channels_last)
