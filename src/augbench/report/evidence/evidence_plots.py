"""Plots of evidence: the metric against cost, and critical differences of average ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from augbench.report.evidence.build import Evidence, RowEvidence
from augbench.report.evidence.ranking import Ranking
from augbench.report.evidence.sheets import NAMES, p_value_text
from augbench.report.numbers import flagged, seconds_text, share, shots_text
from augbench.report.plots import (
    COLLAPSE_TEXT,
    MUTED,
    PALETTE,
    explain_collapse,
    figure,
    guide,
    label_points,
    legend,
    look,
    svg_text,
    theme,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

WIDTH, HEIGHT = 720, 400  # points, of one plot of the metric against cost without its legend
STEP = 22  # points between the names in a critical-difference diagram


def pareto_svg(evidence: Sequence[Evidence]) -> str | None:
    """Plot the metric against cost, once per table with a known cost; None where there is none."""
    known = [(one, points) for one in evidence if (points := _points(one))]
    if not known:
        return None
    with theme():
        drawn = figure(WIDTH, HEIGHT * len(known))
        parts = drawn.subfigures(len(known), squeeze=False)[:, 0]
        names = dict.fromkeys(row.augmenter for one, _ in known for row in one.rows)
        indices = {name: index for index, name in enumerate(names)}
        plotted = [_pareto(part, *one, indices) for part, one in zip(parts, known, strict=True)]
        for axes, (_, points) in zip(plotted, known, strict=True):  # only now do the axes have their places
            label_points(
                axes, [(cost, value, flagged(str(row.n_aug), len(row.collapsed))) for row, cost, value in points]
            )
        about = (
            "up is better, left is cheaper. Bars are 95 % intervals; the line joins efficient rows. Numbers are N_aug."
        )
        texts = " ".join(_points_text(*one) for one in known)
        return svg_text(drawn, "Metric against cost", f"{about} {texts}")


Points = list[tuple[RowEvidence, float, float]]  # row, cost in seconds, metric


def _points(evidence: Evidence) -> Points:
    """Return what the logarithmic axis can show; rows without cost become a horizontal line instead."""
    known = [(row, row.cost.total, row.intervals[evidence.headline].estimate) for row in evidence.rows if row.cost]
    return [(row, cost, value) for row, cost, value in known if cost > 0 and not isnan(value)]


def _points_text(evidence: Evidence, points: Points) -> str:
    texts = [
        f"{row.augmenter} {row.n_aug}: {flagged(share(value), len(row.collapsed))} for {seconds_text(cost)} s"
        for row, cost, value in points
    ]
    collapse = f" ({COLLAPSE_TEXT})" if any(row.collapsed for row, _, _ in points) else ""
    return f"{evidence.table.title}, {NAMES[evidence.headline]}: {'; '.join(texts)}{collapse}."


def _pareto(part: SubFigure, evidence: Evidence, points: Points, indices: Mapping[str, int]) -> Axes:
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axes = part.subplots()
    costs = [cost for _, cost, _ in points]
    axes.set(ylabel=NAMES[evidence.headline], xscale="log", xlim=(min(costs) / 1.5, max(costs) * 1.5))
    axes.set_title(evidence.table.title, wrap=True)
    axes.set_xlabel("cost: seconds of one worker before training (logarithmic)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axes.minorticks_off()
    handles = {}
    for row, cost, value in points:
        interval = row.intervals[evidence.headline]
        (point,) = axes.plot(cost, value, linestyle="none", **look(indices[row.augmenter], hollow=not row.efficient))
        axes.vlines(cost, interval.low, interval.high, color=point.get_color(), linewidth=1.5, zorder=1)
        handles.setdefault(row.augmenter, point)
    front = sorted((cost, value) for row, cost, value in points if row.efficient)
    if front:
        look_of_front = {"drawstyle": "steps-post", "ls": "--", "lw": 1.5, "color": MUTED, "zorder": 1}
        (handles["efficient (filled)"],) = axes.plot(*zip(*front, strict=True), **look_of_front)
    for row in evidence.rows:
        if row.cost is not None and not row.cost.total and row.runs:
            label = flagged(f"{row.augmenter} (costs nothing)", len(row.collapsed))
            guide(axes, row.intervals[evidence.headline].estimate, label)
    if any(row.collapsed for row in evidence.rows):
        explain_collapse(handles)
    legend(part, handles)
    return axes


# -- critical differences


def cd_svg(rankings: Sequence[Ranking]) -> str | None:
    """Draw critical-difference diagrams (Demsar, JMLR 2006), stacked; None where there are no ranks."""
    ranked = [one for one in rankings if one.ranks]
    if not ranked:
        return None
    heights = [40 + STEP * (_lines(one) + 1.8) for one in ranked]
    with theme():
        drawn = figure(WIDTH, sum(heights))
        parts = drawn.subfigures(len(ranked), squeeze=False, height_ratios=heights)[:, 0]
        for part, one in zip(parts, ranked, strict=True):
            _diagram(part, one)
        about = "Average ranks, 1 is best. A bar joins augmenters that do not differ (Nemenyi test, .05)."
        return svg_text(drawn, "Critical differences of average ranks", f"{about} {' '.join(map(_ranks_text, ranked))}")


def _order(ranking: Ranking) -> list[tuple[float, str]]:
    assert ranking.ranks is not None
    return sorted(zip(ranking.ranks.average, ranking.augmenters, strict=True))


def _ranks_text(ranking: Ranking) -> str:
    collapse = f" ({COLLAPSE_TEXT})" if ranking.collapsed else ""
    return "; ".join(f"{name} {rank:.2f}" for rank, name in _order(ranking)) + f"{collapse}."


def _lines(ranking: Ranking) -> float:
    """Return the height of a diagram below its axis, in lines of text."""
    assert ranking.ranks is not None
    return (len(ranking.augmenters) + 1) // 2 + 0.4 * len(ranking.ranks.cliques) + 0.5


def _diagram(part: SubFigure, ranking: Ranking) -> None:
    ranks, count, lines = ranking.ranks, len(ranking.augmenters), _lines(ranking)
    assert ranks is not None
    axes = part.subplots()
    where = f"{ranking.protocol}, {shots_text(ranking.shots)}, {len(ranking.datasets)} datasets"
    collapse = f"\n{COLLAPSE_TEXT}" if ranking.collapsed else ""
    axes.set_title(f"{where} (Friedman: {p_value_text(ranks.p)}){collapse}")
    axes.set(xlim=(1, count), ylim=(lines, -1.8), xticks=range(1, count + 1), yticks=[])
    axes.grid(visible=False)
    axes.xaxis.tick_top()
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set(visible=True, position=("data", 0))
    wide = min(ranks.critical_difference, count - 1)
    axes.plot((1, 1 + wide), (-1.5, -1.5), color=PALETTE[1])
    beside = {"textcoords": "offset points", "va": "center"}
    axes.annotate(
        f"critical difference {ranks.critical_difference:.2f}", (1 + wide, -1.5), (6, 0), color=MUTED, **beside
    )
    for place, clique in enumerate(ranks.cliques):
        ends = [ranks.average[index] for index in clique]
        axes.plot((min(ends), max(ends)), [0.4 * (place + 1)] * 2, color=PALETTE[0], linewidth=4)
    half = (count + 1) // 2
    for place, (rank, name) in enumerate(_order(ranking)):
        left = place < half
        edge, y = (1, place) if left else (count, count - 1 - place)
        y += 0.4 * len(ranks.cliques) + 0.8
        axes.plot((rank, rank, edge), (0, y, y), color=MUTED, linewidth=1)
        axes.annotate(name, (edge, y), (-6 if left else 6, 0), ha="right" if left else "left", **beside)
