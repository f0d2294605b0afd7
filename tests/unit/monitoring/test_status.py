"""`augbench status`: the progress of a store, from its contents."""

import io
import json
import os
import socket
import subprocess
import sys
import time

import jsonschema
import pytest
import yaml
from helpers import TOY, assert_one_line, cli, path_of, tiny, tiny_grid, tiny_plan
from rich.console import Console

from augbench.cli import status as command
from augbench.cli.status_view import as_dict, print_status, to_json
from augbench.core.errors import UserError
from augbench.monitoring.known_grids import known_from_plan, known_from_store
from augbench.monitoring.status import FEW, STAGES, look
from augbench.planning.grid import load_grid
from augbench.planning.outline import expected_of, outline_of, read_outline, stored_grid
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.storage import leases as leases_module
from augbench.storage.leases import Leases, abandoned, heartbeat_name, lease_name, survey

GRID = {"augmenters": ["none", "memseg", "toy"], "n_aug": [6, 30], "seeds": [0, 1]}  # 2 none, 8 memseg, 8 toy
ELSEWHERE = "no-host-of-ours"
COUNTS = {"done", "running", "failed", "missing", "total"}


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


def driver_elsewhere(store, *keys, name="a1", pid=4711, since=None):
    """Write a heartbeat and leases, as `Leases` does, of a run on another machine."""
    owner = f"{ELSEWHERE}-{pid}-{name}"
    heartbeat = {"host": ELSEWHERE, "pid": pid, "since": time.time() - 1000 if since is None else since}
    store.files.write(heartbeat_name(owner), json.dumps(heartbeat).encode())
    for key in keys:
        store.files.write(lease_name(key), json.dumps({"owner": owner, "host": ELSEWHERE, "pid": pid}).encode())
    return owner


def age(store, name, seconds):
    then = time.time() - seconds
    os.utime(store.files.folder / name, (then, then))


def status_of(store, name=None):
    (grid,) = look(store, known_from_store(store, name)).grids
    return grid


def counts(grid, stage="cells"):
    return tuple(grid.stages[stage][state] for state in ("done", "running", "failed", "missing"))


def printed(status, width=100):
    out = io.StringIO()
    print_status(status, Console(file=out, width=width))
    return out.getvalue()


def pool_of(plan, augmenter, seed=0, shots=None):
    (found,) = [
        p for p in plan.pools.values() if (p.augmenter.name, p.seed) == (augmenter, seed) and shots in (None, p.shots)
    ]
    return found


# -- which grid


def test_outline_is_what_the_planner_would_do(plan, store):
    outline = read_outline(json.loads(json.dumps(stored_grid(plan)))["outline"])
    assert outline == outline_of(plan)
    left = subtract(plan, store)
    assert outline.cells.keys() == plan.by_key.keys()
    assert sum(pool.chunks for pool in outline.pools.values()) == len(left.chunks)
    assert {pool.adapter for pool in outline.pools.values()} - {None} == {adapter.key for adapter in left.adapters}


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
    planned.write_json(
        "grids", "tiny", {"cells": [{"key": "a"}], "outline": {"cells": {}, "pools": [], "fidelity": {}}}
    )
    with pytest.raises(UserError, match="does not list the cells"):
        known_from_store(planned)


def test_a_grid_of_an_earlier_version_has_cells_alone(store, plan):
    store.write_json("grids", "tiny", {"grid": {}, "cells": expected_of(plan)})
    finish(store, plan.cells[:3])
    fail(store, plan.cells[3])
    found = look(store, known_from_store(store))
    (grid,) = found.grids
    assert counts(grid) == (3, 0, 1, len(plan.cells) - 4)
    assert [stage for stage in STAGES if grid.stages[stage] is None] == ["searches", "adapters", "pools", "fidelity"]
    assert "earlier version" in printed(found)


def test_a_stored_grid_is_a_grid_file(tmp_path, plan, planned):
    """The retry command is exact, also after --set."""
    changed = load_grid(path_of(planned, "grids", "tiny"))
    assert make_plan(changed).by_key.keys() == plan.by_key.keys() and changed.name == "tiny"
    planned.write_json("grids", "tiny+0a1b2c", stored_grid(tiny_plan(**GRID, name="tiny+0a1b2c")))
    assert load_grid(path_of(planned, "grids", "tiny+0a1b2c")).name == "tiny+0a1b2c"
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
    assert "nobody is at work on this grid" in printed(look(planned, known_from_store(planned)))


def test_half_done_store(planned, plan):
    """Compare every count with the planner's subtraction."""
    memseg = [cell for cell in plan.cells if cell.augmenter.name == "memseg"]
    finish(planned, [cell for cell in plan.cells if cell.augmenter.name == "none"] + memseg[:3])
    planned.files.remove(planned.name("scores", memseg[0].key))  # without its scores it is trained again
    toy = pool_of(plan, "toy", shots=5)
    planned.files.write(f"{planned.name('adapters', toy.adapter.key)}/adapter.json", b"{}")
    for chunk in (0, 1, 2):
        make_chunk(planned, toy, chunk)
    make_chunk(planned, pool_of(plan, "memseg"), 0)
    make_chunk(planned, pool_of(plan, "memseg"), 1)
    for key in planned.keys("cells"):  # the planner reads them
        planned.write_json("cells", key, {"key": key, "spec": {}, "result": {}, "provenance": {}})
    left = subtract(plan, planned)
    grid = status_of(planned)
    assert counts(grid) == (left.done, 0, 0, len(left.cells)) == (4, 0, 0, 14)
    assert grid.chunks[1] - grid.chunks[0] == len(left.chunks)
    assert counts(grid, "pools") == (1, 0, 0, 5)
    assert counts(grid, "adapters") == (1, 0, 0, 1) and len(left.adapters) == 1


def test_an_adapter_without_its_marker_is_not_done(planned, plan):
    adapter = pool_of(plan, "toy", shots=5).adapter
    planned.files.write(f"{planned.name('adapters', adapter.key)}/mean.json", b"{}")
    assert counts(status_of(planned), "adapters") == (0, 0, 0, 2)


def test_done_store_needs_no_pools_any_more(planned, plan):
    finish(planned, plan.cells)
    found = look(planned, known_from_store(planned))
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


# -- drivers


def test_a_live_driver_elsewhere(planned, plan):
    pool = pool_of(plan, "memseg")
    cell = next(cell for cell in plan.cells if cell.augmenter.name == "none")
    block = [other for other in plan.cells if other.block == cell.block]
    finish(planned, block[:1])
    driver_elsewhere(planned, pool.key, cell.block)
    found = look(planned, known_from_store(planned))
    (driver,), (grid,) = found.drivers, found.grids
    assert (driver.host, driver.pid, driver.lives, len(driver.holds)) == (ELSEWHERE, 4711, True, 2)
    assert 999 < driver.seconds < 1060
    assert counts(grid, "pools")[1] == 1 and counts(grid) == (1, len(block) - 1, 0, 18 - len(block))
    assert grid.drivers == [driver.owner]
    assert f"{ELSEWHERE}, process 4711: at work since" in printed(found)


def test_a_silent_driver_holds_nothing(planned, plan):
    owner = driver_elsewhere(planned, plan.cells[0].block)
    age(planned, heartbeat_name(owner), 90)
    found = look(planned, known_from_store(planned))
    assert not found.drivers[0].lives and counts(found.grids[0])[1] == 0 and found.grids[0].drivers == []
    assert "silent for 90 s" in printed(found)


def test_a_dead_process_of_this_machine(planned, plan):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = f"{socket.gethostname()}-{gone.pid}-0a"
    lease = {"owner": owner, "host": socket.gethostname(), "pid": gone.pid}
    planned.files.write(heartbeat_name(owner), b"")  # as earlier versions wrote it: the name has the process
    planned.files.write(lease_name(plan.cells[0].block), json.dumps(lease).encode())
    (driver,) = survey(planned.files)
    assert (driver.pid, driver.lives, driver.since) == (gone.pid, False, None)


def test_another_container_of_this_machine(planned, plan):
    """It may share the host name, and its processes are invisible: only the heartbeat's age counts."""
    block, owner = plan.cells[0].block, f"{socket.gethostname()}-{2**22 + 1}-0a"  # above every process id
    process = {"host": socket.gethostname(), "pid": 2**22 + 1, "pids": "a boot pid:[1]"}
    planned.files.write(heartbeat_name(owner), json.dumps({**process, "since": time.time()}).encode())
    planned.files.write(lease_name(block), json.dumps({"owner": owner, **process}).encode())
    assert survey(planned.files)[0].lives and not abandoned(planned.files, block)
    age(planned, heartbeat_name(owner), 90)
    assert not survey(planned.files)[0].lives and abandoned(planned.files, block)


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
    store.files.write(lease_name("a"), json.dumps({"owner": "x-1-a", "host": ELSEWHERE, "pid": 1}).encode())
    assert survey(store.files)[0].lives
    monkeypatch.setattr(leases_module, "LIFETIME", -1)
    assert not survey(store.files)[0].lives


def test_survey_tolerates_odd_files(store):
    for number, content in enumerate([b"", b"{", b"[]", b"\xff", b'{"owner": 3}', b'{"owner": "a", "pid": "x"}']):
        store.files.write(lease_name(f"k{number}"), content)
    store.files.write(heartbeat_name("b"), json.dumps({"host": 1, "pid": 10**30, "since": "now"}).encode())
    found = {driver.owner: driver for driver in survey(store.files)}
    assert found.keys() == {"a", "b"}
    assert (found["b"].host, found["b"].pid, found["b"].since) == ("b", None, None)


# -- failures


def test_a_failed_cell(planned, plan):
    none = [cell for cell in plan.cells if cell.augmenter.name == "none"]
    fail(planned, none[0], attempts=3)
    found = look(planned, known_from_store(planned))
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
    pool = pool_of(plan, "toy", shots=5)
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
    found = look(planned, known_from_store(planned))
    text = printed(found)
    assert not set(text) & set("\x1b\x07\r\u202e") and "[bold red]x[/] </script>" in text
    assert "the record of its failure is damaged" in text
    assert len(found.grids[0].failures[0].error) == 300
    line = to_json(found)
    assert line.isascii() and line.isprintable() and json.loads(line)["store"] == planned.url


# -- rates


def test_rate_and_end(planned, plan):
    """Ten cells in the 500 s since the driver began: earlier ones do not count."""
    finish(planned, plan.cells[:12])
    for number, cell in enumerate(plan.cells[:12]):
        age(planned, planned.name("cells", cell.key), 40 * number if number < 10 else 5000)
    driver_elsewhere(planned, plan.cells[-1].block, since=time.time() - 500)
    grid = status_of(planned)
    rate = grid.rates["cells"]
    assert (rate.finished, rate.left) == (10, 6) and rate.seconds == pytest.approx(500, abs=5)
    assert rate.per_minute == pytest.approx(1.2, rel=0.02) and rate.eta_seconds == pytest.approx(300, rel=0.02)
    assert grid.eta_seconds is None  # chunks are left, and none was finished


def test_slow_cells_extend_the_window(planned, plan):
    """Cells of half an hour: a window of ten minutes would have none or one."""
    finish(planned, plan.cells[:8])
    for number, cell in enumerate(plan.cells[:8]):
        age(planned, planned.name("cells", cell.key), 1800 * (number + 1))
    driver_elsewhere(planned, plan.cells[-1].block, since=time.time() - 20_000)
    rate = status_of(planned).rates["cells"]
    assert rate.finished == FEW and rate.eta_seconds == pytest.approx(10 * 1800, rel=0.01)


def test_no_rate_without_times(planned, plan, monkeypatch):
    finish(planned, plan.cells[:3])
    driver_elsewhere(planned, plan.cells[-1].block)
    real = type(planned.files).ages
    monkeypatch.setattr(type(planned.files), "ages", lambda self, folder: dict.fromkeys(real(self, folder)))
    found = look(planned, known_from_store(planned))
    assert found.grids[0].rates["cells"].per_minute is None
    assert "this store has no file times" in printed(found)


# -- storage, JSON, watching


def test_all_storages_give_the_same_status(any_store, plan):
    any_store.write_json("grids", "tiny", stored_grid(plan))
    finish(any_store, plan.cells[:5])
    make_chunk(any_store, pool_of(plan, "toy", shots=5), 0)
    fail(any_store, plan.cells[5])
    driver_elsewhere(any_store, plan.cells[-1].block, since=time.time() - 100)
    (grid,) = look(any_store, [known_from_plan(plan, any_store, ["tiny.yaml"])]).grids
    assert counts(grid)[0] == 5 and counts(grid)[2] == 1 and counts(grid)[1] >= 1
    rate = grid.rates["cells"]
    assert rate.finished == 5 and rate.eta_seconds == pytest.approx(rate.left * rate.seconds / 5)
    assert grid.again.endswith(f"run tiny.yaml --store {any_store.url}")
    (by_name,) = look(any_store, known_from_store(any_store, "tiny")).grids
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
    look(planned, known_from_store(planned))
    assert len(listed) == len(set(listed))
    assert read == ["grids/tiny.json"]


NUMBER = {"type": ["number", "null"], "minimum": 0}
COUNT = {"type": "integer", "minimum": 0}
TEXT, MAYBE = {"type": "string"}, {"type": ["string", "null"]}


def closed(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def maybe(schema):
    return {"anyOf": [schema, {"type": "null"}]}


RATE = closed(finished=COUNT, seconds=NUMBER, left=COUNT, per_minute=NUMBER, eta_seconds=NUMBER)
FAILURE = closed(
    key=TEXT,
    stage={"enum": list(STAGES)},
    error=TEXT,
    attempts=COUNT,
    by_user={"type": "boolean"},
    waiting=COUNT,
    log=MAYBE,
)
SCHEMA = closed(
    format={"const": 1},
    store=TEXT,
    done={"type": "boolean"},
    drivers={
        "type": "array",
        "items": closed(
            owner=TEXT, host=TEXT, pid={"type": ["integer", "null"]}, lives={"type": "boolean"}, since=MAYBE,
            seconds=NUMBER, silence=NUMBER, leases=COUNT,
        ),
    },
    grids={
        "type": "array",
        "items": closed(
            name=TEXT,
            planned={"enum": ["file", "store"]},
            done={"type": "boolean"},
            stages=closed(**dict.fromkeys(STAGES, maybe(closed(**dict.fromkeys(COUNTS, COUNT))))),
            chunks=maybe(closed(done=COUNT, total=COUNT)),
            blocked=COUNT,
            drivers={"type": "array", "items": TEXT},
            rates={"type": "object", "properties": {"cells": RATE, "chunks": RATE}, "additionalProperties": False},
            eta_seconds=NUMBER,
            failures={"type": "array", "items": FAILURE},
            again=MAYBE,
            notes={"type": "array", "items": TEXT},
        ),
    },
)  # fmt: skip


def test_json_keeps_its_schema(planned, plan):
    jsonschema.validate(as_dict(look(planned, known_from_store(planned))), SCHEMA)
    finish(planned, plan.cells[:6])
    fail(planned, plan.cells[6])
    driver_elsewhere(planned, plan.cells[-1].block)
    planned.write_json("grids", "older", {"grid": {}, "cells": expected_of(plan)})
    found = json.loads(to_json(look(planned, known_from_store(planned))))
    jsonschema.validate(found, SCHEMA)
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
    assert (failure.stage, failure.error, failure.waiting) == ("pools", "RuntimeError: the toy broke", 1)
    assert counts(grid, "adapters") == (1, 0, 0, 0) and grid.chunks == (1, 2)
