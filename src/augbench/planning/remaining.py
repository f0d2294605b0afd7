"""The remaining work: the plan minus what the store holds. Resuming is planning again; there is no other run state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from typing import Literal

from augbench.core.specs import AdapterSpec, Cell, FeatureSpec, FidelitySpec, PoolSpec, SearchSpec
from augbench.planning.outline import CellWork, FidelityWork, Outline, outline_of
from augbench.planning.plan import Plan
from augbench.storage.store import ADAPTER_MARKER, Store, numbered
from augbench.storage.versions import made_by_others


class Holdings:
    """What a store holds, by key, and the ages of its files in seconds, None if unknown. Lists each directory once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.keys = cache(store.keys)  # kind -> its keys
        # Key -> {number of a committed chunk: age}.
        self.chunks = cache(lambda pool: self._numbered("pools", pool, "/chunks", ".jsonl"))
        self.features = cache(lambda key: self._numbered("features", key, "", ".safetensors"))
        ages, scored = self.ages("cells"), self.keys("scores")
        # Done cells -> age of the record. A record without scores cannot be verified: train again.
        self.cells = {key: age for key, age in ages.items() if key in scored}

    def ages(self, kind: Literal["cells", "failures"]) -> dict[str, float | None]:
        """Return the age of each file of a kind, by key."""
        ages = self.store.files.ages(kind)
        return {name.removesuffix(".json"): age for name, age in ages.items() if name.endswith(".json")}

    def has_adapter(self, key: str) -> bool:
        """Return whether an adapter is committed: an unfinished one has no marker."""
        marker = f"{self.store.name('adapters', key)}/{ADAPTER_MARKER}"
        return key in self.keys("adapters") and self.store.files.exists(marker)

    def _numbered(
        self, kind: Literal["pools", "features"], key: str, below: str, suffix: str
    ) -> dict[int, float | None]:
        if key not in self.keys(kind):
            return {}
        listed = self.store.files.ages(f"{self.store.name(kind, key)}{below}")
        return {number: listed[name] for number, name in numbered(listed, suffix).items()}


@dataclass(frozen=True)
class Missing:
    """The part of an outline that a store does not hold, by key, in the outline's order."""

    cells: Mapping[str, CellWork]
    chunks: Mapping[str, list[int]]  # unfinished pools, in the order of the cells that need them -> chunks, sorted
    adapters: Set[str]  # of unfinished pools
    searches: Set[str]  # of unfinished pools
    fidelity: Mapping[str, FidelityWork]  # only of pools that exist or will: no pool is generated for it
    features: Mapping[str, list[int]]  # that unfinished cells need -> chunks, sorted


def find_missing(
    outline: Outline,
    held: Holdings,
    also: Mapping[str, int] | None = None,
    ignored: Mapping[str, Set[int]] | None = None,
) -> Missing:
    """Subtract what a store holds from an outline.

    Args:
        outline: the plan by keys.
        held: what the store holds.
        also: pool key -> number of first chunks to complete, even if no unfinished cell needs them.
        ignored: pool key -> committed chunks that count as missing, as do their features and their pool's fidelity.
    """
    ignored = ignored or {}
    cells = {key: cell for key, cell in outline.cells.items() if key not in held.cells}
    wanted = _most([*(cell.takes for cell in cells.values()), also or {}])
    read = _most(cell.features for cell in cells.values())

    def lacking(pool: str, count: int) -> list[int]:
        have = held.chunks(pool).keys() - ignored.get(pool, set())
        return [chunk for chunk in range(count) if chunk not in have]

    def unread(key: str, count: int) -> list[int]:
        have = held.features(key).keys() - ignored.get(outline.features[key].pool or "", set())
        return [chunk for chunk in range(count) if chunk not in have]

    chunks = {pool: lost for pool, count in wanted.items() if (lost := lacking(pool, count))}
    unfinished = [outline.pools[pool] for pool in chunks]
    adapters = dict.fromkeys(pool.adapter for pool in unfinished if pool.adapter)
    searches = dict.fromkeys(pool.search for pool in unfinished if pool.search)
    return Missing(
        cells,
        chunks,
        {key: None for key in adapters if not held.has_adapter(key)}.keys(),  # a set that keeps the order
        {key: None for key in searches if key not in held.keys("searches")}.keys(),
        {
            key: one
            for key, one in outline.fidelity.items()
            if (key not in held.keys("fidelity") or one.pool in ignored)
            and (wanted.get(one.pool, 0) >= one.chunks or not lacking(one.pool, one.chunks))
        },
        {key: lost for key, count in read.items() if (lost := unread(key, count))},
    )


def _most(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the largest count of each key."""
    found: dict[str, int] = {}
    for each in counts:
        for key, count in each.items():
            found[key] = max(found.get(key, 0), count)
    return found


@dataclass
class Remaining:
    """The part of a plan that a store does not hold."""

    cells: list[Cell]
    chunks: list[tuple[PoolSpec, int]]  # in the order of the cells that need them
    adapters: list[AdapterSpec]
    searches: list[SearchSpec]
    begun_by_others: list[tuple[PoolSpec, int]]  # chunks of unfinished pools by another version; also in `chunks`
    fidelity: list[FidelitySpec]  # only of pools that exist or will: no pool is regenerated for it
    features: list[tuple[FeatureSpec, int]]  # chunks, in the order of the cells that need them
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
    outline, held = outline_of(plan), Holdings(store)
    for _ in store.read_records(sorted(held.cells.keys() & outline.cells.keys())):
        pass  # reading validates it
    gaps = dict(_gaps(outline, held))
    missing = find_missing(outline, held, gaps)
    unfinished = [plan.pools[key] for key in missing.chunks]
    others = {pool.key: made for pool in unfinished if (made := made_by_others(store, pool, held.chunks(pool.key)))}
    if others:
        missing = find_missing(outline, held, gaps, others)
    adapters = {adapter.key: adapter for pool in unfinished if (adapter := plan.adapter(pool))}
    searches = {search.key: search for pool in unfinished if (search := plan.search(pool))}
    fidelity = {spec.key: spec for spec in plan.fidelity.values()}
    chunks = [(plan.pools[key], chunk) for key, lost in missing.chunks.items() for chunk in lost]
    return Remaining(
        cells=[plan.by_key[key] for key in missing.cells],
        chunks=chunks,
        adapters=[adapters[key] for key in missing.adapters],
        searches=[searches[key] for key in missing.searches],
        begun_by_others=[(plan.pools[key], chunk) for key, made in others.items() for chunk in sorted(made)],
        fidelity=[fidelity[key] for key in missing.fidelity],
        features=[(plan.features[key], chunk) for key, lost in missing.features.items() for chunk in lost],
        done=len(plan.cells) - len(missing.cells),
        failed_before=len(held.keys("failures").intersection(missing.cells)),
        images=sum(pool.chunk_size for pool, _ in chunks),
    )


def _gaps(outline: Outline, held: Holdings) -> Iterator[tuple[str, int]]:
    """Yield pools whose summary lists chunks that were deleted, as `store check` advises, and the chunks they need.

    A pool that was deleted entirely is not restored: a finished grid does not need it.
    """
    begun = sorted(held.keys("pools") & outline.pools.keys())
    for key, summary in zip(begun, held.store.read_pools(begun), strict=True):
        listed = {chunk for chunk in (summary or {"chunks": ()})["chunks"] if chunk < outline.pools[key].chunks}
        if lost := listed - held.chunks(key).keys():
            yield key, max(lost) + 1
