"""A plan reduced to keys: enough to show the progress of a run without datasets, plug-ins or planning.

The driver writes it with the cells to ``STORE/grids/<name>.json``, so that any machine with access to the store can
show progress.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from augbench.planning.plan import Plan


@dataclass(frozen=True)
class CellWork:
    """A training: the block of its lease, and its pools (key -> number of first chunks that it needs)."""

    block: str
    takes: Mapping[str, int]


@dataclass(frozen=True)
class PoolWork:
    """A pool: the number of chunks that the grid needs, and the keys of its adapter and search, if any."""

    chunks: int
    adapter: str | None
    search: str | None


@dataclass(frozen=True)
class FidelityWork:
    """A fidelity computation on the first ``chunks`` chunks of a pool (its key)."""

    pool: str
    chunks: int


@dataclass(frozen=True)
class Outline:
    """A plan reduced to keys."""

    cells: Mapping[str, CellWork]
    pools: Mapping[str, PoolWork]
    fidelity: Mapping[str, FidelityWork]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; inverse of `Outline.from_dict`."""
        # Not `asdict`: its deep copies are slow with many cells.
        parts = {"cells": self.cells, "pools": self.pools, "fidelity": self.fidelity}
        return {part: {key: dict(vars(work)) for key, work in units.items()} for part, units in parts.items()}

    @classmethod
    def from_dict(cls, value: Any) -> Outline:
        """Create it from the result of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: ``value`` is not an outline.
        """
        made = cls(
            {
                key: CellWork(str(cell["block"]), {pool: int(n) for pool, n in cell["takes"].items()})
                for key, cell in value["cells"].items()
            },
            {
                key: PoolWork(int(pool["chunks"]), pool["adapter"], pool["search"])
                for key, pool in value["pools"].items()
            },
            {key: FidelityWork(one["pool"], int(one["chunks"])) for key, one in value["fidelity"].items()},
        )
        named = {pool for cell in made.cells.values() for pool in cell.takes} | {o.pool for o in made.fidelity.values()}
        if unknown := named - made.pools.keys():
            raise ValueError(f"pool '{min(unknown)}' is not among the pools")
        return made


def outline_of(plan: Plan) -> Outline:
    """Return the outline of a plan, in the plan's order."""
    return Outline(
        {
            cell.key: CellWork(
                cell.block, {pool_slice.pool.key: pool_slice.chunks for pool_slice in plan.needs[cell.key]}
            )
            for cell in plan.cells
        },
        {
            key: PoolWork(
                pool.chunks_for(plan.pool_sizes[key]),
                adapter.key if (adapter := plan.adapter(pool)) else None,
                search.key if (search := plan.search(pool)) else None,
            )
            for key, pool in plan.pools.items()
        },
        {spec.key: FidelityWork(spec.pool.key, spec.chunks) for spec in plan.fidelity.values()},
    )
