"""What the training scripts share: presets of the command line, checkpoints, progress lines.

A checkpoint is one safetensors file; what its header says of it is JSON. It holds weights and optimiser states alone:
order, augmentation and noise are derived from the seed and the step, so nothing else has to be remembered to go on.
On a CPU a training in parts ends with the same bits as one in a single run; on a GPU sums have no fixed order.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus.pictures import Arrays
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer

from augbench.core.seeds import rng


def add_presets(parser: argparse.ArgumentParser, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Options ``--preset`` and one for each thing that a preset sets."""
    parser.add_argument("--preset", choices=presets, default="cpu")
    for name, value in presets["cpu"].items():
        parser.add_argument(f"--{name}", type=type(value))


def apply_preset(args: argparse.Namespace, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Take from the preset what the command line did not give."""
    for name, value in presets[args.preset].items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def pixels_of(corpus: Arrays, device: str) -> torch.Tensor:
    """The pictures of a corpus, N,3,H,W uint8 on the device."""
    return torch.from_numpy(np.ascontiguousarray(corpus.images.transpose(0, 3, 1, 2))).to(device)


def set_rate(optimiser: Optimizer, peak: float, step: float, total: int, warm_up: int) -> None:
    """The learning rate of a step: linear to ``peak`` in ``warm_up`` steps, times a cosine that ends at 0."""
    for group in optimiser.param_groups:
        group["lr"] = peak * min(1, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / total))


@dataclass
class Checkpoint:
    """Where a training stands, in one file that is written beside and renamed.

    ``settings`` are those that decide the result: a training goes on only with the ones that it began with.
    """

    path: Path
    settings: dict[str, Any]
    parts: dict[str, nn.Module | Optimizer]

    def save(self, step: int, seconds: float) -> None:
        """Write what is needed to go on with ``step`` after ``seconds`` of training."""
        tensors = {}
        for part, thing in self.parts.items():
            if isinstance(thing, Optimizer):
                states = thing.state_dict()["state"].items()
                tensors |= {f"{part}.{i}.{name}": t.contiguous() for i, state in states for name, t in state.items()}
            else:
                tensors |= {f"{part}.{name}": tensor.contiguous() for name, tensor in thing.state_dict().items()}
        about = {"step": step, "seconds": seconds, "settings": self.settings}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".part")
        save_file(tensors, beside, {"training": json.dumps(about)})
        beside.replace(self.path)

    def load(self, device: str = "cpu") -> tuple[int, float]:
        """Fill the parts; returns the next step and the seconds spent, 0 and 0 where there is no file."""
        about = about_checkpoint(self.path)
        if about is None:
            return 0, 0.0
        if about["settings"] != self.settings and not self._hurried(about):
            raise SystemExit(f"{self.path} was made with {about['settings']}, not {self.settings}: delete it or match")
        with safe_open(self.path, "pt", device=device) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        for part, thing in self.parts.items():
            own = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
            if isinstance(thing, Optimizer):
                _fill(thing, own)
            else:
                thing.load_state_dict(own)
        return about["step"], about["seconds"]

    def _hurried(self, about: dict[str, Any]) -> bool:
        """Whether the file is of the same training, from before it was told to finish early."""
        same = {name: value for name, value in self.settings.items() if name != "finish"} == about["settings"]
        return same and about["step"] <= self.settings.get("finish", [-1])[0]


def _fill(optimiser: Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Moments take the memory layout of their parameter, as fused updates want it."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, field = name.split(".")
        own = parameters[int(number)]
        laid = torch.empty_like(own).copy_(tensor) if tensor.shape == own.shape else tensor
        state.setdefault(int(number), {})[field] = laid
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def about_checkpoint(path: Path) -> dict[str, Any] | None:
    """``step``, ``seconds`` and ``settings`` of a checkpoint; None where there is none."""
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["training"])


class Progress:
    """Progress lines every ``every`` seconds, and the seconds that the training took, resumed parts included."""

    def __init__(self, total: int, batch: int, first: int, spent: float, every: float = 10) -> None:
        self.total, self.batch, self.first, self.spent, self.every = total, batch, first, spent, every
        self.begun = self.shown = self.saved = time.perf_counter()
        self.smoothed: float | None = None

    def seconds(self) -> float:
        """Of training so far."""
        return self.spent + self.here()

    def here(self) -> float:
        """Seconds of training in this process."""
        return time.perf_counter() - self.begun

    def line_due(self, step: int) -> bool:
        """Whether to show a line after this step: in time, and after the last."""
        return time.perf_counter() - self.shown > self.every or step == self.total - 1

    def show(self, step: int, loss: float, more: str = "") -> None:
        """The line after this step; ``loss`` is smoothed over lines."""
        self.smoothed = loss if self.smoothed is None else 0.7 * self.smoothed + 0.3 * loss
        rate = (step + 1 - self.first) * self.batch / self.here()
        left = (self.total - step - 1) * self.batch / rate
        text = f"step {step + 1}/{self.total}  loss {self.smoothed:.3f}{more}  {rate:.0f} images/s  {left:.0f} s left"
        print(text, flush=True)
        self.shown = time.perf_counter()

    def checkpoint_due(self, every: float) -> bool:
        """Whether ``every`` seconds have passed since this last said yes."""
        if time.perf_counter() - self.saved <= every:
            return False
        self.saved = time.perf_counter()
        return True


def finishing(text: str) -> list[int]:
    """The option ``--finish AT+STEPS``: the number of the first step that hurries, and how many do."""
    at, _, steps = text.partition("+")
    return [int(at), int(steps)]


def place_of(step: int, args: argparse.Namespace) -> float:
    """Where a step stands in the schedule of ``args.steps``; those of ``args.finish`` share what is left of it."""
    if not args.finish or step < args.finish[0]:
        return step
    at, steps = args.finish
    return at + (args.steps - at) * (step - at) / steps


def add_common(parser: argparse.ArgumentParser, checkpoint: str) -> None:
    """The options of every training that `run` does; ``checkpoint`` is where it is kept unless told otherwise."""
    parser.add_argument("--minutes", type=float, help="a budget in place of --steps")
    parser.add_argument("--session", type=float, default=math.inf, help="minutes after which to save and stop")
    parser.add_argument("--workers", type=int, help="processes that draw the corpus (default: one per processor)")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--checkpoint", type=Path, default=Path(checkpoint))
    parser.add_argument("--checkpoint-every", type=float, default=60, help="seconds")
    parser.add_argument("--report-every", type=float, default=30, help="seconds")


def parse(parser: argparse.ArgumentParser, given: list[str] | None, presets: Mapping[str, Mapping[str, Any]]) -> Any:
    """The command line; a preset gives what is not given, a checkpoint the steps of a training with ``--minutes``."""
    args = parser.parse_args(given)
    if args.resume and args.steps is None and (about := about_checkpoint(args.checkpoint)):
        args.steps, args.minutes = about["settings"]["steps"], None
    apply_preset(args, presets)
    return args


def run(
    args: argparse.Namespace,
    settings: dict[str, Any],
    parts: dict[str, nn.Module | Optimizer],
    advance: Callable[[int], torch.Tensor],
    watch: Callable[[], str] = str,
    total: int | None = None,
) -> float | None:
    """Train to the end with progress lines and checkpoints.

    Args:
        args: with the options of `add_common`, ``steps``, ``batch`` and ``device``.
        settings: what decides the result, `finish` among it where it is used.
        parts: what a checkpoint keeps.
        advance: makes the step of that number and returns its loss.
        watch: more for the progress line.
        total: steps to make, if not ``args.steps``.

    Returns:
        The seconds that it took, resumed parts included, or None where ``args.session`` ended before.
    """
    checkpoint = Checkpoint(args.checkpoint, settings, parts)
    first, spent = checkpoint.load(args.device) if args.resume else (0, 0.0)
    total = total or args.steps
    progress = Progress(total, args.batch, first, spent, args.report_every)
    for step in range(first, total):
        loss = advance(step)
        if progress.line_due(step):
            progress.show(step, loss.item(), watch())
        over = progress.here() > args.session * 60
        if over or step == total - 1 or progress.checkpoint_due(args.checkpoint_every):
            checkpoint.save(step + 1, progress.seconds())
        if over and step < total - 1:
            print(f"stopped after step {step + 1}: --resume goes on", flush=True)
            return None
    return progress.seconds()


def steps_in(minutes: float, advance: Callable[[int], torch.Tensor], timed: int = 20) -> int:
    """How many steps these minutes allow, by timing ``timed`` that are thrown away, after two that do not count."""
    for step in range(timed + 2):
        if step == 2:
            begun = time.perf_counter()
        advance(step).item()
    return max(1, int(minutes * 60 * timed / (time.perf_counter() - begun)))


@torch.no_grad()
def follow(average: Iterable[torch.Tensor], current: Iterable[torch.Tensor], step: int, decay: float) -> None:
    """Move a moving average of weights after that step; its first steps are soon forgotten."""
    torch._foreach_lerp_(list(average), list(current), 1 - min(decay, (1 + step) / (10 + step)))


def rows_of(stream: str, seed: int, step: int, batch: int, count: int) -> torch.Tensor:
    """The rows of a batch, int64: an order of its own for each pass over ``count``, without the rest of a division."""
    turn, place = divmod(step, count // batch)
    return _order_of(stream, seed, turn, count)[place * batch :][:batch]


@functools.lru_cache(maxsize=1)
def _order_of(stream: str, seed: int, turn: int, count: int) -> torch.Tensor:
    return torch.from_numpy(rng(stream, seed, turn).permutation(count))


def descend(loss: torch.Tensor, parameters: Iterable[nn.Parameter], *optimisers: Optimizer) -> None:
    """One update, with gradients cut to a norm of 1."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimiser in optimisers:
        optimiser.step()
