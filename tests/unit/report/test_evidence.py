"""What `augbench compare` says, from small stores whose records and scores are written by hand."""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from math import isnan

import numpy as np
import pandas as pd
import pytest
from boards import put_record
from frozen_cells import NORMALS, PROBE, fill, frozen_plan
from helpers import assert_one_line, cli, path_of, tiny_grid, tiny_plan
from rich.console import Console

from augbench.core.contracts import Augmenter
from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.core.protocol import make_protocol
from augbench.core.specs import AdapterSpec, AugmenterSpec, Cell, DataSpec, PoolSpec, SearchSpec
from augbench.metrics.evaluate import evaluate
from augbench.planning.library import Library
from augbench.planning.outline import expected_of
from augbench.report.evidence.build import _item_freedom, _strata, baseline_among, build_evidence, pair_runs
from augbench.report.evidence.comparison_report import compare
from augbench.report.evidence.explanations import comparison_notes
from augbench.report.evidence.exports import to_csv
from augbench.report.evidence.pareto import RowCost, efficient
from augbench.report.evidence.part_costs import COSTS, costs_of, read_costs
from augbench.report.evidence.ranking import rankings
from augbench.report.evidence.sheets import section_of, sentences_of
from augbench.report.frame import expected_from_records, load_records
from augbench.report.leaderboard.board import board_of
from augbench.report.leaderboard.merge import gather
from augbench.report.leaderboard.row_costs import Costs
from augbench.report.numbers import DASH
from augbench.storage.scores import scores_bytes, scores_frame
from augbench.storage.store import Store

BASE = {"width": 32, "height": 32, "lr": 0.01, "batch": 5, "epochs": 1, "ap": "step"}
CLASSES = ("crack", "stain")
SKILL = {"none": 0.4, "memseg": 1.6, "cutpaste": 1.6, "worse": -0.6}  # how far defects stand out of the noise
ITEMS = (60, 20)  # normal and defect test items, of two images each


def cell(augmenter="none", seed=0, n_aug=None, dataset="ksdd2", shots="all", draw=None, fold=None, **protocol):
    settings = make_protocol({"name": "small", **BASE, **protocol})
    classes = CLASSES if dataset == "neu" else ()
    data = DataSpec(dataset, dataset, {}, digest(dataset), fold, settings.holdout, classes, settings.test_share)
    n_aug = (0 if augmenter == "none" else 80) if n_aug is None else n_aug
    return Cell(data, AugmenterSpec(augmenter, augmenter, {}, {}), shots, draw, n_aug, seed, settings)


def write(store, one, skill=None, items=ITEMS, own_noise=0.5, lineage=None):
    """A record with its scores. Test items differ in how hard they are, the same for every cell of a dataset."""
    good, defective = items
    fold = one.data.fold or 0
    hard = np.random.default_rng([7, fold]).normal(size=good + defective)
    split = fold if one.data.test_share is None else "s"  # random splits share items
    names = [f"{one.data.alias}{split}-{i}" for i in range(good + defective)]
    rng = np.random.default_rng([one.seed, one.draw or 0, fold, int(digest(one.augmenter.alias)[:6], 16)])
    group = np.repeat(np.arange(good + defective), 2)
    label = np.where(group < good, "good", np.where(group % 2, *CLASSES))
    skill = SKILL.get(one.augmenter.alias, 1.0) if skill is None else skill
    noise = hard[group] * 0.5 + own_noise * rng.normal(size=len(group))
    ids = [f"p{i}" for i in range(len(group))]
    table = pd.DataFrame({"id": ids, "part": "test", "label": label, "group": np.array(names)[group]})
    if one.data.classes:
        table = table[table["label"] != "good"].reset_index(drop=True)
        noise = noise[group >= good]
        for name in CLASSES:
            logit = skill * (table["label"] == name) + noise * (1 if name == CLASSES[0] else -1)
            table[f"logit_{name}"] = logit.to_numpy(np.float32)
    else:
        table["logit"] = (skill * (group >= good) + noise).astype(np.float32)
    store.files.write(store.name("scores", one.key), scores_bytes(table))
    result = {**evaluate(table, one.protocol), "counts": {}, "curves": {"loss": [1.0], "test": []}}
    put_record(store, one, result, seconds={"total": 20.0}, **(lineage or {}))


def filled(store, augmenters=("none", "memseg", "cutpaste"), seeds=4, **axes):
    cells = [cell(name, seed, **axes) for name in augmenters for seed in range(seeds)]
    for one in cells:
        write(store, one)
    return cells


def evidence_of(store, **options):
    records = load_records(store)
    return build_evidence(store, expected_from_records(records), records, **{"resamples": 500, **options})


def printed(store, **options):
    console = Console(width=100, record=True, file=io.StringIO())
    compare(store, console=console, resamples=500, verbose=True, **options)
    return " ".join(console.export_text().split())


# -- intervals and verdicts


def test_a_large_difference_is_found_and_none_is_not(store):
    filled(store)
    (one,) = evidence_of(store)
    assert one.baseline == "none" and (one.groups, one.defective_groups) == (80, 20)
    found = [(c.augmenter, c.versus, c.n_aug, str(c.verdict)) for c in (*one.against, *one.pairs)]
    assert found == [
        *((name, "none", 80, "better") for name in ("cutpaste", "memseg")),
        ("cutpaste", "memseg", 80, "no detectable difference"),
    ]
    assert one.pairs[0].together.low < 0 < one.pairs[0].together.high
    assert all(isnan(c.p) for c in (*one.against, *one.pairs))  # four seeds are too few
    estimates = mean_of_records(store, "ap")
    for row in one.rows:
        found = row.intervals["ap"]
        assert found.estimate == pytest.approx(estimates[row.augmenter], abs=1e-12) and found.runs == 4
        assert 0 <= found.low < found.estimate < found.high <= 1
    difference = estimates["cutpaste"] - estimates["none"]
    assert one.against[0].alone.estimate == pytest.approx(difference, abs=1e-12)


def test_the_order_of_the_runs_does_not_matter(store):
    filled(store)
    records = load_records(store)
    expected = expected_from_records(records)
    orders = (expected.sort_values(["augmenter", "seed"], ascending=[True, rising]) for rising in (True, False))
    some, other = (build_evidence(store, cells, records, resamples=200)[0].against[0].together for cells in orders)
    assert (some.low, some.high) == pytest.approx((other.low, other.high), abs=1e-12)


# -- nulls


def with_null(store, skill, null_skill):
    """Cells of none, memseg and cutpaste, which the grid names as the null of memseg."""
    filled(store, ("none",))
    for seed in range(4):
        write(store, cell("memseg", seed), skill)
        write(store, cell("cutpaste", seed), null_skill)
    records = load_records(store)
    expected = expected_from_records(records)
    return records, expected.assign(null=expected["augmenter"].map({"memseg": "cutpaste"}))


@pytest.mark.parametrize(
    "skill, null_skill, finding",
    [
        (1.6, 0.4, "gain over null shown"),
        (2.6, 1.6, "gain over null shown"),  # the null gains, too
        (1.6, 1.6, "null itself gains"),
        (0.8, 0.6, "gain over null not shown"),
        (0.4, 0.4, "no gain to explain"),
    ],
)
def test_a_gain_is_checked_against_the_null_of_its_row(store, skill, null_skill, finding):
    records, expected = with_null(store, skill, null_skill)
    (one,) = build_evidence(store, expected, records, resamples=500)
    (check,) = one.checks
    assert str(check.finding) == finding
    assert (check.gain.row, check.null_gain.row) == (("memseg", 80), ("cutpaste", 80))
    assert check.over.alone.estimate == pytest.approx(check.gain.alone.estimate - check.null_gain.alone.estimate)
    assert f"; {finding} (cutpaste)." in sentences_of(one)[1]
    (sheet,) = (sheet for sheet in section_of(one).sheets if sheet.title.startswith("Artefacts"))
    assert sheet.rows[0].texts[0] == "memseg" and sheet.rows[0].texts[-1] == finding
    lines = {line["line"]: line for line in csv.DictReader(io.StringIO(to_csv([one])))}
    assert (lines["over_null"]["versus"], lines["over_null"]["finding"]) == ("cutpaste", finding)
    assert lines["null"]["augmenter"] == "cutpaste" and lines["null"]["versus"] == "none"


def test_without_nulls_nothing_is_said_about_artefacts(store):
    filled(store)
    (one,) = evidence_of(store)
    assert not one.checks and not any("Artefacts" in (sheet.title or "") for sheet in section_of(one).sheets)


def test_the_null_of_a_row_comes_from_the_grid():
    null = {"name": "cutpaste", "null_of": ["memseg"]}
    plan, without = (tiny_plan(augmenters=["none", "memseg", last]) for last in (null, "cutpaste"))
    assert {one["augmenter"]: one["null"] for one in expected_of(plan)} == {
        "none": None,
        "memseg": "cutpaste",
        "cutpaste": None,
    }
    assert plan.by_key.keys() == without.by_key.keys()


@pytest.mark.parametrize(
    "augmenters, text",
    [
        (["none", {"name": "memseg", "null_of": ["memsg"]}], "'memsg' is no other augmenter here"),
        (["none", {"name": "memseg", "null_of": ["memseg"]}], "'memseg' is no other augmenter here"),
        (
            ["memseg", {"name": "cutpaste", "null_of": ["memseg"]}, {"name": "diag", "null_of": ["memseg"]}],
            "'memseg' has 'cutpaste' already",
        ),
    ],
)
def test_a_null_of_nothing_is_refused(augmenters, text):
    with pytest.raises(UserError, match=text):
        tiny_grid(augmenters=augmenters)


def mean_of_records(store, metric):
    return load_records(store).groupby("augmenter")[metric].mean()


def test_the_trapezoidal_ap_is_resampled_where_the_protocol_has_it(store):
    for seed in range(3):
        write(store, cell("none", seed, ap="trapezoidal"))
    (one,) = evidence_of(store)
    mean = mean_of_records(store, "ap_trapezoidal")["none"]
    assert one.rows[0].intervals["ap"].estimate == pytest.approx(mean, abs=1e-12)


def test_pairing_removes_the_difficulty_of_the_items(store):
    """Both rows are wrong on the same items: what they differ by is known better than either."""
    for name in ("none", "memseg"):
        for seed in range(4):
            write(store, cell(name, seed), skill=1.0, own_noise=0.1)
    (one,) = evidence_of(store)
    width = {row.augmenter: row.intervals["ap"].high - row.intervals["ap"].low for row in one.rows}
    (difference,) = one.against
    assert difference.alone.high - difference.alone.low < 0.5 * min(width.values())


def test_images_of_one_item_are_resampled_together(store):
    """Images of one item are correlated: resampled separately, they would give intervals that are too narrow."""
    filled(store, ("none",), seeds=3)
    (together,) = evidence_of(store)
    for name in [store.name("scores", key) for key in store.keys("cells")]:
        table = scores_frame(store.files.read(name))
        store.files.write(name, scores_bytes(table.assign(group=table["id"])))
    (apart,) = evidence_of(store)
    assert apart.groups == 2 * together.groups
    assert apart.rows[0].intervals["ap"].parts["items"] < 0.9 * together.rows[0].intervals["ap"].parts["items"]


def test_two_runs_are_too_few(store):
    filled(store, seeds=2)
    (one,) = evidence_of(store)
    assert {str(c.verdict) for c in (*one.against, *one.pairs)} == {"too few runs to say"}


def test_recognition_has_accuracy_and_macro_f1(store):
    filled(store, ("none", "memseg"), dataset="neu", shots=5, draw=0)
    (one,) = evidence_of(store)
    assert one.metrics == ("accuracy", "macro_f1") and one.defective_groups == one.groups == 20
    for metric in one.metrics:
        mean = mean_of_records(store, metric)["memseg"]
        assert one.rows[1].intervals[metric].estimate == pytest.approx(mean, abs=1e-12)
    assert one.against[0].verdict == "better"
    assert "difference in accuracy" in [column.title for column in section_of(one).sheets[1].columns]


def test_only_runs_that_both_rows_have_are_compared(store):
    for one in [cell("none", seed) for seed in range(5)] + [cell("memseg", seed) for seed in range(2, 7)]:
        write(store, one)
    (one,) = evidence_of(store)
    (difference,) = one.against
    assert difference.alone.runs == difference.seeds == 3


@pytest.mark.parametrize(
    ("defects", "freedom"),
    [
        ([2, 3], 3),  # of six items in each fold: the rarer kind, 1 + 2
        ([1, 3], 7),  # a single defect: its fold is one stratum of six
        ([6, 6], 10),  # one kind alone
    ],
)
def test_degrees_of_freedom_over_items_add_up_over_folds(defects, freedom):
    rows = [(fold, index < number) for fold, number in enumerate(defects) for index in range(6)]
    items = pd.DataFrame(rows, columns=["fold", "defective"]).assign(group=range(len(rows)))
    assert _item_freedom(items, _strata(items)) == freedom


@pytest.mark.parametrize(
    ("fills", "groups", "runs", "parts"),
    [
        ([{"seeds": 1}], 80, 1, {"items"}),
        # Folds of a partition share no items and are fixed.
        ([{"seeds": 3, "dataset": "tile", "fold": fold} for fold in range(2)], 160, 3, {"items", "seed"}),
        # Random splits share items and are drawn again.
        ([{"seeds": 2, "dataset": "neu", "fold": fold, "test_share": 0.3} for fold in range(4)], 20, 8,
         {"items", "seed", "fold"}),
        ([{"seeds": 3, "shots": 5, "draw": draw} for draw in range(3)], 80, 9, {"items", "draw", "seed"}),
    ],
)  # fmt: skip
def test_intervals_and_variance_have_the_sources_that_the_runs_differ_in(store, fills, groups, runs, parts):
    for axes in fills:
        filled(store, ("none", "memseg"), **axes)
    (one,) = evidence_of(store)
    assert one.groups == groups and one.smallest == 20
    assert all(set(row.intervals[one.headline].parts) == parts for row in one.rows)
    for row, tabled in zip(one.rows, one.table.rows, strict=True):
        stat = tabled.stats[one.headline]
        assert (row.intervals[one.headline].runs, row.runs, stat.n) == (runs, runs, runs)
        assert row.intervals[one.headline].estimate == pytest.approx(stat.mean)
    assert all(row.variance.is_split == (len(fills) > 1) for row in one.rows)
    if "draw" in parts:
        (sheet,) = [sheet for sheet in section_of(one).sheets if sheet.title == "Where the variance of AP comes from"]
        assert isnan(one.rows[0].variance.fold) and "draw of shots" in [column.title for column in sheet.columns]


@pytest.mark.parametrize(
    ("fills", "texts"),
    [
        ([{"seeds": 2}], ["too few runs to say"]),
        ([{"augmenters": ["none"], "seeds": 1}],
         ["One run: the interval covers other test items alone, not other seeds.",
          "One run per row: the variance between runs is unknown."]),
        ([{"seeds": 4}],
         ["with 4 paired seeds an exact one has no p below .125. There is one from 7 on (.016).",
          "Runs differ in their seed alone: no variance to split. The seed of a cell is both that of its pool and that "
          "of its classifier",
          "a row without synthetic images has no pool, so its variance is the classifier's."]),
        ([{"augmenters": ["none", "memseg", "cutpaste", "a", "b"], "seeds": 7}],
         ["With 7 seeds and 4 comparisons no p can be below .062: it takes 8 seeds to reach .050."]),
        ([{"augmenters": ["memseg"], "shots": 0, "n_aug": n} for n in (40, 80)],
         ["All rows are of memseg: there is no other to compare it with."]),
        ([{"seeds": 3, "dataset": name} for name in ("plate", "tile")],
         ["they need 8 datasets with the same augmenters, protocol and shots; here the most are 2."]),
    ],
)  # fmt: skip
def test_what_the_runs_do_not_tell_is_explained(store, fills, texts):
    for axes in fills:
        filled(store, **axes)
    text = printed(store)
    assert all(one in text for one in texts), text


# -- against


def test_without_a_row_of_real_images_memseg_is_the_baseline(store):
    filled(store, ("memseg", "cutpaste"), shots=0)
    (one,) = evidence_of(store)
    assert one.baseline == "memseg" and [c.augmenter for c in one.against] == ["cutpaste"] and not one.pairs


def test_another_baseline_is_compared_at_the_same_n_aug(store):
    filled(store, ("none", "memseg", "cutpaste"))
    filled(store, ("memseg",), n_aug=40)
    (one,) = evidence_of(store, against="cutpaste")
    assert {(c.augmenter, c.n_aug, c.versus_n_aug) for c in one.against} == {("memseg", 80, 80)}
    assert "Against cutpaste" in printed(store, against="cutpaste")


def test_a_table_without_a_baseline_says_so(store):
    filled(store, ("cutpaste", "memseg"), seeds=3, shots=0)
    filled(store, ("memseg", "none"), seeds=3, shots="all")
    assert "No row of none to compare the others with: --against names another." in printed(store, against="none")


# -- tests over seeds


def test_from_seven_seeds_on_p_is_exact_and_holds_for_all(store):
    filled(store, ("none", "memseg", "cutpaste", "worse"), seeds=7)
    (one,) = evidence_of(store)
    assert [c.p for c in one.against[:2]] == [2 / 128, 2 / 128]  # all seeds agree
    assert one.against[0].p_holm == pytest.approx(3 * 2 / 128)
    text = printed(store)
    assert "exact two-sided sign-flip test" in text and "after Holm over 3 comparisons" in text
    many = comparison_notes(one, [replace(other, seeds=20) for other in one.against])
    assert any(note.startswith("p: two-sided sign-flip test, by 100,000 random signs, of the mean") for note in many)
    assert str(one.against[2].verdict) == "worse"


# -- rows without a seed


def test_a_run_without_seed_is_paired_with_every_seed_of_its_fold_and_draw():
    none = {(0, -1, -1, 0): "a", (1, -1, -1, 0): "b"}
    memseg = {(0, -1, 0, 0): "c", (0, -1, 1, 0): "d", (1, -1, 0, 0): "e", (2, -1, 0, 0): "f"}
    paired = {(0, -1, 0, 0): ("c", "a"), (0, -1, 1, 0): ("d", "a"), (1, -1, 0, 0): ("e", "b")}
    assert pair_runs(memseg, none) == paired
    assert pair_runs(none, memseg) == {run: pair[::-1] for run, pair in pair_runs(memseg, none).items()}
    assert pair_runs(none, none) == {run: (key, key) for run, key in none.items()}
    assert pair_runs(memseg, {(0, -1, 1, 0): "g"}) == {(0, -1, 1, 0): ("d", "g")}


# -- adapters


def test_runs_of_several_adapters_are_paired_with_the_run_of_a_row_that_has_none():
    memseg, ddpm = {(0, -1, 0, 0): "m"}, {(0, -1, 0, 0): "a", (0, -1, 0, 1): "b"}
    assert pair_runs(ddpm, memseg) == {(0, -1, 0, 0): ("a", "m"), (0, -1, 0, 1): ("b", "m")}
    inout = {(0, -1, 0, 1): "i"}
    assert pair_runs(ddpm, inout) == {(0, -1, 0, 1): ("b", "i")}  # its first adapter is still missing


def of_adapters(store, adapter_seeds):
    """Rows of none, memseg and ddpm, whose four seeds share an adapter for each of its seeds."""
    filled(store, ("none", "memseg"))
    for adapter_seed in adapter_seeds:
        for seed in range(4):
            one = replace(cell("ddpm", seed), adapter_seed=adapter_seed)
            lineage = {"pools": [], "adapters": [f"ddpm-a{adapter_seed}"], "searches": []}
            write(store, one, skill=1.0 + 0.5 * adapter_seed, lineage=lineage)


def test_compare_says_where_intervals_hold_no_adaptation_variance(store):
    of_adapters(store, [0])
    text = printed(store)
    assert "No adaptation variance: all seeds of 'ddpm' share what was learned once" in text
    assert "several adapter_seeds in the grid would" in text


def test_several_adapters_widen_the_interval_by_their_variance(store):
    of_adapters(store, [0, 1, 2])
    (one,) = evidence_of(store)
    (row,) = [row for row in one.rows if row.augmenter == "ddpm"]
    parts = row.intervals["ap"].parts
    assert row.found == 12 and set(parts) == {"items", "seed", "adapter"} and parts["adapter"] > parts["seed"] > 0
    (difference,) = [c for c in one.against if c.augmenter == "ddpm"]
    assert difference.together.runs == 12 and difference.seeds == 4
    text = printed(store)
    assert "No adaptation variance" not in text and "adapter" in text


def frozen_evidence(store, **changes):
    fill(store, frozen_plan(**{"protocols": [PROBE], "shots": [5], **changes}))
    (one,) = evidence_of(store)
    return one, {row.augmenter: row for row in one.rows}


def test_a_row_without_seed_counts_once_and_is_compared_with_all_seeds(store):
    one, rows = frozen_evidence(store)
    (difference,) = one.against
    assert (rows["none"].found, rows["none"].has_seed, rows["memseg"].has_seed) == (1, False, True)
    assert rows["none"].intervals["ap"].runs == 1 and set(rows["none"].intervals["ap"].parts) == {"items"}
    assert isnan(rows["none"].variance.seed)
    means = mean_of_records(store, "ap")
    assert difference.alone.estimate == pytest.approx(means["memseg"] - means["none"], abs=1e-12)
    assert difference.alone.runs == difference.seeds == 3 and difference.verdict == "better"
    of_seeds = rows["memseg"].intervals["ap"].parts["seed"]  # a constant has no variance over seeds
    assert difference.alone.parts["seed"] == pytest.approx(of_seeds, abs=1e-12) and of_seeds > 0
    text = printed(store)
    assert "none has no seed, as nothing is random in it: each of its runs is paired with every pool seed" in text
    assert "The seed of a cell is that of its pool alone, since its classifier has none." in text
    assert "it screens augmenters" in text and "One run" not in text and "of its classifier, so" not in text
    assert "with 1 to 3 runs a row" in text


def test_seven_seeds_are_tested_against_a_row_without_any(store):
    one, _ = frozen_evidence(store, seeds=[*range(7)])
    assert one.against[0].seeds == 7 and one.against[0].p == 2 / 128


def test_draws_of_a_row_without_seed_are_resampled_and_split(store):
    one, rows = frozen_evidence(store, draws=[0, 1, 2])
    assert set(rows["none"].intervals["ap"].parts) == {"items", "draw"} and rows["none"].variance.draw >= 0
    assert set(one.against[0].alone.parts) == {"items", "draw", "seed"} and one.against[0].alone.runs == 9
    assert "The seed of a cell is that of its pool alone, since its classifier has none." in printed(store)


@pytest.mark.parametrize(
    ("grid", "text"),
    [
        ({"protocols": [NORMALS], "shots": [0]}, "One run per row, as nothing is random in it: no variance to split."),
        ({"augmenters": ["none"], "draws": [0, 1, 2]}, "Runs differ in their draw alone: no variance to split."),
    ],
)
def test_a_table_of_rows_without_seed_alone(store, grid, text):
    one, _ = frozen_evidence(store, **grid)
    assert not one.against and text in printed(store)


# -- what is wrong with a store


def test_scores_that_are_missing_or_of_another_run_are_refused(store):
    one, other = filled(store, ("none",), seeds=2)
    scores = path_of(store, "scores", one.key)
    whole = scores.read_bytes()
    scores.write_bytes(path_of(store, "scores", other.key).read_bytes())
    with pytest.raises(UserError, match=r"give ap 0\.\d+, their record says 0\.\d+"):
        evidence_of(store)
    scores.write_bytes(whole[:100])
    with pytest.raises(UserError, match="are damaged"):
        evidence_of(store)
    scores.unlink()
    with pytest.raises(UserError, match=r"scores '.*' are missing: run the grid again"):
        evidence_of(store)


def test_cells_without_a_record_are_marked(store):
    cells = filled(store, ("none", "memseg"))
    records = load_records(store)
    expected = expected_from_records(records)
    path_of(store, "cells", cells[-1].key).unlink()
    (one,) = build_evidence(store, expected, load_records(store), resamples=300)
    assert [(row.found, row.expected) for row in one.rows] == [(4, 4), (3, 4)]
    assert one.against[0].alone.runs == 3 and not any(row.efficient for row in one.rows)


# -- costs


def put_pool(store, one, seconds=16.0, pictures=80, learns=None, device="cpu one"):
    shots, draw = (one.shots, one.draw) if learns else (None, None)
    pool = PoolSpec(one.data, one.augmenter, shots, draw, one.seed, 20)
    record = {"key": pool.key, "spec": pool.as_dict(), "pictures": pictures, "chunks": [0, 1, 2, 3],
              "provenance": {"seconds": seconds, "device": device, "git_sha": None, "versions": {}}}  # fmt: skip
    store.write_json_at(store.pool_file(pool.key), record)
    return pool


def put_adapter(store, adapter, seconds, shared=None):
    """An adapter, and the class images that it uses; ``shared``: None in older records."""
    provenance = {"seconds": seconds, "device": "cpu one", "git_sha": None, "versions": {}}
    provenance |= {} if shared is None else {"shared_seconds": shared}
    record = {"key": adapter.key, "spec": adapter.as_dict(), "provenance": provenance}
    store.write_json_at(f"{store.name('adapters', adapter.key)}/adapter.json", record)
    for key in shared or ():
        store.write_json_at(f"shared/{key}/shared.json", {"key": key, "seconds": 31.0})


def learner(store):
    """Cells of an augmenter that learns from the shots, with its pools; returns its adapter, which is not there."""
    for seed in range(3):
        one = cell("ddpm", seed, n_aug=40, shots=5, draw=0)
        write(store, one)
        pool = put_pool(store, one, learns=True)
    return pool.adapter


@pytest.mark.parametrize(
    ("seconds", "shared", "cost"),
    [
        (100.0, {"class-x": 30.0}, RowCost(0, 31, 70, 8, ("cpu one",))),
        (70.0, {"class-x": 0.0}, RowCost(0, 31, 70, 8, ("cpu one",))),  # class images that were there are paid for, too
        (100.0, None, RowCost(0, 0, 100, 8, ("cpu one",), told_apart=False)),
    ],
)
def test_the_cost_of_a_row_is_what_one_classifier_of_it_needs(store, seconds, shared, cost):
    put_adapter(store, learner(store), seconds, shared)
    assert evidence_of(store)[0].rows[0].cost == cost
    assert ("do not record class images separately" in printed(store)) == (not cost.told_apart)


def test_what_is_not_on_record_does_not_count_as_free(store):
    learner(store)  # no adapter
    filled(store, ("none",), shots=5, draw=0)
    (one,) = evidence_of(store)
    assert one.rows[0].cost == RowCost() and one.rows[1].cost is None
    assert "The cost of the images is not on record" in printed(store)


def test_a_pool_for_all_regimes_is_not_mistaken_for_one_of_these_shots(store):
    """DDPM reads no shots at zero-shot: that pool is another one than that of the five."""
    one = cell("ddpm", 0, n_aug=40, shots=5, draw=0)
    write(store, one)
    put_pool(store, one)
    put_adapter(store, AdapterSpec(one.data, one.augmenter, None, None), 100.0, {})
    assert evidence_of(store)[0].rows[0].cost is None
    on_the_page = Costs(gather([store])).of(one.key)
    assert not on_the_page.is_whole and on_the_page.total == 0


@pytest.mark.parametrize("recorded", [True, False])
def test_without_its_plugin_a_cell_is_billed_what_its_record_names_and_nothing_else(store, tmp_path, recorded):
    """Pools of several regimes may fit an older record; one of an installed plug-in is inferred."""
    parts = Store(tmp_path / "parts")
    one, loaded = (cell(name, n_aug=40, shots=5, draw=0) for name in ("elsewhere", "memseg"))
    put_pool(parts, one, seconds=8.0)  # of zero-shot
    pool, plain = put_pool(parts, one, seconds=16.0, learns=True), put_pool(parts, loaded, seconds=4.0)
    for adapter in (pool.adapter, AdapterSpec(one.data, one.augmenter, None, None)):
        put_adapter(parts, adapter, 100.0, {})
        parts.write_json("searches", SearchSpec(adapter).key, {"provenance": {"seconds": 5.0, "device": "cpu one"}})
    store.write_json_at(COSTS, costs_of(parts))
    for made, used, adapters in ((one, pool, [pool.adapter]), (loaded, plain, [])):
        lineage = {"pools": [{"key": used.key, "n": 40}], "adapters": [adapter.key for adapter in adapters],
                   "searches": [SearchSpec(adapter).key for adapter in adapters]}  # fmt: skip
        write(store, made, lineage=lineage if recorded else None)
    write(store, cell("none", shots=5, draw=0))
    costs = {row.augmenter: row.cost for row in evidence_of(store)[0].rows}
    gathered = gather([store])
    on_the_page = Costs(gathered).of(one.key)
    (table,) = board_of(gathered).content["tables"]
    texts = {row["augmenter"]: row["values"]["cost"]["text"] for row in table["rows"]}
    assert costs["memseg"].total == 2
    note = "The pools of 2 of 2 records were inferred from their settings: these records are older than the recorded"
    if recorded:
        assert costs["elsewhere"].total == on_the_page.total == 113 and on_the_page.is_whole
        assert texts["elsewhere"] == "1.9 min" and "inferred" not in printed(store)
        assert not any("inferred" in line for line in table["notes"])
    else:
        assert costs["elsewhere"] is None and on_the_page.total == 0 and texts["elsewhere"] == DASH
        assert note in printed(store) and any(line.startswith(note) for line in table["notes"])


def test_a_row_that_is_better_and_no_dearer_makes_others_inefficient():
    def row(cost, value, complete=True):
        return (None if cost is None else RowCost(generating=cost), value, complete)

    assert efficient([row(0, 0.5), row(10, 0.6), row(20, 0.6), row(30, 0.7)]) == [True, True, False, True]
    assert efficient([row(10, 0.6), row(10, 0.6)]) == [True, True]
    assert efficient([row(10, 0.6), row(20, 0.9, complete=False), row(None, 0.9)]) == [False, False, False]


def test_costs_of_a_store_are_read_where_its_parts_are_gone(store, tmp_path):
    adapter = learner(store)
    put_adapter(store, adapter, 100.0, {"class-x": 30.0})
    store.write_json("searches", SearchSpec(adapter).key, {"provenance": {"seconds": 5.0, "device": "cpu one"}})
    content = costs_of(store)
    assert {part["kind"] for part in content["costs"].values()} == {"pools", "adapters", "searches", "shared"}
    published = Store(tmp_path / "published")
    for name in [store.name(kind, key) for kind in ("cells", "scores") for key in store.keys("cells")]:
        published.files.write(name, store.files.read(name))
    published.write_json_at(COSTS, content)
    assert read_costs(published) == read_costs(store) and costs_of(published) == content
    assert evidence_of(published)[0].rows[0].cost == evidence_of(store)[0].rows[0].cost


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"schema": 2, "costs": {}}, "is not a list of costs of schema 1"),
        ({"schema": 1, "costs": {"k": {"kind": "pools", "seconds": 1.0}}}, "is damaged at 'k'"),
        ({"schema": 1, "costs": {"k": {"kind": "adapters", "seconds": -1}}}, "has -1 seconds"),
        ({"schema": 1, "costs": {"k": {"kind": "other", "seconds": 1}}}, "is damaged at 'k'"),
        ({"schema": 1, "costs": {"k": {"kind": "shared", "what": 1}}}, "is damaged at 'k'"),
    ],
)
def test_damaged_costs_are_named(store, content, text):
    store.write_json_at(COSTS, content)
    with pytest.raises(UserError, match=text):
        read_costs(store)


def test_an_adaptation_tells_what_shared_parts_took(store, monkeypatch):
    from augbench.stages import adapt as job
    from augbench.stages.context import Context

    library = Library.of(tiny_grid(augmenters=["none"]).datasets)
    data = DataSpec("surfaces", "surfaces", {}, library.fingerprint("surfaces", None), None, 0.0)

    class Learner(Augmenter):
        def reads(self, shots):
            return frozenset({"negatives"})

        def adapt(self, view, out, seed, context):
            for _ in range(2):
                folder = context.shared("class-x", lambda made: (made / "a.txt").write_text("a"))
            (out / "read.txt").write_text((folder / "a.txt").read_text())

    monkeypatch.setattr(job, "chosen_augmenter", lambda context, spec: (Learner(), None))
    specs = [AdapterSpec(data, AugmenterSpec("toy", "toy", {}, {"limit": n}), None, None) for n in (1, 2)]
    for spec in specs:
        job.adapt(Context(store, library, "cpu", None), spec)
    records = (json.loads((path_of(store, "adapters", s.key) / "adapter.json").read_text()) for s in specs)
    first, second = (record["provenance"] for record in records)
    assert 0 < first["shared_seconds"]["class-x"] < first["seconds"]
    assert second["shared_seconds"] == {"class-x": 0.0}
    parts = read_costs(store)
    assert parts["class-x"].kind == "shared" and parts["class-x"].seconds > 0
    own_seconds = first["seconds"] - first["shared_seconds"]["class-x"]
    assert parts[specs[0].key].own_seconds == pytest.approx(own_seconds)


# -- ranks


def texts_of(svg):
    return {element.text for element in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")}


def test_from_eight_datasets_on_there_are_ranks_and_a_diagram(store, tmp_path):
    for number in range(8):
        filled(store, seeds=3, dataset=f"plate{number}")
    (found,) = rankings(evidence_of(store, resamples=200))
    assert found.augmenters == ("none", "cutpaste", "memseg") and len(found.datasets) == 8
    assert found.ranks.average[0] == 3 and sum(found.ranks.average) == pytest.approx(6)
    assert str(tmp_path / "cd.svg") in compare(store, out=tmp_path, resamples=200)
    assert {"none", "memseg", "cutpaste", "critical difference 1.17"} <= texts_of(tmp_path / "cd.svg")
    assert "average rank" in (tmp_path / "compare.md").read_text()


# -- files


@pytest.fixture
def out(store, tmp_path):
    """The files of a table with intervals, both kinds of comparison, and costs."""
    for one in filled(store):
        if one.n_aug:
            put_pool(store, one, seconds=4.0 if one.augmenter.name == "memseg" else 9.0)
    compare(store, out=tmp_path / "out", resamples=500)
    return tmp_path / "out"


def test_files_say_the_same(out):
    assert sorted(path.name for path in out.iterdir()) == [
        "compare.csv", "compare.json", "compare.md", "compare.tex", "pareto.svg"]  # fmt: skip
    (table,) = json.loads((out / "compare.json").read_text())["tables"]
    lines = list(csv.DictReader(io.StringIO((out / "compare.csv").read_text())))
    assert [line["line"] for line in lines] == ["interval"] * 3 + ["against"] * 2 + ["pair"]
    for line, row in zip(lines, table["rows"], strict=False):
        assert float(line["estimate"]) == row["intervals"]["ap"]["estimate"]
        assert float(line["low"]) == row["intervals"]["ap"]["low"]
        assert float(line["cost_seconds"]) == row["cost"]["total"]
    assert [line["verdict"] for line in lines[3:]] == [c["verdict"] for c in table["against"] + table["pairs"]]
    markdown, latex = (out / "compare.md").read_text(), (out / "compare.tex").read_text()
    for text in ("better", "no detectable difference"):
        assert text in markdown and text in latex
    assert "![Metric against cost](pareto.svg)" in markdown and latex.count(r"\begin{table}") == 4


def test_the_plot_has_every_row_that_costs_something(out):
    assert {"memseg", "cutpaste", "80", "none (costs nothing)"} <= texts_of(out / "pareto.svg")


def test_equal_stores_give_equal_bytes(store, out, tmp_path):
    compare(Store(store.url), out=tmp_path / "again", resamples=500)
    first, again = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (out, tmp_path / "again"))
    assert again == first


def test_what_stands_in_other_tables_changes_nothing(store):
    filled(store)
    (alone,) = evidence_of(store)
    filled(store, dataset="plate")
    beside = next(one for one in evidence_of(store) if one.table.dataset == "ksdd2")
    assert beside.against == alone.against


def test_smoke_test_parts_are_reported(store):
    (one, *_) = filled(store)
    record = store.read_record(one.key)
    record["provenance"]["embedded"] = ["dataset surfaces"]
    store.write_json("cells", one.key, record)
    assert "smoke-test parts: not evidence (dataset surfaces)" in printed(store)


# -- the command


def test_the_command_writes_into_the_store_and_prints(store):
    filled(store, seeds=3)
    result = cli("compare", store.url, "--resamples", "200")
    assert result.returncode == 0, result.stderr
    assert "Against none" in result.stdout and "better" in result.stdout
    assert (store.files.folder / "reports" / "all" / "compare.json").is_file()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--grid", "nothing"], ["knows no grid 'nothing'"]),
        (["--set", "seeds=[0]"], ["--set and --root are for the datasets of a grid file: give --grid FILE too"]),
        (["--against", "memsek"], ["--against 'memsek' is no augmenter of this grid (did you mean 'memseg'?)"]),
        (["--resamples", "3"], ["--resamples", "greater than or equal to 200"]),
    ],
)
def test_mistakes_end_in_one_line(store, options, text):
    filled(store, ("none", "memseg"), seeds=1)
    assert_one_line(cli("compare", store.url, *options), *text)


def test_an_empty_store_is_named(tmp_path):
    assert_one_line(cli("compare", tmp_path / "none"), "does not exist or holds no records")


def test_a_long_list_is_cut_to_what_is_decided_in_the_terminal_alone(store, tmp_path):
    names = ["none", *(f"a{i}" for i in range(9))]  # 36 pairs
    for name in names:
        for seed in range(3):
            write(store, cell(name, seed), skill=0.0 if name == "a8" else 1.5)
    text = printed(store, out=tmp_path)
    decided = [c for c in evidence_of(store)[0].pairs if c.verdict in ("better", "worse")]
    assert 0 < len(decided) < 36
    assert f"{36 - len(decided)} of 36 differences are neither better nor worse: they are in compare.md." in text
    whole = (tmp_path / "compare.md").read_text().split("### Between augmenters")[1]
    assert whole.count("no detectable difference |") == 36 - len(decided)


def test_the_baseline_is_known_by_a_name_with_a_digest_too():
    assert baseline_among({"memseg #e170b6", "diag"}) == "memseg #e170b6"
    assert baseline_among({"none", "memseg #e170b6"}) == "none"
    assert baseline_among({"memseg #e170b6", "memseg #4ae2a8"}) == ""  # neither is more so than the other
    assert baseline_among({"diag"}) == "" and baseline_among({"diag", "none"}, "diag") == "diag"


def test_a_single_item_of_a_kind_shares_the_stratum_of_its_fold():
    """Blocks of many images nearly all show a defect: one that does not has no variance of its own."""
    items = pd.DataFrame({"fold": [0] * 6 + [1] * 5, "group": [*"abcdefghijk"]})
    items["defective"] = [True] * 4 + [False] * 2 + [True] * 4 + [False]
    assert _strata(items).groupby(_strata(items)).size().tolist() == [2, 4, 5]
