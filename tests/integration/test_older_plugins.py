"""Plug-ins and tests written against version 0.1.0 run unedited: their digest is in the keys of their users."""

import shutil
import subprocess
import sys

import pytest
import yaml
from helpers import HERE, cli, tiny

from augbench.storage.store import Store

OLDER = HERE / "from_0_1_0"


@pytest.mark.parametrize("name", ["test_dark_lines.py", "test_plates.py"])
def test_the_contract_holds(name, tmp_path):
    shutil.copytree(OLDER, tmp_path / "mine")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", name]
    done = subprocess.run(command, cwd=tmp_path / "mine", capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_run_in_a_grid_and_their_keys_are_those_of_0_1_0(tmp_path):
    grid = tiny(augmenters=["dark_lines", "learner"], shots=[5], n_aug=[4])
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(grid))
    plugins = [word for name in ("dark_lines", "learner") for word in ("--plugin", OLDER / f"{name}.py")]
    store = Store(tmp_path / "store")
    done = cli(*plugins, "run", tmp_path / "tiny.yaml", "--store", store.url, "--executor", "inline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert store.keys("cells") == {
        "surfaces-dark_lines-few5-n4-s0-881c2701",
        "surfaces-learner-few5-n4-s0-15bbcfd5",
    }
    assert store.keys("adapters") == {"surfaces-learner-few5-8286ebcd"}
