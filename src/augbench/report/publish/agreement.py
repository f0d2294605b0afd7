"""Cells that were trained again, beside their published records: ``augbench results rerun``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import variance
from typing import Any

from augbench.core.hashing import digest
from augbench.core.specs import Cell
from augbench.report.frame import METRICS
from augbench.report.numbers import share, signed
from augbench.report.sheet import Column, Section, Sheet, SheetRow
from augbench.report.table_notes import plural

FINETUNED, FROZEN = 0.05, 0.01
"""How far a compared metric may be apart on another device or with other versions: fine-tuned networks, probes.

Rounding differs there. A fit on frozen features hardly notices; a training of many steps, of a classifier or of an
adapter, amplifies it until it ends elsewhere, as with another seed: there `apart_by_seeds` is allowed, if it is more.
"""

COMPARED = ("ap", "ap_step", "ap_trapezoidal", "auroc", "accuracy", "macro_f1")
"""The metrics that must agree. The others hang on one threshold, where the rank of a single image moves them far."""

REPRODUCIBILITY = 1.96 * sqrt(2)
"""What two results of one spread are apart in 95 of 100 cases, in standard deviations (ISO 5725-6: 2.8)."""

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
    by_seeds: bool  # the tolerance is what another seed changes

    @property
    def agrees(self) -> bool:
        """Whether the results are equal, or as near as other devices or versions allow."""
        return self.is_equal or (
            bool(self.other) and all(self._is_near(name) for name in COMPARED if name in self.metrics)
        )

    def finding(self, metric: str) -> str:
        """Return what came out for one metric, in some words."""
        published, now = self.metrics[metric]
        if self.is_equal:
            return "equal"
        if not self.other:
            shown_equal = all(old == new for old, new in self.metrics.values())
            equal = "DIFFERS in other numbers" if shown_equal else "equal"
            return equal if published == now else "DIFFERS: same device and versions"
        if metric not in COMPARED:
            return "not compared"
        return f"{'within' if self._is_near(metric) else 'apart by more than'} {self.tolerance:.3g}"

    def _is_near(self, metric: str) -> bool:
        published, now = self.metrics[metric]
        return abs(now - published) <= self.tolerance


def again(
    published: Mapping[str, Any], now: Mapping[str, Any], tolerance: float | None = None, by_seeds: float = 0.0
) -> Again:
    """Compare two records of one cell.

    Args:
        published: the record of the publication.
        now: that of the new training.
        tolerance: how far the `COMPARED` metrics may be apart if device or versions differ; None: `FINETUNED`
            or `FROZEN`, or `by_seeds` if this is more and a network was trained.
        by_seeds: what two trainings with other seeds are apart, see `apart_by_seeds`.
    """
    results = published["result"], now["result"]
    task = "recognition" if "accuracy" in results[0] else "detection"
    names = [name for name in METRICS[task] if all(isinstance(one.get(name), float) for one in results)]
    origins = published["provenance"], now["provenance"]
    other = tuple(part for part in ORIGIN if origins[0].get(part) != origins[1].get(part))
    usual = FINETUNED if Cell.from_dict(published["spec"]).protocol.kind == "finetune" else FROZEN
    default = max(usual, by_seeds) if has_trained_network(now) else usual
    allowed = default if tolerance is None else tolerance
    return Again(
        published["key"],
        {name: (results[0][name], results[1][name]) for name in names},
        digest(results[0]) == digest(results[1]),
        other,
        allowed if other else 0.0,
        origins[1]["device"],
        origins[0]["device"],
        bool(other) and tolerance is None and default > usual,
    )


def has_trained_network(record: Mapping[str, Any]) -> bool:
    """Whether a network was trained for a cell: a classifier, or an adapter behind its images."""
    fine_tuned = Cell.from_dict(record["spec"]).protocol.kind == "finetune"
    return fine_tuned or bool(record["provenance"].get("adapters"))


def apart_by_seeds(records: Iterable[Mapping[str, Any]], protocol: str) -> float:
    """Return what two cells that differ in their seeds alone are apart in 95 of 100 cases; 0 where seeds are single.

    This is the reproducibility limit of ISO 5725-6, from the spread that the publication itself has, pooled over rows.

    Args:
        records: the publication's.
        protocol: name of the protocol; only its cells count for which a network was trained.

    Returns:
        A difference of the main metric: average precision, or accuracy.
    """
    rows = defaultdict(list)
    for record in records:
        spec, result = record["spec"], record["result"]
        if spec["protocol"]["name"] == protocol and has_trained_network(record):
            row = digest({name: value for name, value in spec.items() if name not in ("seed", "adapter_seed")})
            rows[row].append(result["accuracy"] if "accuracy" in result else result["ap"])
    spread = [(variance(values), len(values) - 1) for values in rows.values() if len(values) > 1]
    if not spread:
        return 0.0
    return REPRODUCIBILITY * sqrt(sum(one * free for one, free in spread) / sum(free for _, free in spread))


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
    columns = [Column("metric", "metric", is_text=True), Column("published", "published"), Column("now", "now")]
    columns += [Column("apart", "difference"), Column("finding", "finding", is_text=True)]
    sheets = [
        Sheet(
            columns,
            [
                SheetRow((name, share(published), share(now), signed(now - published), one.finding(name)))
                for name, (published, now) in one.metrics.items()
            ],
            title=f"{one.key}: {'agrees' if one.agrees else 'DIFFERS'}",
        )
        for one in found
    ]
    agreeing = sum(one.agrees for one in found)
    sentences = [f"{agreeing} of {plural(len(found), 'cell')} agree; chosen from {total:,} with seed {seed}."]
    for device in sorted({one.device for one in found}):
        origin = sorted({one.published_on for one in found if one.device == device})
        sentences.append(f"Trained again on {device}, published on {', '.join(origin)}.")
    if any(one.other for one in found):
        parts = sorted({part for one in found for part in one.other})
        sentences.append(
            f"Other {' and '.join(parts)}: rounding differs, so results need not be equal. The metrics that rank all "
            "images must agree; those at one threshold are shown."
        )
    if by_seeds := sum(one.by_seeds for one in found):
        sentences.append(
            f"A network that is trained elsewhere ends elsewhere, as with another seed: {plural(by_seeds, 'cell')} "
            "may be apart by what seeds change in the publication (95 % of differences between two)."
        )
    sentences += [f"{plural(count, 'cell')} cannot be trained here: {reason}." for reason, count in left_out.items()]
    return Section(title, sentences=sentences, sheets=sheets)
