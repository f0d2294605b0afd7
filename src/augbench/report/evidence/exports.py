"""Evidence -> CSV and JSON for other programs. Missing values are empty or null.

Numbers have `DIGITS` significant digits: resampling is far less exact, and more digits would differ between processors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

import pandas as pd

from augbench.metrics.resampling import CONFIDENCE, Interval
from augbench.report.evidence.build import Comparison, Evidence, RowEvidence, Worth
from augbench.report.evidence.ranking import Ranking
from augbench.report.evidence.sheets import worth_sentence
from augbench.report.render import data
from augbench.report.sheet import Section
from augbench.report.table_exports import about_table

DIGITS = 10
FIELDS = (
    *("dataset", "protocol", "folds", "shots"),
    *("line", "augmenter", "n_aug", "versus", "versus_n_aug", "metric", "runs"),
    *("estimate", "low", "high", "low_together", "high_together", "error", "freedom"),
    *(
        "error_items",
        "error_draw",
        "error_seed",
        "error_adapter",
        "error_fold",
        "seeds",
        "p",
        "p_holm",
        "verdict",
        "finding",
    ),
    *("std_fold", "std_draw", "std_seed", "std_rest"),
    *("search_seconds", "class_pictures_seconds", "adapting_seconds", "generating_seconds", "cost_seconds"),
    *("training_seconds", "efficient", "embedded"),
    *("collapsed", "caveats", "found", "expected"),
)
INTERVAL = ("runs", "estimate", "low", "high", "error", "freedom")
COMPARED = ("augmenter", "n_aug", "versus", "versus_n_aug", "seeds", "p", "p_holm")
OVER_FREE = ("augmenter", "n_aug", "strongest", "verdict", "collapsed")
WORTH = ("count", "worth", "low", "high", "leaving")  # null: beside the curve
SOURCES = ("fold", "draw", "seed", "rest")  # of variance
PARTS = ("search", "class_pictures", "adapting", "generating", "total")  # of cost


def to_csv(evidence: Sequence[Evidence]) -> str:
    """Write one line per interval and comparison; column ``line`` is ``interval``, ``against``, ``pair``,
    ``over_null`` (a row minus its null) or ``null`` (a null minus the baseline).

    ``low`` to ``high`` is the interval of one comparison alone. ``low_together`` to ``high_together`` holds
    simultaneously with the others of the same list and decides the verdict. Lines of the headline metric also have
    variance and cost.
    """
    return data.to_csv([line for one in evidence for line in _lines(one)], FIELDS, DIGITS)


def to_frame(evidence: Mapping[str, Sequence[Evidence]]) -> pd.DataFrame:
    """Return the lines of `to_csv` of several grids at full precision, with the grid's name in a first column."""
    lines = [{"grid": grid} | line for grid, several in evidence.items() for one in several for line in _lines(one)]
    return pd.DataFrame(lines, columns=["grid", *FIELDS])


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
            name |= {"found": row.found, "expected": row.expected, "collapsed": len(row.collapsed)}
            name["caveats"] = "; ".join((*row.caveats, *table.caveats))
            yield where | name | _flat(row.intervals[metric]) | (_more(row) if metric == evidence.headline else {})
    lists = {
        "against": evidence.against,
        "pair": evidence.pairs,
        "over_null": [check.over for check in evidence.checks],
        "null": {check.null_gain.row: check.null_gain for check in evidence.checks}.values(),
    }
    findings = {check.over.row: str(check.finding) for check in evidence.checks}
    for kind, compared in lists.items():
        for one in compared:
            together = {"low_together": one.together.low, "high_together": one.together.high}
            line = {"line": kind, "metric": evidence.headline, "verdict": str(one.verdict), "collapsed": one.collapsed}
            line["finding"] = findings[one.row] if kind == "over_null" else None
            line["caveats"] = "; ".join((*_caveats(evidence, one), *table.caveats))
            yield where | line | _fields(one, COMPARED) | _flat(one.alone) | together


def _caveats(evidence: Evidence, one: Comparison) -> Iterator[str]:
    """Yield what a reader of a difference must know: the caveats of its two rows."""
    names = (one.augmenter, one.n_aug), (one.versus, one.versus_n_aug)
    a, b = (next(row for row in evidence.rows if row.name == name) for name in names)
    yield from (caveat for caveat in a.caveats if caveat in b.caveats)
    yield from (f"{row.augmenter}: {text}" for row, other in ((a, b), (b, a)) for text in row.caveats
                if text not in other.caveats)  # fmt: skip


def _flat(found: Interval) -> dict[str, Any]:
    return _fields(found, INTERVAL) | {f"error_{name}": value for name, value in found.parts.items()}


def _more(row: RowEvidence) -> dict[str, Any]:
    more = {f"std_{name}": value for name, value in _fields(row.variance, SOURCES).items()}
    if row.cost is not None:
        more |= {f"{name}_seconds": value for name, value in _fields(row.cost, PARTS).items()}
        more["cost_seconds"] = more.pop("total_seconds")
    return more | {"training_seconds": row.training_seconds, "efficient": int(row.efficient)}


def to_json(name: str, evidence: Sequence[Evidence], sections: Sequence[Section], rankings: Sequence[Ranking]) -> bytes:
    """Write the same numbers with captions and notes; ``sections`` are those of ``evidence``, in its order."""
    tables = [_table(one, section) for one, section in zip(evidence, sections, strict=True)]
    content = {"report": name, "confidence": CONFIDENCE, "tables": tables, "rankings": [_ranking(r) for r in rankings]}
    return data.to_json(content, DIGITS)


def _table(evidence: Evidence, section: Section) -> dict[str, Any]:
    return about_table(evidence.table) | {
        "headline": evidence.headline,
        "baseline": evidence.baseline or None,
        "resamples": evidence.resamples,
        "test_items": evidence.groups,
        "defective_test_items": evidence.defective_groups,
        "rows": [_row(row) | {"caveats": (*row.caveats, *evidence.table.caveats)} for row in evidence.rows],
        "against": [_comparison(evidence, one) for one in evidence.against],
        "pairs": [_comparison(evidence, one) for one in evidence.pairs],
        "over_free": [_fields(one, OVER_FREE) | {"together": _interval(one.together)} for one in evidence.over_free],
        "worths": [_worth(one) for one in evidence.worths],
        "synthetic_weight": evidence.weight,
        "artefact_checks": [
            {"finding": str(check.finding)}
            | {name: _comparison(evidence, getattr(check, name)) for name in ("gain", "null_gain", "over")}
            for check in evidence.checks
        ],
        "sentences": section.sentences,
        "words": {sheet.title: [*sheet.captions, *sheet.notes] for sheet in section.sheets},
    }


def _worth(one: Worth) -> dict[str, Any]:
    found = {name: value if isfinite(value) else None for name, value in _fields(one.found, WORTH).items()}
    about = {"rate": str(one.found.rate), "counted": one.counting.what, "sentence": worth_sentence(one)}
    curve = {str(shots): count for shots, count in one.counting.of.items()}
    return _fields(one, ("augmenter", "n_aug", "collapsed")) | found | about | {"curve": curve}


def _row(row: RowEvidence) -> dict[str, Any]:
    names = ("augmenter", "n_aug", "found", "expected", "training_seconds", "efficient", "collapsed")
    return _fields(row, names) | {
        "intervals": {metric: _interval(found) for metric, found in row.intervals.items()},
        "variance": _fields(row.variance, SOURCES),
        "cost": row.cost and _fields(row.cost, (*PARTS, "devices", "told_apart")),
    }


def _comparison(evidence: Evidence, one: Comparison) -> dict[str, Any]:
    return {
        **_fields(one, COMPARED),
        "alone": _interval(one.alone),
        "together": _interval(one.together),
        "verdict": str(one.verdict),
        "collapsed": one.collapsed,
        "caveats": (*_caveats(evidence, one), *evidence.table.caveats),
    }


def _fields(source: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def _interval(found: Interval) -> dict[str, Any]:
    return _fields(found, INTERVAL) | {"error_by": found.parts}


def _ranking(found: Ranking) -> dict[str, Any]:
    ranks = found.ranks
    return _fields(found, ("protocol", "shots", "metric", "datasets", "augmenters")) | {
        "average": ranks and list(map(float, ranks.average)),
        "p": ranks and ranks.p,
        "critical_difference": ranks and ranks.critical_difference,
    }
