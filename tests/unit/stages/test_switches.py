"""Switches of a protocol that are controls: shuffled labels, equal steps and weights of labels, one JPEG, one VAE."""

import io
import shutil
from collections import Counter

import numpy as np
import pytest
from helpers import TINY, TINY_PROBE, tiny_grid, tiny_plan
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.core.protocol import READ_BY, make_protocol
from augbench.core.specs import FeatureSpec
from augbench.diffusion.pipelines import BUNDLES
from augbench.features.frozen import FrozenBackbone
from augbench.planning.gpu_memory import estimates
from augbench.runner.driver import run
from augbench.stages.cell_data import data_of, shuffled
from augbench.stages.context import Context
from augbench.stages.decoded_images import (
    DecodedImages,
    Geometry,
    as_jpeg,
    decode_all,
    decode_rows,
    geometry,
    prepared,
)
from augbench.stages.features import features_of
from augbench.stages.finetune import _loss_weights, gather
from augbench.stages.preflight import needs

SHUFFLED_ONLY = {"shuffle_labels": True}
SHUFFLED = {"name": "shuffled", **SHUFFLED_ONLY}
DEFAULTS = {"shuffle_labels": False, "budget": "epochs", "class_weights": "none", "harmonise": None, "roundtrip": ""}


def test_switches_that_are_off_are_in_no_key():
    for plain in (make_protocol({"name": "t", **TINY}), make_protocol(TINY_PROBE)):
        read = {field: value for field, value in DEFAULTS.items() if field in READ_BY[plain.kind]}
        assert plain.changed(**read).under_name(plain.name).digest == plain.digest
    probe = make_protocol(TINY_PROBE)
    data = tiny_plan().cells[0].data
    keys = [
        FeatureSpec(data, probe.changed(**change)).key for change in ({}, {"shuffle_labels": True}, {"harmonise": 90})
    ]
    assert keys[0] == keys[1] != keys[2], "features are shared whatever the labels, not whatever the images"
    assert (
        len({probe.digest, *(probe.under_name("probe", **c).digest for c in ({"harmonise": 90}, SHUFFLED_ONLY))}) == 3
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({**TINY_PROBE, "budget": "steps"}, "'budget' is not read by a protocol of kind 'probe'"),
        ({**TINY_PROBE, "class_weights": "equal"}, "'class_weights' is not read by a protocol of kind 'probe'"),
        ({**TINY_PROBE, "kind": "gaussian", **SHUFFLED_ONLY}, "'shuffle_labels' is not read by a protocol of kind"),
        ({**TINY_PROBE, "normality": True, **SHUFFLED_ONLY}, "would be undone by 'normality: true'"),
        ({"name": "t", **TINY, "labels": "masks", **SHUFFLED_ONLY}, "would be undone by 'labels: masks'"),
        ({"name": "t", **TINY, "budget": "steps", "epoch_pictures": 20}, "'epoch_pictures' fixes the steps already"),
        ({"name": "t", **TINY, "class_weights": "equal"}, "is for sampler: shuffle"),
        ({**TINY_PROBE, "harmonise": 101}, "'harmonise': input should be less than or equal to 100"),
    ],
)
def test_what_a_protocol_cannot_mean_is_refused(fields, words):
    with pytest.raises(UserError, match=words):
        make_protocol(fields)


# -- shuffle_labels


def test_labels_are_permuted_by_item():
    items = np.repeat(np.arange(40), 5)
    labels = np.repeat(np.random.default_rng(0).integers(0, 2, 40), 5)
    found = [shuffled(labels, items, np.random.default_rng(seed)) for seed in range(200)]
    assert all(sorted(one) == sorted(labels) for one in found)
    assert all(len(set(one[items == item])) == 1 for one in found for item in range(40)), "an item has one label"
    assert np.abs(np.mean(found, 0) - labels.mean()).max() < 0.15, "any item may get any label"
    images = shuffled(labels[::5], np.arange(40), np.random.default_rng(0))
    assert np.array_equal(np.repeat(images, 5), found[0])


@pytest.mark.parametrize("base", [{**TINY_PROBE}, TINY], ids=["probe", "finetune"])
def test_training_labels_follow_the_seed_and_nothing_else_changes(base):
    plan = tiny_plan(protocols=[{**base, **SHUFFLED}, {**base, "name": "plain"}], shots=[5], seeds=[0, 1])
    none = {c.seed: c for c in plan.cells if c.protocol.name == "shuffled" and c.augmenter.name == "none"}
    made = [c for c in plan.cells if c.protocol.name == "shuffled" and c.augmenter.name == "memseg"]
    assert none.keys() == {0, 1}, "a permutation is random, so a probe without synthetic images has seeds too"
    plain = data_of(plan.library, next(c for c in plan.cells if c.protocol.name == "plain"), ())
    first, second, again = (data_of(plan.library, none[seed], ()) for seed in (0, 1, 0))
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.labels, second.labels) and not np.array_equal(first.labels, plain.labels)
    assert first.labels.sum() == plain.labels.sum() == 5
    assert first.evaluated.equals(plain.evaluated) and first.train.equals(plain.train)
    mixed = data_of(plan.library, made[0], plan.needs[made[0].key])
    assert mixed.labels.sum() == 11 and not mixed.labels[-6:].all(), "synthetic images take part"


def test_shuffled_labels_give_ap_within_the_permutation_distribution(store):
    """Permutations drawn by NumPy and fitted by scikit-learn alone say what AP chance gives on these features."""
    surfaces = {"train_good": 48, "train_defective": 32, "test_good": 40, "test_defective": 20}
    grid = {"datasets": [{"name": "surfaces", "settings": surfaces}], "shots": ["all"], "seeds": list(range(20))}
    base = {**TINY_PROBE, "width": 64, "height": 176, "holdout": 0.0, "C": 0.01}
    protocols = [{**base, **SHUFFLED}, {**base, "name": "plain"}]
    run(tiny_grid(**grid, augmenters=["none"], protocols=protocols), store, executor="inline")
    records = list(store.read_records(sorted(store.keys("cells"))))
    found = {
        name: [r["result"]["ap"] for r in records if r["spec"]["protocol"]["name"] == name]
        for name in ("shuffled", "plain")
    }
    assert len(found["shuffled"]) == 20 and len(found["plain"]) == 1
    chance = permutations(tiny_plan(**grid, augmenters=["none"], protocols=[base]), 150)
    low, high = np.quantile(chance, [0.005, 0.995])
    assert 0.05 < chance.std() < 0.2 and 0.3 < chance.mean() < 0.45, "little above the base rate, with a wide spread"
    assert sum(low <= ap <= high for ap in found["shuffled"]) >= 19
    assert abs(np.mean(found["shuffled"]) - chance.mean()) < 4 * chance.std() / np.sqrt(20)
    assert found["plain"][0] > high, "true labels are far outside"


def permutations(plan, count):
    cell, generator = plan.cells[0], np.random.default_rng(0)
    dataset, table = plan.library.dataset("surfaces"), plan.library.samples("surfaces")
    features = FrozenBackbone(cell.protocol, "cpu")(decode_rows(dataset, table, geometry(cell.protocol)))
    data = data_of(plan.library, cell, ())
    train, test = features[data.train_rows], features[data.evaluated_rows]
    mean, std = train.mean(0), train.std(0) + 1e-12
    truth = (data.evaluated["label"] != GOOD).to_numpy()
    found = []
    for _ in range(count):
        model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
        model.fit((train - mean) / std, generator.permutation(data.labels))
        found.append(average_precision_score(truth, model.decision_function((test - mean) / std)))
    return np.array(found)


# -- budget and class_weights


@pytest.mark.parametrize("sampler", ["balanced", "shuffle"])
def test_a_budget_of_steps_is_that_of_the_real_images_alone(store, sampler):
    fields = {**TINY, "sampler": sampler, "epochs": 1}
    protocols = [{**fields, "name": name, "budget": name} for name in ("epochs", "steps")]
    grid = {"protocols": protocols, "shots": [0, 5], "n_aug": [6, 20]}
    plan = tiny_plan(**grid)
    assert (plan.dropped["protocol steps at zero-shot: no real defects that budget: steps could count"] > 0) == (
        sampler == "balanced"
    )
    assert not run(tiny_grid(**grid), store, executor="inline").failures
    steps = {name: {} for name in ("epochs", "steps")}
    for record in store.read_records(sorted(store.keys("cells"))):
        spec = record["spec"]
        if spec["shots"] == 5:
            steps[spec["protocol"]["name"]][spec["n_aug"]] = record["result"]["steps"]
    assert len(set(steps["epochs"].values())) == 3, "without it, more images mean more steps"
    assert set(steps["steps"].values()) == {steps["epochs"][0]}


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_class_weights_make_labels_count_equally_whatever_n_aug(weight):
    fields = {**TINY, "name": "t", "sampler": "shuffle", "class_weights": "equal", "synthetic_weight": weight}
    plan = tiny_plan(protocols=[fields], shots=[5], n_aug=[6, 40])
    for cell in plan.cells:
        data = data_of(plan.library, cell, plan.needs[cell.key])
        weights = _loss_weights(cell, data)
        totals = np.bincount(data.labels, weights)
        assert totals == pytest.approx([len(data.labels) / 2] * 2)
        if cell.n_aug:
            assert weights[-1] / weights[data.labels == 1][0] == pytest.approx(weight)


# -- harmonise


def stored(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def test_a_png_and_its_jpeg_have_the_same_features_once_harmonised():
    plan = tiny_plan()
    dataset, rows = plan.library.dataset("surfaces"), plan.library.samples("surfaces").to_dict("records")[:12]
    as_png = [dataset.read_image(row) for row in rows]
    as_file = [stored(image, 80) for image in as_png]
    raw = make_protocol(TINY_PROBE)
    network = FrozenBackbone(raw, "cpu")

    def features(images, protocol):
        return network(np.stack([prepared(image, geometry(protocol)) for image in images]))

    scale = features(as_png, raw).std(0) + 1e-6
    apart = {
        name: np.sqrt(np.mean(((features(as_png, protocol) - features(as_file, protocol)) / scale) ** 2))
        for name, protocol in (("raw", raw), ("harmonised", raw.changed(harmonise=80)))
    }
    assert apart["harmonised"] < 0.05 < 0.2 < apart["raw"]


def test_harmonised_images_keep_their_size_and_grey_stays_grey():
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (37, 23, 1), np.uint8), 3, axis=2)
    made = as_jpeg(grey, 50)
    assert made.shape == grey.shape and made.dtype == np.uint8 and not np.array_equal(made, grey)
    assert (made == made[..., :1]).all()
    assert prepared(grey, Geometry(10, 12, "none", (), 50)).shape == (12, 10, 3)
    assert np.array_equal(prepared(grey, Geometry(23, 37, "none")), grey)


# -- roundtrip


def test_a_round_trip_is_in_keys_by_the_content_of_its_pipeline(tmp_path):
    named = make_protocol({**TINY_PROBE, "roundtrip": "micro-sd"})
    copy = tmp_path / "copy"
    shutil.copytree(BUNDLES["micro-sd"].location, copy)
    by_path = named.under_name("probe", roundtrip=str(copy))
    assert by_path.digest == named.digest != make_protocol(TINY_PROBE).digest
    assert set(named.key_fields["roundtrip"]) == {"files"}
    config = copy / "vae" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert named.under_name("probe", roundtrip=f"{copy}/").digest != named.digest
    hub = named.under_name("probe", roundtrip="sd15")
    assert hub.key_fields["roundtrip"] == "sd15", "pinned by its revision"
    with pytest.raises(UserError, match="model 'micro-ds' does not exist"):
        _ = named.under_name("probe", roundtrip="micro-ds").digest


def test_only_real_images_have_other_features_behind_a_round_trip():
    through = {
        "vae": TINY_PROBE,
        "normals": {**TINY_PROBE, "kind": "gaussian"},
        "tuned": TINY,
        "longer": {**TINY, "epochs": 3},
    }
    protocols = [{**fields, "name": name, "roundtrip": "micro-sd"} for name, fields in through.items()]
    plan = tiny_plan(protocols=[{**TINY_PROBE, "name": "raw"}, *protocols])
    kinds = Counter((spec.pool is None, spec.pixels) for spec in plan.features.values())
    assert kinds == {(True, False): 2, (False, False): 1, (True, True): 1}, "pools are shared with the raw protocol"
    assert estimates(plan)["features"].keys() == {"micro_resnet", "vae_roundtrip"}
    assert [name for name, _ in needs(plan) if "roundtrip" in name] == [f"roundtrip of {name}" for name in through]
    assert {alias for alias, _ in decode_all(plan)} == set(), "no fine-tuning of raw images"


def told_apart(normal, null, sources):
    """The mean AUROC of a linear classifier that is fitted on half of the images, and evaluated on the other half."""
    features, labels = np.concatenate([normal, null]), np.repeat([0, 1], [len(normal), len(null)])
    items = [*map(str, range(len(normal))), *sources]  # a source may have several nulls
    found = []
    for fitted, left in GroupShuffleSplit(20, test_size=0.5, random_state=0).split(features, labels, items):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000))
        scores = model.fit(features[fitted], labels[fitted]).decision_function(features[left])
        found.append(roc_auc_score(labels[left], scores))
    return np.mean(found)


def test_behind_the_same_vae_a_null_is_no_longer_told_from_normal_images(store):
    """The null is normal images that passed the VAE: what tells it from raw ones are the traces of the decoder."""
    surfaces = {"train_good": 40, "train_defective": 8, "test_good": 40, "test_defective": 8}
    size = {"width": 64, "height": 176, "holdout": 0.0}
    probe = {**TINY_PROBE, **size, "backbone": "tf_efficientnet_lite0", "weights": "package", "C": 0.1}
    tuned = {**TINY, **size, "epochs": 1}
    protocols = [{**probe, "name": "raw"}]
    protocols += [{**one, "name": n, "roundtrip": "micro-sd"} for n, one in (("vae", probe), ("tuned", tuned))]
    protocols += [{**probe, "C": "cv", "name": "normals", "kind": "gaussian", "roundtrip": "micro-sd"}]
    grid = {
        "datasets": [{"name": "surfaces", "settings": surfaces}],
        "augmenters": ["none", {"name": "vae_roundtrip", "settings": {"bundle": "micro-sd"}}],
        "protocols": protocols,
        "shots": [0],
        "n_aug": [40],
    }
    summary = run(tiny_grid(**grid), store, executor="inline")
    assert not summary.failures and summary.done == 4
    plan = tiny_plan(store, **grid)
    cells = {cell.protocol.name: cell for cell in plan.cells}
    context = Context(store, plan.library)
    row_of, split = plan.library.row_of("surfaces"), plan.library.split(cells["raw"].data)
    normal = split.test[split.test["label"] == GOOD]
    found = {}
    for name in ("raw", "vae"):
        of_real, of_null = (features_of(context, one.features, one.chunks) for one in plan.reads[cells[name].key])
        found[name] = told_apart(of_real.values[row_of[normal["id"]]], of_null.values, of_null.sources)
    assert 0.3 < found["vae"] < 0.7 and found["raw"] > 0.95

    (pool_slice,) = plan.needs[cells["tuned"].key]
    images, data = DecodedImages(store, {}), data_of(plan.library, cells["tuned"], [pool_slice])
    real, null = (part.numpy() for part in gather(context, images, cells["tuned"], [pool_slice], data)[0].parts)
    dataset, table = plan.library.dataset("surfaces"), plan.library.samples("surfaces")
    raw = decode_rows(dataset, table, geometry(cells["raw"].protocol))
    sources = row_of[of_null.sources].to_numpy()
    assert np.abs(real[sources].astype(int) - null).max() <= 1, "the source, behind the VAE, is the null"
    assert np.array_equal(null, images.pool(pool_slice, geometry(cells["tuned"].protocol))), "which passed it once"
    assert (np.abs(real.astype(int) - raw).mean((1, 2, 3)) > 0.5).all(), "defects and test images pass it, too"
    assert store.read_json("cells", cells["tuned"].key)["provenance"]["embedded"].count("roundtrip micro-sd") == 1
