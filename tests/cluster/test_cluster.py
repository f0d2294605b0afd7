"""Several machines, as far as one can play them: a cluster of raylets, and one started by Ray's own commands."""

import pickle
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from helpers import TOY, assert_one_line, cli, results_of, tiny
from multinode import RAY, free_port, raylets, started

import augbench
from augbench.core import registry
from augbench.planning.grid import load_grid
from augbench.runner.driver import IN_A_JOB, _runtime_env, run
from augbench.runner.worker import WorkerSetup
from augbench.storage.store import Store

PRETENDER = '''
"""An augmenter that says it uses a GPU, and draws the device it was given."""

import numpy as np

from augbench import Augmenter, Synthetic


class Pretender(Augmenter):
    title = "pretender"
    uses_gpu = True
    chunk_size = 4

    def generate(self, requests, view):
        mask = np.ones((48, 32), bool)
        return [Synthetic(np.full((48, 32, 3), one.index, np.uint8), one.label, mask, {}) for one in requests]
'''
GRID = tiny(
    name="spread",
    augmenters=["none", "memseg", "toy", "pretender"],
    shots=[0, 5],
    resources={"train": {"memory": "1MB"}},
)
TRAVELLED = f"{augbench.__version__}+travelled"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the grid and its plug-ins."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "spread.yaml").write_text(yaml.safe_dump(GRID))
    (folder / "pretender.py").write_text(PRETENDER)
    shutil.copy(TOY, folder / "toy.py")
    return folder


@pytest.fixture(scope="module")
def inline(place, tmp_path_factory):
    """The same grid in this process: what every cluster must equal."""
    registry.load_file(place / "pretender.py")
    store = Store(tmp_path_factory.mktemp("inline"))
    assert not run(load_grid(place / "spread.yaml"), store, executor="inline").failures
    return store


# -- what reaches the workers


def test_a_plugin_file_need_not_be_where_a_worker_is(tmp_path):
    """Its text travels; the digest in keys is that of the text."""
    file = tmp_path / "there.py"
    file.write_text(PRETENDER)
    code = """
import pickle, sys
from augbench.core import registry
setup = pickle.loads(sys.stdin.buffer.read())
from augbench.core.specs import AugmenterSpec
print(setup.uses_gpu(AugmenterSpec("there", "there", {}, {})), registry.version("augmenters", "there")["plugin"])
"""
    registry.load_file(file)
    here = registry.version("augmenters", "there")["plugin"]
    setup = WorkerSetup(str(tmp_path), {}, {str(file): registry.loaded_files()[str(file)]}, False, None)
    file.unlink()
    there = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(setup), capture_output=True)
    assert there.stdout.decode().split() == ["True", here], there.stderr.decode()


def test_what_a_cluster_is_given(monkeypatch):
    assert "py_modules" not in _runtime_env("local")
    assert _runtime_env("auto")["py_modules"] == [str(Path(augbench.__file__).parent)]
    monkeypatch.setenv(IN_A_JOB, "{}")
    assert "py_modules" not in _runtime_env("auto"), "the job brings its own"


def test_a_job_keeps_nothing_in_its_working_directory(place, tmp_path):
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    folder.mkdir(parents=True)
    command = ("--plugin", place / "toy.py", "--plugin", place / "pretender.py", "run", place / "spread.yaml")
    for words in ((), ("--store", "runs/other")):
        assert_one_line(cli(*command, *words, cwd=folder, env={IN_A_JOB: "{}"}), "which Ray deletes", "--store")
    assert not list(folder.iterdir())


# -- raylets of one process

WATCHED = """
import sys
from rich.console import Console
from augbench.core import registry
from augbench.planning.grid import load_grid
from augbench.storage.store import Store
from augbench.runner import driver, ray_data

folder, store, address = sys.argv[1:]
for name in ("pretender", "toy"):
    registry.load_file(f"{folder}/{name}.py")
seen = {}
execute = ray_data.Making._execute

def watched(making, units):
    for pool, _ in units:
        seen.setdefault(pool.augmenter.name, making.lane.share.gpu)
    return execute(making, units)

ray_data.Making._execute = watched
summary = driver.run(load_grid(f"{folder}/spread.yaml"), Store(store), address=address)
assert not summary.failures, summary.failures
assert seen == {"memseg": 0.0, "toy": 0.0, "pretender": 0.5}, seen
print("done", summary.done)
"""


def test_several_machines_are_as_inline(place, inline, tmp_path):
    """Pools of both kinds are made side by side, trainings by code that only the driver's machine has."""
    package = tmp_path / "code" / "augbench"
    shutil.copytree(Path(augbench.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    file = package / "__init__.py"
    file.write_text(file.read_text().replace(f'"{augbench.__version__}"', f'"{TRAVELLED}"'))
    (tmp_path / "watched.py").write_text(WATCHED)
    with raylets() as ((_, address), environment):
        command = [sys.executable, tmp_path / "watched.py", place, tmp_path / "store", address]
        environment["PYTHONPATH"] = str(tmp_path / "code")
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=240, env=environment
        )
    assert done.returncode == 0 and f"done {len(inline.keys('cells'))}" in done.stdout, done.stdout + done.stderr
    store = Store(tmp_path / "store")
    assert results_of(store) == results_of(inline)
    made_by = {store.read_record(key)["provenance"]["versions"]["augbench"] for key in store.keys("cells")}
    assert made_by == {TRAVELLED}


# -- Ray's own commands


@pytest.mark.skipif(find_spec("opencensus") is None, reason="ray[default] is not installed")
def test_a_job_from_outside_is_as_inline(place, inline, tmp_path):
    """Two machines by `ray start`, and a run sent with `ray job submit`: grid and plug-ins travel."""
    dashboard = free_port()
    submit = [RAY, "job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--working-dir", place, "--",
              "augbench", "--plugin", "toy.py", "--plugin", "pretender.py", "run", "spread.yaml",
              "--store", tmp_path / "store"]  # fmt: skip
    with started(dashboard) as (_, environment):
        submitted = subprocess.run(
            [str(word) for word in submit], capture_output=True, text=True, timeout=240, env=environment
        )
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "cells done" in submitted.stdout and "succeeded" in submitted.stdout
    assert results_of(Store(tmp_path / "store")) == results_of(inline)
    again = cli("--plugin", place / "toy.py", "--plugin", place / "pretender.py", "run", place / "spread.yaml",
                "--store", tmp_path / "store")  # fmt: skip
    assert again.returncode == 0 and "nothing to do" in " ".join(again.stdout.split())
