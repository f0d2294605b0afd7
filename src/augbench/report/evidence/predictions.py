"""Test scores of cells as arrays: label, prediction and physical item of each test image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.storage.scores import scores_frame
from augbench.storage.store import FIX_HINT, Store

TOLERANCE = 1e-6  # between a record's metric and that of its scores; rounding differs by far less


@dataclass(frozen=True)
class Predictions:
    """Labels and predictions of one cell's N test images."""

    labels: np.ndarray  # N: in detection bool, True = defect; in recognition int64 class indices
    answers: np.ndarray  # N: in detection logits, float32; in recognition int64 predicted class indices
    groups: np.ndarray  # N str: images of one physical item share a group
    defective: np.ndarray  # N bool


def load_predictions(store: Store, keys: Sequence[str]) -> dict[str, Predictions]:
    """Load the test scores of these cells, by key.

    Raises:
        UserError: scores are missing, damaged, or not scores.
    """
    contents = store.files.read_many([store.name("scores", key) for key in keys])
    return {key: _predictions_of(data, store.where("scores", key)) for key, data in zip(keys, contents, strict=True)}


def _predictions_of(data: bytes | None, place: str) -> Predictions:
    if data is None:
        raise UserError(f"scores '{place}' are missing: run the grid again to make them anew")
    try:
        table = scores_frame(data)
        test = table[table["part"] == "test"]
        names, groups = test["label"].to_numpy(str), test["group"].to_numpy(str)
        if "logit" in test:
            return Predictions(names != GOOD, test["logit"].to_numpy(), groups, names != GOOD)
        columns = [column for column in test if column.startswith("logit_")]
        number = {column.removeprefix("logit_"): place for place, column in enumerate(columns)}
        labels = np.array([number[name] for name in names], np.int64)
        return Predictions(labels, test[columns].to_numpy().argmax(axis=1), groups, names != GOOD)
    except (KeyError, ValueError) as error:
        raise UserError(f"scores '{place}' are damaged ({type(error).__name__}: {error}): {FIX_HINT}") from None


def check_against(stated: float, found: float, metric: str, place: str) -> None:
    """Raise UserError where a record's metric does not follow from its scores: one of the two is of another run."""
    if not abs(stated - found) <= TOLERANCE:
        raise UserError(f"scores '{place}' give {metric} {found:.6f}, their record says {stated:.6f}: {FIX_HINT}")
