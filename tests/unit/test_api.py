"""The Python API: what it returns, how it shows itself, and that it says what the command line says."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, TINY_PROBE, cli, grid_file, tiny
from rich.console import Console

import augbench
from augbench import api
from augbench.report.frame import RESULT_COLUMNS, load_records
from augbench.report.publish.agreement import again, apart_by_seeds
from augbench.report.publish.comment import to_comment
from augbench.report.publish.verify import CheckResult
from augbench.runner.driver import Stopped
from augbench.storage.store import Store

AXES = {"protocols": [TINY_PROBE], "augmenters": ["none", "memseg"], "shots": [5], "seeds": [0, 1, 2]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def ran(place):
    """A grid of frozen features that ran from a dict, inline."""
    return augbench.run(tiny(**AXES), place / "s", "inline")


def test_importing_is_fast_as_it_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import augbench; print(*sorted(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.partition(".")[0] for name in found} - {"augbench", *sys.stdlib_module_names}, found
    assert [name for name in found if name.startswith("augbench")] == ["augbench"]


def test_every_name_is_there_for_users_and_for_type_checkers():
    tree = ast.parse(Path(augbench.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in checked.body for alias in node.names}
    assert typed == set(augbench.__all__) <= set(dir(augbench))
    for node in checked.body:
        for alias in node.names:
            assert getattr(augbench, alias.name) is getattr(sys.modules[node.module], alias.name)
    with pytest.raises(AttributeError, match="no attribute 'plam'"):
        getattr(augbench, "plam")  # noqa: B009


def test_a_plan_counts_what_is_done(ran, place):
    new = augbench.plan(tiny(**AXES), place / "new")
    assert len(new.cells) == 4 and not new.cells["done"].any()
    assert not (place / "new").exists(), "planning writes nothing"
    done = augbench.plan(ran.grid, ran.store)
    assert done.cells["done"].all() and list(done.cells["key"]) == list(new.cells["key"])
    assert "done: all 4 cells are in" in repr(done)


def test_a_grid_is_a_file_a_dict_or_a_grid(place):
    path = grid_file(place, **AXES)
    from_file, from_dict = augbench.load_grid(path), augbench.load_grid(tiny(**AXES))
    assert from_file == from_dict == augbench.load_grid(from_dict) and isinstance(from_dict, augbench.Grid)
    assert augbench.load_grid({**tiny(**AXES), "protocols": list(from_dict.protocols)}) == from_dict
    assert augbench.load_grid({k: v for k, v in tiny().items() if k != "name"}).name == "grid"
    changed = augbench.load_grid(tiny(**AXES), ["seeds=[7]"])
    assert changed.seeds == (7,) and changed == augbench.load_grid(path, ["seeds=[7]"])
    with pytest.raises(augbench.UserError, match=r"'seeds=\[7\]' changes a file or a dict"):
        augbench.load_grid(from_dict, ["seeds=[7]"])
    with pytest.raises(augbench.UserError, match=r"grid: unknown key 'shotz' .did you mean 'shots'"):
        augbench.load_grid({**tiny(), "shotz": 5})


def test_results_are_the_records(ran, place):
    results = augbench.load_results(place / "s")
    assert list(results.columns) == list(RESULT_COLUMNS)
    records = load_records(Store(place / "s"))
    assert results.set_index("key")["ap"].to_dict() == records.set_index("key")["ap"].to_dict()
    assert list(results["augmenter"]) == ["memseg"] * 3 + ["none"] and list(results["seed"]) == [0, 1, 2, None]
    assert ran.results.equals(augbench.load_results(str(place / "s"), "tiny"))
    with pytest.raises(augbench.UserError, match=r"knows no grid 'tini' .did you mean 'tiny'"):
        augbench.load_results(place / "s", "tini")
    with pytest.raises(augbench.UserError, match="does not exist or holds no records"):
        augbench.load_results(place / "nothing")


def test_a_comparison_is_that_of_the_command_and_writes_nothing(ran, place):
    before = sorted(place.rglob("compare*"))
    found = augbench.compare(place / "s", resamples=200)
    assert sorted(place.rglob("compare*")) == before
    (gain,) = found.gains.to_dict("records")
    assert (gain["grid"], gain["augmenter"], gain["versus"], gain["runs"]) == ("tiny", "memseg", "none", 3)
    assert gain["low_together"] <= gain["estimate"] <= gain["high_together"]
    printed = cli("compare", place / "s", "--resamples", 200, "--out", place / "c")
    assert gain["verdict"] in printed.stdout
    assert (place / "c" / "compare.csv").read_text().count("\n") == len(found.frame) + 1
    by_grid = augbench.compare(place / "s", grid_file(place, **AXES), resamples=200)
    assert by_grid.frame.equals(found.frame)


def test_what_is_returned_shows_itself_escaped(ran, place):
    tables = augbench.tables(place / "s")
    page = augbench.leaderboard(place / "s", place / "page", images=False)
    assert page.read_bytes().startswith(b"<!DOCTYPE html>")
    plan = augbench.plan({**tiny(**AXES), "about": "<script>alert()</script>"}, place / "s")
    for one in (ran, tables, augbench.compare(place / "s", resamples=200), plan, ran.grid, ran.grid.protocols[0]):
        html = one._repr_html_()
        assert "<table>" in html and "<script" not in html
        assert "memseg" in html or isinstance(one, augbench.Protocol)
    assert "&lt;script&gt;" in plan._repr_html_()
    ap = f"{ran.results.query('augmenter == `none`'.replace('`', chr(34)))['ap'].mean():.3f}".removeprefix("0")
    assert ap in repr(tables) and ap in tables._repr_html_()


def test_cells_that_fail_are_an_error(place, monkeypatch):
    def fail(*_):
        raise augbench.UserError("no <such> thing")

    monkeypatch.setattr("augbench.runner.inline.train_cell", fail, raising=True)
    grid = tiny(**{**AXES, "augmenters": ["none"], "seeds": [0]})
    with pytest.raises(Stopped, match=r"0 of 1 cells are done; failed: surfaces-none-few5.*no <such> thing.*to go on"):
        augbench.run(grid, place / "failing", "inline")
    ran = augbench.run(grid, place / "failing", "inline", partial=True)
    assert ran.summary.done == 0 and len(ran.summary.failures) == 1
    assert "0 of 1 cells" in repr(ran)


def published_elsewhere(place):
    """A copy of the store whose records are of another device and a little off, as if published from there."""
    shutil.copytree(place / "s", place / "elsewhere")
    store = Store(place / "elsewhere")
    for key in sorted(store.keys("cells")):
        record = store.read_json("cells", key)
        record["provenance"]["device"] = "another device"
        record["result"]["ap"] -= 0.004
        store.write_json("cells", key, record)
    return place / "elsewhere"


def test_published_cells_are_trained_again(ran, place):
    quiet = Console(quiet=True)
    same = api.rerun(place / "s", 2, 5, console=quiet)
    assert same.agrees and [one.finding("ap") for one in same.cells] == ["equal", "equal"]
    assert "2 of 2 cells agree; chosen from 4 with seed 5." in repr(same) and same.cells[0].device in repr(same)
    folder = published_elsewhere(place)
    near = api.rerun(folder, 1, 5, console=quiet)
    (one,) = near.cells
    assert near.agrees and one.other == ("device",) and one.finding("ap") == "within 0.01"
    assert one.metrics["ap"][1] == pytest.approx(one.metrics["ap"][0] + 0.004)
    assert "published on another device" in repr(near)
    strict = cli("results", "rerun", folder, "--sample", 1, "--seed", 5, "--tolerance", 0.001)
    assert strict.returncode == 2 and "apart by more than 0.001" in strict.stdout
    with pytest.raises(augbench.UserError, match="knows no grid 'x'"):
        api.rerun(place / "s", grid="x")


def test_equal_device_and_versions_demand_an_equal_result(ran):
    record = ran.store.read_record(ran.results["key"][0])
    off = {**record, "result": {**record["result"], "ap": record["result"]["ap"] + 1e-12}}
    assert again(record, record).agrees and not again(record, off, tolerance=1.0).agrees
    assert again(record, off).finding("ap") == "DIFFERS: same device and versions"


def moved(record, seed=0, adapters=(), **metrics):
    """A copy of a record: metrics moved by these amounts, with another seed, and images from these adapters."""
    return {
        **record,
        "spec": {**record["spec"], "seed": seed},
        "provenance": {**record["provenance"], "adapters": list(adapters)},
        "result": {**record["result"], **{name: record["result"][name] + by for name, by in metrics.items()}},
    }


def test_elsewhere_only_metrics_that_rank_all_images_are_compared(ran):
    record = ran.store.read_record(ran.results["key"][0])
    record = {**record, "result": {**record["result"], "recall_at_1pct_false_alarms": 0.5}}
    elsewhere = {**record, "provenance": {**record["provenance"], "device": "another device"}}
    coarse = again(elsewhere, moved(record, ap=0.004, recall_at_1pct_false_alarms=-0.4))
    assert coarse.agrees and coarse.finding("ap") == "within 0.01"
    assert coarse.finding("recall_at_1pct_false_alarms") == "not compared"
    assert coarse.metrics["recall_at_1pct_false_alarms"] == pytest.approx((0.5, 0.1))
    ranks = again(elsewhere, moved(record, auroc=-0.02))
    assert not ranks.agrees and ranks.finding("auroc") == "apart by more than 0.01"


def test_a_network_that_is_trained_elsewhere_is_like_another_seed(ran):
    record = ran.store.read_record(ran.results["key"][0])
    elsewhere = {**record, "provenance": {**record["provenance"], "device": "another device"}}
    now = moved(record, adapters=["a"], ap=0.054)
    name = record["spec"]["protocol"]["name"]
    few = [moved(record, 0, ["a"]), moved(record, 1, ["a"], ap=0.04)]
    limit = apart_by_seeds(few, name)
    assert not again(elsewhere, moved(record, adapters=["a"], ap=0.011), by_seeds=0.005).agrees  # a probe's .01 stays
    assert limit == pytest.approx(1.96 * 0.04, rel=1e-3)  # two values .04 apart: sqrt(2) * sd = .04
    assert again(elsewhere, now, by_seeds=limit).agrees and not again(elsewhere, now).agrees
    assert not again(elsewhere, moved(record, ap=0.05), by_seeds=limit).agrees  # a probe, and no adapter behind it
    assert apart_by_seeds(few, "another protocol") == apart_by_seeds(few[:1], name) == 0.0
    assert apart_by_seeds([moved(record, 0), moved(record, 1, ap=0.04)], name) == 0.0


def test_cells_whose_files_are_not_here_are_counted(place, ran):
    shutil.copytree(place / "s", place / "gone")
    store = Store(place / "gone")
    content = store.read_json("grids", "tiny")
    content["grid"]["datasets"] = [{"name": "ksdd2"}]
    store.write_json("grids", "tiny", content)
    with pytest.raises(augbench.UserError, match=r"no cell can be trained here: the files of 'ksdd2' are not here"):
        api.rerun(place / "gone")


def test_a_check_as_a_comment(place):
    result = CheckResult(["cell 'a|b': <b>wrong</b>"] * 50, ["a note"], {"cell": 1200})
    text = to_comment(Path("results/x"), result)
    assert text.startswith("### `results/x`: refused") and "| 1,200 |" in text and "- and 10 more" in text
    assert "cell 'a\\|b': \\<b\\>wrong" in text and "<summary>Notes (1)</summary>" in text
    fine = cli("results", "check", ROOT / "results" / "magnetic_tile_diag", "--format", "github")
    assert fine.returncode == 0 and "magnetic_tile_diag`: all is well" in fine.stdout and "| 9 |" in fine.stdout


def test_try_folder_states_what_is_wrong(place):
    with pytest.raises(augbench.UserError, match="--budget 'soon': write 90s, 15m or 2h"):
        augbench.try_folder(place, budget="soon")
    with pytest.raises(augbench.UserError, match="gone"):
        augbench.try_folder(place / "gone", place / "answer", executor="inline")
