"""The cost of one classifier: seconds of learning and generating, and the records they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from augbench.core.specs import PoolSpec, SearchSpec
from augbench.report.evidence.part_costs import COSTS, MadePart, marker_of, read_costs
from augbench.report.evidence.pool_slices import PoolIndex, plugin_of, slices_of
from augbench.report.leaderboard.merge import Gathered
from augbench.storage.store import Kind, Store


@dataclass(frozen=True)
class Source:
    """The file of a store that a number comes from."""

    kind: str  # "cells", "fidelity", "pools", "adapters", "searches", "shared" or "costs": its folder under records/
    key: str
    store: Store
    name: str  # in the store


@dataclass(frozen=True)
class Cost:
    """Seconds of one worker for what one classifier needs before its training, as in `evidence.pareto`."""

    generating: float = 0.0  # of its N_aug images
    learning: float = 0.0  # adapters, class images and searches, counted in full even if other classifiers share them
    is_whole: bool = True  # False: some part is not recorded, so the true cost is higher
    sources: tuple[tuple[Source, float], ...] = ()  # with the seconds of each

    @property
    def total(self) -> float:
        """Generating and learning together."""
        return self.generating + self.learning


@dataclass(frozen=True)
class PoolCost:
    """A recorded pool, whether or not its images still exist."""

    spec: PoolSpec
    seconds_per_picture: float
    source: Source


class Costs:
    """Looks up the costs of cells in the recorded costs of their parts, see `augbench.report.evidence.part_costs`."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._parts: dict[str, tuple[MadePart, Source]] = {}
        for number, store in enumerate(gathered.stores):
            fallback = _fallback_sources(gathered, store, number)
            for key, part in sorted(read_costs(store).items()):
                source = _own_file(store, part.kind, key) or fallback(key)
                self._parts.setdefault(key, (part, source))
        pools = [
            PoolCost(PoolSpec.from_dict(part.spec), part.seconds / part.pictures, source)
            for part, source in self._parts.values()
            if part.spec is not None and part.pictures and part.seconds is not None
        ]
        self._pools = PoolIndex((pool.spec, pool) for pool in pools)

    def of(self, key: str) -> Cost:
        """Return the cost of a cell."""
        spec = self._gathered.specs[key]
        if not spec["n_aug"]:
            return Cost()
        images = spec["n_aug"] * max(len(spec["data"]["classes"]), 1)
        generating, learning, is_whole = 0.0, 0.0, True
        sources: dict[Source, float] = {}
        for augmenter, share in slices_of(spec["augmenter"]):
            pool = self._pools.find(spec, augmenter)
            if pool is None:
                is_whole = False
                continue
            learned, known = self._learning(pool.spec)
            seconds = share * images * pool.seconds_per_picture
            generating, learning, is_whole = generating + seconds, learning + sum(learned.values()), is_whole and known
            sources |= {pool.source: seconds} | learned
        return Cost(generating, learning, is_whole, tuple(sources.items()))

    def pool(self, key: str) -> PoolCost | None:
        """Return the pool of a cell that uses only one; None for mixtures and unrecorded pools."""
        spec = self._gathered.specs[key]
        slices = list(slices_of(spec["augmenter"]))
        return self._pools.find(spec, slices[0][0]) if spec["n_aug"] and len(slices) == 1 else None

    def _learning(self, pool: PoolSpec) -> tuple[dict[Source, float], bool]:
        """Return the seconds of its adapter, of shared parts and of its search; and whether nothing is missing."""
        adapter, search = (self._parts.get(key) for key in (pool.adapter.key, SearchSpec(pool.adapter).key))
        found = {search[1]: search[0].seconds or 0.0} if search else {}
        if adapter is None or adapter[0].seconds is None:
            return found, not _learns(pool)
        found[adapter[1]] = adapter[0].own_seconds or 0.0
        for key, while_adapting in sorted((adapter[0].shared or {}).items()):
            part = self._parts.get(key)
            source = part[1] if part else adapter[1]
            seconds = (part[0].seconds if part else None) or while_adapting
            found[source] = found.get(source, 0.0) + seconds
        return found, True


def _own_file(store: Store, kind: Kind, key: str) -> Source | None:
    """Return the file in which a part records its cost, if the part exists."""
    name = marker_of(store, kind, key)
    return Source(kind, key, store, name) if store.files.exists(name) else None


def _fallback_sources(gathered: Gathered, store: Store, number: int) -> Callable[[str], Source]:
    """Return a lookup of the cost source of a deleted part: the pool's fidelity record, else the store's cost list."""
    fidelity = {}
    for key in sorted(key for key in gathered.measured if gathered.home[key] is store):
        record = store.read_json("fidelity", key) or {}
        pool = PoolSpec.from_dict(record["spec"]["pool"])
        fidelity[pool.key] = Source("fidelity", key, store, store.name("fidelity", key))
    costs = Source("costs", f"costs-{number}", store, COSTS)
    return lambda key: fidelity.get(key, costs)


def _learns(pool: PoolSpec) -> bool:
    """Return whether its augmenter learns before it generates; True if its plug-in is not available."""
    plugin = plugin_of(pool)
    return plugin is None or plugin.learns
