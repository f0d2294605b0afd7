"""Reports from small stores whose records are written by hand: what is printed, and what is never hidden."""

# ruff: noqa: RUF001 - the dash is what is printed

import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from boards import expect, expected_cell, put_record
from helpers import path_of
from rich.console import Console

from augbench.core.errors import UserError
from augbench.core.protocol import make_protocol
from augbench.core.specs import AugmenterSpec, Cell, DataSpec
from augbench.planning.grid import make_grid
from augbench.planning.outline import expected_of
from augbench.planning.plan import make_plan
from augbench.report import build_tables, expected_frame, load_expected, load_records, print_reports, report
from augbench.report.frame import CELL_FIELDS
from augbench.report.numbers import Stat, seconds_text, share, stat_of
from augbench.report.render import latex, markdown
from augbench.report.render.terminal import standard_output
from augbench.report.store_report import sections_of
from augbench.report.table_exports import to_csv

# In&Out (VISAPP 2024), Table 5: full-shot, N_aug 80, 100, 120: AP, precision, recall as mean and std of four seeds.
TABLE_5 = {
    80: ((0.747, 0.022), (0.764, 0.046), (0.734, 0.032)),
    100: ((0.775, 0.013), (0.868, 0.050), (0.720, 0.026)),
    120: ((0.782, 0.030), (0.906, 0.064), (0.689, 0.030)),
}
TABLE_5_AVERAGE = [".768 (.022)", ".846 (.053)", ".714 (.029)"]  # worked out by hand from the rows above


def protocol(name="inout", **fields):
    base = {"width": 200, "height": 600, "lr": 0.01, "batch": 5, "epochs": 50, "ap": "trapezoidal"}
    return make_protocol({"name": name, **base, **fields})


def cell(augmenter="memseg", n_aug=100, seed=0, shots="all", draw=None, fold=None, preset=None, settings=None):
    preset, settings = preset or protocol(), settings or {}
    data = DataSpec("ksdd2", "ksdd2", {}, "f" * 64, fold, preset.holdout)
    return Cell(data, AugmenterSpec(augmenter, augmenter, settings, settings), shots, draw, n_aug, seed, preset)


def metrics_at(precision, recall):
    return {"threshold": 0.0, "precision": precision, "recall": recall, "f1": 0.5, "accuracy": 0.9,
            "false_alarm_rate": 0.02}  # fmt: skip


def write(store, cell, ap=0.6, precision=0.7, recall=0.5, embedded=(), device="cpu one", sha="a" * 40, result=None):
    if result is None:
        heldout = metrics_at(0.8, 0.4) if cell.data.holdout else None
        curves = {"loss": [1.0], "test": []}
        result = {"ap": ap, "ap_step": ap / 2, "ap_trapezoidal": ap, "auroc": 0.9, "heldout": heldout,
                  "oracle": metrics_at(precision, recall), "counts": {}, "curves": curves}  # fmt: skip
    put_record(store, cell, result, embedded=embedded, device=device, git_sha=sha)


def write_all(store, cells):
    for one in cells:
        write(store, one)
    return cells


def tables_of(store, cells, task="detection"):
    expected = expected_frame([expected_cell(cell, task) for cell in cells])
    return build_tables(expected, load_records(store, expected["key"]))


def printed(*tables):
    console = Console(width=100, record=True, file=io.StringIO())
    print_reports({"g": (tables, [])}, console, verbose=True)
    return console.export_text()


def lines_of(tables):
    return list(csv.DictReader(io.StringIO(to_csv(tables))))


def to_markdown(name, tables):
    return markdown.to_markdown(name, sections_of(tables, "markdown"))


def to_latex(name, tables):
    return latex.to_latex(name, sections_of(tables, "latex"))


def everywhere(*tables):
    return printed(*tables), to_markdown("x", tables), to_latex("x", tables)


def texts(table, row):
    return [row.text(column) for column in table.columns]


def test_what_the_plan_expects_is_what_records_say(store):
    strict = {"name": "strict", "width": 64, "height": 176, "lr": 0.01, "batch": 5, "epochs": 1, "holdout": 0.1}
    plain = {**strict, "name": "plain", "holdout": 0}
    raw = {"name": "small", "datasets": ["surfaces"], "augmenters": ["none", "memseg"], "shots": [0, 5, "all"],
           "n_aug": [20, 40], "draws": [0, 1], "protocols": [strict, plain]}  # fmt: skip
    plan = make_plan(make_grid(raw))
    write_all(store, plan.cells)
    expected = expected_frame(expected_of(plan))[list(CELL_FIELDS)]
    found = load_records(store)[list(CELL_FIELDS)]
    assert len(found) == len(plan.cells) == 2 * (3 + 4 * 2)  # protocols; few-shot has two draws, and none no zero-shot
    pd.testing.assert_frame_equal(found, expected.sort_values("key", ignore_index=True))


# -- numbers


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [*((share, value, text) for value, text in (  # as the papers print them; KID may be negative or large
        (0.626, ".626"), (1.0, "1.000"), (0.0, ".000"), (0.9996, "1.000"), (0.0004, ".000"), (math.nan, "–"),
        (-0.004, "-.004"), (-0.0001, ".000"), (-1.5, "-1.500"), (10.1234, "10.123"), (0.0006, ".001"))),
     *((seconds_text, value, text) for value, text in (
        (0.00378, "0.0038"), (0.0280, "0.028"), (0.5, "0.50"), (1.24, "1.2"), (12.4, "12"), (345.4, "345"), (0.0, "0"),
        (math.nan, "–")))],
)  # fmt: skip
def test_numbers_are_formatted(function, value, text):
    assert function(value) == text


def test_mean_and_sample_std():
    assert stat_of([0.2, 0.4, 0.9]) == Stat(0.5, pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 2)), 3)
    assert stat_of([0.626]).text == ".626 (–)"
    assert stat_of([1.0, 1.0]).text == "1.000 (.000)"
    assert stat_of([]).text == "–"


def test_average_rows_are_those_of_the_paper(store):
    cells = []
    for n_aug, stats in TABLE_5.items():
        for seed, side in enumerate((-1, 1)):  # two numbers with that mean and that sample std
            cells.append(cell("inout", n_aug, seed))
            write(store, cells[-1], *(mean + side * std / math.sqrt(2) for mean, std in stats))
    (table,) = tables_of(store, cells)
    assert [texts(table, row)[1] for row in table.rows] == ["80", "100", "120", "Average"]
    assert texts(table, table.rows[1])[2:] == [".775 (.013)", ".868 (.050)", ".720 (.026)", "2"]
    assert texts(table, table.rows[-1])[2:-1] == TABLE_5_AVERAGE


# -- what is missing is marked


def test_incomplete_rows_are_marked_and_missing_rows_appear(store):
    cells = [cell(n_aug=n, seed=seed) for n in (80, 100, 120) for seed in range(4)]
    write_all(store, cells[:7])  # all of 80, three of four of 100, none of 120
    (table,) = tables_of(store, cells)
    assert [row.incomplete for row in table.rows] == [False, True, True, True]
    assert [row.text(table.columns[-1]) for row in table.rows] == ["4", "3/4 *", "0/4 *", "*"]
    assert texts(table, table.rows[2])[2:] == ["–", "–", "–", "0/4 *"]
    assert "* incomplete: 7 of 12 cells" in table.notes


def test_rows_keep_the_order_of_the_grid_with_none_first(store):
    cells = [cell("zebra", 120), cell("zebra", 80), cell("none", 0), cell("ant", 100)]
    write(store, cells[0])
    (table,) = tables_of(store, cells)
    assert [(row.augmenter, row.n_aug) for row in table.rows] == [
        ("none", 0), ("zebra", 120), ("zebra", 80), ("zebra", None), ("ant", 100)]  # fmt: skip
    assert [row.is_average for row in table.rows] == [False, False, False, True, False]  # one N_aug needs no average


def test_the_best_of_the_complete_rows_is_marked(store):
    cells = [cell("memseg", n, seed) for n in (80, 100, 120) for seed in (0, 1)]
    for one, ap in zip(cells, (0.5, 0.6, 0.6, 0.7, 0.9), strict=False):
        write(store, one, ap)
    (table,) = tables_of(store, cells)
    assert [row.best for row in table.rows] == [False, True, False, False]  # 120 is better, but not complete
    assert r"\textbf{.650 (.071)}" in to_latex("x", [table])
    assert "**.650 (.071)**" in to_markdown("x", [table])


# -- tables, headings and captions


def test_one_table_per_protocol_folds_and_shots_in_order(store):
    strict = protocol("strict", ap="step", holdout=0.1)
    cells = [cell(shots=shots, draw=draw, preset=preset)
             for preset in (protocol(), strict) for shots, draw in (("all", None), (0, None), (5, 0))]  # fmt: skip
    tables = tables_of(store, write_all(store, cells))
    assert [(table.protocol, table.shots) for table in tables] == [
        ("inout", 0), ("inout", 5), ("inout", "all"), ("strict", 0), ("strict", 5), ("strict", "all")]  # fmt: skip
    assert [column.group for column in tables[0].columns[2:-1]] == [
        "trapezoidal", *["at best F1 on test (oracle)"] * 2]  # fmt: skip
    assert [column.group for column in tables[3].columns[2:-1]] == [
        "step-wise", *["at best F1 on test (oracle)"] * 2, *["at held-out threshold"] * 2]  # fmt: skip
    assert texts(tables[3], tables[3].rows[0])[5:7] == [".400 (–)", ".020 (–)"]
    assert any("at most 1 % on the held-out normal" in note for note in tables[3].notes)
    assert tables[4].title == "ksdd2, few-shot (5 real defects), protocol strict"


def test_a_run_is_the_average_of_its_folds_and_draws_are_pooled(store):
    axes = [(draw, fold, seed) for draw in (0, 1) for fold in (0, 1, 2) for seed in (0, 1)]
    cells = [cell(shots=5, draw=draw, fold=fold, seed=seed) for draw, fold, seed in axes]
    for (draw, fold, seed), one in zip(axes, cells, strict=True):
        write(store, one, ap=(4 * draw + 2 * seed + fold) / 10)
    (table,) = tables_of(store, cells)
    assert table.captions[0].endswith(
        "over 2 seeds x 2 draws of the shots, pooled; the number of a run is its average over 3 folds."
    )
    assert table.columns[-1].title == "runs" and texts(table, table.rows[0])[-1] == "4"
    assert table.rows[0].stats["ap"].text == stat_of([0.1, 0.3, 0.5, 0.7]).text == ".400 (.258)"
    assert table.title.endswith("folds 0-2") and (table.rows[0].found, table.rows[0].runs) == (12, 4)


def test_a_run_that_lacks_folds_is_named_and_in_no_number(store):
    cells = [cell(fold=fold, seed=seed) for seed in (0, 1, 2, 3) for fold in (0, 1, 2)]
    for one in cells[:10]:
        write(store, one, ap=[0.2, 0.4, 0.6, 1.0][one.seed])
    (table,) = tables_of(store, cells)
    (row,) = table.rows
    assert table.columns[-1].title == "seeds" and texts(table, row)[2] == ".400 (.200)"
    assert texts(table, row)[-1] == "3/4 *" and (row.found, row.expected) == (10, 12)
    note = "in no number, as folds are missing: 'memseg, N_aug 100, seed 3 (without folds 1-2)'."
    assert note in " ".join(printed(table).split()) and note in to_markdown("x", [table]).replace("\\", "")
    (line,) = lines_of([table])
    assert (line["found"], line["expected"], line["runs"], line["expected_runs"]) == ("10", "12", "3", "4")


def test_embedded_parts_devices_and_commits_are_named(store):
    cells = [cell(seed=0), cell(seed=1), cell(shots=5, draw=0)]
    write(store, cells[0], embedded=["dataset surfaces"], device="NVIDIA H200")
    write(store, cells[1], sha="b" * 40 + "-dirty")
    write(store, cells[2])
    few, full = tables_of(store, cells)
    assert full.label == "smoke-test parts: not evidence (dataset surfaces)"
    assert few.label == ""
    assert "Records come from different devices: NVIDIA H200 (1 cell), cpu one (1 cell)." in full.captions
    assert "Made at git aaaaaaaaaaaa, bbbbbbbbbbbb-dirty." in full.captions
    assert not any("device" in sentence for sentence in few.captions)
    assert all(full.label in text for text in everywhere(few, full))


def test_recognition_has_its_own_columns(store):
    cells = [cell(seed=seed) for seed in (0, 1)]
    for one, accuracy in zip(cells, (0.8, 0.9), strict=True):
        write(store, one, result={"accuracy": accuracy, "macro_f1": 1.0, "confusion": [[1]], "classes": ["a"]})
    (table,) = tables_of(store, cells, task="recognition")
    assert [column.key for column in table.columns] == ["augmenter", "n_aug", "accuracy", "macro_f1", "runs"]
    assert texts(table, table.rows[0])[2:] == [".850 (.071)", "1.000 (.000)", "2"]
    assert load_records(store)["ap"].isna().all()


def test_the_terminal_table_fits_100_columns(store):
    preset = protocol(holdout=0.1)
    cells = [cell("a_rather_long_name_for_it", n, seed, preset=preset) for n in (80, 100) for seed in range(4)]
    write(store, cells[0])
    text = printed(*tables_of(store, cells))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert ".600 (–)" in text and "1/4 *" in text and "FPR" in text


# -- files


def test_csv_numbers_come_back_exactly(store):
    cells = [cell(n_aug=n, seed=seed) for n in (80, 100) for seed in range(3)]
    for place, one in enumerate(cells[:5]):
        write(store, one, ap=1 / (place + 3))
    tables = tables_of(store, cells)
    lines = lines_of(tables)
    assert len(lines) == len(tables[0].rows) == 3
    for line, row in zip(lines, tables[0].rows, strict=True):
        assert float(line["ap_mean"]) == row.stats["ap"].mean
        assert float(line["ap_std"]) == row.stats["ap"].std
        assert (int(line["found"]), int(line["expected"])) == (row.found, row.expected)
        assert line["heldout_recall_mean"] == line["accuracy_mean"] == ""
    assert [line["row"] for line in lines] == ["cells", "cells", "average"]


def written(*arguments, **options):
    return [Path(file) for file in report(*arguments, **options)]


def test_a_grid_is_reported_in_four_files_with_equal_bytes_each_time(store, tmp_path):
    cells = [cell(seed=seed, shots=shots, draw=draw) for seed in range(2) for shots, draw in (("all", None), (5, 1))]
    expect(store, "small", cells)
    write_all(store, cells[:3])
    files = written(store, "small")
    assert [file.name for file in files] == ["report.md", "report.tex", "report.csv", "report.json"]
    assert files[0].parent == store.files.folder / "reports" / "small"
    again = written(store, None, out=tmp_path / "elsewhere")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    content = json.loads(files[3].read_text())
    assert [table["shots"] for table in content["tables"]] == [5, "all"]
    assert content["tables"][0]["rows"][0]["metrics"]["ap"] == {"mean": 0.6, "std": None, "n": 1}
    assert content["tables"][0]["notes"][0] == "* incomplete: 1 of 2 cells"


def test_a_planned_grid_needs_no_file_about_it(store):
    cells = [cell(seed=0), cell(seed=1)]
    write(store, cells[0])
    files = written(store, "planned", expected=[expected_cell(cell) for cell in cells])
    assert "1/2 \\*" in files[0].read_text()
    with pytest.raises(UserError, match="no record of grid 'planned'"):
        report(store, "planned", expected=[expected_cell(cells[1])])


def test_a_pipe_gets_the_full_width_unless_columns_says_how_wide_it_is(store, monkeypatch, capsys):
    preset = protocol(holdout=0.1)
    write(store, cell("a_rather_long_name", preset=preset))
    tables = tables_of(store, [cell("a_rather_long_name", preset=preset)])
    for columns, widest in ((None, 100), ("80", 80)):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        print_reports({"g": (tables, [])}, standard_output(), verbose=True)
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) == widest
    monkeypatch.delenv("COLUMNS")
    print_reports({"g": (tables, [])}, standard_output(), verbose=True)
    assert "a_rather_long_name  100 " in capsys.readouterr().out


def test_several_grids_are_reported_each(store, tmp_path):
    for n, name in ((80, "one"), (100, "two"), (120, "no_record")):
        expect(store, name, [cell(n_aug=n)])
        if name != "no_record":
            write(store, cell(n_aug=n))
    files = written(store, out=tmp_path / "out")
    assert [file.parent.name for file in files[::4]] == ["one", "two"]
    with pytest.raises(UserError, match=r"no record of grid 'no_record'.*augbench run"):
        report(store, "no_record")


def test_without_a_grid_all_records_are_reported(store):
    write_all(store, [cell("memseg", n) for n in (100, 80)])
    files = written(store)
    assert files[0].parent.name == "all"
    rows = pd.read_csv(files[2])
    assert rows["n_aug"].tolist()[:2] == [80, 100]


def test_without_a_grid_one_name_for_two_settings_is_not_averaged(store):
    write(store, cell(settings={"opacity": 1}), ap=0.2)
    write(store, cell(settings={"opacity": 2}), ap=0.8)
    rows = pd.read_csv(written(store)[2])
    assert sorted(rows["ap_mean"]) == [0.2, 0.8]
    assert rows["augmenter"].str.match(r"memseg #[0-9a-f]{6}$").all()


# -- what a user can get wrong


def test_no_store_or_an_empty_one_says_the_way_out(store):
    with pytest.raises(UserError, match="does not exist or holds no records: run a grid first: augbench run"):
        report(store)
    store.files.folder.mkdir()
    with pytest.raises(UserError, match="holds no records: run a grid first: augbench run"):
        report(store)
    write(store, cell())
    expect(store, "small", [cell()])
    with pytest.raises(UserError, match="did you mean 'small'"):
        load_expected(store, "smal")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": "other"}'])
def test_a_damaged_record_is_named(store, damage):
    write(store, cell())
    path_of(store, "cells", cell().key).write_text(damage)
    with pytest.raises(UserError, match=f"{cell().key}.json"):
        report(store)


def test_a_record_without_its_numbers_is_named(store):
    write(store, cell(), result={"ap": 0.5})
    with pytest.raises(UserError, match=rf"{cell().key}.json' is damaged \(KeyError: 'ap_step'\)"):
        report(store)


def test_it_works_without_heavy_libraries(store):
    """Also beside a paper's table."""
    expect(store, "small", [cell(), cell(seed=1)])
    write(store, cell())
    code = f"""
import sys
sys.modules |= dict.fromkeys(("torch", "ray", "scipy", "sklearn", "diffusers"))  # importing them now fails
import augbench.report
from augbench.report.papers.layout_report import report_layout
from augbench.storage.store import Store
assert augbench.report.report(Store({store.url!r}), "small")
assert report_layout(Store({store.url!r}), "inout_table5")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (store.files.folder / "reports" / "small" / "report.md").is_file()
