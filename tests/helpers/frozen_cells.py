"""Records of cells with a frozen backbone, written by hand: nothing is trained."""

from __future__ import annotations

import numpy as np
import pandas as pd
from boards import put_record
from helpers import SMALL_SURFACES, tiny

from augbench.core.contracts import GOOD
from augbench.core.hashing import digest
from augbench.metrics.evaluate import evaluate
from augbench.planning.grid import make_grid
from augbench.planning.outline import stored_grid
from augbench.planning.plan import make_plan
from augbench.storage.scores import scores_bytes

IMAGE = {"width": 32, "height": 48, "backbone": "test_byobnet", "holdout": 0.2, "false_alarm_rate": 0.25}
PROBE = {"name": "probing", "kind": "probe", "synthetic_weight": "cv", **IMAGE}
NORMALS = {"name": "normals", "kind": "gaussian", **IMAGE}
NEAREST = {"name": "nearest", "kind": "neighbours", **IMAGE}
BESIDE = {**PROBE, "name": "beside", "synthetic_weight": 1.0, "normality": True}
SKILL = {"none": 0.3, "memseg": 2.5}  # mean distance of the logits of defect and normal images


def frozen_plan(**changes):
    """The plan of a grid with probes, three seeds, and the distance to the normal images."""
    datasets = [{"name": "surfaces", "settings": {**SMALL_SURFACES, "test_good": 60, "test_defective": 24}}]
    defaults = {"datasets": datasets, "protocols": [PROBE, NORMALS], "seeds": [0, 1, 2]}
    return make_plan(make_grid(tiny(**{**defaults, **changes})))


def fill(store, plan, weights=(0.1,)):
    """Write the grid, records and scores; ``weights`` are those of synthetic images, by seed in turn."""
    store.write_json("grids", plan.grid.name, stored_grid(plan))
    for cell in plan.cells:
        write(store, plan, cell, chosen_in(cell, weights))
    return store


def chosen_in(cell, weights):
    protocol = cell.protocol
    if protocol.kind == "gaussian":
        return {"shrinkage": 0.25}
    if protocol.kind == "neighbours":
        return {}
    if protocol.head == "lda":
        return {"C": None, "synthetic_weight": None}
    weight = protocol.synthetic_weight if cell.n_aug else None
    if weight == "cv":
        weight = weights[cell.seed % len(weights)]
    elif weight == "equal_mass":
        weight = cell.shots / cell.n_aug if cell.shots else 1.0
    return {"C": 0.01 if protocol.C == "cv" else protocol.C, "synthetic_weight": weight}


def write(store, plan, cell, chosen):
    split, shots = plan.library.split(cell.data), plan.library.shots(cell.data, cell.shots, cell.draw)
    parts = [split.test.assign(part="test"), split.heldout.assign(part="heldout")]
    table = pd.concat(parts, ignore_index=True)[["id", "part", "label", "group"]].astype(str)
    rng = np.random.default_rng([cell.n_aug, cell.seed or 0, cell.draw or 0, int(digest(cell.augmenter.alias)[:6], 16)])
    logits = SKILL[cell.augmenter.alias] * (table["label"] != GOOD) + rng.normal(size=len(table))
    table["logit"] = logits.astype(np.float32)
    counts = {
        "train_negatives": len(split.negatives),
        "shots": len(shots),
        "synthetic": cell.n_aug,
        "heldout_negatives": len(split.heldout),
        "test_negatives": int((split.test["label"] == GOOD).sum()),
        "test_positives": int((split.test["label"] != GOOD).sum()),
    }
    seconds = {"total": 3.0, "gather": 1.0, "judge": 1.0, "fit": 1.0}
    pools = [{"key": one.pool.key, "n": one.n} for one in plan.needs[cell.key]]
    result = {**evaluate(table, cell.protocol), "counts": counts, "chosen": chosen}
    store.files.write(store.name("scores", cell.key), scores_bytes(table))
    origin = {"seconds": seconds, "embedded": ["dataset surfaces"], "notes": []}
    put_record(store, cell, result, **origin, pools=pools, adapters=[], searches=[])
