"""The plots of a table: metrics over N_aug, precision-recall curves, and the headline metric against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from augbench.report.leaderboard.board import AT_LEAST, Board
from augbench.report.leaderboard.headings import span_text
from augbench.report.leaderboard.score_tables import RECALLS, Scores, plotted_rows, precision_at_recalls
from augbench.report.numbers import DASH, share
from augbench.report.svg import Axis, Guide, Series, plot

WIDTH, HEIGHT = 480, 300
NAMES = {
    "ap": "AP",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
}
METRICS = {"detection": ("ap", "precision", "recall"), "recognition": ("accuracy", "macro_f1")}
AT = {"precision": " at best F1 on test", "recall": " at best F1 on test"}
TIME_TICKS = (0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 3 * 3600, 10 * 3600, 30 * 3600, 100 * 3600)  # seconds


def plots_of(board: Board, scores: Scores) -> dict[str, list[str]]:
    """Draw the plots of each table as unstyled ``<svg>`` elements; none for a table without synthetic images.

    Returns:
        Id of a table -> its plots.
    """
    colours = board.content["colours"]
    return {
        table["id"]: _plots(table, cells, colours, scores)
        for table, cells in zip(board.content["tables"], board.cells, strict=True)
    }


def _plots(
    table: Mapping[str, Any],
    cells: Mapping[tuple[str, int], Sequence[str]],
    colours: Mapping[str, int],
    scores: Scores,
) -> list[str]:
    rows = [row for row in table["rows"] if not row["is_average"] and _mean(row, table["headline"]) is not None]
    if not any(row["n_aug"] for row in rows):
        return []
    draw = _over_n_aug if len({row["n_aug"] for row in rows if row["n_aug"]}) > 1 else _by_augmenter
    plots = [draw(table, rows, metric, colours) for metric in METRICS[table["task"]] if len(rows) > 1]
    if table["task"] == "detection":
        plots.append(_curves(table, cells, colours, scores))
    return [one for one in [*plots, _costs(table, rows, colours)] if one]


def _mean(row: Mapping[str, Any], metric: str) -> float | None:
    return row["values"][metric]["value"]


def _ends(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[list[float], list[float]]:
    """Return mean minus and plus one standard deviation, clipped to [0, 1]."""
    pairs = [(_mean(row, metric), row["values"][metric]["std"] or 0.0) for row in rows]
    return [max(mean - std, 0.0) for mean, std in pairs], [min(mean + std, 1.0) for mean, std in pairs]


def _over_n_aug(
    table: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], metric: str, colours: Mapping[str, int]
) -> str:
    """Plot a metric over N_aug, as Figures 6 and 7 of the In&Out paper plot precision and recall."""
    series = []
    for name in dict.fromkeys(row["augmenter"] for row in rows if row["n_aug"]):
        mine = sorted((row for row in rows if row["augmenter"] == name), key=lambda row: row["n_aug"])
        spread = _ends(mine, metric)
        series.append(
            Series(
                name,
                [row["n_aug"] for row in mine],
                [_mean(row, metric) for row in mine],
                markers=True,
                band=spread if len(mine) > 1 else None,
                y_bars=spread if len(mine) == 1 else None,
                tips=[f"{name}, N_aug {row['n_aug']}: {row['values'][metric]['text']}" for row in mine],
                colour=colours[name],
            )
        )
    ticks = [(float(n), f"{n:,}") for n in sorted({row["n_aug"] for row in rows if row["n_aug"]})]
    return plot(
        series,
        Axis("N_aug", ticks=ticks if len(ticks) <= 8 else None),
        Axis(f"{NAMES[metric]}{AT.get(metric, '')}"),
        f"{NAMES[metric]} over N_aug",
        f"{table['title']}: mean over runs of each augmenter; bands and bars are one standard deviation either way.",
        _baseline(rows, metric),
        WIDTH,
        HEIGHT,
        style=False,
    )


def _by_augmenter(
    table: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], metric: str, colours: Mapping[str, int]
) -> str:
    """Plot one point per augmenter, for tables with a single N_aug."""
    low, high = _ends(rows, metric)
    series = [
        Series(
            "",
            [float(i)],
            [_mean(row, metric)],
            line="none",
            markers=True,
            y_bars=([low[i]], [high[i]]),
            tips=[f"{row['augmenter']}: {row['values'][metric]['text']}"],
            colour=colours[row["augmenter"]],
        )
        for i, row in enumerate(rows)
    ]
    (n_aug,) = {row["n_aug"] for row in rows if row["n_aug"]}
    names = [(float(i), _short(row["augmenter"], len(rows))) for i, row in enumerate(rows)]
    return plot(
        series,
        Axis("augmenter", low=-0.5, high=len(rows) - 0.5, ticks=names),
        Axis(f"{NAMES[metric]}{AT.get(metric, '')}"),
        f"{NAMES[metric]}, N_aug {n_aug:,}",
        f"{table['title']}: mean over runs of each augmenter; bars are one standard deviation either way.",
        _baseline(rows, metric),
        WIDTH,
        HEIGHT,
        style=False,
    )


def _short(name: str, among: int) -> str:
    """Shorten a name to fit on an axis with ``among`` names."""
    most = max(4, 62 // among)
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _baseline(rows: Sequence[Mapping[str, Any]], metric: str) -> list[Guide]:
    return [Guide(_mean(row, metric), row["augmenter"]) for row in rows if row["is_baseline"]]


def _curves(
    table: Mapping[str, Any],
    cells: Mapping[tuple[str, int], Sequence[str]],
    colours: Mapping[str, int],
    scores: Scores,
) -> str:
    """Plot precision-recall curves, mean over runs at each recall; "" if no scores are stored."""
    series = []
    for plotted in plotted_rows(table, cells):
        tables = [found for key in plotted.keys if (found := scores.of(key)) is not None]
        if not tables:
            continue
        curves = np.stack([precision_at_recalls(found) for found in tables])
        mean, std = curves.mean(axis=0), curves.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(RECALLS))
        band = np.maximum(mean - std, 0).tolist(), np.minimum(mean + std, 1).tolist()
        name = f"{plotted.augmenter}, {plotted.n_aug}" if plotted.n_aug else plotted.augmenter
        series.append(
            Series(
                name,
                RECALLS.tolist(),
                mean.tolist(),
                line="pre",
                band=band if len(curves) > 1 else None,
                colour=colours[plotted.augmenter],
                dashed=not plotted.n_aug,
            )
        )
    if not series:
        return ""
    return plot(
        series,
        Axis("Recall", low=0, high=1),
        Axis("Precision", low=0, high=1.02, ticks=[(v / 5, f"{v / 5:g}") for v in range(6)]),
        "Precision-recall curves",
        f"{table['title']}: from the scores of the test images, mean over runs at each recall, with one standard "
        "deviation either way; for each augmenter its largest N_aug.",
        (),
        WIDTH,
        HEIGHT,
        style=False,
    )


def _costs(table: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], colours: Mapping[str, int]) -> str:
    """Plot the headline metric against the seconds of one classifier; the dashed line is the Pareto front."""
    metric = table["headline"]
    placed = [row for row in rows if _seconds(row) is not None]
    if len(placed) < 2:
        return ""
    points = [(_seconds(row), _mean(row, metric)) for row in placed]
    series = [
        Series(
            name,
            *zip(*(points[i] for i in mine), strict=True),
            line="none",
            markers=True,
            labels=[str(placed[i]["n_aug"]) if placed[i]["n_aug"] else "" for i in mine],
            tips=[
                f"{name}, N_aug {placed[i]['n_aug']}: {share(points[i][1])}, {span_text(points[i][0])}" for i in mine
            ],
            colour=colours[name],
            hollow=any(placed[i]["values"]["cost"]["text"].startswith(AT_LEAST) for i in mine),
        )
        for name in dict.fromkeys(row["augmenter"] for row in placed)
        for mine in [[i for i, row in enumerate(placed) if row["augmenter"] == name]]
    ]
    front = _front(points)
    if len(front) > 1:
        series.append(Series("", *zip(*front, strict=True), line="post", dashed=True, colour=7))
    return plot(
        series,
        _time_axis([cost for cost, _ in points]),
        Axis(NAMES[metric]),
        f"{NAMES[metric]} against cost",
        f"{table['title']}: mean {NAMES[metric]} against the time of one classifier, with everything generated for "
        "it; numbers are N_aug. The dashed line is the Pareto front. Hollow points: some cost is not recorded.",
        (),
        WIDTH,
        HEIGHT,
        style=False,
    )


def _seconds(row: Mapping[str, Any]) -> float | None:
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


def _time_axis(values: Sequence[float]) -> Axis:
    """Make an axis of durations: logarithmic, unless fewer than three ticks fall inside their range."""
    low, high = min(values) / 1.2, max(values) * 1.2
    ticks = [(float(tick), span_text(tick)) for tick in TIME_TICKS if low <= tick <= high]
    if len(ticks) < 3:
        return Axis("seconds for one classifier")
    return Axis("time for one classifier (log scale)", log=True, ticks=ticks)
