"""Blocks of cells, each under one lease: which this driver holds, and what other drivers finished in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from augbench.core.specs import Cell
from augbench.runner.lease_cache import LeaseCache
from augbench.storage.store import Store


class Blocks:
    """The blocks of the remaining cells. Callers hold the scheduler's lock."""

    def __init__(self, cells: Iterable[Cell], store: Store, lease_cache: LeaseCache) -> None:
        self._store, self._lease_cache = store, lease_cache
        self._left: dict[str, set[str]] = defaultdict(set)  # block -> keys of its remaining cells
        self._put_off: dict[str, list[str]] = {}  # block of another driver -> keys of its ready cells
        self._made: set[str] = set()  # keys of cells that another driver had finished before we got their block
        for cell in cells:
            self._left[cell.block].add(cell.key)

    def acquire(self, cell: Cell) -> bool:
        """Try to acquire the block of a cell. If another driver has it, the cell waits until `returned` yields it.

        A new block is checked once for cells that another driver finished. From then on nobody else can finish any of
        them, so no later check is needed: on a remote store each request delays the next cell of a free slot. The
        requests of this one check run concurrently.
        """
        block = cell.block
        if block in self._lease_cache:
            return True
        if not self._lease_cache.obtain(block):
            self._put_off.setdefault(block, []).append(cell.key)
            return False
        self._made |= committed(self._store, sorted(self._left[block]))
        return True

    def made_elsewhere(self, key: str) -> bool:
        """Whether another driver had finished that cell before we got its block."""
        return key in self._made

    def leave(self, cell: Cell) -> None:
        """Remove a cell that needs no more work. The last one of a block releases the lease."""
        self._left[cell.block].discard(cell.key)
        if not self._left[cell.block]:
            self._lease_cache.release(cell.block)

    def returned(self) -> list[str]:
        """Return the keys of the waiting cells whose block another driver has released."""
        self._lease_cache.look()
        free = [block for block in self._put_off if not self._lease_cache.refused(block)]
        return [key for block in free for key in self._put_off.pop(block)]

    @property
    def any_elsewhere(self) -> bool:
        """Whether cells wait for a block that another driver has."""
        return bool(self._put_off)


def committed(store: Store, keys: Iterable[str]) -> set[str]:
    """Return the keys of the cells that the planner counts as done: they have a record and scores."""
    for kind in ("cells", "scores"):
        keys = list(keys)
        contents = store.files.read_many([store.name(kind, key) for key in keys])
        keys = [key for key, data in zip(keys, contents, strict=True) if data is not None]
    return set(keys)
