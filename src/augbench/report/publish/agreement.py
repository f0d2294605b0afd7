"""Cells that were trained again, beside their published records: ``augbench results rerun``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from augbench.core.hashing import digest
from augbench.core.specs import Cell
from augbench.report.frame import METRICS
from augbench.report.numbers import share, signed
from augbench.report.sheet import Column, Section, Sheet, SheetRow
from augbench.report.table_notes import plural

TOLERANCE = {"finetune": 0.05, "probe": 0.01, "gaussian": 0.01}
"""Kind of protocol -> how far metrics may be apart on another device or with other versions.

Rounding differs there. A training of many steps amplifies it, a convex fit on frozen features does not.
"""

ORIGIN = ("device", "versions")
"""Parts of provenance that, where equal, demand an equal result."""


@dataclass(frozen=True)
class Again:
    """A published cell and the same cell, trained again."""

    key: str
    metrics: dict[str, tuple[float, float]]  # metric -> published, now
    is_equal: bool  # every number of the result, not only these
    other: tuple[str, ...]  # what differs of `ORIGIN`: () = the results must be equal
    tolerance: float  # 0: exact
    device: str  # where it was trained now
    published_on: str

    @property
    def apart(self) -> float:
        """The largest difference of a metric."""
        return max(abs(now - published) for published, now in self.metrics.values())

    @property
    def agrees(self) -> bool:
        """Whether the results are equal, or as near as other devices or versions allow."""
        return self.is_equal or (bool(self.other) and self.apart <= self.tolerance)

    @property
    def finding(self) -> str:
        """The outcome in some words."""
        if self.is_equal:
            return "equal"
        if not self.other:
            return "DIFFERS: same device and versions, so it must be equal"
        return f"within {self.tolerance:g}" if self.agrees else f"DIFFERS by more than {self.tolerance:g}"


def again(published: Mapping[str, Any], now: Mapping[str, Any], tolerance: float | None = None) -> Again:
    """Compare two records of one cell.

    Args:
        published: the record of the publication.
        now: that of the new training.
        tolerance: how far metrics may be apart if device or versions differ; None: as `TOLERANCE` has it.
    """
    results = published["result"], now["result"]
    task = "recognition" if "accuracy" in results[0] else "detection"
    names = [name for name in METRICS[task] if all(isinstance(one.get(name), float) for one in results)]
    origins = published["provenance"], now["provenance"]
    other = tuple(part for part in ORIGIN if origins[0].get(part) != origins[1].get(part))
    allowed = TOLERANCE[Cell.from_dict(published["spec"]).protocol.kind] if tolerance is None else tolerance
    return Again(
        published["key"],
        {name: (results[0][name], results[1][name]) for name in names},
        digest(results[0]) == digest(results[1]),
        other,
        allowed if other else 0.0,
        origins[1]["device"],
        origins[0]["device"],
    )


def agreement_section(
    title: str, cells: Iterable[Again], left_out: Mapping[str, int], total: int, seed: int
) -> Section:
    """Return the table of the cells that were trained again, and a sentence on what that says.

    Args:
        title: of the section, such as the folder.
        cells: the comparisons.
        left_out: reason -> published cells that cannot be trained here.
        total: number of published cells.
        seed: of the choice of cells.
    """
    found = list(cells)
    columns = [Column("cell", "cell", is_text=True), Column("metric", "metric", is_text=True)]
    columns += [Column("published", "published"), Column("now", "now"), Column("apart", "difference")]
    columns += [Column("finding", "finding", is_text=True)]
    rows = []
    for one in found:
        for number, (name, (published, now)) in enumerate(one.metrics.items()):
            first = (one.key, one.finding) if not number else ("", "")
            texts = (first[0], name, share(published), share(now), signed(now - published), first[1])
            rows.append(SheetRow(texts, starts_block=not number and bool(rows)))
    agreeing = sum(one.agrees for one in found)
    sentences = [f"{agreeing} of {plural(len(found), 'cell')} agree; chosen from {total:,} with seed {seed}."]
    for device in sorted({one.device for one in found}):
        origin = sorted({one.published_on for one in found if one.device == device})
        sentences.append(f"Trained again on {device}, published on {', '.join(origin)}.")
    if any(one.other for one in found):
        parts = sorted({part for one in found for part in one.other})
        sentences.append(f"Other {' and '.join(parts)}: rounding differs, so results need not be equal.")
    sentences += [f"{count:,} cells cannot be trained here: {reason}." for reason, count in left_out.items()]
    return Section(title, sentences=sentences, sheets=[Sheet(columns, rows)] if rows else ())
