"""Fine-tuning: train the whole backbone of a cell on its images, and evaluate it on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from augbench.classifiers.fit import fit, predict
from augbench.classifiers.loader import DeviceImages
from augbench.core.protocol import Protocol
from augbench.core.seeds import derive_seed
from augbench.core.specs import Cell
from augbench.metrics.evaluate import evaluate, headline_score
from augbench.planning.plan import PoolSlice
from augbench.stages.cell_data import CellData, Trained, data_of, score_table
from augbench.stages.context import Context
from augbench.stages.decoded_images import DecodedImages, geometry
from augbench.stages.features import features_of_dataset
from augbench.stages.soft_labels import soft_labels

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def finetune(context: Context, images: DecodedImages, cell: Cell, slices: Sequence[PoolSlice]) -> Trained:
    """Train and evaluate the classifier of a cell.

    Raises:
        UserError: weights or images are not available, or there is no defect image to train on.
    """
    import torch

    torch.set_num_threads(cell.protocol.threads_per_cell)
    started = time.perf_counter()
    data = data_of(context.library, cell, slices)
    train, evaluation = gather(context, images, cell, slices, data)
    gathered = time.perf_counter()
    log.info("gathered in %.2f s: %s", gathered - started, ", ".join(f"{n} {v}" for n, v in data.counts.items()))
    curve, evaluation_seconds, logits = [], 0.0, np.empty(0)

    def evaluate_epoch(model: torch.nn.Module, epoch: int) -> None:
        nonlocal evaluation_seconds, logits
        if epoch % cell.protocol.eval_every == 0 or epoch == cell.protocol.epochs:
            evaluation_started = time.perf_counter()
            logits = predict(model, evaluation, cell.protocol)
            score = headline_score(score_table(data, logits), cell.protocol)
            curve.append({"epoch": epoch, data.metric: score})
            seconds = time.perf_counter() - evaluation_started
            evaluation_seconds += seconds
            log.info("epoch %d: %s %.4f on the test split, %.2f s", epoch, data.metric, score, seconds)

    # From the cell's names, not its key: a seed gives the same initialisation for all augmenters and their settings.
    seed = derive_seed("cell", cell.data.name, cell.data.fold, cell.seed)
    protocol = _with_budget(cell.protocol, data)
    weights = _loss_weights(cell, data)
    targets = soft_labels(context, cell, slices, data) if cell.protocol.labels == "masks" else None
    fitted = fit(train, data.labels, data.outputs, protocol, seed, evaluate_epoch, data.has_normal, weights, targets)
    scores = score_table(data, logits)
    result = {
        **evaluate(scores, cell.protocol),
        "counts": data.counts,
        "steps": len(fitted.step_losses),
        "curves": {"loss": fitted.losses, "test": curve},
        "best_epoch_oracle": max(curve, key=lambda point: (point[data.metric], -point["epoch"])),
    }
    times = {"total": time.perf_counter() - started, "gather": gathered - started, "judge": evaluation_seconds}
    times["fit"] = times["total"] - times["gather"] - times["judge"]
    state = fitted.model.state_dict()
    return Trained(scores, result, times, fitted.shown, lambda: {k: v.cpu().numpy() for k, v in state.items()})


def _with_budget(protocol: Protocol, data: CellData) -> Protocol:
    """Return the protocol with the samples of an epoch that its budget gives: those of the real images alone."""
    if protocol.budget == "epochs":
        return protocol
    if protocol.sampler == "shuffle":
        return protocol.model_copy(update={"epoch_pictures": len(data.train)})
    classes = data.train["label"].value_counts()
    balanced = 2 * data.counts["shots"] if data.has_normal else len(classes) * int(classes.max())
    return protocol.model_copy(update={"epoch_pictures": balanced})


def _loss_weights(cell: Cell, data: CellData) -> np.ndarray | None:
    """Return the weight of each training image in the loss, N float32; None where all count alike.

    The mean weight of a label is 1, so a balanced sampler stays balanced whatever a synthetic image counts; with
    ``class_weights: equal`` all labels have the same total.
    """
    real, made, equal = len(data.train), data.counts["synthetic"], cell.protocol.class_weights == "equal"
    weight = cell.protocol.synthetic_weight if made else 1
    if weight == 1 and not equal:
        return None
    if weight == "equal_mass":
        weight = data.counts["shots"] / made or 1.0  # 1: there is no real defect
    weights = np.concatenate([np.ones(real), np.full(made, weight)])
    totals, counts = np.bincount(data.labels, weights), np.bincount(data.labels)
    wanted = np.full(len(counts), len(weights) / np.count_nonzero(counts)) if equal else counts
    return (weights * wanted[data.labels] / totals[data.labels]).astype(np.float32)


def gather(
    context: Context, images: DecodedImages, cell: Cell, slices: Sequence[PoolSlice], data: CellData
) -> tuple[DeviceImages, DeviceImages]:
    """Return the images to train on and to evaluate, on the device."""
    import torch

    device = torch.device(context.device)
    size = geometry(cell.protocol)
    real = features_of_dataset(context, cell) if cell.protocol.roundtrip else images.real[cell.data.alias, size]
    pools = [images.pool(pool_slice, size) for pool_slice in slices]
    synthetic_rows = np.arange(len(real), len(real) + sum(map(len, pools)))
    parts = [images.tensor(array, device) for array in (real, *pools)]
    train_rows = np.concatenate([data.train_rows, synthetic_rows])
    return (
        DeviceImages(parts, train_rows, cell.protocol, device),
        DeviceImages(parts[:1], data.evaluated_rows, cell.protocol, device),
    )
