"""Tables -> CSV and JSON for other programs, at full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any

from augbench.report.confusion import Confusion
from augbench.report.fidelity_table import Fidelity, FidelityRow
from augbench.report.frame import METRICS
from augbench.report.numbers import Stat
from augbench.report.tables import Row, Table
from augbench.storage.store import json_bytes

ALL_METRICS = tuple(metric for metrics in METRICS.values() for metric in metrics)
FIDELITY_COLUMNS = {
    "kid_mean": "kid",
    "kid_std": "",
    "kid_low": "kid_low",
    "kid_high": "kid_high",
    "fid_mean": "fid",
    "diversity_mean": "diversity",
    "diversity_of_real": "diversity_of_real",
    "memorisation_mean": "memorisation",
    "seconds_per_picture": "seconds_per_picture",
    "extractor": "",
    "pictures": "",
    "real": "",
}
"""Columns of ``fidelity`` lines -> the measure whose mean over pools they hold; "" where it is no mean."""
CONFUSION_COLUMNS = ("predicted", "share_mean", "share_std")


def to_csv(tables: Sequence[Table]) -> str:
    """Write one line per table row: its table, the number of cells, and ``<metric>_mean``, ``<metric>_std``.

    Column ``row`` gives the kind of a line:

    - ``cells`` and ``average``: a row of the table.
    - ``class``: the metrics of one class, named in column ``class``, of the cells above; ``support`` is the number of
      its test images.
    - ``confusion``: one line per pair of classes; ``share_mean`` is the fraction of test images of the true class
      ``class`` that were predicted as ``predicted``.
    - ``fidelity``: fills the columns from ``kid_mean`` on. ``found`` and ``expected`` count pools. The headline metric
      is the mean over the augmenter's rows with N_aug > 0. Several counts in one field are separated by spaces.
    - ``fidelity_class``: the KID of one class.

    Numbers are written so that reading them gives the same float64. Missing values are empty.
    """
    buffer = io.StringIO()
    lines = [line for table in tables for line in _csv_lines(table)]
    writer = csv.DictWriter(buffer, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _csv_lines(table: Table) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        yield _csv_line(table, row, "average" if row.is_average else "cells", "", row.stats)
        for name, stats in row.classes.items():
            yield _csv_line(table, row, "class", name, stats)
        if row.confusion:
            yield from _csv_confusion(table, row, row.confusion)
    for row in table.fidelity.rows:
        line = _csv_line(table, row, "fidelity", "", {table.headline: row.outcome.stat})
        yield line | {"embedded": "; ".join(table.fidelity.embedded)} | _csv_fidelity(row)
        for name, stat in row.kid_by_class.items():
            kid = {"kid_mean": _number(stat.mean), "kid_std": _number(stat.std), "extractor": row.extractor}
            yield _csv_line(table, row, "fidelity_class", name, {}) | kid


def _csv_line(table: Table, row: Row | FidelityRow, kind: str, name: str, stats: Mapping[str, Stat]) -> dict[str, Any]:
    line = {
        "dataset": table.dataset,
        "protocol": table.protocol,
        "folds": " ".join(map(str, table.folds)),
        "test_share": "" if table.test_share is None else table.test_share,
        "shots": table.shots,
        "augmenter": row.augmenter,
        "row": kind,
        "class": name,
        "n_aug": "" if row.n_aug is None else row.n_aug,
        "found": row.found,
        "expected": row.expected,
        "ap_definition": table.ap_definition,
        "embedded": "; ".join(table.embedded),
        "notes": "; ".join(row.notes),
    }
    for metric in (*ALL_METRICS, "support"):
        stat = stats.get(metric, Stat())
        line |= {f"{metric}_mean": _number(stat.mean), f"{metric}_std": _number(stat.std)}
    return line | dict.fromkeys((*FIDELITY_COLUMNS, *CONFUSION_COLUMNS), "")


def _csv_confusion(table: Table, row: Row, confusion: Confusion) -> Iterator[dict[str, Any]]:
    for true, stats in zip(confusion.classes, confusion.shares, strict=True):
        for predicted, stat in zip(confusion.classes, stats, strict=True):
            values = (predicted, _number(stat.mean), _number(stat.std))
            line = _csv_line(table, row, "confusion", true, {})
            yield line | dict(zip(CONFUSION_COLUMNS, values, strict=True))


def _csv_fidelity(row: FidelityRow) -> dict[str, Any]:
    means = {name: _number(row.stats[measure].mean) for name, measure in FIDELITY_COLUMNS.items() if measure}
    counts = {"pictures": " ".join(map(str, row.images)), "real": " ".join(map(str, row.real))}
    return means | {"kid_std": _number(row.stats["kid"].std), "extractor": row.extractor} | counts


def _number(value: float) -> str:
    return "" if isnan(value) else repr(value)


def to_json(name: str, tables: Sequence[Table]) -> bytes:
    """Write the same numbers with titles, captions and notes. Missing values are null."""
    return json_bytes({"report": name, "tables": [_json_table(table) for table in tables]})


def about_table(table: Table) -> dict[str, Any]:
    """Return the fields that identify a table, for the JSON of reports and comparisons."""
    fields = (
        "title",
        "label",
        "dataset",
        "protocol",
        "folds",
        "test_share",
        "shots",
        "task",
        "ap_definition",
        "embedded",
    )
    return {field: getattr(table, field) for field in fields}


def _json_table(table: Table) -> dict[str, Any]:
    columns = [vars(column) for column in table.columns]
    return about_table(table) | {
        "captions": table.captions,
        "notes": table.notes,
        "columns": columns,
        "rows": [_json_row(table, row) for row in table.rows],
        "fidelity": _json_fidelity(table.fidelity),
    }


def _json_fidelity(table: Fidelity) -> dict[str, Any]:
    """Convert a fidelity table; all fields are empty where there is no record."""
    return {
        "title": table.title,
        "label": table.label,
        "embedded": table.embedded,
        "captions": table.captions,
        "notes": table.notes,
        "columns": [vars(column) for column in table.columns],
        "rows": [_json_fidelity_row(table, row) for row in table.rows],
    }


def _json_fidelity_row(table: Fidelity, row: FidelityRow) -> dict[str, Any]:
    """Convert a row: ``found`` and ``expected`` count pools; the headline metric is that of the table above."""
    return {
        "augmenter": row.augmenter,
        "extractor": row.extractor,
        "pictures": row.images,
        "real": row.real,
        "found": row.found,
        "expected": row.expected,
        "incomplete": row.incomplete,
        "text": {column.key: row.text(column) for column in table.columns},
        "metrics": _json_stats(row.stats | {row.headline: row.outcome.stat}),
        "kid_by_class": _json_stats(row.kid_by_class),
    }


def _json_row(table: Table, row: Row) -> dict[str, Any]:
    return {
        "augmenter": row.augmenter,
        "n_aug": row.n_aug,
        "is_average": row.is_average,
        "found": row.found,
        "expected": row.expected,
        "incomplete": row.incomplete,
        "best": row.best,
        "notes": row.notes,
        "text": {column.key: row.text(column) for column in table.columns},
        "metrics": _json_stats(row.stats),
        "per_class": {name: _json_stats(stats) for name, stats in row.classes.items()},
    } | _json_confusion(row.confusion)


def _json_confusion(found: Confusion | None) -> dict[str, Any]:
    """Convert the sum over cells and the normalised matrix; an entry is null where no cell has images of that class."""
    names = ("confusion", "confusion_mean", "confusion_std")
    if found is None:
        return dict.fromkeys(names)
    stats = [[_json_stat(stat) for stat in line] for line in found.shares]
    matrices = (found.total, *([[stat[of] for stat in line] for line in stats] for of in ("mean", "std")))
    return {name: {"classes": found.classes, "matrix": matrix} for name, matrix in zip(names, matrices, strict=True)}


def _json_stats(stats: Mapping[str, Stat]) -> dict[str, Any]:
    return {metric: _json_stat(stat) for metric, stat in stats.items()}


def _json_stat(stat: Stat) -> dict[str, Any]:
    values = {"mean": stat.mean, "std": stat.std}
    return {name: None if isnan(value) else value for name, value in values.items()} | {"n": stat.n}
