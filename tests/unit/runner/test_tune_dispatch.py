"""Assignment of cells to Tune trials, without Ray and on a few workers."""

import asyncio
import json
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from helpers import ROOT, TINY_PROBE, tiny_grid, tiny_plan
from sleeping import SleepingJob, noted

from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.runner.scheduler import Scheduler
from augbench.runner.tune_dispatch import BatchByBatch, Dispatch, Mailbox, ReadyCells, Workers
from augbench.runner.worker import Failure
from augbench.storage.leases import Leases
from augbench.storage.store import Store

MANY = {"augmenters": ["none"], "shots": [5], "seeds": list(range(12))}
PROBES = {"augmenters": ["memseg"], "shots": [5], "seeds": list(range(12)), "protocols": [TINY_PROBE]}
DONE = {"headline": {"ap": 0.5}, "seconds": 1.0, "numbers": {"ap": 0.5}}
BROKEN = {"failure": asdict(Failure("broken", by_user=False))}


class Calls(list):
    """Stands in for the mailbox actor and for trackers: a list of the calls."""

    def __init__(self):
        super().__init__()
        self.give = SimpleNamespace(remote=lambda trial_id, keys: self.append((trial_id, *keys)))

    def started(self, attempt, key):
        self.append(("started", attempt, key))

    def ended(self, attempt, numbers):
        self.append(("ended", attempt, numbers))


class FakeTune:
    """Simulates Ray Tune: trials are started, report results, and are lost."""

    def __init__(self, dispatch):
        self.dispatch, self.trials = dispatch, {}
        self.searcher, self.scheduler, self.callback = ReadyCells("run"), BatchByBatch("run"), Workers("run")

    def ask(self, *trial_ids):
        """Create trials; return the keys of their cells."""
        for trial_id in trial_ids:
            config = self.searcher.suggest(trial_id)
            self.trials[trial_id] = SimpleNamespace(trial_id=trial_id, config=config, error_file=None)
        return [key for trial_id in trial_ids for key in self.trials[trial_id].config["keys"]]

    def start(self, *trial_ids):
        for trial_id in trial_ids:
            self.callback.on_trial_start(0, [], self.trials[trial_id])

    def result(self, trial_id, *outcomes):
        return self.scheduler.on_trial_result(None, self.trials[trial_id], {"outcomes": json.dumps(outcomes or [DONE])})

    def lose(self, trial_id):
        self.callback.on_trial_error(0, [], self.trials[trial_id])


@contextmanager
def playing(store, grid):
    """A scheduler whose cells are ready, and a simulation of Tune that works for it."""
    plan = tiny_plan(**grid)
    with Leases(store.files) as leases:
        remaining = replace(subtract(plan, store), chunks=[], features=[])
        scheduler = Scheduler(plan, remaining, store, leases)
        dispatch = Dispatch(scheduler, Calls(), Calls())
        with dispatch.named("run"):
            yield scheduler, FakeTune(dispatch)


@pytest.fixture
def played(store):
    with playing(store, MANY) as both:
        yield both


@pytest.fixture
def probed(store):
    """The same with short cells, the first of which has taken a second: batches hold five."""
    with playing(store, PROBES) as (scheduler, tune):
        tune.ask("first")
        tune.start("first")
        assert tune.result("first") == "STOP"
        tune.dispatch.tracking.clear()
        yield scheduler, tune


def next_of(scheduler):
    return [cell.key for cell, _ in scheduler.next_cells()]


def test_trials_continue_while_workers_are_starting(played):
    scheduler, tune = played
    keys = tune.ask("a", "b", "c")
    tune.start("a")
    assert tune.result("a") == "CONTINUE"
    ((trial_id, another),) = tune.dispatch.mailbox
    assert trial_id == "a" and another not in keys
    tune.start("b")
    assert tune.result("a") == "CONTINUE", "one is still starting"
    tune.start("c")
    assert tune.result("a") == tune.result("b") == "STOP", "all have started: Tune gives workers their next trials"
    assert scheduler.done == scheduler.trained == 4
    (key,) = tune.ask("d")
    assert key not in {*keys, *(key for _, key in tune.dispatch.mailbox)}


def test_a_lost_worker_is_replaced_however_short_cells_are(played):
    _, tune = played
    tune.ask("a", "b")
    tune.start("a", "b")
    tune.lose("b")
    tune.ask("c")  # Tune starts a worker for it
    # Or it would reuse this worker and kill the new one.
    assert [tune.result("a") for _ in range(3)] == ["CONTINUE"] * 3
    tune.start("c")
    assert tune.result("a") == "STOP"


def test_without_a_ready_cell_a_trial_ends_although_workers_are_starting(played):
    scheduler, tune = played
    tune.ask("a", "b")
    tune.start("a")
    assert [tune.result("a") for _ in range(11)] == ["CONTINUE"] * 10 + ["STOP"]
    tune.start("b")  # by the worker of the other
    assert tune.result("b") == "STOP" and scheduler.done == 12
    assert tune.searcher.suggest("c") == "FINISHED"


def test_a_lost_worker_loses_only_its_current_cell(played):
    scheduler, tune = played
    first, _ = tune.ask("a", "b")
    tune.start("a")
    tune.result("a")
    ((_, second),) = tune.dispatch.mailbox
    tune.lose("a")
    assert scheduler.done == 1 and next_of(scheduler) == [second], "the first is done, the second queued again"
    assert b"worker of this cell was lost" in scheduler.store.files.read(scheduler.store.log_name(second))
    assert not scheduler.store.files.exists(scheduler.store.log_name(first))


def test_a_worker_that_could_not_be_set_up_loses_the_cell_of_its_trial(played):
    scheduler, tune = played
    lost, _ = tune.ask("a", "b")
    tune.lose("a")  # before it started
    tune.start("b")
    assert tune.result("b") == "STOP", "no worker is starting any more"
    assert next_of(scheduler) == [lost]
    assert [what for what, *_ in tune.dispatch.tracking] == ["started", "ended"]  # of the other


def test_trackers_get_each_cell_of_a_trial(played):
    _, tune = played
    first, _ = tune.ask("a", "b")
    tune.start("a")
    tune.result("a")
    tune.result("a", BROKEN)
    tune.lose("a")
    (_, second), (_, third) = tune.dispatch.mailbox
    assert tune.dispatch.tracking == [
        ("started", "a-0", first),
        ("ended", "a-0", DONE["numbers"]),
        ("started", "a-1", second),
        ("ended", "a-1", None),
        ("started", "a-2", third),
        ("ended", "a-2", None),
    ]
    assert tune.dispatch.scheduler.failures == {second: "broken"}


def test_a_trial_is_a_batch_of_short_cells(probed):
    scheduler, tune = probed
    keys = [cell.key for cell in scheduler.plan.cells]
    assert tune.ask("a", "b") == keys[1:11]
    tune.start("a")
    assert tune.result("a", DONE, BROKEN, DONE, DONE, DONE) == "CONTINUE"
    assert tune.dispatch.mailbox == [("a", keys[11])]
    assert scheduler.done == 5 and scheduler.failures == {keys[2]: "broken"}
    begun = [("started", f"a-{number}", key) for number, key in enumerate(keys[1:6], 1)]
    ended = [("ended", f"a-{number}", None if number == 2 else DONE["numbers"]) for number in range(1, 6)]
    assert tune.dispatch.tracking == [*begun, *ended, ("started", "a-6", keys[11])]


def test_the_loss_of_a_batch_is_noted_at_its_first_unfinished_cell(probed):
    scheduler, tune = probed
    batch = tune.ask("a")
    tune.start("a")
    for key in batch[:2]:
        result = {"ap": 0.25, "curves": {"loss": [1.0]}}
        scheduler.store.files.write(scheduler.store.name("scores", key), b"")
        scheduler.store.write_json("cells", key, {"result": result, "provenance": {"seconds": {"total": 1.0}}})
    tune.lose("a")
    logs = [name.removesuffix(".log") for name in scheduler.store.files.names("logs")]
    assert logs == [batch[2]] and scheduler.done == 3 and next_of(scheduler) == [batch[2]]
    reported = [numbers and numbers["ap"] for what, _, numbers in tune.dispatch.tracking if what == "ended"]
    assert reported == [0.25, 0.25, None, None, None]


def test_a_batch_ends_where_the_store_is_out_of_reach(probed):
    scheduler, tune = probed
    tune.ask("a")
    tune.start("a")
    assert tune.result("a", DONE, {"failure": asdict(Failure("no space", False, fatal=True))}) == "STOP"
    assert scheduler.done == 2 and not scheduler.failures and "no space" in str(scheduler.fatal)
    assert tune.searcher.suggest("b") == "FINISHED"


def test_a_worker_gets_its_own_batch_in_any_order():
    mailbox = Mailbox.__ray_metadata__.modified_class()

    async def meet():
        early = asyncio.create_task(mailbox.take("a"))
        await asyncio.sleep(0)
        await mailbox.give("b", ["cell of b"])
        await mailbox.give("a", ["cell of a", "another of a"])
        keys = [await early, await mailbox.take("b")]
        await mailbox.give("a", ["a third"])
        return [*keys, await mailbox.take("a")]

    assert asyncio.run(meet()) == [["cell of a", "another of a"], ["cell of b"], ["a third"]]


@pytest.mark.slow
def test_short_cells_run_on_all_workers_while_these_start(tmp_path, monkeypatch):
    """Very short cells, more workers than cores: each worker starts and works, and none is killed."""
    grid = tiny_grid(**{**MANY, "seeds": list(range(60))}, resources={"train": {"cpu": 0.25, "workers": 4}})
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "bench"))  # workers need the job, too
    notes = tmp_path / "notes"
    notes.mkdir()
    store = Store(tmp_path / "store")
    assert run(grid, store, job=SleepingJob(0.5, notes)).done == 60
    shares = [len(times) for times in noted(notes).values()]
    assert len(shares) == 4 and min(shares) >= 5, "all four started, and stayed"
