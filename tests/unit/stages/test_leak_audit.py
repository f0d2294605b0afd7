"""The leak audit: what `datasets check`, `run`, `plan`, tables and publications make of near-copies."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import on_disk, tiny_grid
from layouts import draw_folder, save
from PIL import Image
from rich.console import Console

from augbench.cli.datasets_view import check_dataset
from augbench.cli.plan_view import print_plan
from augbench.core.specs import AuditSpec
from augbench.planning.audits import Audit, audits_of, percent
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.report.publish.export import export
from augbench.report.publish.verify import check_results
from augbench.report.store_report import report
from augbench.runner.driver import run
from augbench.stages.leak_audit import audit_all, is_problem
from augbench.storage.publication import ARCHIVES, packed
from augbench.storage.store import Store, json_lines


@pytest.fixture
def leaking(tmp_path):
    """A folder whose first normal images come again, darker: 8 of 40 images."""
    settings = draw_folder(tmp_path / "data")
    for path in sorted((tmp_path / "data" / "good").glob("*.png"))[:8]:
        image = np.asarray(Image.open(path))
        save((image * 0.8).astype(np.uint8), path.with_name(f"copy_{path.name}"))
    return settings


def grid_of(settings, **changes):
    return tiny_grid(augmenters=["none"], shots=["all"], folds=[0, 1], **on_disk("folder", settings), **changes)


def checked(settings, *changes, **options):
    console = Console(file=io.StringIO(), width=200)
    problems = check_dataset("folder", Path(settings["root"]), changes, options.pop("store", None), console, **options)
    return console.file.getvalue(), problems


def test_check_names_the_leak_and_proposes_groups(leaking, tmp_path):
    groups, pairs = tmp_path / "groups.csv", tmp_path / "pairs.png"
    text, problems = checked(leaking, groups=groups, pairs=pairs)
    assert len(problems) == 1 and "near-copies across the split" in problems[0] and "--groups" in problems[0]
    assert "8 pairs of near-copies" in text and "32 independent items" in text
    assert "item      good/000.png = good/copy_000.png, 2 images" in text
    table = pd.read_csv(groups)
    assert list(table) == ["image", "group"] and len(table) == 40 and table["group"].nunique() == 32
    assert Image.open(pairs).size[0] > 400


def test_with_groups_there_is_no_leak(leaking, tmp_path):
    groups = tmp_path / "groups.csv"
    checked(leaking, groups=groups)
    table = pd.read_csv(groups)
    table.assign(label=table["image"].str.split("/").str[0]).to_csv(Path(leaking["root"]) / "table.csv", index=False)
    text, problems = checked(leaking, "csv=table.csv")
    assert not problems and "all is well" in text and "across the split" not in text


def test_proposed_groups_are_used_at_once_and_end_the_leak(leaking, tmp_path):
    root = Path(leaking["root"])
    text, _ = checked(leaking, groups=tmp_path / "groups.csv")
    assert f"copy it into '{root}', then use it as setting, --set groups=groups.csv" in text
    text, _ = checked(leaking, groups=root / "groups.csv")
    assert "use it as setting, --set groups=groups.csv" in text and "copy it" not in text
    text, problems = checked(leaking, "groups=groups.csv")
    assert not problems and "all is well" in text and "across the split" not in text


def test_groups_are_no_way_out_of_a_split_that_is_given(leaking):
    good = Path(leaking["root"]) / "good"
    table = pd.DataFrame({"image": [f"good/{path.name}" for path in sorted(good.iterdir())], "label": "good"})
    table["split"] = np.where(table["image"].str.contains("copy"), "test", "train")
    defects = [f"scratch/{path.name}" for path in sorted(good.with_name("scratch").iterdir())]
    rows = pd.DataFrame({"image": defects, "label": "scratch", "split": ["train", "test"] * (len(defects) // 2)})
    pd.concat([table, rows]).to_csv(good.with_name("table.csv"), index=False)
    _, problems = checked(leaking, "csv=table.csv")
    assert "groups cannot change a split that is given" in problems[0]


def test_a_known_pair_does_not_make_a_dataset_grouped(leaking):
    root = Path(leaking["root"])
    table = pd.DataFrame({"image": ["good/000.png", "good/copy_000.png"], "group": ["a", "a"]})
    table.to_csv(root / "groups.csv", index=False)
    _, problems = checked(leaking, "groups=groups.csv")
    assert len(problems) == 1 and "near-copies across the split" in problems[0]


def test_a_leak_is_a_problem_from_one_percent_on_without_groups():
    def result(copies, grouped=False):
        return {"grouped": grouped, "folds": [{"fold": None, "test": 1000, "copies": copies}]}

    assert is_problem(result(10)) and not is_problem(result(9)) and not is_problem(result(900, grouped=True))


def test_run_audits_once_and_tables_plans_and_publications_tell(leaking, store, tmp_path):
    grid = grid_of(leaking)
    plan = make_plan(grid)
    console = Console(file=io.StringIO(), width=300)
    print_plan(plan, subtract(plan, store), store, console)
    assert "near-copies across the split of 'folder': not audited" in console.file.getvalue()
    run(grid, store, "inline", console=Console(file=io.StringIO()))
    (key,) = store.keys("audits")
    record = store.read_json("audits", key)
    assert not list(audit_all(make_plan(grid), store)) and store.read_json("audits", key) == record
    test, copies = (sum(fold[name] for fold in record["result"]["folds"][:2]) for name in ("test", "copies"))
    console = Console(file=io.StringIO(), width=300)
    print_plan(plan, subtract(plan, store), store, console)
    assert "near-copies across the split of 'folder': " in console.file.getvalue()
    report(store, "tiny", out=tmp_path / "report")
    told = f"Near-copies across the split: {percent(copies / test)} of the test images."
    assert copies and told in (tmp_path / "report" / "report.md").read_text()
    export(store, tmp_path / "published")
    published = Store(tmp_path / "published")
    assert published.keys("audits") == {key} and (tmp_path / "published" / ARCHIVES["audits"]).is_file()
    assert told in next((tmp_path / "published").rglob("report.md")).read_text()
    assert not check_results(tmp_path / "published").refused
    record["result"]["folds"][0]["copies"] = 999
    (tmp_path / "published" / ARCHIVES["audits"]).write_bytes(packed(json_lines([record])))
    assert any("near-copies" in problem for problem in check_results(tmp_path / "published").refused)


def test_check_and_run_share_an_audit(leaking, tmp_path):
    store = Store(tmp_path / "store")
    checked(leaking, store=store.url)
    (spec,) = audits_of(make_plan(grid_of(leaking))).values()
    assert store.keys("audits") == {spec.key}


def test_another_content_or_split_is_another_audit():
    spec = AuditSpec("folder", {}, "a", (0, 1))
    changed = [("b", (0, 1), None), ("a", (), None), ("a", (0, 1), 0.3)]
    others = [AuditSpec("folder", {}, *one) for one in changed]
    assert len({one.key for one in (spec, *others)}) == 4
    assert AuditSpec.from_dict(json.loads(json.dumps(spec.as_dict()))).key == spec.key


def test_an_audit_by_an_older_method_keeps_its_key_and_is_made_again():
    stored = AuditSpec("folder", {}, "a", (0, 1), method=1)
    assert stored.key == "folder-c9f7f81b" and AuditSpec.from_dict(stored.as_dict()).key == stored.key
    assert AuditSpec("folder", {}, "a", (0, 1)).key != stored.key


def test_texts():
    assert Audit("k").text() == "not audited"
    assert Audit("k", {0: (100, 0), 1: (100, 50)}).text([0]) == "none found"
    assert Audit("k", {0: (100, 0), 1: (100, 50)}).text() == "25 %"
    assert percent(0.004) == "0.4 %"


def test_drawn_datasets_have_no_audit():
    assert not audits_of(make_plan(tiny_grid()))
