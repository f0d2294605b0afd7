"""Numbers -> CSV and JSON for other programs, at full precision unless ``digits`` are given."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from augbench.report.numbers import Stat
from augbench.storage.store import json_bytes


def to_csv(lines: Sequence[Mapping[str, Any]], fields: Sequence[str] = (), digits: int | None = None) -> str:
    """Write one line per mapping.

    Numbers are written so that reading them gives the same float64. None and NaN are empty fields.

    Args:
        lines: column -> value. Columns that a line lacks are empty.
        fields: the columns; () = those of the first line.
        digits: significant digits of fractions; None = all.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fields or (list(lines[0]) if lines else ()), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _field(value, digits) for name, value in line.items()} for line in lines)
    return buffer.getvalue()


def to_json(value: Mapping[str, Any], digits: int | None = None) -> bytes:
    """Write values, statistics and nested mappings and sequences of them as a JSON object. NaN is null."""
    return json_bytes(_plain(value, digits))


def _field(value: Any, digits: int | None) -> Any:
    plain = _plain(value, digits)
    return "" if plain is None else repr(plain) if isinstance(plain, float) else plain


def _plain(value: Any, digits: int | None) -> Any:
    if isinstance(value, float):
        return (float(f"{value:.{digits}g}") if digits else value) if isfinite(value) else None
    if isinstance(value, Stat):
        return {"mean": _plain(value.mean, digits), "std": _plain(value.std, digits), "n": value.n}
    if isinstance(value, Mapping):
        return {name: _plain(inner, digits) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, digits) for inner in value]
    return value
