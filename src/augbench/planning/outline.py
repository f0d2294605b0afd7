"""What a store keeps of a plan, in ``STORE/grids/<name>.json``: the grid, its cells for reports, and its outline.

The outline is the plan by keys: enough to tell what a store lacks, without datasets, plug-ins or planning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from augbench.core import registry
from augbench.core.contracts import Shots
from augbench.core.specs import Cell, regime
from augbench.planning.audits import audits_of, place_of
from augbench.planning.plan import Plan

EXPECTED_FIELDS = (
    "key",
    "dataset",  # its name in the grid
    "fold",  # None: the official split
    "test_share",  # the fold is a random test split of this share; None: one of k folds, or no folds
    "augmenter",  # its name in the grid
    "shots",  # 0, a number, or "all"; of named shots the name of their regime
    "draw",  # None unless shots is a number > 0
    "n_aug",
    "seed",
    "protocol",  # its name
    "task",  # "detection" or "recognition"
    "ap_definition",  # the protocol's definition of "AP": "step", "trapezoidal" or "trapezoidal_ties"
    "false_alarm_rate",  # target FPR of the held-out threshold; None if nothing is held out
    "fidelity",  # (augmenter, key of the fidelity record) of each of its pools
    "adapter_seed",  # of the adapters behind its pools; 0 where there is none
    "audit",  # key of the search for near-copies in its dataset; None: nothing to search, or older than such searches
    "null",  # the augmenter that the grid names as its null, which shows no defect; None: there is none
)

LATER_FIELDS: dict[str, Any] = {"test_share": None, "fidelity": [], "adapter_seed": 0, "audit": None, "null": None}
"""Fields that older stores lack, with their implied values."""


@dataclass(frozen=True)
class CellWork:
    """A training: the block of its lease, its pools and features (key -> number of first chunks that it needs)."""

    block: str
    takes: dict[str, int]
    features: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PoolWork:
    """A pool: the number of chunks that the grid needs, and the keys of its adapter and search, if any."""

    chunks: int
    adapter: str | None
    search: str | None


@dataclass(frozen=True)
class FidelityWork:
    """A fidelity computation on the first ``chunks`` chunks of a pool (its key)."""

    pool: str
    chunks: int


@dataclass(frozen=True)
class FeatureWork:
    """Features: the number of chunks that the grid needs, and the key of their pool; None: of a dataset."""

    chunks: int
    pool: str | None


@dataclass(frozen=True)
class Outline:
    """A plan by keys, in the plan's order."""

    cells: dict[str, CellWork]
    pools: dict[str, PoolWork]
    fidelity: dict[str, FidelityWork]
    features: dict[str, FeatureWork] = field(default_factory=dict)


_OUTLINE = TypeAdapter(Outline)


COMMAND = "command"
"""What a store's file of a grid, but no publication, says about the command of its last run."""


def stored_grid(plan: Plan, options: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    """Return what the driver writes to ``STORE/grids/<name>.json``, as JSON values.

    Args:
        plan: of the run.
        options: of its command, such as ``{"--address": "auto"}``; None: there is no command.
    """
    outline = _OUTLINE.dump_python(outline_of(plan), exclude_defaults=True)  # no features: as in older files
    content = {"grid": plan.grid.as_dict(), "cells": expected_of(plan), "outline": outline}
    if options is None:
        return content
    roots = {label: settings.get("root") for label, (_, settings) in plan.library.settings.items()}
    given = {entry.label: entry.settings.get("root") for entry in plan.grid.datasets}
    command = {
        "plugins": list(registry.loaded_files()),
        "options": {name: value for name, value in options.items() if value is not None},
        "roots": {label: root for label, root in roots.items() if root and root != given[label]},  # by AUGBENCH_DATA
    }
    return {**content, COMMAND: command}


def read_outline(value: Any) -> Outline:
    """Check the ``outline`` of a store's file and convert it.

    Raises:
        ValueError: it is not an outline.
    """
    outline = _OUTLINE.validate_python(value)
    named = {pool for cell in outline.cells.values() for pool in cell.takes}
    named |= {one.pool for one in outline.fidelity.values()}
    named |= {one.pool for one in outline.features.values() if one.pool}
    if unknown := named - outline.pools.keys():
        raise ValueError(f"pool '{min(unknown)}' is not among the pools")
    if unknown := {key for cell in outline.cells.values() for key in cell.features} - outline.features.keys():
        raise ValueError(f"'{min(unknown)}' is not among the features")
    return outline


def outline_of(plan: Plan) -> Outline:
    """Return the outline of a plan."""
    return Outline(
        {
            cell.key: CellWork(
                cell.block,
                {part.pool.key: part.chunks for part in plan.needs[cell.key]},
                {part.features.key: part.chunks for part in plan.reads.get(cell.key, ())},
            )
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
        {
            key: FeatureWork(plan.feature_chunks[key], spec.pool.key if spec.pool else None)
            for key, spec in plan.features.items()
        },
    )


def shots_and_draw(shots: Shots, draw: int | Sequence[str] | None) -> dict[str, Any]:
    """Return the shots and the draw of a cell as reports have them: named shots are a regime of their own."""
    if isinstance(draw, list | tuple):
        return {"shots": regime(shots, tuple(draw)), "draw": None}
    return {"shots": shots, "draw": draw}


def expected_of(plan: Plan) -> list[dict[str, Any]]:
    """Return the cells that a report expects, with the fields `EXPECTED_FIELDS`, in the order of the grid."""
    tasks = {alias: plan.library.dataset(alias).task for alias in {cell.data.alias for cell in plan.cells}}
    audits = {where: spec.key for where, spec in audits_of(plan).items()}
    nulls = {name: entry.label for entry in plan.grid.augmenters for name in entry.null_of}
    return [
        expected_cell(cell, tasks[cell.data.alias], _fidelity(plan, cell), audits.get(place_of(cell.data)))
        | {"null": nulls.get(cell.augmenter.alias)}
        for cell in plan.cells
    ]


def expected_cell(
    cell: Cell, task: str, fidelity: Sequence[tuple[str, str]] = (), audit: str | None = None
) -> dict[str, Any]:
    """Return one cell with the fields `EXPECTED_FIELDS`."""
    return {
        "key": cell.key,
        "dataset": cell.data.alias,
        "fold": cell.data.fold,
        "test_share": cell.data.test_share,
        "augmenter": cell.augmenter.alias,
        **shots_and_draw(cell.shots, cell.draw),
        "n_aug": cell.n_aug,
        "seed": cell.seed,
        "protocol": cell.protocol.name,
        "task": task,
        "ap_definition": cell.protocol.ap,
        "false_alarm_rate": cell.protocol.false_alarm_rate if cell.data.holdout else None,
        "fidelity": list(fidelity),
        "adapter_seed": cell.adapter_seed,
        "audit": audit,
        "null": None,
    }


def _fidelity(plan: Plan, cell: Cell) -> list[tuple[str, str]]:
    """Return (name, fidelity key) per pool: a mixture's pools by their augmenter, a single pool by the cell's alias."""
    slices = plan.needs[cell.key]
    own = cell.augmenter.alias if len(slices) == 1 else None
    pools = [(own or pool_slice.pool.augmenter.name, plan.fidelity.get(pool_slice.pool.key)) for pool_slice in slices]
    return [(name, spec.key) for name, spec in pools if spec]
