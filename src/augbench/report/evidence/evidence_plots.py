"""Plots of evidence: the metric against cost, and critical differences of average ranks."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from augbench.report.evidence.build import Evidence, RowEvidence
from augbench.report.evidence.ranking import Ranking
from augbench.report.evidence.sheets import NAMES, p_value_text, regime_text
from augbench.report.numbers import seconds_text, share
from augbench.report.svg import Axis, Guide, Series, plot
from augbench.report.svg_parts import FONT, document, line, stacked, text, text_width

WIDTH = 720.0
STEP = 22.0  # line distance of the names in a critical-difference diagram


def pareto_svg(evidence: Sequence[Evidence]) -> str | None:
    """Plot the metric against cost, once per table with a known cost; None where there is none."""
    known = [one for one in evidence if any(_has_position(one, row) for row in one.rows)]
    if not known:
        return None
    about = (
        "Metric against cost: up is better, left is cheaper. Bars are 95 % intervals; the line joins efficient rows."
    )
    return stacked([_pareto(one) for one in known], "Metric against cost", about, WIDTH)


def _has_position(evidence: Evidence, row: RowEvidence) -> bool:
    """Whether a row can be drawn on the logarithmic axis; rows without cost become a horizontal line instead."""
    return row.cost is not None and row.cost.total > 0 and not isnan(row.intervals[evidence.headline].estimate)


def _pareto(evidence: Evidence) -> str:
    rows = [row for row in evidence.rows if _has_position(evidence, row)]
    free = [row for row in evidence.rows if row.cost is not None and not row.cost.total and row.found]
    front = sorted((row for row in rows if row.efficient), key=_total)
    name = NAMES[evidence.headline]
    best = [
        _series(evidence, front, "efficient"),
        _series(evidence, [row for row in rows if not row.efficient], "not efficient"),
    ]
    path = [row.intervals[evidence.headline].estimate for row in front]
    steps = Series("", list(map(_total, front)), path, line="post", colour=0, dashed=True)
    points = "; ".join(
        f"{_label(row)}: {share(row.intervals[evidence.headline].estimate)} for {seconds_text(_total(row))} s"
        for row in rows
    )
    return plot(
        [*(one for one in best if one.x), *([steps] if len(front) > 1 else [])],
        Axis("cost: seconds of one worker before training (logarithmic)", log=True),
        Axis(name),
        evidence.table.title,
        f"{name} against cost. {points}.",
        guides=[Guide(row.intervals[evidence.headline].estimate, f"{row.augmenter} (costs nothing)") for row in free],
        style=False,
        width=WIDTH,
    )


def _series(evidence: Evidence, rows: Sequence[RowEvidence], name: str) -> Series:
    found = [row.intervals[evidence.headline] for row in rows]
    efficient = name == "efficient"
    return Series(
        name,
        [_total(row) for row in rows],
        [one.estimate for one in found],
        line="none",
        markers=True,
        y_bars=([one.low for one in found], [one.high for one in found]),
        labels=[_label(row) for row in rows],
        tips=[
            f"{_label(row)}: {share(one.estimate)} for {seconds_text(_total(row))} s"
            for row, one in zip(rows, found, strict=True)
        ],
        colour=0 if efficient else 7,
        hollow=not efficient,
    )


def _label(row: RowEvidence) -> str:
    return f"{row.augmenter} {row.n_aug}"


def _total(row: RowEvidence) -> float:
    return row.cost.total if row.cost else float("nan")


# -- critical differences


def cd_svg(rankings: Sequence[Ranking]) -> str | None:
    """Draw critical-difference diagrams (Demsar, JMLR 2006), stacked; None where there are no ranks."""
    ranked = [one for one in rankings if one.ranks]
    if not ranked:
        return None
    about = "Average ranks over datasets, 1 is best. A bar joins augmenters that do not differ (Nemenyi test, .05)."
    return stacked([_diagram(one) for one in ranked], "Critical differences of average ranks", about, WIDTH)


def _diagram(ranking: Ranking) -> str:
    ranks = ranking.ranks
    assert ranks is not None
    count = len(ranking.augmenters)
    order = sorted(range(count), key=lambda index: ranks.average[index])
    side = max(text_width(name) for name in ranking.augmenters) + 24
    left, right, axis = side, WIDTH - side, 74.0

    def at(rank: float) -> float:
        return left + (rank - 1) / (count - 1) * (right - left)

    where = f"{ranking.protocol}, {regime_text(ranking.shots)}, {len(ranking.datasets)} datasets"
    title = f"{where} (Friedman: {p_value_text(ranks.p)})"
    wide = min(ranks.critical_difference, count - 1)
    parts = [
        text(WIDTH / 2, FONT * 1.4, title, size=FONT * 1.1, anchor="middle", bold=True),
        line([(at(1), 40), (at(1 + wide), 40)], "c2", 2.0),
        text(at(1 + wide) + 6, 44, f"critical difference {ranks.critical_difference:.2f}", part="muted"),
        line([(left, axis), (right, axis)]),
    ]
    for rank in range(1, count + 1):
        parts += [line([(at(rank), axis - 5), (at(rank), axis)]), text(at(rank), axis - 9, str(rank), anchor="middle")]
    bars = axis + 12 + 8 * len(ranks.cliques)
    for number, clique in enumerate(ranks.cliques):
        ends = [ranks.average[index] for index in clique]
        y = axis + 12 + 8 * number
        parts.append(line([(at(min(ends)) - 4, y), (at(max(ends)) + 4, y)], "c1", 4.0))
    half = (count + 1) // 2
    for number, index in enumerate(order):
        on_left = number < half
        y = bars + STEP * ((number if on_left else count - 1 - number) + 0.5)
        x, end = at(ranks.average[index]), left - 8 if on_left else right + 8
        parts.append(line([(x, axis), (x, y), (end, y)], "muted"))
        name, anchor = ranking.augmenters[index], "end" if on_left else "start"
        parts.append(text(end + (-4 if on_left else 4), y + 4, name, anchor=anchor))
    points = "; ".join(f"{ranking.augmenters[index]} {ranks.average[index]:.2f}" for index in order)
    return document(parts, title, f"Average ranks: {points}.", WIDTH, bars + STEP * (half + 0.5), style=False)
