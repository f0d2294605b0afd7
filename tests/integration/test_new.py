"""Tests of `augbench new`: its skeletons pass their tests unchanged, are listed, and run in a grid."""

import subprocess
import sys

import pytest
import yaml
from helpers import ROOT, assert_one_line, cli, grid_file, on_disk

from augbench.storage.store import Store

NAMES = {"augmenter": "my_scratches", "dataset": "plates"}


@pytest.fixture(scope="module")
def skeletons(tmp_path_factory):
    """A folder with one skeleton of each kind."""
    folder = tmp_path_factory.mktemp("new")
    for kind, name in NAMES.items():
        made = cli("new", kind, name, cwd=folder)
        assert made.returncode == 0, made.stderr
        assert f"wrote {name}.py and test_{name}.py" in made.stdout
        assert f"augbench --plugin {name}.py list {kind}s" in made.stdout
        assert yaml.safe_load(made.stdout.partition("may contain\n")[2].partition("\n\nIt may stay")[0])["shots"] == [5]
    return folder


def run_python(folder, *arguments):
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=240)


def test_their_tests_pass_unchanged(skeletons):
    found = run_python(skeletons, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error::pytest.PytestWarning")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "18 passed, 1 skipped" in found.stdout


def test_they_are_well_formed(skeletons):
    settings = ROOT / "pyproject.toml"
    for command in (["check"], ["format", "--check"]):
        found = run_python(skeletons, "-m", "ruff", *command, "--no-cache", "--config", settings, ".")
        assert found.returncode == 0, found.stdout


def test_a_broken_plugin_fails_the_contract(skeletons, tmp_path):
    """The tests of a skeleton can fail: they detect a random generator that all images share."""
    for name in ("my_scratches.py", "test_my_scratches.py"):
        text = (skeletons / name).read_text()
        (tmp_path / name).write_text(text.replace("rng = request.rng", "rng = SHARED").replace(
            "\n\nclass MyScratches", "\n\nSHARED = np.random.default_rng(0)\n\n\nclass MyScratches"))  # fmt: skip
    found = run_python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "deterministically")
    assert found.returncode == 1 and "draw random numbers only from request.rng" in found.stdout


def test_both_run_in_a_grid(skeletons, tmp_path):
    draw = f"from pathlib import Path; from test_plates import draw; draw(Path({str(tmp_path / 'data')!r}))"
    assert run_python(skeletons, "-c", draw).returncode == 0
    augmenters = ["none", {"name": "my_scratches", "settings": {"width": 3}}]
    grid = grid_file(tmp_path, **on_disk("plates", {"root": str(tmp_path / "data")}), augmenters=augmenters, shots=[4])
    plugins = [part for name in NAMES.values() for part in ("--plugin", skeletons / f"{name}.py")]
    listed = cli(*plugins, "list", "augmenters")
    assert "my_scratches" in listed.stdout
    checked = cli(*plugins, "datasets", "check", "plates", "--root", tmp_path / "data")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    found = cli(*plugins, "run", grid, "--store", tmp_path / "store", "--executor", "inline")
    assert found.returncode == 0, found.stdout + found.stderr
    store = Store(tmp_path / "store")
    records = list(store.read_records(sorted(store.keys("cells"))))
    assert [record["spec"]["data"]["settings"]["plugin"][:7] for record in records] == ["sha256:"] * 2
    made = next(record for record in records if record["spec"]["n_aug"])
    assert made["spec"]["augmenter"]["key_settings"]["width"] == 3
    assert made["spec"]["augmenter"]["key_settings"]["plugin"].startswith("sha256:")
    assert made["result"]["counts"]["synthetic"] == 6


@pytest.mark.parametrize("name", ["my-scratches", "2d", "class", "", "a/b", "_private"])
def test_names_are_checked(tmp_path, name):
    assert_one_line(cli("new", "augmenter", name, "--dir", tmp_path), name, "letters, digits")
    assert list(tmp_path.iterdir()) == []


def test_existing_names_are_refused_and_nothing_is_overwritten(skeletons, tmp_path):
    assert_one_line(cli("new", "augmenter", "memseg", cwd=tmp_path), "'memseg' is already one of the augmenters")
    assert_one_line(cli("new", "dataset", "neu", cwd=tmp_path), "'neu' is already one of the datasets")
    (tmp_path / "test_stripes.py").write_text("mine")
    assert_one_line(cli("new", "augmenter", "stripes", cwd=tmp_path), "test_stripes.py", "already")
    assert [path.name for path in tmp_path.iterdir()] == ["test_stripes.py"]
    assert (tmp_path / "test_stripes.py").read_text() == "mine"
    assert_one_line(cli("new", "dataset", "stripes", "--dir", tmp_path / "test_stripes.py"), "is a file")
    inside = ROOT / "src" / "augbench" / "datasets"
    assert_one_line(cli("new", "dataset", "stripes", "--dir", inside), "elsewhere")
    assert not list(inside.glob("*stripes*"))
