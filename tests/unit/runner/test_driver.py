"""The second try of a run, without Ray: what is repeated on whole GPUs, and what is not."""

import io

import pytest
from helpers import tiny_grid
from rich.console import Console

from augbench.planning.plan import make_plan
from augbench.runner import driver
from augbench.runner.worker import Failure

SHORT, BROKEN = Failure("change 'batch'", by_user=True, again=True), Failure("broken", by_user=False)


@pytest.fixture
def passes(monkeypatch):
    """Replace Ray by a loop; return a function that sets what fails, and a list of (whole GPUs, tried units)."""
    made, fails = [], {}

    def run_on_ray(plan, store, scheduler, *options):
        whole, tried = options[-1], []
        made.append((whole, tried))

        def outcome(key, done, failed):
            tried.append(key)
            failure = fails.get(key)
            if failure and not (failure.again and whole and key not in fails["nowhere"]):
                store.record_failure(key, {}, RuntimeError(failure.line))
                failed(key, Failure(failure.line, failure.by_user, again=failure.again and not whole))
            else:
                done(key)

        def commit(key):
            store.files.write(store.name("scores", key), b"")
            store.write_json("cells", key, {"key": key, "spec": {}, "result": {}, "provenance": {}})
            scheduler.cell_done(key, {"ap": 1.0})

        def commit_chunk(key):
            store.files.write(store.chunk_name(plan.pools[key], 0), b"")
            scheduler.chunk_done(key, 0)

        for pool, _ in scheduler.next_chunks():
            outcome(pool.key, commit_chunk, scheduler.chunk_failed)
        while scheduler.cells_left:
            for cell, _ in scheduler.next_cells():
                outcome(cell.key, commit, scheduler.cell_failed)

    monkeypatch.setattr(driver, "_run_on_ray", run_on_ray)
    monkeypatch.setattr(driver, "_assemble", lambda plan, store: [])
    return fails, made


def test_only_what_ran_out_of_memory_is_tried_again_with_what_waited_for_it(store, passes):
    grid = tiny_grid(augmenters=["none", "memseg"], shots=[5], n_aug=[6], seeds=[0, 1, 2], fidelity=None)
    plan, (fails, made) = make_plan(grid), passes
    none = [cell.key for cell in plan.cells if cell.augmenter.name == "none"]
    memseg = [cell.key for cell in plan.cells if cell.augmenter.name == "memseg"]
    short_pool, broken_pool, *_ = [plan.needs[key][0].pool.key for key in memseg]
    fails |= {none[0]: SHORT, none[1]: SHORT, none[2]: BROKEN, short_pool: SHORT, broken_pool: BROKEN}
    fails["nowhere"] = {none[1]}
    screen = io.StringIO()
    summary = driver.run(grid, store, console=Console(file=screen, width=200))
    (shared, first), (whole, second) = made
    assert (shared, whole) == (False, True) and {*none, short_pool, broken_pool} <= {*first}
    assert {*second} == {none[0], none[1], short_pool, memseg[0]}
    assert "3 units ran out of memory on a shared GPU" in screen.getvalue()
    assert summary.failures.keys() == {none[1], none[2], broken_pool} and summary.user_error
    assert summary.trained == summary.done == 3 and summary.blocked == {broken_pool: 1}


def test_a_run_with_enough_memory_has_one_pass(store, passes):
    fails, made = passes
    grid = tiny_grid(augmenters=["none"], shots=[5], draws=[0, 1])
    fails |= {make_plan(grid).cells[0].key: BROKEN, "nowhere": set()}
    assert driver.run(grid, store, console=Console(file=io.StringIO())).done == 1
    assert [whole for whole, _ in made] == [False]
