"""Fidelity: measures against reference implementations and by hand, the extractor, and the stage."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import SMALL_SURFACES, path_of, tiny_grid
from scipy import linalg
from threadpoolctl import threadpool_info, threadpool_limits

from augbench.core.errors import UserError
from augbench.features.extractor import Extractor, aspect_of
from augbench.metrics.fidelity import diversity, fid, kid, kid_interval, memorisation, nearest, told_apart
from augbench.planning import extractor_choice as names
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.runner.worker import WorkerSetup
from augbench.stages import fidelity as stage
from augbench.storage.records import spec_of
from augbench.storage.store import Store

ON = {"extractor": "micro_resnet"}


def slow_kid(real, made):
    def kernel(x, y):
        return (float(np.dot(x, y)) / len(x) + 1) ** 3

    def within(rows):
        pairs = [kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(a, b) for a in real for b in made]
    return within(real) + within(made) - 2 * sum(across) / len(across)


def test_kid_follows_its_definition():
    draw = np.random.default_rng(0)
    real, made = draw.normal(size=(7, 5)), draw.normal(1, 2, size=(9, 5))
    assert kid(real, made) == pytest.approx(slow_kid(real, made), rel=1e-12)
    assert kid(real.astype(np.float32), made) == pytest.approx(slow_kid(real, made), rel=1e-5)


def test_kid_is_about_zero_for_one_distribution_and_grows_with_distance():
    draw = np.random.default_rng(1)
    real, same = draw.normal(size=(2, 400, 8))
    values = [kid(real, same + shift) for shift in (0.0, 0.5, 1.0)]
    assert abs(values[0]) < 0.02 < values[1] < values[2]


@pytest.mark.parametrize("measure", [lambda one: kid(one, np.zeros((4, 3))), diversity])
def test_one_image_is_too_few(measure):
    with pytest.raises(ValueError, match="two"):
        measure(np.zeros((1, 3)))


def test_nearest():
    a, b = np.array([[0.0, 0], [3, 4]]), np.array([[0.0, 1], [3, 4], [9, 9]])
    assert nearest(a, b) == pytest.approx([1, 0])
    assert nearest(b) == pytest.approx([np.sqrt(18), np.sqrt(18), np.sqrt(61)])


def test_kid_is_torchmetrics_on_one_whole_subset():
    from torchmetrics.image.kid import KernelInceptionDistance

    draw = np.random.default_rng(2)
    real, made = draw.normal(size=(30, 8)), draw.normal(0.3, 1.2, size=(30, 8))
    measure = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=1, subset_size=30).set_dtype(torch.float64)
    for features, is_real in ((real, True), (made, False)):
        measure.update(torch.from_numpy(features), real=is_real)
    assert kid(real, made) == pytest.approx(float(measure.compute()[0]), rel=1e-6)


def test_fid_agrees_with_scipy():
    draw = np.random.default_rng(3)
    mix = draw.normal(size=(12, 12))
    real, made = draw.normal(size=(300, 12)) @ mix, draw.normal(0.5, 1.3, size=(250, 12)) @ mix
    covariances = np.cov(real.T), np.cov(made.T)
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    apart = ((real.mean(0) - made.mean(0)) ** 2).sum()
    expected = apart + np.trace(covariances[0] + covariances[1] - 2 * root.real)
    assert fid(real.astype(np.float32), made.astype(np.float32)) == pytest.approx(expected, rel=1e-3)


def test_fid_is_undefined_with_too_few_images():
    draw = np.random.default_rng(4)
    assert fid(draw.normal(size=(12, 12)), draw.normal(size=(50, 12))) is None
    assert fid(draw.normal(size=(50, 12)), draw.normal(size=(12, 12))) is None


def test_the_kid_interval_covers_the_value_of_large_samples():
    """The coverage over many small samples is about the nominal one, and the interval is reproducible."""
    draw = np.random.default_rng(5)
    truth = kid(draw.normal(size=(2000, 4)), draw.normal(0.6, 1, size=(2000, 4)))
    inside = 0
    for number in range(40):
        real, made = draw.normal(size=(40, 4)), draw.normal(0.6, 1, size=(30, 4))
        low, high = kid_interval(real, made, np.random.default_rng(number))
        assert low < kid(real, made) < high
        inside += low <= truth <= high
    assert (low, high) == kid_interval(real, made, np.random.default_rng(39))
    assert inside >= 33


def test_the_interval_is_not_biased_by_repeated_draws():
    """A bootstrap that compares an image with its copy would be biased upwards: images of a set would look alike."""
    draw = np.random.default_rng(6)
    real, same = draw.normal(size=(2, 25, 6))
    low, high = kid_interval(real, same, draw)
    assert abs((low + high) / 2 - kid(real, same)) < 0.35 * (high - low)


def test_diversity_is_the_mean_distance():
    assert diversity(np.array([[0.0, 0], [3, 4], [0, 0]])) == pytest.approx((5 + 0 + 5) / 3)


def test_memorisation_separates_copies_from_new_images():
    draw = np.random.default_rng(7)
    shots, unseen, new = draw.normal(size=(5, 6)), draw.normal(size=(60, 6)), draw.normal(size=(60, 6))
    assert memorisation(np.repeat(shots, 4, 0), shots, unseen) == pytest.approx(0, abs=1e-6)
    assert memorisation(np.repeat(shots, 4, 0) + 0.01, shots, unseen) < 0.1
    assert memorisation(new, shots, unseen) == pytest.approx(1, abs=0.25)


def test_images_are_told_from_normal_ones_by_what_differs_and_not_by_their_item():
    draw = np.random.default_rng(8)
    normal, same = draw.normal(size=(2, 60, 12))
    items = [f"item {number}" for number in range(120)]
    assert told_apart(normal, same, items) == pytest.approx(0.5, abs=0.15)
    assert told_apart(normal, same + 1.0, items) > 0.95
    # Three images of each item: by their items alone the copies of generated images would be recognised.
    few, others = draw.normal(size=(2, 20, 12)).repeat(3, axis=1).reshape(2, 60, 12)
    shared = [f"{side} {number // 3}" for side in "ab" for number in range(60)]
    assert abs(told_apart(few, others, shared) - 0.5) < 0.25
    assert told_apart(few, others, ["a"] * 60 + shared[60:]) is None


# The extractor


def test_features_depend_on_the_image_alone(one_thread):
    draw = np.random.default_rng(8)
    images = [draw.integers(0, 255, (40 + i, 20, 3), dtype=np.uint8) for i in range(3)]
    extractor = Extractor("micro_resnet", "cpu")
    size = extractor.size(aspect_of(images))
    assert size == (184, 88)  # about 128 x 128 pixels at their aspect, in steps of 8
    found = extractor(images, size)
    assert found.shape == (3, 160) and found.dtype == np.float32
    assert np.allclose(extractor(images[1:2], size), found[1:2], atol=1e-4)


def test_features_of_max_pooling_layers_are_the_means_of_their_maps(monkeypatch, one_thread):
    """Inception, randomly initialised: its first layers by hand; the last features are those without layers."""
    import timm

    model = timm.create_model("inception_v3", pretrained=False, num_classes=0)
    monkeypatch.setattr("augbench.features.extractor.pretrained", lambda *_: model)
    extractor = Extractor("inception_v3", "cpu")
    images = [np.random.default_rng(i).integers(0, 255, (80, 80, 3), dtype=np.uint8) for i in range(2)]
    features, layers = extractor.with_layers(images, (80, 80), (64, 192))
    assert features.shape == (2, 2048) and {n: part.shape for n, part in layers.items()} == {64: (2, 64), 192: (2, 192)}
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        first = model.Pool1(model.Conv2d_2b_3x3(model.Conv2d_2a_3x3(model.Conv2d_1a_3x3(
            (batch - extractor.mean) / extractor.std))))  # fmt: skip
        second = model.Pool2(model.Conv2d_4a_3x3(model.Conv2d_3b_1x1(first)))
    assert layers[64] == pytest.approx(first.mean((2, 3)).numpy(), rel=1e-5)
    assert layers[192] == pytest.approx(second.mean((2, 3)).numpy(), rel=1e-5)
    assert np.array_equal(extractor(images, (80, 80)), features)


def test_layers_are_measured_by_inception_alone_and_are_in_keys_where_there_are_any():
    with pytest.raises(UserError, match=r"fidelity.layers are of Inception.*set it to inception_v3.tf_in1k"):
        make_plan(tiny_grid(fidelity={"extractor": "micro_resnet", "layers": [64]}))
    with pytest.raises(UserError, match="layers"):
        tiny_grid(fidelity={"layers": [2048]})
    plain, layered = (
        make_plan(tiny_grid(fidelity={"extractor": "inception_v3", "layers": layers})) for layers in ([], [64, 192])
    )
    ((one,), (other,)) = (plan.fidelity.values() for plan in (plain, layered))
    assert one.key != other.key and "layers" not in one.as_dict() and other.as_dict()["layers"] == [64, 192]
    assert spec_of("fidelity", other.as_dict()).key == other.key


def test_fid_of_few_images_is_computed_where_it_is_asked_for():
    """As the formula has it: equal covariances of rank 1, means 3 apart."""
    rows = np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    apart = rows + np.array([0, 3, 0, 0])
    assert fid(rows, apart) is None
    assert fid(rows, apart, singular=True) == pytest.approx(9, abs=1e-6)


def test_an_extractor_that_is_unavailable_is_named():
    for name, problem in (("resnet5", "unknown to timm"), ("resnet18", "no weights of the feature")):
        with pytest.raises(UserError, match=problem):
            Extractor(name, "cpu")


def test_auto_selects_inception_where_it_is_cached(monkeypatch):
    assert names.resolve("auto") == names.EMBEDDED
    assert names.resolve("resnet18") == "resnet18"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "/somewhere/model.safetensors")
    assert names.resolve("auto") == names.INCEPTION


# The stage


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("measured"))
    grid = tiny_grid(augmenters=["none", "memseg", "toy"], shots=[5], n_aug=[6, 8], fidelity=ON)
    assert not run(grid, store, executor="inline").failures
    return grid, store


def test_every_pool_is_measured_at_equal_counts(measured):
    grid, store = measured
    plan = make_plan(grid, store)
    records = {spec.pool.augmenter.name: store.read_json("fidelity", spec.key) for spec in plan.fidelity.values()}
    assert records.keys() == {"memseg", "toy"}
    for record in records.values():
        result = record["result"]
        assert (result["made"], result["real"], result["extractor"]) == (8, 8, "micro_resnet")
        low, high = result["kid_interval"]
        assert low <= result["kid"] <= high and result["fid"] is None
        assert result["diversity"] > 0 and record["provenance"]["seconds_per_picture"] > 0
        assert 0 <= result["auroc_of_normal"] <= 1
    assert records["memseg"]["result"]["memorisation"] is None  # it reads no shots
    assert records["toy"]["result"]["memorisation"] > 0
    assert subtract(plan, store).nothing


def test_reference_images_are_those_of_the_test_split(measured, monkeypatch):
    """Training positives would favour augmenters adapted to them, and held-out images are for thresholds."""
    grid, store = measured
    plan, asked = make_plan(grid, store), []
    context = WorkerSetup.of(plan, store).context(gpu=0)
    kind = type(context.library.dataset("surfaces"))
    read = kind.read_image
    monkeypatch.setattr(kind, "read_image", lambda self, row: asked.append(row) or read(self, row))
    spec = next(spec for spec in plan.fidelity.values() if spec.pool.augmenter.name == "toy")
    stage.measure(context, spec)
    split = context.library.split(spec.pool.data)
    test, shots = set(split.test["id"]), set(context.library.shots(spec.pool.data, 5, 0)["id"])
    normal = [row["id"] for row in asked if row["label"] == "good"]  # as many as images, to be told from
    assert len(normal) == 8 and set(normal) <= test
    assert {row["id"] for row in asked if row["id"] in test} - set(normal) == set(
        split.test.query("label != 'good'")["id"]
    )
    assert {row["id"] for row in asked} - test == shots


def test_existing_records_are_not_measured_again(measured):
    grid, store = measured
    plan = make_plan(grid, store)
    spec = next(iter(plan.fidelity.values()))
    path = path_of(store, "fidelity", spec.key)
    before = path.read_bytes()
    path.unlink()
    remaining = subtract(plan, store)
    assert remaining.fidelity == [spec] and not remaining.chunks and not remaining.cells
    assert run(grid, store, executor="inline").trained == 0
    assert json.loads(path.read_bytes())["result"] == json.loads(before)["result"]


def test_measures_are_computed_by_one_thread(measured, monkeypatch):
    """The number of threads changes the last digits."""
    grid, store = measured
    plan, threads = make_plan(grid, store), []
    compare = stage.compare

    def counted(*arguments):
        threads.extend(pool["num_threads"] for pool in threadpool_info())
        return compare(*arguments)

    monkeypatch.setattr(stage, "compare", counted)
    with threadpool_limits(2):
        stage.measure(WorkerSetup.of(plan, store).context(gpu=0), next(iter(plan.fidelity.values())))
    assert threads and set(threads) == {1}


def test_deleted_pools_are_not_made_again(measured, tmp_path):
    grid, store = measured
    shutil.copytree(store.files.folder, tmp_path / "small", ignore=shutil.ignore_patterns("pools", "fidelity"))
    assert subtract(make_plan(grid), Store(tmp_path / "small")).nothing


def test_a_pool_that_cannot_be_measured_stops_no_cell(measured, tmp_path, monkeypatch):
    grid, _ = measured
    monkeypatch.setattr(stage, "compare", lambda *_: 1 / 0)
    store = Store(tmp_path / "store")
    summary = run(grid, store, executor="inline")
    assert summary.done == summary.cells and len(summary.failures) == 2
    assert all(line.startswith("ZeroDivisionError") for line in summary.failures.values())


def test_fidelity_is_no_part_of_keys_and_can_be_left_out():
    with_it, without = (make_plan(tiny_grid(fidelity=setting)) for setting in (ON, None))
    assert [cell.key for cell in with_it.cells] == [cell.key for cell in without.cells]
    assert with_it.fidelity and not without.fidelity
    changed = make_plan(tiny_grid(fidelity=ON | {"pictures": 3})).fidelity
    keys = [{spec.key for spec in plan.values()} for plan in (with_it.fidelity, changed)]
    assert not keys[0] & keys[1] and {spec.pictures for spec in changed.values()} == {3}


def test_one_real_defect_is_too_few_and_no_failure(store):
    few = {"name": "surfaces", "settings": SMALL_SURFACES | {"test_defective": 1}}
    grid = tiny_grid(datasets=[few], augmenters=["memseg"], shots=[0], fidelity=ON)
    assert not make_plan(grid).fidelity
    summary = run(grid, store, executor="inline")
    assert not summary.failures and summary.done == 1


def test_recognition_has_kid_per_class():
    draw = np.random.default_rng(9)
    real, made = draw.normal(size=(9, 4)), draw.normal(size=(8, 4))
    labels = np.array(list("aaaabbbbc"))
    found = stage.kid_by_class(real, labels, made, np.array(list("aabbccdd")))
    assert found.keys() == {"a", "b"}
    assert found["a"] == pytest.approx(kid(real[:4], made[:2]))
