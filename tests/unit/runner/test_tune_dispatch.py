"""Which slot is at which cell: what the driver says to Ray Tune, without Ray and on a few workers."""

import asyncio
import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from helpers import ROOT, tiny_grid, tiny_plan
from sleeping import SleepingJob, noted

from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.runner.scheduler import Scheduler
from augbench.runner.tune_dispatch import CellByCell, Dispatch, Mailbox, ReadyCells, Workers
from augbench.runner.worker import Failure
from augbench.storage.leases import Leases
from augbench.storage.store import Store

MANY = {"augmenters": ["none"], "shots": [5], "seeds": list(range(12))}
DONE = {"headline": json.dumps({"ap": 0.5}), "numbers": json.dumps({"ap": 0.5})}


class Told(list):
    """Stands in for the handout actor, and for trackers: a list of what they were told."""

    def __init__(self):
        super().__init__()
        self.give = SimpleNamespace(remote=lambda trial_id, key: self.append((trial_id, key)))

    def started(self, attempt, key):
        self.append(("started", attempt, key))

    def ended(self, attempt, numbers):
        self.append(("ended", attempt, numbers))


class Tune:
    """Plays Ray Tune: trials are started, have results, and are lost."""

    def __init__(self, dispatch):
        self.dispatch, self.trials = dispatch, {}
        self.searcher, self.scheduler, self.callback = ReadyCells("run"), CellByCell("run"), Workers("run")

    def ask(self, *trial_ids):
        """New trials; their cells."""
        with self.dispatch.named("run"):
            for trial_id in trial_ids:
                config = self.searcher.suggest(trial_id)
                self.trials[trial_id] = SimpleNamespace(trial_id=trial_id, config=config, error_file=None)
        return [self.trials[trial_id].config["key"] for trial_id in trial_ids]

    def start(self, *trial_ids):
        with self.dispatch.named("run"):
            for trial_id in trial_ids:
                self.callback.on_trial_start(0, [], self.trials[trial_id])

    def result(self, trial_id, outcome=None):
        with self.dispatch.named("run"):
            return self.scheduler.on_trial_result(None, self.trials[trial_id], outcome or DONE)

    def lose(self, trial_id):
        with self.dispatch.named("run"):
            self.callback.on_trial_error(0, [], self.trials[trial_id])


@pytest.fixture
def played(tmp_path):
    store, plan = Store(tmp_path), tiny_plan(**MANY)
    with Leases(store.files) as leases:
        board = Scheduler(plan, subtract(plan, store), store, leases)
        yield board, Tune(Dispatch(board, Told(), Told()))


def test_nobody_waits_for_workers_that_still_come(played):
    board, tune = played
    keys = tune.ask("a", "b", "c")
    tune.start("a")
    assert tune.result("a") == "CONTINUE"
    ((trial_id, another),) = tune.dispatch.handout
    assert trial_id == "a" and another not in keys
    tune.start("b")
    assert tune.result("a") == "CONTINUE", "one has still to come"
    tune.start("c")
    assert tune.result("a") == tune.result("b") == "STOP", "all are there: Tune gives workers their next trials"
    assert board.done == board.trained == 4
    (key,) = tune.ask("d")
    assert key not in {*keys, *(key for _, key in tune.dispatch.handout)}


def test_a_lost_worker_is_replaced_however_short_cells_are(played):
    _, tune = played
    tune.ask("a", "b")
    tune.start("a", "b")
    tune.lose("b")
    tune.ask("c")  # Tune starts a worker for it
    assert [tune.result("a") for _ in range(3)] == ["CONTINUE"] * 3, "or it would take this one, and kill the other"
    tune.start("c")
    assert tune.result("a") == "STOP"


def test_where_no_cell_is_ready_a_trial_ends_though_workers_come(played):
    board, tune = played
    tune.ask("a", "b")
    tune.start("a")
    assert [tune.result("a") for _ in range(11)] == ["CONTINUE"] * 10 + ["STOP"]
    tune.start("b")  # by the worker of the other
    assert tune.result("b") == "STOP" and board.done == 12
    with tune.dispatch.named("run"):
        assert tune.searcher.suggest("c") == "FINISHED"


def test_a_lost_worker_costs_the_cell_it_was_at(played):
    board, tune = played
    first, _ = tune.ask("a", "b")
    tune.start("a")
    tune.result("a")
    ((_, second),) = tune.dispatch.handout
    tune.lose("a")
    assert board.done == 1 and board.next_cell()[0].key == second, "the first is done, the second comes anew"
    assert b"worker of this cell was lost" in board.store.files.read(board.store.log_name(second))
    assert not board.store.files.exists(board.store.log_name(first))


def test_a_worker_that_could_not_be_set_up_costs_the_cell_of_its_trial(played):
    board, tune = played
    lost, _ = tune.ask("a", "b")
    tune.lose("a")  # before it started
    tune.start("b")
    assert tune.result("b") == "STOP", "nobody is coming any more"
    assert board.next_cell()[0].key == lost
    assert [what for what, *_ in tune.dispatch.tracking] == ["started", "ended"]  # of the other


def test_trackers_hear_of_each_cell_of_a_trial(played):
    _, tune = played
    first, _ = tune.ask("a", "b")
    tune.start("a")
    tune.result("a")
    tune.result("a", {"failure": json.dumps(asdict(Failure("broken", by_user=False)))})
    tune.lose("a")
    (_, second), (_, third) = tune.dispatch.handout
    assert tune.dispatch.tracking == [
        ("started", "a-0", first),
        ("ended", "a-0", DONE["numbers"]),
        ("started", "a-1", second),
        ("ended", "a-1", None),
        ("started", "a-2", third),
        ("ended", "a-2", None),
    ]
    assert tune.dispatch.board.failures == {second: "broken"}


def test_a_worker_hears_of_its_own_cell_whoever_comes_first():
    handout = Mailbox.__ray_metadata__.modified_class()

    async def meet():
        early = asyncio.create_task(handout.take("a"))
        await asyncio.sleep(0)
        await handout.give("b", "cell of b")
        await handout.give("a", "cell of a")
        told = [await early, await handout.take("b")]
        await handout.give("a", "another")
        return [*told, await handout.take("a")]

    assert asyncio.run(meet()) == ["cell of a", "cell of b", "another"]


def test_short_cells_are_done_by_all_workers_while_these_come_up(tmp_path, monkeypatch):
    """Cells as short as nothing, more workers than cores: each comes up and works, and none is killed for that."""
    grid = tiny_grid(**{**MANY, "seeds": list(range(60))}, resources={"train": {"cpu": 0.25, "workers": 4}})
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "bench"))  # workers need the job, too
    notes = tmp_path / "notes"
    notes.mkdir()
    store = Store(tmp_path / "store")
    assert run(grid, store, job=SleepingJob(0.5, notes)).done == 60
    shares = [len(times) for times in noted(notes).values()]
    assert len(shares) == 4 and min(shares) >= 5, "all four came up, and stayed"
