"""The papers' tables filled with ours: digit for digit where ours are theirs, no difference of unlike things."""

# ruff: noqa: RUF001 - the dash is what is printed

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from boards import expected_cell, put_record
from helpers import assert_one_line, cli
from rich.console import Console

from augbench.core.errors import UserError
from augbench.planning.grid import make_grid
from augbench.planning.outline import expected_of
from augbench.planning.plan import make_plan
from augbench.report.frame import expected_frame, load_records
from augbench.report.numbers import signed
from augbench.report.papers.comparison import compare
from augbench.report.papers.layout_report import report_layout, to_csv
from augbench.report.papers.layout_sheets import compared, printed, sections_of
from augbench.report.papers.layouts import choose, find_layout, layouts
from augbench.report.papers.printed import METRICS
from augbench.report.render import latex, markdown, page
from augbench.report.render.terminal import to_terminal

# The tables as the papers print them, typed from the papers; a line holds what stands beside each other there.
INOUT = {
    "inout_table1": """
        MemSeg 80 .514 (.026) .733 (.113) .436 (.033) DDPM 80 .547 (.086) .427 (.301) .695 (.194)
        MemSeg 100 .388 (.066) .633 (.129) .432 (.054) DDPM 100 .532 (.028) .387 (.277) .714 (.286)
        MemSeg 120 .511 (.050) .683 (.054) .470 (.091) DDPM 120 .445 (.186) .465 (.329) .591 (.274)
        Average .471 (.047) .683 (.099) .446 (.059) Average .508 (.100) .426 (.302) .667 (.251)""",
    "inout_table2": """
        In&Out 80 .556 (.085) .530 (.219) .655 (.065)
        In&Out 100 .626 (.059) .742 (.109) .568 (.029)
        In&Out 120 .536 (.023) .699 (.085) .534 (.086)
        Average .573 (.056) .657 (.138) .586 (.060)""",
    "inout_table3": """
        MemSeg 80 .582 (.018) .836 (.101) .466 (.049) DDPM 80 .580 (.045) .542 (.270) .634 (.212)
        MemSeg 100 .511 (.086) .686 (.082) .527 (.069) DDPM 100 .526 (.075) .610 (.063) .477 (.081)
        MemSeg 120 .593 (.044) .801 (.065) .507 (.053) DDPM 120 .535 (.063) .659 (.127) .491 (.046)
        Average .562 (.049) .774 (.083) .500 (.057) Average .547 (.061) .604 (.153) .534 (.113)""",
    "inout_table4": """
        In&Out 80 .531 (.041) .507 (.220) .655 (.126)
        In&Out 100 .578 (.041) .450 (.343) .761 (.245)
        In&Out 120 .575 (.025) .635 (.316) .636 (.189)
        Average .561 (.036) .531 (.293) .684 (.187)""",
    "inout_table5": """
        MixSegDec .733 (–) – (–) – (–)
        In&Out 0 .747 (.055) .826 (.081) .723 (.058)
        In&Out 80 .747 (.022) .764 (.046) .734 (.032)
        In&Out 100 .775 (.013) .868 (.050) .720 (.026)
        In&Out 120 .782 (.030) .906 (.064) .689 (.030)
        Average .768 (.022) .846 (.053) .714 (.029)""",
    "inout_table6": """
        MemSeg 80 .744 (.007) .851 (.055) .691 (.058) DDPM 80 .758 (.007) .808 (.056) .768 (.043)
        MemSeg 100 .774 (.016) .814 (.038) .752 (.028) DDPM 100 .763 (.008) .829 (.059) .725 (.034)
        MemSeg 120 .734 (.032) .772 (.107) .707 (.031) DDPM 120 .772 (.034) .858 (.084) .725 (.061)
        Average .751 (.018) .812 (.067) .717 (.039) Average .764 (.016) .832 (.066) .739 (.046)""",
}
DIAG = {
    "diag_table1": """
        MemSeg 80 .514 .733 .436
        MemSeg 100 .388 .633 .432
        MemSeg 120 .511 .683 .470
        In&Out 80 .556 .530 .655
        In&Out 100 .626 .742 .568
        In&Out 120 .536 .699 .534
        DIAG 80 .769 .851 .673
        DIAG 100 .801 .924 .664
        DIAG 120 .739 .944 .609""",
    "diag_table2": """
        MemSeg 80 .744 .851 .691
        MemSeg 100 .774 .814 .752
        MemSeg 120 .734 .772 .707
        In&Out 80 .747 .764 .734
        In&Out 100 .775 .868 .720
        In&Out 120 .782 .906 .689
        DIAG 80 .869 .912 .755
        DIAG 100 .911 .978 .800
        DIAG 120 .924 .896 .864""",
}
GOLDEN = {name: [line.strip() for line in text.strip().splitlines()] for name, text in (INOUT | DIAG).items()}

OFFICIAL = {"test_negatives": 894, "test_positives": 110, "train_negatives": 2085}
THEIRS = {"as_published": "files", "optimiser": "adamw8bit"}


def ddpm(**settings):
    """DDPM as the authors ran it, with changes."""
    return {"name": "ddpm", "settings": {**THEIRS, **settings}}


def mixed(memseg=None, **settings):
    """In&Out as the authors ran it, with changes of its parts."""
    return {"name": "inout", "settings": {"ddpm": {**THEIRS, **settings}, "memseg": memseg or {}}}


DIAG_AS_PUBLISHED = {"name": "diag", "settings": {"as_published": True}}
INOUT_GRID = {
    "name": "inout",
    "datasets": ["ksdd2"],
    "augmenters": [{"name": "none", "shots": "all"}, "memseg", ddpm(), mixed()],
    "shots": [0, 5, "all"],
    "n_aug": [80, 100, 120],
    "seeds": [0, 1, 2, 3],
    "protocols": ["inout_v2"],
}
DIAG_GRID = {**INOUT_GRID, "name": "diag", "augmenters": ["memseg", mixed(), DIAG_AS_PUBLISHED], "shots": [0, "all"],
             "seeds": [0, 1], "protocols": ["diag"]}  # fmt: skip


PROBE = {"name": "probing", "kind": "probe", "width": 200, "height": 600, "crop": "centre", "ap": "trapezoidal"}


def cells_of(**changes):
    """The cells of the grid of In&Out, with changes."""
    return make_plan(make_grid({**INOUT_GRID, **changes})).cells


def values(mean, std, count, place):
    """One of ``count`` numbers, an even one, with that mean and that sample std."""
    return mean + (-1) ** place * std * math.sqrt((count - 1) / count)


def write(store, cell, ap=0.6, precision=0.7, recall=0.5, counts=None, embedded=(), notes=()):
    shots = 246 if cell.shots == "all" else cell.shots
    threshold = {"threshold": 0.0, "precision": precision, "recall": recall, "f1": 0.5, "accuracy": 0.9}
    result = {"ap": ap, "ap_step": ap, "ap_trapezoidal": ap, "auroc": 0.9, "heldout": None, "curves": {},
              "oracle": {**threshold, "false_alarm_rate": 0.0},
              "counts": {**OFFICIAL, "shots": shots, **(counts or {})}}  # fmt: skip
    put_record(store, cell, result, embedded=embedded, notes=notes)


def reproduce(store, name, shift=0.0, leave_out=lambda cell: False, grid=None, **changes):
    """Plan the paper's grid into a store, and write records with mean and std as printed (0.01 where none is).

    Each mean is moved by ``shift``. Returns the expected cells.
    """
    raw = (INOUT_GRID if name.startswith("inout") else DIAG_GRID) | changes
    plan = make_plan(make_grid(raw))
    expected = expected_of(plan)
    store.write_json("grids", grid or raw["name"], {"grid": {}, "cells": expected})
    wanted = {(row.augmenter, row.shots, row.n_aug): row for row in find_layout(name).rows}
    for cell in plan.cells:
        row = wanted.get((cell.augmenter.alias, cell.shots, cell.n_aug))
        if row and not leave_out(cell):
            stats = [(stat.mean + shift, 0.01 if math.isnan(stat.std) else stat.std) for stat in row.stats.values()]
            write(store, cell, *(values(mean, std, len(raw["seeds"]), cell.seed) for mean, std in stats))
    return expected


def reproduced(store, name, **options):
    return comparison_of(store, name, reproduce(store, name, **options))


def comparison_of(store, name, expected=None, dataset=None, protocol=None):
    layout = find_layout(name)
    cells = choose(layout, expected_frame(expected), dataset, protocol)
    records = load_records(store, cells["key"])
    return compare(layout, cells, records, {key: store.read_record(key) for key in records["key"]})


def planned(cells):
    return [expected_cell(one) for one in cells]


def filled(store, cells, name, **record):
    """A comparison of these cells, each with a record."""
    for cell in cells:
        write(store, cell, **record)
    return comparison_of(store, name, planned(cells))


def to_latex(comparison):
    return latex.to_latex("x", sections_of(comparison))


def to_markdown(comparison):
    return markdown.to_markdown("x", sections_of(comparison))


def to_html(comparison):
    return page.to_html("x", sections_of(comparison))


def printed_lines(comparison, side):
    rows = printed(comparison, side).rows
    return [" ".join(text.removesuffix(" †") for text in row.texts if text) for row in rows]


def own_lines(name):
    """The printed rows that something of ours can be."""
    return [line for line in GOLDEN[name] if "MixSegDec" not in line]


# -- the printed tables


def test_every_printed_table_is_a_layout():
    assert set(layouts()) == {*GOLDEN, "diag_table3"}  # which is on FID: see test_report_fidelity.py


@pytest.mark.parametrize("name", GOLDEN)
def test_the_papers_tables_come_out_digit_for_digit(store, name):
    """Theirs from the package; ours from a store whose records have the printed means and standard deviations."""
    comparison = reproduced(store, name)
    assert printed_lines(comparison, "theirs") == GOLDEN[name]
    assert [line for line in printed_lines(comparison, "ours") if "MixSegDec" not in line] == own_lines(name)
    assert not any(line.incomplete for line in comparison.lines)


@pytest.mark.parametrize(
    ("name", "metric", "best", "second"),
    [
        ("diag_table1", "precision", ".944", ".924"),  # the paper underlines .924, .912 and .911
        ("diag_table2", "precision", ".978", ".912"),
        ("diag_table2", "ap", ".924", ".911"),
        ("inout_table3", "ap", ".593 (.044)", ".582 (.018)"),  # over both halves
        ("inout_table5", "ap", ".782 (.030)", ".775 (.013)"),  # averages do not count
    ],
)
def test_best_and_second_best_of_both_sides(store, name, metric, best, second):
    comparison = reproduced(store, name)
    sheet = compared(comparison)
    for side in ("theirs", "ours"):
        place = [column.key for column in sheet.columns].index(f"{side} {metric}")
        marked = {row.marks[place]: row.texts[place] for row in sheet.rows if place in row.marks}
        assert marked == {"best": best, "second": second}
    assert rf"\textbf{{{best}}}" in to_latex(comparison) and rf"\underline{{{second}}}" in to_latex(comparison)
    assert f"**{best}**" in to_markdown(comparison) and f"<u>{second}</u>" in to_markdown(comparison)
    assert f"<b>{best}</b>" in to_html(comparison) and f"<u>{second}</u>" in to_html(comparison)


def test_equal_at_the_printed_digits_is_equally_good(store):
    cells = [cell for cell in cells_of(augmenters=[mixed()], shots=[0]) if cell.n_aug != 120]
    comparison = filled(store, cells, "inout_table2")
    assert [line.best.get("ours", {}).get("ap") for line in comparison.lines] == ["best", "best", None, None]


# -- differences


def test_a_difference_is_given_where_everything_matches(store):
    comparison = reproduced(store, "inout_table5", shift=0.012)
    assert comparison.mismatches == ()
    reference, *rows = comparison.lines
    assert [line.label for line in rows] == ["In&Out"] * 4 + ["Average"]
    assert all(line.difference(metric) == pytest.approx(0.012) for line in rows for metric in METRICS)
    assert not reference.matches and math.isnan(reference.difference("ap"))  # theirs only
    sheet = compared(comparison)
    place = [column.key for column in sheet.columns].index("difference ap")
    assert [row.texts[place] for row in sheet.rows] == ["–", *["+.012"] * 5]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0124, "+.012"), (-0.0041, "-.004"), (0.0004, ".000"), (-0.0004, ".000"), (math.nan, "–")]
)
def test_a_difference_has_its_sign(value, text):
    assert signed(value) == text


def test_rows_that_diag_copied_are_marked_and_have_no_difference(store):
    comparison = reproduced(store, "diag_table1")
    assert [line.matches for line in comparison.lines] == [False] * 6 + [True] * 3
    first = [row.texts[0] for row in compared(comparison).rows]
    assert first == ["MemSeg †"] * 3 + ["In&Out †"] * 3 + ["DIAG"] * 3
    assert "AP is step-wise, theirs is trapezoidal (MemSeg, In&Out)" in comparison.mismatches
    assert any(text.startswith("protocol is diag, theirs is inout_v2") for text in comparison.mismatches)
    (note,) = [note for note in comparison.notes if note.startswith("† MemSeg")]
    assert "from In&Out (VISAPP 2024), Table 1, so obtained under protocol inout_v2, not diag" in note


def one_changed(augmenter, shots=0, n_aug=80, **changes):
    return [cell for cell in cells_of(augmenters=[augmenter], shots=[shots], **changes) if cell.n_aug == n_aug]


@pytest.mark.parametrize(
    ("name", "cells", "mismatches"),
    [
        ("inout_table2", lambda: one_changed(mixed()), []),
        ("inout_table1", lambda: one_changed(ddpm(bundle="micro-sd")),
         ["pipeline is micro-sd, theirs is Stable Diffusion 1.5 (published code)"]),
        ("inout_table2", lambda: one_changed(mixed(bundle="micro-sd")),
         ["pipeline is micro-sd, theirs is Stable Diffusion 1.5 (published code)"]),
        ("inout_table1", lambda: one_changed(ddpm(bundle="/home/me/stock")),
         ["pipeline is 'stock', a local folder or file, theirs is Stable Diffusion 1.5 (published code)"]),
        ("inout_table1", lambda: one_changed("ddpm"),
         ["ddpm: as_published is False, theirs is files (published code)",
          "ddpm: optimiser is auto, theirs is adamw8bit (stated)"]),
        ("inout_table1", lambda: one_changed(ddpm(zero={"alpha": 0.7})),
         ["ddpm: zero.alpha is 0.7, theirs is 0.6 (stated)"]),
        ("inout_table1", lambda: one_changed(ddpm(few={"epochs": 3})), []),  # of another regime
        ("inout_table3", lambda: one_changed(ddpm(few={"epochs": 3}), 5),
         ["ddpm: few.epochs is 3, theirs is 49 (stated)"]),
        ("inout_table1", lambda: one_changed(ddpm(gradient_checkpointing=True)), []),
        ("inout_table1", lambda: one_changed(ddpm(precision="fp16")), []),  # what auto is on a GPU
        ("inout_table1", lambda: one_changed(ddpm(bundle="sd15", steps=50)), []),  # defaults, written out
        ("inout_table1", lambda: one_changed(ddpm(aspect="keep")),
         ["ddpm: aspect is keep, theirs is squeeze (published code)"]),
        ("inout_table2", lambda: one_changed(mixed(memseg={"opacity": [0.5, 1]})),
         ["memseg: opacity is [0.5, 1.0], theirs is not stated; by default it is [0.15, 1.0]"]),
        ("diag_table1", lambda: one_changed(DIAG_AS_PUBLISHED, protocols=["diag"]), []),
        ("diag_table1", lambda: one_changed("diag", protocols=["diag"]),
         ["diag: as_published is False, theirs is True (published code)"]),
        ("diag_table1", lambda: one_changed(DIAG_AS_PUBLISHED, protocols=["diag_as_published"]),
         ["protocol is diag_as_published, theirs is diag, with another width, height, resize_first, epochs, "
          "batchnorm"]),
        ("inout_table1", lambda: [replace(cell, augmenter=replace(cell.augmenter, alias="memseg"))
                                  for cell in one_changed("cutpaste")],
         ["memseg is augmenter cutpaste under another name, theirs is memseg"]),
        ("inout_table1", lambda: [replace(cell, augmenter=replace(cell.augmenter, key_settings={"plugin": "x==1"}))
                                  for cell in one_changed("memseg")],
         ["memseg comes from a plug-in, not from this package"]),
        ("inout_table2", lambda: one_changed(mixed(), protocols=[{"name": "inout_v2", "lr": 0.02}]),
         ["protocol is inout_v2+lr=0.02, theirs is inout_v2, with another lr 0.02 (0.01, stated)"]),
        ("inout_table2", lambda: one_changed(mixed(), protocols=[{"name": "inout_v2", "gradients": "summed"}]),
         ["protocol is inout_v2+gradients=summed, theirs is inout_v2, with another gradients summed (not stated; in "
          "inout_v2 mean)"]),
        ("inout_table2", lambda: one_changed(mixed(), protocols=[{"name": "inout_v2", "ap": "step"}]),
         ["AP is step-wise, theirs is trapezoidal"]),
        ("inout_table2", lambda: one_changed(mixed(), protocols=[{"name": "inout_v2", "weights": "scratch"}]),
         ["classifier is resnet50.tv_in1k (randomly initialised), theirs is resnet50.tv_in1k (ImageNet weights) "
          "(inferred)"]),
        *(("inout_table2", lambda name=name: one_changed(mixed(), protocols=[{"name": "inout_v2", "backbone": name}]),
           [f"classifier is {name} (ImageNet weights), theirs is resnet50.tv_in1k (ImageNet weights) (inferred)"])
          for name in ("resnet50", "resnet50.a1_in1k", "resnet50.tv2_in1k")),
        ("inout_table2", lambda: one_changed(mixed(), protocols=["inout"]),  # superseded
         ["classifier is resnet50 (ImageNet weights), theirs is resnet50.tv_in1k (ImageNet weights) (inferred)"]),
        ("inout_table2", lambda: one_changed(mixed(), protocols=[{"name": "inout_v2", "threads_per_cell": 2}]), []),
        ("inout_table2", lambda: one_changed(mixed(), seeds=[0, 1]), ["2 seeds, theirs 4"]),
        ("inout_table2", lambda: one_changed(mixed(), protocols=[PROBE]),
         ["protocol is probing on a frozen backbone, theirs is inout_v2, which trains all of it",
          "classifier is resnet50 (ImageNet weights), theirs is resnet50.tv_in1k (ImageNet weights) (inferred)"]),
        ("inout_table5", lambda: one_changed("none", "all", 0, protocols=[PROBE | {"backbone": "resnet50.tv_in1k"}]),
         ["protocol is probing on a frozen backbone, theirs is inout_v2, which trains all of it",
          "no seed, as nothing is random in it; theirs 4"]),
        ("inout_table4", lambda: one_changed(mixed(), 5, draws=[0, 1]), ["2 draws of the shots, theirs 1"]),
        ("inout_table2", lambda: [replace(cell, data=replace(cell.data, fold=0)) for cell in one_changed(mixed())],
         ["the split is one of folds, theirs is the official one"]),
    ],
)  # fmt: skip
def test_what_does_not_match_is_named(store, name, cells, mismatches):
    comparison = filled(store, cells(), name)
    assert list(comparison.mismatches) == mismatches
    matching = [line for line in comparison.lines if line.found and not line.is_average]
    assert [line.matches for line in matching] == [not mismatches]
    assert comparison.has_differences == (not mismatches)


def test_another_dataset_has_no_difference_though_all_else_is_theirs(store):
    cells = [replace(cell, data=replace(cell.data, name="surfaces", alias="surfaces")) for cell in one_changed(mixed())]
    comparison = filled(store, cells, "inout_table2", embedded=["dataset surfaces"])
    assert {row["caveats"] for row in csv.DictReader(io.StringIO(to_csv(comparison)))} >= {
        "smoke-test parts: dataset surfaces"
    }
    assert comparison.mismatches == ("dataset is surfaces, theirs is ksdd2",)
    assert comparison.label == "ours with smoke-test parts: not evidence (dataset surfaces)"
    for text in (to_markdown(comparison), to_latex(comparison), to_html(comparison), terminal(comparison)):
        assert comparison.label in text and "dataset is surfaces, theirs is ksdd2" in text


@pytest.mark.parametrize(
    ("counts", "mismatch"),
    [
        ({"test_positives": 4}, "4 defect test images, theirs 110"),
        ({"train_negatives": 2000}, "2000 normal training images, theirs 2085"),
        ({"shots": 3}, "3 real defects in training, theirs 0"),
    ],
)
def test_a_folder_of_that_name_with_other_images_is_not_the_dataset(store, counts, mismatch):
    assert filled(store, one_changed(mixed()), "inout_table2", counts=counts).mismatches == (mismatch,)


def test_edited_prompts_are_not_the_papers(store):
    cells = [cell for cell in make_plan(make_grid({**DIAG_GRID, "shots": [0]})).cells if cell.augmenter.name == "diag"]
    known = {"prompts": {"prompts": ["rust"], "negative_prompt": ""}}
    changed = [replace(cell, augmenter=replace(cell.augmenter, key_settings=known)) for cell in cells]
    assert filled(store, changed, "diag_table1").mismatches == ("diag: prompts are not those of the paper",)
    assert filled(store, cells, "diag_table1").mismatches == ()


def test_a_reason_names_its_rows_where_it_does_not_hold_for_all(store):
    cells = [cell for cell in cells_of(augmenters=["memseg", ddpm(bundle="micro-sd")], shots=[0])
             if cell.augmenter.name == "ddpm" or cell.n_aug != 100 or cell.seed < 2]  # fmt: skip
    comparison = filled(store, cells, "inout_table1")
    assert comparison.mismatches == (
        "pipeline is micro-sd, theirs is Stable Diffusion 1.5 (published code) (DDPM)",
        "2 seeds, theirs 4 (MemSeg 100)",
    )
    differs = {(line.label, line.n_aug): line.differs for line in comparison.lines if not line.is_average}
    assert differs["MemSeg", 80] == () and differs["MemSeg", 100] == (2,) and differs["DDPM", 80] == (1,)
    averages = [line.matches for line in comparison.lines if line.is_average]
    assert averages == [False, False]  # an average is no better than its rows


# -- what is missing


def test_what_is_missing_is_marked_and_has_no_difference(store):
    def left_out(cell):
        return (cell.n_aug == 100 and cell.seed) or (cell.augmenter.alias == "ddpm" and cell.n_aug == 120)

    cells = reproduce(store, "inout_table1", leave_out=left_out)
    cells = [cell for cell in cells if (cell["augmenter"], cell["n_aug"]) != ("memseg", 120)]
    comparison = comparison_of(store, "inout_table1", cells)
    runs = [row.texts[-1] for row in compared(comparison).rows]
    assert runs == ["4", "1/4 *", "*", "*", "4", "1/4 *", "0/4 *", "*"]
    assert [line.matches for line in comparison.lines] == [True, False, False, False] * 2
    assert printed_lines(comparison, "ours")[2] == "MemSeg * 120 – – – DDPM * 120 – – –"
    assert printed_lines(comparison, "ours")[3].startswith("Average *")
    assert comparison.notes[0] == (
        "* incomplete: 10 of 20 cells have a record; 1 of 6 rows are in no grid of the store. Such a row has no "
        "difference."
    )


def test_a_store_without_any_row_shows_theirs(store):
    comparison = comparison_of(store, "inout_table5", planned(cells_of(augmenters=["cutpaste"], shots=[0])))
    assert printed_lines(comparison, "theirs") == GOLDEN["inout_table5"]
    assert "Ours: no grid of this store has any of these rows." in comparison.captions
    assert comparison.notes[0].startswith("* incomplete: 4 of 4 rows are in no grid of the store.")
    assert any("it has no counterpart here" in note for note in comparison.notes)
    assert "MixSegDec" in terminal(comparison)


def test_notes_of_records_on_their_images_are_reported(store):
    comparison = filled(store, one_changed(mixed()), "inout_table2", notes=["ddpm: something to know"])
    assert comparison.notes[-1] == "ddpm: something to know"
    assert any("variant of MemSeg" in note for note in comparison.notes)


def test_ap_with_ties_spread_is_noted_where_it_differs(store):
    cells = one_changed(mixed())
    for one in cells:
        write(store, one)
        record = store.read_record(one.key)
        record["result"]["ap_trapezoidal_ties"] = 0.5 if one.seed else 0.6
        store.write_json("cells", one.key, record)
    comparison = comparison_of(store, "inout_table2", planned(cells))
    assert comparison.notes[-1] == "With images of equal score spread over one another, our AP is: In&Out 80 .525."


# -- which cells


def several(store):
    """KSDD2 under two protocols, and another dataset."""
    cells = cells_of(augmenters=["memseg"], shots=[0], protocols=["inout_v2", "diag"])
    other = [replace(cell, data=replace(cell.data, name="surfaces", alias="surfaces")) for cell in cells]
    for cell in cells + other:
        write(store, cell)
    return planned(cells), planned(other)


def test_the_papers_dataset_and_protocol_are_the_default(store):
    own, other = several(store)
    chosen = [comparison_of(store, name, other + own) for name in ("inout_table1", "diag_table1")]
    assert [(one.dataset, one.protocol) for one in chosen] == [("ksdd2", "inout_v2"), ("ksdd2", "diag")]
    asked = comparison_of(store, "inout_table1", own + other, dataset="surfaces", protocol="diag")
    assert (asked.dataset, asked.protocol) == ("surfaces", "diag")


def test_copied_rows_come_from_their_own_protocol_where_the_store_has_them_there_alone(store):
    cells = reproduce(store, "diag_table1", shift=0.02, augmenters=[DIAG_AS_PUBLISHED])
    cells += reproduce(store, "inout_table1", shift=0.01)
    comparison = comparison_of(store, "diag_table1", cells)
    memseg, inout, diag = comparison.lines[:3], comparison.lines[3:6], comparison.lines[6:]
    assert [line.difference("ap") for line in memseg] == pytest.approx([0.01] * 3)
    assert [line.difference("ap") for line in diag] == pytest.approx([0.02] * 3)
    assert all(line.incomplete and line.elsewhere == "inout_v2" for line in inout)  # planned, not run
    assert comparison.protocol == "diag" and comparison.mismatches == ()
    elsewhere = "MemSeg, In&Out: ours are under protocol inout_v2, as theirs are"
    assert any(note.startswith(elsewhere) for note in comparison.notes)
    assert "AP is step-wise: the sum" in " ".join(comparison.captions)
    asked = comparison_of(store, "diag_table1", cells, protocol="diag")
    assert [line.expected for line in asked.lines] == [0] * 6 + [2] * 3
    rows = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert [row["protocol"] for row in rows] == ["inout_v2"] * 6 + ["diag"] * 3


def test_what_cannot_be_chosen_is_asked_for(store):
    _, other = several(store)
    renamed = [{**cell, "dataset": "tiles"} for cell in other]
    plain = [{**cell, "protocol": {"inout_v2": "small", "diag": "large"}[cell["protocol"]]} for cell in other]
    recognition = [{**cell, "task": "recognition"} for cell in other]
    for what, cells, dataset in (
        (r"several datasets, and not the paper's: give --dataset surfaces or tiles$", other + renamed, None),
        (r"--dataset 'tile' is not in the store \(did you mean 'tiles'\?\)", other + renamed, "tile"),
        (r"several protocols, and not the paper's: give --protocol large or small$", plain, None),
        ("is a table of detection, and the store holds none", recognition, None),
    ):
        with pytest.raises(UserError, match=what):
            comparison_of(store, "inout_table1", cells, dataset)


def test_one_name_for_two_settings_is_not_averaged(store):
    cells = one_changed(ddpm(steps=50)) + one_changed(ddpm(steps=20))
    with pytest.raises(UserError, match=r"augmenter 'ddpm' stands for several settings .* give --grid FILE"):
        filled(store, cells, "inout_table1")


def test_a_damaged_record_is_named(store):
    (cell, *_) = one_changed(mixed())
    write(store, cell)
    record = store.read_record(cell.key)
    record["spec"]["protocol"]["lr"] = "fast"
    store.write_json("cells", cell.key, record)
    with pytest.raises(UserError, match=r"lr.*delete it, and run the grid again"):
        comparison_of(store, "inout_table2", planned([cell]))


# -- renderers and files


def terminal(comparison):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(to_terminal(sections_of(comparison)[:1]))
    return console.export_text()


@pytest.mark.parametrize("name", ["inout_table1", "inout_table5", "diag_table2"])
def test_the_terminal_table_fits_100_columns(store, name):
    comparison = reproduced(store, name)
    text = terminal(comparison)
    assert max(map(len, text.splitlines())) <= 100
    numbers = re.findall(r"\.\d{3}(?: \(\.\d{3}\))?", "\n".join(own_lines(name)))
    assert all(text.count(number) >= 2 for number in numbers)  # theirs and ours, none folded
    assert "difference" in text and "…" not in text


def test_latex_has_the_papers_form(store):
    columns = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", to_latex(reproduced(store, "inout_table1")))
    assert columns == ["ll" + "r" * 10, "llrrr" * 2]


def test_files_are_equal_each_time_and_hold_the_numbers(store, tmp_path):
    reproduce(store, "inout_table5", shift=0.012)
    files = [Path(file) for file in report_layout(store, "inout_table5")]
    assert [file.name for file in files] == [f"inout_table5.{end}" for end in ("md", "tex", "csv", "json", "html")]
    assert {file.parent for file in files} == {store.files.folder / "reports" / "inout"}
    again = [Path(file) for file in report_layout(store, "inout_table5", out=tmp_path / "elsewhere")]
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    rows = list(csv.DictReader(io.StringIO(files[2].read_text())))
    assert [row["row"] for row in rows] == ["cells"] * 5 + ["average"]
    assert (rows[3]["theirs_ap_mean"], rows[3]["theirs_ap_std"]) == ("0.775", "0.013")
    assert float(rows[3]["ours_ap_mean"]) == pytest.approx(0.787)
    assert float(rows[3]["difference_ap"]) == pytest.approx(0.012)
    assert rows[0]["difference_ap"] == rows[0]["ours_ap_mean"] == "" and rows[0]["copied_from"] == "bozic2021"
    content = json.loads(files[3].read_text())
    assert content["paper"] == {"key": "inout_visapp2024", "table": 5, "url": content["paper"]["url"],
                                "reference": content["paper"]["reference"]}  # fmt: skip
    assert content["rows"][0]["ours"] is None and content["rows"][0]["difference"] is None
    assert content["rows"][5]["is_average"] and content["rows"][5]["theirs"]["ap"]["mean"] == pytest.approx(0.768)


def test_several_grids_are_merged_and_no_grid_means_all_records(store, tmp_path):
    reproduce(store, "inout_table1", grid="one", augmenters=["memseg"])
    reproduce(store, "inout_table1", grid="two", augmenters=[ddpm()])
    files = [Path(file) for file in report_layout(store, "inout_table1")]
    assert files[0].parent == store.files.folder / "reports" / "all"
    content = json.loads(files[3].read_text())
    assert not any(row["incomplete"] for row in content["rows"])
    for name in ("one", "two"):
        (store.files.folder / store.name("grids", name)).unlink()
    again = [Path(file) for file in report_layout(store, "inout_table1")]
    assert json.loads(again[3].read_text()) == content
    with pytest.raises(UserError, match="knows no grid 'three'"):
        report_layout(store, "inout_table1", "three")


# -- the command line


def test_the_command_line_prints_a_layout_and_says_what_is_wrong(store, tmp_path):
    reproduce(store, "inout_table2")
    done = cli("report", store.url, "--layout", "inout_table2", "--out", tmp_path / "out")
    assert done.returncode == 0 and ".626 (.059)" in done.stdout, done.stderr
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".csv", ".html", ".json", ".md", ".tex"]
    assert_one_line(cli("report", store.url, "--layout", "inout_tabel2"), "did you mean 'inout_table2'")
    assert_one_line(cli("report", store.url, "--layout", "list"), *GOLDEN)
    assert_one_line(cli("report", store.url, "--dataset", "ksdd2"), "give --layout NAME too")
    assert_one_line(cli("report", tmp_path / "none", "--layout", "inout_table2"), "augbench run GRID.yaml")
