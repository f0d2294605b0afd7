"""Scaling of a run: the figures of bench/scale.py, and counts of the driver's store accesses."""

import pickle
import sys
from collections import Counter
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
import scale
from helpers import tiny_grid
from scale_figures import Driven, Seen, figures, gaps, ideal, per_cells, predicted, slope
from scale_run import grid_of, plant_pools
from sleeping import SleepingJob, noted
from steps import play

from augbench.planning.library import Library
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.runner import lease_cache
from augbench.runner.lease_cache import LOOK_AGAIN
from augbench.runner.mailbox import Work
from augbench.runner.scheduler import LOOK_INTO, Scheduler
from augbench.runner.worker import Failure
from augbench.stages.context import Context
from augbench.stages.generate import assemble_pool
from augbench.storage.files import LocalFiles
from augbench.storage.leases import Leases
from augbench.storage.store import Store

# -- figures of the bench

TWO_SLOTS = {  # began, slept, evaluated, committed, CPU seconds: two slots, three cells of one second
    1: np.array([[100.0, 101.0, 101.1, 101.2, 1.5], [101.3, 102.3, 102.4, 102.5, 2.0]]),
    2: np.array([[100.5, 101.5, 101.6, 101.7, 1.7]]),
}


def test_figures_follow_from_the_times():
    seen = [Seen(90.0, 50.0, 0.0), Seen(101.2, 100.0, 1.0), Seen(102.5, 130.0, 2.0), Seen(104.0, 130.0, 3.0)]
    found = figures(TWO_SLOTS, seen, Driven(90.0, 104.5, {"make_plan": 0.5}, 3.5), 2, 1.0)
    expected = {
        "cells": 3, "workers that worked": 2, "ideal, seconds": 2.0, "measured, seconds": 14.5, "efficiency": 2 / 14.5,
        "first cell after, seconds": 10.0, "last worker's first cell after, seconds": 10.5,
        "a worker's first cell after, mean, seconds": 10.25, "gap between two cells, median, seconds": 0.1,
        "tail, seconds that a slot idled, mean": 0.4, "end, seconds from the last cell on": 2.0,
        "driver, MB at the end": 130.0, "driver, MB per cell": 10.0, "driver, CPU seconds per cell": 1 / 3,
        "metrics and store, median, seconds per cell": 0.2,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_parts_of_the_figures():
    assert ideal(5000, 64, 10) == 790 and ideal(64, 64, 3) == 3 and ideal(65, 64, 3) == 6
    assert gaps({1: TWO_SLOTS[1], 2: TWO_SLOTS[2]}).tolist() == pytest.approx([0.1])
    assert per_cells(np.array([3.0, 1.0, 7.0, 0.0, 2.0]), 2) == [2.0, 5.0]
    assert slope([1000, 20, 4000], [5.0, 99.0, 20.0]) == pytest.approx(1.0)
    assert slope([10, 100], [1.0, 100.0]) == pytest.approx(2.0)
    whole = {"slots": 64, "seconds of a cell": 10.0, "gap between two cells, median, seconds": 0.0}
    whole |= {"metrics and store, median, seconds per cell": 0.0, "end, seconds from the last cell on": 0.0}
    assert predicted(whole | {"a worker's first cell after, mean, seconds": 0.0}, 5000) == 1.0
    assert predicted(whole | {"a worker's first cell after, mean, seconds": 790.0}, 5000) == pytest.approx(0.5)
    assert [scale._kind("GET", path) for path in ("/bucket", "/bucket/", "/bucket/a/b")] == ["LIST", "LIST", "GET"]


def test_the_grid_of_the_bench_has_its_pools(store):
    """Nothing is left to generate, and no pool to assemble at the end of the run."""
    plan = make_plan(grid_of(360), store)
    assert len(plan.cells) == 360 and len({cell.block for cell in plan.cells}) == 60
    plant_pools(plan, store)
    remaining = subtract(plan, store)
    assert len(remaining.cells) == 360 and plan.pools and not remaining.chunks
    before = {path: path.stat().st_mtime_ns for path in store.files.folder.rglob("*") if path.is_file()}
    for pool in plan.pools.values():
        assemble_pool(Context(store, plan.library), pool)
    assert {path: path.stat().st_mtime_ns for path in store.files.folder.rglob("*") if path.is_file()} == before


def test_the_sleeping_job_commits_a_cell(store, tmp_path):
    plan = make_plan(tiny_grid(augmenters=["none"], shots=[5]))
    (cell,) = plan.cells
    record = SleepingJob(0.01, tmp_path)(Context(store, Library.of(plan.grid.datasets)), None, cell, ())
    assert store.read_record(cell.key) == record and not subtract(plan, store).cells
    (times,) = noted(tmp_path).values()
    assert times.shape == (1, 5) and (np.diff(times[0, :4]) >= 0).all() and times[0, 1] - times[0, 0] >= 0.01


# -- store accesses


def counting(method, kind):
    def counted(self, *arguments):
        self.asked[kind] += 1
        return method(self, *arguments)

    return counted


class Counted(LocalFiles):
    """A folder that counts its accesses by kind; files read together are counted one by one."""

    names, ages = counting(LocalFiles.names, "list"), counting(LocalFiles.ages, "list")
    exists, age = counting(LocalFiles.exists, "look"), counting(LocalFiles.age, "look")
    read, create = counting(LocalFiles.read, "read"), counting(LocalFiles.create, "create")

    def __init__(self, folder):
        super().__init__(folder)
        self.asked = Counter()

    def take(self):
        """Return the counts since the last call."""
        asked, self.asked = self.asked, Counter()
        return asked


@pytest.fixture
def counted(tmp_path):
    store = Store(tmp_path / "store")
    store.files = Counted(tmp_path / "store")
    return store


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move: ``clock[0] += seconds``."""
    now = [0.0]
    monkeypatch.setattr(lease_cache, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def drivers(counted):
    """Make drivers on one store: a plan and a scheduler each."""
    with ExitStack() as stack:

        def another(**changes):
            plan = make_plan(tiny_grid(**changes))
            return plan, Scheduler(plan, subtract(plan, counted), counted, stack.enter_context(Leases(counted.files)))

        yield another


def test_subtracting_lists_each_pool_once(counted):
    """The same listings serve fidelity and gaps; summaries are read together."""
    plan = make_plan(tiny_grid(**{**MANY, "fidelity": {"extractor": "micro_resnet"}}))
    plant_pools(plan, counted)
    counted.files.take()
    remaining = subtract(plan, counted)
    assert not remaining.chunks and len(remaining.fidelity) == len(plan.pools) == 40
    directories = 5  # cells, scores, pools, fidelity, failures
    assert counted.files.take() == {"list": directories + len(plan.pools), "read": len(plan.pools)}


MANY = {"augmenters": ["memseg"], "shots": [0], "seeds": list(range(40))}


def test_another_drivers_pools_are_polled_rarely(counted, drivers, clock):
    _, first = drivers(**MANY)
    units = first.next_chunks()
    _, second = drivers(**MANY)
    assert len(units) == 40 and second.next_chunks() == []  # the other driver holds every lease
    counted.files.take()
    assert second.next_chunks() == []
    assert counted.files.take() == {"list": 2 + LOOK_INTO, "read": 40}, "each lease is read once"
    for _ in range(10):
        assert second.next_chunks() == [] and second.next_cells() == []
    assert not counted.files.take(), "no access between two polls"
    clock[0] += LOOK_AGAIN
    assert second.next_chunks() == []
    assert counted.files.take() == {"list": 2 + LOOK_INTO}


def test_pools_of_another_driver_are_polled_in_turns(counted, drivers, clock):
    _, first = drivers(**MANY)
    units = first.next_chunks()
    _, second = drivers(**MANY)
    second.next_chunks()
    for pool, chunk in units[:-1]:
        counted.files.write(counted.chunk_name(pool, chunk), b"")
    for _ in range(-(-len(units) // LOOK_INTO)):
        clock[0] += LOOK_AGAIN
        second.next_chunks()
    assert second.ready_count == 39 and second.chunks_left
    for pool, chunk in units:
        first.chunk_done(pool.key, chunk)  # releases the leases
    clock[0] += LOOK_AGAIN
    assert second.next_chunks() == units[-1:], "the one that was not generated is free now"


def test_pools_that_wait_for_an_adapter_are_not_polled(counted, drivers, clock):
    _, scheduler = drivers(augmenters=["toy"], shots=[5], seeds=list(range(30)))
    (adapter,) = scheduler.next_adapters()
    counted.files.take()
    for _ in range(5):
        clock[0] += LOOK_AGAIN
        assert scheduler.next_chunks() == [] and scheduler.next_adapters() == [adapter]
    assert not counted.files.take(), "no other driver trains our adapter"
    scheduler.adapter_done(adapter.key)
    assert len(scheduler.next_chunks()) == 60, "two chunks of each"


def test_adapters_of_others_are_found_by_one_listing(counted, drivers, clock):
    changes = {"augmenters": ["toy"], "shots": [1, 2, 3, 4, 5], "n_aug": [3]}
    _, first = drivers(**changes)
    specs = first.next_adapters()
    _, second = drivers(**changes)
    assert len(specs) == 5 and second.next_adapters() == second.next_adapters() == []
    counted.files.write(f"{counted.name('adapters', specs[0].key)}/adapter.json", b"{}")
    counted.files.take()
    assert second.next_adapters() == [] and not counted.files.take()
    clock[0] += LOOK_AGAIN
    assert second.next_adapters() == [] and specs[0].key not in second.adapters
    assert counted.files.take()["list"] == 3, "of adapters, leases and drivers"
    first.adapter_done(specs[1].key)  # without a file: it must be trained again
    clock[0] += LOOK_AGAIN
    assert second.next_adapters() == [specs[1]]


def test_a_dead_drivers_leases_are_available(counted, monkeypatch):
    with Leases(counted.files) as living, Leases(counted.files) as dead, Leases(counted.files) as third:
        assert living.acquire("a") and dead.acquire("b") and dead.acquire("c")
        assert third.to_be_had(["a", "b", "c", "free"]) == ["free"]
        monkeypatch.setattr("augbench.storage.leases._gone", lambda host, pid, pids: True)
        assert third.to_be_had(["a", "b", "c", "free"]) == ["a", "b", "c", "free"]
        monkeypatch.undo()
        counted.files.remove(f"leases/drivers/{dead.owner}")
        monkeypatch.setattr("augbench.storage.leases.LIFETIME", -1.0)
        counted.files.write(f"leases/drivers/{living.owner}", b"")
        assert set(third.to_be_had(["b", "c"])) == {"b", "c"}


# -- blocks


def next_of(scheduler):
    """Return the cells of the next batch; of fine-tuning one at most."""
    return [cell for cell, _ in scheduler.next_cells()]


def test_a_block_is_leased_once(counted, drivers, clock):
    """A block needs one lease for all its cells; its records are read together."""
    changes = {"augmenters": ["none"], "shots": [5], "seeds": list(range(20))}
    _, first = drivers(**changes)
    plan, second = drivers(**changes)
    counted.files.take()
    cells = next_of(first)
    assert counted.files.take() == {"create": 1, "read": 20}
    assert next_of(second) == []
    asked = counted.files.take()
    assert asked["create"] == 1 and sum(asked.values()) <= 6
    assert next_of(second) == []
    assert counted.files.take() == {"list": 2, "read": 1}, "the first poll"
    cells += [cell for _ in range(19) for cell in next_of(first)]
    assert next_of(first) == next_of(second) == [] and not counted.files.take()
    for cell in cells[:12]:
        counted.write_json("cells", cell.key, {})
        counted.files.write(counted.name("scores", cell.key), b"")
    for cell in cells:
        first.cell_done(cell.key, {})
    assert next_of(second) == [], "not yet time to poll again"
    clock[0] += LOOK_AGAIN
    received = []
    while batch := next_of(second):
        received += [cell.key for cell in batch]
    assert received == [cell.key for cell in plan.cells[12:]] and second.done == 12


def test_a_cell_without_its_scores_is_trained_again(counted, drivers):
    """The plan contains it, so the scheduler must not count its record as a finished cell."""
    changes = {"augmenters": ["none"], "shots": [5], "seeds": [0, 1]}
    plan = make_plan(tiny_grid(**changes))
    for cell in plan.cells:
        counted.write_json("cells", cell.key, {"key": cell.key, "spec": {}, "result": {}, "provenance": {}})
    counted.files.write(counted.name("scores", plan.cells[0].key), b"")
    _, scheduler = drivers(**changes)
    assert next_of(scheduler) == plan.cells[1:] and next_of(scheduler) == []


def test_a_late_chunk_of_a_failed_pool_is_ignored(drivers):
    _, scheduler = drivers(augmenters=["memseg"], shots=[0], n_aug=[6, 60])
    units = scheduler.next_chunks()
    assert len(units) == 3
    scheduler.chunk_failed(units[1][0].key, Failure("it broke", by_user=False))
    scheduler.chunk_done(units[2][0].key, units[2][1])  # another worker had it
    assert not scheduler.chunks_left and not scheduler.cells_left and scheduler.chunks_done == 0
    assert sum(scheduler.blocked.values()) == 2


# -- growth


def calls(scheduler):
    """Count Python and C calls until every chunk, measurement and cell is done: a deterministic cost."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        done = play(scheduler)
    finally:
        sys.setprofile(None)
    assert done == scheduler.total and not scheduler.pools_left and not scheduler.cells_left
    return count


def test_the_scheduler_has_constant_cost_per_cell(counted, drivers):
    """The number of pools, each with a fidelity measurement, grows with the cells."""
    costs, asked = [], []
    for seeds in (20, 80):
        grid = {"augmenters": ["memseg"], "shots": [0], "n_aug": [3, 6], "seeds": list(range(seeds))}
        _, scheduler = drivers(**grid, fidelity={"extractor": "micro_resnet"}, name=f"of{seeds}")
        assert scheduler.fidelity_total == seeds and scheduler.total == 2 * seeds
        counted.files.take()
        costs.append(calls(scheduler))
        asked.append(sum(counted.files.take().values()))
    assert costs[1] < 4.4 * costs[0]
    assert asked[1] < 4.4 * asked[0]


def test_a_worker_copies_little_of_a_large_grid(monkeypatch):
    """Ray copies one reference per batch of cells into each worker; arrays are memory-mapped."""
    monkeypatch.setattr("augbench.runner.mailbox.TOGETHER", 30)
    copied = []
    for seeds in (2, 100):
        plan = make_plan(tiny_grid(augmenters=["none", "memseg"], seeds=list(range(seeds))))
        stored, buffers, fetched = [], [], []

        def put(units, stored=stored):
            stored.append(units)
            return len(stored) - 1

        def get(number, stored=stored, fetched=fetched):
            fetched.append(number)
            return stored[number]

        copied.append(len(pickled := pickle.dumps(Work(plan, put), protocol=5, buffer_callback=buffers.append)))
        work = pickle.loads(pickled, buffers=buffers)
        for cell in plan.cells:
            assert work.of(cell.key, get) == (cell, plan.needs[cell.key])
        assert fetched == list(range(-(-len(plan.cells) // 30)))
    assert copied[1] < copied[0] + 100


# -- S3 requests


def test_each_access_to_s3_is_one_request(s3):
    files = Store("s3://bucket/store").files
    files.write("cells/a.json", b"1")

    def requests(call):
        s3.requests.clear()
        call()
        return [method for method, _ in s3.requests]

    for call, name in ((files.read, "a"), (files.exists, "a"), (files.exists, "x"), (files.remove, "x")):
        assert requests(lambda call=call, name=name: call(f"cells/{name}.json")) == ["GET"], call
    assert requests(lambda: list(files.read_many(["cells/a.json", "cells/x.json"]))) == ["GET", "GET"]
    assert requests(lambda: files.create("leases/x", b"1")) == ["PUT"]
