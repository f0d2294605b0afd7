"""`augbench plan`: what it says of features; the rest is in `tests/unit/planning/test_plan.py`."""

import io

from frozen_cells import frozen_plan
from helpers import tiny_plan
from rich.console import Console

from augbench.cli.plan_view import print_plan
from augbench.planning.remaining import subtract


def shown(plan, store):
    console = Console(width=200, file=io.StringIO())
    print_plan(plan, subtract(plan, store), store, console)
    return console.file.getvalue()


def test_features_to_extract_are_counted(store):
    """116 images of the dataset in a chunk; of each of three pools two chunks of 20."""
    plan = frozen_plan(n_aug=[30])
    text = shown(plan, store)
    assert "236 images to extract features of in 7 chunks: 116 of datasets, 120 of pools." in text
    assert "the features of 236 images in 7 chunks" in text
    for spec in plan.features.values():
        if spec.pool is None:
            store.files.write(store.chunk_name(spec, 0), b"")
    assert "the features of 120 images in 6 chunks" in shown(plan, store)


def test_a_grid_of_fine_tuning_has_none(store):
    assert "features" not in shown(tiny_plan(), store)


def test_a_dataset_without_files_is_planned(store):
    plan = frozen_plan(datasets=["ksdd2"], augmenters=["none"], shots=[5])
    assert "0 of datasets; the images of ksdd2 are not here to be counted." in shown(plan, store)
