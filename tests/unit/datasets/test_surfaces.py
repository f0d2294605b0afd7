"""Tests of the embedded dataset: counts, groups, rendering, masks. The common contract: tests/test_contracts.py."""

import numpy as np
import pytest
from pydantic import ValidationError

from augbench.core.seeds import rng
from augbench.datasets._surface_defects import DEFECTS, add_defect
from augbench.datasets._surface_materials import MATERIALS, make_surface, photograph
from augbench.datasets.surfaces import HEIGHT, WIDTH, Surfaces, _render
from augbench.procedural import noise
from augbench.procedural.drawing import strokes

COUNTS = {"train_good": 21, "train_defective": 20, "test_good": 10, "test_defective": 20}
SMALL = Surfaces.Config(**COUNTS)


@pytest.fixture(scope="module")
def small():
    dataset = Surfaces(SMALL)
    return dataset, dataset.samples()


def test_counts_and_labels_follow_the_settings(small):
    _, table = small
    kind = table["label"].where(table["label"] == "good", "defective")
    counts = table.groupby(["split", kind]).size().to_dict()
    assert {f"{split}_{kind}": count for (split, kind), count in counts.items()} == COUNTS
    assert set(table["label"]) == {"good", *DEFECTS}
    assert "train-good-00012" in set(table["id"])
    assert Surfaces().samples().groupby("split").size().to_dict() == {"train": 440, "test": 260}


def test_groups_have_one_or_two_exposures_of_one_label_in_one_split(small):
    _, table = small
    sizes = table.groupby("group").size()
    assert set(sizes) == {1, 2}
    assert (table.groupby("group")[["split", "label"]].nunique() == 1).all(axis=None)


def test_two_exposures_show_the_same_item_under_other_light(small):
    dataset, table = small
    twice = table[table.duplicated("group", keep=False) & (table["label"] != "good")]
    for _, pair in twice.groupby("group"):
        first, second = pair.to_dict("records")
        assert (dataset.read_mask(first) == dataset.read_mask(second)).all()
        assert (dataset.read_image(first) != dataset.read_image(second)).mean() > 0.5


def test_images_and_masks(small):
    dataset, table = small
    for sample in table.to_dict("records"):
        image, mask = dataset.read_image(sample), dataset.read_mask(sample)
        assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
        assert mask.shape == (HEIGHT, WIDTH) and mask.dtype == bool
        assert mask.any() == (sample["label"] != "good")
        assert mask.mean() < 0.25


def test_a_defect_is_visible_inside_its_mask():
    """An item with and without its defect differs inside the mask, and hardly outside."""
    for label in DEFECTS:
        normal, damaged = (make_surface(rng("piece", label), (HEIGHT, WIDTH)) for _ in range(2))
        mask = add_defect(rng("damage", label), damaged, label)
        change = np.abs(damaged.albedo - normal.albedo).mean(axis=2)
        assert change[mask].mean() > 0.02
        assert change[~mask].mean() < 0.01


def test_any_image_renders_alone_and_larger_counts_change_none(small):
    dataset, table = small
    sample = table.iloc[7].to_dict()
    before = dataset.read_image(sample)
    _render.cache_clear()
    larger = Surfaces(SMALL.model_copy(update={"train_good": 40, "test_defective": 33}))
    assert table["id"].isin(larger.samples()["id"]).all()
    assert (larger.read_image(sample) == before).all()


def test_another_seed_gives_other_images(small):
    dataset, table = small
    other = Surfaces(SMALL.model_copy(update={"seed": 1}))
    sample = table.iloc[0].to_dict()
    assert (other.read_image(sample) != dataset.read_image(sample)).mean() > 0.5
    assert other.fingerprint() != dataset.fingerprint()


def test_a_read_image_is_a_copy(small):
    dataset, table = small
    sample = table.iloc[3].to_dict()
    dataset.read_image(sample)[:] = 0
    dataset.read_mask(sample)[:] = True
    assert dataset.read_image(sample).any() and not dataset.read_mask(sample).all()


def test_fingerprint_ignores_the_root(tmp_path):
    assert Surfaces(Surfaces.Config(root=tmp_path)).fingerprint() == Surfaces().fingerprint()
    assert Surfaces().files() == []


@pytest.mark.parametrize("wrong", [{"train_good": 0}, {"train_defective": -1}, {"seed": -1}, {"size": 3}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Surfaces.Config(**wrong)


@pytest.mark.parametrize("name", MATERIALS)
def test_materials_work_at_any_size(name):
    for shape in ((5, 7), (64, 64), (30, 90)):
        texture = MATERIALS[name].texture(rng("texture", name), shape, 0.3)
        assert texture.shape == shape and np.isfinite(texture).all()
    assert photograph(rng("light"), make_surface(rng("piece"), (30, 90))).shape == (30, 90, 3)


def test_strokes_cover_the_segment_and_nothing_far_from_it():
    canvas = strokes((20, 30), np.array([[[10.0, 5.0], [10.0, 25.0]]]), np.array([3.0]), np.array([0.8]))
    assert np.allclose(canvas[10, 5:26], 0.8) and not canvas[:8].any() and not canvas[13:].any()
    outside = strokes((20, 30), np.array([[[-9.0, -9.0], [-5.0, -5.0]]]), np.array([1.0]), np.array([1.0]))
    assert not outside.any()


@pytest.mark.parametrize("shape", [(176, 64), (33, 70), (12, 90)])
def test_noise_fields_are_standardised(shape):
    for field in (noise.spectral(rng("n"), shape, 1.0), noise.streaks(rng("n"), shape, 0.4, 10)):
        assert field.shape == shape and field.dtype == np.float32
        assert abs(field.mean()) < 1e-3 and field.std() == pytest.approx(1, abs=1e-2)


def test_perlin_is_smooth_and_turns_with_its_angle():
    level, upright = (noise.perlin(rng("p"), (128, 128), (32, 2), angle) for angle in (0.0, np.pi / 2))
    for field in (level, upright):
        assert np.abs(field).max() <= 1.01 and field.std() > 0.1
    steps = [np.abs(np.diff(field, axis=axis)).mean() for field in (level, upright) for axis in (0, 1)]
    assert steps[0] > 4 * steps[1]  # 32 rows of cells: it varies faster along axis 0
    assert steps[3] > 4 * steps[2]
