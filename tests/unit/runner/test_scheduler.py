"""Batches of cells: their size, and what becomes of those whose worker died."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
from helpers import TINY, TINY_PROBE, tiny_plan

from augbench.planning.remaining import subtract
from augbench.runner.scheduler import ATTEMPTS, Scheduler
from augbench.storage.leases import Leases
from augbench.testing import SURFACES

PROBES = {"augmenters": ["memseg"], "shots": [5], "seeds": list(range(41)), "protocols": [TINY_PROBE]}


@pytest.fixture
def scheduler_of(store):
    """Make a scheduler whose chunks and features are in the store, so that all cells are ready."""
    with ExitStack() as stack:

        def make(workers=1, **changes):
            plan = tiny_plan(**{**PROBES, **changes})
            remaining = replace(subtract(plan, store), chunks=[], features=[])
            scheduler = Scheduler(plan, remaining, store, stack.enter_context(Leases(store.files)))
            scheduler.workers = workers
            return scheduler

        yield make


def take(scheduler):
    """Return the keys of the next batch."""
    return [cell.key for cell, _ in scheduler.next_cells()]


def finish(scheduler, keys, seconds):
    for key in keys:
        scheduler.cell_done(key, {"ap": 0.5}, seconds)


def measured(scheduler, seconds):
    """Finish a first cell, which takes that long; return the keys of the others."""
    first = take(scheduler)
    finish(scheduler, first, seconds)
    return [cell.key for cell in scheduler.plan.cells if cell.key not in first]


def commit(scheduler, keys):
    for key in keys:
        scheduler.store.files.write(scheduler.store.name("scores", key), b"")
        scheduler.store.write_json("cells", key, {})


# -- size


def test_a_batch_has_five_seconds_of_work(scheduler_of):
    scheduler = scheduler_of()
    keys = [cell.key for cell in scheduler.plan.cells]
    first, second = take(scheduler), take(scheduler)
    assert first + second == keys[:2], "one by one, as long as nothing is measured"
    finish(scheduler, first, 1.0)
    batch = take(scheduler)
    assert batch == keys[2:7]
    finish(scheduler, batch, 0.2)
    assert len(take(scheduler)) == 15, "six cells took two seconds"


def test_a_long_cell_is_its_own_batch(scheduler_of):
    scheduler = scheduler_of()
    measured(scheduler, 60.0)
    assert len(take(scheduler)) == 1


def test_fine_tuned_cells_are_handed_out_one_by_one(scheduler_of):
    scheduler = scheduler_of(protocols=[{"name": "tiny", **TINY}])
    measured(scheduler, 0.01)
    assert len(take(scheduler)) == 1


def test_cells_without_seconds_are_handed_out_one_by_one(scheduler_of):
    scheduler = scheduler_of()
    measured(scheduler, None)
    assert len(take(scheduler)) == 1


def test_no_worker_gets_more_than_its_share(scheduler_of):
    scheduler = scheduler_of(workers=4)
    measured(scheduler, 0.0)
    assert [len(take(scheduler)) for _ in range(14)] == [10, 8, 6, 4, 3, 3, 2, 1, 1, 1, 1, 0, 0, 0]


def test_a_batch_has_one_dataset_and_one_protocol(scheduler_of):
    datasets = [{"name": "surfaces", "as": name, "settings": dict(SURFACES)} for name in ("a", "b")]
    protocols = [{**TINY_PROBE, "name": name} for name in ("p", "q")]
    # A pool's images are ready at once for all protocols, so their cells alternate in the queue.
    scheduler = scheduler_of(datasets=datasets, protocols=protocols, seeds=[0, 1, 2, 3])
    scheduler._ready.extend(scheduler._ready.popleft() for _ in range(2))
    batches = []
    while batch := scheduler.next_cells():
        finish(scheduler, [cell.key for cell, _ in batch], 0.01)
        batches.append([(cell.data.alias, cell.protocol.name, cell.seed) for cell, _ in batch])
    assert [len(batch) for batch in batches] == [1, 3, 1, 3, 1, 3, 1, 3]
    assert all(len({names[:2] for names in batch}) == 1 for batch in batches)
    assert batches[0] + batches[1] == [("a", "p", seed) for seed in (2, 3, 0, 1)]
    assert scheduler.done == 16 and not scheduler.cells_left


def test_a_batch_leaves_out_what_another_driver_has_or_has_done(scheduler_of):
    scheduler = scheduler_of(augmenters=["none", "memseg", "cutpaste"], draws=[0], seeds=[0, 1, 2])
    cells = scheduler.plan.cells[1:]
    with Leases(scheduler.store.files) as other:
        assert other.acquire(cells[0].block)
        commit(scheduler, [cells[4].key])
        assert measured(scheduler, 0.01) == [cell.key for cell in cells]
        assert take(scheduler) == [cells[3].key, cells[5].key]
        assert scheduler.done == 2 and scheduler.cells_left


# -- dead workers


def test_a_dead_worker_costs_one_cell_an_attempt_and_the_rest_nothing(scheduler_of):
    scheduler = scheduler_of()
    measured(scheduler, 1.0)
    made, (poison, *innocent) = (batch := take(scheduler))[:2], batch[2:]
    commit(scheduler, made)
    assert scheduler.cells_lost(batch) == [poison, *innocent]
    assert scheduler.done == scheduler.trained == 3, "what the worker had committed is done"
    for _ in range(ATTEMPTS - 1):
        assert take(scheduler) == [poison] and scheduler.cells_left
        assert scheduler.cells_lost([poison]) == [poison]
    assert "died" in scheduler.failures[poison] and scheduler.store.keys("failures") == {poison}
    assert [take(scheduler) for _ in innocent] == [[key] for key in innocent], "each by itself, however short"
    assert len(take(scheduler)) == 5, "the others in batches as before"
    for key in innocent:
        for _ in range(ATTEMPTS - 1):
            scheduler.cells_lost([key])
            assert take(scheduler) == [key]
        finish(scheduler, [key], 1.0)
    assert scheduler.failures.keys() == {poison}


def test_cells_of_a_dead_worker_join_no_batch(scheduler_of):
    scheduler = scheduler_of(workers=2, seeds=list(range(7)))
    others = measured(scheduler, 0.01)
    lost = take(scheduler)
    scheduler.cells_lost(lost)
    scheduler.workers = 1
    scheduler._ready.rotate(3)  # behind those that no worker had
    assert lost == others[:3]
    assert [take(scheduler) for _ in range(4)] == [others[3:], *([key] for key in lost)]


def test_a_worker_that_died_after_its_last_cell_costs_nothing(scheduler_of):
    scheduler = scheduler_of(seeds=list(range(5)))
    others = measured(scheduler, 0.01)
    batch = take(scheduler)
    commit(scheduler, batch)
    assert batch == others and scheduler.cells_lost(batch) == []
    assert scheduler.done == 5 and not scheduler.cells_left
