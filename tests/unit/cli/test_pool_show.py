"""`augbench pool show`: a contact sheet of a pool, and user errors."""

import shutil

import numpy as np
import pytest
import yaml
from helpers import assert_one_line, cli, tiny
from layouts import draw_folder, draw_folder_csv
from PIL import Image

from augbench.report.contact_sheet import Section, Tile, draw_sheet


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with two pools of `memseg`."""
    return run(tmp_path_factory.mktemp("pools"), seeds=[0, 1])


def run(folder, env=None, **changes):
    """Run a grid of `memseg`; return its store."""
    grid = folder / "g.yaml"
    grid.write_text(yaml.safe_dump(tiny(augmenters=["memseg"], shots=[0], **changes)))
    options = {"env": env} if env else {}
    ran = cli("run", grid, "--store", folder / "s", "--executor", "inline", **options)
    assert ran.returncode == 0, ran.stderr
    return folder / "s"


def pools(store):
    return sorted(path.name for path in (store / "pools").iterdir())


def test_the_sheet_has_the_pool_and_real_defects(store, tmp_path):
    key = pools(store)[0]
    sheet = cli("pool", "show", key, "--store", store, "--out", tmp_path / "a.png", "--count", "6")
    assert sheet.returncode == 0, sheet.stderr
    assert key in sheet.stdout and "a.png" in sheet.stdout
    whole = Image.open(tmp_path / "a.png")
    assert cli("pool", "show", key, "--store", store, "--out", tmp_path / "b.png", "--count", "1").returncode == 0
    assert Image.open(tmp_path / "b.png").width < whole.width


@pytest.mark.parametrize("file", ["images/00000.png", "masks/00001.png"])
def test_the_way_out_of_a_damaged_image_makes_it_again(store, tmp_path, file):
    copied = shutil.copytree(store, tmp_path / "s")
    key = pools(copied)[0]
    damaged = copied / "pools" / key / file
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:60])
    show = ("pool", "show", key, "--store", copied, "--out", tmp_path / "a.png")
    told = cli(*show)
    assert_one_line(told, f"'{damaged}' is missing or damaged: chunk '", "delete it, and run the grid again")
    (copied / told.stderr.split("'")[3]).unlink()
    run(tmp_path, seeds=[0, 1])
    assert cli(*show).returncode == 0 and damaged.read_bytes() == whole
    damaged.unlink()
    assert_one_line(cli(*show), f"'{damaged}' is missing or damaged")


def test_a_unique_key_prefix_is_enough(store, tmp_path):
    key = pools(store)[1]
    assert cli("pool", "show", key[:-4], "--store", store, "--out", tmp_path / "a.png").returncode == 0
    assert_one_line(cli("pool", "show", "surfaces", "--store", store), "begins 2 keys", key)


def test_real_defects_are_read_from_the_dataset_of_the_run(tmp_path):
    """From the folder of `AUGBENCH_DATA`, or of `--root`."""
    draw_folder(tmp_path / "data" / "folder")
    environment = {"AUGBENCH_DATA": str(tmp_path / "data")}
    store = run(tmp_path, environment, datasets=["folder"])
    show = ("pool", "show", pools(store)[0], "--store", store, "--out")
    sheets = [
        cli(*show, tmp_path / "a.png", env=environment),
        cli(*show, tmp_path / "b.png", "--root", tmp_path / "data" / "folder"),
    ]
    assert [each.returncode for each in sheets] == [0, 0], sheets
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert_one_line(cli(*show, tmp_path / "c.png"), "has no root", "AUGBENCH_DATA")


def test_root_and_a_table_outside_it_are_those_of_the_run(tmp_path):
    settings = draw_folder_csv(tmp_path / "data")
    table = (tmp_path / "data" / "table.csv").rename(tmp_path / "images.csv")
    store = run(tmp_path, datasets=[{"name": "folder", "settings": settings | {"csv": str(table)}}])
    show = ("pool", "show", pools(store)[0], "--store", store, "--out")
    sheets = [cli(*show, tmp_path / "a.png"), cli(*show, tmp_path / "b.png", "--root", tmp_path / "data")]
    (tmp_path / "data").rename(tmp_path / "moved")
    assert_one_line(cli(*show, tmp_path / "c.png"), "has no root")
    sheets.append(cli(*show, tmp_path / "c.png", "--root", tmp_path / "moved"))
    assert [each.returncode for each in sheets] == [0, 0, 0], sheets
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in "abc"}) == 1


def test_a_line_break_in_a_text_is_drawn_as_a_space():
    def sheet(space):
        title, heading, note, caption = (space.join(("a", one)) for one in ("title", "heading", "note", "caption"))
        return draw_sheet(title, [Section(heading, note, [Tile(np.zeros((40, 40, 3), np.uint8), caption)])])

    assert all(sheet(space) == sheet(" ") for space in ("\n", "\r\n", "\n\n"))


def test_mistakes(store, tmp_path):
    key = pools(store)[0]
    assert_one_line(cli("pool", "show", "nothing", "--store", store), "nothing", "not in the store")
    assert_one_line(cli("pool", "show", key, "--store", tmp_path / "none"), "no pool has been made")
    assert_one_line(cli("pool", "show", key, "--store", store, "--out", tmp_path), str(tmp_path))
    unfinished = tmp_path / "copy" / "pools" / "mine"
    unfinished.mkdir(parents=True)
    assert_one_line(cli("pool", "show", "mine", "--store", tmp_path / "copy"), "not finished")
    shutil.copy(store / "pools" / key / "pool.json", unfinished)
    assert_one_line(cli("pool", "show", "mine", "--store", tmp_path / "copy"), "no image yet")
