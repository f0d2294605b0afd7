"""Probes: fit a classifier on features of a frozen backbone, and evaluate it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from augbench.classifiers.probe import (
    CrossFitted,
    Gaussian,
    Neighbours,
    Probe,
    ProbeRows,
    fit_cross_fitted,
    fit_gaussian,
    fit_neighbours,
    fit_probe,
)
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.core.seeds import derive_seed
from augbench.core.specs import Cell, FeatureSpec
from augbench.metrics.evaluate import evaluate
from augbench.planning.plan import PoolSlice
from augbench.stages.cell_data import CellData, Trained, data_of, score_table
from augbench.stages.context import Context
from augbench.stages.features import Features, features_of, features_of_dataset

log = logging.getLogger(__name__)


def probe(context: Context, cell: Cell, slices: Sequence[PoolSlice]) -> Trained:
    """Fit and evaluate the classifier of a cell, with one thread.

    Raises:
        UserError: features are not available, or there is no image of a label to train on.
    """
    started = time.perf_counter()
    data = data_of(context.library, cell, slices)
    real = features_of_dataset(context, cell)
    used = [one for one in slices if one.n]
    pools = [(one, features_of(context, FeatureSpec(one.pool, cell.protocol), one.chunks)) for one in used]
    rows = _rows(context, cell, data, real, pools)
    gathered = time.perf_counter()
    with threadpool_limits(1):  # the number of threads changes rounding
        fitted, chosen = _fit(context, rows, data, cell)
        fit_until = time.perf_counter()
        logits = fitted(real[data.evaluated_rows]).reshape(len(data.evaluated), data.outputs)
    scores = score_table(data, logits)
    result = {**evaluate(scores, cell.protocol), "counts": data.counts, "chosen": chosen}
    finished = time.perf_counter()
    times = {"total": finished - started, "gather": gathered - started, "judge": finished - fit_until}
    times["fit"] = times["total"] - times["gather"] - times["judge"]
    return Trained(scores, result, times, len(rows.labels), fitted.arrays)


def _rows(
    context: Context, cell: Cell, data: CellData, real: np.ndarray, pools: Sequence[tuple[PoolSlice, Features]]
) -> ProbeRows:
    """Return the training rows: the real ones sorted by id, then the synthetic ones by index in their pools."""
    order = np.argsort(data.train["id"].to_numpy(), kind="stable")
    count = len(order)
    group_of = context.library.group_of(cell.data.alias)
    sources = [source for one, features in pools for source in features.sources[: one.n]]
    groups = [*data.train["group"].to_numpy()[order], *(group_of.get(source, "") for source in sources)]
    labels = np.concatenate([data.labels[:count][order], data.labels[count:]])
    defects = [*(data.train["label"].to_numpy()[order] != GOOD), *(True for _ in sources)]
    return ProbeRows(
        features=np.concatenate([real[data.train_rows[order]], *(one.values[: of.n] for of, one in pools)]),
        labels=labels,
        defects=np.array(defects, bool),
        groups=np.array(groups, object).astype(str),
        synthetic=np.arange(len(labels)) >= count,
    )


def _fit(
    context: Context, rows: ProbeRows, data: CellData, cell: Cell
) -> tuple[Probe | Gaussian | Neighbours, dict[str, float | None]]:
    if cell.protocol.kind == "gaussian":
        gaussian = fit_gaussian(rows.features[~rows.defects])
        return gaussian, {"shrinkage": gaussian.shrinkage}
    if cell.protocol.kind == "neighbours":
        return fit_neighbours(rows.features[~rows.defects]), {}
    names = data.classes or ("normal", "defect")
    if lacking := [name for number, name in enumerate(names) if number not in rows.labels]:
        raise UserError(f"cell '{cell.key}' has no training image of '{lacking[0]}': use more shots or a larger N_aug")
    # Not of the seed of a cell, which is that of its pool: the same folds and initialisation beside every pool.
    seed = derive_seed("probe", cell.data.name, cell.data.fold) % 2**31
    return fit_probe(rows, data.outputs, cell.protocol, seed, _normals(context, rows, cell))


def _normals(context: Context, rows: ProbeRows, cell: Cell) -> CrossFitted | None:
    """Return the normal training images, where the protocol asks for the distance to them.

    They are those of all shots, draws and pools of a fold. A process holds the last ones.
    """
    if not cell.protocol.normality:
        return None
    fold = (cell.data.digest, digest(cell.protocol.feature_fields))
    if fold not in context.normals:
        context.normals.clear()
        context.normals[fold] = fit_cross_fitted(rows.features[~rows.defects], rows.groups[~rows.defects])
    return context.normals[fold]
