"""Say how far the stages are from their floor: operations that they count, bytes that they move, peak of this machine.

    python bench/floor.py [--threads 1] [--repeats 3]

A stage's operations are those of its convolutions and matrix products, counted by PyTorch while it runs; its bytes are
what each operation reads and writes, as if nothing were fused and nothing stayed in a cache. Peak and bandwidth are
those of a large matrix product and of a large copy, measured before each repeat of a stage, by as many threads. The
floor is the longer of operations / peak and bytes / bandwidth. Training is measured by `bench/train.py`.
Full-sized models that no CPU can run are counted on meta tensors, for their operations alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from augbench.core.protocol import load_preset
from augbench.diffusion.pipelines import find, load
from augbench.diffusion.sampling import sample
from augbench.features.extractor import Extractor
from augbench.features.frozen import FrozenBackbone
from augbench.stages.provenance import device_name, versions

SIDE = 4096  # of the matrices of `peak`, on a GPU; a quarter of it on a CPU
COPIED = 1 << 28  # bytes of `bandwidth`
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Traffic(TorchDispatchMode):
    """Count the bytes that operations read and write, each for itself; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and add what it touches."""
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.total += sum(one.nbytes for one in tree_leaves((args, kwargs, found)) if isinstance(one, torch.Tensor))
        return found


@dataclass(frozen=True)
class Cost:
    """What a call does at least."""

    operations: float  # a multiplication and an addition are two
    bytes: float

    def floor(self, peak: float, bandwidth: float) -> float:
        """Return the seconds that it takes at least, by operations/s and bytes/s."""
        return max(self.operations / peak, self.bytes / bandwidth)


def cost(call: Callable[[], object]) -> Cost:
    """Run a call once and count."""
    with FlopCounterMode(display=False) as counter, Traffic() as traffic:
        call()
    return Cost(counter.get_total_flops(), traffic.total)


def training_cost(backbone: str, batch: int, height: int, width: int) -> Cost:
    """Count a training step with Adam on meta tensors, in fp32."""
    import timm

    with torch.device("meta"):
        model, images = timm.create_model(backbone, num_classes=1), torch.empty(batch, 3, height, width)
    optimiser = torch.optim.Adam(model.parameters())

    def step() -> None:
        model(images).mean().backward()
        optimiser.step()

    return cost(step)


def timed(call: Callable[[], object], device: str = "cpu") -> float:
    """Return the seconds of a call."""
    begun = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def peak(device: str = "cpu", precision: str = "fp32", repeats: int = 5) -> float:
    """Measure the operations per second of a large matrix product: the best of some."""
    side = SIDE if device.startswith("cuda") else SIDE // 4
    one, other = torch.rand(2, side, side, device=device, dtype=DTYPES.get(precision, torch.float32))
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, precision == "tf32"
    try:
        seconds = min(timed(partial(torch.mm, one, other), device) for _ in range(repeats + 1))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * side**3 / seconds


def bandwidth(device: str = "cpu", repeats: int = 3) -> float:
    """Measure the bytes per second, read and written, of a large copy: the best of some."""
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return 2 * COPIED / min(timed(partial(target.copy_, source), device) for _ in range(repeats + 1))


# -- stages


@dataclass(frozen=True)
class Stage:
    """A part of a run: a call that does ``units`` of what its name says."""

    name: str
    unit: str
    units: int
    call: Callable[[], object]


def stages() -> list[Stage]:
    """Prepare the stages that run a network, as augbench runs them on a CPU, with packaged weights.

    DreamBooth on micro-sd in batches of 12; micro-sd, 20 steps with guidance in batches of 8; EfficientNet-Lite0 on
    224 x 224 images; micro_resnet on images of 224 x 632.
    """
    from finetune import trainings

    draw = np.random.default_rng(0)
    ours = trainings(Namespace(bundle="micro-sd", device="cpu", batch=12))["ours"]
    source = find("micro-sd")
    pipeline = load(source)
    prompts = ["copper metal scratches"] * 8
    generate = partial(sample, pipeline, source, prompts, seeds=range(8), steps=20, guidance=4.0)
    frozen, extractor = FrozenBackbone(load_preset("probe"), "cpu"), Extractor("micro_resnet", "cpu")
    squares = draw.integers(0, 256, (32, 224, 224, 3), np.uint8)
    strips = list(draw.integers(0, 256, (32, 632, 224, 3), np.uint8))
    return [
        Stage("adapt", "step", 1, partial(ours.step, 0)),
        Stage("generate", "image", 8, generate),
        Stage("features", "image", 32, partial(frozen, squares)),
        Stage("fidelity", "image", 32,
              partial(extractor, strips, extractor.size(224 / 632))),
    ]  # fmt: skip


def full_size() -> dict[str, Cost]:
    """Count full-sized models on meta tensors: one pass of a U-Net for one image, one training image."""
    from diffusers import UNet2DConditionModel
    from inpaint import SDXL

    with torch.device("meta"):
        sd = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        xl = UNet2DConditionModel(**SDXL["unet"])
        text = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        passes = {
            "SD 1.5, a pass of the U-Net at 512 x 512": lambda: sd(
                torch.empty(1, 4, 64, 64), torch.empty(1), torch.empty(1, 77, 768)
            ),
            "SDXL inpainting, a pass of the U-Net at 1024 x 1024": lambda: xl(
                torch.empty(1, 9, 128, 128), torch.empty(1), torch.empty(1, 77, 2048), added_cond_kwargs=text
            ),
        }
        found = {name: cost(call) for name, call in passes.items()}
    step = training_cost("resnet50", 32, 632, 224)
    found["ResNet-50, an image of a training step at 224 x 632"] = Cost(step.operations / 32, step.bytes / 32)
    return found


def main() -> None:
    """Count, measure, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    columns = ("stage", "unit", "GFLOP", "MB", "floor, ms", "measured", "ratio")
    table, rows = Table(*columns, title=f"{args.threads} threads, fp32, medians of {args.repeats}"), []
    for stage in stages():
        stage.call()  # warm-up
        least = cost(stage.call)
        ratios, floors, took, peaks = [], [], [], []
        for _ in range(args.repeats):
            peaks.append(peak())
            floors.append(least.floor(peaks[-1], bandwidth()))
            took.append(timed(stage.call))
            ratios.append(took[-1] / floors[-1])
        row = {"stage": stage.name, "unit": stage.unit, "gflop": least.operations / stage.units / 1e9}
        row |= {"megabytes": least.bytes / stage.units / 1e6, "gflops_at_peak": statistics.median(peaks) / 1e9}
        row |= {"floor_ms": 1e3 * statistics.median(floors) / stage.units}
        row |= {"ms": 1e3 * statistics.median(took) / stage.units, "times_floor": statistics.median(ratios)}
        numbers = (row[key] for key in ("gflop", "megabytes", "floor_ms", "ms", "times_floor"))
        table.add_row(stage.name, stage.unit, *(f"{number:.3g}" for number in numbers))
        rows.append(row)
    Console().print(table)
    counted = full_size()
    for name, one in counted.items():
        print(f"{name}: {one.operations / 1e12:.3f} TFLOP, {one.bytes / 1e9:.2f} GB")
    about = {"threads": args.threads, "device": device_name("cpu"), "versions": versions()}
    print(
        json.dumps(
            {"bench": "floor", "stages": rows, "full_size": {k: v.__dict__ for k, v in counted.items()}, **about}
        )
    )


if __name__ == "__main__":
    main()
