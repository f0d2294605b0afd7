"""Comparisons with papers -> CSV and JSON for other programs, at full precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augbench.report.numbers import Stat
from augbench.report.papers.layouts import LayoutComparison, Line
from augbench.report.papers.printed import METRICS
from augbench.report.render import data

SIDES = ("theirs", "ours")


def to_csv(comparison: LayoutComparison) -> str:
    """Write one line per row of the paper's table, averages included.

    ``difference_`` is ours minus theirs, for rows without mismatches; ``mismatches`` lists the others' mismatches,
    separated by "; ".
    """
    return data.to_csv([_line(comparison, line) for line in comparison.lines])


def _line(comparison: LayoutComparison, line: Line) -> dict[str, Any]:
    layout = comparison.layout
    row = {
        "layout": layout.name,
        "paper": layout.paper.key,
        "table": layout.number,
        "dataset": comparison.dataset,
        "protocol": line.elsewhere or comparison.protocol,
        "shots": layout.rows[0].shots,
        "augmenter": line.augmenter,
        "row": "average" if line.is_average else "cells",
        "n_aug": line.n_aug,
        "found": line.found,
        "expected": line.expected,
        "copied_from": line.reference.copied_from if line.reference else "",
        "mismatches": "; ".join(comparison.mismatches[number - 1] for number in line.differs),
        "embedded": "; ".join(comparison.embedded),
    }
    for side in SIDES:
        for metric, stat in getattr(line, side).items():
            row |= {f"{side}_{metric}_mean": stat.mean, f"{side}_{metric}_std": stat.std}
    row |= {f"difference_{metric}": line.difference(metric) for metric in METRICS}
    return row | {"collapsed": len(line.collapsed), "caveats": "; ".join((*line.caveats, *comparison.caveats))}


def to_json(comparison: LayoutComparison) -> bytes:
    """Write the same numbers with captions and notes. Missing values are null."""
    layout, about = comparison.layout, comparison.layout.paper.about
    own = ("dataset", "protocol", "label", "embedded", "captions", "mismatches", "notes")
    content = {name: getattr(comparison, name) for name in own} | {
        "layout": layout.name,
        "title": layout.title,
        "paper": {"key": layout.paper.key, "table": layout.number, "reference": about.reference, "url": about.url},
        "shots": layout.rows[0].shots,
        "rows": [_row(comparison, line) for line in comparison.lines],
    }
    return data.to_json(content)


def _row(comparison: LayoutComparison, line: Line) -> dict[str, Any]:
    """Return a row; ``mismatches`` are positions in the list of the table, from 1 on."""
    names = ("augmenter", "label", "n_aug", "found", "expected", "incomplete", "comparable")
    return {name: getattr(line, name) for name in names} | {
        "collapsed": len(line.collapsed),
        "caveats": (*line.caveats, *comparison.caveats),
        "is_average": line.is_average,
        "protocol": line.elsewhere or comparison.protocol,
        "copied_from": line.reference.copied_from if line.reference else "",
        "mismatches": line.differs,
        "marks": {side: line.best.get(side, {}) for side in SIDES},
        "theirs": _stats(line.theirs),
        "ours": _stats(line.ours) if line.comparable else None,
        "difference": {metric: line.difference(metric) for metric in METRICS} if line.matches else None,
    }


def _stats(stats: Mapping[str, Stat]) -> dict[str, Any]:
    return {metric: {"mean": stat.mean, "std": stat.std} for metric, stat in stats.items()}
