"""Reports: classes, confusion, drawn splits; and records from before there were any of these."""

import json

import pytest
from boards import expected_cell
from test_report import cell, lines_of, metrics_at, protocol, tables_of, write, write_all

from augbench.report import build_tables, expected_frame, load_records
from augbench.report.frame import expected_from_records
from augbench.report.numbers import stat_of
from augbench.report.table_exports import to_json

DETECTION = {"ap": 0.6, "ap_step": 0.6, "ap_trapezoidal": 0.6, "auroc": 0.9, "oracle": metrics_at(0.7, 0.5),
             "heldout": None, "recall_at_1pct_false_alarms": 0.25}  # fmt: skip


def detection(dent, crack):
    classes = {name: {"support": 4, "ap": ap, "recall": ap / 2, "heldout_recall": None}
               for name, ap in (("dent", dent), ("crack", crack))}  # fmt: skip
    return {**DETECTION, "per_class": classes}


def recognition(matrix, **more):
    scores = {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 4}
    return {"accuracy": 0.8, "macro_f1": 0.7, "confusion": matrix, "classes": ["a", "b"],
            "per_class": {"a": scores, "b": {**scores, "f1": 1.0}}} | more  # fmt: skip


def test_classes_follow_their_cells_in_csv_and_json(store):
    cells = [cell(n_aug=n, seed=seed) for n in (80, 100) for seed in (0, 1)]
    for one, dent in zip(cells, (0.2, 0.4, 0.6, 0.6), strict=True):
        write(store, one, result=detection(dent, 0.9))
    tables = tables_of(store, cells)
    lines = lines_of(tables)
    assert [(line["row"], line["class"], line["n_aug"]) for line in lines] == [
        ("cells", "", "80"), ("class", "crack", "80"), ("class", "dent", "80"),
        ("cells", "", "100"), ("class", "crack", "100"), ("class", "dent", "100"), ("average", "", "")]  # fmt: skip
    dent = lines[2]
    assert float(dent["ap_mean"]) == pytest.approx(0.3) and float(dent["ap_std"]) == pytest.approx(0.2 / 2**0.5)
    assert float(dent["recall_mean"]) == pytest.approx(0.15) and float(dent["support_mean"]) == 4
    assert dent["heldout_recall_mean"] == dent["auroc_mean"] == dent["precision_mean"] == ""
    assert float(lines[0]["recall_at_1pct_false_alarms_mean"]) == 0.25 and lines[0]["support_mean"] == ""
    row = json.loads(to_json("x", tables))["tables"][0]["rows"][0]
    assert row["per_class"]["crack"]["ap"] == {"mean": 0.9, "std": 0.0, "n": 2} and row["confusion"] is None
    assert row["per_class"]["crack"]["heldout_recall"] == {"mean": None, "std": None, "n": 0}


def test_recognition_has_classes_and_the_sum_of_confusions(store):
    cells = [cell(seed=seed) for seed in (0, 1)]
    for one, matrix in zip(cells, ([[3, 1], [0, 4]], [[2, 2], [1, 3]]), strict=True):
        write(store, one, result=recognition(matrix))
    tables = tables_of(store, cells, task="recognition")
    row = json.loads(to_json("x", tables))["tables"][0]["rows"][0]
    assert row["confusion"] == {"classes": ["a", "b"], "matrix": [[5, 3], [1, 7]]}
    assert row["per_class"]["a"]["f1"]["mean"] == pytest.approx(1 / 3)
    cells_line, a, b = [line for line in lines_of(tables) if line["row"] != "confusion"]
    assert (a["class"], b["class"]) == ("a", "b") and float(b["f1_mean"]) == 1 and float(a["precision_mean"]) == 0.5
    assert float(cells_line["macro_f1_mean"]) == 0.7 and cells_line["f1_mean"] == a["ap_mean"] == ""


def test_older_records_have_no_classes_and_are_no_error(store):
    cells = [cell(seed=seed) for seed in (0, 1)]
    write(store, cells[0])  # as before there were any
    alone = lines_of(tables_of(store, cells[:1]))
    assert len(alone) == 1 and alone[0]["recall_at_1pct_false_alarms_mean"] == ""
    write(store, cells[1], result=detection(0.5, 0.9))
    assert load_records(store)["recall_at_1pct_false_alarms"].isna().sum() == 1
    both = lines_of(tables_of(store, cells))
    assert [line["class"] for line in both] == ["", "crack", "dent"]
    assert float(both[0]["recall_at_1pct_false_alarms_mean"]) == 0.25 and float(both[2]["ap_mean"]) == 0.5
    old = recognition([[1, 0], [0, 1]])
    del old["per_class"]
    write(store, cells[0], result=old)
    line = lines_of(tables_of(store, cells[:1], task="recognition"))[0]
    assert not line["class"]
    assert float(line["accuracy_mean"]) == 0.8


def test_records_from_before_a_field_was_there_are_of_the_same_protocol(store):
    old, _ = write_all(store, [cell(n_aug=80), cell(n_aug=100)])
    record = store.read_record(old.key)
    for field in ("batchnorm", "test_share"):
        del record["spec"]["protocol"][field]
    store.write_json("cells", old.key, record)
    assert set(expected_from_records(load_records(store))["protocol"]) == {"inout"}
    other = cell(n_aug=120, preset=protocol(batchnorm="eval_after_first_epoch"))
    write(store, other)
    assert expected_from_records(load_records(store))["protocol"].str.startswith("inout #").all()


@pytest.mark.parametrize(
    ("folds", "title", "over"),
    [((0,), "split 0 (30 % test)", "over 2 seeds."),
     ((0, 1, 2), "splits 0-2 (30 % test)", "x 3 drawn splits, pooled.")],
)  # fmt: skip
def test_drawn_splits_are_runs_of_their_own_and_not_called_folds(store, folds, title, over):
    cells = [cell(fold=fold, seed=seed) for fold in folds for seed in (0, 1)]
    for one in cells:
        write(store, one, ap=(one.data.fold + one.seed) / 4)
    expected = [{**expected_cell(one), "test_share": 0.3} for one in cells]
    (table,) = build_tables(expected_frame(expected), load_records(store))
    assert table.title.endswith(f", {title}") and table.captions[0].endswith(over)
    assert "fold" not in table.title + table.captions[0]
    assert table.rows[0].stats["ap"] == stat_of((fold + seed) / 4 for fold in folds for seed in (0, 1))
    line = lines_of([table])[0]
    assert (line["test_share"], line["folds"]) == ("0.3", " ".join(map(str, folds))) and line["runs"] == str(len(cells))
