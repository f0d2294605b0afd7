"""Estimate the cost of a full leaderboard on a GPU cluster, from the planner's counts and seconds per job. Runs no job.

    python bench/estimate.py [--gpus 8 64 512] [--driver-rate CELLS_PER_SECOND] [--out FILE.md]

The grid: 10 datasets of KSDD2's size x 8 augmenters x 3 shots x 4 N_aug x 10 seeds, protocol of In&Out, the settings of
the papers. It is planned like any grid; the work of a job (U-Net passes, images trained on and evaluated) follows from
its settings. The cost of a pass on a GPU is **not measured here**: `Rates` holds public figures for one A100, each with
its source; the driver's rate and the overhead of a cell come from bench/scale.py and bench/overhead.py.

A simulation then places the jobs on GPUs in the driver's order: an adapter, then the chunks of its pools, then their
cells, each as soon as its inputs exist and a GPU is free. A job has a whole GPU: gains from sharing are ignored.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from augbench.core.protocol import Protocol
from augbench.core.specs import AdapterSpec, AugmenterSpec, Cell
from augbench.planning.grid import Grid, make_grid
from augbench.planning.plan import Plan, make_plan

KSDD2 = {"train_good": 2085, "train_defective": 246, "test_good": 894, "test_defective": 110}
STAGES = ("class images", "adapt", "generate", "train")
BACKWARD = 2.0  # cost of a backward pass, in forward passes


@dataclass(frozen=True)
class Rates:
    """Seconds on one GPU. The defaults are for one A100 80 GB; an option of the same name overrides each.

    ``resnet_picture``: NVIDIA, DeepLearningExamples, ResNet-50 v1.5 in PyTorch, one A100: 938 images of 224 x 224 a
    second in TF32, forward and backward. ``sd_pass``, ``sdxl_pass``: fal.ai, stable-diffusion-benchmarks, A100 80 GB,
    diffusers with torch 2.1 and SDPA, fp16, 50 steps with guidance, all parts included: 1.604 s for 512 x 512 by SD
    1.5, 5.932 s for 1024 x 1024 by SDXL. ``cell_overhead``: metrics, record and scores, by bench/overhead.py.
    ``start``: our assumption.
    """

    resnet_picture: float = 1 / 938
    sd_pass: float = 1.604 / 100
    sdxl_pass: float = 5.932 / 100
    cell_overhead: float = 0.05
    start: float = 30.0


@dataclass
class Job:
    """A unit of work on one GPU."""

    stage: str
    seconds: float
    needs: tuple[str, ...]


def leaderboard() -> Grid:
    """Make the grid of the estimate."""
    datasets = [{"name": "surfaces", "as": f"d{number}", "settings": {**KSDD2, "seed": number}} for number in range(10)]
    augmenters = [
        "none",
        "memseg",
        "cutpaste",
        "ddpm",
        "inout",
        "diag",
        {"name": "diag", "as": "diag_procedural", "settings": {"masks": "procedural"}},
        "stablesdg",
    ]
    return make_grid(
        {
            "name": "leaderboard",
            "datasets": datasets,
            "augmenters": augmenters,
            "shots": [0, 5, "all"],
            "n_aug": [60, 80, 100, 120],
            "seeds": list(range(10)),
            "protocols": ["inout"],
            "fidelity": None,
        }
    )


# -- the work of a job


def sd_passes(plan: Plan, adapter: AdapterSpec) -> float:
    """Count the U-Net passes of an adaptation; a backward pass counts as `BACKWARD`."""
    config = plan.library.augmenter(adapter.augmenter).config
    if adapter.augmenter.name == "stablesdg":
        samples_seen = (config.token_steps + config.lora_steps) * config.batch
    else:
        regime = getattr(config, {None: "zero", "all": "full"}.get(adapter.shots, "few"))
        instances = regime.instances or _positives(adapter.shots)
        samples_seen = regime.epochs * instances * config.repeats * (2 if config.class_pictures else 1)
    return samples_seen * (1 + BACKWARD)


def image_seconds(plan: Plan, augmenter: AugmenterSpec, rates: Rates) -> float:
    """Return the GPU seconds of one image of a pool; 0 without a GPU. Guidance doubles each step's pass."""
    plugin = plan.library.augmenter(augmenter)
    if not plugin.uses_gpu:
        return 0.0
    config = plugin.config
    strength = config.strength if augmenter.name in ("stablesdg", "diag") else 1.0
    pass_seconds = rates.sdxl_pass if augmenter.name == "diag" else rates.sd_pass
    return 2 * config.steps * strength * pass_seconds


def cell_images(cell: Cell, protocol: Protocol) -> tuple[int, int]:
    """Count images trained on and images evaluated, over all epochs; an epoch has as many negatives as positives."""
    positives = _positives(cell.shots) + cell.n_aug
    samples = protocol.epoch_pictures or 2 * positives
    test = KSDD2["test_good"] + KSDD2["test_defective"]
    return protocol.epochs * samples, -(-protocol.epochs // (protocol.eval_every or protocol.epochs)) * test


def _positives(shots: int | str) -> int:
    return KSDD2["train_defective"] if shots == "all" else int(shots)


def jobs_of(plan: Plan, rates: Rates) -> dict[str, Job]:
    """Return every job that needs a GPU, by name, in the order in which a driver dispatches them."""
    jobs = dict(_generation_jobs(plan, rates))
    for cell in plan.cells:
        protocol = cell.protocol
        trained, evaluated = cell_images(cell, protocol)
        area = protocol.width * protocol.height / 224**2
        passes = trained + evaluated / (1 + BACKWARD)
        needs = [
            f"{part.pool.key}/{chunk}"
            for part in plan.needs[cell.key]
            for chunk in range(part.chunks)
            if f"{part.pool.key}/{chunk}" in jobs  # CPU chunks run beside, and finish sooner
        ]
        jobs[cell.key] = Job("train", passes * area * rates.resnet_picture + rates.cell_overhead, tuple(needs))
    return jobs


def _generation_jobs(plan: Plan, rates: Rates) -> Iterator[tuple[str, Job]]:
    """Yield the jobs of class images, adapters and pool chunks."""
    pools = [pool for pool in plan.pools.values() if plan.library.augmenter(pool.augmenter).uses_gpu]
    adapters = {pool.adapter.key: pool.adapter for pool in pools if plan.adapter(pool)}
    for adapter in adapters.values():
        config, needs = plan.library.augmenter(adapter.augmenter).config, ()
        if class_images := getattr(config, "class_pictures", 0):  # one set serves all: same pipeline, prompt and size
            needs = ("class images",)
            yield "class images", Job("class images", class_images * 2 * config.steps * rates.sd_pass, ())
        yield adapter.key, Job("adapt", sd_passes(plan, adapter) * rates.sd_pass, needs)
    for pool in pools:
        needs = (pool.adapter.key,) if pool.adapter.key in adapters else ()
        size = plan.pool_sizes[pool.key]
        chunks = pool.chunks_for(size)
        seconds = image_seconds(plan, pool.augmenter, rates) * size / chunks
        for chunk in range(chunks):
            yield f"{pool.key}/{chunk}", Job("generate", seconds, needs)


# -- simulation


@dataclass
class Run:
    """The result of a simulated run."""

    seconds: float
    busy: float  # share of the GPUs' time
    adapted: float  # seconds until the last adapter is ready
    generated: float  # seconds until the last image is ready
    rate: float  # cells per second, in the best minute


def simulate(jobs: dict[str, Job], gpus: int, rates: Rates, driver_rate: float) -> Run:
    """Place jobs greedily: adaptations before chunks before cells.

    Args:
        jobs: by name.
        gpus: their number.
        rates: ``start`` is the time before the first job.
        driver_rate: most cells that the driver starts per second.
    """
    order = {stage: number for number, stage in enumerate(STAGES)}
    waiting = {name: set(job.needs) for name, job in jobs.items()}
    followers = defaultdict(list)
    for name, job in jobs.items():
        for need in job.needs:
            followers[need].append(name)
    ready = [(order[job.stage], number, name) for number, (name, job) in enumerate(jobs.items()) if not job.needs]
    numbers = {name: number for number, name in enumerate(jobs)}
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now, free, next_cell, ends = rates.start, gpus, rates.start, defaultdict(list)
    while ready or running:
        while ready and free:
            stage, _, name = heapq.heappop(ready)
            begins = now
            if STAGES[stage] == "train":
                begins = next_cell = max(now, next_cell + 1 / driver_rate)
            heapq.heappush(running, (begins + jobs[name].seconds, name))
            free -= 1
        now, name = heapq.heappop(running)
        free += 1
        ends[jobs[name].stage].append(now)
        for follower in followers[name]:
            waiting[follower].discard(name)
            if not waiting[follower]:
                heapq.heappush(ready, (order[jobs[follower].stage], numbers[follower], follower))
    total = sum(job.seconds for job in jobs.values())
    per_minute = Counter(int(end // 60) for end in ends["train"])
    return Run(now, total / (now * gpus), max(ends["adapt"]), max(ends["generate"]), max(per_minute.values()) / 60)


def longest_chain(jobs: dict[str, Job]) -> float:
    """Return the seconds of the critical path: the lower bound for any number of GPUs."""
    done: dict[str, float] = {}
    for name, job in jobs.items():  # dependencies come first
        done[name] = job.seconds + max((done[need] for need in job.needs), default=0.0)
    return max(done.values())


# -- output


def main() -> None:
    """Plan, count, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--driver-rate", type=float, default=20.0, help="cells per second that one driver can dispatch")
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    for field in fields(Rates):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    options = parser.parse_args()
    rates = replace(Rates(), **{field.name: getattr(options, field.name) for field in fields(Rates)})
    plan = make_plan(leaderboard())
    jobs = jobs_of(plan, rates)
    stages = _stages_table(plan, jobs)
    runs = {gpus: simulate(jobs, gpus, rates, options.driver_rate) for gpus in options.gpus}
    clusters = _clusters_table(runs)
    console = Console()
    for title, (header, rows) in (("jobs", stages), ("clusters", clusters)):
        table = Table(*header, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    chain = longest_chain(jobs)
    console.print(f"Longest chain of jobs: {chain / 60:.0f} min.")
    if options.out:
        options.out.write_text("\n\n".join(_markdown(*table) for table in (stages, clusters)) + "\n")
    figures = {gpus: {f.name: round(getattr(run, f.name), 4) for f in fields(Run)} for gpus, run in runs.items()}
    print(json.dumps({"chain_seconds": round(chain), "driver_rate": options.driver_rate, "runs": figures}))


Cells = tuple[Sequence[str], list[Sequence[str]]]


def _stages_table(plan: Plan, jobs: dict[str, Job]) -> Cells:
    header = ("stage", "jobs", "seconds per job, median (longest)", "GPU hours", "share")
    total, rows = sum(job.seconds for job in jobs.values()), []
    for stage in STAGES:
        each = sorted(job.seconds for job in jobs.values() if job.stage == stage)
        numbers = (
            f"{each[len(each) // 2]:.1f} ({each[-1]:.1f})",
            f"{sum(each) / 3600:.0f}",
            f"{sum(each) / total:.0%}",
        )
        rows.append((stage, f"{len(each):,}", *numbers))
    on_cpu = sum(size for key, size in plan.pool_sizes.items() if not _uses_gpu(plan, key))
    rows.append(("images of augmenters without GPU", f"{on_cpu:,}", "", "0", ""))
    return header, [*rows, ("all", f"{len(jobs):,}", "", f"{total / 3600:.0f}", "")]


def _uses_gpu(plan: Plan, pool_key: str) -> bool:
    return plan.library.augmenter(plan.pools[pool_key].augmenter).uses_gpu


def _clusters_table(runs: dict[int, Run]) -> Cells:
    header = ("GPUs", "hours", "GPUs busy", "last adapter, hours", "last image, hours", "cells/s at the peak")
    return header, [
        (
            str(gpus),
            f"{run.seconds / 3600:.2f}",
            f"{run.busy:.0%}",
            f"{run.adapted / 3600:.2f}",
            f"{run.generated / 3600:.2f}",
            f"{run.rate:.1f}",
        )
        for gpus, run in runs.items()
    ]


def _markdown(header: Sequence[str], rows: list[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
