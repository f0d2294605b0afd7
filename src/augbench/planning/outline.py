"""What a plan consists of, by keys alone: enough to tell how far a run is, without datasets, plug-ins or planning.

The driver puts it beside the cells into ``STORE/grids/<name>.json``, so that any machine that sees the store can count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from augbench.planning.plan import Plan


@dataclass(frozen=True)
class CellWork:
    """A training: the block whose lease covers it, and the pools it takes from (key -> chunks, from the first on)."""

    block: str
    takes: Mapping[str, int]


@dataclass(frozen=True)
class PoolWork:
    """A pool: the chunks that the grid takes of it, and what must be there before it is made (keys, or None)."""

    chunks: int
    adapter: str | None
    search: str | None


@dataclass(frozen=True)
class FidelityWork:
    """A measurement: of the first ``chunks`` chunks of a pool (its key)."""

    pool: str
    chunks: int


@dataclass(frozen=True)
class Outline:
    """A plan by keys."""

    cells: Mapping[str, CellWork]
    pools: Mapping[str, PoolWork]
    fidelity: Mapping[str, FidelityWork]

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `Outline.from_dict` is the way back."""
        # Not by `asdict`, which copies in depth: there are as many parts as cells.
        rooms = {"cells": self.cells, "pools": self.pools, "fidelity": self.fidelity}
        return {room: {key: dict(vars(work)) for key, work in units.items()} for room, units in rooms.items()}

    @classmethod
    def from_dict(cls, value: Any) -> Outline:
        """The way back from `as_dict`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none.
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
    """The outline of a plan, in the plan's order."""
    return Outline(
        {
            cell.key: CellWork(cell.block, {take.pool.key: take.chunks for take in plan.needs[cell.key]})
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
