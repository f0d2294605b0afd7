"""Plots of evidence: the metric against cost, and critical differences of average ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from augbench.report.evidence.build import Evidence, RowEvidence
from augbench.report.evidence.ranking import Ranking
from augbench.report.evidence.sheets import NAMES, p_value_text, regime_text
from augbench.report.numbers import seconds_text, share
from augbench.report.plots import MUTED, PALETTE, figure, guide, label_points, legend, look, svg_text, theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

WIDTH, HEIGHT = 720, 400  # points, of one plot of the metric against cost without its legend
STEP = 22  # points between the names in a critical-difference diagram


def pareto_svg(evidence: Sequence[Evidence]) -> str | None:
    """Plot the metric against cost, once per table with a known cost; None where there is none."""
    known = [one for one in evidence if any(_has_position(one, row) for row in one.rows)]
    if not known:
        return None
    with theme():
        drawn = figure(WIDTH, HEIGHT * len(known))
        parts = drawn.subfigures(len(known), squeeze=False)[:, 0]
        names = dict.fromkeys(row.augmenter for one in known for row in one.rows)
        indices = {name: index for index, name in enumerate(names)}
        plotted = [_pareto(part, one, indices) for part, one in zip(parts, known, strict=True)]
        for axes, one in zip(plotted, known, strict=True):  # only now do the axes have their places
            label_points(axes, [(*_position(one, row), str(row.n_aug)) for row in _placed(one)])
        about = (
            "up is better, left is cheaper. Bars are 95 % intervals; the line joins efficient rows. Numbers are N_aug."
        )
        return svg_text(drawn, "Metric against cost", f"{about} {' '.join(map(_points_text, known))}")


def _has_position(evidence: Evidence, row: RowEvidence) -> bool:
    """Whether a row can be drawn on the logarithmic axis; rows without cost become a horizontal line instead."""
    return row.cost is not None and row.cost.total > 0 and not isnan(row.intervals[evidence.headline].estimate)


def _placed(evidence: Evidence) -> list[RowEvidence]:
    return [row for row in evidence.rows if _has_position(evidence, row)]


def _position(evidence: Evidence, row: RowEvidence) -> tuple[float, float]:
    assert row.cost is not None
    return row.cost.total, row.intervals[evidence.headline].estimate


def _points_text(evidence: Evidence) -> str:
    points = [(row, *_position(evidence, row)) for row in _placed(evidence)]
    texts = [f"{row.augmenter} {row.n_aug}: {share(value)} for {seconds_text(cost)} s" for row, cost, value in points]
    return f"{evidence.table.title}, {NAMES[evidence.headline]}: {'; '.join(texts)}."


def _pareto(part: SubFigure, evidence: Evidence, indices: Mapping[str, int]) -> Axes:
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axes = part.subplots()
    costs = [_position(evidence, row)[0] for row in _placed(evidence)]
    axes.set(ylabel=NAMES[evidence.headline], xscale="log", xlim=(min(costs) / 1.5, max(costs) * 1.5))
    axes.set_title(evidence.table.title, wrap=True)
    axes.set_xlabel("cost: seconds of one worker before training (logarithmic)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axes.minorticks_off()
    handles = {}
    for row in _placed(evidence):
        cost, value = _position(evidence, row)
        interval = row.intervals[evidence.headline]
        (point,) = axes.plot(cost, value, linestyle="none", **look(indices[row.augmenter], hollow=not row.efficient))
        axes.vlines(cost, interval.low, interval.high, color=point.get_color(), linewidth=1.5, zorder=1)
        handles.setdefault(row.augmenter, point)
    front = sorted(_position(evidence, row) for row in _placed(evidence) if row.efficient)
    if front:
        x, y = zip(*front, strict=True)
        (handles["efficient (filled)"],) = axes.plot(
            x, y, drawstyle="steps-post", ls="--", lw=1.5, color=MUTED, zorder=1
        )
    for row in evidence.rows:
        if row.cost is not None and not row.cost.total and row.found:
            guide(axes, row.intervals[evidence.headline].estimate, f"{row.augmenter} (costs nothing)")
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
    return "; ".join(f"{name} {rank:.2f}" for rank, name in _order(ranking)) + "."


def _lines(ranking: Ranking) -> float:
    """Return the height of a diagram below its axis, in lines of text."""
    assert ranking.ranks is not None
    return (len(ranking.augmenters) + 1) // 2 + 0.4 * len(ranking.ranks.cliques) + 0.5


def _diagram(part: SubFigure, ranking: Ranking) -> None:
    ranks, count, lines = ranking.ranks, len(ranking.augmenters), _lines(ranking)
    assert ranks is not None
    axes = part.subplots()
    where = f"{ranking.protocol}, {regime_text(ranking.shots)}, {len(ranking.datasets)} datasets"
    axes.set_title(f"{where} (Friedman: {p_value_text(ranks.p)})")
    axes.set(xlim=(1, count), ylim=(lines, -1.8), xticks=range(1, count + 1), yticks=[])
    axes.grid(visible=False)
    axes.xaxis.tick_top()
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set(visible=True, position=("data", 0))
    wide = min(ranks.critical_difference, count - 1)
    axes.plot((1, 1 + wide), (-1.5, -1.5), color=PALETTE[1])
    axes.annotate(
        f"critical difference {ranks.critical_difference:.2f}",
        (1 + wide, -1.5),
        (6, 0),
        textcoords="offset points",
        va="center",
        color=MUTED,
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
        axes.annotate(name, (edge, y), (-6 if left else 6, 0), textcoords="offset points", va="center",
                      ha="right" if left else "left")  # fmt: skip
