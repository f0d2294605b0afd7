"""What a report expects of a grid: one flat entry per cell. The engine writes it, the report reads it."""

from __future__ import annotations

from typing import Any

from augbench.core.specs import Cell
from augbench.planning.plan import Plan

EXPECTED_FIELDS = (
    "key",
    "dataset",  # its name in the grid
    "fold",  # None: the official split
    "test_share",  # the fold is a draw of this share to test on; None: it is one of k folds, or there is none
    "augmenter",  # its name in the grid
    "shots",  # 0, a number, or "all"
    "draw",  # None unless shots is a number > 0
    "n_aug",
    "seed",
    "protocol",  # its name
    "task",  # "detection" or "recognition"
    "ap_definition",  # which AP the protocol calls "AP": "trapezoidal" or "step"
    "false_alarm_rate",  # the rate that the held-out threshold is chosen for; None where nothing is held out
    "fidelity",  # of the pools it takes from: (augmenter, key of the record of the pool's fidelity) pairs
)

LATER_FIELDS: dict[str, Any] = {"test_share": None, "fidelity": []}
"""Fields that came after the first stores were written, with what those stores mean."""


def expected_of(plan: Plan) -> list[dict[str, Any]]:
    """Every cell of a plan with the fields `EXPECTED_FIELDS`, in the order of the grid."""
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
            "fidelity": _measured(plan, cell),
        }
        for cell in plan.cells
    ]


def _measured(plan: Plan, cell: Cell) -> list[tuple[str, str]]:
    """A mixture takes from several pools, each under the name of its augmenter; others go by their own name."""
    takes = plan.needs[cell.key]
    own = cell.augmenter.alias if len(takes) == 1 else None
    pools = [(own or take.pool.augmenter.name, plan.fidelity.get(take.pool.key)) for take in takes]
    return [(name, spec.key) for name, spec in pools if spec]
