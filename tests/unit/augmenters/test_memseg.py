"""MemSeg, CutPaste and their controls beyond the contract of all augmenters, which tests/test_contracts.py tests."""

import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import library_of, same_image, tiny_plan, view_of
from layouts import draw_neu
from PIL import Image
from pydantic import ValidationError

from augbench.augmenters import _patches
from augbench.augmenters._folders import image_files
from augbench.augmenters._patches import blend, otsu_foreground, perlin_mask
from augbench.augmenters._photometric import OPERATIONS, cut_and_shuffle, three_of_ten, to_grey
from augbench.augmenters._pieces import cut_patch, cut_scar, jitter
from augbench.augmenters.cutpaste import CutPaste
from augbench.augmenters.memseg import MemSeg
from augbench.augmenters.noise_patch import NoisePatch
from augbench.augmenters.none import NoAugmentation
from augbench.augmenters.self_paste import SelfPaste
from augbench.core import registry
from augbench.core.contracts import SAMPLE_COLUMNS, Dataset, Request, TrainView
from augbench.core.errors import UserError
from augbench.core.seeds import derive_seed, rng

SIZES = [(176, 64), (64, 64), (61, 97), (300, 20), (8, 8), (5, 3), (1, 1)]  # H,W


class InMemory(Dataset):
    """Three noisy images of one size."""

    def __init__(self, shape, grey=False):
        super().__init__()
        images = [rng("picture", *shape, i).integers(60, 180, (*shape, 3)).astype(np.uint8) for i in range(3)]
        self.images = {f"n{i}": to_grey(p) if grey else p for i, p in enumerate(images)}

    def samples(self):
        rows = [(name, name, "", "good", "train", name) for name in self.images]
        return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS))

    def read_image(self, sample):
        return self.images[sample["id"]]


def make(augmenter, shape=(60, 40), count=8, grey=False, first=0):
    """The dataset's images by id, and ``count`` synthetic ones."""
    dataset = InMemory(shape, grey)
    table = dataset.samples()
    view = TrainView(dataset, table, table.head(0), augmenter.reads(0))
    requests = [Request(i, derive_seed("test", i), "defect") for i in range(first, first + count)]
    return dataset.images, augmenter.generate(requests, view)


def augmenters():
    yield from (MemSeg(MemSeg.Config(texture_share=share)) for share in (0.0, 1.0))
    yield from (CutPaste(CutPaste.Config(variant=variant)) for variant in ("patch", "scar", "both"))
    yield from (NoisePatch(), NoisePatch(NoisePatch.Config(foreground=True)), SelfPaste())


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("augmenter", augmenters(), ids=lambda a: f"{type(a).__name__}-{a.config}")
def test_any_size_keeps_the_outside_and_fills_the_mask(augmenter, shape):
    images, made = make(augmenter, shape)
    for synthetic in made:
        source = images[synthetic.meta["source"]]
        assert synthetic.image.shape == source.shape and synthetic.image.dtype == np.uint8
        assert synthetic.mask.shape == shape and synthetic.mask.any()
        assert (synthetic.image[~synthetic.mask] == source[~synthetic.mask]).all()


@pytest.mark.parametrize("augmenter", augmenters(), ids=lambda a: f"{type(a).__name__}-{a.config}")
def test_an_image_depends_on_its_request_alone(augmenter):
    _, together = make(augmenter, count=6)
    for index in (4, 1):
        _, (alone,) = make(augmenter, count=1, first=index)
        assert same_image(alone.image, together[index].image) and same_image(alone.mask, together[index].mask)
        assert alone.meta == together[index].meta


@pytest.mark.parametrize("augmenter", augmenters(), ids=lambda a: f"{type(a).__name__}-{a.config}")
def test_grey_stays_grey(augmenter):
    _, made = make(augmenter, grey=True, count=12)
    assert all((s.image == s.image[..., :1]).all() for s in made)


@pytest.mark.parametrize("augmenter", [MemSeg(), CutPaste()], ids=lambda a: type(a).__name__)
def test_no_negatives_is_a_user_error(augmenter):
    dataset = InMemory((9, 9))
    nothing = dataset.samples().head(0)
    with pytest.raises(UserError, match="negatives"):
        augmenter.generate([Request(0, 1, "defect")], TrainView(dataset, nothing, nothing, augmenter.reads(0)))


def test_sources_kinds_and_opacities_are_spread_over_their_ranges():
    _, made = make(MemSeg(), shape=(20, 20), count=200)
    meta = pd.DataFrame([s.meta for s in made])
    assert set(meta["source"]) == {"n0", "n1", "n2"}
    assert 70 <= (meta["kind"] == "texture").sum() <= 130
    assert 0.15 <= meta["opacity"].min() < 0.25 and 0.9 < meta["opacity"].max() <= 1


def test_opacity_and_share_settings_are_obeyed():
    _, made = make(MemSeg(MemSeg.Config(opacity=(0.4, 0.4), texture_share=1)))
    assert {(s.meta["kind"], s.meta["opacity"]) for s in made} == {("texture", 0.4)}


@pytest.mark.parametrize(
    "wrong", [{"opacity": (0.5, 0.2)}, {"opacity": (0, 2)}, {"grid": (0, 8)}, {"texture_share": -1}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        MemSeg.Config(**wrong)


def test_blend_mixes_by_opacity():
    image, patch = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 200, np.uint8)
    mask = np.eye(4, dtype=bool)
    assert (blend(image, patch, mask, 0.25) == np.where(mask[..., None], 125, 100)).all()


def test_masks_take_many_sizes_and_stay_a_minor_part():
    shares = np.array([perlin_mask(rng("mask", i), (176, 64)).mean() for i in range(60)])
    assert shares.min() > 0 and shares.mean() < 0.25 and shares.std() > 0.01


def test_a_one_pixel_foreground_still_gets_its_mask():
    allowed = np.zeros((50, 50), bool)
    allowed[20, 30] = True
    assert (perlin_mask(rng("one pixel"), (50, 50), allowed) == allowed).all()


@pytest.mark.parametrize("bright", [True, False])
def test_foreground_is_the_object_whatever_its_brightness(bright):
    image = np.full((40, 30, 3), 30 if bright else 220, np.uint8)
    image[10:30, 8:22] = 200 if bright else 50
    foreground = otsu_foreground(image)
    assert foreground[10:30, 8:22].all() and foreground.sum() == 20 * 14
    assert otsu_foreground(np.full((4, 4, 3), 9, np.uint8)).all()


def test_foreground_setting_keeps_patches_on_the_object():
    dataset = InMemory((40, 30))
    for image in dataset.images.values():
        image[:, :10] = 250
        image[:4], image[-4:], image[:, -4:] = 250, 250, 250
    table = dataset.samples()
    view = TrainView(dataset, table, table.head(0), frozenset({"negatives"}))
    made = MemSeg(MemSeg.Config(foreground=True)).generate([Request(i, i, "defect") for i in range(10)], view)
    assert not any(s.mask[:, :10].any() for s in made)


def test_shuffle_permutes_whole_cells():
    cells = np.arange(32, dtype=np.uint8).reshape(4, 8)
    image = np.repeat(np.repeat(cells, 5, 0), 3, 1)[..., None].repeat(3, 2)  # 20,24,3
    image[..., 1] = np.tile(np.arange(5)[:, None], (4, 24))  # row inside the cell
    image[..., 2] = np.tile(np.arange(3), (20, 8))  # column inside the cell
    shuffled = cut_and_shuffle(rng("shuffle"), image, (4, 8))
    assert (shuffled[..., 1:] == image[..., 1:]).all()
    found = shuffled[::5, ::3, 0]
    assert (np.repeat(np.repeat(found, 5, 0), 3, 1) == shuffled[..., 0]).all()
    assert sorted(found.ravel()) == list(range(32))
    assert (found != cells).any()


def test_shuffle_of_an_indivisible_size_invents_nothing():
    image = rng("image").integers(0, 255, (37, 23, 3)).astype(np.uint8)
    shuffled = cut_and_shuffle(rng("shuffle"), image, (8, 8))
    assert shuffled.shape == image.shape
    assert {tuple(p) for p in shuffled.reshape(-1, 3)} <= {tuple(p) for p in image.reshape(-1, 3)}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda f: f.__name__)
def test_operations_keep_shape_and_do_something(operation):
    image = rng("image").integers(40, 200, (20, 30, 3)).astype(np.uint8)
    before = image.copy()
    results = [operation(rng("operation", i), image) for i in range(4)]
    assert all(r.shape == image.shape and r.dtype == np.uint8 for r in results)
    assert any((r != image).any() for r in results)
    assert (image == before).all()
    assert three_of_ten(rng("three"), image).shape == image.shape


@pytest.fixture
def folder(tmp_path):
    for i, colour in enumerate([(200, 0, 0), (0, 200, 0)]):
        path = tmp_path / "textures" / "below" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(path)
    (tmp_path / "textures" / "readme.txt").write_text("no image")
    return tmp_path / "textures"


def test_a_texture_folder_is_used(folder):
    settings = MemSeg.Config(texture_folder=folder, texture_share=1, opacity=(1, 1))
    _, made = make(MemSeg(settings), count=10)
    colours = {tuple(int(c > 128) for c in s.image[s.mask].mean(0)) for s in made}
    assert colours == {(1, 0, 0), (0, 1, 0)}


def test_the_key_holds_the_textures_and_not_their_path(folder, tmp_path):
    def key(path):
        return MemSeg(MemSeg.Config(texture_folder=path)).key_settings()

    shutil.copytree(folder, tmp_path / "copy")
    before = key(folder)
    assert before == key(tmp_path / "copy") and str(tmp_path) not in str(before)
    Image.new("RGB", (30, 20), (0, 0, 200)).save(folder / "below" / "1.jpg")
    assert key(folder) != before
    assert MemSeg().key_settings() == {}


@pytest.mark.parametrize(("name", "what"), [("missing", "is not a folder"), (".", r"holds no images \(.bmp, .*\)")])
def test_a_missing_or_empty_texture_folder_is_a_user_error(tmp_path, name, what):
    augmenter = MemSeg(MemSeg.Config(texture_folder=tmp_path / name, texture_share=1))
    for attempt in (augmenter.key_settings, lambda: make(augmenter)):
        with pytest.raises(UserError, match=f"^texture_folder '{tmp_path / name}' {what}: set memseg's [^\n]*$"):
            attempt()


def test_files_of_a_folder_are_sorted_and_hidden_ones_left_out(tmp_path):
    for name in ("b/2.JPG", "b.png", "a.webp", ".b/0.png", "b/._2.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("an image")
    files = image_files("folder", tmp_path, "")
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["a.webp", "b.png", "b/2.JPG"]


def test_a_broken_texture_is_a_user_error(folder):
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"\.jpg"):
        make(MemSeg(MemSeg.Config(texture_folder=folder, texture_share=1)))


def test_cells_are_never_finer_than_two_pixels(monkeypatch):
    asked, real = [], _patches.perlin
    monkeypatch.setattr(_patches, "perlin", lambda r, s, cells, *a: asked.append(cells) or real(r, s, cells, *a))
    for i in range(60):
        perlin_mask(rng("cells", i), (256, 10))
    rows, columns = map(set, zip(*asked, strict=True))
    assert rows == {1, 2, 4, 8, 16, 32} and columns == {1, 2, 4}


def test_cutpaste_pieces_keep_the_papers_ranges():
    image = rng("image").integers(0, 255, (256, 256, 3)).astype(np.uint8)
    patches = [cut_patch(rng("patch", i), image)[1] for i in range(80)]
    areas = np.array([p.size for p in patches]) / 256**2
    aspects = np.array([p.shape[1] / p.shape[0] for p in patches])
    assert areas.min() > 0.018 and areas.max() < 0.155
    assert 0.28 < aspects.min() < 0.6 and 1.8 < aspects.max() < 3.4
    scars = [cut_scar(rng("scar", i), image)[1] for i in range(80)]
    assert max(max(s.shape) for s in scars) <= np.hypot(25, 16) + 2
    assert all(10 * 2 * 0.7 < s.sum() < 25 * 16 * 1.2 for s in scars)


def test_cutpaste_jitter_is_slight():
    piece = np.full((6, 6, 3), (150, 110, 90), np.uint8)
    changes = [np.abs(jitter(rng("jitter", i), piece).astype(int) - piece).max() for i in range(20)]
    assert 0 < max(changes) < 70


def test_none_reads_nothing_and_makes_nothing():
    augmenter = NoAugmentation()
    assert not augmenter.makes_images and augmenter.reads("all") == frozenset()
    assert augmenter.refuses(0) and not augmenter.refuses(5)
    with pytest.raises(AssertionError):
        augmenter.generate([], None)


# Onto real defect images


def test_on_shots_a_patch_keeps_the_class(tmp_path):
    dataset = library_of("neu", draw_neu(tmp_path)).dataset("neu")
    augmenter = registry.make("augmenters", "memseg", {"source": "shots"})
    assert augmenter.tasks == {"detection", "recognition"} and augmenter.reads(5) == {"shots"}
    assert registry.make("augmenters", "memseg", {}).tasks == {"detection"}
    view, classes = view_of(dataset, {"shots"}), dataset.classes()
    asked = [Request(i, 50 + i, classes[i % len(classes)]) for i in range(12)]
    labels = dataset.samples().set_index("id")["label"]
    for request, made in zip(asked, augmenter.generate(asked, view), strict=True):
        assert made.label == request.label == labels[made.meta["source"]]
        real = view.image(made.meta["source"])
        assert same_image(np.where(made.mask[..., None], real, made.image), real)
    with pytest.raises(UserError, match="shot of class 'nothing'"):
        augmenter.generate([Request(0, 0, "nothing")], view)


def test_zero_shot_has_nothing_to_patch():
    entry = {"name": "memseg", "as": "on_shots", "settings": {"source": "shots"}}
    plan = tiny_plan(augmenters=["memseg", entry], shots=[0, 5])
    assert {cell.shots for cell in plan.cells if cell.augmenter.alias == "on_shots"} == {5}
    pools = {pool.augmenter.alias: pool.shots for pool in plan.pools.values()}
    assert pools == {"memseg": None, "on_shots": 5}
