"""The look of all plots, and how a matplotlib figure becomes SVG text. There is no pyplot and no global state.

Make and save figures inside ``with theme():``. Lengths are points; an SVG has as many units.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from math import ceil
from typing import TYPE_CHECKING, Any

from augbench.report.numbers import COLLAPSED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56a0d3", "#6a3d9a", "#7f7f7f")
"""Colour-blind safe colours (after Okabe and Ito). Further series start again at the first."""
MARKERS = "os^D"
COLLAPSE_TEXT = f"{COLLAPSED} rests on collapsed runs"
MUTED = "#59636e"
DARK = "invert(.93) hue-rotate(180deg)"
"""CSS filter for dark themes: it inverts lightness and keeps hues."""
FONT = 12
THEME = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "augbench",  # equal figures get equal ids
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, which measures text with it
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.titleweight": "bold",
    "text.parse_math": False,  # names may hold dollar signs
    "text.color": "#1f2328",
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d8dee4",
    "axes.formatter.use_mathtext": False,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 7,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
}


@contextmanager
def theme() -> Iterator[None]:
    """Set matplotlib's parameters for a while, whatever the user's own are."""
    from matplotlib import style

    with style.context(["default", THEME]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # readers have fonts for more alphabets
        yield


def figure(width: float, height: float) -> Figure:
    """Make an empty figure that leaves room for texts and legends around its axes."""
    from matplotlib.figure import Figure

    return Figure((width / 72, height / 72), layout="constrained")


def shape_of(index: int) -> int:
    """Return the index of a series' marker; shapes shift when colours repeat, so that 32 series look different."""
    return (index + index // len(PALETTE)) % len(MARKERS)


def look(index: int, hollow: bool = False) -> dict[str, Any]:
    """Return the keyword arguments that give a series its colour and marker."""
    fill = {"markerfacecolor": "white"} if hollow else {}
    return {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[shape_of(index)], **fill}


def guide(axes: Axes, value: float, label: str) -> None:
    """Draw a dashed horizontal line at a value, labelled at its right end."""
    axes.axhline(value, color=MUTED, linewidth=1, linestyle="--")
    axes.annotate(label, (1, value), (-4, 3), axes.get_yaxis_transform(), "offset points", color=MUTED, ha="right")


def explain_collapse(handles: dict[str, Any]) -> None:
    """Add to the artists of a legend what the mark at values of collapsed runs means."""
    from matplotlib.lines import Line2D

    handles[COLLAPSE_TEXT] = Line2D([], [], linestyle="none")


def legend(drawn: FigureBase, handles: Mapping[str, Any]) -> None:
    """Add a legend of named artists below the axes, in rows that make the figure higher."""
    width = drawn.bbox.width / drawn.figure.dpi * 72
    columns = max(1, int(width // (50 + max(map(len, handles)) * FONT * 0.6)))
    rows = ceil(len(handles) / columns)
    drawn.figure.set_figheight(drawn.figure.get_figheight() + rows * FONT * 1.7 / 72)
    drawn.legend(handles.values(), handles, loc="outside lower center", ncols=columns)


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Label points (x, y, text), each at the first place beside it that covers no point and no other label."""
    from matplotlib.transforms import Bbox

    axes.figure.figure.draw_without_rendering()  # settles where the points are
    centres = axes.transData.transform([(x, y) for x, y, _ in points])
    occupied = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in centres]
    for x, y, label in points:
        if not label:
            continue
        text = axes.annotate(label, (x, y), (0, 0), textcoords="offset points", va="center", in_layout=False)
        for right, up in ((7, 9), (7, -9), (-7, 9), (-7, -9), (9, 0), (-9, 0), (7, 9)):
            text.set(position=(right, up), ha="left" if right > 0 else "right")
            box = text.get_window_extent()
            if not box.count_overlaps(occupied) and all(map(axes.bbox.contains, *box.corners()[[0, 3]].T)):
                break
        occupied.append(box)


def embedded(axes: Axes, of: str, description: str) -> dict[str, Any]:
    """Return the figure of these axes for the ``<img>`` of a page: url (SVG in a data URL), alt, width and height.

    Args:
        axes: with a title.
        of: what is plotted, for the alternative text.
        description: as for `svg_text`.
    """
    drawn, title = axes.figure, axes.get_title()
    data = base64.b64encode(svg_text(drawn, title, description).encode()).decode()
    width, height = (round(inches * 72) for inches in drawn.get_size_inches())
    url, alt = f"data:image/svg+xml;base64,{data}", f"{title}. {of}: {description}"
    return {"url": url, "alt": alt, "width": width, "height": height}


def svg_text(drawn: Figure, title: str, description: str) -> str:
    """Return a figure as SVG. Equal figures give equal text, with one version of matplotlib.

    Args:
        drawn: made inside `theme`.
        title: name of the plot, for screen readers.
        description: a sentence or two on what it shows, for screen readers.
    """
    file = StringIO()
    drawn.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    opening, _, rest = text[text.index("<svg") :].partition(">")
    about = f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>"
    style = f"<style>@media (prefers-color-scheme: dark) {{ svg {{ filter: {DARK} }} }}</style>"
    return f'{opening} role="img">\n{about}\n{style}{rest}'
