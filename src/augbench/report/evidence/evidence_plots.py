"""Plots of evidence: the metric over N_aug, over real defects, against cost; critical differences of average ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from augbench.metrics.exchange import FEWEST_POINTS
from augbench.report import plots
from augbench.report.evidence.build import Evidence, RowEvidence
from augbench.report.evidence.explanations import weight_text
from augbench.report.evidence.ranking import Ranking
from augbench.report.evidence.sheets import NAMES, p_value_text, span
from augbench.report.numbers import count_text, flagged, seconds_text, share, shots_text
from augbench.report.references import FREE
from augbench.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.lines import Line2D

WIDTH, HEIGHT = 720, 400  # points, of one plot of the metric against cost without its legend
STEP = 22  # points between the names in a critical-difference diagram


def pareto_svg(evidence: Sequence[Evidence]) -> str | None:
    """Plot the metric against cost, once per table with a known cost; None where there is none."""
    known = [(one, points) for one in evidence if (points := _points(one))]
    if not known:
        return None
    with plots.theme():
        drawn = plots.figure(WIDTH, HEIGHT * len(known))
        parts = drawn.subfigures(len(known), squeeze=False)[:, 0]
        names = dict.fromkeys(row.augmenter for one, _ in known for row in one.rows)
        indices = {name: index for index, name in enumerate(names)}
        plotted = [_pareto(part, *one, indices) for part, one in zip(parts, known, strict=True)]
        for axes, (_, points) in zip(plotted, known, strict=True):  # only now do the axes have their places
            plots.label_points(
                axes, [(cost, value, flagged(str(row.n_aug), len(row.collapsed))) for row, cost, value in points]
            )
        about = (
            "up is better, left is cheaper. Bars are 95 % intervals; the line joins efficient rows. Numbers are N_aug."
        )
        texts = " ".join(_points_text(*one) for one in known)
        return plots.svg_text(drawn, "Metric against cost", f"{about} {texts}")


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
    collapse = f" ({plots.COLLAPSE_TEXT})" if any(row.collapsed for row, _, _ in points) else ""
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
        (point,) = axes.plot(
            cost, value, linestyle="none", **plots.look(indices[row.augmenter], hollow=not row.efficient)
        )
        axes.vlines(cost, interval.low, interval.high, color=point.get_color(), linewidth=1.5, zorder=1)
        handles.setdefault(row.augmenter, point)
    front = sorted((cost, value) for row, cost, value in points if row.efficient)
    if front:
        look_of_front = {"drawstyle": "steps-post", "ls": "--", "lw": 1.5, "color": plots.MUTED, "zorder": 1}
        (handles["efficient (filled)"],) = axes.plot(*zip(*front, strict=True), **look_of_front)
    for row in evidence.rows:
        if row.cost is not None and not row.cost.total and row.runs:
            label = flagged(f"{row.augmenter} (costs nothing)", len(row.collapsed))
            plots.guide(axes, row.intervals[evidence.headline].estimate, label)
    if any(row.collapsed for row in evidence.rows):
        plots.explain_collapse(handles)
    plots.legend(part, handles)
    return axes


# -- the metric over N_aug, and over real defects

DOSE, REAL = "dose.svg", "real_defects.svg"
DASHES = ("--", ":", "-.", (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""Line styles of the rows that need no generator: such lines may be too close for labels beside them."""
PLOT_HEIGHT = 280  # points, of one plot of a curve without its legend


def has_curve(tables: Sequence[Table]) -> bool:
    """Whether there may be something for `curves_of` to draw: several N_aug of an augmenter, or several shots."""
    shots: dict[tuple[str, str], set[int | str]] = {}
    for table in tables:
        names = [row.augmenter for row in table.rows if row.n_aug and row.runs]
        if any(names.count(name) > 1 for name in names):
            return True
        if table.task == "detection" and any(row.augmenter == "none" and row.runs for row in table.rows):
            shots.setdefault((table.dataset, table.protocol), set()).add(table.shots)
    return any(len(own) >= FEWEST_POINTS for own in shots.values())


def curves_of(evidence: Sequence[Evidence]) -> dict[str, tuple[str, str]]:
    """Return file -> title and SVG of the curves that there are."""
    drawn = {
        DOSE: ("The metric over the number of synthetic images", dose_svg(evidence)),
        REAL: ("AP over real defects", real_svg(evidence)),
    }
    return {file: (title, svg) for file, (title, svg) in drawn.items() if svg}


def dose_svg(evidence: Sequence[Evidence]) -> str | None:
    """Plot the headline metric over N_aug, once per table in which an augmenter has several; None where none has."""
    every = [(one, _doses(one)) for one in evidence]
    wanted = [(one, lines) for one, lines in every if any(len(rows) > 1 for rows in lines.values())]
    if not wanted:
        return None
    names = dict.fromkeys(name for _, lines in wanted for name in lines)
    indices = {name: index for index, name in enumerate(names)}
    with plots.theme():
        drawn = plots.figure(WIDTH, PLOT_HEIGHT * len(wanted))
        parts = drawn.subfigures(len(wanted), squeeze=False)[:, 0]
        for part, (one, lines) in zip(parts, wanted, strict=True):
            _dose(part, one, lines, indices)
        about = "Mean over runs; bands are 95 % intervals. Grey lines are rows that need no generator."
        texts = " ".join(
            f"{one.table.title}, {NAMES[one.headline]} over N_aug, {weight_text(one.weight)}: "
            + "; ".join(f"{name} {_points_of(one, rows)}" for name, rows in lines.items())
            + "."
            for one, lines in wanted
        )
        return plots.svg_text(drawn, "The metric over the number of synthetic images", f"{about} {texts}")


def _doses(evidence: Evidence) -> dict[str, list[RowEvidence]]:
    """Return augmenter -> its rows with synthetic images, by N_aug."""
    found: dict[str, list[RowEvidence]] = {}
    for row in sorted(evidence.rows, key=lambda row: row.n_aug):
        if row.n_aug and row.runs:
            found.setdefault(row.augmenter, []).append(row)
    return found


def _points_of(evidence: Evidence, rows: Sequence[RowEvidence]) -> str:
    found = [(row, row.intervals[evidence.headline]) for row in rows]
    texts = [f"{row.n_aug}: {share(one.estimate)} ({span(one)})" for row, one in found]
    return flagged(", ".join(texts), sum(len(row.collapsed) for row in rows))


def _band(axes: Axes, x: Sequence[float], evidence: Evidence, rows: Sequence[RowEvidence], index: int) -> Line2D:
    """Draw a line with its band of intervals."""
    found = [row.intervals[evidence.headline] for row in rows]
    (line,) = axes.plot(x, [one.estimate for one in found], **plots.look(index))
    low, high = [one.low for one in found], [one.high for one in found]
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    return line


def _dose(
    part: SubFigure, evidence: Evidence, lines: Mapping[str, list[RowEvidence]], indices: Mapping[str, int]
) -> None:
    axes = part.subplots()
    axes.set_title(f"{evidence.table.title}: {weight_text(evidence.weight)}", wrap=True)
    axes.set(xlabel="N_aug (logarithmic)", ylabel=NAMES[evidence.headline], xscale="log")
    handles = {}
    for name, rows in lines.items():
        label = flagged(name, sum(len(row.collapsed) for row in rows))
        handles[label] = _band(axes, [row.n_aug for row in rows], evidence, rows, indices[name])
    ticks = sorted({row.n_aug for rows in lines.values() for row in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    free = [row for row in evidence.rows if row.augmenter in FREE and not row.n_aug and row.runs]
    for row in free:
        dashes = DASHES[FREE.index(row.augmenter) % len(DASHES)]
        label, value = flagged(row.augmenter, len(row.collapsed)), row.intervals[evidence.headline].estimate
        handles[label] = axes.axhline(value, color=plots.MUTED, linewidth=1.5, linestyle=dashes)
    if any(row.collapsed for row in evidence.rows):
        plots.explain_collapse(handles)
    plots.legend(part, handles)


def real_svg(evidence: Sequence[Evidence]) -> str | None:
    """Plot AP over real defects without synthetic images, with the rows that have some; None without such a curve."""
    curves: dict[tuple[str, str, tuple[int, ...]], list[Evidence]] = {}
    for one in evidence:
        if one.worths or one.table.task == "detection":
            curves.setdefault((one.table.dataset, one.table.protocol, one.table.folds), []).append(one)
    wanted = [tables for tables in curves.values() if any(one.worths for one in tables)]
    if not wanted:
        return None
    with plots.theme():
        drawn = plots.figure(WIDTH, PLOT_HEIGHT * len(wanted))
        parts = drawn.subfigures(len(wanted), squeeze=False)[:, 0]
        texts = [_real(part, tables) for part, tables in zip(parts, wanted, strict=True)]
        about = "The line is without synthetic images, mean over folds and draws; bands and bars are 95 % intervals."
        return plots.svg_text(drawn, "AP over real defects", f"{about} {' '.join(texts)}")


def _real(part: SubFigure, tables: Sequence[Evidence]) -> str:
    """Plot one curve; return what it shows, in words."""
    counted = next(one.worths[0].counting for one in tables if one.worths)
    own = {one.table.shots: one for one in tables}
    points = [
        (counted.of[shots], own[shots], next(row for row in own[shots].rows if row.name == ("none", 0)))
        for shots in sorted(counted.of, key=lambda shots: counted.of[shots])
    ]
    first = points[0][1]
    axes = part.subplots()
    axes.set_title(f"{first.table.dataset}, {first.table.protocol}: {weight_text(first.weight)}", wrap=True)
    axes.set(xlabel=f"{counted.what} (logarithmic)", ylabel=NAMES[first.headline], xscale="log")
    x = [count for count, _, _ in points]
    handles = {"none": _band(axes, x, first, [row for _, _, row in points], 0)}
    axes.set_xticks(x, [count_text(count) for count in x])
    axes.minorticks_off()
    names = list(dict.fromkeys(worth.augmenter for one in tables for worth in one.worths))
    for one in tables:
        for row in one.rows:
            if row.augmenter not in names or not row.runs or one.table.shots not in counted.of:
                continue
            if row.n_aug != max(other.n_aug for other in one.rows if other.augmenter == row.augmenter):
                continue
            place = names.index(row.augmenter)
            found = row.intervals[one.headline]
            at = counted.of[one.table.shots] * 1.05 ** (place + 1)  # beside one another
            (handles[row.augmenter],) = axes.plot(at, found.estimate, linestyle="none", **plots.look(place + 1))
            axes.vlines(at, found.low, found.high, color=handles[row.augmenter].get_color(), linewidth=1.5)
    plots.legend(part, handles)
    texts = [f"{count_text(count)}: {share(row.intervals[first.headline].estimate)}" for count, _, row in points]
    return f"{first.table.dataset}, {first.table.protocol}, AP by {counted.what}: {', '.join(texts)}."


# -- critical differences


def cd_svg(rankings: Sequence[Ranking]) -> str | None:
    """Draw critical-difference diagrams (Demsar, JMLR 2006), stacked; None where there are no ranks."""
    ranked = [one for one in rankings if one.ranks]
    if not ranked:
        return None
    heights = [40 + STEP * (_lines(one) + 1.8) for one in ranked]
    with plots.theme():
        drawn = plots.figure(WIDTH, sum(heights))
        parts = drawn.subfigures(len(ranked), squeeze=False, height_ratios=heights)[:, 0]
        for part, one in zip(parts, ranked, strict=True):
            _diagram(part, one)
        about = "Average ranks, 1 is best. A bar joins augmenters that do not differ (Nemenyi test, .05)."
        return plots.svg_text(
            drawn, "Critical differences of average ranks", f"{about} {' '.join(map(_ranks_text, ranked))}"
        )


def _order(ranking: Ranking) -> list[tuple[float, str]]:
    assert ranking.ranks is not None
    return sorted(zip(ranking.ranks.average, ranking.augmenters, strict=True))


def _ranks_text(ranking: Ranking) -> str:
    collapse = f" ({plots.COLLAPSE_TEXT})" if ranking.collapsed else ""
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
    collapse = f"\n{plots.COLLAPSE_TEXT}" if ranking.collapsed else ""
    axes.set_title(f"{where} (Friedman: {p_value_text(ranks.p)}){collapse}")
    axes.set(xlim=(1, count), ylim=(lines, -1.8), xticks=range(1, count + 1), yticks=[])
    axes.grid(visible=False)
    axes.xaxis.tick_top()
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set(visible=True, position=("data", 0))
    wide = min(ranks.critical_difference, count - 1)
    axes.plot((1, 1 + wide), (-1.5, -1.5), color=plots.PALETTE[1])
    beside = {"textcoords": "offset points", "va": "center"}
    axes.annotate(
        f"critical difference {ranks.critical_difference:.2f}", (1 + wide, -1.5), (6, 0), color=plots.MUTED, **beside
    )
    for place, clique in enumerate(ranks.cliques):
        ends = [ranks.average[index] for index in clique]
        axes.plot((min(ends), max(ends)), [0.4 * (place + 1)] * 2, color=plots.PALETTE[0], linewidth=4)
    half = (count + 1) // 2
    for place, (rank, name) in enumerate(_order(ranking)):
        left = place < half
        edge, y = (1, place) if left else (count, count - 1 - place)
        y += 0.4 * len(ranks.cliques) + 0.8
        axes.plot((rank, rank, edge), (0, y, y), color=plots.MUTED, linewidth=1)
        axes.annotate(name, (edge, y), (-6 if left else 6, 0), ha="right" if left else "left", **beside)
