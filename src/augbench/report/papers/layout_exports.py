"""Comparisons with papers -> CSV and JSON for other programs, at full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from math import isnan
from typing import Any

from augbench.report.numbers import Stat
from augbench.report.papers.layouts import LayoutComparison, Line
from augbench.report.papers.printed import METRICS
from augbench.storage.store import json_bytes

SIDES = ("theirs", "ours")


def to_csv(comparison: LayoutComparison) -> str:
    """Write one line per row of the paper's table, averages included.

    Numbers are written so that reading them gives the same float64. Missing values are empty. ``difference_`` is ours
    minus theirs, for rows without mismatches; ``mismatches`` lists the others' mismatches, separated by "; ".
    """
    buffer = io.StringIO()
    lines = [_csv_line(comparison, line) for line in comparison.lines]
    writer = csv.DictWriter(buffer, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _csv_line(comparison: LayoutComparison, line: Line) -> dict[str, Any]:
    layout = comparison.layout
    row = {
        "layout": layout.name,
        "paper": layout.paper.key,
        "table": layout.number,
        "dataset": comparison.dataset,
        "protocol": line.elsewhere or comparison.protocol,
        "shots": layout.rows[0].shots,
        "augmenter": line.augmenter,
        "row": "average" if line.average else "cells",
        "n_aug": "" if line.n_aug is None else line.n_aug,
        "found": line.found,
        "expected": line.expected,
        "copied_from": line.reference.copied_from if line.reference else "",
        "mismatches": "; ".join(comparison.mismatches[number - 1] for number in line.differs),
        "embedded": "; ".join(comparison.embedded),
    }
    for side in SIDES:
        for metric, stat in getattr(line, side).items():
            row |= {f"{side}_{metric}_mean": _number(stat.mean), f"{side}_{metric}_std": _number(stat.std)}
    return row | {f"difference_{metric}": _number(line.difference(metric)) for metric in METRICS}


def _number(value: float) -> str:
    return "" if isnan(value) else repr(value)


def to_json(comparison: LayoutComparison) -> bytes:
    """Write the same numbers with captions and notes. Missing values are null."""
    layout, about = comparison.layout, comparison.layout.paper.about
    return json_bytes(
        {
            "layout": layout.name,
            "title": layout.title,
            "paper": {"key": layout.paper.key, "table": layout.number, "reference": about.reference, "url": about.url},
            "dataset": comparison.dataset,
            "protocol": comparison.protocol,
            "shots": layout.rows[0].shots,
            "label": comparison.label,
            "embedded": comparison.embedded,
            "captions": comparison.captions,
            "mismatches": comparison.mismatches,
            "notes": comparison.notes,
            "rows": [_json_row(comparison, line) for line in comparison.lines],
        }
    )


def _json_row(comparison: LayoutComparison, line: Line) -> dict[str, Any]:
    """Convert a row; ``mismatches`` are positions in the list of the table, from 1 on."""
    return {
        "augmenter": line.augmenter,
        "label": line.label,
        "n_aug": line.n_aug,
        "is_average": line.average,
        "found": line.found,
        "expected": line.expected,
        "incomplete": line.incomplete,
        "comparable": line.comparable,
        "protocol": line.elsewhere or comparison.protocol,
        "copied_from": line.reference.copied_from if line.reference else "",
        "mismatches": line.differs,
        "marks": {side: dict(line.best.get(side, {})) for side in SIDES},
        "theirs": _json_stats(line.theirs),
        "ours": _json_stats(line.ours) if line.comparable else None,
        "difference": {metric: _json_number(line.difference(metric)) for metric in METRICS} if line.matches else None,
    }


def _json_stats(stats: Mapping[str, Stat]) -> dict[str, Any]:
    return {metric: {"mean": _json_number(stat.mean), "std": _json_number(stat.std)} for metric, stat in stats.items()}


def _json_number(value: float) -> float | None:
    return None if isnan(value) else value
