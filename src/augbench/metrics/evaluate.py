"""All metrics of a cell, computed from its score table, so published results can be recomputed without training.

A score table has one row per evaluated image: ``id``, ``part`` ("test" or "heldout"), ``label``, ``group``, and a
float32 column per logit: ``logit`` in detection, ``logit_<class>`` in recognition.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.core.protocol import Protocol
from augbench.metrics import detection, recognition

AP = {
    "step": detection.average_precision,
    "trapezoidal": detection.average_precision_trapezoidal,
    "trapezoidal_ties": detection.average_precision_trapezoidal_ties,
}
"""Definition of AP -> its function, of labels and scores."""
ALWAYS = ("step", "trapezoidal")
"""The definitions that every record states; the others are stated where the protocol uses them."""


def evaluate(scores: pd.DataFrame, protocol: Protocol) -> dict:
    """Compute the metrics of a record.

    Detection: ``ap`` (as the protocol defines it), ``ap_step``, ``ap_trapezoidal``, and ``ap_trapezoidal_ties`` where
    the protocol uses it; ``auroc``,
    ``recall_at_1pct_false_alarms``; ``oracle`` and ``heldout``, each precision, recall, F1, accuracy and FPR at its
    threshold (``heldout`` is None if nothing was held out); ``per_class``: of each defect class ``support``, ``ap``
    against the normal images, ``recall`` at the oracle's threshold and ``heldout_recall``.

    Recognition: ``accuracy``, ``macro_f1``, ``confusion`` (row = true class, as ``classes`` names them), and
    ``per_class``: of each class ``precision``, ``recall``, ``f1``, ``support``.

    Raises:
        UserError: the logits are not finite.
    """
    _refuse_diverged(scores, protocol)
    test, heldout = (scores[scores["part"] == part] for part in ("test", "heldout"))
    if "logit" not in scores:
        return _recognition(test)
    names, logits = test["label"].to_numpy(), test["logit"].to_numpy()
    labels = names != GOOD
    definitions = dict.fromkeys([*ALWAYS, protocol.ap, *([protocol.ap_beside] if protocol.ap_beside else [])])
    ap = {f"ap_{definition}": AP[definition](labels, logits) for definition in definitions}
    result = {
        "ap": ap[f"ap_{protocol.ap}"],
        **ap,
        "auroc": detection.auroc(labels, logits),
        "recall_at_1pct_false_alarms": detection.recall_at_false_alarms(labels, logits, rate=0.01),
        "oracle": detection.at_threshold(labels, logits, detection.best_f1_threshold(labels, logits)),
        "heldout": None,
    }
    if len(heldout):
        threshold = detection.threshold_for_false_alarms(heldout["logit"].to_numpy(), protocol.false_alarm_rate)
        result["heldout"] = detection.at_threshold(labels, logits, threshold)
    return {**result, "per_class": _per_class(names, logits, result, protocol)}


def headline_score(scores: pd.DataFrame, protocol: Protocol) -> float:
    """Compute the metric of the test curve, equal to that of `evaluate`: ``ap``, or ``accuracy`` in recognition.

    Raises:
        UserError: the logits are not finite.
    """
    _refuse_diverged(scores, protocol)
    test = scores[scores["part"] == "test"]
    if "logit" not in scores:
        return recognition.accuracy(_confusion(test))
    return AP[protocol.ap]((test["label"] != GOOD).to_numpy(), test["logit"].to_numpy())


def _refuse_diverged(scores: pd.DataFrame, protocol: Protocol) -> None:
    if not np.isfinite(scores.filter(like="logit").to_numpy()).all():
        if protocol.kind != "finetune":
            raise UserError(f"logits are not finite: give protocol '{protocol.name}' another head or backbone")
        raise UserError(
            f"training diverged (logits are not finite at lr {protocol.lr:g}): lower lr in protocol '{protocol.name}'"
        )


def _per_class(names: np.ndarray, logits: np.ndarray, result: dict, protocol: Protocol) -> dict[str, dict]:
    """Compute metrics per defect class: a single class may dominate the overall AP."""
    found = detection.by_class(names, logits, GOOD, AP[protocol.ap])
    for metric, at in (("recall", result["oracle"]), ("heldout_recall", result["heldout"])):
        recalls = detection.recall_by_class(names, logits, GOOD, at["threshold"]) if at else {}
        for name, values in found.items():
            values[metric] = recalls.get(name)
    return found


def _classes(test: pd.DataFrame) -> list[str]:
    return [column.removeprefix("logit_") for column in test if column.startswith("logit_")]


def _confusion(test: pd.DataFrame) -> np.ndarray:
    classes = _classes(test)
    labels = test["label"].map({name: number for number, name in enumerate(classes)}).to_numpy()
    predicted = test[[f"logit_{name}" for name in classes]].to_numpy().argmax(axis=1)
    return recognition.confusion_matrix(labels, predicted, len(classes))


def _recognition(test: pd.DataFrame) -> dict:
    matrix, classes = _confusion(test), _classes(test)
    return {
        "accuracy": recognition.accuracy(matrix),
        "macro_f1": recognition.macro_f1(matrix),
        "per_class": dict(zip(classes, recognition.by_class(matrix), strict=True)),
        "confusion": matrix.tolist(),
        "classes": classes,
    }
