"""The cost of one classifier: seconds of learning and generating, and the records they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from augbench.core.specs import PoolSpec
from augbench.report.evidence.lineage import Lineages, inference_notes
from augbench.report.evidence.pareto import cost_items
from augbench.report.evidence.part_costs import COSTS, MadePart, marker_of, read_costs
from augbench.report.leaderboard.merge import Gathered
from augbench.storage.store import Store, parse_json


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

    is_whole: bool  # False: some part is not recorded, so the true cost is higher
    sources: Mapping[Source, float]  # seconds of each; parts that other classifiers share count in full

    @property
    def total(self) -> float:
        """The seconds of all parts on record."""
        return sum(self.sources.values(), 0.0)


class Costs:
    """Looks up the costs of cells in the recorded costs of their parts, see `augbench.report.evidence.part_costs`."""

    def __init__(self, gathered: Gathered) -> None:
        self._parts: dict[str, MadePart] = {}
        self._sources: dict[str, Source] = {}
        for number, store in enumerate(gathered.stores):
            costs = Source("costs", f"costs-{number}", store, COSTS)
            fidelity = _fidelity_sources(gathered, store)
            for key, part in sorted(read_costs(store).items()):
                if key not in self._parts:
                    own = Source(part.kind, key, store, marker_of(store, part.kind, key))
                    # A deleted part leaves its cost in the fidelity record of the pool, or in the store's cost list.
                    self._sources[key] = own if store.files.exists(own.name) else fidelity.get(key, costs)
                    self._parts[key] = part
        lineages = Lineages(self._parts)
        self._lineage = {key: lineages.of(parse_json(data, key)) for key, data in gathered.raw.items()}

    def of(self, key: str) -> Cost:
        """Return the cost of a cell."""
        items = list(cost_items(self._lineage[key], self._parts))
        known = [item for item in items if item.seconds is not None]
        sources: dict[Source, float] = defaultdict(float)
        for item in known:
            sources[self._sources[item.key]] += item.seconds
        return Cost(len(known) == len(items), sources)

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


def _fidelity_sources(gathered: Gathered, store: Store) -> dict[str, Source]:
    """Map the pools that are measured in a store to their fidelity records."""
    found = {}
    for key in sorted(key for key in gathered.measured if gathered.home[key] is store):
        source = Source("fidelity", key, store, store.name("fidelity", key))
        found[PoolSpec.from_dict(store.parsed(source.name)["spec"]["pool"]).key] = source
    return found
