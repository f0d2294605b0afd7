"""Plots as text: what is where, what is escaped, what never happens."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from augbench.report.svg import Axis, Guide, Series, plot, tick_text
from augbench.report.svg_parts import DARK, PALETTE, STYLE, document, number, shape_of

SPACE = "{http://www.w3.org/2000/svg}"


def drawn(series, x=None, y=None, **options):
    return plot(series, x or Axis("x"), y or Axis("y"), "A title", "What it shows.", **options)


def parsed(text):
    return ElementTree.fromstring(text)


def words(text):
    return [element.text for element in parsed(text).iter(f"{SPACE}text")]


def paths(text, colour):
    """The points of every line of that class."""
    found = [e for e in parsed(text).iter(f"{SPACE}path") if e.get("class") == colour and e.get("fill") == "none"]
    return [[tuple(map(float, p.split())) for p in e.get("d")[1:].split("L")] for e in found]


def test_a_plot_names_itself_and_scales_with_its_place():
    root = parsed(drawn([Series("a", [0, 1], [0, 1])]))
    assert root.get("viewBox") == "0 0 720 420" and root.get("width") is None and root.get("role") == "img"
    assert [root.find(f"{SPACE}{name}").text for name in ("title", "desc")] == ["A title", "What it shows."]


def test_what_others_wrote_is_escaped():
    series = [
        Series("<script>&", [1, 2], [1, 2], markers=True, labels=["<b>", '"'], tips=["<i>", "&"]),
        Series("b", [1], [1]),
    ]
    text = drawn(series, guides=[Guide(1.5, "<u>")])
    assert "<script>" not in text and "<b>" not in text and "<i>" not in text and "<u>" not in text
    assert {"<script>&", "<b>", '"', "<u>"} <= set(words(text))


def test_equal_input_gives_equal_text_without_ids_that_could_clash():
    series = [Series("a", [1, 2, 3], [0.1, 1 / 3, -0.0], band=([0, 0.2, -0.1], [0.2, 0.4, 0.1]))]
    assert drawn(series) == drawn(series)
    assert not re.search(r'\bid="', drawn(series)) and "-0 " not in drawn(series)


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (-0.001, "0"), (10.126, "10.13"), (2.5, "2.5"), (100, "100")])
def test_coordinates_are_short(value, text):
    assert number(value) == text


def test_a_higher_value_is_higher_up_and_ends_may_be_given():
    text = drawn([Series("a", [0, 10], [0.0, 1.0])], x=Axis("x", low=0, high=10), y=Axis("y", low=0, high=1))
    ((left, low), (right, high)) = paths(text, "c1")[0]
    assert (left, right) == (64, 720 - 18) and low > high
    assert {"0", "0.2", "0.4", "0.6", "0.8", "1", "2", "10"} <= set(words(text))


def test_a_log_axis_has_decades_in_equal_steps_and_leaves_out_what_has_no_logarithm():
    text = drawn([Series("a", [0, 1, 100, 10_000], [5, 1, 2, 3])], x=Axis("seconds", log=True))
    (points,) = paths(text, "c1")
    assert len(points) == 3 and points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.02)
    assert {"1", "10", "100", "1,000", "10,000"} <= set(words(text))


def test_a_line_is_broken_where_a_number_is_missing():
    text = drawn([Series("a", [0, 1, 2, 3, 4], [1, 2, math.nan, 2, 1])])
    assert [len(points) for points in paths(text, "c1")] == [2, 2]


@pytest.mark.parametrize(("kind", "corner"), [("pre", (0, 1)), ("post", (1, 0))])
def test_steps_hold_one_side(kind, corner):
    """By the two ends: x of one with y of the other."""
    start, middle, end = paths(drawn([Series("a", [0, 1], [0.2, 0.8], line=kind)]), "c1")[0]
    ends = (start, end)
    assert middle == (ends[corner[0]][0], ends[corner[1]][1])


def test_bands_and_bars_enclose_the_line():
    text = drawn([Series("a", [0, 1], [0.5, 0.5], band=([0.4, 0.4], [0.6, 0.6]), y_bars=([0.3, 0.3], [0.7, 0.7]))])
    band = next(e for e in parsed(text).iter(f"{SPACE}path") if e.get("fill-opacity"))
    heights = {float(p.split()[1]) for p in band.get("d")[1:-1].split("L")}
    line, *bars = paths(text, "c1")
    assert len(bars) == 2 and min(heights) < line[0][1] < max(heights)
    assert max(y for _, y in bars[0]) > max(heights) and min(y for _, y in bars[0]) < min(heights)


def test_what_lies_beyond_given_ends_is_cut_off():
    text = drawn(
        [Series("a", [0, 5], [0.5, 9], line="none", markers=True, labels=["in", "out"])], y=Axis("y", low=0, high=1)
    )
    assert "in" in words(text) and "out" not in words(text)
    assert len(list(parsed(text).iter(f"{SPACE}circle"))) == 1


def test_labels_do_not_cover_one_another():
    names = [f"augmenter {i}" for i in range(4)]
    text = drawn([Series("", [1, 1, 1.001, 1.001], [1, 1.001, 1, 1.001], line="none", markers=True, labels=names)],
                 x=Axis("x", low=0, high=2), y=Axis("y", low=0, high=2))  # fmt: skip
    places = [(e.get("x"), e.get("y")) for e in parsed(text).iter(f"{SPACE}text") if e.text in names]
    assert len(set(places)) == 4


def test_several_named_series_get_a_legend_with_its_own_space():
    one = drawn([Series("alone", [0, 1], [0, 1])])
    many = drawn([Series(f"a series with a long name {i}", [0, 1], [0, i]) for i in range(9)])
    assert "alone" not in words(one)
    assert all(f"a series with a long name {i}" in words(many) for i in range(9))
    assert float(parsed(many).get("viewBox").split()[3]) > 420


def test_colours_begin_again_and_follow_the_theme():
    text = drawn([Series(str(i), [0, 1], [0, i]) for i in range(9)])
    assert len(paths(text, "c1")) == 4 and len(PALETTE) == len(DARK) == 8  # two lines, two samples in the legend
    assert "prefers-color-scheme:dark" in STYLE and STYLE in text
    assert STYLE not in drawn([Series("a", [0, 1], [0, 1])], style=False)
    assert all(rule.startswith((".augbench-plot", '[data-theme="')) for rule in re.findall(r"(?:^|})([^{}@]+){", STYLE))


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="different lengths"):
        drawn([Series("a", [0, 1], [0])])
    with pytest.raises(ValueError, match="no finite value"):
        drawn([Series("a", [0, -1], [0, 1])], x=Axis("seconds", log=True))
    with pytest.raises(ValueError, match="not above its beginning"):
        drawn([Series("a", [0, 1], [0, 1])], y=Axis("y", low=1, high=1))


def test_one_point_has_a_place():
    assert "nan" not in drawn([Series("a", [3], [0], markers=True)])
    assert "nan" not in drawn([Series("a", [3], [2], markers=True)], x=Axis("x", log=True), y=Axis("y", log=True))


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (30, "30"), (12_000, "12,000"), (1e12, "1e+12"), (0, "0"), (1e-5, "1e-05")]
)
def test_ticks_are_plain_numbers(value, text):
    assert tick_text(value) == text


def test_a_drawing_of_pieces_is_whole():
    assert parsed(document([], "t", "d", 10, 20)).get("viewBox") == "0 0 10 20"


def test_thirty_two_series_look_different():
    assert len({(place % len(PALETTE), shape_of(place)) for place in range(32)}) == 32
