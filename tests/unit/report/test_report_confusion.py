"""Reports: confusion matrices under tables of recognition, from matrices written by hand."""

# ruff: noqa: RUF001 - the dash is what is printed

import io
import json
import re
import warnings

import pandas as pd
import pytest
from test_report import cell, everywhere, printed, tables_of, to_markdown, write

from augbench.report.confusion import MATRICES
from augbench.report.table_exports import to_csv, to_json

NEU = ["crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"]


def result(matrix, classes=("b", "a"), accuracy=0.8):
    return {"accuracy": accuracy, "macro_f1": 0.7, "confusion": matrix, "classes": list(classes)}


def identity(number):
    return [[int(true == predicted) for predicted in range(number)] for true in range(number)]


def recognised(store, cells, results):
    """The table of these cells, of which the first so many have these results."""
    for one, found in zip(cells, results, strict=False):
        write(store, one, result=found)
    (table,) = tables_of(store, cells, task="recognition")
    return table


def csv_of(table):
    return pd.read_csv(io.StringIO(to_csv([table])), keep_default_na=False, na_values=[""])


def rows_of(table):
    return json.loads(to_json("x", [table]))["tables"][0]["rows"]


def two_runs(store):
    """Shares of b: 3/4 and 1/2 right; of a: 1 and 4/5. Not those of the summed matrices, 5/8 and 8/9."""
    return recognised(store, [cell(seed=seed) for seed in (0, 1)], [result([[3, 1], [0, 4]]), result([[2, 2], [1, 4]])])


# -- numbers


def test_shares_are_of_each_run_and_then_averaged(store):
    (row,) = rows_of(two_runs(store))
    assert row["confusion"] == {"classes": ["b", "a"], "matrix": [[5, 3], [1, 8]]}
    assert row["confusion_mean"]["classes"] == row["confusion_std"]["classes"] == ["b", "a"]  # as records order them
    assert row["confusion_mean"]["matrix"] == [[0.625, 0.375], [0.1, 0.9]]
    stds = [[0.25 / 2**0.5] * 2, [0.2 / 2**0.5] * 2]  # of two numbers: their distance over the root of two
    assert row["confusion_std"]["matrix"] == [pytest.approx(line) for line in stds]


def test_every_renderer_has_the_same_numbers_in_the_order_of_the_classes(store):
    table = two_runs(store)
    terminal, markdown, latex = everywhere(table)
    assert re.search(r"true *\nclass +b +a *\n─+ *\nb +\.625 +\.375 *\na +\.100 +\.900", terminal)
    assert "| true class | b | a |\n| :--- | ---: | ---: |\n| b | .625 (.177) | .375 (.177) |" in markdown
    assert "true class & b & a \\\\\n\\midrule\nb & .625 (.177) & .375 (.177) \\\\\n" in latex
    lines = csv_of(table).query("row == 'confusion'")
    assert list(zip(lines["class"], lines["predicted"], lines["share_mean"], strict=True)) == [
        ("b", "b", 0.625), ("b", "a", 0.375), ("a", "b", 0.1), ("a", "a", 0.9)]  # fmt: skip
    matrix = lines.pivot(index="class", columns="predicted", values="share_mean")
    assert matrix.loc["a", "b"] == 0.1 and matrix.loc["b", "a"] == 0.375


def test_a_class_without_test_images_has_no_shares(store):
    cells = [cell(seed=seed) for seed in (0, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = recognised(store, cells, [result([[3, 1], [0, 0]]), result([[1, 1], [3, 1]])])
        (row,) = rows_of(table)
        assert row["confusion_mean"]["matrix"] == [[0.625, 0.375], [0.75, 0.25]]  # of a: of the second run alone
        assert row["confusion_std"]["matrix"][1] == [None, None]
        table = recognised(store, cells, [result([[3, 1], [0, 0]]), result([[1, 1], [0, 0]])])
        (row,) = rows_of(table)
    assert row["confusion_mean"]["matrix"][1] == [None, None] and row["confusion"]["matrix"][1] == [0, 0]
    _, markdown, latex = everywhere(table)
    assert "| a | – | – |" in markdown and "a & -- & -- \\\\" in latex
    note = "A run without test images of a class"
    assert all(note in text for text in everywhere(table))
    assert note not in to_markdown("x", [two_runs(store)])
    lines = csv_of(table).query("row == 'confusion'")
    assert lines["share_mean"].isna().tolist() == [False, False, True, True]


def test_runs_that_order_or_know_classes_otherwise_are_matched_by_name(store):
    """A fold may have no normal images, so that the classifier has no such output."""
    cells = [cell(seed=seed) for seed in (0, 1)]
    found = [result([[4, 0], [1, 3]], ("b", "a")), result([[2, 0, 0], [1, 1, 0], [0, 2, 2]], ("good", "a", "b"))]
    (row,) = rows_of(recognised(store, cells, found))
    assert row["confusion"] == {"classes": ["b", "a", "good"], "matrix": [[6, 2, 0], [1, 4, 1], [0, 0, 2]]}
    assert row["confusion_mean"]["matrix"] == [[0.75, 0.25, 0.0], [0.125, 0.625, 0.25], [0.0, 0.0, 1.0]]


# -- which rows


def several(store, accuracies, runs=2):
    """none, memseg with two N_aug, and ant; each cell in turn has an accuracy and a share of b of a tenth of it."""
    cells = [cell(name, n, seed) for name, n in (("none", 0), ("memseg", 80), ("memseg", 100), ("ant", 80))
             for seed in range(runs)]  # fmt: skip
    shares = [round(100 * accuracy) for accuracy in accuracies]
    return recognised(store, cells, [result([[n, 100 - n], [0, 1]], accuracy=n / 100) for n in shares])


def test_files_have_all_rows_and_terminal_and_latex_the_best_and_the_one_without_images(store):
    table = several(store, [0.5, 0.5, 0.6, 0.6, 0.9, 0.9, 0.7])
    names = ["none, N_aug 0 (no synthetic images)", "memseg, N_aug 80", "memseg, N_aug 100 (best accuracy)",
             "ant, N_aug 80 (incomplete: 1 of 2 runs)"]  # fmt: skip
    text, markdown, latex = everywhere(table)
    assert re.findall("<summary>(.*)</summary>", markdown) == names
    for place, name in enumerate(names):
        assert (name in text) == (place in (0, 2))
        assert (f"Confusion matrices: {name.replace('_', chr(92) + '_')}. Shares" in latex) == (place in (0, 2))
    assert latex.count(r"\begin{table}") == 3 and "all rows, with standard deviations, are in report.md" in text
    rows = rows_of(table)
    assert [row["n_aug"] for row in rows if row["confusion_mean"]] == [0, 80, 100, 80]  # of the average: none
    lines = csv_of(table)
    assert lines["row"].value_counts()["confusion"] == 16
    assert lines["row"].tolist()[:6] == ["cells", *["confusion"] * 4, "cells"]
    assert lines.query("row == 'confusion'")["found"].unique().tolist() == [2, 1]


@pytest.mark.parametrize(
    ("accuracies", "chosen"),
    [([0.9, 0.9, 0.6, 0.6, 0.5, 0.5], ["none, N_aug 0 (best accuracy; no synthetic images)"]),
     ([0.9, 0.9, 0.6, 0.6, 0.9, 0.9],  # a tie: the row with synthetic images is the other one to print
      ["none, N_aug 0 (best accuracy; no synthetic images)", "memseg, N_aug 100 (best accuracy)"]),
     ([0.5, 0.5, 0.9], ["none, N_aug 0 (no synthetic images)"]),  # nothing is best where one row is complete
     ([0.5], ["none, N_aug 0 (no synthetic images; incomplete: 1 of 2 runs)"])],
)  # fmt: skip
def test_which_are_chosen(store, accuracies, chosen):
    assert [one.name for one in several(store, accuracies).confusions if one.is_chosen] == chosen


def test_without_a_row_of_no_images_the_best_is_alone(store):
    table = recognised(store, [cell("memseg"), cell("ant")], [result(identity(2)), result(identity(2), accuracy=0.9)])
    assert [one.name for one in table.confusions if one.is_chosen] == ["ant, N_aug 100 (best accuracy)"]


def test_rows_without_records_have_none(store):
    cells = [cell("memseg", seed=0), cell("ant", seed=0)]
    table = recognised(store, cells, [result(identity(2))])
    assert [one.name for one in table.confusions] == ["memseg, N_aug 100"]
    assert rows_of(table)[1]["confusion"] is rows_of(table)[1]["confusion_std"] is None


def test_nothing_is_printed_in_detection_and_without_records(store):
    one = cell()
    (empty,) = tables_of(store, [one], task="recognition")
    write(store, one)
    (detection,) = tables_of(store, [one])
    for table in (empty, detection):
        words = "".join(everywhere(table))
        assert "onfusion" not in words and "<details>" not in words
        (row,) = rows_of(table)
        assert row["confusion"] is row["confusion_mean"] is row["confusion_std"] is None
        lines = csv_of(table)
        assert list(lines)[-3:] == ["predicted", "share_mean", "share_std"] and lines["predicted"].isna().all()


# -- renderers


def test_six_long_names_fit_the_terminal_as_headings(store):
    text = printed(recognised(store, [cell()], [result(identity(6), NEU)]))
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    (heading,) = [line for line in text.splitlines() if line.startswith("true class")]
    assert heading.split() == ["true", "class", *NEU]
    assert re.search(r"pitted_surface( +\.000){3} +1\.000( +\.000){2} *\n", text)
    assert "(–)" not in text.split(MATRICES)[1]


def test_names_too_long_for_headings_are_numbered(store):
    names = [f"a_rather_long_name_of_a_class_{place}" for place in range(12)]
    text = printed(recognised(store, [cell()], [result(identity(12), names)]))
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    (heading,) = [line for line in text.splitlines() if line.startswith("true class")]
    assert heading.split() == ["true", "class", *map(str, range(1, 13))]
    last = re.search(r"\n12 ( +\.000){11} 1\.000 *\n(\S+) *\n(\S+) *\n", text)
    assert last is not None and last[2] + last[3] == names[11]


def test_too_many_classes_for_the_terminal_are_in_files(store):
    names = [f"class_{place}" for place in range(13)]
    table = recognised(store, [cell()], [result(identity(13), names)])
    text = printed(table)
    assert "Those of all rows, whose classes are too many for the terminal, are in report.md." in text
    assert "class_0" not in text and "Shares" not in text and "class\\_12" in to_markdown("x", [table])


def test_the_label_is_on_every_float_and_section(store):
    one = cell()
    write(store, one, result=result(identity(2)), embedded=["dataset surfaces"])
    (table,) = tables_of(store, [one], task="recognition")
    label = "smoke-test parts: not evidence (dataset surfaces)"
    assert [words.count(label) for words in everywhere(table)] == [2, 2, 2]
