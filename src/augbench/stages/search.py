"""The search stage: find the settings of an augmenter whose images are closest to real defects it has not seen.

Step 4 of StableSDG (arXiv 2405.01872) repeats adaptation and generation over hyperparameters and selects the lowest
FID. If candidates were scored on the shots they were adapted to, copying would win: a strength near 0. So the shots are
split in two halves, by groups and stratified by class. A candidate is adapted to one half, scored by KID (or FID, with
many images) against the other half, and refused if its images are copies. Test images are never used. With too few
shots for two halves there is no search: the settings stay as they are, and the record says so.

An *arm* is one adaptation: settings that `adapt` reads, and one half. All candidates that differ only in settings of
`generate` share it.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

import augbench
from augbench.core.contracts import AdaptContext, Augmenter, Candidate, Request, Scoring, TrainView
from augbench.core.errors import UserError
from augbench.core.gpu import free_gpu
from augbench.core.hashing import canonical_json
from augbench.core.seeds import derive_seed
from augbench.core.specs import AdapterSpec, SearchSpec
from augbench.features.extractor import Extractor, aspect_of, thumbnails
from augbench.metrics.fidelity import fid, memorisation
from augbench.planning.splits import grouped_folds
from augbench.stages.adapt import ReportProgress, Throttled
from augbench.stages.context import Context, loaded_extractor, repeatable
from augbench.stages.fidelity import images_of, kid_by_class
from augbench.stages.generate import DEFECT
from augbench.storage.store import Store

MIN_HALF = 2  # real images per class and half
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arm:
    """One adaptation and all candidates that share it."""

    adapting: Mapping[str, Any]
    fold: int  # the half that candidates are evaluated on
    candidates: tuple[Candidate, ...]


def arms_of(augmenter: Augmenter) -> list[Arm]:
    """Return the arms of an augmenter's search, in order."""
    by_adapting: dict[str, list[Candidate]] = {}
    for candidate in augmenter.candidates():
        by_adapting.setdefault(canonical_json(candidate.adapting), []).append(candidate)
    folds = range(augmenter.scoring().folds)
    return [Arm(group[0].adapting, fold, tuple(group)) for group in by_adapting.values() for fold in folds]


def why_not(context: Context, spec: SearchSpec) -> str:
    """Return why the shots of a search cannot be split in halves; "" if they can."""
    _, labels, fold = _halves(context, spec)
    for label in sorted(set(labels)):
        for half in (0, 1):
            count = int(((labels == label) & (fold == half)).sum())
            if count < MIN_HALF:
                name = "the shots" if label == DEFECT else f"the shots of class '{label}'"
                few = f"{name} are too few for two halves of {MIN_HALF} pictures or more"  # stored in records
                return f"{few}: the settings stay as they are"
    return ""


def arms_to_run(context: Context, spec: SearchSpec) -> int:
    """Return the number of arms; 0 with too few shots."""
    return 0 if why_not(context, spec) else len(arms_of(context.library.augmenter(spec.adapter.augmenter)))


def arm_rows(store: Store, spec: SearchSpec, number: int) -> list[dict] | None:
    """Read the rows of an arm; None if it is not committed, or was committed by another version of augbench."""
    try:
        found = store.parsed(store.arm_name(spec, number))
    except FileNotFoundError:
        return None
    return found["rows"] if found.get("augbench") == augbench.__version__ else None


def run_arm(
    context: Context, spec: SearchSpec, number: int, report_progress: ReportProgress = lambda *progress: None
) -> list[dict]:
    """Adapt to one half, evaluate the arm's candidates, and commit their rows. Returns the rows.

    A committed arm is only read.

    Raises:
        UserError: the augmenter refuses, or there are too few images for FID.
    """
    if (rows := arm_rows(context.store, spec, number)) is not None:
        return rows
    augmenter = context.library.augmenter(spec.adapter.augmenter)
    arm = arms_of(augmenter)[number]
    shots, labels, fold = _halves(context, spec)
    seen, unseen = shots[fold != arm.fold], shots[fold == arm.fold]
    half_view = context.view(augmenter, spec.adapter).with_shots(seen["id"])
    rows = []
    arithmetic = repeatable(True, context.device, augmenter.precision_on(context.device))
    with tempfile.TemporaryDirectory(prefix="augbench-search-") as folder, arithmetic:
        score = _HalfScorer(context, spec.adapter, augmenter.scoring(), seen, unseen, labels[fold == arm.fold])
        adapter = Path(folder)
        scratch = context.store.files.scratch_folder(f"{spec.key}-{number:03d}")
        progress = Throttled(spec.key, report_progress)
        adapt_context = AdaptContext(scratch, context.store.shared, context.device, progress)
        started = time.perf_counter()
        if augmenter.learns:
            learner = augmenter.chosen(arm.adapting)
            learner.adapt(half_view, adapter, derive_seed("adapt", spec.adapter.augmenter.name), adapt_context)
        adapting = time.perf_counter() - started
        for candidate in arm.candidates:
            started = time.perf_counter()
            candidate_augmenter = augmenter.chosen(candidate.settings)  # frees the one before
            free_gpu(context.device)
            candidate_augmenter.load(adapter if augmenter.learns else None, context.device)
            images, classes = _generated(candidate_augmenter, half_view, spec.adapter, augmenter.scoring().pictures)
            scores = score(images, classes)
            seconds = {"adapting": adapting, "generating": time.perf_counter() - started}
            rows.append({"settings": candidate.settings, "fold": arm.fold, **scores, "seconds": seconds})
            log.info("%s: %s, %s", *(canonical_json(part) for part in (candidate.settings, scores, seconds)))
    arm_name = context.store.arm_name(spec, number)
    context.store.write_json_at(arm_name, {"rows": rows, "augbench": augbench.__version__})
    shutil.rmtree(scratch, ignore_errors=True)
    return rows


def decide(context: Context, spec: SearchSpec) -> dict[str, Any]:
    """Choose the best candidate from the rows of all arms, and commit the search's record. Returns the record.

    The lowest score, averaged over the folds, wins among candidates that do not copy. If all copy, or there was no
    search, the settings stay as they are, and the record says why.
    """
    scoring, why = context.library.augmenter(spec.adapter.augmenter).scoring(), why_not(context, spec)
    names = [context.store.arm_name(spec, number) for number in range(arms_to_run(context, spec))]
    rows = [row for name in names for row in context.store.parsed(name)["rows"]]
    table = _averaged(rows, scoring)
    best = min((row for row in table if not row["refused"]), key=lambda row: row["score"], default=None)
    if table and best is None:
        why = "every candidate copies what it learned from: the settings stay as they are"
    record = {
        "key": spec.key,
        "spec": spec.as_dict(),
        "result": {
            "chosen": best["settings"] if best else {},
            "why": why,
            "metric": scoring.metric,
            "extractor": scoring.extractor,
            "table": table,
        },
        "provenance": {"seconds": _seconds(rows), **context.origin()},
    }
    context.store.write_json("searches", spec.key, record)
    context.store.clear_failure(spec.key)
    log.info("%s", line_of(record))
    return record


def line_of(record: Mapping[str, Any]) -> str:
    """Summarise a search in one line."""
    result = record["result"]
    if not result["chosen"]:
        return f"no quality search: {result['why']}"
    chosen = ", ".join(f"{name} {value:g}" for name, value in result["chosen"].items())
    best = next(row for row in result["table"] if row["settings"] == result["chosen"])
    by = f"{result['metric'].upper()} {best['score']:.3f} by {result['extractor']} on shots not adapted to"
    return f"quality search over {len(result['table'])} candidates chose {chosen} ({by})"


class _HalfScorer:
    """Score images against the half of the shots that was not adapted to."""

    def __init__(
        self,
        context: Context,
        adapter: AdapterSpec,
        scoring: Scoring,
        seen: pd.DataFrame,
        unseen: pd.DataFrame,
        labels: np.ndarray,
    ) -> None:
        """``labels`` are the classes of the rows ``unseen``, as in requests."""
        seen_images, unseen_images = (images_of(context.library, adapter.data, rows) for rows in (seen, unseen))
        self.scoring, self.labels = scoring, labels
        self.extractor: Extractor = loaded_extractor(context, scoring.extractor)
        self.size = self.extractor.size(aspect_of(unseen_images))
        self.unseen = self.extractor(unseen_images, self.size)
        self.thumbnails = thumbnails(seen_images), thumbnails(unseen_images)

    def __call__(self, images: Sequence[np.ndarray], classes: np.ndarray) -> dict[str, float]:
        """Return ``score`` (lower is better) and ``memorisation`` of images, each H,W,3 uint8, with these classes."""
        made = self.extractor(images, self.size)
        with threadpool_limits(1):  # the number of threads changes rounding
            memorised = memorisation(thumbnails(images), *self.thumbnails)
            if self.scoring.metric == "fid":
                score = fid(self.unseen, made)
            else:
                score = float(np.mean(list(kid_by_class(self.unseen, self.labels, made, classes).values())))
        if score is None:
            need, have = made.shape[1] + 1, min(len(self.unseen), len(made))
            raise UserError(f"FID needs {need} images on each side, there are {have}: score by kid")
        return {"score": score, "memorisation": memorised}


def _halves(context: Context, spec: SearchSpec) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Return the shots, the class of each in requests, and the half of each (0 or 1)."""
    adapter = spec.adapter
    shots = context.library.shots(adapter.data, adapter.shots, adapter.draw).reset_index(drop=True)
    labels = shots["label"].to_numpy() if adapter.data.classes else np.full(len(shots), DEFECT, object)
    table = shots.assign(label=labels)
    if table["group"].nunique() < 2:
        return shots, labels, np.zeros(len(shots), int)
    return shots, labels, np.asarray(grouped_folds(table, 2, f"search-{adapter.data.name}"))


def _generated(
    augmenter: Augmenter, view: TrainView, adapter: AdapterSpec, per_class: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Generate images in chunks, as for a pool, and return them with their classes."""
    classes = adapter.data.classes or (DEFECT,)
    count = per_class * len(classes)
    requests = [Request(i, derive_seed("search", augmenter.name, i), classes[i % len(classes)]) for i in range(count)]
    size = augmenter.chunk_size
    chunks = [augmenter.generate(requests[start : start + size], view) for start in range(0, len(requests), size)]
    return [made.image for chunk in chunks for made in chunk], np.array([request.label for request in requests])


def _averaged(rows: Sequence[Mapping[str, Any]], scoring: Scoring) -> list[dict[str, Any]]:
    """Return one row per candidate, best first and copies last: means over the folds, and the score of each fold."""
    by_settings: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_settings.setdefault(canonical_json(row["settings"]), []).append(row)
    table = []
    for fold_rows in by_settings.values():
        copies = float(np.mean([row["memorisation"] for row in fold_rows]))
        scores = [row["score"] for row in sorted(fold_rows, key=lambda row: row["fold"])]
        mean = {"score": float(np.mean(scores)), "scores": scores, "memorisation": copies}
        table.append({"settings": fold_rows[0]["settings"], **mean, "refused": copies < scoring.least_distance})
    return sorted(table, key=lambda row: (row["refused"], row["score"]))


def _seconds(rows: Sequence[Mapping[str, Any]]) -> float:
    """Sum the seconds of all arms; each adaptation counts once."""
    adaptations = {(row["fold"], row["seconds"]["adapting"]) for row in rows}
    return sum(seconds for _, seconds in adaptations) + sum(row["seconds"]["generating"] for row in rows)
