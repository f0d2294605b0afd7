"""The steps of a training slot, in this process."""

import json

import pytest
from helpers import tiny_plan

from augbench.core.errors import StoreError
from augbench.runner.mailbox import Work
from augbench.runner.ray_tune import CellTrainable
from augbench.stages.context import Context

MANY = {"augmenters": ["none"], "shots": [5], "seeds": [0, 1, 2, 3]}
RECORD = {"result": {"ap": 0.5, "curves": {"loss": [1.0]}}, "provenance": {"seconds": {"total": 2.0}}}


@pytest.fixture
def step(store):
    """Train the first cells of a plan in one step; return their keys and outcomes."""

    def train(job, count, tracked=False):
        plan = tiny_plan(**MANY)
        slot = CellTrainable.__new__(CellTrainable)
        slot.context, slot.images, slot.job, slot.tracked = Context(store, plan.library), None, job, tracked
        slot.work = Work(plan, lambda part: part)
        slot.keys = [cell.key for cell in plan.cells[:count]]
        return slot.keys, json.loads(slot.step()["outcomes"])

    return train


def refusing(error, seed):
    """A job that raises at the cell of that seed."""

    def job(context, images, cell, slices):
        if cell.seed == seed:
            raise error
        return RECORD

    return job


@pytest.fixture(autouse=True)
def _parts_by_value(monkeypatch):
    monkeypatch.setattr("augbench.runner.ray_tune.ray.get", lambda part: part)


def test_a_step_trains_each_cell_of_its_batch(step, store):
    keys, outcomes = step(refusing(ValueError("no"), 1), 3)
    assert [outcome.get("headline") for outcome in outcomes] == [{"ap": 0.5}, None, {"ap": 0.5}]
    assert outcomes[1]["failure"]["line"].startswith("ValueError: no") and not outcomes[1]["failure"]["fatal"]
    assert 0 <= outcomes[0]["seconds"] < 60 and store.keys("failures") == {keys[1]}
    assert "numbers" not in outcomes[0] and step(refusing(None, None), 1, tracked=True)[1][0]["numbers"]["seconds"] == 2


def test_a_step_ends_where_the_store_is_out_of_reach(step):
    _, outcomes = step(refusing(StoreError("gone"), 1), 4)
    assert len(outcomes) == 2 and outcomes[1]["failure"]["fatal"]
