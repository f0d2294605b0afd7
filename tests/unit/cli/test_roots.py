"""``--root`` and folders in place of a dataset's name: the same words in every command, and no part of any key."""

from pathlib import Path

import pytest
from helpers import assert_one_line, cli, grid_file
from layouts import draw_folder

from augbench.core.errors import UserError
from augbench.planning.grid import load_grid
from augbench.planning.library import resolve_roots, with_roots
from augbench.planning.plan import make_plan


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images, a grid of them that has no root, and its store, made by `run --root`."""
    place = tmp_path_factory.mktemp("roots")
    draw_folder(place / "bottles")
    grid = grid_file(place, datasets=["folder"], shots=[5])
    ran = cli("run", grid, "--root", place / "bottles", "--store", place / "s", "--executor", "inline")
    assert ran.returncode == 0, ran.stderr
    return place


def commands(place):
    """Every command that takes ``--root``, without it."""
    grid, store, out = place / "tiny.yaml", place / "s", place / "out"
    return {
        "plan": ("plan", grid, "--store", store),
        "run": ("run", grid, "--store", store, "--executor", "inline"),
        "status": ("status", store, "--grid", grid),
        "report": ("report", store, "--grid", grid, "--out", out),
        "compare": ("compare", store, "--grid", grid, "--out", out, "--resamples", "200"),
        "leaderboard": ("leaderboard", store, "--out", place / "page"),
        "pool": ("pool", "show", "folder", "--store", store, "--out", place / "pool.png"),
        "check": ("datasets", "check", "folder"),
        "sample": ("datasets", "sample", "folder", "--out", place / "sample.png"),
        "doctor": ("doctor", grid, "--store", store),
    }


NAMES = [name for name in commands(Path()) if name != "doctor"]  # which starts Ray


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_a_folder_with_and_without_the_name(place, name):
    files = place / "bottles"
    told = [cli(*commands(place)[name], "--root", root) for root in (files, f"folder={files}")]
    assert [result.returncode for result in told] == [0, 0], told[0].stderr + told[1].stderr
    assert told[0].stdout == told[1].stdout


@pytest.mark.parametrize("name", [*NAMES, "doctor"])
def test_every_command_refuses_in_the_same_words(place, name):
    command = commands(place)[name]
    named = cli(*command, "--root", f"folde={place / 'bottles'}")
    assert_one_line(named, "--root 'folde=", "there is no dataset 'folde' here (did you mean 'folder'?)")
    assert_one_line(cli(*command, "--root", place / "gone"), "--root '", "gone' is not a folder: give the one")


def test_a_root_is_the_same_as_set_and_no_part_of_names_and_keys(place):
    grid, files = place / "tiny.yaml", place / "bottles"
    (place / "2026").symlink_to(files)  # YAML would read it as a number
    by_set = load_grid(grid, [f"datasets.folder.root={files}"])
    by_root = load_grid(grid, with_roots(grid, None, [str(files)]))
    assert by_root == by_set
    assert by_root.name == load_grid(grid).name == "tiny"
    moved = load_grid(grid, with_roots(grid, ["seeds=[0]"], [f"folder={place / '2026'}"]))
    assert moved.name == "tiny"
    assert [cell.key for cell in make_plan(moved).cells] == [cell.key for cell in make_plan(by_set).cells]


def test_any_folder_is_that_of_the_root(place, monkeypatch):
    monkeypatch.chdir(place)
    for name in ("box #2", "\N{BEETLE}"):
        (place / name).symlink_to(place / "bottles")
        (entry,) = load_grid("tiny.yaml", with_roots("tiny.yaml", None, [name])).datasets
        assert entry.settings["root"] == name


def test_a_relative_folder_whose_name_is_a_number(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "2027").symlink_to(place / "bottles")
    assert cli("plan", "tiny.yaml", "--root", "2027").returncode == 0


def test_a_name_is_that_in_the_grid_or_that_of_the_plug_in(tmp_path):
    both = {"bottles": "folder", "caps": "folder", "steel": "neu"}
    folder, other = str(tmp_path), str(tmp_path.parent)
    assert resolve_roots([f"caps={folder}"], both) == {"caps": folder}
    assert resolve_roots([f"folder={folder}", f"caps={other}"], both) == {"bottles": folder, "caps": other}
    own = {"bottles": "folder", "folder": "folder"}
    assert resolve_roots([f"bottles={folder}", f"folder={other}"], own) == {"bottles": folder, "folder": other}
    with pytest.raises(UserError, match=r"which of the datasets 'bottles', 'caps' and 'steel'\? Write NAME="):
        resolve_roots([folder], both)
    with pytest.raises(UserError, match="'' is not a folder"):
        resolve_roots(["caps="], both)
    (tmp_path / "a=b").mkdir()
    assert resolve_roots([f"{folder}/a=b"], {"neu": "neu"}) == {"neu": f"{folder}/a=b"}


@pytest.mark.parametrize("name", ["check", "sample"])
def test_a_path_stands_for_a_dataset_of_ones_own_images(place, name):
    group, verb, _, *rest = commands(place)[name]
    by_path = cli(group, verb, place / "bottles", *rest)
    assert by_path.returncode == 0, by_path.stderr
    assert by_path.stdout == cli(group, verb, "folder", *rest, "--root", place / "bottles").stdout
    assert_one_line(cli(group, verb, place / "bottles", *rest, "--root", place), "leave out --root")
    assert_one_line(cli(group, verb, place / "gone", *rest), "neither a dataset", "nor a folder")
    assert_one_line(cli(group, verb, "foldr", *rest), "did you mean 'folder'")


def test_show_describes_the_dataset_that_reads_a_folder(place):
    assert cli("datasets", "show", place / "bottles").stdout == cli("datasets", "show", "folder").stdout


def test_without_a_grid_file_there_is_no_dataset_to_name(place):
    for command in (("status", place / "s"), ("report", place / "s"), ("compare", place / "s"), ("doctor",)):
        assert_one_line(cli(*command, "--root", place / "bottles"), "--set and --root", "a grid file")


def test_a_missing_root_names_the_option(place):
    for name in ("status", "report", "compare"):
        assert_one_line(cli(*commands(place)[name]), "--root folder=DIR")
