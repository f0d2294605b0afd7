"""What a terminal prints at first look: a sentence above each table, the columns that fit, each legend once."""

import io
from collections import Counter
from dataclasses import replace

import pytest
from boards import cell, expect, grid_cells, protocol_of, write
from rich.console import Console

from augbench.core.errors import UserError
from augbench.metrics.inference import Verdict
from augbench.metrics.resampling import Interval
from augbench.report.evidence.build import Comparison, build_evidence
from augbench.report.evidence.comparison_report import compare
from augbench.report.evidence.sheets import lead_of
from augbench.report.frame import load_expected, load_records
from augbench.report.references import REFERENCE
from augbench.report.render.terminal import to_brief
from augbench.report.sheet import Column, Detail, Legend, Section, Sheet, SheetRow
from augbench.report.store_report import report
from augbench.storage.store import Store


@pytest.fixture
def store(tmp_path):
    """Two tables of detection, of three seeds each."""
    store = Store(tmp_path / "s")
    cells = [one for shots in (5, "all") for one in grid_cells(shots=shots)]
    for one in cells:
        write(store, one, notes=["ddpm: regions are drawn"] if one.augmenter.alias == "ddpm" else [])
    expect(store, "g", cells)
    return store


def printed(command, store, width=80, **options):
    console = Console(width=width, record=True, file=io.StringIO())
    command(store, "g", console=console, **options)
    return console.export_text()


def sentence(text):
    return " ".join(text.split())


def evidence(store):
    return build_evidence(store, load_expected(store, "g"), load_records(store), resamples=200)


# -- leads


def compared(name, estimate, low, high, verdict, collapsed=0, n_aug=40):
    together = Interval(estimate, low, high, {}, 3)
    return Comparison(name, n_aug, "none", 0, together, together, verdict, 3, float("nan"), collapsed=collapsed)


BETTER = compared("memseg", 0.05, 0.01, 0.09, Verdict.BETTER)
NONE = compared("ddpm", 0.01, -0.0912, 0.08, Verdict.NONE)
WORSE = compared("cutpaste", -0.05, -0.09, -0.01, Verdict.WORSE)
FEW = compared("diag", 0.3, 0.1, 0.5, Verdict.TOO_FEW)


@pytest.mark.parametrize(
    ("against", "text"),
    [
        (
            [BETTER, replace(BETTER, n_aug=80, together=Interval(0.07, 0.02, 0.12, {}, 3)), NONE],
            "Shown to improve AP over none: memseg (N_aug 80) by +.070 (95 % interval +.020 to +.120); of 3 rows 2 are "
            "better, 1 has no detectable difference (intervals reach at most ±.091).",
        ),
        (
            [NONE, NONE],
            "No augmenter is shown to improve AP over none; of 2 rows 2 have no detectable difference (intervals reach "
            "at most ±.091).",
        ),
        (
            [NONE, WORSE, FEW, replace(BETTER, collapsed=1)],
            "No augmenter is shown to improve AP over none; of 4 rows 1 has no detectable difference (intervals reach "
            "at most ±.091), 1 is worse, 1 has too few runs to say, 1 rests on collapsed runs.",
        ),
        ([FEW, FEW], "Too few runs to say whether an augmenter improves AP over none (2 rows)."),
        ([replace(BETTER, augmenter=REFERENCE), WORSE],
         "No augmenter is shown to improve AP over none; of 1 row 1 is worse."),
    ],
)  # fmt: skip
def test_a_lead_says_what_the_verdicts_say(store, against, text):
    assert lead_of(replace(evidence(store)[0], against=against, checks=[])) == text


def test_a_lead_names_the_best_row_of_three_augmenters(store):
    better = [replace(BETTER, augmenter=name, together=Interval(gain, 0.01, 0.9, {}, 3))
              for name, gain in (("a", 0.1), ("b", 0.4), ("c", 0.2), ("d", 0.3), ("e", 0.05))]  # fmt: skip
    lead = lead_of(replace(evidence(store)[0], against=better, checks=[]))
    assert [lead.find(f"{name} (N_aug") for name in "bdc"] == sorted(lead.find(f"{name} (N_aug") for name in "bdc")
    assert "a (N_aug" not in lead and ", 2 more; of 5 rows 5 are better." in lead


@pytest.mark.parametrize("command", [report, compare])
def test_each_table_stands_under_the_lead_that_its_evidence_gives(store, command):
    found = build_evidence(store, load_expected(store, "g"), load_records(store))
    for verbose in (False, True):
        text = sentence(printed(command, store, verbose=verbose))
        for one in found:
            assert f"{one.table.title} {lead_of(one)}" in text
    assert len({lead_of(one) for one in found}) == 2  # so that each is that of its table


def test_a_report_of_many_cells_says_where_differences_are_told(store, monkeypatch):
    monkeypatch.setattr("augbench.report.store_report.FEW_CELLS", 29)  # of 30
    text = sentence(printed(report, store))
    assert "Shown to improve" not in text and "see augbench compare, or --verdicts" in text
    asked = sentence(printed(report, store, verdicts=True))
    assert "Shown to improve AP over none: " in asked and "see augbench compare, or" not in asked


def test_a_report_without_scores_has_its_tables_and_says_why_nothing_more(store):
    key = sorted(store.keys("cells"))[0]
    (store.files.folder / store.name("scores", key)).unlink()
    assert "No differences: scores '" in (text := sentence(printed(report, store))) and "memseg 40" in text
    with pytest.raises(UserError, match="are missing"):
        printed(report, store, verdicts=True)


def test_files_have_no_lead(store, tmp_path):
    alone = report(store, "g", out=tmp_path / "a")
    printed(report, store, out=tmp_path / "b")
    for path in alone:
        name = path.rpartition("/")[2]
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# -- columns and legends


@pytest.mark.parametrize("command", [report, compare])
def test_a_narrow_terminal_is_never_overrun_and_a_wide_one_has_every_column(store, command):
    for width in (60, 80, 160):
        text = printed(command, store, width)
        assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert "Left out here" not in text  # of 160 columns
    if command is report:
        narrow = printed(report, store, 60)
        assert "(oracle)" not in narrow.partition("How to read this")[0] and "held-out" in narrow
        assert "Oracle: " not in narrow and "Oracle: " in text
        assert "Left out here: precision at best F1 on test (oracle), recall at best F1" in sentence(narrow)
        assert "(oracle)" in printed(report, store, 60, verbose=True)


@pytest.mark.parametrize("command", [report, compare])
def test_legends_stand_once_at_the_end(store, command):
    body, _, end = printed(command, store).partition("How to read this")
    for start in ("AP is ", "Average: ", "Held-out threshold: ") if command is report else ("AP is ", "s.e. items, "):
        assert start not in body and end.count(start) == 1
    verbose = printed(command, store, verbose=True)
    assert verbose.count("AP is ") == 2


def test_notes_on_augmenters_are_numbered_over_all_tables(store):
    text = printed(report, store)
    assert text.count("ddpm (1)") == 2 and text.count("(1) ddpm: regions are drawn") == 1
    assert printed(report, store, verbose=True).count("(1) ddpm: regions are drawn") == 2


def test_details_go_in_the_order_of_their_rank_and_numbers_are_whole():
    columns = [Column("name", "name", is_text=True), Column("a", "a", detail=1), Column("b", "b", detail=2),
               Column("c", "c")]  # fmt: skip
    sheet = Sheet(columns, [SheetRow(("x" * 10, ".111 (.111)", ".222 (.222)", ".333 (.333)"))])
    assert [[column.key for column in sheet.fitting(width).columns] for width in (46, 45, 34, 33, 10)] == [
        ["name", "a", "b", "c"], ["name", "a", "c"], ["name", "a", "c"], ["name", "c"], ["name", "c"],
    ]  # fmt: skip


def test_a_brief_keeps_facts_drops_details_and_explains_only_what_it_shows():
    columns = [Column("name", "name", is_text=True), Column("a", "long_heading_of_a", detail=1)]
    notes = ["A fact.", Detail("A detail."), Legend("A is this.", "a"), Legend("A name.", "name", about="here")]
    section = Section("Title", sheets=[Sheet(columns, [SheetRow(("x", "1"))], notes=notes)])
    console = Console(width=60, record=True, file=io.StringIO())
    for width in (60, 12):
        console.print(to_brief([section, section], width))
        lines = Counter(line.strip() for line in console.export_text().splitlines())
        assert (lines["A fact."], lines["A detail."], lines["here: A name."]) == (2, 0, 1)
        assert lines["A is this."] == lines["Left out here: long_heading_of_a."] + (1 if width == 60 else -1)


# -- names of datasets


@pytest.mark.parametrize(
    ("label", "entry", "title"),
    [
        ("folder", {"name": "folder", "as": "", "settings": {"root": "/data/bottles"}}, "folder 'bottles', full-shot"),
        ("bottles", {"name": "folder", "as": "bottles", "settings": {"root": "/data/b"}}, "bottles, full-shot"),
        ("folder", {"name": "folder", "as": "", "settings": {}}, "folder, full-shot"),
        ("neu", {"name": "neu", "as": "", "settings": {"root": "/data/x"}}, "neu, full-shot"),
    ],
)
def test_tables_carry_the_name_of_the_users_data(tmp_path, label, entry, title):
    store = Store(tmp_path / "s")
    cells = grid_cells(dataset=label, protocol=protocol_of())
    for one in cells:
        write(store, one)
    expect(store, "g", cells)
    store.write_json("grids", "g", store.read_json("grids", "g") | {"grid": {"name": "g", "datasets": [entry]}})
    for command in (report, compare):
        assert f"\n{title} (all real defects)" in printed(command, store)
    assert f"{label}, full-shot" in (store.files.folder / "reports" / "g" / "report.md").read_text()


def test_a_cell_alone_has_nothing_to_be_compared_with(tmp_path):
    store = Store(tmp_path / "s")
    write(store, cell())
    expect(store, "g", [cell()])
    text = printed(report, store)
    assert "Shown" not in text and "see augbench compare" not in text
