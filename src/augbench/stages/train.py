"""The train job: one cell's whole story, from its pictures to its record."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from augbench.classifiers import micro_resnet
from augbench.classifiers.fit import Fitted, fit, predict
from augbench.classifiers.loader import DeviceImages
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.core.seeds import derive_seed
from augbench.core.specs import SCHEMA, Cell
from augbench.metrics.evaluate import evaluate, headline_score
from augbench.planning.library import Library
from augbench.planning.plan import PoolSlice, notes_of
from augbench.planning.splits import Split
from augbench.stages.context import Context, chosen_augmenter
from augbench.stages.decoded_images import DecodedImages, geometry
from augbench.stages.provenance import device_name, versions
from augbench.stages.search import line_of
from augbench.storage.scores import scores_bytes

log = logging.getLogger(__name__)

SHOWN = ("ap", "auroc", "accuracy", "macro_f1")
SHOWN_AT_THRESHOLD = {
    "oracle": ("", ("precision", "recall", "f1")),
    "heldout": ("heldout_", ("precision", "recall", "false_alarm_rate")),
}


@dataclass
class CellData:
    """What a cell trains and is judged on."""

    train: DeviceImages
    train_labels: np.ndarray  # N int64: 0/1, or a class number
    judge: DeviceImages
    judged: pd.DataFrame  # rows of the judged pictures, test first, then held-out; column "part" says which
    classes: tuple[str, ...]  # recognition: one output each; (): detection, one output
    counts: dict[str, int]


def train_cell(context: Context, pictures: DecodedImages, cell: Cell, takes: Sequence[PoolSlice]) -> dict:
    """Train one classifier and commit its scores and record. Returns the record.

    Args:
        context: store, datasets, device.
        pictures: decoded pictures.
        cell: what to train.
        takes: the pools it uses and how many pictures of each.

    Raises:
        UserError: weights or pictures that cannot be had, or nothing to learn from.
    """
    import torch

    torch.set_num_threads(cell.protocol.threads_per_cell)
    started = time.perf_counter()
    material = gather(context, pictures, cell, takes)
    gathered = time.perf_counter()
    log.info("gathered in %.2f s: %s", gathered - started, ", ".join(f"{n} {v}" for n, v in material.counts.items()))
    curve, judging, logits = [], 0.0, np.empty(0)

    def judge(model: torch.nn.Module, epoch: int) -> None:
        nonlocal judging, logits
        if epoch % cell.protocol.eval_every == 0 or epoch == cell.protocol.epochs:
            begun = time.perf_counter()
            logits = predict(model, material.judge, cell.protocol)
            curve.append({"epoch": epoch, score: headline_score(score_table(material, logits), cell.protocol)})
            seconds = time.perf_counter() - begun
            judging += seconds
            log.info("epoch %d: %s %.4f on the test split, %.2f s", epoch, score, curve[-1][score], seconds)

    score = "accuracy" if material.classes else "ap"
    outputs = len(material.classes) or 1
    # Of the cell's names, not of its key: a seed means the same start whatever the augmenter and its settings.
    seed = derive_seed("cell", cell.data.name, cell.data.fold, cell.seed)
    good = not material.classes or material.classes[0] == GOOD
    fitted = fit(material.train, material.train_labels, outputs, cell.protocol, seed, judge, good)
    scores = score_table(material, logits)
    result = {
        **evaluate(scores, cell.protocol),
        "counts": material.counts,
        "curves": {"loss": fitted.losses, "test": curve},
        "best_epoch_oracle": max(curve, key=lambda point: (point[score], -point["epoch"])),
    }
    finished = time.perf_counter()
    times = {"total": finished - started, "gather": gathered - started, "judge": judging}
    times["fit"] = times["total"] - times["gather"] - times["judge"]
    record = commit(context, cell, takes, scores, result, times, fitted.shown)
    found = ", ".join(f"{name} {value:.4f}" for name, value in numbers(record).items())
    log.info("%s; committed in %.2f s", found, time.perf_counter() - finished)
    if context.save_weights:
        _save_weights(context, cell, fitted)
    return record


def headline(record: dict) -> dict[str, float]:
    """The one number of a record that progress shows: AP, or accuracy in recognition."""
    result = record["result"]
    name = "ap" if "ap" in result else "accuracy"
    return {name: result[name]}


def numbers(record: dict) -> dict[str, float]:
    """What a tracker shows of a record, by the names of the reports' CSV files.

    In detection precision, recall and F1 are at the best F1 on the test split, an oracle's; those called ``heldout_``
    are at the threshold that the held-out good pictures gave.
    """
    result = record["result"]
    shown: dict[str, float | None] = {name: result[name] for name in SHOWN if name in result}
    for part, (prefix, names) in SHOWN_AT_THRESHOLD.items():
        if result.get(part):
            shown |= {f"{prefix}{name}": result[part][name] for name in names}
    shown |= {"loss": result["curves"]["loss"][-1], "seconds": record["provenance"]["seconds"]["total"]}
    return {name: value for name, value in shown.items() if value is not None}


def gather(context: Context, pictures: DecodedImages, cell: Cell, takes: Sequence[PoolSlice]) -> CellData:
    """The pictures of a cell: negatives, shots and synthetic ones to train on; test and held-out ones to judge."""
    import torch

    device = torch.device(context.device)
    split = context.library.split(cell.data)
    shots = context.library.shots(cell.data, cell.shots, cell.draw)
    size = geometry(cell.protocol)
    real = pictures.real[cell.data.alias, size]
    pools = [pictures.pool(take, size) for take in takes]
    classes = _outputs(cell, split)
    judged = pd.concat([split.test.assign(part="test"), split.heldout.assign(part="heldout")], ignore_index=True)
    train = pd.concat([split.negatives, shots])
    labels = [_labels(train["label"], classes), *(_pool_labels(take, cell, classes) for take in takes)]
    if not classes and not any(part.any() for part in labels):
        raise UserError(f"cell '{cell.key}' has no defective picture to learn from: use shots > 0 or an augmenter")
    row_of = context.library.row_of(cell.data.alias)
    synthetic_rows = np.arange(len(real), len(real) + sum(map(len, pools)))
    parts = [pictures.tensor(array, device) for array in (real, *pools)]
    train_rows = np.concatenate([row_of[train["id"]].to_numpy(), synthetic_rows])
    return CellData(
        train=DeviceImages(parts, train_rows, cell.protocol, device),
        train_labels=np.concatenate(labels),
        judge=DeviceImages(parts[:1], row_of[judged["id"]].to_numpy(), cell.protocol, device),
        judged=judged,
        classes=classes,
        counts={
            "train_negatives": len(split.negatives),
            "shots": len(shots),
            "synthetic": sum(take.n for take in takes),
            "heldout_negatives": len(split.heldout),
            "test_negatives": int((split.test["label"] == GOOD).sum()),
            "test_positives": int((split.test["label"] != GOOD).sum()),
        },
    )


def _outputs(cell: Cell, split: Split) -> tuple[str, ...]:
    """What each logit stands for: () in detection; in recognition the classes, `GOOD` among them if it occurs."""
    good = (GOOD,) if cell.data.classes and len(split.negatives) else ()
    return good + cell.data.classes


def _labels(names: pd.Series, classes: tuple[str, ...]) -> np.ndarray:
    if not classes:
        return (names != GOOD).to_numpy(np.int64)
    return names.map({name: number for number, name in enumerate(classes)}).to_numpy(np.int64)


def _pool_labels(take: PoolSlice, cell: Cell, classes: tuple[str, ...]) -> np.ndarray:
    """Pool pictures are interleaved by defect class; in detection all are positive."""
    if not classes:
        return np.ones(take.n, np.int64)
    numbers = np.array([classes.index(name) for name in cell.data.classes], np.int64)
    return numbers[np.arange(take.n) % len(numbers)]


def score_table(material: CellData, logits: np.ndarray) -> pd.DataFrame:
    """One row per judged picture: id, part, label, group, and a float32 column per logit, named for its class."""
    table = material.judged[["id", "part", "label", "group"]].astype(str).reset_index(drop=True)
    names = [f"logit_{name}" for name in material.classes] or ["logit"]
    for column, name in enumerate(names):
        table[name] = logits[:, column].astype(np.float32)
    return table


def commit(
    context: Context,
    cell: Cell,
    takes: Sequence[PoolSlice],
    scores: pd.DataFrame,
    result: dict,
    seconds: dict[str, float],
    shown: int,
) -> dict:
    """Write the scores, then the record: the record is the commit marker.

    Args:
        context: where to.
        cell: what was trained.
        takes: the pools it used.
        scores: from `score_table`.
        result: from `evaluate`, with counts and curves.
        seconds: total, gather, fit, judge.
        shown: training pictures, repetitions counted.
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
            "embedded": _embedded(context.library, cell, takes),
            "notes": [*notes_of(context.library, cell, takes), *_searches(context, takes)],
            "device": device_name(context.device),
            "git_sha": context.git_sha,
            "versions": versions(),
        },
    }
    context.store.write_json("cells", cell.key, record)
    context.store.clear_failure(cell.key)
    return record


def _searches(context: Context, takes: Sequence[PoolSlice]) -> list[str]:
    """What searches chose for the pools, or why they did not, a line each."""
    found = [(take.pool.augmenter.name, chosen_augmenter(context, take.pool.adapter)[1]) for take in takes]
    return [f"{name}: {line_of(record)}" for name, record in found if record]


def _embedded(library: Library, cell: Cell, takes: Sequence[PoolSlice]) -> list[str]:
    """The parts that come with this package, for which a result shows mechanics and is no evidence."""
    found = [f"dataset {cell.data.name}"] if library.dataset(cell.data.alias).embedded else []
    if (cell.protocol.backbone, cell.protocol.weights) == (micro_resnet.NAME, "timm"):
        found.append(f"backbone {micro_resnet.NAME}")
    augmenters = [take.pool.augmenter for take in takes]
    return found + [f"augmenter {spec.name}" for spec in augmenters if library.augmenter(spec).embedded()]


def _save_weights(context: Context, cell: Cell, fitted: Fitted) -> None:
    from safetensors.torch import save

    state = {name: tensor.cpu().contiguous() for name, tensor in fitted.model.state_dict().items()}
    context.store.files.write(context.store.name("weights", cell.key), save(state))
