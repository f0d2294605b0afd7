"""Plan minus store: what is still to be done. Resuming a run is planning again: no run state is kept anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from augbench.core.specs import AdapterSpec, Cell, FidelitySpec, PoolSpec, SearchSpec
from augbench.planning.plan import Plan
from augbench.storage.store import Store
from augbench.storage.versions import made_by_others


@dataclass
class Remaining:
    """A plan minus what a store holds."""

    cells: list[Cell]
    chunks: list[tuple[PoolSpec, int]]  # in the order of the cells that wait for them
    adapters: list[AdapterSpec]
    searches: list[SearchSpec]
    begun_by_others: list[tuple[PoolSpec, int]]  # chunks of unfinished pools by another version: among `chunks`, too
    fidelity: list[FidelitySpec]  # of pools that are there or will be: none is made again to be measured
    done: int
    failed_before: int
    images: int

    @property
    def nothing(self) -> bool:
        """Whether everything is done."""
        return not self.cells and not self.chunks and not self.fidelity


def subtract(plan: Plan, store: Store) -> Remaining:
    """What of the plan the store does not hold. Records that count as done are read, so a damaged one is found now.

    Raises:
        UserError: a damaged record or chunk, named.
    """
    trained = store.keys("cells") & store.keys(
        "scores"
    )  # a record whose scores are lost cannot be checked: train again
    for _ in store.read_records(sorted(trained & plan.by_key.keys())):
        pass  # reading one is checking it
    cells = [cell for cell in plan.cells if cell.key not in trained]
    wanted: dict[str, int] = {}
    for cell in cells:
        for take in plan.needs[cell.key]:
            wanted[take.pool.key] = max(wanted.get(take.pool.key, 0), take.chunks)
    there = {key: store.chunks(plan.pools[key]) for key in sorted(store.keys("pools") & plan.pools.keys())}
    for key, count in _with_gaps(plan, store, there):
        wanted[key] = max(wanted.get(key, 0), count)
    chunks, adapters, searches, others = [], {}, {}, []
    for key, count in wanted.items():
        pool, have = plan.pools[key], there.get(key, set())
        if not have >= set(range(count)) and (made := made_by_others(store, pool, have)):
            others += [(pool, chunk) for chunk in sorted(made)]
            there[key] = have = have - made
        missing = sorted(set(range(count)) - have)
        chunks += [(pool, chunk) for chunk in missing]
        adapter = plan.adapter(pool) if missing else None
        if adapter and not store.has_adapter(adapter):
            adapters[adapter.key] = adapter
        if missing and (search := plan.search(pool)):
            searches[search.key] = search
    decided = store.keys("searches") if searches else set()
    return Remaining(
        cells=cells,
        chunks=chunks,
        adapters=list(adapters.values()),
        searches=[search for key, search in searches.items() if key not in decided],
        begun_by_others=others,
        fidelity=_unmeasured(plan, store, wanted, there, {pool.key for pool, _ in others}),
        done=len(plan.cells) - len(cells),
        failed_before=len(store.keys("failures") & {cell.key for cell in cells}),
        images=sum(pool.chunk_size for pool, _ in chunks),
    )


def _with_gaps(plan: Plan, store: Store, there: Mapping[str, set[int]]) -> Iterator[tuple[str, int]]:
    """Pools whose summary lists chunks that somebody has deleted, as `store check` says, and how many must be there.

    A pool that is gone altogether is let go: a grid that is done needs it no more.
    """
    for (key, chunks), summary in zip(there.items(), store.read_pools(list(there)), strict=True):
        needed = plan.pools[key].chunks_for(plan.pool_sizes[key])
        if lost := {chunk for chunk in (summary or {"chunks": ()})["chunks"] if chunk < needed} - chunks:
            yield key, max(lost) + 1


def _unmeasured(
    plan: Plan, store: Store, wanted: Mapping[str, int], there: Mapping[str, set[int]], renewed: Set[str]
) -> list[FidelitySpec]:
    """Fidelity that is not on record, of pools whose pictures are there or will be.

    Args:
        plan: the grid.
        store: what is on record.
        wanted: pool key -> chunks that there will be.
        there: pool key -> numbers of the chunks that there are.
        renewed: keys of pools that are made anew: what was measured of them is not of the new images.
    """
    have = store.keys("fidelity")
    return [
        spec
        for spec in plan.fidelity.values()
        if (spec.key not in have or spec.pool.key in renewed)
        and (wanted.get(spec.pool.key, 0) >= spec.chunks or there.get(spec.pool.key, set()) >= set(range(spec.chunks)))
    ]
