"""The cells that a report expects of a grid: one flat entry per cell, written by the driver, read by reports."""

from __future__ import annotations

from typing import Any

from augbench.core.specs import Cell
from augbench.planning.plan import Plan

EXPECTED_FIELDS = (
    "key",
    "dataset",  # its name in the grid
    "fold",  # None: the official split
    "test_share",  # the fold is a random test split of this share; None: one of k folds, or no folds
    "augmenter",  # its name in the grid
    "shots",  # 0, a number, or "all"
    "draw",  # None unless shots is a number > 0
    "n_aug",
    "seed",
    "protocol",  # its name
    "task",  # "detection" or "recognition"
    "ap_definition",  # the protocol's definition of "AP": "trapezoidal" or "step"
    "false_alarm_rate",  # target FPR of the held-out threshold; None if nothing is held out
    "fidelity",  # (augmenter, key of the fidelity record) of each of its pools
)

LATER_FIELDS: dict[str, Any] = {"test_share": None, "fidelity": []}
"""Fields that older stores lack, with their implied values."""


def expected_of(plan: Plan) -> list[dict[str, Any]]:
    """Return every cell of a plan with the fields `EXPECTED_FIELDS`, in the order of the grid."""
    tasks = {alias: plan.library.dataset(alias).task for alias in {cell.data.alias for cell in plan.cells}}
    return [
        {
            "key": cell.key,
            "dataset": cell.data.alias,
            "fold": cell.data.fold,
            "test_share": cell.data.test_share,
            "augmenter": cell.augmenter.alias,
            "shots": cell.shots,
            "draw": cell.draw,
            "n_aug": cell.n_aug,
            "seed": cell.seed,
            "protocol": cell.protocol.name,
            "task": tasks[cell.data.alias],
            "ap_definition": cell.protocol.ap,
            "false_alarm_rate": cell.protocol.false_alarm_rate if cell.data.holdout else None,
            "fidelity": _fidelity(plan, cell),
        }
        for cell in plan.cells
    ]


def _fidelity(plan: Plan, cell: Cell) -> list[tuple[str, str]]:
    """Return (name, fidelity key) per pool: a mixture's pools by their augmenter, a single pool by the cell's alias."""
    slices = plan.needs[cell.key]
    own = cell.augmenter.alias if len(slices) == 1 else None
    pools = [(own or pool_slice.pool.augmenter.name, plan.fidelity.get(pool_slice.pool.key)) for pool_slice in slices]
    return [(name, spec.key) for name, spec in pools if spec]
