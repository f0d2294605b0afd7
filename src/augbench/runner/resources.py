"""Resource allotment: what an adaptation, a generator and a training reserve on the cluster, and how many run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, isinf
from typing import Any, Literal

from augbench.core import registry
from augbench.core.errors import UserError
from augbench.core.specs import AdapterSpec, FeatureSpec, PoolSpec
from augbench.planning.gpu_memory import Stage, estimates
from augbench.planning.grid import StageResources
from augbench.planning.plan import Plan

LEAST = 0.25  # smallest default share of a GPU: more processes gain nothing, as they share its compute
UNKNOWN = {"train": 0.25, "adapt": 0.5, "generate": 0.5, "features": 0.25}  # shares of what has no estimate
CARD = 24.0  # GiB that a GPU of unknown memory is taken to have: the card of the papers
ROUNDING = 1e-6  # Ray counts in ten-thousandths
ANY = "any"  # setting: any kind of GPU
KIND = "accelerator_type:"  # prefix of the resource by which Ray marks a node's kind of GPU
SOME = 0.001  # amount of that resource, as in Ray's option `accelerator_type`: it limits nothing


@dataclass(frozen=True)
class Node:
    """The resources of a cluster node, as Ray counts them."""

    cpus: float
    gpus: float = 0.0
    memory: float = inf  # bytes
    kind: str = ""  # of its GPUs, as named by Ray: A100, T4, ...; "" if unknown
    gpu_memory: float = 0.0  # GiB of the smallest of its GPUs; 0 if unknown

    @classmethod
    def of(cls, resources: Mapping[str, float], gpu_memory: float = 0.0) -> Node:
        """Read a node from Ray's resource dict."""
        kinds = sorted(name.removeprefix(KIND) for name in resources if name.startswith(KIND))
        kind = kinds[0] if kinds else ""
        amounts = resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources.get("memory", inf)
        return cls(*amounts, kind, gpu_memory)


@dataclass(frozen=True)
class Share:
    """What one worker of a stage reserves, and the number of workers."""

    cpu: float
    gpu: float
    memory: int  # bytes; 0: none reserved
    workers: int
    kind: str = ""  # of GPU; "": any

    @property
    def bundle(self) -> dict[str, float]:
        """A resource bundle of a Ray placement group, without zero amounts."""
        named = {"CPU": self.cpu, "GPU": self.gpu, "memory": self.memory, **self._of_kind}
        return {name: amount for name, amount in named.items() if amount}

    @property
    def options(self) -> dict[str, Any]:
        """Options of Ray tasks and of Ray Data's actors."""
        custom = {"resources": self._of_kind} if self.kind else {}
        return {"num_cpus": self.cpu, "num_gpus": self.gpu, "memory": self.memory or None, **custom}

    @property
    def _of_kind(self) -> dict[str, float]:
        return {f"{KIND}{self.kind}": SOME} if self.kind else {}

    def __str__(self) -> str:
        memory = f" and {self.memory / 1e9:g} GB" if self.memory else ""
        return f"{self.cpu:g} CPUs, {self.gpu:g} GPUs{f' ({self.kind})' if self.kind else ''}{memory}"


LaneKind = Literal["gpu", "cpu", "features"]
"""Of units: of an augmenter that can use a GPU, or cannot; features."""


@dataclass(frozen=True)
class WorkerLane:
    """Workers of a stage for some kinds of units."""

    share: Share
    kinds: frozenset[LaneKind]

    def serves(self, unit: AdapterSpec | PoolSpec | FeatureSpec) -> bool:
        """Whether this lane does the work of that unit."""
        if isinstance(unit, FeatureSpec):
            return "features" in self.kinds
        return ("gpu" if registry.get("augmenters", unit.augmenter.name).uses_gpu else "cpu") in self.kinds


@dataclass(frozen=True)
class Allotment:
    """What each stage reserves.

    Augmenters that use no GPU get a lane of their own where others reserve a GPU: they never wait for it. Features
    always have one: all cells wait for those of a dataset, which should not wait for images that take hours. On a
    CPU-only cluster generators reserve nothing by default and share the cores with trainings: a generator that reserved
    whole CPUs could starve, or be starved by, the trainings that wait for its images.
    """

    train: Share
    adapt: tuple[WorkerLane, ...]  # searches too
    generate: tuple[WorkerLane, ...]  # features too
    measure: Share  # fidelity
    notes: tuple[str, ...] = ()  # decisions to print
    in_turn: bool = False  # trainings start when all else is made


def allot(plan: Plan, nodes: Sequence[Node], whole_gpus: bool = False) -> Allotment:
    """Compute the allotment from the grid's ``resources`` and the nodes of the cluster.

    A share of a GPU that the grid leaves open is what the stage is estimated to need of the GPU's memory.

    Args:
        plan: the plan.
        nodes: of the cluster.
        whole_gpus: reserve a whole GPU where otherwise a share of one; lanes and stages then take turns.

    Raises:
        UserError: not a single training fits, or not a single worker of a stage before it.
    """
    try:
        return _allot(plan, nodes, whole_gpus, in_turn=whole_gpus)
    except UserError:
        if whole_gpus or not any(node.gpus for node in nodes):
            raise
        return _allot(plan, nodes, whole_gpus, in_turn=True)  # what does not fit side by side may fit in turn


def _allot(plan: Plan, nodes: Sequence[Node], whole_gpus: bool, in_turn: bool) -> Allotment:
    settings = plan.grid.resources
    kind, notes = _one_kind(settings.train, nodes)
    # Generators fill nodes in this order: those without a GPU first, and last the GPUs that trainings may use.
    nodes = sorted(nodes, key=lambda node: (node.gpus > 0 and node.kind == kind != "", int(node.gpus)))
    on_gpu = {key: plan.library.augmenter(pool.augmenter).uses_gpu for key, pool in plan.pools.items()}
    learning = {on_gpu[key] for key, pool in plan.pools.items() if plan.adapter(pool) or plan.search(pool)}
    shares = _DefaultShares(plan, nodes, whole_gpus)
    makers = _lanes("generate", settings.generate, nodes, on_gpu.values(), shares)
    makers += _feature_lanes(plan, nodes, kind, shares)
    generate, beside_generators = _fitted("generate", makers, nodes, in_turn)
    learners = _lanes("adapt", settings.adapting, nodes, learning, shares)
    adapt, beside_adapters = _fitted("adapt", learners, nodes, in_turn)
    train = _train_share(plan, kind, shares)
    slots = min(_place(capacities, train, train.workers) for capacities in (beside_generators, beside_adapters))
    if slots < 1:
        beside = "" if in_turn else f" beside {sum(lane.share.workers for lane in generate)} generators"
        raise UserError(
            f"no training fits: it reserves {train}{beside}, and the machines of the cluster have "
            f"{_describe_all(nodes)}: lower resources.train or threads_per_cell"
        )
    train = replace(train, workers=slots)
    measure = max((lane.share for lane in generate), key=lambda share: share.gpu, default=train)
    if in_turn and not whole_gpus:
        shares.notes.append("Trainings wait for all images: a worker that makes them and one that trains share no GPU.")
    return Allotment(train, adapt, generate, measure, (*notes, *shares.notes), in_turn)


class _DefaultShares:
    """Shares of a GPU by the estimates of `planning.gpu_memory` and the memory of the GPUs."""

    def __init__(self, plan: Plan, nodes: Sequence[Node], whole_gpus: bool) -> None:
        self.estimates, self.nodes, self.whole_gpus = estimates(plan), nodes, whole_gpus
        self.notes: list[str] = []  # what to print

    def of(self, stage: Stage, kind: str, given: float | None) -> float:
        """Return the share of a stage's worker on GPUs of a kind; ``given`` is that of the grid, None: it has none."""
        if given is None:
            given = self._by_estimate(stage, kind)
        return max(given, 1.0) if given and self.whole_gpus else given

    def _by_estimate(self, stage: Stage, kind: str) -> float:
        needs = self.estimates.get(stage, {})
        if not needs or not any(node.gpus for node in self.nodes):
            return 0.0
        cards = [node.gpu_memory for node in self.nodes if node.gpus and kind in ("", node.kind)]
        card, share = min(filter(None, cards), default=CARD), LEAST
        for name, gib in needs.items():
            share = max(share, UNKNOWN[stage] if gib is None else ceil(20 * gib / card) / 20)
            if gib is not None and gib > card and not self.whole_gpus:
                need = f"{stage} '{name}' needs an estimated {gib:.1f} GiB of GPU memory"
                self.notes.append(f"{need}, and a GPU has {card:.0f}: it may fail, as nothing was ever measured")
        return min(share, 1.0)


def _one_kind(settings: StageResources, nodes: Sequence[Node]) -> tuple[str, tuple[str, ...]]:
    """Choose the kind of GPU for trainings; return it with a note if it was not set by the grid.

    Kinds of GPU round differently, so the cells of one table should run on a single kind.
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
        f"Trainings run on {chosen} alone, not on {others}: all cells of a table use one kind of GPU "
        "(resources.train.accelerator names another, or 'any').",
    )


def _train_share(plan: Plan, kind: str, shares: _DefaultShares) -> Share:
    """Return the share of a training, with the maximum number of concurrent trainings."""
    settings = plan.grid.resources.train
    threads = max(protocol.threads_per_cell for protocol in plan.grid.protocols)
    cpu = threads if settings.cpu is None else settings.cpu
    most = min(settings.workers or len(plan.cells), len(plan.cells))
    return Share(cpu, shares.of("train", kind, settings.gpu), settings.memory or 0, most, kind)


def _lanes(
    stage: Stage, settings: StageResources, nodes: Sequence[Node], on_gpu: Iterable[bool], defaults: _DefaultShares
) -> list[WorkerLane]:
    """Return a lane per kind of augmenter (with or without a GPU), or a single one if both reserve the same."""
    shares: dict[LaneKind, Share] = {
        "gpu" if uses_gpu else "cpu": _maker_share(stage, settings, nodes, uses_gpu, defaults)
        for uses_gpu in sorted(set(on_gpu), reverse=True)
    }
    if len(set(shares.values())) == 1:
        return [WorkerLane(share, frozenset(shares)) for share in set(shares.values())]
    return [WorkerLane(share, frozenset({kind})) for kind, share in shares.items()]


def _feature_lanes(plan: Plan, nodes: Sequence[Node], kind: str, shares: _DefaultShares) -> list[WorkerLane]:
    """Return the lane of features: a worker per GPU of that kind, else per CPU, as trainings wait for it."""
    if not plan.features:
        return []
    gpus = sum(int(node.gpus) for node in nodes if kind in ("", node.kind))
    workers = gpus or max(1, int(sum(node.cpus for node in nodes)))
    return [WorkerLane(Share(0.0, shares.of("features", kind, None), 0, workers, kind), frozenset({"features"}))]


def _maker_share(
    stage: Stage, settings: StageResources, nodes: Sequence[Node], uses_gpu: bool, shares: _DefaultShares
) -> Share:
    """Return the share of a worker that adapts or generates, for augmenters of one kind."""
    cpu = settings.cpu or 0.0
    kind = settings.accelerator if uses_gpu and settings.accelerator not in (ANY, None) else ""
    cpus = sum(node.cpus for node in nodes)
    gpus = sum(node.gpus for node in nodes if kind in ("", node.kind))
    gpu = shares.of(stage, kind, settings.gpu) if uses_gpu else 0.0
    workers = settings.workers or max(1, int(gpus) if gpu else int(cpus / 2 / max(cpu, 1.0)))
    return Share(cpu, gpu, settings.memory or 0, workers, kind)


# -- placement


@dataclass
class _Capacity:
    """The free resources of a node."""

    cpus: float
    gpus: list[float]  # free part of each GPU: a fractional share must fit on one
    memory: float
    kind: str

    def reserve(self, share: Share) -> bool:
        """Reserve a share if it fits; return whether it does."""
        whole = share.gpu >= 1
        fitting = [i for i, free in enumerate(self.gpus) if free >= min(share.gpu, 1) - ROUNDING] if share.gpu else []
        needed = round(share.gpu) if whole else int(share.gpu > 0)
        if share.kind not in ("", self.kind):
            return False
        if share.cpu > self.cpus + ROUNDING or share.memory > self.memory or len(fitting) < needed:
            return False
        for i in sorted(fitting, key=lambda i: self.gpus[i])[:needed]:  # the fullest GPU that fits, as Ray packs
            self.gpus[i] -= min(share.gpu, 1)
        self.cpus -= share.cpu
        self.memory -= share.memory
        return True


def _fitted(
    stage: str, lanes: Iterable[WorkerLane], nodes: Sequence[Node], in_turn: bool
) -> tuple[tuple[WorkerLane, ...], list[_Capacity]]:
    """Limit each lane to the workers that fit beside those before it; return the lanes and the remaining capacities.

    Lanes that run ``in_turn`` have all capacities each, and leave them all.

    Raises:
        UserError: not a single worker of a lane fits; it would wait forever.
    """
    capacities = _capacities(nodes)
    fitted = []
    for lane in lanes:
        placed = _place(_capacities(nodes) if in_turn else capacities, lane.share, lane.share.workers)
        if not placed:
            raise UserError(
                f"no worker that is to {stage} fits: it reserves {lane.share}, and the machines of the cluster have "
                f"{_describe_all(nodes)}: lower resources.{stage}"
            )
        fitted.append(replace(lane, share=replace(lane.share, workers=placed)))
    return tuple(fitted), capacities


def _capacities(nodes: Sequence[Node]) -> list[_Capacity]:
    return [_Capacity(node.cpus, [1.0] * int(node.gpus), node.memory, node.kind) for node in nodes]


def _place(capacities: Sequence[_Capacity], share: Share, most: int) -> int:
    """Reserve up to ``most`` workers; return how many fit."""
    if not share.bundle:
        return most
    placed = 0
    for capacity in capacities:
        while placed < most and capacity.reserve(share):
            placed += 1
    return placed


def _describe_all(nodes: Sequence[Node]) -> str:
    each = Counter(_describe(node) for node in nodes)
    return "; ".join(f"{text} ({number} times)" if number > 1 else text for text, number in sorted(each.items()))


def _describe(node: Node) -> str:
    memory = "" if isinf(node.memory) else f", {node.memory / 1e9:.3g} GB"
    return f"{node.cpus:g} CPUs, {node.gpus:g} GPUs{f' ({node.kind})' if node.kind else ''}{memory}"
