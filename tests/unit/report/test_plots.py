"""The look of plots: deterministic SVG that screen readers can read and names cannot break."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import pytest

from augbench.report.plots import MARKERS, PALETTE, figure, guide, label_points, legend, look, shape_of, svg_text, theme

SPACE = "{http://www.w3.org/2000/svg}"
NAME = "<b>&$x$ 缺陷"


def drawn(title="A title", description="What it shows."):
    with theme():
        axes = figure(480, 300).subplots()
        axes.fill_between([1, 2], [0, 1], [2, 3], alpha=0.2)
        handles = {name: axes.plot([1, 2], [3, 4], **look(i))[0] for i, name in enumerate((NAME, "_hidden"))}
        guide(axes, 3.5, NAME)
        legend(axes.figure, handles)
        label_points(axes, [(1, 3, NAME), (2, 4, "80")])
        return svg_text(axes.figure, title, description)


def test_a_plot_names_itself_and_holds_its_texts():
    root = ElementTree.fromstring(drawn(f"Title {NAME}", f"About {NAME}."))
    assert root.tag == f"{SPACE}svg" and root.get("role") == "img"
    assert [root.find(f"{SPACE}{name}").text for name in ("title", "desc")] == [f"Title {NAME}", f"About {NAME}."]
    texts = [element.text for element in root.iter(f"{SPACE}text")]
    assert texts.count(NAME) == 3 and {"_hidden", "80"} <= set(texts)
    assert "prefers-color-scheme: dark" in drawn()


def test_the_svg_is_the_same_in_every_process():
    script = "import sys; sys.path.insert(0, sys.argv[1]); import test_plots; sys.stdout.write(test_plots.drawn())"
    command = [sys.executable, "-c", script, Path(__file__).parent]
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == drawn()
    assert "<metadata" not in done.stdout  # which would hold date and version


def test_the_parameters_of_others_neither_matter_nor_change():
    expected = drawn()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path"}):
        assert drawn() == expected
        assert matplotlib.rcParams["font.size"] == 30


def test_labels_do_not_cover_one_another():
    with theme():
        axes = figure(480, 300).subplots()
        axes.set(xlim=(0, 2), ylim=(0, 2))
        label_points(axes, [(x, y, "label") for x in (1, 1.01) for y in (1, 1.01)])
        boxes = [text.get_window_extent() for text in axes.texts]
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)  # only with itself


@pytest.mark.parametrize("hollow", [False, True])
def test_thirty_two_series_look_different(hollow):
    assert len({tuple(look(index, hollow).values()) for index in range(32)}) == 32
    assert len({(index % len(PALETTE), shape_of(index)) for index in range(32)}) == len(PALETTE) * len(MARKERS)
