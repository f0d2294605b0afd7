"""SVG primitives and the colour theme of all plots.

Colours are CSS variables that a page may set (``--plot-ink``, ``--plot-1``, ...). They follow the reader's light or
dark theme; programs without CSS draw the light ones. Equal input gives equal text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal

CLASS = "augbench-plot"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56a0d3", "#6a3d9a", "#7f7f7f")
"""Colour-blind safe colours (after Okabe and Ito) on white. Further series start again at the first."""
DARK = ("#56b4e9", "#ff9f4a", "#2fd0a5", "#e6a4c8", "#f0e442", "#9ccdf0", "#b79be0", "#b0b0b0")
"""The same colours on a dark background."""
THEME = {"ink": ("#1f2328", "#e6edf3"), "muted": ("#656d76", "#9aa4ae"), "grid": ("#d8dee4", "#373e47"),
         "paper": ("#ffffff", "#0d1117")}  # fmt: skip
"""Part of a plot -> its colour on light and on dark."""
FONT = 12.0  # font size in units of the viewBox, as all lengths here
LETTER = 0.6  # mean width of a letter relative to the font size
SHAPES = 4  # number of marker shapes


def _style() -> str:
    """Return the CSS rules of all plots, limited to `CLASS` so that they affect nothing else of a page."""
    parts = [*THEME.items(), *((str(n), pair) for n, pair in enumerate(zip(PALETTE, DARK, strict=True), 1))]

    def names(side: int) -> str:
        return "".join(f"--p-{name}:var(--plot-{name},{pair[side]});" for name, pair in parts)

    uses = "".join(f".{CLASS} .c{n}{{color:var(--p-{n})}}" for n in range(1, len(PALETTE) + 1))
    uses += "".join(f".{CLASS} .{name}{{color:var(--p-{name})}}" for name in THEME)
    dark = f"@media (prefers-color-scheme:dark){{.{CLASS}{{{names(1)}}}}}"
    toggled = f'[data-theme="dark"] .{CLASS}{{{names(1)}}}[data-theme="light"] .{CLASS}{{{names(0)}}}'
    halo = f".{CLASS} .halo{{paint-order:stroke;stroke:var(--p-paper);stroke-width:3px;stroke-linejoin:round}}"
    return f".{CLASS}{{{names(0)}}}{dark}{toggled}{uses}{halo}"


STYLE = _style()
"""CSS of the plots. A page with many plots writes it once into its ``<style>`` and draws them with ``style=False``.
A page with a theme switch sets ``data-theme="dark"`` or ``"light"`` on an element above the plots."""


def document(body: Iterable[str], title: str, description: str, width: float, height: float, style: bool = True) -> str:
    """Assemble primitives into an ``<svg>`` element. Arguments as in `svg.plot`."""
    rules = f"<style>{STYLE}</style>" if style else ""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{CLASS}" viewBox="0 0 {number(width)} {number(height)}" '
        f'role="img" font-family="system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif" '
        f'font-size="{number(FONT)}">'
    )
    about = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    paper = f'<g {ink("paper")}><rect width="100%" height="100%" fill="currentColor"/></g>'
    return "\n".join([head, about + rules, paper, *(piece for piece in body if piece), "</svg>"]) + "\n"


def stacked(drawings: Sequence[str], title: str, description: str, width: float) -> str:
    """Stack drawings of equal width, from `document` or `svg.plot` with ``style=False``, in one ``<svg>``."""
    top, body = 0.0, []
    for drawing in drawings:
        height = float(drawing.split('viewBox="', 1)[1].split('"', 1)[0].split()[3])
        opening = f'<svg y="{number(top)}" width="{number(width)}" height="{number(height)}" '
        body.append(opening + drawing.strip().removeprefix("<svg "))
        top += height + FONT
    return document(body, title, description, width, top)


def text(
    x: float,
    y: float,
    content: str,
    size: float = FONT,
    anchor: Literal["start", "middle", "end"] = "start",
    part: str = "ink",
    bold: bool = False,
    turned: bool = False,
    halo: bool = False,
) -> str:
    """Draw text with its baseline at y.

    Args:
        x: horizontal position.
        y: vertical position of the baseline.
        content: the text, not escaped.
        size: font size.
        anchor: which end of the text is at x.
        part: part of the theme that gives the colour.
        bold: use a bold font.
        turned: rotate the text so that it reads upwards.
        halo: draw an outline that keeps the text readable on lines.
    """
    spin = f' transform="rotate(-90 {number(x)} {number(y)})"' if turned else ""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{number(x)}" y="{number(y)}" {ink(part, "halo" if halo else "")} fill="currentColor" '
        f'font-size="{number(size)}" text-anchor="{anchor}"{weight}{spin}>{escape(content)}</text>'
    )


def line(points: Sequence[tuple[float, float]], part: str = "ink", thick: float = 1.0, dashed: bool = False) -> str:
    """Draw a line through points; ``part`` of the theme, or ``c1`` to ``c8`` of the palette, gives the colour."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<path d="{path_of(points)}" {ink(part)} fill="none" stroke="currentColor" stroke-width="{number(thick)}" '
        f'stroke-linejoin="round"{dash}/>'
    )


def shape_of(index: int) -> int:
    """Return the marker shape of a series; shapes shift when colours repeat, so that 32 series look different."""
    return (index + index // len(PALETTE)) % SHAPES


def marker(x: float, y: float, shape: int, tip: str = "", hollow: bool = False, size: float = 4.0) -> str:
    """Draw a circle, square, triangle or diamond (0 to 3) in the colour of the enclosing group."""
    drawn = {
        0: f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(size)}"',
        1: f'<path d="{path_of(_corners(x, y, size * 0.9, ((-1, -1), (1, -1), (1, 1), (-1, 1))))}Z"',
        2: f'<path d="{path_of(_corners(x, y, size * 1.15, ((0, -1), (0.95, 0.8), (-0.95, 0.8))))}Z"',
        3: f'<path d="{path_of(_corners(x, y, size * 1.25, ((0, -1), (1, 0), (0, 1), (-1, 0))))}Z"',
    }[shape % SHAPES]
    fill = f'fill="{"none" if hollow else "currentColor"}" stroke="currentColor" stroke-width="1.5"'
    return f"{drawn} {fill}><title>{escape(tip)}</title>{_end(drawn)}" if tip else f"{drawn} {fill}/>"


def ink(part: str, also: str = "") -> str:
    """Return the attributes that colour an element: a class, and the light colour for programs without CSS.

    ``also`` is a further class.
    """
    colour = PALETTE[int(part[1:]) - 1] if part[1:].isdigit() else THEME[part][0]
    classes = f"{part} {also}".rstrip()
    return f'class="{classes}" color="{colour}"'


def number(value: float) -> str:
    """Format a coordinate with at most two decimals and without trailing zeros."""
    return f"{value:z.2f}".rstrip("0").rstrip(".")


def text_width(content: str, size: float = FONT) -> float:
    """Estimate the width of a text from its length, since there is no font to measure with."""
    return len(content) * size * LETTER


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """Return the ``d`` attribute of a line through points."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def _corners(x: float, y: float, size: float, offsets: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x + size * a, y + size * b) for a, b in offsets]


def _end(drawn: str) -> str:
    return "</circle>" if drawn.startswith("<circle") else "</path>"
