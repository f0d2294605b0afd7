"""The train stage: train and evaluate the classifier of one cell, and commit its record."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from augbench.classifiers import micro_resnet
from augbench.core.determinism import deterministic
from augbench.core.filters import make_filters
from augbench.core.gpu import enough_memory
from augbench.core.specs import SCHEMA, Cell, SearchSpec
from augbench.planning.library import Library
from augbench.planning.plan import PoolSlice, notes_of
from augbench.stages.cell_data import Trained
from augbench.stages.context import Context, chosen_augmenter
from augbench.stages.copy_check import SHOT_COPIES
from augbench.stages.decoded_images import DecodedImages
from augbench.stages.filters import FILTERED, counts_of
from augbench.stages.finetune import finetune
from augbench.stages.probe import probe
from augbench.stages.search import line_of
from augbench.storage.scores import scores_bytes
from augbench.storage.store import Store

log = logging.getLogger(__name__)

REPORTED = ("ap", "auroc", "accuracy", "macro_f1")
HARDLY_MOVED = 2.0**-10
"""The spacing of fp16 numbers: adapters with a lower ``update_norm`` are named, as merging loses them in rounding."""
REPORTED_AT_THRESHOLD = {
    "oracle": ("", ("precision", "recall", "f1")),
    "heldout": ("heldout_", ("precision", "recall", "false_alarm_rate")),
}


def train_cell(context: Context, images: DecodedImages, cell: Cell, slices: Sequence[PoolSlice]) -> dict:
    """Train one classifier and commit its scores and record. Returns the record.

    Raises:
        UserError: weights, images or features are not available, there is no defect image to train on, or too little
            memory.
    """
    if cell.protocol.kind == "finetune":
        names = f"protocol '{cell.protocol.name}'"
        with deterministic(context.device, cell.protocol.precision), enough_memory("batch", "precision", of=names):
            trained = finetune(context, images, cell, slices)
    else:
        trained = probe(context, cell, slices)
    started = time.perf_counter()
    if context.save_weights:
        _save_weights(context, cell, trained)  # before the record, which marks the cell as done
    record = commit(context, cell, slices, trained)
    summary = ", ".join(f"{name} {value:.4f}" for name, value in numbers(record).items())
    log.info("%s; committed in %.2f s", summary, time.perf_counter() - started)
    return record


def headline(record: dict) -> dict[str, float]:
    """Return the metric of a record that progress displays: AP, or accuracy in recognition."""
    result = record["result"]
    name = "ap" if "ap" in result else "accuracy"
    return {name: result[name]}


def numbers(record: dict) -> dict[str, float]:
    """Return the metrics of a record that trackers log, named as in the reports' CSV files.

    In detection, precision, recall and F1 are at the best F1 on the test split (an oracle threshold); those with the
    prefix ``heldout_`` are at the threshold set on held-out normal images. A probe has what it chose instead of a loss.
    """
    result = record["result"]
    metrics: dict[str, float | None] = {name: result[name] for name in REPORTED if name in result}
    for part, (prefix, names) in REPORTED_AT_THRESHOLD.items():
        if result.get(part):
            metrics |= {f"{prefix}{name}": result[part][name] for name in names}
    metrics |= {"loss": result["curves"]["loss"][-1]} if "curves" in result else result["chosen"]
    metrics["seconds"] = record["provenance"]["seconds"]["total"]
    return {name: value for name, value in metrics.items() if value is not None}


def commit(context: Context, cell: Cell, slices: Sequence[PoolSlice], trained: Trained) -> dict:
    """Write the scores, then the record: the record is the commit marker."""
    context.store.files.write(context.store.name("scores", cell.key), scores_bytes(trained.scores))
    record = {
        "schema": SCHEMA,
        "key": cell.key,
        "spec": cell.as_dict(),
        "result": trained.result,
        "provenance": {
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": trained.seconds,
            "images_per_second": trained.shown / trained.seconds["fit"],
            "embedded": _embedded(context.library, cell, slices),
            "notes": [
                *notes_of(context.library, cell, slices),
                *_searches(context, slices),
                *_unmoved_adapters(context, slices),
                *_shot_copies(context, slices),
            ],
            **_lineage(context.library, slices),
            **_filtered(context.store, slices),
            **context.origin(cell.protocol.precision),
        },
    }
    context.store.write_json("cells", cell.key, record)
    context.store.clear_failure(cell.key)
    return record


def _lineage(library: Library, slices: Sequence[PoolSlice]) -> dict[str, Any]:
    """Return what the synthetic images come from: the pool slices in their order, their adapters and their searches."""
    used = [pool_slice for pool_slice in slices if pool_slice.n]  # a small share of few images rounds to none
    behind = [(one.pool.adapter, library.augmenter(one.pool.augmenter)) for one in used]
    searches = [SearchSpec(adapter).key for adapter, augmenter in behind if augmenter.candidates()]
    return {
        "pools": [{"key": one.pool.key, "n": one.n} for one in used],
        "adapters": list(dict.fromkeys(adapter.key for adapter, augmenter in behind if augmenter.learns)),
        "searches": list(dict.fromkeys(searches)),
    }


def _searches(context: Context, slices: Sequence[PoolSlice]) -> list[str]:
    """Return a line per quality search of the pools: its choice, or why there was none."""
    pools = [pool_slice.pool for pool_slice in slices]
    found = [(pool.augmenter.name, chosen_augmenter(context, pool.adapter)[1]) for pool in pools]
    return [f"{name}: {line_of(record)}" for name, record in found if record]


def _unmoved_adapters(context: Context, slices: Sequence[PoolSlice]) -> list[str]:
    """Return a line per adapter whose training hardly moved the pipeline's weights."""
    found = []
    for adapter in {one.pool.adapter.key: one.pool.adapter for one in slices if one.n}.values():
        if not context.library.augmenter(adapter.augmenter).learns or not context.store.has_adapter(adapter):
            continue
        moved = context.store.read_adapter(adapter)["learned"].get("update_norm")  # older records have none
        if moved is not None and moved < HARDLY_MOVED:
            what = f"its adapter hardly moved: the median |dW|/|W| is {moved:.1e}, below {HARDLY_MOVED:.1e}"
            found.append(f"{adapter.augmenter.name}: {what}, so its images are nearly those of the untouched pipeline")
    return found


def _shot_copies(context: Context, slices: Sequence[PoolSlice]) -> list[str]:
    """Return a line per pool from outside that holds near-copies of real training defects."""
    found, store = [], context.store
    for one in slices:
        if not context.library.augmenter(one.pool.augmenter).from_outside:
            continue
        made = [store.parsed(store.chunk_provenance_name(one.pool, chunk)) for chunk in range(one.chunks)]
        if copies := sum(index < one.n for chunk in made for index in chunk[SHOT_COPIES]):
            what = f"{copies} of {one.n} images are near-copies of real training defects"
            found.append(f"{one.pool.augmenter.name}: {what}")
    return found


def _filtered(store: Store, slices: Sequence[PoolSlice]) -> dict[str, Any]:
    """Return what filters dropped until the images of these pool slices were made; {} without filters."""
    found = []
    for one in slices:
        if one.n and one.pool.augmenter.filters:
            lines = [line for chunk in range(one.chunks) for line in store.chunk_lines(one.pool, chunk)]
            if counts := counts_of(lines[: one.n]):  # none where a person chose: nothing is made again
                found.append({"key": one.pool.key, **counts})
    return {FILTERED: found} if found else {}


def _embedded(library: Library, cell: Cell, slices: Sequence[PoolSlice]) -> list[str]:
    """Return the parts shipped with the package: with smoke-test weights or data a result is not evidence."""
    found = [f"dataset {cell.data.name}"] if library.dataset(cell.data.alias).embedded else []
    if (cell.protocol.backbone, cell.protocol.weights) == (micro_resnet.NAME, "timm"):
        found.append(f"backbone {micro_resnet.NAME}")
    if (vae := cell.protocol.vae()) and vae.embedded():
        found.append(f"roundtrip {cell.protocol.roundtrip}")
    augmenters = [pool_slice.pool.augmenter for pool_slice in slices]
    judges = (make_filters(spec.filters).unseen for spec in augmenters)
    found += [f"filter {micro_resnet.NAME}" for one in judges if one and one.backbone == micro_resnet.NAME][:1]
    return found + [f"augmenter {spec.name}" for spec in augmenters if library.augmenter(spec).embedded()]


def _save_weights(context: Context, cell: Cell, trained: Trained) -> None:
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in trained.arrays().items()}
    context.store.files.write(context.store.name("weights", cell.key), save(arrays))
