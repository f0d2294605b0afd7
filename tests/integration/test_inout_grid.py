"""A small grid of In&Out: adapters, pools and mixture through the command line, also after a kill."""

import json
import signal
import subprocess
import sys
import time

import pytest
from helpers import HERE, TINY_DDPM, cli, grid_file, path_of, results_of, tiny, tiny_grid

from augbench.runner.driver import run
from augbench.storage.store import ADAPTER_MARKER, Store

DDPM = TINY_DDPM | {"few": {"epochs": 8, "alpha": 0.9}}
GRID = tiny(
    name="inout",
    augmenters=[{"name": "ddpm", "settings": DDPM}, {"name": "inout", "settings": {"ddpm": DDPM}}],
    shots=[3],
    n_aug=[4],
    seeds=[0],
)
EAGER = "import augbench.diffusion.dreambooth as d; d.FLUSH = -1; from augbench.cli.app import main; main()"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    summary = run(tiny_grid(**GRID), store, executor="inline")
    assert summary.done == summary.cells == 2
    return store


def adapters_of(store):
    """Return the adapter files except the record, which has times and hosts."""
    folder = store.files.folder
    return {path.relative_to(folder): path.read_bytes() for path in folder.glob("adapters/*/*/*")}


def test_halves_of_both_pools_and_one_adapter(undisturbed):
    """In&Out uses the first images of the shared pools of its parts."""
    assert len(undisturbed.keys("adapters")) == 1
    assert sorted(key.split("-")[1] for key in undisturbed.keys("pools")) == ["ddpm", "memseg"]
    marker = path_of(undisturbed, "adapters", *undisturbed.keys("adapters")) / ADAPTER_MARKER
    record = json.loads(marker.read_text())
    assert record["learned"]["instances"] == 3
    assert len(record["learned"]["loss"]) == record["learned"]["steps"] == 16


def test_a_killed_adaptation_resumes_with_the_same_result(undisturbed, store, tmp_path):
    arguments = ["run", str(grid_file(tmp_path, **GRID)), "--store", store.url, "--executor", "inline"]
    process = subprocess.Popen([sys.executable, "-c", EAGER, *arguments], cwd=HERE)
    deadline = time.monotonic() + 120
    while not list(store.files.folder.glob("scratch/*/dreambooth.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not store.keys("adapters"), "killed too late"
    out = cli(*arguments)
    assert out.returncode == 0, out.stderr
    assert results_of(store) == results_of(undisturbed)
    assert adapters_of(store) == adapters_of(undisturbed)
    assert not list(store.files.folder.glob("scratch/*"))
