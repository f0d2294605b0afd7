"""`augbench doctor`: what is named a problem, what a note, and that nothing is downloaded or given away."""

import io
import json
import urllib.error

import pytest
from helpers import TINY_PROBE, assert_one_line, cli, grid_file
from rich.console import Console

from augbench.cli.doctor import Finding, _table
from augbench.runner.resources import Node


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch):
    """Ray takes seconds to start, and other tests start it."""
    monkeypatch.setattr("augbench.runner.driver.nodes_at", lambda address: [Node(2.0)])


def examined(*arguments):
    """Run it; return its exit status, and level and text of each finding by name."""
    ran = cli("doctor", *arguments, "--json")
    found = json.loads(ran.stdout)
    assert found["format"] == 1
    return ran.returncode, {one["what"]: (one["level"], one["text"]) for one in found["findings"]}


def problems(found):
    return {what for what, (level, _) in found.items() if level == "problem"}


def answering(monkeypatch, answer):
    """Let the hub answer, and the user be online; the libraries of the hub read the variable in earlier tests."""
    asked = []

    def urlopen(url, timeout):
        asked.append((url, timeout))
        return answer()

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return asked


def refuse():
    raise urllib.error.URLError("no route")


def test_a_grid_that_runs_here_has_no_problem(tmp_path):
    status, found = examined(grid_file(tmp_path), "--store", tmp_path / "store")
    assert status == 0 and not problems(found)
    assert found["grid tiny"] == ("ok", "3 trainings, 6 images to generate")
    assert found["workers"][1].startswith("2 trainings at a time")
    for what in ("dataset surfaces", "augmenter memseg", "protocol tiny", "store", "Ray"):
        assert found[what][0] == "ok"
    assert not (tmp_path / "store").exists()


MISSING = {
    "datasets": ["ksdd2"],
    "augmenters": ["ddpm", {"name": "ddpm", "as": "eight_bits", "settings": {"optimiser": "adamw8bit"}}],
    "shots": ["all"],
    "protocols": ["inout", {**TINY_PROBE, "name": "vae", "roundtrip": "sdxl-inpaint"}],
    "fidelity": {"extractor": "inception_v3.tf_in1k"},
    "resources": {"train": {"gpu": 1}},
}
WEIGHTS = {"augmenter ddpm", "extractor inception_v3.tf_in1k", "protocol inout", "roundtrip of vae"}
OTHERS = {"dataset ksdd2", "augmenter eight_bits", "workers"}


def test_all_that_a_grid_lacks_is_named_with_the_way_out(tmp_path):
    status, found = examined(grid_file(tmp_path, **MISSING))
    assert status == 2 and problems(found) == WEIGHTS | OTHERS
    assert "--root ksdd2=DIR" in found["dataset ksdd2"][1] and "https://" in found["dataset ksdd2"][1]
    assert "set `bundle`" in found["augmenter ddpm"][1] and "`roundtrip`" in found["roundtrip of vae"][1]
    assert "protocols.inout.weights" in found["protocol inout"][1]
    assert "bitsandbytes" in found["augmenter eight_bits"][1]
    assert "lower resources.train" in found["workers"][1]
    assert found["hub"][0] == "note" and "HF_HUB_OFFLINE" in found["hub"][1]


def test_weights_that_a_run_would_download_are_notes(tmp_path, monkeypatch):
    asked = answering(monkeypatch, io.BytesIO)
    status, found = examined(grid_file(tmp_path, **MISSING))
    assert status == 2 and problems(found) == OTHERS
    assert all("a run downloads it" in found[what][1] for what in WEIGHTS)
    assert found["hub"][0] == "ok" and [timeout for _, timeout in asked] == [3]


def test_a_hub_that_does_not_answer(tmp_path, monkeypatch):
    answering(monkeypatch, refuse)
    _, found = examined(grid_file(tmp_path, **MISSING))
    assert found["hub"][0] == "note" and "no route" in found["hub"][1] and problems(found) >= WEIGHTS


def test_without_a_grid_everything_known_is_looked_at(monkeypatch):
    asked = answering(monkeypatch, refuse)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "yes")
    status, found = examined()
    assert status == 0 and not problems(found) and not asked
    assert found["dataset surfaces"][0] == found["pipeline micro-sd"][0] == found["backbone micro_resnet"][0] == "ok"
    assert found["dataset neu"][0] == found["pipeline sd15"][0] == "note"
    assert "TRANSFORMERS_OFFLINE" in found["hub"][1]


def test_stores_of_other_runs_are_no_problem(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo" / "cells").mkdir(parents=True)
    (tmp_path / "runs" / "demo-page").mkdir()
    status, found = examined()
    assert status == 0 and found["store"] == ("ok", found["store"][1]) and "GB free" in found["store"][1]


def test_the_token_is_not_shown(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for arguments in ((), ("--json",)):
        text = cli("doctor", *arguments).stdout
        assert "present" in text and "secret" not in text


def test_packages_that_do_not_fit_stop_any_run(monkeypatch):
    required = ["torch>=999", "numpy>=2", "no-such-package>=1", "neither; extra == 'dev'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: required)
    status, found = examined()
    assert status == 2 and problems(found) == {"torch", "no-such-package"}
    assert found["torch"][1].endswith("pip install 'torch>=999'")


def test_another_version_than_the_tested_one_is_a_note(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.6.0")
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["numpy>=2.0"])
    status, found = examined()
    assert status == 0 and found["constraints"][0] == "note" and "numpy 2.6.0" in found["constraints"][1]


def test_a_store_that_cannot_be_used(tmp_path):
    (tmp_path / "holiday.txt").touch()
    status, found = examined("--store", tmp_path)
    assert status == 2 and problems(found) == {"store"} and "other contents" in found["store"][1]


def test_a_cluster_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real `nodes_at`, which probes the port before Ray tries it
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    status, found = examined(grid_file(tmp_path))
    assert status == 2 and problems(found) == {"Ray"} and "ray start --head" in found["Ray"][1]


def test_a_mistake_in_the_grid(tmp_path):
    path = grid_file(tmp_path, augmenters=["memsg"])
    status, found = examined(path)
    assert status == 2 and "did you mean 'memseg'" in found["grid tiny"][1]
    assert_one_line(cli("doctor", tmp_path / "no.yaml"), "no.yaml")
    assert_one_line(cli("doctor", "--set", "seeds=[1]"), "--set")


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_the_terminal(width):
    console = Console(width=width, file=io.StringIO())
    console.print(_table([Finding("problem", "backbone vit_small_patch14_dinov2.lvd142m", "not here " * 30)]))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width and lines[0].startswith("problem  backbone ")
