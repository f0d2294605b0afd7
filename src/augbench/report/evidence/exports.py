"""Evidence -> CSV and JSON for other programs. Missing values are empty or null.

Numbers have `DIGITS` significant digits: resampling is far less exact, and more digits would differ between processors.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from augbench.metrics.inference import VarianceSplit
from augbench.metrics.resampling import CONFIDENCE, Interval
from augbench.report.evidence.build import Comparison, Evidence, RowEvidence
from augbench.report.evidence.pareto import RowCost
from augbench.report.evidence.ranking import Ranking
from augbench.report.evidence.sheets import Chapter
from augbench.report.table_exports import about_table
from augbench.storage.store import json_bytes

DIGITS = 10
FIELDS = (
    "dataset",
    "protocol",
    "folds",
    "shots",
    "line",
    "augmenter",
    "n_aug",
    "versus",
    "versus_n_aug",
    "metric",
    "runs",
    "estimate",
    "low",
    "high",
    "low_together",
    "high_together",
    "error",
    "freedom",
    "error_items",
    "error_draw",
    "error_seed",
    "error_fold",
    "seeds",
    "p",
    "p_holm",
    "verdict",
    "std_fold",
    "std_draw",
    "std_seed",
    "std_rest",
    "search_seconds",
    "class_pictures_seconds",
    "adapting_seconds",
    "generating_seconds",
    "cost_seconds",
    "training_seconds",
    "efficient",
    "embedded",
)


def to_csv(evidence: Sequence[Evidence]) -> str:
    """Write one line per interval and comparison; column ``line`` is ``interval``, ``against`` or ``pair``.

    ``low`` to ``high`` is the interval of one comparison alone. ``low_together`` to ``high_together`` holds
    simultaneously with the others of the same list and decides the verdict. Lines of the headline metric also have
    variance and cost.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(line for one in evidence for line in _lines(one))
    return buffer.getvalue()


def _lines(evidence: Evidence) -> Iterator[dict[str, Any]]:
    table = evidence.table
    where = {
        "dataset": table.dataset,
        "protocol": table.protocol,
        "folds": " ".join(map(str, table.folds)),
        "shots": table.shots,
        "embedded": "; ".join(table.embedded),
    }
    for row in evidence.rows:
        for metric in evidence.metrics:
            name = {"line": "interval", "augmenter": row.augmenter, "n_aug": row.n_aug, "metric": metric}
            more = _flat_row(row) if metric == evidence.headline else {}
            yield where | name | _texts({**_flat(row.intervals[metric]), **more})
    for kind, compared in (("against", evidence.against), ("pair", evidence.pairs)):
        for one in compared:
            yield where | {"line": kind, "metric": evidence.headline} | _texts(_flat_comparison(one))


def _flat(found: Interval) -> dict[str, Any]:
    plain = {name: getattr(found, name) for name in ("runs", "estimate", "low", "high", "error", "freedom")}
    return plain | {f"error_{name}": value for name, value in found.parts.items()}


def _flat_row(row: RowEvidence) -> dict[str, Any]:
    names = ("fold", "draw", "seed", "rest")
    found = {f"std_{name}": getattr(row.variance, name) for name in names}
    if row.cost is not None:
        parts = ("search", "class_pictures", "adapting", "generating")
        found |= {f"{name}_seconds": getattr(row.cost, name) for name in parts} | {"cost_seconds": row.cost.total}
    return found | {"training_seconds": row.training_seconds, "efficient": int(row.efficient)}


def _flat_comparison(one: Comparison) -> dict[str, Any]:
    plain = ("augmenter", "n_aug", "versus", "versus_n_aug", "seeds", "p", "p_holm")
    together = {"low_together": one.together.low, "high_together": one.together.high, "verdict": str(one.verdict)}
    return {name: getattr(one, name) for name in plain} | _flat(one.alone) | together


def _texts(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _text(value) if isinstance(value, float) else value for name, value in values.items()}


def _text(value: float) -> str:
    return repr(_short(value)) if isfinite(value) else ""


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def to_json(name: str, evidence: Sequence[Evidence], chapters: Sequence[Chapter], rankings: Sequence[Ranking]) -> bytes:
    """Write the same numbers with captions and notes; ``chapters`` are those of ``evidence``, in its order."""
    tables = [_json_table(one, chapter) for one, chapter in zip(evidence, chapters, strict=True)]
    return json_bytes(
        {"report": name, "confidence": CONFIDENCE, "tables": tables, "rankings": [_ranking(r) for r in rankings]}
    )


def _json_table(evidence: Evidence, chapter: Chapter) -> dict[str, Any]:
    texts = {sheet.title: [*sheet.captions, *sheet.notes] for sheet in chapter.sheets}
    return about_table(evidence.table) | {
        "headline": evidence.headline,
        "baseline": evidence.baseline or None,
        "resamples": evidence.resamples,
        "test_items": evidence.groups,
        "defective_test_items": evidence.defective_groups,
        "rows": [_json_row(row) for row in evidence.rows],
        "against": [_json_comparison(one) for one in evidence.against],
        "pairs": [_json_comparison(one) for one in evidence.pairs],
        "sentences": chapter.sentences,
        "words": texts,
    }


def _json_row(row: RowEvidence) -> dict[str, Any]:
    return {
        "augmenter": row.augmenter,
        "n_aug": row.n_aug,
        "found": row.found,
        "expected": row.expected,
        "intervals": {metric: _json_interval(found) for metric, found in row.intervals.items()},
        "variance": _json_variance(row.variance),
        "cost": _json_cost(row.cost),
        "training_seconds": _finite(row.training_seconds),
        "efficient": row.efficient,
    }


def _json_comparison(one: Comparison) -> dict[str, Any]:
    names = ("augmenter", "n_aug", "versus", "versus_n_aug", "seeds")
    return {name: getattr(one, name) for name in names} | {
        "alone": _json_interval(one.alone),
        "together": _json_interval(one.together),
        "p": _finite(one.p),
        "p_holm": _finite(one.p_holm),
        "verdict": str(one.verdict),
    }


def _json_interval(found: Interval) -> dict[str, Any]:
    numbers = {name: _finite(getattr(found, name)) for name in ("estimate", "low", "high", "error", "freedom")}
    return numbers | {"runs": found.runs, "error_by": {name: _finite(value) for name, value in found.parts.items()}}


def _json_variance(found: VarianceSplit) -> dict[str, Any]:
    return {name: _finite(getattr(found, name)) for name in ("fold", "draw", "seed", "rest")}


def _json_cost(cost: RowCost | None) -> dict[str, Any] | None:
    if cost is None:
        return None
    names = ("search", "class_pictures", "adapting", "generating", "total")
    return {name: _short(getattr(cost, name)) for name in names} | {
        "devices": cost.devices,
        "told_apart": cost.told_apart,
    }


def _ranking(found: Ranking) -> dict[str, Any]:
    ranks = found.ranks
    plain = {name: getattr(found, name) for name in ("protocol", "shots", "metric", "datasets", "augmenters")}
    return plain | {
        "average": ranks and [_short(rank) for rank in ranks.average],
        "p": ranks and _finite(ranks.p),
        "critical_difference": ranks and _finite(ranks.critical_difference),
    }


def _finite(value: float) -> float | None:
    return _short(value) if isfinite(value) else None
