"""The command line: fast help, a one-line message for every user error, no data loss."""

import time

import layouts
import pytest
from helpers import TOY, assert_one_line, cli, grid_file, on_disk, path_of

from augbench.storage.store import Store


@pytest.fixture
def grid_path(tmp_path):
    return grid_file(tmp_path)


def run_inline(path, store, *options):
    return cli("run", path, "--store", store, "--executor", "inline", *options)


def test_help_is_instant_and_complete():
    started = time.monotonic()
    out = cli("--help").stdout
    assert time.monotonic() - started < 3  # without torch and ray, whose imports take longer
    for command in ("plan", "run", "report", "list", "datasets", "models", "protocols", "store"):
        assert command in out


@pytest.mark.parametrize(
    ("what", "name"),
    [("datasets", "surfaces"), ("augmenters", "toy"), ("models", "micro-sd"), ("protocols", "inout")],
)
def test_list(what, name):
    result = cli("--plugin", TOY, "list", what)
    assert result.returncode == 0 and name in result.stdout


def test_run_report_and_run_again(grid_path, tmp_path):
    store = tmp_path / "store"
    first = run_inline(grid_path, store)
    assert first.returncode == 0, first.stderr
    assert "smoke-test parts: not evidence" in first.stdout and "memseg" in first.stdout
    assert {p.name for p in (store / "reports" / "tiny").iterdir()} == {
        "report.md", "report.tex", "report.csv", "report.json"}  # fmt: skip
    again = run_inline(grid_path, store)
    assert again.returncode == 0 and "nothing to do" in " ".join(again.stdout.split())
    for arguments in ((), ("--grid", grid_path)):
        assert cli("report", store, *arguments).returncode == 0
    assert "done: all 3 cells" in cli("plan", grid_path, "--store", store).stdout
    assert "all is well" in cli("store", "check", store).stdout
    assert "features of 0 datasets and pools" in cli("store", "clean", store, "--features").stdout


def test_truncated_record(grid_path, tmp_path):
    store = Store(tmp_path / "store")
    assert run_inline(grid_path, store.url).returncode == 0
    keys = sorted(store.keys("cells"))
    path = path_of(store, "cells", keys[0])
    path.write_bytes(path.read_bytes()[:100])
    commands = [("run", grid_path, "--store", store.url), ("report", store.files.folder)]
    for command in [*commands, ("plan", grid_path, "--store", store.url)]:
        assert_one_line(cli(*command), path.name, "delete it")
    assert cli("store", "check", store.url).returncode == 2
    assert sorted(store.keys("cells")) == keys, "no cell was lost"
    path.unlink()
    result = run_inline(grid_path, store.url)
    assert result.returncode == 0 and "1 of them now" in " ".join(result.stdout.split())


def test_damaged_pool_image(grid_path, tmp_path):
    store = Store(tmp_path / "store")
    assert run_inline(grid_path, store.url).returncode == 0
    (image,) = store.files.folder.glob("pools/*/images/00003.png")
    image.write_bytes(b"no image")
    for key in store.keys("cells"):
        path_of(store, "cells", key).unlink()
    result = run_inline(grid_path, store.url)
    assert result.returncode == 2
    text = " ".join(result.stdout.split())
    assert "00003.png" in text and "00000.jsonl" in text and "Traceback" not in text
    next(store.files.folder.glob("pools/*/chunks/00000.jsonl")).unlink()
    assert run_inline(grid_path, store.url).returncode == 0


def test_corrupt_dataset_image(tmp_path):
    settings = layouts.draw_folder(tmp_path / "data")
    path = grid_file(tmp_path, **on_disk("folder", settings))
    broken = tmp_path / "data" / "good" / "004.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert_one_line(run_inline(path, tmp_path / "s"), "004.png", "restore it")
    check = cli("datasets", "check", "folder", "--root", tmp_path / "data")
    assert check.returncode == 2 and "004.png" in check.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"sedes": [0]}, ["sedes", "did you mean 'seeds'"]),
        ({"datasets": ["magnetic_tile"]}, ["magnetic_tile", "AUGBENCH_DATA", "https://"]),
        ({"datasets": [{"name": "magnetic_tile", "settings": {"root": "/nowhere"}}]}, ["/nowhere", "not a folder"]),
        ({"augmenters": ["ddpm"]}, ["sd15", "Hugging Face cache", "local diffusers folder"]),
        ({"augmenters": [{"name": "toy", "settings": {"limit": 5}}]}, ["can make 5 images", "lower n_aug"]),
        ({"protocols": ["inout"]}, ["resnet50", "scratch"]),
    ],
)
def test_mistakes_in_a_grid(tmp_path, change, texts):
    assert_one_line(run_inline(grid_file(tmp_path, **change), tmp_path / "s"), *texts)


def test_mistakes_on_the_command_line(grid_path, tmp_path):
    assert_one_line(cli("plan", tmp_path / "none.yaml"), "none.yaml", "no such file")
    assert_one_line(cli("run", grid_path, "--set", "nonsense"), "--set", "key=value")
    assert_one_line(cli("--plugin", tmp_path / "none.py", "list", "datasets"), "none.py")
    assert_one_line(cli("report", tmp_path / "empty"), "empty", "augbench run")
    (tmp_path / "bad.yaml").write_text("a: [1,")
    assert_one_line(cli("plan", tmp_path / "bad.yaml"), "bad.yaml", "YAML")
    (tmp_path / "bad.py").write_text("1/0")
    assert_one_line(cli("--plugin", tmp_path / "bad.py", "list", "datasets"), "bad.py", "ZeroDivisionError")
    assert cli("run").returncode == 2
    assert "Traceback" in cli("--debug", "plan", tmp_path / "none.yaml").stderr


def test_dataset_check_of_a_good_folder(tmp_path):
    layouts.draw_folder_csv(tmp_path)
    good = cli("datasets", "check", "folder", "--root", tmp_path, "--set", "csv=table.csv")
    assert good.returncode == 0 and "all is well" in good.stdout


def test_record_has_key_provenance_and_weights(grid_path, tmp_path):
    store = Store(tmp_path / "store")
    run_inline(grid_path, store.url, "--set", "save_weights=true")
    for key in store.keys("cells"):
        record = store.read_record(key)
        assert record["key"] == key and record["provenance"]["embedded"] == ["dataset surfaces"]
        assert record["provenance"]["versions"]["torch"] and record["provenance"]["device"]
        assert path_of(store, "weights", key).is_file()
