"""Records and expected cells as flat tables: one row a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from augbench.core.errors import UserError, did_you_mean
from augbench.core.hashing import digest
from augbench.core.protocol import Protocol
from augbench.planning.expected import EXPECTED_FIELDS, LATER_FIELDS
from augbench.storage.store import FIX_HINT, Store

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
        "recall_at_1pct_false_alarms",  # of the good test pictures: the threshold is chosen on them
    ),
    "recognition": ("accuracy", "macro_f1"),
}
"""Task -> its metrics, all in [0, 1]."""

CLASS_METRICS = {
    "detection": ("ap", "recall", "heldout_recall"),  # against the good pictures; at those thresholds
    "recognition": ("precision", "recall", "f1"),
}
"""Task -> the metrics of each class, all in [0, 1]."""

CELL_FIELDS = tuple(field for field in EXPECTED_FIELDS if field != "fidelity")
"""The fields of expected cells that records have too: which pools a cell took from is known to its plan alone."""

IDENTITIES = {"dataset": "dataset_id", "augmenter": "augmenter_id", "protocol": "protocol_id"}
"""Column of a name -> column of a digest of what it stands for."""

RECORD_FIELDS = (
    *CELL_FIELDS,
    *IDENTITIES.values(),
    *(metric for metrics in METRICS.values() for metric in metrics),
    "per_class",
    "confusion",
    "seconds",
    "device",
    "git_sha",
    "embedded",
    "notes",
)
MIXED = (
    "fold",
    "test_share",
    "shots",
    "draw",
    "false_alarm_rate",
    "embedded",
    "notes",
    "per_class",
    "confusion",
    "fidelity",
)
"""Columns kept as Python objects: None or "all" beside numbers, or more than a number."""


def load_records(store: Store, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """One row per cell record, sorted by key.

    Args:
        store: where the records lie.
        keys: only these cells (those without a record are left out); None = all.

    Returns:
        Columns `RECORD_FIELDS`: names and axes of the cell; its metrics, NaN where the cell has none; ``per_class``,
        class -> its ``support`` and `CLASS_METRICS`; ``confusion`` of recognition, ``classes`` and ``matrix`` (row =
        true class); both None where the record has none; ``seconds`` of the whole training; ``device``; ``git_sha``
        ("" where unknown); ``embedded``, a tuple of the embedded parts; ``notes``, a tuple of what must be known about
        its synthetic pictures.

    Raises:
        UserError: a damaged record, named.
    """
    held = store.keys("cells")
    chosen = sorted(held if keys is None else held & set(keys))
    return _frame([_row(store, record) for record in store.read_records(chosen)], RECORD_FIELDS)


def load_expected(store: Store, grid_name: str) -> pd.DataFrame:
    """The cells of a grid that was planned into this store, in the grid's order: columns `EXPECTED_FIELDS`.

    Raises:
        UserError: the store knows no such grid, or the file about it is damaged.
    """
    names = store.keys("grids")
    if grid_name not in names:
        raise UserError(f"store '{store.url}' knows no grid '{grid_name}'{did_you_mean(grid_name, names)}")
    content = store.read_json("grids", grid_name) or {}
    cells = content.get("cells")
    needed = set(EXPECTED_FIELDS) - LATER_FIELDS.keys()
    if not isinstance(cells, list) or any(not needed <= cell.keys() for cell in cells):
        place = store.where("grids", grid_name)
        raise UserError(f"'{place}' does not list the cells of a grid: run the grid again to make it anew")
    return expected_frame(cells)


def expected_frame(cells: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """What `augbench.planning.expected.expected_of` gives, as a table with the columns `EXPECTED_FIELDS`."""
    return _frame([{**LATER_FIELDS, **cell} for cell in cells], EXPECTED_FIELDS)


def expected_from_records(records: pd.DataFrame) -> pd.DataFrame:
    """Where no grid is known: every record is expected, and nothing else is.

    Records of different grids may use one name for different things. Such a name gets the start of a digest behind
    it, so that numbers of different settings are never averaged. Of pools nothing is known, so nothing of fidelity.
    """
    expected = records[[*CELL_FIELDS, *IDENTITIES.values()]].copy()
    for name, identity in IDENTITIES.items():
        several = expected.groupby(name)[identity].transform("nunique") > 1
        expected[name] = expected[name].where(~several, expected[name] + " #" + expected[identity].str[:6])
    shots = expected["shots"].map(shots_rank)
    order = ["dataset", "protocol", "fold", "_shots", "augmenter", "n_aug", "draw", "seed"]
    expected = expected.assign(_shots=shots).sort_values(order, key=_sortable, kind="stable", ignore_index=True)
    return expected_frame(expected[list(CELL_FIELDS)].to_dict("records"))


def shots_rank(shots: int | str) -> float:
    """Sorts regimes: zero, few by number, full."""
    return float("inf") if shots == "all" else float(shots)


def _sortable(column: pd.Series) -> pd.Series:
    """None before every number."""
    return column.map(lambda value: -1 if value is None else value) if column.name in MIXED else column


def _frame(rows: list[Mapping[str, Any]], fields: tuple[str, ...]) -> pd.DataFrame:
    kinds = {field: object if field in MIXED else None for field in fields}
    return pd.DataFrame({f: pd.Series([row[f] for row in rows], dtype=kind) for f, kind in kinds.items()})


def _row(store: Store, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as one flat row."""
    key = record["key"]
    try:
        return {"key": key, **_axes(record["spec"]), **_metrics(record["result"]), **_origin(record["provenance"])}
    except (KeyError, TypeError, AttributeError) as error:
        place = store.where("cells", key)
        raise UserError(f"record '{place}' is damaged ({type(error).__name__}: {error}): {FIX_HINT}") from None


def _axes(spec: Mapping[str, Any]) -> dict[str, Any]:
    data, augmenter, protocol = spec["data"], spec["augmenter"], spec["protocol"]
    fresh = spec["fresh_pools"] and spec["n_aug"] > 0
    return {
        "dataset": data["alias"],
        "fold": data["fold"],
        "test_share": data.get("test_share"),
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
        "protocol_id": _protocol_id(protocol),
    }


def _protocol_id(protocol: Mapping[str, Any]) -> str:
    """Of what differs from the defaults, as keys are: records from before a field was there stay comparable."""
    fields = Protocol.model_fields.items()
    defaults = {name: field.get_default() for name, field in fields if not field.is_required()}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in protocol.items()}
    prose = ("about", "sources")
    return digest({k: v for k, v in given.items() if k not in prose and (k not in defaults or v != defaults[k])})


def _metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    """Every metric of both tasks; NaN for those of the other task, of a held-out threshold not chosen, and for those
    that came after the record was written."""
    found: dict[str, Any] = dict.fromkeys((m for metrics in METRICS.values() for m in metrics), float("nan"))
    found |= {"per_class": result.get("per_class"), "confusion": None}
    if "accuracy" in result:
        confusion = {"classes": result["classes"], "matrix": result["confusion"]}
        scores = {metric: result[metric] for metric in METRICS["recognition"]}
        return {**found, **scores, "task": "recognition", "confusion": confusion}
    found |= {metric: result[metric] for metric in ("ap", "ap_step", "ap_trapezoidal", "auroc")}
    found["recall_at_1pct_false_alarms"] = result.get("recall_at_1pct_false_alarms", float("nan"))
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
        "notes": tuple(provenance.get("notes", ())),  # not in records from before there were any
    }
