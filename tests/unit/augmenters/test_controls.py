"""What each control leaves of what it controls for; tests/test_contracts.py tests the contract of all augmenters."""

import io

import numpy as np
import pandas as pd
import pytest
from helpers import TINY_DDPM, TINY_PROBE, library_of, path_of, same_image, tiny_grid, tiny_plan, view_of
from layouts import draw_neu
from rich.console import Console

from augbench.augmenters import self_paste
from augbench.core import registry
from augbench.core.contracts import Request
from augbench.core.errors import UserError
from augbench.planning.plan import notes_of
from augbench.report.frame import load_records
from augbench.runner.driver import run
from augbench.stages.generate import _request
from augbench.storage.store import Store
from augbench.testing import requests

CONTROLS = {"blur", "classic", "copy", "noise_patch", "self_paste", "vae_roundtrip"}
TINY_DIAG = {"bundle": "micro-sdxl-inpaint", "steps": 2, "guidance": 3.0}

pytestmark = pytest.mark.usefixtures("one_thread")


def generated(name, dataset, count=20, shots="all", **settings):
    """Images of an augmenter, each with the real image that is its source."""
    augmenter = registry.make("augmenters", name, settings)
    augmenter.load(None, "cpu")
    view = view_of(dataset, augmenter.reads(shots))
    return [(made, view.image(made.meta["source"])) for made in augmenter.generate(requests(count), view)]


def test_controls_are_marked_and_their_results_say_so():
    assert {name for name, plugin in registry.find("augmenters").items() if plugin.control} == CONTROLS
    plan = tiny_plan(augmenters=["none", "noise_patch"], shots=[5])
    notes = [note for cell in plan.cells for note in notes_of(plan.library, cell, plan.needs[cell.key])]
    assert notes == [f"noise_patch: a control: {registry.get('augmenters', 'noise_patch').control}"]


# -- noise_patch


def test_a_noise_patch_at_full_opacity_is_uniform_noise(surfaces):
    made = generated("noise_patch", surfaces, opacity=(1, 1))
    inside = np.concatenate([synthetic.image[synthetic.mask] for synthetic, _ in made])
    counts = np.histogram(inside, 16, (0, 256))[0]
    assert counts.min() > 0.8 * counts.max()
    assert abs(np.corrcoef(inside[:-1].ravel(), inside[1:].ravel())[0, 1]) < 0.05


# -- self_paste


def test_without_jitter_a_piece_pasted_back_leaves_no_trace(surfaces, monkeypatch):
    monkeypatch.setattr(self_paste, "jitter", lambda rng, piece: piece)
    assert all(same_image(synthetic.image, real) for synthetic, real in generated("self_paste", surfaces))


def test_inside_a_self_paste_the_content_stays_in_place(surfaces):
    for synthetic, real in generated("self_paste", surfaces):
        before, after = (image[synthetic.mask].mean(-1) for image in (real, synthetic.image))
        assert not same_image(synthetic.image, real)
        assert np.ptp(before) < 8 or np.corrcoef(before, after)[0, 1] > 0.8  # of rounded values


def test_a_jitter_that_rounds_to_nothing_is_drawn_again(surfaces, monkeypatch):
    drawn, real_jitter = [], self_paste.jitter
    changes = [lambda rng, piece: piece, real_jitter]
    monkeypatch.setattr(self_paste, "jitter", lambda r, p: drawn.append(1) or changes[len(drawn) % 2 == 0](r, p))
    ((synthetic, real),) = generated("self_paste", surfaces, count=1)
    assert len(drawn) == 2 and not same_image(synthetic.image, real)


# -- classic, copy


def test_classic_without_rotation_and_recolouring_only_flips(surfaces):
    seen = set()
    for synthetic, real in generated("classic", surfaces, degrees=0, brightness=0, contrast=0):
        flips = {"none": real, "left": real[:, ::-1], "top": real[::-1], "both": real[::-1, ::-1]}
        (flip,) = (name for name, flipped in flips.items() if same_image(synthetic.image, flipped))
        seen.add(flip)
    assert seen == {"none", "left", "top", "both"}


def test_a_rotation_leaves_no_empty_corner(surfaces):
    for synthetic, real in generated("classic", surfaces, degrees=180, brightness=0, contrast=0):
        assert synthetic.image.min() >= real.min() and synthetic.image.max() <= real.max()


def test_copies_take_all_shots_in_turn(surfaces):
    made = generated("copy", surfaces, count=32)
    assert all(same_image(synthetic.image, real) for synthetic, real in made)
    sources = [synthetic.meta["source"] for synthetic, _ in made]
    assert len(set(sources[:16])) == 16 and sources[:16] == sources[16:]


@pytest.mark.parametrize("name", ["classic", "copy"])
def test_in_recognition_an_image_keeps_its_class(name, tmp_path):
    dataset = library_of("neu", draw_neu(tmp_path)).dataset("neu")
    view, classes = view_of(dataset, {"shots"}), dataset.classes()
    labels = dataset.samples().set_index("id")["label"]
    asked = [Request(i, i, classes[i % len(classes)]) for i in range(len(view.shots))]
    made = registry.make("augmenters", name, {}).generate(asked, view)
    assert all(
        one.label == request.label == labels[one.meta["source"]] for one, request in zip(made, asked, strict=True)
    )
    assert name == "classic" or len({one.meta["source"] for one in made}) == len(asked)
    with pytest.raises(UserError, match=f"{name} needs a shot of class 'nothing'"):
        registry.make("augmenters", name, {}).generate([Request(0, 0, "nothing")], view)


@pytest.mark.parametrize("weight", [1.0, "cv"])
def test_in_a_balanced_probe_copies_change_nothing(weight, tmp_path):
    protocol = TINY_PROBE | {"synthetic_weight": weight}
    grid = tiny_grid(augmenters=["none", "copy", "blur"], shots=[5], n_aug=[10], protocols=[protocol])
    store = Store(str(tmp_path))
    run(grid, store, executor="inline", console=Console(file=io.StringIO()))
    rows = load_records(store).set_index("augmenter")
    found = {name: pd.read_parquet(path_of(store, "scores", key))["logit"] for name, key in rows["key"].items()}
    assert np.allclose(found["copy"], found["none"], atol=1e-3)
    assert weight == "cv" or not np.allclose(found["blur"], found["none"], atol=0.1)


# -- vae_roundtrip, blur


@pytest.mark.parametrize("bundle", ["micro-sd", "micro-sdxl-inpaint"])
@pytest.mark.parametrize("aspect", ["squeeze", "keep"])
def test_a_round_trip_by_any_pipeline_is_near_its_source(surfaces, bundle, aspect):
    for synthetic, real in generated("vae_roundtrip", surfaces, count=4, bundle=bundle, aspect=aspect):
        assert synthetic.image.shape == real.shape and not same_image(synthetic.image, real)
        assert np.abs(synthetic.image.astype(int) - real).mean() < 12


def test_blur_takes_sharpness_and_nothing_else(surfaces):
    def sharpness(image):
        return np.abs(np.diff(image.astype(int), axis=0)).mean()

    for synthetic, real in generated("blur", surfaces):
        assert sharpness(synthetic.image) < 0.7 * sharpness(real)
        assert abs(synthetic.image.mean() - real.mean()) < 1


# -- null rows: the same augmenter with neutral prompts


NULLS = {  # augmenter -> its settings, and those of its null row at zero-shot
    "diag": (TINY_DIAG | {"prompts": "surfaces"}, TINY_DIAG | {"prompts": "neutral"}),
    "ddpm": (TINY_DDPM, TINY_DDPM | {"zero": TINY_DDPM["zero"] | {"prompts": ["skt background"]}}),
}
NULLS["inout"] = tuple({"ddpm": settings} for settings in NULLS["ddpm"])


@pytest.mark.parametrize("name", NULLS)
def test_a_null_row_has_pools_of_its_own_and_the_same_seeds(name):
    real, null = NULLS[name]
    augmenters = [{"name": name, "settings": real}, {"name": name, "as": "null", "settings": null}]
    plan = tiny_plan(augmenters=augmenters, shots=[0])
    of_real, of_null = (tuple(one.pool for one in plan.needs[cell.key]) for cell in plan.cells)
    assert of_real[0].key != of_null[0].key and of_real[1:] == of_null[1:]  # memseg serves both rows of inout
    assert [[_request(pool, i, 0) for i in range(4)] for pool in of_real] == [
        [_request(pool, i, 0) for i in range(4)] for pool in of_null
    ]


def test_a_null_row_inpaints_the_same_regions_of_the_same_images(surfaces):
    made = []
    for settings in NULLS["diag"]:
        augmenter = registry.make("augmenters", "diag", settings)
        augmenter.load(None, "cpu")
        made.append(augmenter.generate(requests(4), view_of(surfaces, augmenter.reads(0))))
    for one, other in zip(*made, strict=True):
        assert (one.mask == other.mask).all() and not same_image(one.image, other.image)
        assert other.meta == one.meta | {"prompt": "clean surface"} and one.meta["prompt"] != "clean surface"
