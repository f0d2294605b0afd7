"""The remaining work: the plan minus what the store holds. Resuming is planning again; there is no other run state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from augbench.core.specs import AdapterSpec, Cell, FidelitySpec, PoolSpec, SearchSpec
from augbench.planning.plan import Plan
from augbench.storage.store import Store
from augbench.storage.versions import made_by_others


@dataclass
class Remaining:
    """The part of a plan that a store does not hold."""

    cells: list[Cell]
    chunks: list[tuple[PoolSpec, int]]  # in the order of the cells that need them
    adapters: list[AdapterSpec]
    searches: list[SearchSpec]
    begun_by_others: list[tuple[PoolSpec, int]]  # chunks of unfinished pools by another version; also in `chunks`
    fidelity: list[FidelitySpec]  # only of pools that exist or will: no pool is regenerated for it
    done: int
    failed_before: int
    images: int

    @property
    def nothing(self) -> bool:
        """Whether everything is done."""
        return not self.cells and not self.chunks and not self.fidelity


def subtract(plan: Plan, store: Store) -> Remaining:
    """Find what the store does not hold. Reads all finished records, so that damaged ones are found now.

    Raises:
        UserError: a record or chunk is damaged.
    """
    # A record without scores cannot be verified: train again.
    trained = store.keys("cells") & store.keys("scores")
    for _ in store.read_records(sorted(trained & plan.by_key.keys())):
        pass  # reading validates it
    cells = [cell for cell in plan.cells if cell.key not in trained]
    wanted: dict[str, int] = {}
    for cell in cells:
        for pool_slice in plan.needs[cell.key]:
            key = pool_slice.pool.key
            wanted[key] = max(wanted.get(key, 0), pool_slice.chunks)
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
        fidelity=_missing_fidelity(plan, store, wanted, there, {pool.key for pool, _ in others}),
        done=len(plan.cells) - len(cells),
        failed_before=len(store.keys("failures") & {cell.key for cell in cells}),
        images=sum(pool.chunk_size for pool, _ in chunks),
    )


def _with_gaps(plan: Plan, store: Store, there: Mapping[str, set[int]]) -> Iterator[tuple[str, int]]:
    """Yield pools whose summary lists chunks that were deleted, as `store check` advises, and the chunks they need.

    A pool that was deleted entirely is not restored: a finished grid does not need it.
    """
    for (key, chunks), summary in zip(there.items(), store.read_pools(list(there)), strict=True):
        needed = plan.pools[key].chunks_for(plan.pool_sizes[key])
        if lost := {chunk for chunk in (summary or {"chunks": ()})["chunks"] if chunk < needed} - chunks:
            yield key, max(lost) + 1


def _missing_fidelity(
    plan: Plan, store: Store, wanted: Mapping[str, int], there: Mapping[str, set[int]], renewed: Set[str]
) -> list[FidelitySpec]:
    """Find missing fidelity of pools whose images exist or will be generated.

    Args:
        plan: the plan of the grid.
        store: the store with existing fidelity records.
        wanted: pool key -> number of chunks that the run completes.
        there: pool key -> numbers of the committed chunks.
        renewed: keys of pools that are regenerated, whose fidelity is outdated.
    """
    have = store.keys("fidelity")
    return [
        spec
        for spec in plan.fidelity.values()
        if (spec.key not in have or spec.pool.key in renewed)
        and (wanted.get(spec.pool.key, 0) >= spec.chunks or there.get(spec.pool.key, set()) >= set(range(spec.chunks)))
    ]
