"""Verification of the lineage that cell records name, as far as a published store knows the parts behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from augbench.core.errors import UserError, listed
from augbench.core.specs import Cell, PoolSpec, SearchSpec
from augbench.report.evidence.lineage import FIELDS, plugin_of, slices_of
from augbench.report.evidence.part_costs import MadePart, read_costs
from augbench.report.publish.consistency import pool_mismatch
from augbench.storage.store import Store


class LineageCheck:
    """Compares the lineage of cells with the pools, adapters and searches on record in a published store."""

    def __init__(self, store: Store) -> None:
        try:
            self._parts = read_costs(store)
        except UserError:
            self._parts = {}  # the check of the costs refuses them
        specs = {key: _spec(key, part) for key, part in self._parts.items()}
        self._pools = {key: spec for key, spec in specs.items() if spec is not None}

    def problems(self, cell: Cell, record: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is wrong with the lineage of a cell, one clause each; nothing for a record older than lineage."""
        given = {name: record["provenance"].get(name) for name in FIELDS}
        lacking = [name for name, value in given.items() if value is None]
        if lacking:
            if len(lacking) < len(FIELDS):
                yield f"provenance.{lacking[0]} is missing beside the rest of its lineage"
            return
        images, named = sum(n for _, n in slices_of(record["spec"])), sum(use["n"] for use in given["pools"])
        if named != images:  # `counts.synthetic` is held to the same number
            yield f"provenance.pools hold {named} images, it trained on {images}"
        pools = {use["key"]: self._pools.get(use["key"]) for use in given["pools"]}
        known = {key: pool for key, pool in pools.items() if pool is not None}
        for key, pool in known.items():
            if wrong := pool_mismatch(cell, pool) or self._other_regime(cell, pool):
                yield f"it cannot have used the pool '{key}', which has other {listed(wrong)}"
        own = {
            "adapters": {pool.adapter.key for pool in known.values()},
            "searches": {SearchSpec(pool.adapter).key for pool in known.values()},
        }
        for name, behind in own.items():
            stated = set(given[name])
            if len(known) == len(pools) and (others := sorted(stated - behind)):
                yield f"provenance.{name} hold {listed(others)}, which its pools did not need"
            if unnamed := sorted((behind & self._parts.keys()) - stated):
                yield f"provenance.{name} lack {listed(unnamed)}, which its pools needed"

    def _other_regime(self, cell: Cell, pool: PoolSpec) -> list[str]:
        """Return ["shots"] if the augmenter reads the cell's shots but not the pool's, or the reverse."""
        plugin = plugin_of(pool.augmenter)
        other = plugin is not None and ("shots" in plugin.reads(cell.shots)) != (pool.shots is not None)
        return ["shots"] if other else []


def _spec(key: str, part: MadePart) -> PoolSpec | None:
    """Return the spec of a pool; None for other parts and for wrong specs, which the check of the costs refuses."""
    if part.kind != "pools" or part.spec is None:
        return None
    try:
        spec = PoolSpec.from_dict(part.spec)
        return spec if spec.key == key else None
    except (UserError, ValueError, TypeError, AttributeError, KeyError):
        return None
