"""What one classifier costs: seconds of learning, of generating and of training, and the records that say so."""

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
    """A file of a store that a number comes from."""

    kind: str  # "cells", "fidelity", "pools", "adapters", "searches", "shared" or "costs": its folder under records/
    key: str
    store: Store
    name: str  # in the store


@dataclass(frozen=True)
class Cost:
    """Seconds of one worker for what one classifier needs before it is trained, as `evidence.pareto` has them."""

    generating: float = 0.0  # of its N_aug pictures
    learning: float = 0.0  # its adapters, class pictures and searches, whole, though other classifiers may share them
    is_whole: bool = True  # False: some part is not on record, so it costs more than this
    sources: tuple[tuple[Source, float], ...] = ()  # with the seconds of each

    @property
    def total(self) -> float:
        """All of it."""
        return self.generating + self.learning


@dataclass(frozen=True)
class Pool:
    """A pool that a store knows, its pictures there or gone."""

    spec: PoolSpec
    seconds_per_picture: float
    source: Source


class Costs:
    """Finds what cells cost in what stores tell of their parts, see `augbench.report.evidence.part_costs`."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._parts: dict[str, tuple[MadePart, Source]] = {}
        for place, store in enumerate(gathered.stores):
            said = _told_elsewhere(gathered, store, place)
            for key, part in sorted(read_costs(store).items()):
                source = _own_file(store, part.kind, key) or said(key)
                self._parts.setdefault(key, (part, source))
        pools = [
            Pool(PoolSpec.from_dict(part.spec), part.seconds / part.pictures, source)
            for part, source in self._parts.values()
            if part.spec is not None and part.pictures and part.seconds is not None
        ]
        self._pools = PoolIndex((pool.spec, pool) for pool in pools)

    def of(self, key: str) -> Cost:
        """The cost of a cell."""
        spec = self._gathered.specs[key]
        if not spec["n_aug"]:
            return Cost()
        pictures = spec["n_aug"] * max(len(spec["data"]["classes"]), 1)
        generating, learning, is_whole = 0.0, 0.0, True
        sources: dict[Source, float] = {}
        for augmenter, share in slices_of(spec["augmenter"]):
            pool = self._pools.find(spec, augmenter)
            if pool is None:
                is_whole = False
                continue
            learned, known = self._learning(pool.spec)
            seconds = share * pictures * pool.seconds_per_picture
            generating, learning, is_whole = generating + seconds, learning + sum(learned.values()), is_whole and known
            sources |= {pool.source: seconds} | learned
        return Cost(generating, learning, is_whole, tuple(sources.items()))

    def pool(self, key: str) -> Pool | None:
        """The pool of a cell that takes from one alone; None for mixtures, and where nothing is on record."""
        spec = self._gathered.specs[key]
        takes = list(slices_of(spec["augmenter"]))
        return self._pools.find(spec, takes[0][0]) if spec["n_aug"] and len(takes) == 1 else None

    def _learning(self, pool: PoolSpec) -> tuple[dict[Source, float], bool]:
        """Seconds of its adapter, of what that shares with others, and of its search; and whether that is all."""
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
    """The file in which a part tells what it cost, if the part is there."""
    name = marker_of(store, kind, key)
    return Source(kind, key, store, name) if store.files.exists(name) else None


def _told_elsewhere(gathered: Gathered, store: Store, place: int) -> Callable[[str], Source]:
    """Who tells of a part that is gone: the fidelity of a pool, else the store's list of costs."""
    fidelity = {}
    for key in sorted(key for key in gathered.measured if gathered.home[key] is store):
        record = store.read_json("fidelity", key) or {}
        pool = PoolSpec.from_dict(record["spec"]["pool"])
        fidelity[pool.key] = Source("fidelity", key, store, store.name("fidelity", key))
    costs = Source("costs", f"costs-{place}", store, COSTS)
    return lambda key: fidelity.get(key, costs)


def _learns(pool: PoolSpec) -> bool:
    """Whether its augmenter learns before it generates; True where nobody can be asked."""
    plugin = plugin_of(pool)
    return plugin is None or plugin.learns
