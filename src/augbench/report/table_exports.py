"""Tables of results -> CSV and JSON for other programs, at full precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from augbench.report.confusion import Confusion
from augbench.report.fidelity_table import FidelityRow
from augbench.report.frame import ALL_METRICS
from augbench.report.numbers import Stat
from augbench.report.render import data
from augbench.report.runs import Basis
from augbench.report.sheet import Column
from augbench.report.tables import Row, Table

FIDELITY_COLUMNS = {
    "kid_mean": "kid",
    "kid_std": "",
    "kid_low": "kid_low",
    "kid_high": "kid_high",
    "fid_mean": "fid",
    "diversity_mean": "diversity",
    "diversity_of_real": "diversity_of_real",
    "memorisation_mean": "memorisation",
    "auroc_of_normal": "auroc_of_normal",
    "seconds_per_picture": "seconds_per_picture",
    "extractor": "",
    "pictures": "",
    "real": "",
}
"""Columns of ``fidelity`` lines -> the measure whose mean over pools they hold; "" where it is no mean."""
FIELDS = (
    *("dataset", "protocol", "folds", "test_share", "shots", "augmenter", "row", "class", "n_aug", "found", "expected"),
    *("ap_definition", "embedded", "notes", "used", "collapsed", "test_items", "caveats"),
    *("runs", "expected_runs", "one_adaptation", "audited", "near_copies"),
    *(f"{metric}_{part}" for metric in (*ALL_METRICS, "support") for part in ("mean", "std")),
    *FIDELITY_COLUMNS,
    *("predicted", "share_mean", "share_std"),
)
ABOUT = ("title", "label", "dataset", "protocol", "folds", "test_share", "shots", "task", "ap_definition", "embedded")
"""The fields that identify a table in the JSON of reports and comparisons."""


def to_csv(tables: Sequence[Table]) -> str:
    """Write one line per table row: its table, its numbers of cells and runs, ``<metric>_mean``, ``<metric>_std``.

    Column ``row`` gives the kind of a line:

    - ``cells`` and ``average``: a row of the table.
    - ``class``: the metrics of one class, named in column ``class``, of the cells above; ``support`` is the number of
      its test images.
    - ``confusion``: one line per pair of classes; ``share_mean`` is the fraction of test images of the true class
      ``class`` that were predicted as ``predicted``.
    - ``fidelity``: fills the columns from ``kid_mean`` on. ``found`` and ``expected`` count pools. The headline metric
      is the mean over the augmenter's rows with N_aug > 0. Several counts in one field are separated by spaces.
    - ``fidelity_class``: the KID of one class.

    ``found`` and ``expected`` count cells, ``runs`` and ``expected_runs`` what means and deviations are over, see
    `report.runs`. ``collapsed`` counts the trainings behind a line whose classifier has collapsed, ``test_items`` the
    test items of the kind, normal or with a defect, that has fewer; ``one_adaptation`` is 1 where all runs share what
    the augmenter learned, ``audited`` is 1 or 0 where near-copies are searched for, and ``near_copies`` the share of
    test images that have one in training; ``caveats`` says all of this and ``embedded`` in words, separated by "; ".
    """
    return data.to_csv([line for table in tables for line in _lines(table)], FIELDS)


def _lines(table: Table) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        yield _line(table, row, "average" if row.is_average else "cells") | _stats(row.stats)
        for name, stats in row.classes.items():
            yield _line(table, row, "class", name) | _stats(stats)
        if row.confusion:
            for true, stats in zip(row.confusion.classes, row.confusion.shares, strict=True):
                for predicted, stat in zip(row.confusion.classes, stats, strict=True):
                    yield _line(table, row, "confusion", true) | {"predicted": predicted} | _stats({"share": stat})
    for row in table.fidelity.rows:
        line = _line(table, row, "fidelity") | _stats({table.headline: row.outcome.stat}) | {
            name: row.stats[measure].mean for name, measure in FIDELITY_COLUMNS.items() if measure
        }  # fmt: skip
        yield line | {
            "embedded": "; ".join(table.fidelity.embedded),
            "kid_std": row.stats["kid"].std,
            "extractor": row.extractor,
            "pictures": " ".join(map(str, row.images)),
            "real": " ".join(map(str, row.real)),
        }
        for name, stat in row.kid_by_class.items():
            yield _line(table, row, "fidelity_class", name) | {"extractor": row.extractor} | _stats({"kid": stat})


def _line(table: Table, row: Row | FidelityRow, kind: str, name: str = "") -> dict[str, Any]:
    """Return the columns of every line."""
    names = ("dataset", "protocol", "test_share", "shots", "ap_definition")
    counts = ("augmenter", "n_aug", "found", "expected")
    return {field: getattr(table, field) for field in names} | {field: getattr(row, field) for field in counts} | {
        "folds": " ".join(map(str, table.folds)),
        "row": kind,
        "class": name,
        "embedded": "; ".join(table.embedded),
        "notes": "; ".join(row.notes),
        "used": "; ".join(getattr(row, "used", ())),  # pools have none of their own
        **_basis(row.outcome if isinstance(row, FidelityRow) else row),
        **_audit(table),
        "caveats": "; ".join((*row.caveats, *table.caveats)),
    }  # fmt: skip


def _basis(of: Basis) -> dict[str, Any]:
    fixed = None if of.one_adaptation is None else int(of.one_adaptation)
    counts = {"runs": of.runs, "expected_runs": of.expected_runs, "test_items": of.items}
    return counts | {"collapsed": len(of.collapsed), "one_adaptation": fixed}


def _audit(table: Table) -> dict[str, Any]:
    share = table.audit.share(table.folds) if table.audit else None
    return {"audited": table.audit and int(share is not None), "near_copies": share}


def _stats(stats: Mapping[str, Stat]) -> dict[str, float]:
    means = {f"{metric}_mean": stat.mean for metric, stat in stats.items()}
    return means | {f"{metric}_std": stat.std for metric, stat in stats.items()}


def to_json(name: str, tables: Sequence[Table]) -> bytes:
    """Write the same numbers with titles, captions and notes. Missing values are null."""
    return data.to_json({"report": name, "tables": [_table(table) for table in tables]})


def about_table(table: Table) -> dict[str, Any]:
    """Return the fields `ABOUT` of a table."""
    return {field: getattr(table, field) for field in ABOUT}


def _table(table: Table) -> dict[str, Any]:
    fidelity = table.fidelity
    verdicts = {"verdicts": table.verdicts} if table.verdicts else {}
    return {
        **about_table(table),
        **_audit(table),
        **verdicts,
        "captions": table.captions,
        "notes": table.notes,
        "columns": _columns(table.columns),
        "rows": [_row(table, row) for row in table.rows],
        "fidelity": {
            **{field: getattr(fidelity, field) for field in ("title", "label", "embedded", "captions", "notes")},
            "columns": _columns(fidelity.columns),
            "rows": [_fidelity_row(table, row) for row in fidelity.rows],
        },
    }


def _columns(columns: Sequence[Column]) -> list[dict[str, str]]:
    return [{"key": column.key, "title": column.title, "group": column.group} for column in columns]


def _row(table: Table, row: Row) -> dict[str, Any]:
    names = ("augmenter", "n_aug", "is_average", "found", "expected", "incomplete", "best", "notes", "used")
    return {name: getattr(row, name) for name in names} | {
        **_basis(row),
        "collapsed_runs": row.collapsed,
        "partial_runs": row.partial,
        "caveats": (*row.caveats, *table.caveats),
        "text": {column.key: row.text(column) for column in table.columns},
        "metrics": row.stats,
        "per_class": row.classes,
        **_confusion(row.confusion),
    }


def _confusion(found: Confusion | None) -> dict[str, Any]:
    """Return the sum over cells and the normalised matrix; an entry is null where no cell has images of that class."""
    if found is None:
        return dict.fromkeys(("confusion", "confusion_mean", "confusion_std"))
    matrices = {
        "confusion": found.total,
        "confusion_mean": [[stat.mean for stat in line] for line in found.shares],
        "confusion_std": [[stat.std for stat in line] for line in found.shares],
    }
    return {name: {"classes": found.classes, "matrix": matrix} for name, matrix in matrices.items()}


def _fidelity_row(table: Table, row: FidelityRow) -> dict[str, Any]:
    """Return a row: ``found`` and ``expected`` count pools; the headline metric is that of the table above."""
    names = ("augmenter", "extractor", "real", "found", "expected", "incomplete", "kid_by_class")
    return {name: getattr(row, name) for name in names} | {
        "pictures": row.images,
        **_basis(row.outcome),
        "caveats": (*row.caveats, *table.caveats),
        "text": {column.key: row.text(column) for column in table.fidelity.columns},
        "metrics": row.stats | {row.headline: row.outcome.stat},
    }
