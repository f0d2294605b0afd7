"""The cells of a plan for workers, which fetch them in parts.

A worker that held all cells would need 2.8 kB for each, and there may be many cells and many workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from augbench.core.specs import Cell
from augbench.planning.plan import Plan, PoolSlice

TOGETHER = 500  # cells per part

Unit = tuple[Cell, tuple[PoolSlice, ...]]
"""A cell and the pool slices it trains on."""


class Work:
    """Map the key of a cell to its `Unit`. What grows with the cells is arrays, which Ray maps without copies."""

    def __init__(self, plan: Plan, put: Callable[[dict[str, Unit]], Any]) -> None:
        """``put`` puts a part of the cells into the object store and returns a reference."""
        keys = np.array([cell.key.encode() for cell in plan.cells])  # N bytes
        order = np.argsort(keys)
        self._keys = keys[order]
        self._parts = order // TOGETHER  # N int64: the part that holds the cell of each key
        parts = [plan.cells[start : start + TOGETHER] for start in range(0, len(keys), TOGETHER)]
        self._references = [put({cell.key: (cell, plan.needs[cell.key]) for cell in part}) for part in parts]
        self._at: tuple[int, dict[str, Unit]] = (-1, {})  # the part fetched last

    def of(self, key: str, get: Callable[[Any], dict[str, Unit]]) -> Unit:
        """Return the unit of a key. One cached part is enough: cells are handed out nearly in the order of the plan."""
        part = int(self._parts[np.searchsorted(self._keys, key.encode())])
        if self._at[0] != part:
            self._at = part, get(self._references[part])
        return self._at[1][key]
