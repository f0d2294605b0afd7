"""Small stores of records and scores for leaderboard tests, without training."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd

from augbench.core.protocol import make_protocol
from augbench.core.specs import AugmenterSpec, Cell, DataSpec
from augbench.metrics.evaluate import evaluate
from augbench.storage.store import Store

NORMAL, DEFECT, HELDOUT = 30, 12, 20  # number of images
HOSTILE = "<img src=x onerror=alert(1)>"
BREAKING = "</script><script>alert(2)</script>"

SKILL = {"none": 0.6, "memseg": 1.6, "ddpm": 2.6}  # mean distance of the logits of defect and normal images


def protocol_of(name="strict", **fields):
    """A small protocol; ``fields`` replace or add fields."""
    base = {"width": 64, "height": 64, "lr": 0.01, "batch": 5, "epochs": 2, "holdout": 0.1, "false_alarm_rate": 0.1}
    return make_protocol({"name": name, **base, **fields})


def cell(augmenter="memseg", n_aug=40, seed=0, shots="all", dataset="tiles", protocol=None, settings=None):
    protocol, settings = protocol or protocol_of(), settings or {}
    data = DataSpec(dataset, dataset, {}, "f" * 64, None, protocol.holdout)
    draw = 0 if isinstance(shots, int) and shots else None
    return Cell(data, AugmenterSpec(augmenter, augmenter, settings, settings), shots, draw, n_aug, seed, protocol)


def grid_cells(**fields):
    """Cells of none, memseg and ddpm, three seeds each."""
    rows = [("none", 0), ("memseg", 40), ("memseg", 80), ("ddpm", 40), ("ddpm", 80)]
    return [cell(name, n, seed, **fields) for name, n in rows for seed in (0, 1, 2)]


def scores_of(one):
    """Scores that depend only on the cell."""
    rng = np.random.default_rng([one.n_aug, one.seed, *map(ord, one.augmenter.alias)])
    skill = SKILL.get(one.augmenter.alias, 1.0) + one.n_aug / 200
    labels = ["good"] * NORMAL + ["scratch"] * (DEFECT // 2) + ["stain"] * (DEFECT // 2) + ["good"] * HELDOUT
    parts = ["test"] * (NORMAL + DEFECT) + ["heldout"] * HELDOUT
    ids = [f"{part}{index:03d}" for index, part in enumerate(parts)]
    logits = rng.normal(size=len(ids)) + skill * (np.array(labels) != "good")
    return pd.DataFrame({"id": ids, "part": parts, "label": labels, "group": ids, "logit": logits.astype(np.float32)})


def put_record(store: Store, one: Cell, result, key=None, spec=(), **provenance):
    """Write the record of a cell; ``spec`` and ``provenance`` replace or add parts of those."""
    usual = {"seconds": {"total": 2.5}, "images_per_second": 10.0, "embedded": [], "device": "cpu one",
             "git_sha": "a" * 40, "versions": {}}  # fmt: skip
    record = {"schema": 1, "key": key or one.key, "spec": one.as_dict() | dict(spec), "result": result}
    store.write_json("cells", key or one.key, record | {"provenance": usual | provenance})


def write(store: Store, one: Cell, key=None, scored=True, notes=(), embedded=(), device="cpu one", **spec):
    """Write the record of a cell and its scores; ``spec`` replaces parts of its spec, ``key`` its key."""
    scores, key = scores_of(one), key or one.key
    result = {**evaluate(scores, one.protocol), "counts": {}, "curves": {"loss": [1.0], "test": []}}
    origin = {"seconds": {"total": 2.5 + one.seed}, "embedded": embedded, "device": device, "notes": notes}
    put_record(store, one, result, key, spec, **origin)
    if scored:
        buffer = io.BytesIO()
        scores.to_parquet(buffer, index=False)
        store.files.write(store.name("scores", key), buffer.getvalue())
    return key


def expected_cell(one: Cell, task="detection"):
    """What a grid file says of a cell, without the fields that were added later."""
    return {
        **{name: getattr(one, name) for name in ("key", "shots", "draw", "n_aug", "seed")},
        "dataset": one.data.alias,
        "fold": one.data.fold,
        "augmenter": one.augmenter.alias,
        "protocol": one.protocol.name,
        "task": task,
        "ap_definition": one.protocol.ap,
        "false_alarm_rate": one.protocol.false_alarm_rate if one.data.holdout else None,
    }


def expect(store: Store, name, cells, task="detection"):
    """Write a grid file that lists these cells, as a run does."""
    store.write_json("grids", name, {"grid": {}, "cells": [expected_cell(one, task) for one in cells]})
