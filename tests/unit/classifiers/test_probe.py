"""Probes: scikit-learn on features, with weights that keep the penalty, and choices on real images alone."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from augbench.classifiers import probe
from augbench.classifiers.probe import (
    FIXED_C,
    ProbeRows,
    fit_cross_fitted,
    fit_gaussian,
    fit_neighbours,
    fit_probe,
)
from augbench.core.errors import UserError
from augbench.core.protocol import make_protocol

DIMENSIONS = 12


def protocol(**fields):
    return make_protocol({"name": "p", "width": 32, "height": 32, "kind": "probe", **fields})


def rows(normal=60, defects=5, synthetic=0, shift=1.0, synthetic_shift=1.0, seed=0, per_group=1):
    """Gaussian features; defects are shifted along the first axis, synthetic images along the second too."""
    rng = np.random.default_rng(seed)
    count = normal + defects + synthetic
    features = rng.normal(size=(count, DIMENSIONS)).astype(np.float32)
    defective, made = np.arange(count) >= normal, np.arange(count) >= normal + defects
    features[defective, 0] += shift
    features[made, 1] += synthetic_shift
    groups = np.array([f"item{number // per_group}" for number in range(count)])
    groups[made] = ""
    return ProbeRows(features, defective.astype(np.int64), defective, groups, made)


def test_without_synthetic_images_it_is_scikit_learns_balanced_logistic_regression():
    data = rows()
    fitted, chosen = fit_probe(data, 1, protocol(), 0)
    inputs = StandardScaler().fit_transform(data.features)
    theirs = LogisticRegression(C=FIXED_C, max_iter=1000, class_weight="balanced").fit(inputs, data.labels)
    assert chosen == {"C": FIXED_C, "synthetic_weight": None}
    assert fitted(data.features)[:, 0] == pytest.approx(theirs.decision_function(inputs), abs=1e-4)


def test_the_scaler_sees_real_images_alone():
    data = rows(synthetic=80, synthetic_shift=50.0)
    fitted, _ = fit_probe(data, 1, protocol(), 0)
    assert fitted.scaler.mean_ == pytest.approx(data.features[:65].mean(0), abs=1e-5)


@pytest.mark.parametrize("weight", [1.0, 0.03, "equal_mass"])
def test_copies_of_synthetic_images_at_the_same_mass_change_nothing(weight):
    """Neither N_aug nor the weight changes the penalty: 40 images twice weigh as 40 of double weight."""
    once = rows(synthetic=40)
    twice = ProbeRows(*(np.concatenate([values, values[once.synthetic]]) for values in vars(once).values()))
    half = weight if weight == "equal_mass" else weight / 2
    a, b = (
        fit_probe(data, 1, protocol(synthetic_weight=w), 0)[0](once.features)
        for data, w in ((once, weight), (twice, half))
    )
    assert a == pytest.approx(b, abs=1e-4)


def test_sample_weights_are_balanced_and_add_up_to_the_number_of_real_images():
    data = rows(synthetic=80)
    for weight in (0.0, 0.03, 1.0):
        weights = probe._sample_weights(data, weight)
        assert weights.sum() == pytest.approx(65) and weights[data.defects].sum() == pytest.approx(32.5)
        assert weights[70] == pytest.approx(weight * weights[60])


def test_useless_synthetic_images_get_no_weight_and_good_ones_some():
    useless = rows(defects=15, synthetic=200, shift=3.0)
    useless.features[useless.synthetic] = np.random.default_rng(1).normal(size=(200, DIMENSIONS))  # normal images
    good = rows(defects=15, synthetic=200, shift=1.0, synthetic_shift=0.0)
    chosen = [fit_probe(data, 1, protocol(synthetic_weight="cv"), 0)[1]["synthetic_weight"] for data in (useless, good)]
    assert chosen[0] == 0.0 and chosen[1] > 0


def test_a_choice_never_sees_a_held_out_item_through_its_synthetic_copy(monkeypatch):
    """Copies of each real defect as its synthetic images: a fold that saw them would find the weight 1 best."""
    data = rows(defects=10, synthetic=10)
    data.features[data.synthetic] = data.features[60:70]
    data.groups[data.synthetic] = data.groups[60:70]
    seen = []
    original = probe._fit_head

    def spied(inputs, kept, *rest):
        seen.append(set(kept.groups[kept.synthetic]) - set(kept.groups[~kept.synthetic]))
        return original(inputs, kept, *rest)

    monkeypatch.setattr(probe, "_fit_head", spied)
    fit_probe(data, 1, protocol(synthetic_weight="cv"), 0)
    assert len(seen) == 1 + probe.FOLDS * len(probe.WEIGHTS) and not any(seen)


def test_c_is_fixed_with_few_items_and_chosen_with_many():
    few, one_item, many = rows(defects=19), rows(defects=60, per_group=30), rows(defects=20)
    assert [fit_probe(data, 1, protocol(), 0)[1]["C"] for data in (few, one_item)] == [FIXED_C, FIXED_C]
    assert fit_probe(many, 1, protocol(), 0)[1]["C"] in probe.STRENGTHS
    assert fit_probe(many, 1, protocol(C=0.5), 0)[1]["C"] == 0.5


def test_with_one_defect_item_the_weight_is_that_of_equal_mass():
    data = rows(defects=1, synthetic=50)
    assert fit_probe(data, 1, protocol(synthetic_weight="cv"), 0)[1]["synthetic_weight"] == pytest.approx(1 / 50)


@pytest.mark.parametrize("head", ["logistic", "lda", "mlp"])
def test_every_head_separates_and_repeats(head):
    data, test = rows(shift=6.0, synthetic=10, synthetic_shift=0.0), rows(seed=9, shift=6.0)
    first, second = (fit_probe(data, 1, protocol(head=head), 0)[0](test.features) for _ in range(2))
    assert np.array_equal(first, second) and first.shape == (65, 1)
    assert first[test.defects].min() > first[~test.defects].max()


@pytest.mark.parametrize("head", ["logistic", "mlp"])
@pytest.mark.parametrize("classes", [2, 3])
def test_recognition_has_a_logit_per_class(head, classes):
    rng = np.random.default_rng(0)
    labels = np.arange(90) % classes
    features = rng.normal(size=(90, DIMENSIONS)).astype(np.float32)
    features[np.arange(90), labels] += 5
    groups = np.array([f"item{number}" for number in range(90)])
    data = ProbeRows(features, labels, np.ones(90, bool), groups, np.zeros(90, bool))
    logits = fit_probe(data, classes, protocol(head=head), 0)[0](features)
    assert logits.shape == (90, classes) and (logits.argmax(1) == labels).mean() > 0.9


def test_the_distance_to_normal_images_is_scikit_learns():
    features = rows(normal=200, defects=0).features
    fitted, test = fit_gaussian(features), rows(seed=3).features
    scaler = StandardScaler().fit(features)
    theirs = LedoitWolf(assume_centered=True).fit(scaler.transform(features)).mahalanobis(scaler.transform(test))
    assert fitted(test) ** 2 == pytest.approx(theirs, rel=1e-3) and 0 <= fitted.shrinkage <= 1


def test_constant_features_do_no_harm():
    data = rows(synthetic=10)
    data.features[:, 3:] = 7.0
    for fitted in (
        fit_gaussian(data.features[~data.defects]),
        fit_probe(data, 1, protocol(normality=True), 0, normals_of(data))[0],
    ):
        assert np.isfinite(fitted(data.features)).all()
    data.features[:] = 7.0
    assert np.ptp(fit_gaussian(data.features)(data.features)) == 0
    assert np.ptp(fit_probe(data, 1, protocol(), 0)[0](data.features)) == 0


def test_one_normal_image_has_no_distance():
    with pytest.raises(UserError, match="1 normal training images: the distance to them needs at least 2"):
        fit_gaussian(np.zeros((1, 4), np.float32))


def normals_of(data):
    return fit_cross_fitted(data.features[~data.defects], data.groups[~data.defects])


def test_normal_images_of_one_item_have_no_cross_fitted_distance():
    with pytest.raises(UserError, match="the normal training images show 1 item"):
        fit_cross_fitted(np.zeros((4, 2), np.float32), np.array(["a"] * 4))


def test_normality_is_cross_fitted_and_helps_where_few_defects_teach_little():
    data = rows(defects=2, shift=0.5, normal=200)
    data.features[data.defects] *= 4  # far from normal images, each in its own direction
    test = rows(seed=5, defects=40, shift=0.0)
    test.features[test.defects] *= 4
    normals = normals_of(data)
    plain = fit_probe(data, 1, protocol(), 0)[0](test.features)[:, 0]
    known = fit_probe(data, 1, protocol(normality=True), 0, normals)[0](test.features)[:, 0]
    assert _auroc(test.defects, known) > _auroc(test.defects, plain) + 0.2
    inside = normals.distances(data.features, data.groups)[~data.defects]
    outside = normals.whole(rows(seed=8, normal=200).features[:200])
    naive = normals.whole(data.features[~data.defects])
    assert naive.mean() < outside.mean() - 0.05 and abs(inside.mean() - outside.mean()) < 0.1


def _auroc(labels, scores):
    return (scores[labels][:, None] > scores[~labels]).mean()


def test_parameters_give_the_logits_again():
    data = rows(synthetic=10)
    fitted, _ = fit_probe(data, 1, protocol(normality=True), 0, normals_of(data))
    saved = fitted.arrays()
    inputs = np.column_stack([data.features, fitted.normal(data.features)])
    again = ((inputs - saved["mean"]) / saved["scale"]) @ saved["coef"].T + saved["intercept"]
    assert fitted(data.features) == pytest.approx(again, abs=1e-5)
    assert {"normal_mean", "normal_scale", "normal_precision"} <= saved.keys()


@pytest.mark.parametrize("normal", [0, 1])
def test_shuffled_labels_that_leave_real_images_with_one_label_end_in_no_error(normal):
    """Few real images beside many synthetic ones: then a classifier without these cannot be fitted, nor chosen."""
    data = rows(normal=20, defects=5, synthetic=60)
    labels = np.concatenate([np.zeros(normal), np.ones(25 - normal), np.arange(60) % 3 > 0]).astype(np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scikit-learn: a label with fewer images than folds
        fitted, chosen = fit_probe(replace(data, labels=labels), 1, protocol(synthetic_weight="cv"), 0)
    assert chosen["synthetic_weight"] > 0 and np.isfinite(fitted(data.features)).all()


# -- the nearest normal image


def test_the_distance_to_the_nearest_normal_image_is_that_of_plain_arithmetic():
    normal, test = rows().features, rows(seed=3).features
    normal[:, 0] = 4.0  # a constant feature is not divided by 0
    fitted = fit_neighbours(normal)
    scale = normal.astype(float).std(0)
    scale[0] = 1
    apart = (test[:, None, :] - normal[None, :, :].astype(float)) / scale  # test,normal,D
    assert np.allclose(fitted(test), np.sqrt((apart**2).sum(2)).min(1), rtol=1e-6)
    assert np.allclose(fitted(normal), 0, atol=1e-5)
    assert set(fitted.arrays()) == {"scale", "normals"}


def test_the_nearest_normal_image_follows_clusters_that_one_gaussian_covers():
    rng = np.random.default_rng(0)
    centres = np.repeat([[-6.0, 0.0], [6.0, 0.0]], 60, 0)
    normal = (centres + rng.normal(size=(120, 2))).astype(np.float32)
    between = rng.normal(size=(40, 2)).astype(np.float32)  # in the gap
    near, gaussian = fit_neighbours(normal), fit_gaussian(normal)
    held = (centres + rng.normal(size=(120, 2))).astype(np.float32)
    assert np.median(near(between)) > 3 * np.median(near(held))
    assert np.median(gaussian(between)) < np.median(gaussian(held))


def test_the_nearest_normal_image_needs_one():
    with pytest.raises(UserError, match="no normal training images: the distance to the nearest one needs at least 1"):
        fit_neighbours(np.zeros((0, 4), np.float32))
