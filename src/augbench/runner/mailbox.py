"""The cells of a plan as workers get them: some at a time, those that they are at.

A worker that held them all would hold 2.8 kB for each cell of the grid, and there may be many cells and many workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from augbench.core.specs import Cell
from augbench.planning.plan import Plan, PoolSlice

TOGETHER = 500  # cells that are fetched at once

Unit = tuple[Cell, tuple[PoolSlice, ...]]
"""A cell and the pools it takes from."""


class Work:
    """Key of a cell -> what a worker needs of it. What grows with the cells is arrays, which Ray maps: no copies."""

    def __init__(self, plan: Plan, put: Callable[[dict[str, Unit]], Any]) -> None:
        """``put`` lays some cells into the object store, and returns a reference."""
        keys = np.array([cell.key.encode() for cell in plan.cells])  # N bytes
        order = np.argsort(keys)
        self._keys = keys[order]
        self._parts = order // TOGETHER  # N int64: where the cell of each key is
        parts = [plan.cells[start : start + TOGETHER] for start in range(0, len(keys), TOGETHER)]
        self._references = [put({cell.key: (cell, plan.needs[cell.key]) for cell in part}) for part in parts]
        self._at: tuple[int, dict[str, Unit]] = (-1, {})  # the part asked for last

    def of(self, key: str, get: Callable[[Any], dict[str, Unit]]) -> Unit:
        """The cell of that key, and the pools it takes from. The board hands cells out in their order, nearly."""
        part = int(self._parts[np.searchsorted(self._keys, key.encode())])
        if self._at[0] != part:
            self._at = part, get(self._references[part])
        return self._at[1][key]
