"""`augbench pool show`: a sheet of a pool, and what may go wrong."""

import json

import pytest
import yaml
from helpers import assert_one_line, cli, tiny
from PIL import Image


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with two pools of `memseg`."""
    folder = tmp_path_factory.mktemp("shown")
    grid = folder / "g.yaml"
    grid.write_text(yaml.safe_dump(tiny(augmenters=["memseg"], shots=[0], seeds=[0, 1])))
    ran = cli("run", grid, "--store", folder / "s", "--executor", "inline")
    assert ran.returncode == 0, ran.stderr
    return folder / "s"


def pools(store):
    return sorted(path.name for path in (store / "pools").iterdir())


def test_the_sheet_shows_the_pool_and_real_defects(store, tmp_path):
    key = pools(store)[0]
    shown = cli("pool", "show", key, "--store", store, "--out", tmp_path / "a.png", "--count", "6")
    assert shown.returncode == 0, shown.stderr
    assert key in shown.stdout and "a.png" in shown.stdout
    whole = Image.open(tmp_path / "a.png")
    assert cli("pool", "show", key, "--store", store, "--out", tmp_path / "b.png", "--count", "1").returncode == 0
    assert Image.open(tmp_path / "b.png").width < whole.width


def test_the_beginning_of_a_key_is_enough_if_it_is_the_only_one(store, tmp_path):
    key = pools(store)[1]
    assert cli("pool", "show", key[:-4], "--store", store, "--out", tmp_path / "a.png").returncode == 0
    assert_one_line(cli("pool", "show", "surfaces", "--store", store), "begins 2 keys", key)


def test_mistakes(store, tmp_path):
    key = pools(store)[0]
    assert_one_line(cli("pool", "show", "nothing", "--store", store), "nothing", "not in the store")
    assert_one_line(cli("pool", "show", key, "--store", tmp_path / "none"), "no pool has been made")
    assert_one_line(cli("pool", "show", key, "--store", store, "--out", tmp_path), str(tmp_path))
    unfinished = tmp_path / "copy"
    (unfinished / "pools" / "mine").mkdir(parents=True)
    assert_one_line(cli("pool", "show", "mine", "--store", unfinished), "not finished")
    record = json.loads((store / "pools" / key / "pool.json").read_text())
    (unfinished / "pools" / "mine" / "pool.json").write_text(json.dumps(record))
    assert_one_line(cli("pool", "show", "mine", "--store", unfinished), "no picture yet")
