"""The plots of a table: metrics over N_aug, precision-recall curves, and the headline metric against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from augbench.report import plots
from augbench.report.leaderboard.board import AT_LEAST, Board
from augbench.report.leaderboard.headings import Content, Keys, span_text
from augbench.report.leaderboard.score_tables import RECALLS, Scores, plotted_rows, precision_at_recalls
from augbench.report.numbers import DASH, flagged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 480, 300  # points, without the legend
MOST_TICKS = 8
NAMES = {"ap": "AP", "precision": "Precision", "recall": "Recall", "accuracy": "Accuracy", "macro_f1": "Macro-F1"}
METRICS = {"detection": ("ap", "precision", "recall"), "recognition": ("accuracy", "macro_f1")}
AT_BEST_F1 = ("precision", "recall")
TIME_TICKS = (0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 3 * 3600, 10 * 3600, 30 * 3600, 100 * 3600)  # seconds


def plots_of(board: Board, scores: Scores) -> dict[str, list[dict[str, Any]]]:
    """Draw the plots of each table as SVG in data URLs; none for a table without synthetic images.

    Returns:
        Id of a table -> its plots, each with url, alt, width and height.
    """
    colours = board.content["colours"]
    with plots.theme():
        return {
            table["id"]: _plots(table, cells, colours, scores)
            for table, cells in zip(board.content["tables"], board.cells, strict=True)
        }


def _plots(table: Content, cells: Keys, colours: Mapping[str, int], scores: Scores) -> list[dict[str, Any]]:
    rows = [row for row in table["rows"] if not row["is_average"] and _mean(row, table["headline"]) is not None]
    if not any(row["n_aug"] for row in rows):
        return []
    draw = _over_n_aug if len({row["n_aug"] for row in rows if row["n_aug"]}) > 1 else _by_augmenter
    made = [draw(table, rows, metric, colours) for metric in METRICS[table["task"]] if len(rows) > 1]
    if table["task"] == "detection":
        made.append(_curves(table, cells, colours, scores))
    return [one for one in [*made, _costs(table, rows, colours)] if one]


def _axes(**texts: Any) -> Axes:
    axes = plots.figure(WIDTH, HEIGHT).subplots()
    axes.set(**texts)
    return axes


def _label(metric: str) -> str:
    return NAMES[metric] + (" at best F1 on test" if metric in AT_BEST_F1 else "")


def _embedded(axes: Axes, table: Content, description: str) -> dict[str, Any]:
    return plots.embedded(axes, table["title"], description)


def _flagged(text: str, row: Content) -> str:
    """Mark the text of a row with collapsed runs, also an empty text."""
    return flagged(text, row["collapsed"]).strip()


def _collapse(rows: Sequence[Content], handles: dict[str, Any]) -> str:
    """Explain the mark of collapsed runs in the legend; return the sentence for the description, or ""."""
    if not any(row["collapsed"] for row in rows):
        return ""
    plots.explain_collapse(handles)
    named = ", ".join(f"{row['augmenter']} {row['n_aug'] or ''}".strip() for row in rows if row["collapsed"])
    return f" {plots.COLLAPSE_TEXT}: {named}."


def _mean(row: Content, metric: str) -> float | None:
    return row["values"][metric]["value"]


def _ends(rows: Sequence[Content], metric: str) -> tuple[list[float], list[float]]:
    """Return mean minus and plus one standard deviation, clipped to [0, 1]."""
    pairs = [(_mean(row, metric), row["values"][metric]["std"] or 0.0) for row in rows]
    return [max(mean - std, 0.0) for mean, std in pairs], [min(mean + std, 1.0) for mean, std in pairs]


def _over_n_aug(table: Content, rows: Sequence[Content], metric: str, colours: Mapping[str, int]) -> dict[str, Any]:
    """Plot a metric over N_aug, as Figures 6 and 7 of the In&Out paper plot precision and recall."""
    axes = _axes(title=f"{NAMES[metric]} over N_aug", xlabel="N_aug", ylabel=_label(metric))
    synthetic = [row for row in rows if row["n_aug"]]
    handles = {}
    for name in dict.fromkeys(row["augmenter"] for row in synthetic):
        mine = sorted((row for row in synthetic if row["augmenter"] == name), key=lambda row: row["n_aug"])
        n_aug, (low, high) = [row["n_aug"] for row in mine], _ends(mine, metric)
        (handles[name],) = axes.plot(n_aug, [_mean(row, metric) for row in mine], **plots.look(colours[name]))
        colour = handles[name].get_color()
        if len(mine) > 1:
            axes.fill_between(n_aug, low, high, color=colour, alpha=0.15, linewidth=0)
        else:
            axes.vlines(n_aug, low, high, color=colour, linewidth=1.5)
    ticks = sorted({row["n_aug"] for row in synthetic})
    axes.set_xticks(ticks if len(ticks) <= MOST_TICKS else axes.get_xticks())
    for row in rows:
        if row["is_baseline"]:
            plots.guide(axes, _mean(row, metric), _flagged(row["augmenter"], row))
    plots.label_points(axes, [(row["n_aug"], _mean(row, metric), _flagged("", row)) for row in synthetic])
    about = "mean over runs of each augmenter; bands and bars are one standard deviation either way."
    about += _collapse(rows, handles)
    plots.legend(axes.figure, handles)
    return _embedded(axes, table, about)


def _by_augmenter(table: Content, rows: Sequence[Content], metric: str, colours: Mapping[str, int]) -> dict[str, Any]:
    """Plot one point per augmenter, for tables with a single N_aug."""
    (n_aug,) = {row["n_aug"] for row in rows if row["n_aug"]}
    axes = _axes(title=f"{NAMES[metric]}, N_aug {n_aug:,}", xlabel=_label(metric))
    for place, (row, low, high) in enumerate(zip(rows, *_ends(rows, metric), strict=True)):
        (point,) = axes.plot(_mean(row, metric), place, **plots.look(colours[row["augmenter"]]))
        axes.hlines(place, low, high, color=point.get_color(), linewidth=1.5)
    axes.set_yticks(range(len(rows)), [_flagged(row["augmenter"], row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # in the order of the table
    for row in rows:
        if row["is_baseline"]:
            axes.axvline(_mean(row, metric), color=plots.MUTED, linewidth=1, linestyle="--")
    handles: dict[str, Any] = {}
    about = "mean over runs of each augmenter; bars are one standard deviation either way; the baseline is dashed."
    about += _collapse(rows, handles)
    if handles:
        plots.legend(axes.figure, handles)
    return _embedded(axes, table, about)


def _curves(table: Content, cells: Keys, colours: Mapping[str, int], scores: Scores) -> dict[str, Any] | None:
    """Plot precision-recall curves, mean over runs at each recall; None if no scores are stored."""
    axes = _axes(title="Precision-recall curves", xlabel="Recall", ylabel="Precision", xlim=(0, 1), ylim=(0, 1.02))
    of = {(row["augmenter"], row["n_aug"]): row for row in table["rows"]}
    handles: dict[str, Any] = {}
    drawn: list[Content] = []
    for plotted in plotted_rows(table, cells):
        runs = [[scores.of(key) for key in run] for run in plotted.runs]
        runs = [run for run in runs if all(found is not None for found in run)]
        if not runs:
            continue
        curves = np.stack([np.mean([precision_at_recalls(found) for found in run], axis=0) for run in runs])
        mean = curves.mean(axis=0)
        name = f"{plotted.augmenter}, {plotted.n_aug}" if plotted.n_aug else plotted.augmenter
        drawn += [of[plotted.augmenter, plotted.n_aug]]
        name = _flagged(name, drawn[-1])
        style = plots.look(colours[plotted.augmenter]) | {"linestyle": "-" if plotted.n_aug else "--", "markevery": 10}
        (handles[name],) = axes.plot(RECALLS, mean, markersize=5, **style)
        if len(curves) > 1:
            std = curves.std(axis=0, ddof=1)
            low, high = np.maximum(mean - std, 0), np.minimum(mean + std, 1)
            axes.fill_between(RECALLS, low, high, color=handles[name].get_color(), alpha=0.15, linewidth=0)
    if not handles:
        return None
    about = (
        "from the scores of the test images, mean over runs at each recall, with one standard deviation either way; "
        f"for each augmenter its largest N_aug.{_collapse(drawn, handles)}"
    )
    plots.legend(axes.figure, handles)
    return _embedded(axes, table, about)


def _costs(table: Content, rows: Sequence[Content], colours: Mapping[str, int]) -> dict[str, Any] | None:
    """Plot the headline metric against the seconds of one classifier; the dashed line is the Pareto front."""
    metric = table["headline"]
    placed = [(row, _seconds(row), _mean(row, metric)) for row in rows if _seconds(row) is not None]
    if len(placed) < 2:
        return None
    axes = _axes(title=f"{NAMES[metric]} against cost", ylabel=NAMES[metric])
    handles = {}
    for name in dict.fromkeys(row["augmenter"] for row, _, _ in placed):
        mine = [one for one in placed if one[0]["augmenter"] == name]
        hollow = any(row["values"]["cost"]["text"].startswith(AT_LEAST) for row, _, _ in mine)
        _, seconds, values = zip(*mine, strict=True)
        (handles[name],) = axes.plot(seconds, values, linestyle="none", **plots.look(colours[name], hollow))
    points = [(seconds, value) for _, seconds, value in placed]
    front = _front(points)
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), drawstyle="steps-post", linestyle="--", linewidth=1, color=plots.MUTED)
    _set_time_axis(axes, [seconds for seconds, _ in points])
    about = (
        f"mean {NAMES[metric]} against the time of one classifier, with everything generated for it; numbers are "
        "N_aug. The dashed line is the Pareto front. Hollow points: some cost is not recorded."
        f"{_collapse([row for row, _, _ in placed], handles)}"
    )
    plots.legend(axes.figure, handles)
    plots.label_points(
        axes, [(seconds, value, _flagged(str(row["n_aug"] or ""), row)) for row, seconds, value in placed]
    )
    return _embedded(axes, table, about)


def _seconds(row: Content) -> float | None:
    """Return the seconds of one classifier with everything generated for it; None if no cost is recorded."""
    cost, training = row["values"]["cost"], row["values"]["training"]
    return None if cost["text"] == DASH or training["value"] is None else cost["value"] + training["value"]


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the Pareto front of (cost, value) points, by ascending cost."""
    best, front = -float("inf"), []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if value > best:
            best = value
            front.append((cost, value))
    return front


def _set_time_axis(axes: Axes, values: Sequence[float]) -> None:
    """Make the x axis one of durations: logarithmic, unless fewer than three ticks fall inside their range."""
    low, high = min(values) / 1.2, max(values) * 1.2
    ticks = [tick for tick in TIME_TICKS if low <= tick <= high]
    if len(ticks) < 3:
        axes.set_xlabel("seconds for one classifier")
    else:
        axes.set(xscale="log", xlim=(low, high), xlabel="time for one classifier (log scale)")
        axes.set_xticks(ticks, [span_text(tick) for tick in ticks])
        axes.minorticks_off()
