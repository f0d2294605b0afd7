"""The classifier: sampler, batches, determinism, weights; and the golden cell."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, tiny_grid, tiny_plan

from augbench.classifiers.backbone import build
from augbench.classifiers.loader import BalancedSampler, Resident, ShuffleSampler, batches
from augbench.core.errors import UserError
from augbench.core.protocol import make_protocol
from augbench.engine.driver import run
from augbench.jobs.pictures import fit_picture
from augbench.jobs.train import evaluate

GOLDEN = Path(__file__).parent / "golden_cell.json"


def protocol(**changes):
    return make_protocol({"name": "tiny", **TINY, **changes})


def test_balanced_sampler_shows_positives_once_and_negatives_in_turn():
    labels = np.array([1] * 4 + [0] * 10)
    sampler = BalancedSampler(labels, np.random.default_rng(0))
    seen = np.zeros(14, int)
    for _ in range(5):
        epoch = sampler.epoch()
        assert sorted(epoch[labels[epoch] == 1]) == [0, 1, 2, 3]
        assert (labels[epoch] == 0).sum() == 4 and len(set(epoch)) == 8
        np.add.at(seen, epoch, 1)
        assert np.ptp(seen[4:]) <= 1  # no negative twice before all were shown
    assert (seen[4:] == 2).all()


def test_balanced_sampler_repeats_negatives_where_there_are_fewer():
    epoch = BalancedSampler(np.array([1] * 7 + [0] * 3), np.random.default_rng(0)).epoch()
    assert len(epoch) == 14 and np.ptp(np.bincount(epoch, minlength=10)[7:]) <= 1


@pytest.mark.parametrize("positives", [2, 40])
def test_fixed_epochs_are_equally_long_and_fair(positives):
    labels = np.array([1] * positives + [0] * 30)
    sampler = BalancedSampler(labels, np.random.default_rng(0), pictures=24)
    seen = np.zeros(len(labels), int)
    for _ in range(10):
        epoch = sampler.epoch()
        assert len(epoch) == 24 and labels[epoch].sum() == 12
        np.add.at(seen, epoch, 1)
    assert np.ptp(seen[labels == 1]) <= 1 and np.ptp(seen[labels == 0]) <= 1


def test_shuffle_sampler_shows_all_once():
    assert sorted(ShuffleSampler(np.zeros(9), np.random.default_rng(0)).epoch()) == list(range(9))


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (1, 4, [1]), (8, 4, [4, 4])]
)
def test_no_batch_of_one_after_another(count, size, lengths):
    made = list(batches(np.arange(count), size))
    assert [len(b) for b in made] == lengths
    assert np.array_equal(np.concatenate(made), np.arange(count))


def test_resident_gives_normalised_channels_last_pictures():
    first, second = (np.random.default_rng(i).integers(0, 256, (3, 5, 4, 3), np.uint8) for i in (0, 1))
    p = protocol()
    data = Resident([torch.from_numpy(first), torch.from_numpy(second)], np.array([4, 0, 5, 2]), p, torch.device("cpu"))
    batch = data.batch(np.array([0, 3, 2]))
    assert batch.shape == (3, 3, 5, 4) and batch.is_contiguous(memory_format=torch.channels_last)
    for got, expected in zip(batch, (second[1], first[2], second[2]), strict=True):
        wanted = (expected / 255 - np.array(p.mean)) / np.array(p.std)
        assert np.allclose(got.permute(1, 2, 0).numpy(), wanted, atol=1e-5)


def test_centre_crop_keeps_the_aspect_and_none_stretches():
    image = np.zeros((100, 60, 3), np.uint8)
    image[40:60, 20:40] = 255  # a square in the middle
    cropped, squeezed = (fit_picture(image, (50, 50, crop))[..., 0] > 127 for crop in ("centre", "none"))
    for mask, square in ((cropped, True), (squeezed, False)):
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert (abs(int(rows) - int(columns)) <= 1) is square


def test_unknown_and_unreachable_weights_are_named(tmp_path):
    with pytest.raises(UserError, match="did you mean 'resnet50'"):
        build(protocol(backbone="resnet5O"), 1, 0)
    with pytest.raises(UserError, match=r"no pretrained weights of 'resnet18' at hand.*scratch"):
        build(protocol(backbone="resnet18", weights="timm"), 1, 0)
    with pytest.raises(UserError, match="is not a file"):
        _ = protocol(weights="nowhere.safetensors").digest
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        build(protocol(weights=str(tmp_path / "x.safetensors")), 1, 0)


def test_local_weights_are_loaded_but_for_the_head(tmp_path):
    from safetensors.torch import save_file

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
    path = tmp_path / "w.safetensors"
    digests = []
    for content in (b"a", b"b"):
        path = tmp_path / f"{content.decode()}.safetensors"
        path.write_bytes(content)
        digests.append(protocol(weights=str(path)).digest)
    (tmp_path / "c.safetensors").write_bytes(b"a")
    assert digests[0] != digests[1]
    assert protocol(weights=str(tmp_path / "c.safetensors")).digest == digests[0]


def test_golden_cell(store):
    """Same seed, same numbers. Loose enough for another processor, tight enough for a change of method."""
    plan_cells = tiny_plan(augmenters=["memseg"], shots=[5]).cells
    run(tiny_grid(augmenters=["memseg"], shots=[5]), store, executor="inline")
    result = store.read_record(plan_cells[0].key)["result"]
    golden = json.loads(GOLDEN.read_text())
    assert result["counts"] == golden["counts"]
    assert result["curves"]["loss"] == pytest.approx(golden["loss"], abs=2e-3)
    assert result["auroc"] == pytest.approx(golden["auroc"], abs=0.05)


def test_result_follows_from_the_scores(store):
    """What is published can be recomputed from the scores alone."""
    import pandas as pd

    grid = tiny_grid(shots=[5], augmenters=["none"])
    run(grid, store, executor="inline")
    (key,) = store.keys("cells")
    result = store.read_record(key)["result"]
    scores = pd.read_parquet(store.path("scores", key))
    assert scores["logit"].dtype == np.float32
    again = evaluate(scores, grid.protocols[0])
    assert {name: result[name] for name in again} == again
    assert result["ap"] == result["ap_step"] and result["heldout"]["false_alarm_rate"] <= 1
    assert result["curves"]["test"][-1]["ap"] == result["ap"]
    assert result["best_epoch_oracle"]["ap"] >= result["ap"]


def test_recognition_runs(store, tmp_path):
    import layouts

    settings = {**layouts.draw_folder(tmp_path), "task": "recognition"}
    grid = tiny_grid(datasets=[{"name": "folder", "settings": settings}], augmenters=["none", "memseg"], shots=[2])
    run(grid, store, executor="inline")
    (key,) = store.keys("cells")  # memseg does not do recognition
    result = store.read_record(key)["result"]
    assert result["classes"] == ["good", "scratch", "stain"]
    assert np.array(result["confusion"]).shape == (3, 3)
    assert 0 <= result["macro_f1"] <= 1


def test_bf16_differs_and_scores_stay_fp32(store):
    grid = tiny_grid(shots=[5], augmenters=["none"], protocols=[{"name": "t", **TINY, "precision": "bf16"}])
    run(grid, store, executor="inline")
    import pandas as pd

    (key,) = store.keys("scores")
    assert pd.read_parquet(store.path("scores", key))["logit"].dtype == np.float32
