"""Blocks of cells, each under one lease: which are ours, and what other drivers have made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from augbench.core.specs import Cell
from augbench.runner.lease_cache import LeaseCache
from augbench.storage.store import Store


class Blocks:
    """The blocks of the cells that are left, under the board's lock."""

    def __init__(self, cells: Iterable[Cell], store: Store, claims: LeaseCache) -> None:
        self._store, self._claims = store, claims
        self._left: dict[str, set[str]] = defaultdict(set)  # block -> keys of its cells that are left
        self._put_off: dict[str, list[str]] = {}  # block that another driver has -> its cells that could start
        self._made: set[str] = set()  # keys of cells that another driver had finished when we took their block
        for cell in cells:
            self._left[cell.block].add(cell.key)

    def take(self, cell: Cell) -> bool:
        """Whether the cell's block is ours now. If not, the cell is kept until `returned` gives it back.

        When we get a block, what another driver finished of it is found out. From then on nobody else finishes any of
        it, so no cell is asked for again: on a remote store each question is time in which no free slot gets its next
        cell, and these go out side by side.
        """
        block = cell.block
        if block in self._claims:
            return True
        if not self._claims.obtain(block):
            self._put_off.setdefault(block, []).append(cell.key)
            return False
        self._made |= committed(self._store, sorted(self._left[block]))
        return True

    def made_elsewhere(self, key: str) -> bool:
        """Whether another driver had finished that cell when we took its block."""
        return key in self._made

    def leave(self, cell: Cell) -> None:
        """Nothing is left to do for the cell. With the last one the lease is given back."""
        self._left[cell.block].discard(cell.key)
        if not self._left[cell.block]:
            self._claims.release(cell.block)

    def returned(self) -> list[str]:
        """Keys of the cells whose block another driver no longer has."""
        self._claims.look()
        free = [block for block in self._put_off if not self._claims.refused(block)]
        return [key for block in free for key in self._put_off.pop(block)]

    @property
    def any_elsewhere(self) -> bool:
        """Whether cells wait for what another driver does with their block."""
        return bool(self._put_off)


def committed(store: Store, keys: Iterable[str]) -> set[str]:
    """Those of the cells that a planner would take for done: with a record, and scores."""
    for kind in ("cells", "scores"):
        keys = list(keys)
        contents = store.files.read_many([store.name(kind, key) for key in keys])
        keys = [key for key, data in zip(keys, contents, strict=True) if data is not None]
    return set(keys)
