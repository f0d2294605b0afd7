"""Records and expected cells as flat tables: one row a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from augbench.core.errors import UserError, did_you_mean
from augbench.core.expected import EXPECTED_FIELDS
from augbench.core.keys import digest
from augbench.core.store import MEND, Store

METRICS = {
    "detection": (
        "ap",
        "ap_step",
        "ap_trapezoidal",
        "auroc",
        "precision",  # this one, recall and f1: at the best F1 on test, so they use test labels
        "recall",
        "f1",
        "heldout_precision",  # these: at the threshold that was chosen on held-out negatives
        "heldout_recall",
        "heldout_false_alarm_rate",
    ),
    "recognition": ("accuracy", "macro_f1"),
}
"""Task -> its metrics, all in [0, 1]."""

IDENTITIES = {"dataset": "dataset_id", "augmenter": "augmenter_id", "protocol": "protocol_id"}
"""Column of a name -> column of a digest of what it stands for."""

RECORD_FIELDS = (
    *EXPECTED_FIELDS,
    *IDENTITIES.values(),
    *(metric for metrics in METRICS.values() for metric in metrics),
    "seconds",
    "device",
    "git_sha",
    "embedded",
)
MIXED = (
    "fold",
    "shots",
    "draw",
    "false_alarm_rate",
    "embedded",
)  # kept as Python objects: None or "all" beside numbers


def load_records(store: Store, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """One row per cell record, sorted by key.

    Args:
        store: where the records lie.
        keys: only these cells (those without a record are left out); None = all.

    Returns:
        Columns `RECORD_FIELDS`: names and axes of the cell; its metrics, NaN where the cell has none; ``seconds`` of
        the whole training; ``device``; ``git_sha`` ("" where unknown); ``embedded``, a tuple of the embedded parts.

    Raises:
        UserError: a damaged record, named.
    """
    held = store.keys("cells")
    chosen = sorted(held if keys is None else held & set(keys))
    return _frame([_row(store, key) for key in chosen], RECORD_FIELDS)


def load_expected(store: Store, grid_name: str) -> pd.DataFrame:
    """The cells of a grid that was planned into this store, in the grid's order: columns `EXPECTED_FIELDS`.

    Raises:
        UserError: the store knows no such grid, or the file about it is damaged.
    """
    names = store.keys("grids")
    if grid_name not in names:
        raise UserError(f"store '{store.root}' knows no grid '{grid_name}'{did_you_mean(grid_name, names)}")
    content = store.read_json("grids", grid_name) or {}
    cells = content.get("cells")
    if not isinstance(cells, list) or any(not set(EXPECTED_FIELDS) <= cell.keys() for cell in cells):
        path = store.path("grids", grid_name)
        raise UserError(f"'{path}' does not list the cells of a grid: run the grid again to make it anew")
    return expected_frame(cells)


def expected_frame(cells: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """What `augbench.core.expected.expected_of` gives, as a table with the columns `EXPECTED_FIELDS`."""
    return _frame(list(cells), EXPECTED_FIELDS)


def expected_from_records(records: pd.DataFrame) -> pd.DataFrame:
    """Where no grid is known: every record is expected, and nothing else is.

    Records of different grids may use one name for different things. Such a name gets the start of a digest behind
    it, so that numbers of different settings are never averaged.
    """
    expected = records[[*EXPECTED_FIELDS, *IDENTITIES.values()]].copy()
    for name, identity in IDENTITIES.items():
        several = expected.groupby(name)[identity].transform("nunique") > 1
        expected[name] = expected[name].where(~several, expected[name] + " #" + expected[identity].str[:6])
    shots = expected["shots"].map(shots_rank)
    order = ["dataset", "protocol", "fold", "_shots", "augmenter", "n_aug", "draw", "seed"]
    expected = expected.assign(_shots=shots).sort_values(order, key=_sortable, kind="stable", ignore_index=True)
    return expected[list(EXPECTED_FIELDS)]


def shots_rank(shots: int | str) -> float:
    """Sorts regimes: zero, few by number, full."""
    return float("inf") if shots == "all" else float(shots)


def _sortable(column: pd.Series) -> pd.Series:
    """None before every number."""
    return column.map(lambda value: -1 if value is None else value) if column.name in MIXED else column


def _frame(rows: list[Mapping[str, Any]], fields: tuple[str, ...]) -> pd.DataFrame:
    kinds = {field: object if field in MIXED else None for field in fields}
    return pd.DataFrame({f: pd.Series([row[f] for row in rows], dtype=kind) for f, kind in kinds.items()})


def _row(store: Store, key: str) -> dict[str, Any]:
    """A record as one flat row."""
    record = store.read_record(key)
    try:
        return {"key": key, **_axes(record["spec"]), **_metrics(record["result"]), **_origin(record["provenance"])}
    except (KeyError, TypeError, AttributeError) as error:
        path = store.path("cells", key)
        raise UserError(f"record '{path}' is damaged ({type(error).__name__}: {error}): {MEND}") from None


def _axes(spec: Mapping[str, Any]) -> dict[str, Any]:
    data, augmenter, protocol = spec["data"], spec["augmenter"], spec["protocol"]
    settings = {field: value for field, value in protocol.items() if field not in ("about", "sources")}
    fresh = spec["fresh_pools"] and spec["n_aug"] > 0
    return {
        "dataset": data["alias"],
        "fold": data["fold"],
        "augmenter": augmenter["alias"],
        "shots": spec["shots"],
        "draw": spec["draw"],
        "n_aug": spec["n_aug"],
        "seed": spec["seed"],
        "protocol": protocol["name"],
        "ap_definition": protocol["ap"],
        "false_alarm_rate": protocol["false_alarm_rate"] if data["holdout"] else None,
        "dataset_id": digest([data["name"], data["settings"], data["fingerprint"]]),
        "augmenter_id": digest([augmenter["name"], augmenter["key_settings"], fresh]),
        "protocol_id": digest(settings),
    }


def _metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    """Every metric of both tasks; NaN for those of the other task, and for those of a held-out threshold not chosen."""
    found = dict.fromkeys((metric for metrics in METRICS.values() for metric in metrics), float("nan"))
    if "accuracy" in result:
        return {**found, "task": "recognition", "accuracy": result["accuracy"], "macro_f1": result["macro_f1"]}
    found |= {metric: result[metric] for metric in ("ap", "ap_step", "ap_trapezoidal", "auroc")}
    found |= {metric: result["oracle"][metric] for metric in ("precision", "recall", "f1")}
    if result["heldout"] is not None:
        chosen = ("precision", "recall", "false_alarm_rate")
        found |= {f"heldout_{metric}": result["heldout"][metric] for metric in chosen}
    return {**found, "task": "detection"}


def _origin(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seconds": provenance["seconds"]["total"],
        "device": provenance["device"],
        "git_sha": provenance["git_sha"] or "",
        "embedded": tuple(provenance["embedded"]),
    }
