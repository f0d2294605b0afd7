"""Features: fixed chunks, shared by folds and protocols; probes that are fitted on them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import TINY_PROBE, on_disk, path_of, tiny_grid, tiny_plan
from layouts import draw_neu
from safetensors.numpy import load_file
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf

from augbench.classifiers.backbone import build
from augbench.classifiers.probe import ProbeRows
from augbench.core.errors import UserError
from augbench.core.protocol import make_protocol
from augbench.core.specs import FeatureSpec
from augbench.features.frozen import FrozenBackbone
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.runner.scheduler import Scheduler
from augbench.runner.worker import Failure
from augbench.stages import features as stage
from augbench.stages import train
from augbench.stages.cell_data import data_of
from augbench.stages.context import Context
from augbench.stages.decoded_images import decode_rows, geometry
from augbench.stages.generate import generate_chunk
from augbench.stages.probe import _fit
from augbench.storage.leases import Leases

PROBE = make_protocol(TINY_PROBE)
NORMALS = {**TINY_PROBE, "name": "normals", "kind": "gaussian"}
NEAREST = {**TINY_PROBE, "name": "nearest", "kind": "neighbours"}
WEIGHTED = {**TINY_PROBE, "name": "weighted", "synthetic_weight": 0.1}


def planned(store=None, **changes):
    return tiny_plan(store, **{"protocols": [TINY_PROBE], "n_aug": [6], **changes})


def by_kind(plan):
    """The features of the dataset, and those of its pool."""
    own = [spec for spec in plan.features.values() if spec.pool is None]
    made = [spec for spec in plan.features.values() if spec.pool is not None]
    return own, made


def test_features_are_shared_by_folds_shots_and_protocols_of_the_same_network():
    plan = planned(protocols=[TINY_PROBE, WEIGHTED, NORMALS], shots=[0, 5, "all"])
    own, made = by_kind(plan)
    assert len(own) == 1 and len(made) == 1 and plan.feature_chunks[own[0].key] == 1
    data = plan.cells[0].data
    other_fold = replace(data, fold=3, holdout=0.4)
    assert FeatureSpec(other_fold, PROBE).key == own[0].key
    changed = PROBE.changed(width=64), PROBE.changed(mean=(0.0, 0.0, 0.0)), PROBE.changed(precision="bf16")
    assert len({FeatureSpec(data, protocol).key for protocol in (PROBE, *changed)}) == 4
    assert FeatureSpec(data, PROBE.changed(C=1.0)).key == own[0].key


def test_a_cell_without_synthetic_images_has_no_seed_and_no_repeats():
    plan = planned(protocols=[TINY_PROBE, NORMALS], shots=[0, 5], draws=[0, 1], seeds=[3, 4])
    none = [cell for cell in plan.cells if cell.augmenter.name == "none"]
    assert [(cell.protocol.name, cell.shots, cell.draw, cell.seed) for cell in none] == [
        ("probe", 5, 0, None),
        ("probe", 5, 1, None),
        ("normals", 0, None, None),
    ]
    assert {cell.seed for cell in plan.cells if cell.augmenter.name == "memseg"} == {3, 4}
    assert plan.dropped["protocol normals uses no defect image: only none at zero-shot"] > 0
    assert "none-few5-n0-" in none[0].key and "-s" not in none[0].key.replace("surfaces", "")


def test_features_are_maximum_and_mean_of_four_stages():
    network, images = FrozenBackbone(PROBE, "cpu"), np.random.default_rng(0).integers(0, 256, (3, 48, 32, 3), np.uint8)
    found = network(images)
    maps = (
        build(PROBE, 0, 0)
        .eval()
        .forward_intermediates((network_input(PROBE, images)), indices=4, intermediates_only=True)
    )
    theirs = [t for one in maps for t in (one.amax((2, 3)), one.mean((2, 3)))]
    assert found.shape == (3, 2 * (16 + 32 + 64 + 160)) and found.dtype == np.float32
    assert found == pytest.approx(np.concatenate([t.detach().numpy() for t in theirs], 1), abs=1e-5)


def network_input(protocol, images):
    import torch

    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (protocol.mean, protocol.std))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std


def test_chunks_are_those_of_the_table_and_of_the_pool(store, monkeypatch):
    monkeypatch.setattr(stage, "FEATURE_CHUNK", 20)
    plan = planned()
    (own,), (made,) = by_kind(plan)
    context = Context(store, plan.library)
    dataset, table = plan.library.dataset("surfaces"), plan.library.samples("surfaces")
    for chunk in range(3):
        stage.extract_chunk(context, own, chunk)
    images = decode_rows(dataset, table, geometry(PROBE))
    network = FrozenBackbone(PROBE, "cpu")
    expected = np.concatenate([network(images[start : start + 20]) for start in (0, 20, 40)])
    assert np.array_equal(stage.features_of(context, own, 3).values, expected)
    generate_chunk(context, made.pool, 0)
    stage.extract_chunk(context, made, 0)
    found = stage.features_of(context, made, 1)
    assert len(found.values) == made.pool.chunk_size == len(found.sources)
    assert set(found.sources) <= set(table["id"])
    first = path_of(store, "features", made.key) / "00000.safetensors"
    before = first.read_bytes()
    generate_chunk(context, made.pool, 1)
    stage.extract_chunk(context, made, 1)
    assert first.read_bytes() == before, "a grown pool invalidates nothing"
    again = Context(store, plan.library)
    assert np.array_equal(stage.features_of(again, made, 2).values[: len(found.values)], found.values)


def test_damaged_and_stale_features_are_refused_by_name(store):
    plan = planned()
    (_, (made,)) = by_kind(plan)
    context = Context(store, plan.library)
    generate_chunk(context, made.pool, 0)
    stage.extract_chunk(context, made, 0)
    path = path_of(store, "features", made.key) / "00000.safetensors"
    assert set(load_file(path)) == {"features", "images"}
    assert store.parsed(store.chunk_provenance_name(made, 0))["precision"] == "fp32"
    marker = store.files.read(store.chunk_name(made.pool, 0))
    store.files.write(store.chunk_name(made.pool, 0), marker + b"\n")
    with pytest.raises(UserError, match=r"00000.safetensors' are of images that the pool no longer holds: delete it"):
        stage.features_of(context, made, 1)
    for damaged in (path.read_bytes()[:50], b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"00000.safetensors' are missing or damaged: delete it, and run"):
            stage.features_of(context, made, 1)


def scheduled(store, **changes):
    plan = planned(**changes)
    return plan, Scheduler(plan, subtract(plan, store), store, Leases(store.files))


def test_a_cell_waits_for_its_features_and_these_for_their_images(store):
    plan, scheduler = scheduled(store, augmenters=["memseg"], shots=[5])
    (own,), (made,) = by_kind(plan)
    assert [(spec.key, chunk) for spec, chunk in scheduler.next_chunks()] == [(made.pool.key, 0), (own.key, 0)]
    assert scheduler.datasets_left and not scheduler.next_cells()
    scheduler.chunk_done(own.key, 0)
    assert not scheduler.datasets_left and not scheduler.next_cells()
    scheduler.chunk_done(made.pool.key, 0)
    assert [spec.key for spec, _ in scheduler.next_chunks()] == [made.key] and not scheduler.next_cells()
    scheduler.chunk_done(made.key, 0)
    assert len(scheduler.next_cells()) == 1 and not scheduler.pools_left
    assert (scheduler.chunks_done, scheduler.features_done) == (1, 2)


def test_a_failed_pool_blocks_its_features_and_their_cells(store):
    plan, scheduler = scheduled(store, augmenters=["none", "memseg"], shots=[5])
    (own,), (made,) = by_kind(plan)
    scheduler.chunk_failed(made.pool.key, Failure("no texture", by_user=True))
    assert scheduler.blocked == {made.pool.key: 1}
    assert [spec.key for spec, _ in scheduler.next_chunks()] == [own.key]
    scheduler.chunk_failed(own.key, Failure("no weights", by_user=True))
    assert scheduler.blocked == {made.pool.key: 1, own.key: 1} and not scheduler.pools_left


def test_only_missing_features_are_made_and_none_for_finished_cells(store):
    grid = tiny_grid(protocols=[TINY_PROBE], n_aug=[6])
    plan = make_plan(grid)
    assert len(subtract(plan, store).features) == 2
    summary = run(grid, store, executor="inline")
    assert summary.done == summary.cells == 3 and not summary.failures
    for key in store.keys("features"):
        for file in path_of(store, "features", key).iterdir():
            file.unlink()
    assert subtract(plan, store).nothing
    larger = make_plan(tiny_grid(protocols=[TINY_PROBE], n_aug=[6, 7]))
    assert [chunk for _, chunk in subtract(larger, store).features] == [0, 0]


def test_records_of_probes(store):
    grid = tiny_grid(protocols=[TINY_PROBE, WEIGHTED, NORMALS, NEAREST], n_aug=[6], save_weights="last")
    summary = run(grid, store, executor="inline")
    assert summary.done == summary.cells == 8 and not summary.failures
    records = {r["key"]: r for r in store.read_records(sorted(store.keys("cells")))}
    chosen = {}
    for cell in make_plan(grid).cells:
        record = records[cell.key]
        assert "curves" not in record["result"] and 0 < record["result"]["ap"] <= 1
        assert record["result"]["counts"]["synthetic"] == cell.n_aug
        assert record["provenance"]["embedded"] == ["dataset surfaces", "backbone micro_resnet"]
        chosen[cell.protocol.name, cell.augmenter.name, cell.shots] = record["result"]["chosen"]
        weights = load_file(path_of(store, "weights", cell.key))
        assert ("precision" in weights) == (cell.protocol.kind == "gaussian")
        assert ("normals" in weights) == (cell.protocol.kind == "neighbours") != ("mean" in weights)
    assert chosen["probe", "none", 5] == {"C": 0.01, "synthetic_weight": None}
    assert chosen["weighted", "memseg", 0] == {"C": 0.01, "synthetic_weight": 0.1}
    assert chosen["normals", "none", 0].keys() == {"shrinkage"} and chosen["nearest", "none", 0] == {}
    check_distances(store, make_plan(grid))


def check_distances(store, plan):
    """The two scores of normal images alone are those of plain arithmetic on the stored features."""
    (spec,) = (spec for spec in plan.features.values() if spec.pool is None)
    chunks = sorted(path_of(store, "features", spec.key).glob("*.safetensors"))
    features = np.concatenate([next(iter(load_file(chunk).values())) for chunk in chunks])
    for kind in ("gaussian", "neighbours"):
        (cell,) = (cell for cell in plan.cells if cell.protocol.kind == kind)
        data = data_of(plan.library, cell, ())
        normal, test = (features[rows].astype(float) for rows in (data.train_rows, data.evaluated_rows))
        scale = np.where(normal.std(0) > 0, normal.std(0), 1)
        if kind == "neighbours":
            found = cdist(test / scale, normal / scale).min(1)
        else:
            centred = (normal - normal.mean(0)) / scale
            fitted = LedoitWolf(assume_centered=True).fit(centred)
            covariance = fitted.covariance_ + 1e-6 * np.eye(len(scale))
            apart = (test - normal.mean(0)) / scale
            found = np.sqrt((apart * np.linalg.solve(covariance, apart.T).T).sum(1))
        scores = pd.read_parquet(path_of(store, "scores", cell.key))
        assert np.allclose(scores["logit"], found, rtol=1e-4, atol=1e-4)


def test_a_record_has_its_weights_beside_it_from_the_start(store, monkeypatch):
    """The record marks a cell as done, so what is interrupted before it is trained again, weights included."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "commit", interrupted)
    grid = tiny_grid(protocols=[TINY_PROBE], augmenters=["none"], shots=[5], save_weights="last")
    run(grid, store, executor="inline")
    assert len(store.keys("weights")) == 1 and not store.keys("cells")


def test_recognition_by_a_probe(store, tmp_path):
    """Classes of steel defects: one logit each, no distance to normal images, and a class without images is named."""
    steel = on_disk("neu", draw_neu(tmp_path))
    images = {"name": "memseg", "settings": {"source": "shots"}}
    normality = {**TINY_PROBE, "name": "normality", "normality": True}
    fields = {"augmenters": ["none", images], "protocols": [TINY_PROBE, normality, NORMALS], "shots": [2], "n_aug": [2]}
    grid = tiny_grid(**steel, **fields)
    plan = make_plan(grid)
    assert [(cell.augmenter.name, cell.protocol.name) for cell in plan.cells] == [
        ("none", "probe"),
        ("memseg", "probe"),
    ]
    assert plan.dropped["protocol normals: made for detection, not for recognition"] == 2
    assert plan.dropped["protocol normality: its normality is made for detection, not for recognition"] == 2
    summary = run(grid, store, executor="inline")
    assert summary.done == 2 and not summary.failures
    for record in store.read_records(sorted(store.keys("cells"))):
        assert 0 <= record["result"]["accuracy"] <= 1 and len(record["result"]["classes"]) == len(
            plan.cells[0].data.classes
        )


def test_a_label_without_training_images_is_named(store):
    library = tiny_plan().library
    cell = planned(shots=[5], augmenters=["none"]).cells[0]
    data = data_of(library, cell, ())
    rows = ProbeRows(
        features=np.zeros((3, 4), np.float32),
        labels=np.ones(3, np.int64),
        defects=np.ones(3, bool),
        groups=np.array(["a", "b", "c"]),
        synthetic=np.zeros(3, bool),
    )
    with pytest.raises(UserError, match="has no training image of 'normal': use more shots or a larger N_aug"):
        _fit(Context(store, library), rows, data, cell)


def test_features_that_are_not_finite_are_not_committed(store, monkeypatch):
    plan = planned(store)
    (own,), _ = by_kind(plan)
    found = np.ones((60, 4), np.float32)
    found[7, 2] = np.nan
    monkeypatch.setattr(stage, "FrozenBackbone", lambda protocol, device: lambda images: found)
    with pytest.raises(UserError, match="backbone 'micro_resnet' of protocol 'probe' gives image 7 of chunk 0"):
        stage.extract_chunk(Context(store, plan.library), own, 0)
    assert not store.chunks(own)
