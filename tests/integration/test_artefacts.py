"""The artefact check end to end: an artefact is not taken for a gain, and a true gain is shown."""

import io

import pytest
from helpers import HERE, TINY_PROBE, tiny_grid
from rich.console import Console

from augbench.core import registry
from augbench.report.evidence.build import build_evidence
from augbench.report.frame import load_expected, load_records
from augbench.runner.driver import run

SMALL = {"train_good": 80, "train_defective": 12, "test_good": 120, "test_defective": 80}
PROBE = {**TINY_PROBE, "width": 64, "height": 176, "C": 0.01}
BLUR = ({"name": "blur"}, {"name": "blur", "as": "null", "settings": {"sigma": 1.2}})  # no defect either
PLANTED = ({"name": "planted"}, {"name": "planted", "as": "null", "settings": {"defects": False}})

pytestmark = pytest.mark.usefixtures("one_thread")


def finding(store, dataset, augmenters, **grid):
    """Return what the artefact check says of an augmenter, whose second form is its null."""
    for name in ("out_of_focus", "planted"):
        registry.load_file(HERE / "plugins" / f"{name}.py")
    real, null = augmenters
    asked = ["none", real, null | {"null_of": [real["name"]]}]
    grid = tiny_grid(datasets=[dataset], augmenters=asked, n_aug=[80], draws=list(range(8)), **grid)
    run(grid, store, executor="inline", console=Console(file=io.StringIO()))
    expected = load_expected(store, grid.name)
    (evidence,) = build_evidence(store, expected, load_records(store, expected["key"]), resamples=500)
    (check,) = evidence.checks
    return str(check.finding)


@pytest.mark.parametrize(
    ("dataset", "augmenters", "expected"),
    [
        ("surfaces", PLANTED, "gain over null shown"),
        ("surfaces", BLUR, "no gain to explain"),
        ("out_of_focus", BLUR, "null itself gains"),
    ],
)
def test_a_gain_is_told_from_an_artefact(store, dataset, augmenters, expected):
    dataset = {"name": dataset, "settings": SMALL}
    assert finding(store, dataset, augmenters, shots=[2], protocols=[PROBE]) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("augmenters", "expected"), [(PLANTED, "gain over null shown"), (BLUR, "no gain to explain")])
def test_so_it_is_with_real_weights_on_all_surfaces(store, augmenters, expected):
    assert finding(store, "surfaces", augmenters, shots=[5], seeds=[0, 1, 2], protocols=["probe"]) == expected
