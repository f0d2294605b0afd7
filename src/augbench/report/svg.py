"""Plots as SVG text, without a plotting library: lines with bands, steps, scatter with labels, intervals.

A plot scales with its container (``viewBox``, no fixed size) and describes itself to screen readers (``title``,
``desc``). Series differ in marker shape as well as in colour. Theme and primitives are in `svg_parts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, isfinite, log10
from typing import Literal

from augbench.report.svg_parts import (
    FONT,
    PALETTE,
    document,
    ink,
    line,
    marker,
    number,
    path_of,
    shape_of,
    text,
    text_width,
)

PAD = 10.0  # space between entries of the legend


@dataclass(frozen=True)
class Axis:
    """One axis of a plot."""

    label: str
    log: bool = False  # values must be > 0; others are not drawn
    low: float | None = None  # limits; None: those of the data with a small margin
    high: float | None = None
    ticks: Sequence[tuple[float, str]] | None = None  # value, text; None: round numbers


@dataclass(frozen=True)
class Series:
    """A series of points. Values that are not finite are left out and interrupt the line."""

    name: str  # name in the legend; "": none
    x: Sequence[float]
    y: Sequence[float]
    line: Literal["straight", "pre", "post", "none"] = "straight"
    """``pre``: a step that jumps to the next y at once and holds it up to the next x, as step-wise AP sums a
    precision-recall curve of ascending recall. ``post`` holds this y up to the next x, for descending recall."""
    markers: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None  # low and high y at each point, as a filled band
    y_bars: tuple[Sequence[float], Sequence[float]] | None = None  # low and high at each point, as error bars
    x_bars: tuple[Sequence[float], Sequence[float]] | None = None
    labels: Sequence[str] = ()  # labels beside the points; "": none
    tips: Sequence[str] = ()  # tooltips of the markers
    colour: int | None = None  # index of colour and marker shape; None: the index of the series in the plot
    dashed: bool = False
    hollow: bool = False  # markers are outlines


@dataclass(frozen=True)
class Guide:
    """A thin line across the plot at one value, with its label."""

    value: float
    label: str = ""
    axis: Literal["x", "y"] = "y"


def plot(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    title: str,
    description: str,
    guides: Sequence[Guide] = (),
    width: float = 720,
    height: float = 420,
    style: bool = True,
) -> str:
    """Draw a plot as an ``<svg>`` element, for a file or a page.

    Args:
        series: series in the order of the legend; there is a legend if two or more have names.
        x: the horizontal axis.
        y: the vertical axis.
        title: heading of the plot, and its name for screen readers.
        description: a sentence or two on what it shows, for screen readers.
        guides: lines across the plot.
        width: width of the viewBox in its units; text has a fixed size in these units.
        height: height of the viewBox, without the rows of the legend.
        style: include `STYLE`; False where the page has it.

    Raises:
        ValueError: lengths differ within a series, or an axis has no finite value.
    """
    for one in series:
        _check(one)
    frame = _Frame(_scale(x, series, guides, "x"), _scale(y, series, guides, "y"), width, height)
    named = [(index, one) for index, one in enumerate(series) if one.name]
    legend, rows = _legend(named, frame) if len(named) > 1 else ("", 0)
    frame = frame.below(FONT * 2.2 + rows * FONT * 1.6)
    body = [
        text(width / 2, FONT * 1.4, title, size=FONT * 1.15, anchor="middle", bold=True),
        legend,
        _axes(frame, x, y),
        *(_guide(frame, guide) for guide in guides),
        _clipped(frame, "".join(_line(frame, one, index) for index, one in enumerate(series))),
        *(_points(frame, one, index) for index, one in enumerate(series)),
        _labels(frame, series),
    ]
    return document(body, title, description, width, frame.total, style)


def tick_text(value: float) -> str:
    """Format a tick label: ``0.25``, ``30``, ``12,000``, ``1e-05``."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.6g}"


# -- scales


@dataclass(frozen=True)
class _Scale:
    """Maps values linearly or logarithmically to [0, 1]."""

    low: float
    high: float
    log: bool

    def __call__(self, value: float) -> float:
        if self.log:
            return (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return (value - self.low) / (self.high - self.low)

    def contains(self, value: float) -> bool:
        """Whether a value lies within the limits."""
        slack = 1e-9 * (self.high - self.low)
        return isfinite(value) and self.low - slack <= value <= self.high + slack

    def is_valid(self, value: float) -> bool:
        """Whether a value can be drawn on this scale."""
        return isfinite(value) and (value > 0 or not self.log)

    def ticks(self) -> list[tuple[float, str]]:
        """Return round values within the limits, with labels."""
        return [(value, tick_text(value)) for value in (self._decades() if self.log else self._steps())]

    def _steps(self) -> list[float]:
        rough = (self.high - self.low) / 5
        power = 10.0 ** floor(log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]

    def _decades(self) -> list[float]:
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        spread = log10(self.high) - log10(self.low)
        factors = (1, 2, 5) if spread <= 2.5 else (1,)
        every = max(1, ceil(spread / 8))
        values = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
        return [value for value in values if self.contains(value)]


def _scale(axis: Axis, series: Sequence[Series], guides: Sequence[Guide], which: Literal["x", "y"]) -> _Scale:
    values = [v for one in series for v in _extent(one, which)]
    values += [guide.value for guide in guides if guide.axis == which]
    values += [value for value, _ in axis.ticks or ()]
    values += [end for end in (axis.low, axis.high) if end is not None]
    values = [v for v in values if isfinite(v) and (v > 0 or not axis.log)]
    if not values:
        raise ValueError(f"axis '{axis.label}' has no finite value")
    low, high = min(values), max(values)
    if axis.log:
        margin = (high / low) ** 0.06 if high > low else 2.0
        ends = low / margin, high * margin
    else:
        margin = 0.05 * (high - low) if high > low else max(0.5 * abs(low), 0.5)
        ends = low - margin, high + margin
    low, high = (end if given is None else given for end, given in zip(ends, (axis.low, axis.high), strict=True))
    if not low < high:
        raise ValueError(f"axis '{axis.label}' ends at {high:g}, which is not above its beginning")
    return _Scale(low, high, axis.log)


def _extent(series: Series, which: Literal["x", "y"]) -> Iterable[float]:
    """Yield every value that the axis must include."""
    pairs = (series.x_bars,) if which == "x" else (series.band, series.y_bars)
    yield from series.x if which == "x" else series.y
    for pair in pairs:
        for side in pair or ():
            yield from side


@dataclass(frozen=True)
class _Frame:
    """The plot area on the canvas, with its scales."""

    x: _Scale
    y: _Scale
    width: float
    height: float
    top: float = FONT * 2.2
    left: float = 64.0
    right: float = 18.0
    bottom: float = 46.0

    def below(self, top: float) -> _Frame:
        """Return the frame moved down to this top edge."""
        return _Frame(self.x, self.y, self.width, self.height, top)

    @property
    def total(self) -> float:
        """The height of the whole drawing."""
        return self.height + self.top - FONT * 2.2

    @property
    def ends(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the area."""
        return self.left, self.top, self.width - self.right, self.total - self.bottom

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the canvas coordinates of a point."""
        left, top, right, bottom = self.ends
        return left + self.x(x) * (right - left), bottom - self.y(y) * (bottom - top)


# -- parts of a plot


def _check(series: Series) -> None:
    pairs = [pair for pair in (series.band, series.y_bars, series.x_bars) if pair]
    each = [series.y, *(side for pair in pairs for side in pair), *(s for s in (series.labels, series.tips) if s)]
    if any(len(values) != len(series.x) for values in each):
        raise ValueError(f"series '{series.name}' has values of different lengths")


def _style_index(series: Series, index: int) -> int:
    """Return the index that selects colour and marker shape."""
    return index if series.colour is None else series.colour


def _colour(series: Series, index: int) -> str:
    return f"c{_style_index(series, index) % len(PALETTE) + 1}"


def _axes(frame: _Frame, x: Axis, y: Axis) -> str:
    left, top, right, bottom = frame.ends
    parts = []
    for value, label in frame.x.ticks() if x.ticks is None else x.ticks:
        at, _ = frame.at(value, frame.y.low)
        parts += [line([(at, top), (at, bottom)], "grid"), text(at, bottom + 16, label, anchor="middle")]
    for value, label in frame.y.ticks() if y.ticks is None else y.ticks:
        _, at = frame.at(frame.x.low, value)
        parts += [line([(left, at), (right, at)], "grid"), text(left - 7, at + 4, label, anchor="end")]
    parts.append(line([(left, top), (left, bottom), (right, bottom)], "muted"))
    parts.append(text((left + right) / 2, bottom + 36, x.label, anchor="middle", part="muted"))
    parts.append(text(16, (top + bottom) / 2, y.label, anchor="middle", part="muted", turned=True))
    return "".join(parts)


def _guide(frame: _Frame, guide: Guide) -> str:
    left, top, right, bottom = frame.ends
    if not (frame.x if guide.axis == "x" else frame.y).contains(guide.value):
        return ""
    if guide.axis == "x":
        at, _ = frame.at(guide.value, frame.y.low)
        label = text(at + 4, top + FONT, guide.label, part="muted", halo=True) if guide.label else ""
        return line([(at, top), (at, bottom)], "muted", dashed=True) + label
    _, at = frame.at(frame.x.low, guide.value)
    label = text(right - 4, at - 5, guide.label, anchor="end", part="muted", halo=True) if guide.label else ""
    return line([(left, at), (right, at)], "muted", dashed=True) + label


def _clipped(frame: _Frame, inside: str) -> str:
    """Clip to the plot area with a nested ``svg``, which needs no ids that could clash in a page."""
    left, top, right, bottom = frame.ends
    box = f'x="{number(left)}" y="{number(top)}" width="{number(right - left)}" height="{number(bottom - top)}"'
    view = f'viewBox="{number(left)} {number(top)} {number(right - left)} {number(bottom - top)}"'
    return f"<svg {box} {view}>{inside}</svg>" if inside else ""


def _line(frame: _Frame, series: Series, index: int) -> str:
    """Draw band and line, interrupted where a point is missing."""
    parts, colour = [], _colour(series, index)
    for run in _runs(frame, series):
        if series.band:
            low, high = series.band
            lower = _stepped([frame.at(series.x[i], low[i]) for i in run], series.line)
            upper = _stepped([frame.at(series.x[i], high[i]) for i in run], series.line)
            parts.append(f'<path d="{path_of([*upper, *reversed(lower)])}Z" {ink(colour)} '
                         'fill="currentColor" fill-opacity="0.18"/>')  # fmt: skip
        if series.line != "none" and len(run) > 1:
            points = _stepped([frame.at(series.x[i], series.y[i]) for i in run], series.line)
            parts.append(line(points, colour, 2.0, series.dashed))
    return "".join(parts)


def _runs(frame: _Frame, series: Series) -> list[list[int]]:
    """Return the indices of points that can be drawn, in uninterrupted runs."""
    sides = [series.y, *(series.band or ())]
    runs: list[list[int]] = [[]]
    for i in range(len(series.x)):
        if frame.x.is_valid(series.x[i]) and all(frame.y.is_valid(side[i]) for side in sides):
            runs[-1].append(i)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _stepped(points: list[tuple[float, float]], kind: str) -> list[tuple[float, float]]:
    if kind not in ("pre", "post"):
        return points
    found = points[:1]
    for (x0, y0), (x1, y1) in pairwise(points):
        found += [(x0, y1) if kind == "pre" else (x1, y0), (x1, y1)]
    return found


def _points(frame: _Frame, series: Series, index: int) -> str:
    """Draw error bars and markers of the points inside the plot area."""
    visible = [i for i in range(len(series.x)) if frame.x.contains(series.x[i]) and frame.y.contains(series.y[i])]
    parts = []
    for i in visible:
        parts += [
            line([frame.at(a, b), frame.at(c, d)], _colour(series, index), 1.5)
            for a, b, c, d in _bars(frame, series, i)
        ]
        if series.markers:
            tip = series.tips[i] if series.tips else ""
            at = frame.at(series.x[i], series.y[i])
            parts.append(marker(*at, shape_of(_style_index(series, index)), tip, series.hollow))
    return f"<g {ink(_colour(series, index))}>{''.join(parts)}</g>" if parts else ""


def _bars(frame: _Frame, series: Series, i: int) -> Iterable[tuple[float, float, float, float]]:
    """Yield the ends of a point's error bars, clipped to the plot area."""
    x, y = series.x[i], series.y[i]
    if series.y_bars and all(frame.y.is_valid(side[i]) for side in series.y_bars):
        low, high = (min(max(side[i], frame.y.low), frame.y.high) for side in series.y_bars)
        yield x, low, x, high
    if series.x_bars and all(frame.x.is_valid(side[i]) for side in series.x_bars):
        low, high = (min(max(side[i], frame.x.low), frame.x.high) for side in series.x_bars)
        yield low, y, high, y


def _labels(frame: _Frame, series: Sequence[Series]) -> str:
    """Draw the labels of all points, each at the first position where it covers no point and no other label."""
    left, top, right, bottom = frame.ends
    points = [
        (*frame.at(one.x[i], one.y[i]), one.labels[i] if one.labels else "")
        for one in series
        if one.markers
        for i in range(len(one.x))
        if frame.x.contains(one.x[i]) and frame.y.contains(one.y[i])
    ]
    occupied = [(x - 5, y - 5, x + 5, y + 5) for x, y, _ in points]
    parts = []
    for x, y, label in points:
        if not label:
            continue
        wide = text_width(label)
        beside, above, below = x - wide / 2, y - 17, y + 7
        boxes = [(x + 6, above), (x + 8, y - 6), (x - 8 - wide, y - 6), (x + 6, below), (x - 6 - wide, above),
                 (x - 6 - wide, below), (beside, y - 20), (beside, y + 8)]  # fmt: skip
        inside = [
            (a, b, a + wide, b + FONT)
            for a, b in boxes
            if a >= left and a + wide <= right and top <= b <= bottom - FONT
        ]
        inside = inside or [(boxes[0][0], boxes[0][1], boxes[0][0] + wide, boxes[0][1] + FONT)]
        box = next((b for b in inside if not any(_overlap(b, other) for other in occupied)), inside[0])
        occupied.append(box)
        parts.append(text(box[0], box[1] + FONT * 0.85, label, halo=True))
    return "".join(parts)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(named: Sequence[tuple[int, Series]], frame: _Frame) -> tuple[str, int]:
    """Draw the legend above the plot; return it with its number of rows."""
    x, row, parts = frame.left, 0, []
    for index, one in named:
        wide = 34 + text_width(one.name)
        if x > frame.left and x + wide > frame.width - frame.right:
            x, row = frame.left, row + 1
        y = FONT * (2.6 + 1.6 * row)
        colour = _colour(one, index)
        sample = line([(x, y), (x + 22, y)], colour, 2.0, one.dashed) if one.line != "none" else ""
        dot = (
            marker(x + 11, y, shape_of(_style_index(one, index)), hollow=one.hollow)
            if one.markers or not sample
            else ""
        )
        parts.append(f"<g {ink(colour)}>{sample}{dot}</g>{text(x + 27, y + 4, one.name)}")
        x += wide + PAD
    return "".join(parts), row + 1
