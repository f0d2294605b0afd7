"""The gate of synthetic images: what breaks the contract is named and not committed, whatever made it."""

import numpy as np
import pytest
from helpers import tiny_grid

from augbench.core import registry
from augbench.core.contracts import Augmenter, Dataset, Request, Synthetic, TrainView
from augbench.core.errors import PluginError
from augbench.planning.library import open_dataset
from augbench.runner.driver import run
from augbench.stages.image_gate import check_images
from augbench.testing import SURFACES, requests, view_of


class Painter(Augmenter):
    name = "painter"


@pytest.fixture(scope="module")
def view():
    return view_of(open_dataset("surfaces", SURFACES), frozenset({"negatives"}))


def made(view, **changes):
    """Two sound images with a bright patch of their source; the second one is changed."""
    name = str(view.negatives["id"].iloc[0])
    image = view.image(name).copy()
    mask = np.zeros(image.shape[:2], bool)
    mask[4:12, 4:12] = True
    image[mask] = 255 - image[mask]
    sound = {"image": image, "label": "defect", "mask": mask, "meta": {"source": name}}
    return [Synthetic(**sound), Synthetic(**{**sound, **changes})]


def refused(view, samples, count=2):
    with pytest.raises(PluginError) as error:
        check_images(Painter(), requests(count), samples, view)
    return str(error.value)


@pytest.mark.parametrize("change", [{}, {"mask": None}, {"meta": {}}, {"meta": {"source": "somewhere else"}}])
def test_sound_images_pass(view, change):
    check_images(Painter(), requests(2), made(view, **change), view)


SIZE = (176, 64)
BROKEN = [
    ({"label": "good"}, "Synthetic.label", "'good' where 'defect'"),
    ({"image": np.zeros((*SIZE, 3), np.float32)}, "Synthetic.image", "must be H,W,3 uint8, not (176, 64, 3) float32"),
    ({"image": [[0]]}, "Synthetic.image", "not list"),
    ({"image": np.zeros((64, 64, 3), np.uint8), "mask": None}, "Synthetic.image", "size 64 x 64 is not that of its"),
    ({"image": np.zeros((64, 64, 3), np.uint8), "mask": None, "meta": {}}, "Synthetic.image", "not of a real image"),
    ({"image": np.full((*SIZE, 3), 7, np.uint8)}, "Synthetic.image", "of one colour, and its source is not"),
    ({"image": np.full((*SIZE, 3), 7, np.uint8), "meta": {}}, "Synthetic.image", "and no real image is"),
    ({"image": np.eye(176, 64, dtype=np.uint8)[..., None].repeat(3, 2)}, "Synthetic.image", "black, and its source"),
    ({"mask": np.ones(SIZE, np.uint8)}, "Synthetic.mask", "must be H,W bool like its image, not (176, 64) uint8"),
    ({"mask": np.ones((64, 64), bool)}, "Synthetic.mask", "must be H,W bool"),
    ({"mask": np.zeros(SIZE, bool)}, "Synthetic.mask", "empty"),
]


@pytest.mark.parametrize(("change", "contract", "problem"), BROKEN)
def test_what_breaks_the_contract_is_named(view, change, contract, problem):
    message = refused(view, made(view, **change))
    assert f"augmenter 'painter' (augbench): generate: {contract} at image 1 breaks the contract: " in message
    assert problem in message


def test_an_image_that_is_unchanged_inside_its_mask_is_refused(view):
    (sound, _) = made(view)
    source = view.image(sound.meta["source"])
    elsewhere = source.copy()
    elsewhere[100:110] = 0
    assert "Synthetic.mask at image 1 breaks the contract: the image is unchanged inside it" in refused(
        view, made(view, image=elsewhere)
    )
    one = elsewhere.copy()
    one[5, 5] ^= 1
    check_images(Painter(), requests(2), made(view, image=one), view)


def test_a_wrong_number_of_images_is_refused(view):
    assert "generate breaks the contract: 2 images for 3 requests" in refused(view, made(view), 3)


class Plain(Dataset):
    """Images of different sizes; one of them is black."""

    def read_image(self, sample):
        number = int(sample["id"])
        image = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        return np.zeros_like(image) if number == 2 else image


def test_a_dataset_may_have_black_images_and_several_sizes():
    table = open_dataset("surfaces", SURFACES).samples().iloc[:3]
    table = table.assign(id=["0", "1", "2"], label="good")
    view = TrainView(Plain(), table, table.iloc[:0], frozenset({"negatives"}))
    black = Synthetic(np.zeros((21, 30, 3), np.uint8), "defect", None, {})
    check_images(Painter(), [Request(0, 0, "defect")], [black], view)
    of_another = Synthetic(black.image, "defect", None, {"source": "1"})
    with pytest.raises(PluginError, match="its source is not"):
        check_images(Painter(), [Request(0, 0, "defect")], [of_another], view)


def test_a_view_without_images_has_nothing_to_compare_with():
    view = view_of(open_dataset("surfaces", SURFACES), frozenset())
    black = Synthetic(np.zeros((8, 8, 3), np.uint8), "defect", None, {"source": "x"})
    check_images(Painter(), [Request(0, 0, "defect")], [black], view)


def test_nothing_of_a_refused_chunk_is_committed(store, monkeypatch):
    plugin = registry.get("augmenters", "memseg")
    generate = plugin.generate

    def black(self, asked, view):
        found = generate(self, asked, view)
        return [*found[:3], Synthetic(found[3].image * 0, "defect", found[3].mask, found[3].meta), *found[4:]]

    monkeypatch.setattr(plugin, "generate", black)
    summary = run(tiny_grid(shots=[0], augmenters=["memseg"]), store, executor="inline")
    (line,) = summary.failures.values()
    assert "Synthetic.image at image 3 breaks the contract: it is of one colour" in line
    assert not summary.done and not list((store.files.folder / "pools").rglob("*.png"))
