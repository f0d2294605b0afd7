"""Files before screen: output that cannot be written costs no file and raises nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, assert_one_line, cli, cli_process, grid_file

FULL = Path("/dev/full")
DEMO = ROOT / "results" / "demo"
FILES = {
    "report": {"report.md", "report.tex", "report.csv", "report.json", "dose.svg"},
    "compare": {"compare.md", "compare.tex", "compare.csv", "compare.json", "pareto.svg", "dose.svg"},
    "leaderboard": {"index.html", "leaderboard.md", "records", "versions.json"},
}
OPTIONS = {"compare": ["--resamples", "200"], "leaderboard": ["--pictures", "none"]}


def written(command, folder, **options):
    """Run a command with a special standard output; return its exit status, standard error and files."""
    words = [command, DEMO, "--out", folder, *OPTIONS.get(command, [])]
    made = subprocess.run(
        [sys.executable, "-m", "augbench", *map(str, words)], stderr=subprocess.PIPE, text=True, timeout=240, **options
    )
    return made.returncode, made.stderr, {path.name for path in folder.iterdir()}


def closed_pipe():
    """The end of a pipe that nobody reads any more, as after ``| head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("command", FILES)
def test_a_closed_pipe_ends_quietly_after_all_files_are_written(command, tmp_path):
    pipe = closed_pipe()
    status, said, files = written(command, tmp_path / "out", stdout=pipe)
    os.close(pipe)
    assert (status, said, files) == (1, "", FILES[command])


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_run_goes_on_without_its_output(tmp_path):
    grid = grid_file(tmp_path, shots=5, n_aug=8, augmenters=["none"], seeds=[0])
    words = [sys.executable, "-m", "augbench", "run", grid, "--store", tmp_path / "s", "--executor", "inline"]
    pipe = closed_pipe()
    made = subprocess.run([*map(str, words)], stderr=subprocess.PIPE, text=True, timeout=240, stdout=pipe)
    os.close(pipe)
    assert (made.returncode, made.stderr) == (0, "")
    assert len(list((tmp_path / "s" / "cells").iterdir())) == 1 and list(
        (tmp_path / "s" / "reports").glob("*/report.md")
    )
    with FULL.open("w") as full:
        again = subprocess.run([*map(str, words)], stderr=subprocess.PIPE, text=True, timeout=240, stdout=full)
    assert again.returncode == 0 and len(again.stderr.splitlines()) == 1
    assert "the output cannot be written" in again.stderr and "augbench status" in again.stderr


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_device_is_one_line(tmp_path):
    with FULL.open("w") as full:
        status, said, files = written("report", tmp_path / "out", stdout=full)
    assert (status, files) == (1, FILES["report"])
    assert said.startswith("augbench: the output cannot be written") and len(said.splitlines()) == 1


def test_an_ascii_terminal_gets_question_marks(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with (tmp_path / "text").open("wb") as text:
        status, said, files = written("report", tmp_path / "out", stdout=text, env=environment)
    assert (status, said, files) == (0, "", FILES["report"])
    assert b"?" in (tmp_path / "text").read_bytes()


def test_plan_prints_whatever_a_grid_is_about(tmp_path):
    assert "[/b] ü" in cli("plan", grid_file(tmp_path, about="[/b] ü")).stdout
    ascii_only = cli_process("plan", tmp_path / "tiny.yaml", env={"PYTHONIOENCODING": "ascii"})
    assert ascii_only.returncode == 0 and "[/b] ?" in ascii_only.stdout


def test_paths_that_no_file_system_takes(tmp_path):
    for words in (["plan", "x" * 300], ["report", "x" * 300], ["plan", grid_file(tmp_path), "--store", "x" * 5000]):
        assert_one_line(cli(*words), "File name too long")
    assert_one_line(cli("report", "~no-such-user/x"), "no such user")


@pytest.mark.parametrize(
    ("store", "text"),
    [
        ("s3:/bucket/x", "write s3://bucket/x"),
        ("file:/x", "write file:///x"),
        ("zip://x.zip", "cannot be used"),
        ("ftp://localhost:1/x", "cannot be used"),
        ("hdfs://nowhere/x", "cannot be used"),
    ],
)
def test_stores_that_are_none(tmp_path, store, text):
    assert_one_line(cli("plan", grid_file(tmp_path), "--store", store), store, text)


def test_runs_that_cannot_be(tmp_path):
    path = grid_file(tmp_path)
    assert_one_line(cli_process("run", path, "--store", "memory://x"), "memory://x", "inline")
    assert_one_line(cli("run", path, "--executor", "inline", "--address", "auto"), "--address", "inline")


def test_leaderboard_over_an_older_one(tmp_path):
    out = tmp_path / "board"
    words = ["leaderboard", DEMO, "--out", out, "--pictures", "none"]
    (out / "records").mkdir(parents=True)
    mine = out / "records" / "mine.json"
    mine.write_text("{}")
    assert cli(*words).returncode == 0 and mine.is_file()  # it was no leaderboard
    kept = {path.relative_to(out) for path in out.rglob("*.json")} - {mine.relative_to(out)}
    (out / "records" / "pools").mkdir(exist_ok=True)
    (out / "records" / "pools" / "older.json").write_text("{}")
    assert cli(*words).returncode == 0
    assert {path.relative_to(out) for path in out.rglob("*.json")} == kept
    assert_one_line(cli("leaderboard", DEMO, "--out", DEMO), "--out", "a folder of its own")


def test_settings_on_the_command_line_name_their_quotes(tmp_path):
    def message(change):
        return cli("datasets", "check", "folder", "--root", tmp_path, "--set", change)

    assert_one_line(message("good=no"), "YAML reads no as false", "'\"no\"'")
    assert_one_line(message("good=0"), "YAML reads 0 as a number", "'\"0\"'")
    assert_one_line(message("good={{ x }}"), "template")
    assert_one_line(message("mask_threshold=yes"), "a number is expected")
