"""Splits of synthetic tables: random shares, items that all have a defect, training without defects."""

import layouts
import numpy as np
import pandas as pd
import pytest
from helpers import TINY, on_disk, tiny_grid, tiny_plan

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset
from augbench.core.errors import UserError
from augbench.core.specs import DataSpec
from augbench.planning.splits import choose_shots, drawn_share, make_split
from augbench.runner.driver import run

SHARE = {**TINY, "test_share": 0.3}


class Table(Dataset):
    """A dataset that consists of a table of (label, group, split) only."""

    name = "table"

    def __init__(self, rows, folds=5, task="detection"):
        super().__init__()
        table = pd.DataFrame(rows, columns=["label", "group", "split"])
        ids = [f"{number:05d}" for number in range(len(table))]
        self.table = table.assign(id=ids, image="", mask="")[list(SAMPLE_COLUMNS)]
        self.folds, self.task = folds, task

    def samples(self):
        return self.table


def spec(fold=0, holdout=0.0, test_share=None):
    return DataSpec("table", "table", {}, "f" * 64, fold, holdout, (), test_share)


def neu():
    """Build 6 x 300 samples, each its own group except for one pair."""
    rows = [(f"class{c}", f"{c}-{i}", "") for c in range(6) for i in range(300)]
    rows[301] = ("class1", "1-0", "")
    return Table(rows, task="recognition")


def items(count=30, good=7, folds=3):
    """Build items that each have one defect image and several normal images, as in KolektorSDD."""
    return Table([(label, f"item{i:02d}", "") for i in range(count) for label in ["defect"] + [GOOD] * good], folds)


# -- a share to test on


def test_a_share_of_neu_is_the_papers_seven_to_three():
    dataset, seen, draws = neu(), [], 6
    for fold in range(draws):
        split = make_split(dataset, spec(fold, test_share=0.3))
        assert (len(split.test), len(split.positives), len(split.negatives)) == (540, 1260, 0)
        assert set(split.test["label"].value_counts()) == {90}
        assert not set(split.test["group"]) & set(split.positives["group"])
        seen.append(frozenset(split.test["id"]))
    overlaps = [len(seen[0] & other) for other in seen[1:]]
    assert max(overlaps) < 220 and min(overlaps) > 110  # independent draws: 162 of 540 on average


def test_the_pair_of_neu_moves_together():
    sides = {
        frozenset(make_split(neu(), spec(fold, test_share=0.3)).test.query("group == '1-0'")["id"])
        for fold in range(12)
    }
    assert {len(side) for side in sides} == {0, 2}  # in training or in test, never split


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5])
def test_a_share_of_uneven_groups_is_about_that_share_of_every_label(share):
    rng = np.random.default_rng(0)
    rows = [
        (label, f"g{group}", "")
        for group in range(120)
        for label in rng.choice([GOOD, "dent", "crack"], rng.integers(1, 9), p=[0.7, 0.2, 0.1])
    ]
    table = Table(rows).samples()
    for number in range(4):
        tested = drawn_share(table, share, "table", number)
        assert (table.assign(tested=tested).groupby("group")["tested"].nunique() == 1).all()
        for label, rows_of in table.groupby("label"):
            assert tested[rows_of.index].mean() == pytest.approx(share, abs=0.08), label
        assert np.array_equal(tested, drawn_share(table, share, "table", number))


def test_a_share_enters_keys_only_where_it_decides(tmp_path):
    folds = on_disk("folder", layouts.draw_folder(tmp_path / "folder"), augmenters=["none"], shots=["all"])
    official = on_disk("ksdd2", layouts.draw_ksdd2(tmp_path / "ksdd2"), augmenters=["none"], shots=["all"])
    for changes, decides in ((folds, True), (official, False)):
        plain, share = (
            tiny_plan(**changes, protocols=[{"name": "t", **fields}]).cells[0].data for fields in (TINY, SHARE)
        )
        assert ("test_share" in share.identity) is decides and "test_share" not in plain.identity
        assert (plain.digest != share.digest) is decides
        assert DataSpec.from_dict(share.as_dict()) == share
    assert share.fold is None and share.test_share is None


def test_draws_of_a_share_have_no_end_and_folds_have(tmp_path):
    changes = on_disk("folder", layouts.draw_folder(tmp_path), augmenters=["none"], shots=["all"], folds=[7])
    plan = tiny_plan(**changes, protocols=[{"name": "t", **SHARE}])
    assert plan.cells[0].data.fold == 7
    split = plan.library.split(plan.cells[0].data)
    assert len(split.test) == round(0.3 * 16) + 2 * round(0.3 * 8)
    with pytest.raises(UserError, match="fold 7 does not exist"):
        tiny_plan(**changes)


# -- hold-out


def test_where_every_item_has_a_defect_whole_items_are_held_out():
    for fold in range(3):
        full = make_split(items(), spec(fold))
        split = make_split(items(), spec(fold, holdout=0.1))
        held = set(split.heldout["group"])
        assert set(split.heldout["label"]) == {GOOD} and len(split.heldout) == 7 * len(held)
        assert len(split.heldout) == pytest.approx(0.1 * len(full.negatives), abs=7 / 2)
        trained = set(split.negatives["group"]) | set(split.positives["group"])
        assert trained and not held & trained and not set(split.test["group"]) & (held | trained)
        assert held | trained == set(full.positives["group"])
        used = pd.concat([split.negatives, split.positives, split.heldout, split.test])["id"]
        table = items().samples()
        left_out = table[~table["id"].isin(used)]
        assert set(left_out["group"]) == held and set(left_out["label"]) == {
            "defect"
        }  # neither trained on nor evaluated
        pd.testing.assert_frame_equal(split.test, full.test)


def test_items_are_left_alone_where_one_group_has_no_defect():
    dataset = items()
    dataset.table.loc[dataset.table["group"].isin(("item00", "item01", "item02")), "label"] = GOOD
    for fold in range(3):
        full, split = make_split(dataset, spec(fold)), make_split(dataset, spec(fold, holdout=0.1))
        assert set(split.heldout["group"]) <= {"item00", "item01", "item02"}
        pd.testing.assert_frame_equal(split.positives, full.positives)


def test_hold_out_of_one_large_item_is_refused():
    with pytest.raises(UserError, match="no group of normal images small enough to hold out 20%"):
        make_split(items(count=2, good=20, folds=2), spec(holdout=0.2))


# -- training without defects


def mvtec(train_defects=0):
    rows = [(GOOD, f"a{i}", "train") for i in range(20)] + [(GOOD, f"b{i}", "test") for i in range(8)]
    return Table(
        rows
        + [("dent", f"c{i}", "test") for i in range(5)]
        + [("dent", f"d{i}", "train") for i in range(train_defects)],
        folds=0,
    )


def test_training_without_defects_serves_zero_shot_only():
    split = make_split(mvtec(), spec(None, holdout=0.2))
    assert (len(split.negatives), len(split.positives), len(split.heldout), len(split.test)) == (16, 0, 4, 13)
    assert choose_shots(split, spec(None), 0, None, False).empty
    for shots in (1, 5, "all"):
        with pytest.raises(UserError, match=rf"no defect images for training.*asks for {shots}: only shots: \[0\]"):
            choose_shots(split, spec(None), shots, 0, False)


@pytest.mark.parametrize("label", [GOOD, "dent"])
def test_both_kinds_are_needed_for_evaluation(label):
    dataset = mvtec(train_defects=3)
    dataset.table = dataset.table[(dataset.table["split"] == "train") | (dataset.table["label"] == label)]
    with pytest.raises(UserError, match=r"the test side has no (normal|defect) images"):
        make_split(dataset, spec(None))


def test_recognition_needs_defects_to_train_on():
    dataset = mvtec()
    dataset.task = "recognition"
    with pytest.raises(UserError, match="the training side has no defect images"):
        make_split(dataset, spec(None))


@pytest.fixture
def changes(tmp_path):
    """Changes for `tiny`: a dataset whose defects are all in the test split."""
    settings = layouts.draw_folder_csv(tmp_path)
    table = pd.read_csv(tmp_path / "table.csv")
    table[(table["label"] == "good") | (table["split"] == "test")].to_csv(tmp_path / "table.csv", index=False)
    return on_disk("folder", settings, n_aug=[4])


def test_plan_refuses_unavailable_shots(changes):
    zero = tiny_plan(**changes, shots=[0])
    assert [(cell.augmenter.alias, cell.shots) for cell in zero.cells] == [("memseg", 0)]
    for shots in ([0, 2], ["all"]):
        with pytest.raises(UserError, match=r"dataset 'folder' has no defect images for training"):
            tiny_plan(**changes, shots=shots)


def test_zero_shot_without_any_real_defect_trains(changes, store):
    run(tiny_grid(**changes, shots=[0]), store, executor="inline")
    (key,) = store.keys("cells")
    counts = store.read_record(key)["result"]["counts"]
    assert (counts["shots"], counts["synthetic"]) == (0, 4) and counts["train_negatives"] > 0
