"""`augbench status`: the progress of a store, from its contents."""

import io
import json
import os
import socket
import subprocess
import sys
import time

import pytest
import yaml
from frozen_cells import frozen_plan
from helpers import TOY, assert_one_line, cli, path_of, tiny, tiny_grid, tiny_plan
from rich.console import Console

from augbench.cli import status as command
from augbench.cli.status_view import as_dict, print_status, to_json
from augbench.core import registry
from augbench.core.errors import UserError
from augbench.monitoring.known_grids import known_from_plan, known_from_store
from augbench.monitoring.status import FEW, STAGES, look
from augbench.planning.grid import load_grid
from augbench.planning.outline import expected_of, outline_of, stored_grid
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.storage import leases as leases_module
from augbench.storage.leases import Leases, abandoned, heartbeat_name, lease_name, survey

GRID = {"augmenters": ["none", "memseg", "toy"], "n_aug": [6, 30], "seeds": [0, 1]}  # 2 none, 8 memseg, 8 toy
ELSEWHERE = "no-host-of-ours"


@pytest.fixture
def plan():
    return tiny_plan(**GRID)


@pytest.fixture
def planned(store, plan):
    """A store after planning, before any work."""
    store.write_json("grids", "tiny", stored_grid(plan))
    return store


def finish(store, cells):
    """Write files by which the planner counts these cells as done."""
    for cell in cells:
        store.files.write(store.name("scores", cell.key), b"")
        store.write_json("cells", cell.key, {})


def make_chunk(store, pool, chunk):
    store.files.write(store.chunk_name(pool, chunk), b"")


def fail(store, spec, error="RuntimeError: it broke", attempts=1):
    note = {"key": spec.key, "spec": {}, "error": error, "by_user": False, "attempts": attempts, "traceback": ""}
    store.write_json("failures", spec.key, note)


def driver_elsewhere(store, *keys, name="a1", since=None, host=ELSEWHERE, pid=4711, **process):
    """Write a heartbeat and leases, as `Leases` does, of a run on another machine; return its owner."""
    owner, process = f"{host}-{pid}-{name}", {"host": host, "pid": pid, **process}
    heartbeat = {**process, "since": time.time() - 1000 if since is None else since}
    store.files.write(heartbeat_name(owner), json.dumps(heartbeat).encode())
    for key in keys:
        store.files.write(lease_name(key), json.dumps({"owner": owner, **process}).encode())
    return owner


def age(store, name, seconds):
    then = time.time() - seconds
    os.utime(store.files.folder / name, (then, then))


def seen(store):
    return look(store, known_from_store(store))


def status_of(store):
    (grid,) = seen(store).grids
    return grid


def counts(grid, stage="cells"):
    return tuple(grid.stages[stage][state] for state in ("done", "running", "failed", "missing"))


def printed(status, width=100):
    out = io.StringIO()
    print_status(status, Console(file=out, width=width))
    return out.getvalue()


def pool_of(plan, augmenter, shots=None, seed=0):
    wanted = (augmenter, shots, seed)
    return next(pool for pool in plan.pools.values() if (pool.augmenter.name, pool.shots, pool.seed) == wanted)


# -- which grid


def test_a_file_is_planned_into_a_store_that_is_not_there(store, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny()))
    answer = cli("status", store.url, "--grid", path, "--set", "seeds=[0,1]", "--json")
    assert answer.returncode == 0, answer.stderr
    (grid,) = json.loads(answer.stdout)["grids"]
    assert grid["planned"] == "file" and grid["name"].startswith("tiny+")
    assert grid["stages"]["cells"] == {"done": 0, "running": 0, "failed": 0, "missing": 6, "total": 6}
    assert grid["again"] == f"augbench run {path} --set 'seeds=[0,1]' --store {store.url}"
    assert not store.exists()  # status creates no files


def test_user_errors(store, planned, tmp_path):
    assert_one_line(cli("status", tmp_path / "empty"), "knows no grid yet", "--grid FILE")
    assert_one_line(cli("status", planned.url, "--grid", "tinny"), "did you mean 'tiny'?")
    assert_one_line(cli("status", planned.url, "--set", "seeds=0"), "give --grid FILE")
    path = tmp_path / "absent.yaml"
    path.write_text(yaml.safe_dump(tiny(datasets=["ksdd2"])))
    assert_one_line(cli("status", planned.url, "--grid", path), "ksdd2", "--grid tiny")
    unknown_pool = {"cells": {"a": {"block": "b", "takes": {"p": 1}}}, "pools": {}, "fidelity": {}}
    for outline in ({"cells": {}, "pools": [], "fidelity": {}}, {**unknown_pool, "cells": {}}, unknown_pool):
        planned.write_json("grids", "tiny", {"cells": [{"key": "a"}], "outline": outline})
        with pytest.raises(UserError, match="does not list the cells"):
            known_from_store(planned)


def test_a_grid_of_an_earlier_version_has_cells_alone(store, plan):
    store.write_json("grids", "tiny", {"grid": {}, "cells": expected_of(plan)})
    finish(store, plan.cells[:3])
    fail(store, plan.cells[3])
    found = seen(store)
    (grid,) = found.grids
    assert counts(grid) == (3, 0, 1, len(plan.cells) - 4)
    assert [stage for stage in STAGES if grid.stages[stage] is None] == [
        "searches",
        "adapters",
        "pools",
        "features",
        "fidelity",
    ]
    assert "earlier version" in printed(found)


def test_a_stored_grid_is_a_grid_file(tmp_path, plan, planned):
    """The retry command is exact, also after --set; the outline is the plan's."""
    (known,) = known_from_store(planned)
    assert known.outline == outline_of(plan) and known.complete
    for name in ("tiny", "tiny+0a1b2c"):
        planned.write_json("grids", name, stored_grid(tiny_plan(**GRID, name=name)))
        again = load_grid(path_of(planned, "grids", name))
        assert make_plan(again).by_key.keys() == plan.by_key.keys() and again.name == name
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_grid(broken)


# -- counts


def test_fresh_store(planned, plan):
    grid = status_of(planned)
    assert counts(grid) == (0, 0, 0, 18) and counts(grid, "pools") == (0, 0, 0, 6) and not grid.done
    assert counts(grid, "adapters") == (0, 0, 0, 2)  # toy, at zero-shot and with 5
    assert grid.chunks == (0, 2 * 2 + 4 * 8) and grid.eta_seconds is None
    assert "nobody is at work on this grid" in printed(seen(planned))


def test_half_done_store(planned, plan):
    """Compare every count with the planner's subtraction."""
    memseg = [cell for cell in plan.cells if cell.augmenter.name == "memseg"]
    finish(planned, [cell for cell in plan.cells if cell.augmenter.name == "none"] + memseg[:3])
    planned.files.remove(planned.name("scores", memseg[0].key))  # without its scores it is trained again
    toy, zero = pool_of(plan, "toy", 5), pool_of(plan, "toy")
    for pool, file in ((toy, "adapter.json"), (zero, "mean.json")):  # without its marker an adapter is not done
        planned.files.write(f"{planned.name('adapters', pool.adapter.key)}/{file}", b"{}")
    for pool, chunk in ((toy, 0), (toy, 1), (toy, 2), (pool_of(plan, "memseg"), 0), (pool_of(plan, "memseg"), 1)):
        make_chunk(planned, pool, chunk)
    for key in planned.keys("cells"):  # the planner reads them
        planned.write_json("cells", key, {"key": key, "spec": {}, "result": {}, "provenance": {}})
    left, grid = subtract(plan, planned), status_of(planned)
    assert counts(grid) == (left.done, 0, 0, len(left.cells)) == (4, 0, 0, 14)
    assert grid.chunks[1] - grid.chunks[0] == len(left.chunks)
    assert counts(grid, "pools") == (1, 0, 0, 5)
    assert counts(grid, "adapters") == (1, 0, 0, 1) and len(left.adapters) == 1


def test_done_store_needs_no_pools_any_more(planned, plan):
    finish(planned, plan.cells)
    found = seen(planned)
    assert found.done and counts(found.grids[0], "pools") == (6, 0, 0, 0)
    assert found.grids[0].chunks == (36, 36)
    assert "tiny: done, all 18 cells" in printed(found)


def test_fidelity_counts_what_a_run_would_measure(store):
    plan = tiny_plan(augmenters=["memseg"], shots=[0], seeds=[0, 1], fidelity={"extractor": "micro_resnet"})
    store.write_json("grids", "tiny", stored_grid(plan))
    assert counts(status_of(store), "fidelity") == (0, 0, 0, 2)
    finish(store, plan.cells)
    first, second = plan.fidelity.values()
    store.write_json("fidelity", first.key, {})
    grid = status_of(store)
    assert counts(grid, "fidelity") == (1, 0, 0, 0) and grid.done and "are gone" in grid.notes[0]
    for chunk in range(second.chunks):
        make_chunk(store, second.pool, chunk)
    assert counts(status_of(store), "fidelity") == (1, 0, 0, 1) and not status_of(store).done


# -- features


@pytest.fixture
def probes(store):
    """A planned grid of probes in a store, and its plan: features of a dataset (1 chunk) and of 3 pools (2 each)."""
    plan = frozen_plan(n_aug=[6, 30])
    store.write_json("grids", "tiny", stored_grid(plan))
    return store, plan


def features_of(plan, pool=None):
    """The features of a pool, or of the dataset."""
    return next(spec for spec in plan.features.values() if spec.pool == pool)


def test_features_are_a_stage(probes):
    store, plan = probes
    pool = pool_of(plan, "memseg")
    assert counts(status_of(store), "features") == (0, 0, 0, 4) and status_of(store).feature_chunks == (0, 7)
    for spec in (features_of(plan), pool, features_of(plan, pool)):
        make_chunk(store, spec, 0)
    store.files.write(f"{store.name('features', features_of(plan, pool).key)}/00001.provenance.json", b"{}")
    owner = driver_elsewhere(store, features_of(plan, pool).key, since=time.time() - 100)
    found = seen(store)
    (grid,) = found.grids
    assert counts(grid, "features") == (1, 1, 0, 2) and grid.feature_chunks == (2, 7) and grid.drivers == [owner]
    rate = grid.rates["feature_chunks"]
    assert (rate.finished, rate.left) == (2, len(subtract(plan, store).features)) == (2, 5)
    text = " ".join(printed(found).split())
    assert "features 1 1 - 2 4 chunks 2 7" in text and "feature chunks: 5 left, 2 finished" in text


def test_a_done_store_needs_no_features_any_more(probes):
    store, plan = probes
    finish(store, plan.cells)
    found = seen(store)
    assert found.done and counts(found.grids[0], "features") == (4, 0, 0, 0)


@pytest.mark.parametrize(
    ("what", "left"),
    [("dataset", 3 * 2), ("features of a pool", 1 + 2 * 2), ("pool", 1 + 2 * 2)],  # without those that failed or wait
)
def test_failed_features_block_cells(probes, what, left):
    store, plan = probes
    pool = pool_of(plan, "memseg")
    failed = {"dataset": features_of(plan), "features of a pool": features_of(plan, pool), "pool": pool}[what]
    if what == "features of a pool":
        for spec in (pool, failed):
            make_chunk(store, spec, 0)  # enough for 6 images
    fail(store, failed)
    grid = status_of(store)
    fewest = {"dataset": 0, "features of a pool": 30, "pool": 6}[what]
    waiting = [cell for cell in plan.cells if what == "dataset" or (cell.seed == 0 and cell.n_aug >= fewest)]
    (failure,) = grid.failures
    assert (failure.key, failure.stage) == (failed.key, "pools" if what == "pool" else "features")
    assert grid.blocked == failure.waiting == len(waiting) > 0
    assert grid.rates["cells"].left == len(plan.cells) - len(waiting)
    assert grid.rates["feature_chunks"].left == left
    assert what == "pool" or "1 set of features: RuntimeError: it broke" in printed(seen(store))
    assert_schema(as_dict(seen(store)))


# -- drivers


def test_a_live_driver_elsewhere(planned, plan):
    pool = pool_of(plan, "memseg")
    cell = next(cell for cell in plan.cells if cell.augmenter.name == "none")
    block = [other for other in plan.cells if other.block == cell.block]
    finish(planned, block[:1])
    driver_elsewhere(planned, pool.key, cell.block)
    found = seen(planned)
    (driver,), (grid,) = found.drivers, found.grids
    assert (driver.host, driver.pid, driver.lives, len(driver.holds)) == (ELSEWHERE, 4711, True, 2)
    assert 999 < driver.seconds < 1060
    assert counts(grid, "pools")[1] == 1 and counts(grid) == (1, len(block) - 1, 0, 18 - len(block))
    assert grid.drivers == [driver.owner]
    assert f"{ELSEWHERE}, process 4711: at work since" in printed(found)


def test_a_silent_driver_holds_nothing(planned, plan):
    owner = driver_elsewhere(planned, plan.cells[0].block)
    age(planned, heartbeat_name(owner), 90)
    found = seen(planned)
    assert not found.drivers[0].lives and counts(found.grids[0])[1] == 0 and found.grids[0].drivers == []
    assert "silent for 90 s" in printed(found)


def test_a_dead_process_of_this_machine(planned, plan):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = driver_elsewhere(planned, plan.cells[0].block, host=socket.gethostname(), pid=gone.pid)
    planned.files.write(heartbeat_name(owner), b"")  # as earlier versions wrote it: the name has the process
    (driver,) = survey(planned.files)
    assert (driver.pid, driver.lives, driver.since) == (gone.pid, False, None)


def test_another_container_of_this_machine(planned, plan):
    """It may share the host name, and its processes are invisible: only the heartbeat's age counts."""
    block, above = plan.cells[0].block, 2**22 + 1  # above every process id
    owner = driver_elsewhere(planned, block, host=socket.gethostname(), pid=above, pids="a boot pid:[1]")
    for lives in (True, False):
        assert survey(planned.files)[0].lives is lives and abandoned(planned.files, block) is not lives
        age(planned, heartbeat_name(owner), 90)


def test_sweep_removes_leases_of_dead_drivers(store):
    """Also leases of done units, which no driver would request again."""
    dead, _ = driver_elsewhere(store, "done-pool", name="dead"), driver_elsewhere(store, "pool", name="alive")
    age(store, heartbeat_name(dead), 90)
    with Leases(store.files) as leases:
        assert leases.acquire("mine")
        leases.sweep()
        assert store.files.names("leases") == {"drivers", "pool", "mine"}
        assert {driver.owner.rpartition("-")[2] for driver in survey(store.files)} == {"alive", leases.owner[-8:]}


def test_survey_sees_what_leases_write(any_store):
    with Leases(any_store.files) as leases:
        assert leases.acquire("cells-abc") and leases.acquire("some-pool")
        (driver,) = survey(any_store.files)
        assert (driver.owner, driver.pid, driver.lives) == (leases.owner, os.getpid(), True)
        assert driver.holds.keys() == {"cells-abc", "some-pool"}
        assert driver.since <= time.time() and driver.seconds < 60
        assert all(0 <= seconds + 2 < 60 for seconds in [driver.silence, *driver.holds.values()])
    assert survey(any_store.files) == []


def test_a_lease_without_heartbeat_lapses(store, monkeypatch):
    store.files.remove(heartbeat_name(driver_elsewhere(store, "a")))
    assert survey(store.files)[0].lives
    monkeypatch.setattr(leases_module, "LIFETIME", -1)
    assert not survey(store.files)[0].lives


def test_survey_tolerates_odd_files(store):
    for number, content in enumerate([b"", b"{", b"[]", b"\xff", b'{"owner": 3}', b'{"owner": "a", "pid": "x"}']):
        store.files.write(lease_name(f"k{number}"), content)
    store.files.write(heartbeat_name("b"), json.dumps({"host": 1, "pid": 10**30, "since": "now"}).encode())
    found = survey(store.files)
    assert [(one.owner, one.host, one.pid, one.since) for one in found] == [
        ("a", "a", None, None),
        ("b", "b", None, None),
    ]


# -- failures


def test_a_failed_cell(planned, plan):
    none = [cell for cell in plan.cells if cell.augmenter.name == "none"]
    fail(planned, none[0], attempts=3)
    found = seen(planned)
    (failure,) = found.grids[0].failures
    assert (failure.key, failure.stage, failure.error, failure.attempts) == (
        none[0].key, "cells", "RuntimeError: it broke", 3,
    )  # fmt: skip
    assert counts(found.grids[0]) == (0, 0, 1, 17)
    text = printed(found)
    assert "1 cell: RuntimeError: it broke" in text and "attempts: 3" in text
    assert f"Try again: augbench --plugin {TOY}" in text and f"--store {planned.url}" in text
    finish(planned, none[:1])  # it succeeded later, despite the failure record
    assert counts(status_of(planned)) == (1, 0, 0, 17) and not status_of(planned).failures


def test_the_command_goes_on_as_the_run_did(store, plan, monkeypatch, tmp_path):
    """With the plug-ins and options that the run had, whatever those of the status command are."""
    plugin = tmp_path / "mine.py"
    plugin.write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_files", {str(plugin): b""})
        plan.library.settings["surfaces"][1]["root"] = "/data/of the #2 run"
        store.write_json("grids", "tiny", stored_grid(plan, {"--address": "auto", "--executor": None}))
    monkeypatch.setattr(registry, "_files", {})
    (known,) = known_from_store(store)
    assert known.again == (
        f"augbench --plugin {plugin} run {store.where('grids', 'tiny')} "
        f"""--set 'datasets.surfaces.root="/data/of the #2 run"' --store {store.url} --address auto"""
    )
    assert known_from_plan(plan, store, ["g.yaml"]).again.endswith(f"run g.yaml --store {store.url} --address auto")
    plugin.unlink()
    assert known_from_store(store)[0].again is None


def test_a_cell_that_is_tried_again_is_running(planned, plan):
    """A failure from before the lease is being retried; a later one is the outcome."""
    cell = plan.cells[0]
    fail(planned, cell)
    driver_elsewhere(planned, cell.block)
    age(planned, planned.name("failures", cell.key), 50)
    assert not status_of(planned).failures
    age(planned, lease_name(cell.block), 100)
    assert [failure.key for failure in status_of(planned).failures] == [cell.key]


@pytest.mark.parametrize("what", ["pool", "adapter"])
def test_failed_units_block_cells(planned, plan, what):
    pool = pool_of(plan, "toy", 5)
    make_chunk(planned, pool, 0)
    make_chunk(planned, pool, 1)
    fail(planned, pool if what == "pool" else pool.adapter)
    grid = status_of(planned)
    waiting = [
        cell for cell in plan.cells
        if (cell.augmenter.name, cell.shots) == ("toy", 5)
        and (what == "adapter" or cell.seed == 0) and (cell.n_aug == 30 or cell.seed == 1)  # two chunks serve N_aug 6
    ]  # fmt: skip
    assert grid.blocked == len(waiting) == grid.failures[0].waiting > 0
    assert grid.rates["cells"].left == 18 - len(waiting)
    assert grid.rates["chunks"].left == 36 - (8 if what == "pool" else 16)


def test_hostile_texts_stay_in_their_line(planned, plan):
    evil = "ValueError: \x1b[2J\x1b]0;own\x07[bold red]x[/] </script>\n\u202etxt\r" + "long " * 200
    fail(planned, plan.cells[0], evil)
    planned.files.write(planned.name("failures", plan.cells[1].key), b"{not json")
    driver_elsewhere(planned, name="\u202e[red]")
    found = seen(planned)
    text = printed(found)
    assert not set(text) & set("\x1b\x07\r\u202e") and "[bold red]x[/] </script>" in text
    assert "the record of its failure is damaged" in text
    assert len(found.grids[0].failures[0].error) == 300
    line = to_json(found)
    assert line.isascii() and line.isprintable() and json.loads(line)["store"] == planned.url


# -- rates


@pytest.mark.parametrize(
    ("ages", "lifetime", "finished", "seconds"),
    [
        ([*range(0, 400, 40), 5000, 5000], 500, 10, 500),  # none from before the driver began
        (range(1800, 9 * 1800, 1800), 20_000, FEW, FEW * 1800),  # slow cells extend the window, of ten minutes
    ],
)
def test_rate_and_end(planned, plan, ages, lifetime, finished, seconds):
    finish(planned, plan.cells[: len(ages)])
    for cell, old in zip(plan.cells, ages, strict=False):
        age(planned, planned.name("cells", cell.key), old)
    driver_elsewhere(planned, plan.cells[-1].block, since=time.time() - lifetime)
    grid, left = status_of(planned), len(plan.cells) - len(ages)
    rate = grid.rates["cells"]
    assert (rate.finished, rate.left) == (finished, left) and rate.seconds == pytest.approx(seconds, abs=5)
    assert rate.per_minute == pytest.approx(60 * finished / seconds, rel=0.02)
    assert rate.eta_seconds == pytest.approx(left * seconds / finished, rel=0.02)
    assert grid.eta_seconds is None  # chunks are left, and none was finished


def test_no_rate_without_times(planned, plan, monkeypatch):
    finish(planned, plan.cells[:3])
    driver_elsewhere(planned, plan.cells[-1].block)
    real = type(planned.files).ages
    monkeypatch.setattr(type(planned.files), "ages", lambda self, folder: dict.fromkeys(real(self, folder)))
    found = seen(planned)
    assert found.grids[0].rates["cells"].per_minute is None
    assert "this store has no file times" in printed(found)


# -- storage, JSON, watching


def test_all_storages_give_the_same_status(any_store, plan):
    any_store.write_json("grids", "tiny", stored_grid(plan))
    finish(any_store, plan.cells[:5])
    make_chunk(any_store, pool_of(plan, "toy", 5), 0)
    fail(any_store, plan.cells[5])
    driver_elsewhere(any_store, plan.cells[-1].block, since=time.time() - 100)
    (grid,) = look(any_store, [known_from_plan(plan, any_store, ["tiny.yaml"])]).grids
    assert counts(grid)[0] == 5 and counts(grid)[2] == 1 and counts(grid)[1] >= 1
    rate = grid.rates["cells"]
    assert rate.finished == 5 and rate.eta_seconds == pytest.approx(rate.left * rate.seconds / 5)
    assert grid.again.endswith(f"run tiny.yaml --store {any_store.url}")
    by_name = status_of(any_store)
    assert by_name.stages == grid.stages and (by_name.again is None) == (any_store.files.folder is None)


def test_it_reads_no_records_and_lists_each_directory_once(planned, plan, monkeypatch):
    finish(planned, plan.cells[:4])
    listed, read = [], []
    files = type(planned.files)
    for name in ("names", "ages"):
        real = getattr(files, name)
        monkeypatch.setattr(files, name, lambda self, folder, real=real: listed.append(folder) or real(self, folder))
    real_read = files.read
    monkeypatch.setattr(files, "read", lambda self, name: read.append(name) or real_read(self, name))
    seen(planned)
    assert len(listed) == len(set(listed))
    assert read == ["grids/tiny.json"]


NULL = type(None)
KINDS = {
    **{"text": str, "text?": (str, NULL), "flag": bool, "count": int, "pid?": (int, NULL), "any": object},
    **{"number?": (int, float, NULL), "texts": list},
}
COUNTS = "done:count running:count failed:count missing:count total:count"


def assert_fields(value, fields):
    """Assert that a JSON object has these fields, ``name:kind``, and no others; null has none."""
    kinds = dict(word.split(":") for word in fields.split())
    if value is not None:
        assert value.keys() == kinds.keys()
        assert all(isinstance(value[name], KINDS[kind]) for name, kind in kinds.items()), value


def assert_schema(found):
    assert_fields(found, "format:count store:text done:flag drivers:any grids:any")
    assert found["format"] == 1
    for driver in found["drivers"]:
        assert_fields(driver, "owner:text host:text pid:pid? lives:flag since:text? seconds:number? silence:number? "
                      "leases:count")  # fmt: skip
    for grid in found["grids"]:
        assert_fields(grid, "name:text planned:text done:flag blocked:count eta_seconds:number? again:text? stages:any "
                      "chunks:any feature_chunks:any rates:any failures:any drivers:texts notes:texts")  # fmt: skip
        assert grid["planned"] in ("file", "store") and grid["stages"].keys() == set(STAGES)
        for counts in grid["stages"].values():
            assert_fields(counts, COUNTS)
        for chunks in (grid["chunks"], grid["feature_chunks"]):
            assert_fields(chunks, "done:count total:count")
        assert grid["rates"].keys() <= {"cells", "chunks", "feature_chunks"}
        for rate in grid["rates"].values():
            assert_fields(rate, "finished:count seconds:number? left:count per_minute:number? eta_seconds:number?")
        for failure in grid["failures"]:
            assert_fields(failure, "key:text stage:text error:text attempts:count by_user:flag waiting:count log:text?")


def test_json_keeps_its_schema(planned, plan):
    assert_schema(as_dict(seen(planned)))
    finish(planned, plan.cells[:6])
    fail(planned, plan.cells[6])
    driver_elsewhere(planned, plan.cells[-1].block)
    planned.write_json("grids", "older", {"grid": {}, "cells": expected_of(plan)})
    found = json.loads(to_json(seen(planned)))
    assert_schema(found)
    assert [grid["name"] for grid in found["grids"]] == ["older", "tiny"]
    assert found["grids"][1]["failures"] and found["drivers"]


def test_watch_ends_when_all_is_done(planned, plan, monkeypatch, capsys):
    rounds = []

    def sleep(seconds):
        rounds.append(seconds)
        finish(planned, plan.cells[: 9 * len(rounds)])

    monkeypatch.setattr(time, "sleep", sleep)
    command.status(planned.url, watch=7.0, as_json=True)
    looks = [json.loads(line)["grids"][0]["stages"]["cells"]["done"] for line in capsys.readouterr().out.splitlines()]
    assert looks == [0, 9, 18] and rounds == [7.0, 7.0]


def test_watch_ends_when_the_run_has_gone(planned, plan, monkeypatch, capsys):
    owner = driver_elsewhere(planned, plan.cells[0].block)
    monkeypatch.setattr(time, "sleep", lambda _: age(planned, heartbeat_name(owner), 120))
    command.status(planned.url, watch=1.0)
    assert capsys.readouterr().out.count("tiny: 0 of 18 cells done") == 2


def test_the_command_loads_neither_ray_nor_torch(planned):
    code = (
        "import sys; sys.argv = ['augbench', 'status', sys.argv[1]]\n"
        "import augbench.cli.app\n"
        "try:\n    augbench.cli.app.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'ray', 'torch', 'sklearn', 'scipy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code, planned.url], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tiny: 0 of 18 cells done (0.0 %)" in done.stdout


def test_status_of_a_real_run(store):
    """A run with a pool that fails: the status agrees with its summary."""
    broken = {"name": "toy", "as": "broken", "settings": {"broken_from": 4}}
    summary = run(tiny_grid(augmenters=["none", broken], shots=[5], n_aug=[3, 8]), store, executor="inline")
    grid = status_of(store)
    assert counts(grid) == (summary.done, 0, 0, 1) == (2, 0, 0, 1) and grid.blocked == 1
    (failure,) = grid.failures
    assert (failure.stage, failure.waiting, failure.by_user) == ("pools", 1, True)
    assert failure.error.startswith(f"PluginError: augmenter 'toy' ({TOY}, line ")
    assert failure.error.endswith("): generate: RuntimeError: the toy broke")
    assert counts(grid, "adapters") == (1, 0, 0, 0) and grid.chunks == (1, 2)
