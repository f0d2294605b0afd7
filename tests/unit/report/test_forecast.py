"""What `augbench plan` says beforehand: verdicts that cannot be, differences that will show, work that is left."""

import pytest
from helpers import TINY_PROBE, cli, grid_file


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A grid of a probe, of which two of four seeds are run."""
    folder = tmp_path_factory.mktemp("forecast")
    axes = {"shots": ["all"], "n_aug": [4], "seeds": [0, 1, 2, 3], "folds": [0]}
    grid = grid_file(folder, augmenters=["none", "memseg"], protocols=[TINY_PROBE], fidelity=None, **axes)
    ran = cli("run", grid, "--set", "seeds=[0,1]", "--store", folder / "store", "--executor", "inline")
    assert ran.returncode == 0, ran.stderr
    return grid, folder / "store"


def planned(grid, *arguments):
    ran = cli("plan", grid, *arguments)
    assert ran.returncode == 0, ran.stderr
    return " ".join(ran.stdout.split())


def test_nothing_is_known_before_the_first_cells(stored, tmp_path):
    assert "not known before some cells are done" in planned(stored[0], "--store", tmp_path / "none")


def test_rows_with_too_few_runs_are_named(stored):
    text = planned(stored[0], "--set", "seeds=[0,1]", "--store", stored[1])
    assert "no verdict with 2 runs (memseg at full-shot): give 3 or more seeds or draws" in text
    assert "no verdict" not in planned(stored[0], "--store", stored[1])


def test_the_smallest_difference_and_the_work_left_follow_from_what_is_done(stored):
    text = planned(stored[0], "--store", stored[1])
    assert "full-shot, probe: differences above" in text and "AP will show" in text
    assert "work left: about" in text and "of one worker" in text
