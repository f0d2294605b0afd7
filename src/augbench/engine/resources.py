"""How a run is spread over a cluster: what a generator and a training reserve, and how many of each."""

from __future__ import annotations

from dataclasses import dataclass

from augbench.core.errors import UserError
from augbench.core.plan import Plan

GPU_PER_TRAINING = 0.25  # a ResNet-50 at 224 x 632 and batch 32 leaves room for four on one GPU
GPU_PER_GENERATOR = 0.5


@dataclass(frozen=True)
class Allotment:
    """Reserved resources. On a CPU-only cluster generators reserve nothing: they share the cores with trainings.

    A generator that reserved whole CPUs could starve, or be starved by, the trainings that wait for its pictures.
    """

    train_cpu: float
    train_gpu: float
    slots: int
    generate_cpu: float
    generate_gpu: float
    generators: int


def allot(plan: Plan, cpus: float, gpus: float) -> Allotment:
    """From the grid's ``resources`` and what the cluster has.

    Raises:
        UserError: not even one training fits.
    """
    train, generate = plan.grid.resources.train, plan.grid.resources.generate
    wants_gpu = any(plan.library.augmenter(pool.augmenter).uses_gpu for pool in plan.pools.values())
    threads = max(protocol.threads_per_cell for protocol in plan.grid.protocols)
    train_cpu = train.cpu if train.cpu is not None else threads
    train_gpu = train.gpu if train.gpu is not None else GPU_PER_TRAINING if gpus else 0.0
    generate_cpu = generate.cpu if generate.cpu is not None else 0.0
    generate_gpu = generate.gpu if generate.gpu is not None else GPU_PER_GENERATOR if gpus and wants_gpu else 0.0
    generators = generate.workers or max(1, int(gpus) if generate_gpu else int(cpus) // 2)
    if not plan.pools:
        generators = 0
    slots = (cpus - generators * generate_cpu) // train_cpu if train_cpu else float("inf")
    if train_gpu:
        slots = min(slots, (gpus - generators * generate_gpu) // train_gpu)
    slots = int(min(slots, train.workers or slots, len(plan.cells)))
    if slots < 1:
        raise UserError(
            f"no training fits: the cluster has {cpus:g} CPUs and {gpus:g} GPUs, a training reserves {train_cpu:g} and "
            f"{train_gpu:g} beside {generators} generators: lower resources.train or threads_per_cell"
        )
    return Allotment(train_cpu, train_gpu, slots, generate_cpu, generate_gpu, generators)
