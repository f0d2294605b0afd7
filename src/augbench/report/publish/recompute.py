"""Verification of a cell's record: recompute every number that follows from its scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from augbench.core import registry
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.core.filters import make_filters
from augbench.core.specs import Cell, shots_in_all
from augbench.metrics.evaluate import evaluate
from augbench.planning.extractor_choice import EMBEDDED
from augbench.storage.records import CHOICES, Counts, Curves, read_as
from augbench.storage.scores import ABOUT

TOLERANCE = 1e-9
"""Relative to the larger of 1 and the number. The machine that made a record gives equal numbers. On another machine
they are equal up to rounding: a curve's thousands of float64 terms differ by 1e-13. Tables print three decimals."""

TRAINING = {
    "finetune": ("counts", "steps", "curves", "best_epoch_oracle"),
    "probe": ("counts", "chosen"),
    "gaussian": ("counts", "chosen"),
    "neighbours": ("counts", "chosen"),
}
"""Kind of protocol -> the fields of a result that are not metrics."""


def score_problems(cell: Cell, scores: pd.DataFrame) -> list[str]:
    """Find the reasons why these cannot be the scores of this cell, one clause each."""
    logits = [column for column in scores if column not in ABOUT]
    classes = list(cell.data.classes)
    allowed = [[f"logit_{name}" for name in names] for names in (classes, [GOOD, *classes])] if classes else [["logit"]]
    if logits not in allowed:
        return [f"its scores have the logits {', '.join(logits) or 'none'}, its spec asks for {', '.join(allowed[0])}"]
    problems = []
    if not np.isfinite(scores[logits].to_numpy()).all():
        problems.append("its scores hold logits that are not finite")
    if other := set(scores["part"]) - {"test", "heldout"}:
        problems.append(f"its scores have the part '{min(other)}': test and heldout are known")
    if scores["id"].duplicated().any():
        problems.append(f"its scores contain '{scores['id'][scores['id'].duplicated()].iloc[0]}' twice")
    test, heldout = (scores.loc[scores["part"] == part, "label"] for part in ("test", "heldout"))
    if classes and (unknown := set(test) - {name.removeprefix("logit_") for name in logits}):
        problems.append(f"its scores have the label '{min(unknown)}', which is none of its classes")
    if not classes and set(test == GOOD) != {True, False}:
        problems.append("its scores have no normal or no defect test images")
    if bool(len(heldout)) != bool(cell.data.holdout) or (heldout != GOOD).any():
        problems.append("its held-out scores are not those of the normal images that its spec holds out")
    return problems


def differences(cell: Cell, result: Mapping[str, Any], scores: pd.DataFrame) -> list[str]:
    """Find the fields of a result that do not follow from the scores, one clause each: stated and recomputed value.

    Args:
        cell: the record's spec.
        result: the record's result.
        scores: a table in which `score_problems` finds nothing.
    """
    found = evaluate(scores, cell.protocol)
    kind = cell.protocol.kind
    training = {name for names in TRAINING.values() for name in names}
    stated = {name: value for name, value in result.items() if name not in training}
    problems = [
        f"{name} is {_short(was)}, its scores give {_short(now)}" for name, was, now in _compare("", stated, found)
    ]
    others = sorted((result.keys() & training) - set(TRAINING[kind]))
    problems += [f"{name} is stated, a result of kind '{kind}' has none" for name in others]
    miscounted = _counts(cell, result.get("counts"), scores)
    if kind == "finetune":
        return problems + miscounted + _curves(cell, result, found)
    return problems + (miscounted or _chosen(cell, result))


def counts_nothing(result: Mapping[str, Any]) -> bool:
    """Return whether synthetic images have weight 0, so that the classifier equals one without them."""
    chosen = result.get("chosen")
    return isinstance(chosen, dict) and chosen.get("synthetic_weight") == 0


def unmarked(cell: Cell, stated: Iterable[str]) -> list[str]:
    """Find smoke-test parts that a record does not name, one clause each; with such a part a result is not evidence.

    Plug-ins that are not installed are not checked.
    """
    parts = []
    if cell.data.name in registry.find("datasets") and registry.get("datasets", cell.data.name).embedded:
        parts.append(f"dataset {cell.data.name}")
    if (cell.protocol.backbone, cell.protocol.weights) == (EMBEDDED, "timm"):
        parts.append(f"backbone {EMBEDDED}")
    if (vae := cell.protocol.vae()) and vae.embedded():
        parts.append(f"roundtrip {cell.protocol.roundtrip}")
    parts += _embedded_augmenters(cell.augmenter.name, cell.augmenter.settings) if cell.n_aug else []
    judge = make_filters(cell.augmenter.filters).unseen if cell.n_aug else None
    parts += [f"filter {EMBEDDED}"] if judge and judge.backbone == EMBEDDED else []
    return [f"embedded does not name '{part}'" for part in parts if part not in set(stated)]


def seconds_problems(seconds: Mapping[str, float]) -> list[str]:
    """Check that the seconds of a training add up; nothing else about them can be verified."""
    parts = seconds["gather"] + seconds["judge"] + seconds["fit"]
    if abs(parts - seconds["total"]) > 1e-6 * max(1, seconds["total"]):
        return [f"provenance.seconds.total is {seconds['total']!r}, its parts add up to {parts!r}"]
    return []


def _embedded_augmenters(name: str, settings: Mapping[str, Any]) -> list[str]:
    if name not in registry.find("augmenters"):
        return []
    try:
        augmenter = registry.make("augmenters", name, dict(settings))
        parts = augmenter.parts()
        own = [] if parts or not augmenter.embedded() else [f"augmenter {name}"]
    except UserError:
        return []  # settings of another version, or missing files
    return own + [inner for part in parts for inner in _embedded_augmenters(part.augmenter, part.settings)]


_ABSENT = object()


def _compare(name: str, stated: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (field, stated, recomputed) for every difference."""
    if isinstance(stated, dict) and isinstance(found, dict):
        for key in sorted(stated.keys() | found.keys()):
            yield from _compare(f"{name}.{key}".lstrip("."), stated.get(key, _ABSENT), found.get(key, _ABSENT))
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        for index, pair in enumerate(zip(stated, found, strict=True)):
            yield from _compare(f"{name}[{index}]", *pair)
    elif not _equal(stated, found):
        yield name, stated, found


def _equal(stated: Any, found: Any) -> bool:
    if _is_number(stated) and _is_number(found):
        return abs(stated - found) <= TOLERANCE * max(1, abs(found))  # False for NaN
    return type(stated) is type(found) and stated == found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return "missing" if value is _ABSENT else "empty" if isinstance(value, dict) and not value else repr(value)


def _counts(cell: Cell, stated: Any, scores: pd.DataFrame) -> list[str]:
    try:
        counts: Counts = read_as(Counts, stated)
    except UserError as error:
        return [f"counts: {error}"]
    test = scores.loc[scores["part"] == "test", "label"]
    each = max(len(cell.data.classes), 1)  # N_aug is per class
    known = {
        "test_negatives": int((test == GOOD).sum()),
        "test_positives": int((test != GOOD).sum()),
        "heldout_negatives": int((scores["part"] == "heldout").sum()),
        "synthetic": cell.n_aug * each,
        **({} if cell.shots == "all" else {"shots": shots_in_all(cell.shots, cell.draw, cell.data.classes)}),
    }
    return [
        f"counts.{name} is {getattr(counts, name)}, scores and spec give {number}"
        for name, number in known.items()
        if getattr(counts, name) != number
    ]


def _curves(cell: Cell, result: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Check that the last point of the test curve follows from the scores, and the best epoch from the curve."""
    try:
        curves: Curves = read_as(Curves, result.get("curves"))
    except UserError as error:
        return [f"curves: {error}"]
    metric, epochs, every = "ap" if "ap" in found else "accuracy", cell.protocol.epochs, cell.protocol.eval_every
    evaluated = [epoch for epoch in range(1, epochs + 1) if epoch % every == 0 or epoch == epochs]
    if len(curves.loss) != epochs or [point.get("epoch") for point in curves.test] != evaluated:
        return [f"curves are not those of {epochs} epochs, evaluated every {every}"]
    if any(point.keys() != {"epoch", metric} or not 0 <= point[metric] <= 1 for point in curves.test):
        return [f"curves.test has points that are not an epoch and its {metric} in [0, 1]"]
    problems, last = [], curves.test[-1][metric]
    if not _equal(last, found[metric]):
        problems.append(f"curves.test ends with {metric} {last!r}, its scores give {found[metric]!r}")
    best = max(curves.test, key=lambda point: (point[metric], -point["epoch"]))
    if result.get("best_epoch_oracle") != best:
        problems.append(f"best_epoch_oracle is {result.get('best_epoch_oracle')!r}, its curve gives {best!r}")
    return problems


def _chosen(cell: Cell, result: Mapping[str, Any]) -> list[str]:
    """Check what a classifier on frozen features was fitted with, as far as the protocol fixes it."""
    protocol = cell.protocol
    try:
        chosen = read_as(CHOICES[protocol.kind], result.get("chosen"))
    except UserError as error:
        return [f"chosen: {error}"]
    if protocol.normals_only:
        return []
    counts, alike = result["counts"], protocol.head == "lda"
    fixed = {
        "C": None if alike else protocol.C,
        "synthetic_weight": None if alike or not cell.n_aug else protocol.synthetic_weight,
    }
    if fixed["synthetic_weight"] == "equal_mass":
        fixed["synthetic_weight"] = counts["shots"] / counts["synthetic"] if counts["shots"] else 1.0
    return [
        f"chosen.{name} is {value!r}, its spec gives {'a number' if fixed[name] == 'cv' else repr(fixed[name])}"
        for name, value in chosen
        if (value is None if fixed[name] == "cv" else not _equal(value, fixed[name]))
    ]
