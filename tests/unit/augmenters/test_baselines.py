"""NSA and DRAEM: what their images hold, and the cases in which OpenCV's cloning fails."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import view_of
from PIL import Image

from augbench.augmenters.nsa import GAMMA, NARROWEST, NSA, SMALLEST, _span, poisson_blend
from augbench.core import registry
from augbench.core.errors import UserError
from augbench.testing import requests

pytestmark = pytest.mark.usefixtures("one_thread")
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(60, 190, (40, 52, 3)).astype(np.uint8)
PATCH = RNG.integers(0, 255, (12, 16, 3)).astype(np.uint8)


def made(name, dataset, count=12, **settings):
    """Images of an augmenter, each with the real image that is its source."""
    augmenter = registry.make("augmenters", name, settings)
    view = view_of(dataset, augmenter.reads(0))
    return [(one, view.image(one.meta["source"])) for one in augmenter.generate(requests(count), view)]


def drawn(*images):
    """A view of these normal images, n0 and so on."""
    named = {f"n{number}": image for number, image in enumerate(images)}
    return SimpleNamespace(negatives=pd.DataFrame({"id": list(named)}), image=named.get)


def mask_of(rows, columns):
    mask = np.zeros(PATCH.shape[:2], bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize("corner", [(0, 0), (28, 36), (0, 36), (14, 18)])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_patch_may_touch_the_border_and_stays_in_its_place(corner, mixed):
    mask = mask_of(slice(2, 11), slice(3, 15))
    blended = poisson_blend(IMAGE, PATCH, mask, corner, mixed)
    changed = (blended != IMAGE).any(-1)
    inside = np.zeros(IMAGE.shape[:2], bool)
    inside[corner[0] : corner[0] + 12, corner[1] : corner[1] + 16] = mask
    rows, columns = np.nonzero(changed)
    assert not (changed & ~inside).any() and changed[inside].mean() > 0.6
    assert rows.min() <= corner[0] + 3 and columns.min() <= corner[1] + 4  # by the box of its mask, not of the patch


def test_a_patch_keeps_its_gradients_and_takes_the_brightness_of_its_surroundings():
    flat = np.full((40, 52, 3), 100, np.uint8)
    patch = np.full((12, 16, 3), 220, np.uint8)
    patch[5:7, 4:12] = 160  # a dark line, 60 below its surroundings
    blended = poisson_blend(flat, patch, np.ones((12, 16), bool), (10, 10)).astype(int)
    assert abs(blended[20, 20, 0] - 100) < 12  # without the line it would be the flat image again
    assert -75 < blended[15, 18, 0] - blended[19, 18, 0] < -40


@pytest.mark.parametrize("width", [3, 4])
@pytest.mark.parametrize("upright", [False, True])
def test_narrow_masks_can_be_blended(width, upright):
    spans = slice(4, 4 + width), slice(2, 14)
    mask = mask_of(*spans) if not upright else mask_of(slice(1, 11), spans[0])
    blended = poisson_blend(IMAGE, PATCH, mask, (28, 0))
    assert (blended != IMAGE).any()


@pytest.mark.parametrize("rows", [slice(5, 6), slice(5, 7), slice(0, 0)])
def test_masks_of_fewer_than_3_pixels_are_refused(rows):
    with pytest.raises(ValueError, match=f"cannot be blended: {NARROWEST} are needed"):
        poisson_blend(IMAGE, PATCH, mask_of(rows, slice(3, 9)), (0, 0))


def test_grey_stays_grey():
    grey, patch = (np.repeat(image[..., :1], 3, 2) for image in (IMAGE, PATCH))
    blended = poisson_blend(grey, patch, np.ones(patch.shape[:2], bool), (5, 5))
    assert (blended == blended[..., :1]).all() and (blended != grey).any()


def test_an_nsa_image_differs_from_its_source_inside_its_mask_alone(surfaces):
    images = made("nsa", surfaces)
    for one, real in images:
        changed = np.abs(one.image.astype(float) - real).mean(-1) > 1
        assert np.array_equal(changed, one.mask) and one.mask.any()
        assert one.meta["patch_source"] != one.meta["source"] and 1 <= one.meta["patches"] <= 4
    assert len({one.meta["patches"] for one, _ in images}) > 1


def test_nsa_draws_a_patch_again_that_changes_nothing_and_ends():
    flat = np.full((30, 20, 3), 90, np.uint8)
    (one,) = registry.make("augmenters", "nsa", {"patches": 1}).generate(requests(1), drawn(flat, flat))
    assert np.abs(one.image.astype(int) - 90).max() <= 1 and one.mask.all()  # OpenCV rounds down


def test_nsa_takes_images_of_any_size_and_refuses_what_is_smaller_than_a_patch():
    sizes = (SMALLEST, SMALLEST), (SMALLEST, 60), (80, 30), (300, 7)
    view = drawn(*(RNG.integers(0, 255, (*size, 3)).astype(np.uint8) for size in sizes))
    for one in NSA().generate(requests(40), view):
        assert one.image.shape == view.image(one.meta["source"]).shape
    with pytest.raises(UserError, match="image 'n0' is 9 x 4 pixels, a patch needs 5 x 5"):
        NSA().generate(requests(1), drawn(np.zeros((4, 9, 3), np.uint8)))


def test_sides_of_patches_follow_the_papers_distribution():
    rng = np.random.default_rng(1)
    half = np.clip(GAMMA[2] + rng.gamma(*GAMMA[:2], 2000), 0.03, 0.4)
    assert np.isclose(half.mean(), 0.13, atol=0.01)  # offset and mean of the distribution
    spans = [_span(100, share * 200, 200) for share in half]
    assert np.isclose(np.mean([one.stop - one.start for one in spans]), 2 * 0.13 * 200, rtol=0.05)
    assert _span(0, 10, 200) == slice(0, 10) and _span(199, 1, 200) == slice(195, 200)


@pytest.mark.parametrize("setting", [{"half_width": (0.4, 0.1)}, {"resize": (2, 1)}, {"patches": 0}])
def test_settings_are_checked(setting):
    with pytest.raises(UserError, match=f"augmenters.nsa.*{next(iter(setting))}"):
        registry.make("augmenters", "nsa", setting)


def test_draem_blends_changed_texture_into_perlin_masks(surfaces):
    for one, real in made("draem", surfaces):
        assert np.array_equal(one.image[~one.mask], real[~one.mask]) and one.mask.any()
        assert 0.2 <= one.meta["opacity"] <= 1


def test_draem_changes_the_textures_of_a_folder(surfaces, tmp_path):
    Image.new("RGB", (9, 9), (200, 40, 10)).save(tmp_path / "t.png")
    found = made("draem", surfaces, texture_folder=str(tmp_path), opacity=(1, 1))
    colours = {tuple(one.image[one.mask].mean(0).round().astype(int)) for one, _ in found}
    assert len(colours) > 3  # three of ten operations
    key = registry.make("augmenters", "draem", {"texture_folder": str(tmp_path)}).key_settings()
    assert key["texture_folder"].startswith("sha256:") and str(tmp_path) not in str(key)
