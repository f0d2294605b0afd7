"""The driver: equal bytes after any interruption, and no repeated work."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chaos_machines import below, title_of
from dying import DyingJob
from helpers import HERE, ROOT, TINY, TINY_PROBE, TOY, cli, grid_file, path_of, results_of, tiny, tiny_grid
from layouts import draw_pool

from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.runner.scheduler import ATTEMPTS, Scheduler
from augbench.storage.leases import Leases, heartbeat_name, lease_name
from augbench.storage.store import Store

SLOW = {"name": "slow", **TINY, "epochs": 12}  # long enough to be killed in the middle
GRID = tiny(name="killed", augmenters=["none", "memseg", "toy"], shots=[0, 5], n_aug=[6, 30], protocols=[SLOW])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The grid run inline without interruption: the reference for all other runs."""
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    summary = run(tiny_grid(**GRID), store, executor="inline")
    assert summary.done == summary.cells == 9
    return store


def start(path, store, *options):
    def restore_sigint():
        """Restore the default handler: background jobs of a shell, such as in CI, inherit an ignored SIGINT."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, "-m", "augbench", "--plugin", TOY, "run", path, "--store", store.url, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([str(word) for word in command], cwd=HERE, preexec_fn=restore_sigint, **pipes)


def wait_for_records(store, count, process):
    deadline = time.monotonic() + 120
    while len(store.keys("cells")) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_worker(name, process):
    """Return the pid of a Ray worker with ``name`` in its title, among the descendants of that driver."""
    deadline = time.monotonic() + 60
    while not (found := [pid for pid in below(process.pid) if name in title_of(pid)]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found[0]


def test_killed_workers_are_replaced_and_a_killed_driver_is_completed_by_the_same_command(undisturbed, store, tmp_path):
    """Kill a generator, a training worker and the driver; interrupt two further runs; complete the last one inline."""
    path = grid_file(tmp_path, **GRID)
    process = start(path, store)
    os.kill(wait_for_worker("MapWorker(MapBatches(ChunkMaker)).submit", process), signal.SIGKILL)
    wait_for_records(store, 1, process)
    os.kill(wait_for_worker("Trainable.train", process), signal.SIGKILL)
    wait_for_records(store, 4, process)
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert "Traceback" not in out and not store.keys("failures"), "no harm was done"
    logs = [path.read_text() for path in (store.files.folder / "logs").glob("*.log")]
    lost = [text for text in logs if "the worker of this cell was lost" in text]
    assert len(lost) == 1 and "its worker process has died" in lost[0]
    done_before = store.keys("cells")
    assert 0 < len(done_before) < 9, "killed too late"
    times = {key: path_of(store, "cells", key).stat().st_mtime_ns for key in done_before}
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        second = start(path, store)
        wait_for_worker("Trainable.train", second)
        second.send_signal(number)
        out, _ = second.communicate(timeout=60)
        assert second.returncode == status, out
        assert "run the same command again" in " ".join(out.split()) and "Traceback" not in out
        assert store.files.names("leases") == {"drivers"} and not store.files.names("leases/drivers")
    third = cli("run", path, "--store", store.url, "--executor", "inline")
    assert third.returncode == 0, third.stderr
    assert results_of(store) == results_of(undisturbed)
    assert {key: path_of(store, "cells", key).stat().st_mtime_ns for key in done_before} == times  # no repeated work
    assert store.files.names("leases") == {"drivers"} and not store.files.names("leases/drivers")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_inline_signal_and_second_run(undisturbed, store, tmp_path, number, status):
    path = grid_file(tmp_path, **GRID)
    process = start(path, store, "--executor", "inline")
    wait_for_records(store, 3, process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == status, out
    assert "run the same command again" in " ".join(out.split()) and "Traceback" not in out
    assert store.files.names("leases") == {"drivers"} and not store.files.names("leases/drivers")
    second = cli("run", path, "--store", store.url, "--executor", "inline")
    assert second.returncode == 0, second.stderr
    assert results_of(store) == results_of(undisturbed)
    third = cli("run", path, "--store", store.url, "--executor", "inline")
    assert "nothing to do" in " ".join(third.stdout.split())


def test_files_of_dead_drivers_are_removed_and_those_of_living_ones_are_not(store):
    grid = tiny_grid(augmenters=["memseg"], shots=[0])
    (key,) = make_plan(grid).pools
    left = ["cells/.x.json.1234.part", f"pools/{key}/images/.00000.png.1234.part", "leases/.y.1234.gone"]
    for name in left:
        store.files.write(name, b"half")
    with Leases(store.files):  # another driver
        assert run(grid, store, executor="inline").done == 1
        assert all(store.files.exists(name) for name in left)
    grid = tiny_grid(augmenters=["memseg"], shots=[0], n_aug=[6, 30])
    assert run(grid, store, executor="inline").done == 2
    assert not any(store.files.exists(name) for name in left)


def test_a_run_that_was_killed_at_its_very_end_is_completed_too(store):
    """All cells are done, but the pools are not assembled and the leases not released."""
    grid = tiny_grid(augmenters=["memseg"], shots=[0])
    run(grid, store, executor="inline")
    (pool,) = make_plan(grid).pools.values()
    summary = store.read_pool(pool.key)
    path_of(store, "pools", pool.key).joinpath("pool.json").unlink()
    path_of(store, "pools", pool.key).joinpath("metadata.jsonl").unlink()
    dead = {"owner": "x", "host": socket.gethostname(), "pid": 2**22 + 1}  # above every process id
    store.files.write(lease_name("some"), json.dumps(dead).encode())
    store.files.write(heartbeat_name("x"), json.dumps(dead).encode())
    assert run(grid, store, executor="inline").trained == 0
    assert store.read_pool(pool.key) == summary
    assert store.files.exists(f"pools/{pool.key}/metadata.jsonl")
    assert not store.files.exists(lease_name("some")) and not store.files.names("leases/drivers")


def test_a_deleted_damaged_chunk_is_generated_again(store):
    """Also if every cell that used it is done."""
    grid = tiny_grid(augmenters=["memseg"], shots=[0], n_aug=[30])
    run(grid, store, executor="inline")
    (pool,) = make_plan(grid).pools.values()
    before = {path: path.read_bytes() for path in path_of(store, "pools", pool.key).rglob("*.jsonl")}
    image = store.files.folder / store.image_name(pool, 3)
    image.write_bytes(image.read_bytes()[:100])
    (problem,) = store.check()
    assert store.chunk_name(pool, 0) in problem and "delete it, and run the grid again" in problem
    store.files.remove(store.chunk_name(pool, 0))
    assert run(grid, store, executor="inline").trained == 0
    assert not store.check() and {path: path.read_bytes() for path in before} == before
    shutil.rmtree(store.files.folder / "pools")
    assert subtract(make_plan(grid), store).nothing


def test_pools_are_readable_image_folders(undisturbed):
    for folder in (undisturbed.files.folder / "pools").iterdir():
        lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        summary = json.loads((folder / "pool.json").read_text())
        assert summary["pictures"] == len(lines) and summary["provenance"]["seconds"] > 0
        assert [line["index"] for line in lines] == list(range(len(lines)))
        for line in lines:
            # Equal flat columns in all rows, or Hugging Face datasets makes a struct field of each image.
            assert line.keys() == lines[0].keys()
            assert all(isinstance(value, int | str) for name, value in line.items() if name != "meta")
            assert (folder / line["file_name"]).is_file()
            assert (folder / line["mask_file_name"]).is_file()


def test_a_larger_n_aug_extends_a_pool(store):
    run(tiny_grid(augmenters=["memseg"], shots=[0]), store, executor="inline")
    before = {p: p.read_bytes() for p in (store.files.folder / "pools").rglob("images/*.png")}
    assert run(tiny_grid(augmenters=["memseg"], shots=[0], n_aug=[6, 30]), store, executor="inline").trained == 1
    after = {p: p.read_bytes() for p in (store.files.folder / "pools").rglob("images/*.png")}
    assert len(before) == 20 and len(after) == 40 and before.items() <= after.items()


def test_one_bad_pool_does_not_stop_the_sweep(store):
    broken = {"name": "toy", "as": "broken", "settings": {"broken_from": 4}}
    grid = tiny_grid(augmenters=["none", broken, "memseg"], shots=[5], n_aug=[3, 8])
    summary = run(grid, store, executor="inline")
    assert summary.done == 4  # none, memseg twice, and broken's first chunk is enough for N_aug 3
    (line,) = summary.failures.values()
    assert (
        line.startswith("augmenter 'toy' (")
        and line.endswith("generate: RuntimeError: the toy broke")
        and sum(summary.blocked.values()) == 1
    )
    (key,) = store.keys("failures")
    assert "the toy broke" in store.read_json("failures", key)["traceback"]


def test_one_bad_adapter_does_not_stop_the_sweep(store):
    broken = {"name": "toy", "settings": {"adapt_fails": True}}
    summary = run(tiny_grid(augmenters=["none", broken], shots=[5]), store, executor="inline")
    assert summary.done == 1 and sum(summary.blocked.values()) == 1
    assert "the adapter broke" in next(iter(summary.failures.values()))
    assert not list((store.files.folder / "adapters").glob(".*"))


def test_failed_cells_are_tried_again(store):
    grid = tiny_grid(augmenters=[{"name": "toy", "settings": {"broken_from": 0}}], shots=[5])
    for _ in range(2):
        assert run(grid, store, executor="inline").done == 0
    (key,) = store.keys("failures")
    assert store.read_json("failures", key)["attempts"] == 2


def scheduler_of(store, leases, **changes):
    plan = make_plan(tiny_grid(**changes))
    return plan, Scheduler(plan, subtract(plan, store), store, leases)


def test_scheduler_starts_a_cell_when_its_chunks_are_committed(store):
    with Leases(store.files) as leases:
        plan, scheduler = scheduler_of(store, leases, augmenters=["memseg"], shots=[0], n_aug=[6, 30])
        assert scheduler.next_cells() == [] and scheduler.cells_left
        units = scheduler.next_chunks()
        assert [chunk for _, chunk in units] == [0, 1]
        scheduler.chunk_done(units[0][0].key, 0)
        ((cell, _),) = scheduler.next_cells()
        assert cell.n_aug == 6 and scheduler.next_cells() == []
        scheduler.chunk_done(units[0][0].key, 1)
        assert [cell.n_aug for cell, _ in scheduler.next_cells()] == [30]
        for each in plan.cells:
            scheduler.cell_done(each.key, {"ap": 1.0})
        assert not scheduler.cells_left and not scheduler.chunks_left


def test_scheduler_gives_up_on_a_cell_that_kills_its_workers(store):
    with Leases(store.files) as leases:
        _, scheduler = scheduler_of(store, leases, augmenters=["none"], shots=[5])
        for _ in range(ATTEMPTS):
            ((cell, _),) = scheduler.next_cells()
            assert scheduler.cells_lost([cell.key]) == [cell.key]
        assert scheduler.next_cells() == [] and not scheduler.cells_left
        assert "died" in scheduler.failures[cell.key] and store.keys("failures") == {cell.key}


@pytest.mark.slow
def test_a_cell_that_kills_its_workers_takes_no_others_with_it(store, tmp_path, monkeypatch):
    """Short cells in batches on two workers: one kills its worker once, another every time."""
    grid = tiny_grid(augmenters=["none"], shots=[5], draws=list(range(60)), protocols=[TINY_PROBE])
    keys = [cell.key for cell in make_plan(grid).cells]
    once, always = keys[30], keys[40]
    batches, next_cells = [], Scheduler.next_cells

    def noted(scheduler):
        batch = next_cells(scheduler)
        batches.append([cell.key for cell, _ in batch])
        return batch

    monkeypatch.setattr(Scheduler, "next_cells", noted)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(ROOT / "bench")]))  # workers import the job
    (tmp_path / "died").touch()
    summary = run(grid, store, job=DyingJob(0.02, tmp_path, {once}, {always}))
    assert (tmp_path / "died").read_text().split().count(always) == ATTEMPTS
    assert (tmp_path / "died").read_text().split().count(once) == 1
    assert summary.done == summary.trained == 59 and summary.failures.keys() == {always}
    assert sorted((tmp_path / "committed").read_text().split()) == sorted({*keys} - {always}), "each once"
    assert store.keys("cells") == {*keys} - {always} and store.keys("failures") == {always}
    assert any(once in batch and len(batch) > 1 for batch in batches), "no batch was lost"
    text = store.files.read(store.log_name(once)).decode()
    assert text.count("the worker of this cell was lost") == 1


def test_probes_on_ray_are_those_inline(store, tmp_path):
    """Features by Ray Data, those of datasets mapped from the object store, cells in batches: the same bytes."""
    weighted = {**TINY_PROBE, "name": "weighted", "synthetic_weight": "cv"}
    normals = {**TINY_PROBE, "name": "normals", "kind": "gaussian"}
    made = {"name": "images", "settings": draw_pool(tmp_path / "made", [f"{i}.png" for i in range(25)])}
    axes = {"shots": [0, 5], "draws": [0, 1], "n_aug": [6, 25]}
    grid = tiny_grid(augmenters=["none", "memseg", made], protocols=[TINY_PROBE, weighted, normals], **axes)
    inline = Store(tmp_path / "inline")
    for executor, place in (("inline", inline), ("ray", store)):
        summary = run(grid, place, executor=executor)
        assert summary.done == summary.cells == 29 and not summary.failures
    assert not Path.home().joinpath(".ray").exists(), "a token there turns tokens on for every Ray of this user"
    assert results_of(store) == results_of(inline)
    assert store.keys("features") == inline.keys("features")


def test_two_drivers_do_nothing_twice(undisturbed, store, tmp_path):
    """Two concurrent drivers on one store: together they produce the results of one."""
    path = grid_file(tmp_path, **GRID)
    processes = [start(path, store, "--executor", "inline") for _ in range(2)]
    outs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    assert results_of(store) == results_of(undisturbed)
    trained = [int(number) for out in outs for number in re.findall(r"(\d+)\s+of\s+them\s+now", out)]
    assert sum(trained) == 9, outs
