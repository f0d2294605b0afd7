"""A third-party package: installed by pip, found by its entry points, run, and named in keys and records."""

import subprocess
import sys

import pytest
from helpers import assert_one_line, cli, grid_file, on_disk

from augbench.storage.store import Store

PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "surface-scratches"
version = "{version}"
dependencies = ["augbench"]

[project.entry-points."augbench.augmenters"]
dark_scratches = "surface_scratches.augmenter:MyScratches"

[project.entry-points."augbench.datasets"]
plates = "surface_scratches.dataset:Plates"

[tool.setuptools]
packages = ["surface_scratches"]
"""
DRAW = "import sys; from pathlib import Path; from test_plates import draw; draw(Path(sys.argv[1]))"


def build(folder, version):
    """Write the package's source: the skeletons of `augbench new`; the entry point renames the augmenter."""
    inside = folder / "surface_scratches"
    for kind, name in (("augmenter", "my_scratches"), ("dataset", "plates")):
        made = cli("new", kind, name, "--dir", folder)
        assert made.returncode == 0, made.stderr
        inside.mkdir(exist_ok=True)
        (folder / f"{name}.py").rename(inside / f"{kind}.py")
    (inside / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text(PROJECT.format(version=version))
    return folder


def install(source, target):
    """Run `pip install` without a network (augbench is installed already); return options for `cli`."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target", target]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *options, source]
    made = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert made.returncode == 0, made.stdout + made.stderr
    return {"env": {"PYTHONPATH": str(target)}}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder with a grid of both plug-ins, and options for `cli` with which the package is installed."""
    folder = tmp_path_factory.mktemp("third_party")
    installed = install(build(folder / "source", "0.3.1"), folder / "site")
    cli("new", "dataset", "plates", "--dir", folder / "skeleton")  # its test file writes a tiny dataset
    subprocess.run([sys.executable, "-c", DRAW, folder / "data"], cwd=folder / "skeleton", check=True)
    data = on_disk("plates", {"root": str(folder / "data")})
    grid_file(folder, **data, augmenters=["none", "dark_scratches"], shots=[4])
    return folder, installed


def test_it_is_listed(package):
    _, installed = package
    for kind, name in (("augmenters", "dark_scratches"), ("datasets", "plates")):
        assert name not in cli("list", kind).stdout
        found = cli("list", kind, **installed)
        assert found.returncode == 0 and name in found.stdout, found.stdout + found.stderr


def test_it_runs_and_records_name_its_version(package, tmp_path):
    folder, installed = package
    run = ("run", folder / "tiny.yaml", "--store", tmp_path / "store", "--executor", "inline")
    found = cli(*run, **installed)
    assert found.returncode == 0, found.stdout + found.stderr
    store = Store(tmp_path / "store")
    records = list(store.read_records(sorted(store.keys("cells"))))
    assert len(records) == 2
    for record in records:
        assert record["spec"]["data"]["settings"]["plugin"] == "surface-scratches==0.3.1"
    made = next(record["spec"]["augmenter"] for record in records if record["spec"]["n_aug"])
    assert made["name"] == "dark_scratches" and made["key_settings"] == {"plugin": "surface-scratches==0.3.1"}
    # A published store can be checked where the package is not installed.
    published = cli("results", "export", store.url, "--out", tmp_path / "published")
    assert published.returncode == 0 and "2 cells" in published.stdout, published.stdout + published.stderr
    assert "'dark_scratches': its settings were not compared" in published.stdout

    newer = install(build(folder / "newer", "0.4"), tmp_path / "site")
    again = cli(*run, **newer)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(store.keys("cells")) == 4, "another version makes other cells"


def test_a_grid_of_it_needs_it(package):
    folder, _ = package
    assert_one_line(cli("plan", folder / "tiny.yaml"), "plates", "does not exist")
