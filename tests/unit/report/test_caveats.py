"""Caveats stand at the numbers: collapsed runs, few runs, few test items; in tables, comparisons, pages and files."""

import base64
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from boards import cell, expect, grid_cells, write
from helpers import path_of

from augbench.metrics.evaluate import evaluate
from augbench.report.evidence.build import build_evidence
from augbench.report.evidence.comparison_report import compare
from augbench.report.evidence.sheets import section_of, sentences_of
from augbench.report.frame import expected_from_records, load_records
from augbench.report.leaderboard.write_page import write_leaderboard
from augbench.report.store_report import report


def collapse(store, one, value=0.0):
    """Give all images of a cell one score, in its scores and in its record."""
    path = path_of(store, "scores", one.key)
    scores = pd.read_parquet(path).assign(logit=pd.Series(value, range(62), dtype="float32"))
    scores.to_parquet(path, index=False)
    record = store.read_record(one.key)
    record["result"] |= evaluate(scores, one.protocol)
    store.write_json("cells", one.key, record)


@pytest.fixture
def made(store):
    cells = grid_cells()
    for one in cells:
        write(store, one)
    dead = next(one for one in cells if one.augmenter.alias == "memseg" and one.n_aug == 80 and one.seed == 1)
    collapse(store, dead)
    expect(store, "grid", cells)
    return store


def read(files, ending):
    return next(Path(file).read_text() for file in files if file.endswith(ending))


def test_a_collapsed_run_is_found_from_the_scores_of_its_record(made):
    found = load_records(made)
    assert found.set_index("key")["collapsed"].sum() == 1 and set(found["items"]) == {12}
    path_of(made, "scores", found["key"][0]).unlink()
    path_of(made, "scores", found["key"][1]).write_bytes(b"PAR1 damaged")
    again = load_records(made)
    assert again["collapsed"].isna().tolist()[:3] == [True, True, False], "unknown, and no reason to fail"


def test_tables_mark_every_number_of_a_collapsed_run_and_name_it(made):
    files = report(made, "grid")
    markdown, latex, lines = read(files, ".md"), read(files, ".tex"), pd.read_csv(files[2])
    (table,) = json.loads(read(files, ".json"))["tables"]
    rows = {(row["augmenter"], row["n_aug"]): row for row in table["rows"]}
    for name, row in rows.items():
        metrics = [text for key, text in row["text"].items() if key not in ("augmenter", "n_aug", "runs")]
        is_marked = name in (("memseg", 80), ("memseg", None))
        assert all(text.endswith(" !") is is_marked for text in metrics), name
        assert row["collapsed"] == is_marked and any("collapsed" in text for text in row["caveats"]) is is_marked
        assert "12 test items of a kind" in row["caveats"]
    assert rows["memseg", 80]["collapsed_runs"] == ["memseg, N_aug 80, seed 1"]
    note = "! 1 of 15 runs has collapsed: more than half of the test images have the same score"
    assert note in markdown and note in latex and "'memseg, N\\_aug 80, seed 1'" in markdown
    assert "Only 12 test items of one kind (normal or defect) in a fold" in markdown
    cells = lines[lines["row"] == "cells"].set_index(["augmenter", "n_aug"])
    assert cells["collapsed"].to_dict()["memseg", 80] == 1 and cells["collapsed"].sum() == 1
    assert cells["caveats"].to_dict()["memseg", 80] == "1 of 3 runs collapsed; 12 test items of a kind"


def test_a_row_with_collapsed_runs_is_not_the_best(store):
    cells = [cell("none", 0, seed) for seed in range(3)] + [cell("memseg", 40, seed) for seed in range(3)]
    for one in cells:
        write(store, one)
    expect(store, "grid", cells)
    best = {row["augmenter"]: row["best"] for row in json.loads(read(report(store), ".json"))["tables"][0]["rows"]}
    assert best == {"none": False, "memseg": True}
    collapse(store, cells[3])
    best = {row["augmenter"]: row["best"] for row in json.loads(read(report(store), ".json"))["tables"][0]["rows"]}
    assert best == {"none": True, "memseg": False}


def test_comparisons_say_which_verdicts_rest_on_collapsed_runs(made):
    files = compare(made, "grid", resamples=300)
    (table,) = json.loads(read(files, ".json"))["tables"]
    for one in (*table["against"], *table["pairs"]):
        sides = (one["augmenter"], one["n_aug"]), (one["versus"], one["versus_n_aug"])
        assert one["collapsed"] == (("memseg", 80) in sides)
    markdown = read(files, ".md")
    rows = [line for line in markdown.splitlines() if line.startswith("| memseg | 80 |")]
    assert all(" ! |" in line for line in rows) and rows
    assert "1 of 15 runs has collapsed" in markdown and "rests on runs that have collapsed" in markdown
    assert pd.read_csv(next(file for file in files if file.endswith(".csv")))["collapsed"].sum() == 1 + 2


def test_the_finding_of_a_null_rests_on_the_collapsed_runs_of_the_baseline_and_the_null(made):
    records = load_records(made)
    expected = expected_from_records(records)
    expected["null"] = expected["augmenter"].map({"ddpm": "memseg"})
    (one,) = build_evidence(made, expected, records, resamples=200)
    (sheet,) = (sheet for sheet in section_of(one).sheets if str(sheet.title).startswith("Artefacts"))
    few, many = (dict(zip((column.key for column in sheet.columns), row.texts, strict=True)) for row in sheet.rows)
    assert not any("!" in text for text in few.values())
    marked = {name for name, text in many.items() if text.endswith(" !")}
    assert marked == {"null_gain", "over", "interval", "finding"}, "not the gain, whose runs are sound"
    sentences = [text for text in sentences_of(one) if text.startswith("ddpm")]
    assert ["! (memseg)" in text for text in sentences] == [False, True]


def test_the_page_marks_collapsed_runs_too(made, tmp_path):
    page, markdown = (path.read_text() for path in write_leaderboard([made], tmp_path / "page", say=lambda line: None))
    for text in (page, markdown):
        assert "1 of 15 runs has collapsed" in text and "rests on collapsed runs !" in text
        assert "12 test items of one kind" in text and "settings have fewer than 20 test items" in text
    row = next(line for line in markdown.splitlines() if line.startswith("| memseg | 80 |"))
    assert row.count(" !") >= 5
    assert "seed 1 ! collapsed" in page
    plots = [base64.b64decode(text).decode() for text in re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", page)]
    assert len(plots) >= 4 and all("! rests on collapsed runs: memseg 80." in plot for plot in plots)
    assert all(plot.count(">! rests on collapsed runs<") == 1 for plot in plots), "in the legend"
    assert sum(">!<" in plot for plot in plots) == 3 and any(">memseg, 80 !<" in plot for plot in plots)


def test_few_runs_are_noted_and_enough_are_not(store):
    cells = [cell("none", 0, seed) for seed in range(3)] + [cell("memseg", 40, seed) for seed in range(2)]
    for one in cells:
        write(store, one)
    expect(store, "grid", cells)
    files = report(store)
    assert "1 of 2 rows have fewer than 3 runs: too few to say" in read(files, ".md")
    lines = pd.read_csv(files[2]).query("row == 'cells'")
    assert dict(zip(lines["augmenter"], lines["caveats"], strict=True)) == {
        "none": "12 test items of a kind",
        "memseg": "2 runs: too few to say; 12 test items of a kind",
    }
    write(store, cell("memseg", 40, 2))
    expect(store, "grid", [*cells, cell("memseg", 40, 2)])
    assert "too few to say" not in read(report(store), ".md")
