"""What `augbench plan` says beforehand: verdicts that cannot be, differences that will show, work that is left."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import TINY_PROBE, cli, grid_file

from augbench.metrics.inference import smallest_difference
from augbench.metrics.resampling import interval, run_weights
from augbench.report.evidence import forecast


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
    assert "full-shot, probe: differences above" in text and "AP will show four times out of five" in text
    assert "work left: about" in text and "of one worker" in text


def cells(draws, seeds, **more):
    axes = {"fold": None, "adapter_seed": 0, "test_share": None, "n_aug": 8, **more}
    return [SimpleNamespace(draw=draw, seed=seed, **axes) for draw in range(draws) for seed in range(seeds)]


def difference(draws, seeds):
    """The interval of a difference that varies with the draw of the shots, and little with seed and items."""
    rng = np.random.default_rng(0)
    runs = [(-1, draw, seed, 0) for draw in range(draws) for seed in range(seeds)]
    of_draw = 0.05 * np.sin(np.arange(draws))
    values = np.array([of_draw[draw] for _, draw, *_ in runs]) + rng.normal(0, 0.005, len(runs))
    sampled = values[:, None] + rng.normal(0, 0.005, 1000)
    return interval(values, sampled, run_weights(runs, 1000, rng, False), 100)


@pytest.mark.parametrize("done", [(6, 2), (3, 2)])
def test_more_seeds_shrink_the_variance_of_seeds_alone(done):
    found, planned = difference(*done), difference(6, 8)
    scale, freedom = forecast._planned(found, cells(*done), cells(6, 8))
    assert scale == {"draw": done[0] / 6, "seed": 2 / 8}
    assert freedom == pytest.approx(planned.freedom, rel=0.2)
    forecasted = smallest_difference(found.parts, freedom, 1, scale)
    assert forecasted == pytest.approx(smallest_difference(planned.parts, planned.freedom), rel=0.4)


def test_the_runs_that_are_read_are_of_all_draws():
    axes = {"dataset": "tiny", "protocol": "probe", "shots": 5}
    rows = [("none", 0, cells(6, 1)), ("memseg", 8, cells(6, 8))]
    every = [{**vars(one), **axes, "augmenter": name, "n_aug": n_aug} for name, n_aug, own in rows for one in own]
    table = pd.DataFrame([{**one, "key": str(number)} for number, one in enumerate(every)])
    pair = forecast._pair(table, set(table["key"]))
    of_row = pair[pair["augmenter"] == "memseg"]
    assert of_row.groupby("draw")["seed"].agg(list).to_dict() == {draw: [0, 1] for draw in range(6)}
    assert len(pair[pair["augmenter"] == "none"]) == 6
