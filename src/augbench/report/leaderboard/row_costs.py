"""The cost of one classifier: seconds of learning and generating, and the records they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from augbench.core.specs import PoolSpec
from augbench.report.evidence.lineage import Lineages, inference_notes
from augbench.report.evidence.pareto import cost_items
from augbench.report.evidence.part_costs import COSTS, MadePart, marker_of, read_costs
from augbench.report.leaderboard.merge import Gathered
from augbench.storage.store import Kind, Store, parse_json


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


class Costs:
    """Looks up the costs of cells in the recorded costs of their parts, see `augbench.report.evidence.part_costs`."""

    def __init__(self, gathered: Gathered) -> None:
        self._parts: dict[str, MadePart] = {}
        self._sources: dict[str, Source] = {}
        for number, store in enumerate(gathered.stores):
            fallback = _fallback_sources(gathered, store, number)
            for key, part in sorted(read_costs(store).items()):
                if key not in self._parts:
                    self._parts[key] = part
                    self._sources[key] = _own_file(store, part.kind, key) or fallback(key)
        lineages = Lineages(self._parts)
        self._lineage = {key: lineages.of(parse_json(data, key)) for key, data in gathered.raw.items()}

    def of(self, key: str) -> Cost:
        """Return the cost of a cell."""
        generating, learning = 0.0, 0.0
        sources: dict[Source, float] = {}
        is_whole = True
        for item in cost_items(self._lineage[key], self._parts):
            if item.seconds is None or item.key is None:
                is_whole = False
                continue
            if item.kind == "pools":
                generating += item.seconds
            else:
                learning += item.seconds
            source = self._sources[item.key]
            sources[source] = sources.get(source, 0.0) + item.seconds
        return Cost(generating, learning, is_whole, tuple(sources.items()))

    def seconds_per_image(self, key: str) -> tuple[Source, float] | None:
        """Return those of a cell's pool, with their source; None for mixtures and pools that are not on record."""
        pools = self._lineage[key].pools
        pool = pools[0][0] if len(pools) == 1 else None
        seconds = self._parts[pool].seconds_per_image if pool in self._parts else None
        return None if pool is None or seconds is None else (self._sources[pool], seconds)

    def inference_notes(self, keys: Sequence[str]) -> list[str]:
        """Say how many of these cells have no lineage in their records."""
        lineages = [self._lineage[key] for key in keys]
        return inference_notes(sum(one.inferred for one in lineages), sum(bool(one.pools) for one in lineages))


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
