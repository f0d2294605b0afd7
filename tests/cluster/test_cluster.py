"""Several nodes, simulated on one machine: a cluster of raylets, and one started by Ray's commands."""

import pickle
import shutil
import socket
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
"""An augmenter that claims to use a GPU."""

import numpy as np

from augbench import Augmenter, Synthetic


class Pretender(Augmenter):
    title = "pretender"
    uses_gpu = True
    chunk_size = 4

    def generate(self, requests, view):
        normal = view.image(view.negatives["id"].iloc[0])
        return [self._one(request, normal.copy()) for request in requests]

    def _one(self, request, image):
        image[:9] = request.index
        return Synthetic(image, request.label, np.ones(image.shape[:2], bool), {})
'''
AUGMENTERS = ["none", "memseg", "toy", "pretender"]
GRID = tiny(name="spread", augmenters=AUGMENTERS, shots=[0, 5], resources={"train": {"memory": "1MB"}})
TRAVELLED = f"{augbench.__version__}+travelled"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the grid and its plug-ins."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "spread.yaml").write_text(yaml.safe_dump(GRID))
    (folder / "pretender.py").write_text(PRETENDER)
    shutil.copy(TOY, folder / "toy.py")
    return folder


@pytest.fixture(scope="module")
def inline(folder, tmp_path_factory):
    """The same grid run inline: the reference for every cluster."""
    registry.load_file(folder / "pretender.py")
    store = Store(tmp_path_factory.mktemp("inline"))
    assert not run(load_grid(folder / "spread.yaml"), store, executor="inline").failures
    return store


def finished(command, environment):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, env=environment)


# -- what is sent to workers


def test_a_plugin_file_need_not_exist_on_the_node_of_a_worker(tmp_path):
    """Its source is sent; the digest in keys is that of the source."""
    file = tmp_path / "there.py"
    file.write_text(PRETENDER)
    code = """
import pickle, sys
from augbench.core import registry
setup = pickle.loads(sys.stdin.buffer.read())
from augbench.core.specs import AdapterSpec, AugmenterSpec
unit = AdapterSpec(None, AugmenterSpec("there", "there", {}, {}), None, None)
print(setup.uses_gpu(unit), registry.version("augmenters", "there")["plugin"])
"""
    registry.load_file(file)
    here = registry.version("augmenters", "there")["plugin"]
    setup = WorkerSetup(str(tmp_path), {}, {str(file): registry.loaded_files()[str(file)]}, False, None)
    file.unlink()
    there = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(setup), capture_output=True)
    assert there.stdout.decode().split() == ["True", here], there.stderr.decode()


def test_runtime_environment_of_a_cluster(monkeypatch):
    assert "py_modules" not in _runtime_env("local")
    assert _runtime_env("auto")["py_modules"] == [str(Path(augbench.__file__).parent)]
    monkeypatch.setenv(IN_A_JOB, "{}")
    assert "py_modules" not in _runtime_env("auto"), "the job has its own"


def test_a_job_has_no_store_in_its_working_directory(folder, tmp_path):
    work = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    work.mkdir(parents=True)
    command = ("--plugin", folder / "toy.py", "--plugin", folder / "pretender.py", "run", folder / "spread.yaml")
    for options in ((), ("--store", "runs/other")):
        assert_one_line(cli(*command, *options, cwd=work, env={IN_A_JOB: "{}"}), "which Ray deletes", "--store")
    assert not list(work.iterdir())


def test_a_missing_token_is_one_line_with_the_steps(folder, tmp_path):
    """What Ray's own hint leads to: the mode is set, but no token is there."""
    command = ("--plugin", folder / "toy.py", "--plugin", folder / "pretender.py", "run", folder / "spread.yaml")
    with socket.create_server(("127.0.0.1", 0)) as port:
        where = ("--store", tmp_path / "store", "--address", f"127.0.0.1:{port.getsockname()[1]}")
        done = cli(*command, *where, env={"RAY_AUTH_MODE": "token"})
    assert_one_line(done, "no Ray cluster at '127.0.0.1:", "RAY_AUTH_TOKEN", "ray get-auth-token")


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
execute = ray_data.ChunkExecutor._execute

def watched(executor, units):
    for pool, _ in units:
        seen.setdefault(pool.augmenter.name, executor.lane.share.gpu)
    return execute(executor, units)

ray_data.ChunkExecutor._execute = watched
summary = driver.run(load_grid(f"{folder}/spread.yaml"), Store(store), address=address)
assert not summary.failures, summary.failures
assert seen == {"memseg": 0.0, "toy": 0.0, "pretender": 0.5}, seen
print("done", summary.done)
"""


def test_several_nodes_equal_inline(folder, inline, tmp_path):
    """Both worker lanes run concurrently, with code that only the driver's node has."""
    package = tmp_path / "code" / "augbench"
    shutil.copytree(Path(augbench.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    file = package / "__init__.py"
    file.write_text(file.read_text().replace(f'"{augbench.__version__}"', f'"{TRAVELLED}"'))
    (tmp_path / "watched.py").write_text(WATCHED)
    with raylets() as ((_, address), environment):
        command = [sys.executable, tmp_path / "watched.py", folder, tmp_path / "store", address]
        done = finished(command, {**environment, "PYTHONPATH": str(tmp_path / "code")})
    assert done.returncode == 0 and f"done {len(inline.keys('cells'))}" in done.stdout, done.stdout + done.stderr
    store = Store(tmp_path / "store")
    assert results_of(store) == results_of(inline)
    made_by = {store.read_record(key)["provenance"]["versions"]["augbench"] for key in store.keys("cells")}
    assert made_by == {TRAVELLED}


# -- Ray's commands


@pytest.mark.slow
@pytest.mark.skipif(find_spec("opencensus") is None, reason="ray[default] is not installed")
def test_a_submitted_job_equals_inline(folder, inline, tmp_path):
    """Two nodes by `ray start`, and a run sent with `ray job submit` together with grid and plug-ins."""
    dashboard = free_port()
    submit = [RAY, "job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--working-dir", folder, "--",
              "augbench", "--plugin", "toy.py", "--plugin", "pretender.py", "run", "spread.yaml",
              "--store", tmp_path / "store"]  # fmt: skip
    with started(dashboard) as (_, environment):
        submitted = finished(submit, environment)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "cells done" in submitted.stdout and "succeeded" in submitted.stdout
    assert results_of(Store(tmp_path / "store")) == results_of(inline)
    again = cli("--plugin", folder / "toy.py", "--plugin", folder / "pretender.py", "run", folder / "spread.yaml",
                "--store", tmp_path / "store")  # fmt: skip
    assert again.returncode == 0 and "nothing to do" in " ".join(again.stdout.split())
