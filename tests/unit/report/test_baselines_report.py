"""What needs no generator in tables and comparisons; curves over N_aug and real defects; worth in real defects."""

import io
import json
import re
from math import inf, isnan

import pytest
from frozen_cells import BESIDE, NEAREST, NORMALS, PROBE, fill, frozen_plan
from rich.console import Console

from augbench.metrics.exchange import Rate
from augbench.metrics.inference import Verdict
from augbench.report import build_tables, load_expected, load_records
from augbench.report.evidence import build, real_defects
from augbench.report.evidence.build import build_evidence
from augbench.report.evidence.comparison_report import compare
from augbench.report.evidence.explanations import exchange_captions
from augbench.report.evidence.sheets import extra_text, lead_of, worth_sentence, worth_span
from augbench.report.numbers import DASH
from augbench.report.references import FREE, REFERENCES, with_reference
from augbench.report.store_report import report
from augbench.storage.store import Store

WEIGHTED = {**PROBE, "synthetic_weight": 0.5}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store with two numbers of synthetic images, four of real ones, and all references."""
    store = Store(tmp_path_factory.mktemp("store"))
    axes = {"shots": [0, 2, 5, "all"], "draws": [0, 1, 2], "seeds": [0], "n_aug": [6, 12]}
    plan = frozen_plan(protocols=[WEIGHTED, NORMALS, NEAREST, BESIDE], **axes)
    return fill(store, plan)


@pytest.fixture(scope="module")
def cells(filled):
    records = load_records(filled)
    return with_reference(load_expected(filled, "tiny"), records), records


@pytest.fixture(scope="module")
def evidence(filled, cells):
    found = build_evidence(filled, *cells, resamples=200)
    return {one.table.shots: one for one in found if one.table.protocol == "probing"}


def test_every_number_of_shots_has_the_references_that_it_can_have(cells):
    tables = {(table.protocol, table.shots): table for table in build_tables(*cells)}
    for shots in (0, 2, 5, "all"):
        table = tables["probing", shots]
        names = [row.augmenter for row in table.rows if row.augmenter in REFERENCES]
        assert names == [name for name in REFERENCES if shots or name != "shots + normals"]
        for row in table.rows:
            marked = any(note.startswith("normals-only reference: ") for note in row.notes)
            assert marked == (row.augmenter in REFERENCES)
        assert table.frozen.startswith("Logistic regression"), "a table is of its own protocol"
    beside = [row.augmenter for row in tables["beside", 5].rows]
    assert "shots + normals" not in beside and "nearest normal" in beside, "its own row is none"
    few = {row.augmenter: row for row in tables["probing", 5].rows}
    assert few["shots + normals"].stats == tables["beside", 5].rows[0].stats and few["shots + normals"].runs == 3
    assert [len(tables[name, 0].rows) for name in ("normals", "nearest")] == [1, 1]


def test_a_row_beats_the_strongest_free_baseline_only_if_it_beats_each(filled, cells, evidence):
    few = evidence[5]
    assert [one.n_aug for one in few.over_free] == [6, 12]
    expected, records = cells
    own = expected[(expected["protocol"] == "probing") & (expected["shots"] == 5)]
    rows = [("memseg", 6), ("memseg", 12)]
    lists = [[(row, (name, 0)) for row in rows] for name in FREE]
    compared = build.compare_rows(filled, own, records, lists, resamples=200)[1]
    for place, one in enumerate(few.over_free):
        each = {other[place].versus: other[place] for other in compared}
        assert one.together.low == pytest.approx(min(other.together.low for other in each.values()))
        assert one.strongest == min(each, key=lambda name: each[name].together.estimate)
        assert one.together.estimate == pytest.approx(each[one.strongest].together.estimate)
        assert one.together.high >= min(other.together.high for other in each.values()), "corrected for the choice"
        assert (one.verdict == Verdict.BETTER) == all(other.together.low > 0 for other in each.values())
    assert "Better than every free baseline: memseg." in lead_of(few)
    assert {one.augmenter for one in evidence[0].over_free} == {"memseg"}


def test_what_no_row_beats_is_said(evidence):
    few = evidence[5]
    weak = [build.replace(one, verdict=Verdict.NONE) for one in few.over_free]
    assert re.search(
        r"None is shown to beat the strongest free baseline; closest is memseg to [a-z +]+ \(\+\.\d+, ",
        lead_of(build.replace(few, over_free=weak)),
    )


def test_rows_are_worth_real_defects_where_there_is_a_curve(evidence):
    for shots in (0, 2, 5, "all"):
        worths = {(one.augmenter, one.n_aug): one for one in evidence[shots].worths}
        assert set(worths) == {("memseg", 6), ("memseg", 12)} | ({("shots + normals", 0)} if shots else set())
        one = worths["memseg", 12]
        assert one.counting.what == real_defects.IMAGES, "with an official split, items of training are not known"
        assert list(one.counting.of.values())[:2] == [2, 5] and one.found.count == (
            0 if not shots else one.counting.of[shots]
        )
        rate = Rate.UNKNOWN if shots in (2, 5) else Rate.TOO_FEW  # far above the curve; one seed
        assert one.found.rate == rate
        assert worth_sentence(one) == f"{one.found.count:.3g} real + 12 memseg images: {rate}."
    assert evidence[5].weight == 0.5


def test_without_a_curve_or_a_point_on_it_nothing_is_worth_anything(filled, cells):
    expected, records = cells
    own = expected[expected["protocol"] == "probing"]
    here = (own["shots"] == 5) & (own["augmenter"] == "none")
    for left in (own[own["shots"] != 2], own[~here]):  # two points; none of the row's own real defects
        found = {one.table.shots: one for one in build_evidence(filled, left, records, resamples=50)}
        assert not found[5].worths


def test_with_too_few_runs_of_the_row_or_the_curve_there_is_no_number(filled, cells):
    expected, records = cells
    own = expected[expected["protocol"] == "probing"]
    two_draws = own["draw"].isin([1, 2])
    of_row = (own["augmenter"] == "memseg") & (own["shots"] == 5) & (own["n_aug"] == 12)
    of_curve = (own["augmenter"] == "none") & (own["shots"] == 2)
    for few, names in ((of_row, {("memseg", 12)}), (of_curve, {("memseg", 6), ("memseg", 12), ("shots + normals", 0)})):
        found = build_evidence(filled, own[~few | two_draws], records, resamples=50)
        worths = next(one for one in found if one.table.shots == 5).worths
        few_runs = [one for one in worths if one.found.rate == Rate.TOO_FEW]
        assert {(one.augmenter, one.n_aug) for one in few_runs} == names
        assert all(isnan(one.found.worth) and worth_span(one) == extra_text(one) == DASH for one in few_runs)
        assert worth_sentence(few_runs[0]).endswith(" images: too few runs to say.")
        one = next(one for one in found if one.table.shots == 5)
        assert any(text.startswith("Too few runs to say") for text in exchange_captions(one))


def test_sentences_on_worth():
    counted = real_defects.Counting({2: 2, 5: 4.8, "all": 60}, real_defects.ITEMS)
    found = build.Exchange(4.8, 9.94, 4.6, 23.1, 0.0, Rate.WORTH)
    one = build.Worth("memseg", 80, found, counted)
    assert worth_sentence(one) == "4.8 real + 80 memseg images = 9.94 [4.6, 23.1] real ones."
    many = build.Counting({2: 2, "all": 1344.2}, real_defects.ITEMS)
    more = build.Worth("memseg", 80, build.Exchange(700.1, 1045.3, 760, inf, 0.0, Rate.WORTH), many)
    assert worth_sentence(more) == "700 real + 80 memseg images = 1045 [760, >1344] real ones."
    assert extra_text(more) == "+345" and extra_text(one) == "+5.1"
    less = build.replace(one, found=build.Exchange(4.8, 0.0, 0.0, 4.1, 0.6, Rate.FEWER))
    assert worth_sentence(less) == "4.8 real + 80 memseg images = <2 [<2, 4.1] real ones: fewer than none."
    assert worth_sentence(build.replace(one, augmenter="shots + normals", n_aug=0)).startswith(
        "4.8 real + the distance to normal images = "
    )


def test_items_are_counted_where_folds_are_a_partition():
    defects = {0: {"a": 3, "b": 1}, 1: {"c": 4}, 2: {"d": 1, "e": 1, "f": 2}}
    defects = {fold: build.Counter(items) for fold, items in defects.items()}
    images = {2: [2, 2, 2], 5: [5, 5, 5], "all": [8, 8, 8]}
    counted = real_defects.counting(images, defects, folds_drawn=False)
    assert counted.is_of_items and counted.of["all"] == pytest.approx((4 + 5 + 3) / 3)
    assert 1.4 < counted.of[2] < 2 and counted.of[2] < counted.of[5] < counted.of["all"]
    for other in ({**images, "all": [9, 8, 8]}, {2: [2], 5: [5]}):  # items left training; not known to be all
        assert not real_defects.counting(other, defects, folds_drawn=False).is_of_items
    assert not real_defects.counting(images, defects, folds_drawn=True).is_of_items


def test_reports_draw_curves_and_say_what_images_are_worth(filled, tmp_path):
    out = {name: tmp_path / name for name in ("report", "compare")}
    printed = io.StringIO()
    report(filled, out=out["report"], console=Console(file=printed, width=120), verdicts=True)
    assert "What synthetic images are worth in real defects" in printed.getvalue()
    compare(filled, resamples=200, out=out["compare"])
    for name, folder in out.items():
        text = (folder / f"{name}.md").read_text()
        assert "(dose.svg)" in text and "(real_defects.svg)" in text
        assert "a synthetic image counts 0.5 of a real one" in text and "orth in real defects" in text
        for file in ("dose.svg", "real_defects.svg"):
            assert (folder / file).read_text().startswith("<svg")
    dose = (out["compare"] / "dose.svg").read_text()
    assert "few-shot (5 real defects)" in dose and "memseg 6: ." in dose and "nearest normal" in dose
    assert "defect images: 2: ." in (out["compare"] / "real_defects.svg").read_text()
    tables = json.loads((out["compare"] / "compare.json").read_text())["tables"]
    few = next(one for one in tables if one["protocol"] == "probing" and one["shots"] == 5)
    assert few["worths"][0]["rate"] == "not identifiable" and few["worths"][0]["curve"]["2"] == 2
    assert few["over_free"][0]["strongest"] in FREE and few["synthetic_weight"] == 0.5


def test_without_curves_a_report_draws_none(store, tmp_path):
    fill(store, frozen_plan())
    report(store, out=tmp_path)
    assert not list(tmp_path.glob("*.svg"))
