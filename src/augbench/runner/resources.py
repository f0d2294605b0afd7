"""How a run is spread over a cluster: what an adaptation, a generator and a training reserve, and how many of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isinf
from typing import Any

from augbench.core import registry
from augbench.core.errors import UserError
from augbench.core.specs import AugmenterSpec
from augbench.planning.grid import StageResources
from augbench.planning.plan import Plan

GPU_PER_TRAINING = 0.25  # a ResNet-50 at 224 x 632 and batch 32 leaves room for four on one GPU
GPU_PER_GENERATOR = 0.5  # and of an adaptation: what one leaves, the trainings beside it may take
ROUNDING = 1e-6  # Ray counts in ten-thousandths
ANY = "any"  # kind of GPU
KIND = "accelerator_type:"  # before the kind of its GPUs, a resource of each machine: Ray finds it out
SOME = 0.001  # of that resource, as Ray's own option `accelerator_type` takes: it bounds nothing


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, as Ray counts it."""

    cpus: float
    gpus: float = 0.0
    memory: float = inf  # bytes
    kind: str = ""  # of its GPUs, as Ray calls it: A100, T4, ...; "" where Ray does not know

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> Node:
        """From what Ray says of a machine."""
        kinds = sorted(name.removeprefix(KIND) for name in resources if name.startswith(KIND))
        kind = kinds[0] if kinds else ""
        return cls(resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources.get("memory", inf), kind)


@dataclass(frozen=True)
class Share:
    """What one worker of a stage reserves, and how many work at once."""

    cpu: float
    gpu: float
    memory: int  # bytes; 0: no promise
    workers: int
    kind: str = ""  # of GPU; "": whichever

    @property
    def bundle(self) -> dict[str, float]:
        """As Ray Tune's placement takes it, without what is not reserved."""
        named = {"CPU": self.cpu, "GPU": self.gpu, "memory": self.memory, **self._of_kind}
        return {name: amount for name, amount in named.items() if amount}

    @property
    def options(self) -> dict[str, Any]:
        """As Ray's tasks and Ray Data's actors take it."""
        custom = {"resources": self._of_kind} if self.kind else {}
        return {"num_cpus": self.cpu, "num_gpus": self.gpu, "memory": self.memory or None, **custom}

    @property
    def _of_kind(self) -> dict[str, float]:
        return {f"{KIND}{self.kind}": SOME} if self.kind else {}

    def __str__(self) -> str:
        memory = f" and {self.memory / 1e9:g} GB" if self.memory else ""
        return f"{self.cpu:g} CPUs, {self.gpu:g} GPUs{f' ({self.kind})' if self.kind else ''}{memory}"


@dataclass(frozen=True)
class WorkerLane:
    """Workers that make adapters or pictures, and for which augmenters they do: those that use a GPU, or not."""

    share: Share
    kinds: frozenset[bool]  # of `Augmenter.uses_gpu`

    def serves(self, augmenter: AugmenterSpec) -> bool:
        """Whether that augmenter's work is done here."""
        return registry.get("augmenters", augmenter.name).uses_gpu in self.kinds


@dataclass(frozen=True)
class Allotment:
    """What each stage reserves.

    Augmenters that use no GPU have a lane of their own where the others reserve one: they never wait for it. On a
    CPU-only cluster neither kind reserves anything by itself: they share the cores with trainings. A generator that
    reserved whole CPUs could starve, or be starved by, the trainings that wait for its pictures.
    """

    train: Share
    adapt: tuple[WorkerLane, ...]  # searches too
    generate: tuple[WorkerLane, ...]
    measure: Share  # fidelity
    notes: tuple[str, ...] = ()  # what was decided that a person should know


def allot(plan: Plan, nodes: Sequence[Node]) -> Allotment:
    """From the grid's ``resources`` and the machines of the cluster.

    Raises:
        UserError: not even one training fits, or not one of the workers that it waits for.
    """
    settings = plan.grid.resources
    kind, notes = _one_kind(settings.train, nodes)
    # Machines in the order in which makers of pictures fill them: what needs no GPU goes where there is none, and the
    # GPUs that trainings may use come last.
    nodes = sorted(nodes, key=lambda node: (node.gpus > 0 and node.kind == kind != "", int(node.gpus)))
    kinds = {key: plan.library.augmenter(pool.augmenter).uses_gpu for key, pool in plan.pools.items()}
    learning = {kinds[key] for key, pool in plan.pools.items() if plan.adapter(pool) or plan.search(pool)}
    generate, beside_generators = _fitted("generate", _lanes(settings.generate, nodes, kinds.values()), nodes)
    adapt, beside_adapters = _fitted("adapt", _lanes(settings.adapting, nodes, learning), nodes)
    train = _train_share(plan, any(node.gpus for node in nodes), kind)
    slots = min(_place(rooms, train, train.workers) for rooms in (beside_generators, beside_adapters))
    if slots < 1:
        raise UserError(
            f"no training fits: it reserves {train} beside {sum(lane.share.workers for lane in generate)} generators, "
            f"and the machines of the cluster have {_all_words(nodes)}: lower resources.train or threads_per_cell"
        )
    train = replace(train, workers=slots)
    measure = max((lane.share for lane in generate), key=lambda share: share.gpu, default=train)
    return Allotment(train, adapt, generate, measure, notes)


def _one_kind(settings: StageResources, nodes: Sequence[Node]) -> tuple[str, tuple[str, ...]]:
    """The kind of GPU that trainings run on, and a note where that was decided here.

    Kinds round differently, so cells that one table compares should not be spread over several.
    """
    if settings.accelerator or settings.gpu == 0:
        return ("" if settings.accelerator in (ANY, None) else settings.accelerator), ()
    gpus: Counter[str] = Counter()
    for node in nodes:
        if node.gpus:
            gpus[node.kind] += int(node.gpus)
    if len(gpus) < 2:
        return "", ()
    chosen = max(sorted(filter(None, gpus)), key=lambda kind: gpus[kind])
    others = ", ".join(f"{gpus[kind]} x {kind or 'others'}" for kind in sorted(gpus) if kind != chosen)
    return chosen, (
        f"Trainings run on {chosen} alone, not on {others}: what a table compares is made on one kind of GPU "
        "(resources.train.accelerator names another, or 'any').",
    )


def _train_share(plan: Plan, gpus: bool, kind: str) -> Share:
    """Of a training, and the most that could go on at once."""
    settings = plan.grid.resources.train
    threads = max(protocol.threads_per_cell for protocol in plan.grid.protocols)
    cpu = threads if settings.cpu is None else settings.cpu
    by_default = GPU_PER_TRAINING if gpus else 0.0
    most = min(settings.workers or len(plan.cells), len(plan.cells))
    return Share(cpu, by_default if settings.gpu is None else settings.gpu, settings.memory or 0, most, kind)


def _lanes(settings: StageResources, nodes: Sequence[Node], kinds: Iterable[bool]) -> list[WorkerLane]:
    """A lane for each kind of augmenter that occurs; one for both where they reserve the same."""
    shares = {uses_gpu: _maker_share(settings, nodes, uses_gpu) for uses_gpu in sorted(set(kinds), reverse=True)}
    if len(set(shares.values())) == 1:
        return [WorkerLane(share, frozenset(shares)) for share in set(shares.values())]
    return [WorkerLane(share, frozenset({uses_gpu})) for uses_gpu, share in shares.items()]


def _maker_share(settings: StageResources, nodes: Sequence[Node], uses_gpu: bool) -> Share:
    """Of a worker that adapts or generates, for augmenters of one kind."""
    cpu = settings.cpu or 0.0
    kind = settings.accelerator if uses_gpu and settings.accelerator not in (ANY, None) else ""
    cpus = sum(node.cpus for node in nodes)
    gpus = sum(node.gpus for node in nodes if kind in ("", node.kind))
    by_default = GPU_PER_GENERATOR if gpus else 0.0
    gpu = (by_default if settings.gpu is None else settings.gpu) if uses_gpu else 0.0
    workers = settings.workers or max(1, int(gpus) if gpu else int(cpus / 2 / max(cpu, 1.0)))
    return Share(cpu, gpu, settings.memory or 0, workers, kind)


# -- what fits


@dataclass
class _Capacity:
    """What is free on a machine."""

    cpus: float
    gpus: list[float]  # of each GPU: a share of one must lie on one
    memory: float
    kind: str

    def takes(self, share: Share) -> bool:
        """Reserve it, if it fits."""
        whole = share.gpu >= 1
        fitting = [i for i, free in enumerate(self.gpus) if free >= min(share.gpu, 1) - ROUNDING] if share.gpu else []
        needed = round(share.gpu) if whole else int(share.gpu > 0)
        if share.kind not in ("", self.kind):
            return False
        if share.cpu > self.cpus + ROUNDING or share.memory > self.memory or len(fitting) < needed:
            return False
        for i in sorted(fitting, key=lambda i: self.gpus[i])[:needed]:  # the fullest that fits, as Ray packs
            self.gpus[i] -= min(share.gpu, 1)
        self.cpus -= share.cpu
        self.memory -= share.memory
        return True


def _fitted(
    stage: str, lanes: Iterable[WorkerLane], nodes: Sequence[Node]
) -> tuple[tuple[WorkerLane, ...], list[_Capacity]]:
    """Each lane with as many of its workers as fit, and what they leave.

    Raises:
        UserError: not one worker of a lane fits; it would wait for ever.
    """
    rooms = [_Capacity(node.cpus, [1.0] * int(node.gpus), node.memory, node.kind) for node in nodes]
    fitted = []
    for lane in lanes:
        placed = _place(rooms, lane.share, lane.share.workers)
        if not placed:
            raise UserError(
                f"no worker that is to {stage} fits: it reserves {lane.share}, and the machines of the cluster have "
                f"{_all_words(nodes)}: lower resources.{stage}"
            )
        fitted.append(replace(lane, share=replace(lane.share, workers=placed)))
    return tuple(fitted), rooms


def _place(rooms: Sequence[_Capacity], share: Share, most: int) -> int:
    """How many of at most ``most`` workers fit; they are reserved."""
    if not share.bundle:
        return most
    placed = 0
    for room in rooms:
        while placed < most and room.takes(share):
            placed += 1
    return placed


def _all_words(nodes: Sequence[Node]) -> str:
    each = Counter(_words(node) for node in nodes)
    return "; ".join(f"{words} ({number} times)" if number > 1 else words for words, number in sorted(each.items()))


def _words(node: Node) -> str:
    memory = "" if isinf(node.memory) else f", {node.memory / 1e9:.3g} GB"
    return f"{node.cpus:g} CPUs, {node.gpus:g} GPUs{f' ({node.kind})' if node.kind else ''}{memory}"
