"""Machines that join and leave during a run, and a head that dies: raylets of one machine, and cells that sleep."""

import contextlib
import os
import subprocess
import sys

import pytest
import yaml
from chaos_machines import Machines, wait_until
from helpers import HERE, ROOT, tiny

pytestmark = pytest.mark.slow
CELLS = 60
DRIVER = """
import sys
from pathlib import Path

from sleeping import SleepingJob

from augbench.planning.grid import load_grid
from augbench.runner.driver import run
from augbench.storage.store import Store

grid, store, address = sys.argv[1:]
summary = run(load_grid(grid), Store(store), address=address, job=SleepingJob(0.5, Path(store).with_name("notes")))
print("done", summary.done, summary.failures)
"""


@contextlib.contextmanager
def run_of_sleeping_cells(folder):
    """Start a run on a head and two machines; once a cell is done, yield them, the driver, and a count of cells."""
    (folder / "notes").mkdir()
    (folder / "grid.yaml").write_text(yaml.safe_dump(tiny(augmenters=["none"], shots=[3], seeds=list(range(CELLS)))))
    variables = {"PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT / "bench")])}  # workers import the job
    store = folder / "store"

    def done():
        return len(list(store.glob("cells/*.json")))

    with Machines(variables) as machines:
        command = [sys.executable, "-c", DRIVER, folder / "grid.yaml", store, machines.address]
        environment = {**os.environ, **variables}
        with subprocess.Popen(
            list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as driver:
            try:
                assert wait_until(done, 240)
                yield machines, driver, done
            finally:
                driver.kill()


def test_a_run_moves_to_a_machine_that_joined(tmp_path):
    with run_of_sleeping_cells(tmp_path) as (machines, driver, done):
        first = machines.nodes
        machines.join()
        for node in first:
            machines.kill(node)
        assert done() < CELLS, "too late"
        out, err = driver.communicate(timeout=240)
    assert driver.returncode == 0 and f"done {CELLS} {{}}" in out, out + err
    assert done() == CELLS


def test_a_run_without_its_head_ends_in_one_line(tmp_path):
    with run_of_sleeping_cells(tmp_path) as (machines, driver, done):
        machines.kill(machines.head)
        assert done() < CELLS, "too late"
        _, err = driver.communicate(timeout=58)  # Ray itself would end it after 60 s
    assert driver.returncode == 2 and "Traceback" not in err, err
    last = err.splitlines()[-1]
    assert last.startswith("augbench: the head of the Ray cluster at") and "run the same command again" in last
    assert not list((tmp_path / "store" / "leases" / "drivers").iterdir())
