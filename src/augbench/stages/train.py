"""The train stage: train and evaluate the classifier of one cell, and commit its record."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from augbench.classifiers import micro_resnet
from augbench.classifiers.fit import Fitted, fit, predict
from augbench.classifiers.loader import DeviceImages
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.core.seeds import derive_seed
from augbench.core.specs import SCHEMA, Cell, SearchSpec
from augbench.metrics.evaluate import evaluate, headline_score
from augbench.planning.library import Library
from augbench.planning.plan import PoolSlice, notes_of
from augbench.planning.splits import Split
from augbench.stages.context import Context, chosen_augmenter
from augbench.stages.decoded_images import DecodedImages, geometry
from augbench.stages.search import line_of
from augbench.storage.scores import scores_bytes

log = logging.getLogger(__name__)

REPORTED = ("ap", "auroc", "accuracy", "macro_f1")
REPORTED_AT_THRESHOLD = {
    "oracle": ("", ("precision", "recall", "f1")),
    "heldout": ("heldout_", ("precision", "recall", "false_alarm_rate")),
}


@dataclass
class CellData:
    """Training and evaluation data of a cell."""

    train: DeviceImages
    train_labels: np.ndarray  # N int64: 0/1, or class indices
    evaluation: DeviceImages  # evaluation images
    evaluated: pd.DataFrame  # their rows: test, then held-out, as the column "part" says
    classes: tuple[str, ...]  # recognition: one output each; (): detection with one output
    counts: dict[str, int]


def train_cell(context: Context, images: DecodedImages, cell: Cell, slices: Sequence[PoolSlice]) -> dict:
    """Train one classifier and commit its scores and record. Returns the record.

    Raises:
        UserError: weights or images are not available, or there is no defect image to train on.
    """
    import torch

    torch.set_num_threads(cell.protocol.threads_per_cell)
    started = time.perf_counter()
    data = gather(context, images, cell, slices)
    gathered = time.perf_counter()
    log.info("gathered in %.2f s: %s", gathered - started, ", ".join(f"{n} {v}" for n, v in data.counts.items()))
    curve, evaluation_seconds, logits = [], 0.0, np.empty(0)

    def evaluate_epoch(model: torch.nn.Module, epoch: int) -> None:
        nonlocal evaluation_seconds, logits
        if epoch % cell.protocol.eval_every == 0 or epoch == cell.protocol.epochs:
            evaluation_started = time.perf_counter()
            logits = predict(model, data.evaluation, cell.protocol)
            curve.append({"epoch": epoch, score: headline_score(score_table(data, logits), cell.protocol)})
            seconds = time.perf_counter() - evaluation_started
            evaluation_seconds += seconds
            log.info("epoch %d: %s %.4f on the test split, %.2f s", epoch, score, curve[-1][score], seconds)

    score = "accuracy" if data.classes else "ap"
    outputs = len(data.classes) or 1
    # From the cell's names, not its key: a seed gives the same initialisation for all augmenters and their settings.
    seed = derive_seed("cell", cell.data.name, cell.data.fold, cell.seed)
    good = not data.classes or data.classes[0] == GOOD
    fitted = fit(data.train, data.train_labels, outputs, cell.protocol, seed, evaluate_epoch, good)
    scores = score_table(data, logits)
    result = {
        **evaluate(scores, cell.protocol),
        "counts": data.counts,
        "curves": {"loss": fitted.losses, "test": curve},
        "best_epoch_oracle": max(curve, key=lambda point: (point[score], -point["epoch"])),
    }
    finished = time.perf_counter()
    times = {"total": finished - started, "gather": gathered - started, "judge": evaluation_seconds}
    times["fit"] = times["total"] - times["gather"] - times["judge"]
    record = commit(context, cell, slices, scores, result, times, fitted.shown)
    summary = ", ".join(f"{name} {value:.4f}" for name, value in numbers(record).items())
    log.info("%s; committed in %.2f s", summary, time.perf_counter() - finished)
    if context.save_weights:
        _save_weights(context, cell, fitted)
    return record


def headline(record: dict) -> dict[str, float]:
    """Return the metric of a record that progress displays: AP, or accuracy in recognition."""
    result = record["result"]
    name = "ap" if "ap" in result else "accuracy"
    return {name: result[name]}


def numbers(record: dict) -> dict[str, float]:
    """Return the metrics of a record that trackers log, named as in the reports' CSV files.

    In detection, precision, recall and F1 are at the best F1 on the test split (an oracle threshold); those with the
    prefix ``heldout_`` are at the threshold set on held-out normal images.
    """
    result = record["result"]
    metrics: dict[str, float | None] = {name: result[name] for name in REPORTED if name in result}
    for part, (prefix, names) in REPORTED_AT_THRESHOLD.items():
        if result.get(part):
            metrics |= {f"{prefix}{name}": result[part][name] for name in names}
    metrics |= {"loss": result["curves"]["loss"][-1], "seconds": record["provenance"]["seconds"]["total"]}
    return {name: value for name, value in metrics.items() if value is not None}


def gather(context: Context, images: DecodedImages, cell: Cell, slices: Sequence[PoolSlice]) -> CellData:
    """Gather a cell's data: negatives, shots and synthetic images to train on, test and held-out images to evaluate."""
    import torch

    device = torch.device(context.device)
    split = context.library.split(cell.data)
    shots = context.library.shots(cell.data, cell.shots, cell.draw)
    size = geometry(cell.protocol)
    real = images.real[cell.data.alias, size]
    pools = [images.pool(pool_slice, size) for pool_slice in slices]
    classes = _outputs(cell, split)
    evaluated = pd.concat([split.test.assign(part="test"), split.heldout.assign(part="heldout")], ignore_index=True)
    train = pd.concat([split.negatives, shots])
    labels = [_labels(train["label"], classes), *(_pool_labels(pool_slice, cell, classes) for pool_slice in slices)]
    if not classes and not any(part.any() for part in labels):
        raise UserError(f"cell '{cell.key}' has no defect image to train on: use shots > 0 or an augmenter")
    row_of = context.library.row_of(cell.data.alias)
    synthetic_rows = np.arange(len(real), len(real) + sum(map(len, pools)))
    parts = [images.tensor(array, device) for array in (real, *pools)]
    train_rows = np.concatenate([row_of[train["id"]].to_numpy(), synthetic_rows])
    return CellData(
        train=DeviceImages(parts, train_rows, cell.protocol, device),
        train_labels=np.concatenate(labels),
        evaluation=DeviceImages(parts[:1], row_of[evaluated["id"]].to_numpy(), cell.protocol, device),
        evaluated=evaluated,
        classes=classes,
        counts={
            "train_negatives": len(split.negatives),
            "shots": len(shots),
            "synthetic": sum(pool_slice.n for pool_slice in slices),
            "heldout_negatives": len(split.heldout),
            "test_negatives": int((split.test["label"] == GOOD).sum()),
            "test_positives": int((split.test["label"] != GOOD).sum()),
        },
    )


def _outputs(cell: Cell, split: Split) -> tuple[str, ...]:
    """Return the class of each logit: () in detection; in recognition the classes, with `GOOD` first if it occurs."""
    good = (GOOD,) if cell.data.classes and len(split.negatives) else ()
    return good + cell.data.classes


def _labels(names: pd.Series, classes: tuple[str, ...]) -> np.ndarray:
    if not classes:
        return (names != GOOD).to_numpy(np.int64)
    return names.map({name: number for number, name in enumerate(classes)}).to_numpy(np.int64)


def _pool_labels(pool_slice: PoolSlice, cell: Cell, classes: tuple[str, ...]) -> np.ndarray:
    """Return the labels of a slice: pools cycle through the defect classes; in detection all are positive."""
    if not classes:
        return np.ones(pool_slice.n, np.int64)
    numbers = np.array([classes.index(name) for name in cell.data.classes], np.int64)
    return numbers[np.arange(pool_slice.n) % len(numbers)]


def score_table(data: CellData, logits: np.ndarray) -> pd.DataFrame:
    """Return one row per evaluated image: id, part, label, group, and a float32 column per logit, named by class."""
    table = data.evaluated[["id", "part", "label", "group"]].astype(str).reset_index(drop=True)
    names = [f"logit_{name}" for name in data.classes] or ["logit"]
    for column, name in enumerate(names):
        table[name] = logits[:, column].astype(np.float32)
    return table


def commit(
    context: Context,
    cell: Cell,
    slices: Sequence[PoolSlice],
    scores: pd.DataFrame,
    result: dict,
    seconds: dict[str, float],
    shown: int,
) -> dict:
    """Write the scores, then the record: the record is the commit marker.

    ``result`` is that of `evaluate`, with counts and curves; ``seconds`` has the keys total, gather, fit and judge;
    ``shown`` is the number of training samples seen, repetitions counted.
    """
    context.store.files.write(context.store.name("scores", cell.key), scores_bytes(scores))
    record = {
        "schema": SCHEMA,
        "key": cell.key,
        "spec": cell.as_dict(),
        "result": result,
        "provenance": {
            "seconds": seconds,
            "images_per_second": shown / seconds["fit"],
            "embedded": _embedded(context.library, cell, slices),
            "notes": [*notes_of(context.library, cell, slices), *_searches(context, slices)],
            **_lineage(context.library, slices),
            **context.origin(),
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


def _embedded(library: Library, cell: Cell, slices: Sequence[PoolSlice]) -> list[str]:
    """Return the parts shipped with the package: with smoke-test weights or data a result is not evidence."""
    found = [f"dataset {cell.data.name}"] if library.dataset(cell.data.alias).embedded else []
    if (cell.protocol.backbone, cell.protocol.weights) == (micro_resnet.NAME, "timm"):
        found.append(f"backbone {micro_resnet.NAME}")
    augmenters = [pool_slice.pool.augmenter for pool_slice in slices]
    return found + [f"augmenter {spec.name}" for spec in augmenters if library.augmenter(spec).embedded()]


def _save_weights(context: Context, cell: Cell, fitted: Fitted) -> None:
    from safetensors.torch import save

    state = {name: tensor.cpu().contiguous() for name, tensor in fitted.model.state_dict().items()}
    context.store.files.write(context.store.name("weights", cell.key), save(state))
