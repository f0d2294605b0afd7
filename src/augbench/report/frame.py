"""Records and expected cells as DataFrames with one row per cell."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from augbench.core import registry
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError, did_you_mean
from augbench.core.filters import make_filters
from augbench.core.hashing import digest
from augbench.core.protocol import UNKEYED, Protocol
from augbench.metrics.collapse import collapsed
from augbench.planning.audits import load_audits
from augbench.planning.outline import EXPECTED_FIELDS, LATER_FIELDS, shots_and_draw
from augbench.planning.used import used_by
from augbench.report.numbers import named_shots
from augbench.report.table_notes import CONTROLS
from augbench.storage.scores import evaluated_part
from augbench.storage.store import FIX_HINT, Store

METRICS = {
    "detection": (
        *("ap", "ap_step", "ap_trapezoidal", "auroc"),
        *("precision", "recall", "f1"),  # at the best F1 on test, so they use test labels
        *("heldout_precision", "heldout_recall", "heldout_false_alarm_rate"),  # threshold chosen on held-out negatives
        "recall_at_1pct_false_alarms",  # at 1 % FPR, with the threshold chosen on the normal test images
    ),
    "recognition": ("accuracy", "macro_f1"),
}
"""Task -> its metrics, all in [0, 1]."""
ALL_METRICS = tuple(metric for metrics in METRICS.values() for metric in metrics)

CLASS_METRICS = {
    "detection": ("ap", "recall", "heldout_recall"),  # against the normal images, at the same thresholds
    "recognition": ("precision", "recall", "f1"),
}
"""Task -> the metrics of each class, all in [0, 1]."""

CELL_FIELDS = tuple(field for field in EXPECTED_FIELDS if field not in ("fidelity", "audit", "null"))
"""The fields of expected cells that records have too; only the plan knows which pools a cell uses."""

IDENTITIES = {"dataset": "dataset_id", "augmenter": "augmenter_id", "protocol": "protocol_id"}
"""Column with a name -> column with the digest of the settings behind that name."""

FACTS = (
    "collapsed",
    "items",
    "learns",
    "per_class",
    "confusion",
    "frozen",
    "weight",
    "stated_weight",
    "real",
    "embedded",
    "notes",
    "used",
    "filtered",
    "controls",
)
PROVENANCE = ("seconds", "device", "git_sha", "version", "line", "finished")
RECORD_FIELDS = (*CELL_FIELDS, *IDENTITIES.values(), *ALL_METRICS, *FACTS, *PROVENANCE)

RESULT_COLUMNS = {
    "key": "what the record is called in the store",
    "dataset": "name in the grid",
    "protocol": "how the classifier was trained and evaluated",
    "fold": "fold of the dataset; None: its official split",
    "shots": "real defect images that training may use: 0, a number, 'all', or named ones",
    "augmenter": "name in the grid of what made the synthetic images; 'none': there are none",
    "n_aug": "synthetic images in training",
    "draw": "which shots; None where nothing is drawn",
    "adapter_seed": "seed of the adapters behind the synthetic images",
    "seed": "seed of training and of the pool; None where nothing is random",
    "test_share": "share of the images in a random test split; None: the dataset's own split or its folds",
    "task": "detection or recognition",
    "ap_definition": "which of ap_step and ap_trapezoidal is ap",
    "false_alarm_rate": "false positive rate on held-out normal images that sets the threshold; None: no threshold",
    "ap": "average precision, as the protocol defines it",
    "ap_step": "average precision, step-wise",
    "ap_trapezoidal": "area under the precision-recall curve by the trapezoidal rule",
    "auroc": "area under the ROC curve",
    "precision": "at the threshold of the best F1 on the test images",
    "recall": "at the threshold of the best F1 on the test images",
    "f1": "the best F1 on the test images",
    "heldout_precision": "at the threshold from held-out normal images",
    "heldout_recall": "at the threshold from held-out normal images",
    "heldout_false_alarm_rate": "false positive rate on the test images at that threshold",
    "recall_at_1pct_false_alarms": "at 1 % false positives among the normal test images",
    "accuracy": "share of the test images with the right class (recognition)",
    "macro_f1": "mean of the classes' F1 (recognition)",
    "collapsed": "whether the classifier calls all test images the same; None: no scores",
    "seconds": "of the whole training",
    "device": "what it was trained on",
    "git_sha": "commit of augbench; '' where unknown",
    "version": "of third-party plug-ins; '' for augbench's own",
    "finished": "ISO 8601, UTC; '' in older records",
    "embedded": "smoke-test parts: with any, the numbers are no evidence",
    "notes": "remarks about the synthetic images",
    "dataset_id": "digest of the dataset's settings and files",
    "augmenter_id": "digest of the augmenter's settings",
    "protocol_id": "digest of the protocol's fields",
}
"""Columns of `results_frame`, with their meaning. Metrics are in [0, 1]; NaN where the task has them not."""
AXES = ("dataset", "protocol", "fold", "shots", "augmenter", "n_aug", "draw", "adapter_seed", "seed")
"""The order of rows where no grid gives one."""

FROZEN_FIELDS = ("kind", "backbone", "head", "normality")
"""The fields of a protocol that name a classifier on frozen features."""

MIXED = {"fold", "test_share", "shots", "draw", "seed", "false_alarm_rate"}
"""Columns that hold None or "all" beside numbers."""
OBJECTS = {*MIXED, *FACTS, "fidelity", "audit", "null"}
"""Columns of dtype object."""


def load_records(store: Store, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """Load cell records as one row each, sorted by key.

    Args:
        store: the store with the records.
        keys: load only these cells, without those that have no record; None = all.

    Returns:
        Columns `RECORD_FIELDS`: names and axes of the cell; its metrics, NaN where the cell has none; ``collapsed`` and
        ``items`` of its scores, see `ScoreFacts`; ``learns``, whether an augmenter behind it learned from the shots,
        None where that is not known; ``per_class``,
        class -> its ``support`` and `CLASS_METRICS`; ``confusion`` of recognition, ``classes`` and ``matrix`` (row =
        true class); both None where the record has none; ``frozen``, of a classifier on frozen features its protocol's
        `FROZEN_FIELDS`, and ``weight``, where its protocol leaves the weight of synthetic images open the one it chose;
        else None; ``stated_weight``, what its protocol says of that weight; ``real``, the number of real defect images
        it was trained on, None where that is not known; ``seconds`` of the whole training; ``device``; ``git_sha`` (""
        where unknown); ``embedded``, a tuple of the smoke-test parts; ``notes``, a tuple of remarks about its synthetic
        images; ``used``, what these were made from, see `used_by`; ``filtered``, a tuple of what filters dropped of its
        pools, an entry for each
        (`storage.records.Filtered`); ``controls``, those of `CONTROLS` that its protocol has on; ``version`` of its
        plug-ins ("" for augbench's own) and ``line``, a digest that all their versions share; ``finished`` (ISO 8601,
        UTC; "" in older records).

    Raises:
        UserError: a damaged record, named.
    """
    held = store.keys("cells")
    chosen = sorted(held if keys is None else held & set(keys))
    rows = [_row(store, record) for record in store.read_records(chosen)]
    splits = [(row["dataset_id"], row["fold"], row["test_share"]) for row in rows]
    for row, facts in zip(rows, _score_facts(store, chosen, splits), strict=True):
        row |= vars(facts)
    return _frame(rows, RECORD_FIELDS)


def results_frame(store: Store, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """Load the records of cells for analysis: one row each, sorted by `AXES`, with the columns `RESULT_COLUMNS`.

    Arguments and errors as of `load_records`.
    """
    records = load_records(store, keys)[[*RESULT_COLUMNS]]
    return records.sort_values([*AXES], key=_sortable, kind="stable", ignore_index=True)


def load_expected(store: Store, grid_name: str) -> pd.DataFrame:
    """Load the cells of a grid that was planned into this store, in grid order: columns `EXPECTED_FIELDS`.

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
    return with_audits(store, expected_frame(cells))


def with_audits(store: Store, expected: pd.DataFrame) -> pd.DataFrame:
    """Replace the keys in the column ``audit`` by what was found: `planning.audits.Audit`.

    Raises:
        UserError: a damaged record, named.
    """
    audits = load_audits(store, (key for key in expected["audit"] if key))
    column = [audits.get(key) for key in expected["audit"]]
    return expected.assign(audit=pd.Series(column, index=expected.index, dtype=object))


def expected_frame(cells: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Turn the result of `augbench.planning.outline.expected_of` into a DataFrame with columns `EXPECTED_FIELDS`."""
    return _frame([{**LATER_FIELDS, **cell} for cell in cells], EXPECTED_FIELDS)


def expected_from_records(records: pd.DataFrame) -> pd.DataFrame:
    """Take all records as the expected cells, for a store that knows no grid.

    Records of different grids may use one name for different settings. Such a name gets the start of a digest appended,
    so that numbers of different settings are never averaged. Pools are unknown here, so there is no fidelity table.
    """
    expected = records[[*CELL_FIELDS, *IDENTITIES.values()]].copy()
    for name, identity in IDENTITIES.items():
        several = expected.groupby(name)[identity].transform("nunique") > 1
        expected[name] = expected[name].where(~several, expected[name] + " #" + expected[identity].str[:6])
    expected = expected.sort_values([*AXES], key=_sortable, kind="stable", ignore_index=True)
    return expected_frame(expected[list(CELL_FIELDS)].to_dict("records"))


def shots_rank(shots: int | str) -> float:
    """Return the sort key of a regime: zero-shot, few-shot by number, named shots behind drawn ones, full-shot."""
    if named := named_shots(shots):
        return named[0] + 0.5
    return float("inf") if shots == "all" else float(shots)


def _sortable(column: pd.Series) -> pd.Series:
    """Map a column to sort keys: None comes before every number, and shots as `shots_rank` has them."""
    if column.name == "shots":
        return column.map(shots_rank)
    return column.map(lambda value: -1 if value is None else value) if column.name in MIXED else column


def _frame(rows: list[Mapping[str, Any]], fields: tuple[str, ...]) -> pd.DataFrame:
    kinds = {field: object if field in OBJECTS else None for field in fields}
    return pd.DataFrame({f: pd.Series([row[f] for row in rows], dtype=kind) for f, kind in kinds.items()})


def _row(store: Store, record: Mapping[str, Any]) -> dict[str, Any]:
    key = record["key"]
    try:
        spec, result = record["spec"], record["result"]
        return {
            "key": key,
            **_axes(spec),
            **_metrics(result),
            **_probe(spec, result),
            **_origin(spec, record["provenance"]),
        }
    except (KeyError, TypeError, AttributeError) as error:
        place = store.where("cells", key)
        raise UserError(f"record '{place}' is damaged ({type(error).__name__}: {error}): {FIX_HINT}") from None


def _axes(spec: Mapping[str, Any]) -> dict[str, Any]:
    data, augmenter, protocol = spec["data"], spec["augmenter"], spec["protocol"]
    fresh, protocol_id = spec["fresh_pools"] and spec["n_aug"] > 0, _protocol_id(protocol)
    return {
        "dataset": data["alias"],
        "fold": data["fold"],
        "test_share": data.get("test_share"),
        "augmenter": augmenter["alias"],
        **shots_and_draw(spec["shots"], spec["draw"]),
        "n_aug": spec["n_aug"],
        "seed": spec["seed"],
        "adapter_seed": spec.get("adapter_seed", 0),
        "protocol": protocol["name"],
        "ap_definition": protocol["ap"],
        "false_alarm_rate": protocol["false_alarm_rate"] if data["holdout"] else None,
        "dataset_id": digest([data["name"], data["settings"], data["fingerprint"]]),
        "augmenter_id": digest([augmenter["name"], augmenter["key_settings"], fresh, *filters_in(augmenter)]),
        "protocol_id": protocol_id,
        **_version(data, augmenter, [fresh, protocol_id]),
    }


def _version(data: Mapping[str, Any], augmenter: Mapping[str, Any], others: list[Any]) -> dict[str, str]:
    """Return the version of the plug-ins of a cell, as `registry.version` puts it into keys, and its line."""
    parts = [dict(data["settings"]), dict(augmenter["key_settings"])]
    versions = [part.pop("plugin", "") for part in parts]
    content = "" if versions[0] else data["fingerprint"]  # an edited dataset may have another table
    line = digest([data["name"], content, augmenter["name"], *others, *parts, *filters_in(augmenter)])
    return {"version": " ".join(filter(None, versions)), "line": line}


def filters_in(augmenter: Mapping[str, Any]) -> list[Any]:
    """Return what the filters of an augmenter, as in a record, add to its identity; [] without filters."""
    return [make_filters(augmenter["filters"]).key_fields] if "filters" in augmenter else []


def _protocol_id(protocol: Mapping[str, Any]) -> str:
    """Digest the fields that differ from the defaults, as keys do: records older than a field stay comparable."""
    fields = Protocol.model_fields.items()
    defaults = {name: field.get_default() for name, field in fields if not field.is_required()}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in protocol.items()}
    return digest({k: v for k, v in given.items() if k not in UNKEYED and (k not in defaults or v != defaults[k])})


def _metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    """Collect every metric of both tasks.

    A metric is NaN where it belongs to the other task, where there is no held-out threshold, and where the record is
    older than the metric.
    """
    found: dict[str, Any] = dict.fromkeys(ALL_METRICS, float("nan"))
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


def _probe(spec: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    protocol = spec["protocol"]
    is_frozen = protocol.get("kind", "finetune") != "finetune"  # older records have no kind
    is_open = is_frozen and protocol["synthetic_weight"] == "cv"
    return {
        "frozen": {field: protocol[field] for field in FROZEN_FIELDS} if is_frozen else None,
        "weight": result["chosen"]["synthetic_weight"] if is_open else None,
        "stated_weight": protocol.get("synthetic_weight", 1.0),  # older records have none
        "real": result.get("counts", {}).get("shots"),
    }


def _origin(spec: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    augmenter = spec["augmenter"]
    return {
        "learns": _learns(spec, provenance),
        "seconds": provenance["seconds"]["total"],
        "device": provenance["device"],
        "git_sha": provenance["git_sha"] or "",
        "embedded": tuple(provenance["embedded"]),
        "notes": tuple(provenance.get("notes", ())),  # older records have none
        "used": _used(augmenter, spec["shots"]) if spec["n_aug"] else (),
        "filtered": tuple(provenance.get("filtered", ())),
        "controls": _controls(spec["protocol"]),
        "finished": provenance.get("finished", ""),
    }


def _controls(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the controls that are on; records older than a field lack it."""
    off = {name: Protocol.model_fields[name].default for name in CONTROLS}
    return {name: value for name in CONTROLS if (value := protocol.get(name, off[name])) != off[name]}


def _used(augmenter: Mapping[str, Any], shots: int | str) -> tuple[str, ...]:
    """Return `used_by` of an augmenter; () if it is not installed, or its settings are of another version."""
    settings, filters = (json.dumps(augmenter.get(part, {})) for part in ("settings", "filters"))
    return _used_by(augmenter["name"], settings, filters, shots)


@cache  # for many cells
def _used_by(name: str, settings: str, filters: str, shots: int | str) -> tuple[str, ...]:
    try:
        augmenter = registry.make("augmenters", name, json.loads(settings))
        return used_by(augmenter, shots, make_filters(json.loads(filters)))
    except UserError:
        return ()


def _learns(spec: Mapping[str, Any], provenance: Mapping[str, Any]) -> bool | None:
    """Return whether adapters are behind a cell; of a record older than its lineage, whether its plug-in learns."""
    if not spec["n_aug"]:
        return False
    if provenance.get("adapters") is not None:
        return bool(provenance["adapters"])
    augmenter = spec["augmenter"]
    plugin = registry.find("augmenters").get(augmenter["name"])
    return None if plugin is None or "parts" in augmenter["key_settings"] else plugin.learns


# -- what the stored scores say that records do not


@dataclass(frozen=True)
class ScoreFacts:
    """The facts of one cell; None where it has no scores, or damaged ones, which ``augbench store check`` names."""

    collapsed: bool | None = None  # see `metrics.collapse`
    items: int | None = None  # test items of the kind, normal or with a defect, that has fewer


def _score_facts(store: Store, keys: Sequence[str], splits: Sequence[Hashable]) -> Iterator[ScoreFacts]:
    """Yield the facts of these cells, in their order, reading each score table once.

    Args:
        store: the store with the scores.
        keys: keys of cells.
        splits: what names the test images of each cell: cells with equal ones share the number of items.
    """
    items: dict[Hashable, int] = {}
    contents = store.files.read_many([store.name("scores", key) for key in keys])
    for split, data in zip(splits, contents, strict=True):
        try:
            logits = evaluated_part(data or b"", "logit")
            if split not in items:
                items[split] = _fewest(*evaluated_part(data or b"", "group", "label").T)
        except ValueError:
            yield ScoreFacts()
        else:
            yield ScoreFacts(collapsed(logits), items[split])


def _fewest(groups: np.ndarray, labels: np.ndarray) -> int:
    """Count physical items with and without a defect image; return the smaller count that is not 0."""
    defective = np.unique(groups[labels != GOOD])
    normal = np.setdiff1d(groups, defective)
    return min((len(items) for items in (normal, defective) if len(items)), default=0)
