"""Draw docs/overview.png: real and synthetic defects of `surfaces`, and the gains that README prints.

python tools/site/overview.py
"""

from __future__ import annotations

import io
import re

import matplotlib as mpl
import numpy as np
from PIL import Image
from plugin_pages import DRAWN_ROWS, REPOSITORY, Examples

from augbench.core import registry

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch

INK, FAINT, ACCENT = "#1c1c1e", "#6b6b72", "#b3005e"
WIDTH, HEIGHT, SCALE = 1000, 410, 2  # of the figure, in pixels as it is shown
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1}
TILE, GAP = (42, 115), 5
NUMBER = r"([+-]?\.\d+)"
GAIN = re.compile(rf"- (.+), N\\_aug (\d+): {NUMBER} AP against none .95 % interval {NUMBER} to {NUMBER},.*: (.+)\.")
NOTE = (
    "Images: the procedural dataset surfaces, defects outlined; DDPM and DIAG with packaged pipelines of three million "
    "parameters. Gains: make demo, 2,223 solar cells (ELPV), five real defects."
)
METHODS = {"memseg": "MemSeg", "cutpaste": "CutPaste", "ddpm": "DDPM", "diag": "DIAG"}


def main() -> None:
    """Draw the figure."""
    examples = Examples()
    figure = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100 * SCALE, facecolor="white")
    _say(figure, 24, 24, "1  Real images", size=11, weight="bold")
    _say(figure, 24, 52, "thousands without a defect", color=FAINT)
    _tiles(figure, 24, 64, examples.normal(4))
    _say(figure, 24, 212, "a few with one", color=FAINT)
    _tiles(figure, 24, 224, examples.real()[:8:2])
    _say(figure, 262, 24, "2  Defects that are made", size=11, weight="bold")
    for number, (name, title) in enumerate(METHODS.items()):
        left, top = 262 + 200 * (number % 2), 52 + 160 * (number // 2)
        _say(figure, left, top, title, color=FAINT)
        images = examples.of(registry.get("augmenters", name))
        chosen = images[:4] if name in DRAWN_ROWS else [images[place] for place in (0, 3, 6, 8)]
        _tiles(figure, left, top + 12, chosen)
    _say(figure, 700, 24, "3  Does a classifier gain?", size=11, weight="bold")
    _gains(figure)
    for left, right in ((222, 250), (656, 684)):
        figure.add_artist(FancyArrowPatch(*[(x / WIDTH, 0.52) for x in (left, right)], transform=figure.transFigure,
                                          arrowstyle="-|>", mutation_scale=14, color=FAINT, linewidth=1.4))  # fmt: skip
    _say(figure, 24, 372, NOTE, color=FAINT, size=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    Image.open(buffer).convert("RGB").quantize(256).save(REPOSITORY / "docs" / "overview.png", optimize=True)


def _say(figure: plt.Figure, x: float, y: float, text: str, size: float = 8.5, **style: str) -> None:
    figure.text(x / WIDTH, 1 - y / HEIGHT, text, fontsize=size, va="center", **{"color": INK, **style})


def _tiles(figure: plt.Figure, left: float, top: float, images: list[bytes]) -> None:
    for number, image in enumerate(images):
        x = left + number * (TILE[0] + GAP)
        axes = figure.add_axes((x / WIDTH, 1 - (top + TILE[1]) / HEIGHT, TILE[0] / WIDTH, TILE[1] / HEIGHT))
        axes.imshow(np.asarray(Image.open(io.BytesIO(image)).convert("RGB")), aspect="auto")
        axes.set_axis_off()


def _gains(figure: plt.Figure) -> None:
    """Plot the gains of README's table with their intervals."""
    rows = GAIN.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    axes = figure.add_axes((700 / WIDTH, 1 - 318 / HEIGHT, 276 / WIDTH, 250 / HEIGHT))
    axes.axvline(0, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
    for place, (name, count, *numbers, verdict) in enumerate(rows):
        gain, low, high = map(float, numbers)
        y = len(rows) - place
        axes.plot([low, high], [y, y], color=ACCENT, linewidth=2.2, solid_capstyle="round")
        axes.plot(gain, y, "o", color=ACCENT, markersize=6)
        label = name if count == "0" else f"{name}, {count} images"
        said = f"{numbers[0]}  ({numbers[1]} to {numbers[2]}): {verdict}"
        axes.text(-0.148, y + 0.3, label, fontsize=8.5, color=INK, bbox=PAPER)
        axes.text(-0.148, y - 0.34, said, fontsize=7.2, color=FAINT, bbox=PAPER)
    axes.set(xlim=(-0.15, 0.19), ylim=(0.4, len(rows) + 0.7), yticks=[], xticks=[-0.1, 0, 0.1])
    axes.set_xticklabels(["-.1", "as without", "+.1"], fontsize=8)
    axes.tick_params(length=0, colors=FAINT)
    for side in axes.spines.values():
        side.set_visible(False)
    _say(figure, 700, 52, "gain in AP, with its 95 % interval", color=FAINT)


if __name__ == "__main__":
    main()
