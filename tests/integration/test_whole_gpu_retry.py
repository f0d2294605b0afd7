"""Units that run out of memory on a shared GPU are tried once more by the same run, on a whole one. It is virtual."""

import io
import logging
import os
from collections import Counter

import pytest
import ray
from helpers import HERE, ROOT, tiny_grid
from hungry_job import HungryJob
from rich.console import Console

from augbench.core import registry
from augbench.planning.plan import make_plan
from augbench.runner import driver

HUNGRY = HERE / "plugins" / "hungry.py"


@pytest.fixture
def one_gpu(monkeypatch):
    """Let runs start a Ray with a virtual GPU."""

    def connect(address, folder):
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.CRITICAL}
        environment = driver._runtime_env("local")
        ray.init(num_cpus=2, num_gpus=1, _temp_dir=folder, runtime_env=environment, **options)

    monkeypatch.setattr(driver, "_connect", connect)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(ROOT / "bench")]))  # workers import the job


@pytest.fixture
def hungry(monkeypatch):
    """Register the plug-in for this test alone."""
    monkeypatch.setattr(registry, "_found", {kind: dict(found) for kind, found in registry._found.items()})
    for name in ("_files", "_versions"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    registry.load_file(HUNGRY)


@pytest.mark.slow
def test_units_that_ran_out_of_memory_get_a_whole_gpu(store, tmp_path, one_gpu, hungry):
    """An adapter, chunks and a cell that fit on a whole GPU only, a cell that fits nowhere, and a broken one."""
    grid = tiny_grid(augmenters=["none", "hungry"], shots=[5], n_aug=[6], draws=[0, 1, 2], fidelity=None)
    none = [cell.key for cell in make_plan(grid).cells if cell.augmenter.name == "none"]
    made = [cell.key for cell in make_plan(grid).cells if cell.augmenter.name == "hungry"]
    screen = io.StringIO()
    job = HungryJob(tmp_path, {none[0]}, {none[1]}, {none[2]})
    summary = driver.run(grid, store, console=Console(file=screen, width=200), job=job)
    tries = Counter((tmp_path / "tried").read_text().splitlines())
    expected = {f"{none[0]} 0.25", f"{none[0]} 1", f"{none[1]} 0.25", f"{none[1]} 1", f"{none[2]} 0.25"}
    assert tries == Counter([*expected, *(f"{key} 1" for key in made)])
    assert "3 units ran out of memory on a shared GPU: they are tried again" in screen.getvalue()
    assert summary.failures.keys() == {none[1], none[2]} == store.keys("failures")
    assert store.keys("cells") == {none[0], *made} and summary.done == summary.trained == 1 + len(made)
    assert not summary.blocked and summary.cells == 3 + len(made)
