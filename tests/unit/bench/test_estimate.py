"""The simulation of bench/estimate.py: no job before its dependencies, no GPU idle while a job could run."""

import pytest
from estimate import Job, Rates, cell_images, image_seconds, jobs_of, longest_chain, sd_passes, simulate
from helpers import tiny_plan

from augbench.planning.grid import make_grid
from augbench.planning.plan import make_plan

RATES = Rates(start=0.0)
CHAIN = {
    "a": Job("adapt", 100.0, ()),
    "p/0": Job("generate", 10.0, ("a",)),
    "p/1": Job("generate", 10.0, ("a",)),
    **{f"c{i}": Job("train", 5.0, ("p/0", "p/1")) for i in range(4)},
    "none": Job("train", 5.0, ()),
}


@pytest.mark.parametrize(("gpus", "seconds"), [(1, 145.0), (2, 120.0), (8, 115.0)])
def test_jobs_are_placed(gpus, seconds):
    run = simulate(CHAIN, gpus, RATES, driver_rate=1e9)
    assert run.seconds == pytest.approx(seconds)
    assert run.busy == pytest.approx(145 / (seconds * gpus))
    assert run.adapted == 100 and run.generated == (120 if gpus == 1 else 110)
    assert longest_chain(CHAIN) == 115 <= run.seconds + 1e-6


def test_the_driver_rate_limits_dispatch():
    cells = {f"c{i}": Job("train", 1.0, ()) for i in range(100)}
    cells |= {"a": Job("adapt", 1.0, ()), "p": Job("generate", 1.0, ())}
    slow, fast = (simulate(cells, 1000, RATES, driver_rate=rate).seconds for rate in (10.0, 1e9))
    assert fast == pytest.approx(1.0) and slow == pytest.approx(11.0, abs=0.2)


def test_work_follows_from_settings():
    augmenters = ["ddpm", "stablesdg", "diag", "memseg"]
    grid = {"name": "g", "datasets": ["surfaces"], "augmenters": augmenters, "shots": [5], "n_aug": [20], "seeds": [0]}
    plan = make_plan(make_grid({**grid, "protocols": ["inout"]}))
    of = {pool.augmenter.name: pool for pool in plan.pools.values()}
    assert sd_passes(plan, of["ddpm"].adapter) == 49 * 5 * 10 * 2 * 3  # epochs, shots, repeats, with class images
    assert sd_passes(plan, of["stablesdg"].adapter) == 2000 * 4 * 3
    assert image_seconds(plan, of["ddpm"].augmenter, RATES) == pytest.approx(1.604)
    assert image_seconds(plan, of["stablesdg"].augmenter, RATES) == pytest.approx(0.802)
    assert image_seconds(plan, of["diag"].augmenter, RATES) == pytest.approx(5.932 * 0.6 * 0.99)
    assert image_seconds(plan, of["memseg"].augmenter, RATES) == 0
    cell = plan.cells[0]
    assert cell_images(cell, cell.protocol) == (50 * 2 * 25, 50 * 1004)
    jobs = jobs_of(plan, RATES)
    assert [job.stage for job in jobs.values()].count("train") == len(plan.cells) == 4
    assert all(need in jobs for job in jobs.values() for need in job.needs)
    memseg = next(cell.key for cell in plan.cells if cell.augmenter.name == "memseg")
    assert jobs[memseg].needs == ()  # its images need no GPU


def test_a_pool_without_gpu_is_no_job():
    plan = tiny_plan(augmenters=["memseg"])
    assert {job.stage for job in jobs_of(plan, RATES).values()} == {"train"}
