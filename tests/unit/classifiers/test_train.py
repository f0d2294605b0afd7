"""The classifier: sampler, batches, determinism, weights; and the golden cell."""

import json
import shutil
from pathlib import Path

import layouts
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TINY, on_disk, path_of, tiny_grid
from safetensors.torch import save_file

from augbench.classifiers import fit as fit_module
from augbench.classifiers.backbone import build
from augbench.classifiers.loader import DeviceImages, batches, make_sampler
from augbench.core.errors import UserError
from augbench.core.protocol import make_protocol
from augbench.metrics.evaluate import evaluate, headline_score
from augbench.runner.driver import run
from augbench.stages.decoded_images import fit_to_protocol

GOLDEN = Path(__file__).parent / "golden_cell.json"


def protocol(**changes):
    return make_protocol({"name": "tiny", **TINY, **changes})


def sampler_of(labels, good=True, **changes):
    return make_sampler(protocol(**changes), np.asarray(labels), np.random.default_rng(0), good)


@pytest.mark.parametrize(("positives", "negatives"), [(4, 10), (3, 7), (5, 5), (6, 20), (1, 3)])
def test_balanced_sampler_draws_positives_once_and_cycles_through_negatives(positives, negatives):
    labels = np.array([1] * positives + [0] * negatives)
    sampler = sampler_of(labels)
    seen = np.zeros(len(labels), int)
    orders = set()
    for number in range(1, 2 * negatives + 1):  # twice as many epochs as negatives: all cycles are complete
        epoch = sampler.epoch()
        assert sorted(epoch[labels[epoch] == 1]) == list(range(positives))
        assert (labels[epoch] == 0).sum() == positives and len(set(epoch)) == 2 * positives
        np.add.at(seen, epoch, 1)
        assert np.ptp(seen[positives:]) <= 1  # no negative repeats before all were drawn
        assert seen[positives:].sum() == number * positives
        orders.add(tuple(epoch))
    assert (seen == 2 * negatives * np.where(labels, 1, positives / negatives)).all()
    assert len(orders) > 1


@pytest.mark.parametrize(
    ("counts", "good", "samples", "each"),
    [
        ([9, 4, 6, 2], False, None, 9),  # label 0 is a class like the others; it must not fill half of an epoch
        ([9, 4, 6, 2], False, 21, 5),
        ([3, 7], True, None, 7),  # fewer negatives than positives: they repeat
        ([30, 2], True, 24, 12),
        ([30, 40], True, 24, 12),
    ],
)
def test_epochs_are_balanced_equally_long_and_fair(counts, good, samples, each):
    labels = np.repeat(range(len(counts)), counts)
    sampler = sampler_of(labels, good, sampler="balanced", epoch_pictures=samples)
    seen = np.zeros(len(labels), int)
    for _ in range(10):
        epoch = sampler.epoch()
        assert np.bincount(labels[epoch]).tolist() == [each] * len(counts)
        np.add.at(seen, epoch, 1)
    assert all(np.ptp(seen[labels == label]) <= 1 for label in range(len(counts)))


def test_shuffle_sampler_draws_all_once():
    assert sorted(sampler_of(np.zeros(9), sampler="shuffle").epoch()) == list(range(9))


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (1, 4, [1]), (8, 4, [4, 4])]
)
def test_no_last_batch_of_one(count, size, lengths):
    made = list(batches(np.arange(count), size))
    assert [len(b) for b in made] == lengths
    assert np.array_equal(np.concatenate(made), np.arange(count))


def test_device_images_are_normalised_and_channels_last():
    first, second = (np.random.default_rng(i).integers(0, 256, (3, 5, 4, 3), np.uint8) for i in (0, 1))
    p = protocol()
    parts = [torch.from_numpy(first), torch.from_numpy(second)]
    data = DeviceImages(parts, np.array([4, 0, 5, 2]), p, torch.device("cpu"))
    batch = data.batch(np.array([0, 3, 2]))
    assert batch.shape == (3, 3, 5, 4) and batch.is_contiguous(memory_format=torch.channels_last)
    for got, expected in zip(batch, (second[1], first[2], second[2]), strict=True):
        wanted = (expected / 255 - np.array(p.mean)) / np.array(p.std)
        assert np.allclose(got.permute(1, 2, 0).numpy(), wanted, atol=1e-5)


def test_centre_crop_keeps_the_aspect_and_none_stretches():
    image = np.zeros((100, 60, 3), np.uint8)
    image[40:60, 20:40] = 255  # a square in the middle
    cropped, squeezed = (fit_to_protocol(image, (50, 50, crop, ()))[..., 0] > 127 for crop in ("centre", "none"))
    for mask, square in ((cropped, True), (squeezed, False)):
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert (abs(int(rows) - int(columns)) <= 1) is square


def test_unknown_and_unavailable_weights_are_named(tmp_path):
    with pytest.raises(UserError, match="did you mean 'resnet50'"):
        build(protocol(backbone="resnet5O"), 1, 0)
    with pytest.raises(UserError, match=r"no pretrained weights of 'resnet18' at hand.*scratch"):
        build(protocol(backbone="resnet18", weights="timm"), 1, 0)
    with pytest.raises(UserError, match="is not a file"):
        _ = protocol(weights="nowhere.safetensors").digest
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        build(protocol(weights=str(tmp_path / "x.safetensors")), 1, 0)


def test_local_weights_are_loaded_except_the_head(tmp_path):
    donor = build(protocol(), 7, 1)
    path = str(tmp_path / "donor.safetensors")
    save_file(donor.state_dict(), path)
    model = build(protocol(weights=path), 1, 2)
    given, got = donor.state_dict(), model.state_dict()
    same = {name for name in got if got[name].shape == given[name].shape and torch.equal(got[name], given[name])}
    assert {name for name in got if name not in same} == {n for n in got if got[n].shape != given[n].shape}
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="do not fit"):
        build(protocol(weights=path), 1, 2)


def test_key_follows_the_weights_content(tmp_path):
    digests = {}
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        digests[name] = protocol(weights=str(path)).digest
    assert digests["a"] == digests["c"] != digests["b"]


def test_golden_cell(store):
    """Same seed, same numbers. The tolerance allows for other processors and detects changes of the method."""
    run(tiny_grid(augmenters=["memseg"], shots=[5]), store, executor="inline")
    (key,) = store.keys("cells")
    result = store.read_record(key)["result"]
    golden = json.loads(GOLDEN.read_text())
    assert result["counts"] == golden["counts"]
    assert result["curves"]["loss"] == pytest.approx(golden["loss"], abs=2e-3)
    assert result["auroc"] == pytest.approx(golden["auroc"], abs=0.05)


def test_result_follows_from_the_scores(store):
    """Published results can be recomputed from the scores alone."""
    grid = tiny_grid(shots=[5], augmenters=["none"])
    run(grid, store, executor="inline")
    (key,) = store.keys("cells")
    result = store.read_record(key)["result"]
    scores = pd.read_parquet(path_of(store, "scores", key))
    assert scores["logit"].dtype == np.float32
    again = evaluate(scores, grid.protocols[0])
    assert {name: result[name] for name in again} == again
    assert result["ap"] == result["ap_step"] and result["heldout"]["false_alarm_rate"] <= 1
    assert result["curves"]["test"][-1]["ap"] == result["ap"]
    assert result["best_epoch_oracle"]["ap"] >= result["ap"]


@pytest.mark.parametrize("normal", [True, False])
def test_recognition_runs_also_among_defects_alone(store, tmp_path, normal):
    settings = {**layouts.draw_folder(tmp_path), "task": "recognition"}
    if not normal:
        shutil.rmtree(tmp_path / "good")
    grid = tiny_grid(**on_disk("folder", settings), augmenters=["none", "memseg"], shots=[2 if normal else "all"])
    run(grid, store, executor="inline")
    (key,) = store.keys("cells")  # memseg does not do recognition
    result = store.read_record(key)["result"]
    classes = ["good"] * normal + ["scratch", "stain"]
    assert result["classes"] == classes
    assert np.array(result["confusion"]).shape == (len(classes), len(classes))
    assert np.mean([c["f1"] for c in result["per_class"].values()]) == pytest.approx(result["macro_f1"])
    supports = {name: c["support"] for name, c in result["per_class"].items()}
    assert supports == dict(zip(classes, np.sum(result["confusion"], axis=1).tolist(), strict=True))


def scored(label, logits, part="test"):
    return pd.DataFrame({"part": part, "label": label, "logit": np.asarray(logits, np.float32)})


def test_metrics_per_defect_class():
    """Computed by hand: scratches score above all normal images, stains among them, dents below."""
    logits = {"good": [0.0, 1.0, 2.0, 3.0], "scratch": [5.0, 4.0], "stain": [2.5], "dent": [-1.0]}
    test, heldout = (scored(*one) for one in logits.items()), scored("good", [0.0, 3.5], part="heldout")
    scores = pd.concat([*test, heldout])
    result = evaluate(scores, protocol())
    # At the best F1 the threshold is 2.5: true positives are both scratches and the stain, one false positive (6/8).
    assert result["oracle"]["threshold"] == 2.5 and result["oracle"]["f1"] == 0.75
    assert result["per_class"] == {
        "dent": {"support": 1, "ap": 1 / 5, "recall": 0.0, "heldout_recall": 0.0},
        "scratch": {"support": 2, "ap": 1.0, "recall": 1.0, "heldout_recall": 1.0},
        "stain": {"support": 1, "ap": 1 / 2, "recall": 1.0, "heldout_recall": 0.0},
    }
    assert result["recall_at_1pct_false_alarms"] == 2 / 4  # of four normal images none may be a false positive
    without = evaluate(scores[scores["part"] == "test"], protocol(ap="trapezoidal"))
    assert {c["heldout_recall"] for c in without["per_class"].values()} == {None}
    assert without["per_class"]["stain"]["ap"] == pytest.approx(1 / 4)  # from (0, 1) over (0, 0) to (1, 1/2)


@pytest.mark.parametrize("ap", ["step", "trapezoidal", "trapezoidal_ties"])
def test_points_of_the_curve_equal_the_record(ap):
    rng = np.random.default_rng(0)
    scores = pd.concat([scored("good", rng.normal(0, 1, 40)), scored("dent", rng.normal(1, 1, 20))])
    p = protocol(ap=ap)
    assert headline_score(scores, p) == evaluate(scores, p)["ap"] == evaluate(scores, p)[f"ap_{ap}"]
    for metric in (evaluate, headline_score):
        with pytest.raises(UserError, match="training diverged"):
            metric(pd.concat([scores, scored("good", [np.nan])]), p)


def test_a_loss_that_is_not_finite_stops_the_training_and_names_epoch_and_lr(store, monkeypatch):
    monkeypatch.setattr(fit_module, "_loss", lambda logits, *others: logits.sum() * float("inf"))
    grid = tiny_grid(shots=[5], augmenters=["none"], protocols=[{"name": "t", **TINY, "lr": 0.5}])
    (line,) = run(grid, store, executor="inline").failures.values()
    assert (
        line.startswith("training diverged (the loss of epoch 1 is ") and "at lr 0.5): lower lr in protocol 't'" in line
    )
    assert not store.keys("cells")


def test_bf16_differs_and_scores_stay_fp32(store):
    grid = tiny_grid(shots=[5], augmenters=["none"], protocols=[{"name": "t", **TINY, "precision": "bf16"}])
    run(grid, store, executor="inline")
    (key,) = store.keys("scores")
    assert pd.read_parquet(path_of(store, "scores", key))["logit"].dtype == np.float32


def test_resizing_first_blurs_as_two_steps_do():
    image = np.random.default_rng(0).integers(0, 256, (64, 40, 3), dtype=np.uint8)
    once = fit_to_protocol(image, (40, 64, "none", ()))
    twice = fit_to_protocol(image, (40, 64, "none", (20, 32)))
    assert np.array_equal(once, image) and twice.shape == image.shape
    assert np.array_equal(twice, fit_to_protocol(fit_to_protocol(image, (20, 32, "none", ())), (40, 64, "none", ())))
    assert twice.std() < 0.7 * once.std()
