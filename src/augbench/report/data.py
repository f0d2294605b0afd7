"""Tables -> numbers for other programs: CSV and JSON, at full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any

from augbench.core.store import json_bytes
from augbench.report.frame import METRICS
from augbench.report.tables import Row, Stat, Table

ALL_METRICS = tuple(metric for metrics in METRICS.values() for metric in metrics)


def to_csv(tables: Sequence[Table]) -> str:
    """One line per table row: where it stands, how many cells it has, and ``<metric>_mean``, ``<metric>_std``.

    Column ``row`` says what a line is: ``cells``, ``average``, or ``class``, which follows the cells it is about and
    holds the metrics of one class, named in column ``class``, and its ``support``, the number of its test pictures.
    A number is written so that reading it gives the same float64; what is not there is empty.
    """
    buffer = io.StringIO()
    lines = [line for table in tables for row in table.rows for line in _csv_lines(table, row)]
    writer = csv.DictWriter(buffer, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _csv_lines(table: Table, row: Row) -> Iterator[dict[str, Any]]:
    kind = "average" if row.is_average else "cells"
    yield _csv_line(table, row, kind, "", row.stats)
    for name, stats in row.classes.items():
        yield _csv_line(table, row, "class", name, stats)


def _csv_line(table: Table, row: Row, kind: str, name: str, stats: Mapping[str, Stat]) -> dict[str, Any]:
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
    return line


def _number(value: float) -> str:
    return "" if isnan(value) else repr(value)


def to_json(name: str, tables: Sequence[Table]) -> bytes:
    """The same numbers with the words around them. What is not there is null."""
    return json_bytes({"report": name, "tables": [_json_table(table) for table in tables]})


def _json_table(table: Table) -> dict[str, Any]:
    plain = (
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
        "captions",
        "notes",
    )
    columns = [vars(column) for column in table.columns]
    return {field: getattr(table, field) for field in plain} | {
        "columns": columns,
        "rows": [_json_row(table, row) for row in table.rows],
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
        "confusion": row.confusion,
    }


def _json_stats(stats: Mapping[str, Stat]) -> dict[str, Any]:
    return {metric: _json_stat(stat) for metric, stat in stats.items()}


def _json_stat(stat: Stat) -> dict[str, Any]:
    values = {"mean": stat.mean, "std": stat.std}
    return {name: None if isnan(value) else value for name, value in values.items()} | {"n": stat.n}
