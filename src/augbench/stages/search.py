"""The search job: which settings of an augmenter make pictures closest to real defects that it has not seen.

Step 4 of StableSDG (arXiv 2405.01872) repeats adaptation and generation over hyperparameters and keeps those of the
lowest FID. Scored on the very shots that were learned from, whatever copies them best would win: a strength towards 0.
So the shots are cut in halves, by groups and label by label. A candidate learns and starts from one half, is scored by
KID (or FID, where pictures are many) to the other, and is refused where its pictures are copies. Test pictures take no
part. With too few shots for two halves nothing is searched: the settings stay, and the record says so.

An *arm* is one adaptation: what `adapt` reads, on one half. All that differs in generating alone is tried on it.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import augbench
from augbench.core.contracts import AdaptContext, Augmenter, Candidate, Request, Scoring, TrainView
from augbench.core.errors import UserError
from augbench.core.hashing import canonical_json
from augbench.core.seeds import derive_seed
from augbench.core.specs import AdapterSpec, SearchSpec
from augbench.features.extractor import Extractor, aspect_of, thumbnails
from augbench.metrics.fidelity import fid, memorisation
from augbench.planning.splits import grouped_folds
from augbench.stages.adapt import Throttled
from augbench.stages.context import Context, loaded_extractor, one_thread
from augbench.stages.fidelity import images_of, kid_by_class
from augbench.stages.generate import DEFECT
from augbench.stages.provenance import device_name, versions
from augbench.storage.store import Store

FEWEST = 2  # real pictures of a class that can be a half
Say = Callable[[str, int, int, float], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arm:
    """One adaptation and everything that is tried on it."""

    adapting: Mapping[str, Any]
    fold: int  # the half that is judged by
    candidates: tuple[Candidate, ...]


def arms_of(augmenter: Augmenter) -> list[Arm]:
    """The arms of its search, in order."""
    by_adapting: dict[str, list[Candidate]] = {}
    for candidate in augmenter.candidates():
        by_adapting.setdefault(canonical_json(candidate.adapting), []).append(candidate)
    folds = range(augmenter.scoring().folds)
    return [Arm(own[0].adapting, fold, tuple(own)) for own in by_adapting.values() for fold in folds]


def why_not(context: Context, spec: SearchSpec) -> str:
    """Why the shots of a search cannot be cut in halves; "" if they can."""
    _, labels, fold = _halves(context, spec)
    for label in sorted(set(labels)):
        for half in (0, 1):
            count = int(((labels == label) & (fold == half)).sum())
            if count < FEWEST:
                name = "the shots" if label == DEFECT else f"the shots of class '{label}'"
                return f"{name} are too few for two halves of {FEWEST} pictures or more: the settings stay as they are"
    return ""


def arms_to_run(context: Context, spec: SearchSpec) -> int:
    """How many arms there are; 0 where the shots are too few."""
    return 0 if why_not(context, spec) else len(arms_of(context.library.augmenter(spec.adapter.augmenter)))


def arm_rows(store: Store, spec: SearchSpec, number: int) -> list[dict] | None:
    """Read what an arm has found; None where it is not committed, or by another version of augbench."""
    try:
        found = store.parsed(store.arm_name(spec, number))
    except FileNotFoundError:
        return None
    return found["rows"] if found.get("augbench") == augbench.__version__ else None


def run_arm(context: Context, spec: SearchSpec, number: int, say: Say = lambda *progress: None) -> list[dict]:
    """Adapt on one half, try all that this arm is for, and commit what was found. What is there is not done again.

    Raises:
        UserError: the augmenter cannot do it, or FID is asked for and pictures are too few.
    """
    if (found := arm_rows(context.store, spec, number)) is not None:
        return found
    augmenter = context.library.augmenter(spec.adapter.augmenter)
    arm = arms_of(augmenter)[number]
    shots, labels, fold = _halves(context, spec)
    view = _view(context, spec.adapter, augmenter)
    learned = shots[fold != arm.fold]
    own = view.with_shots(learned["id"])
    judged = shots[fold == arm.fold]
    rows = []
    with tempfile.TemporaryDirectory(prefix="augbench-search-") as folder, one_thread(True, context.device):
        judge = _HalfScorer(context, spec.adapter, augmenter.scoring(), learned, judged, labels[fold == arm.fold])
        made = Path(folder)
        scratch = context.store.files.scratch_folder(f"{spec.key}-{number:03d}")
        room = AdaptContext(scratch, context.store.shared, context.device, Throttled(spec.key, say))
        started = time.perf_counter()
        if augmenter.learns:
            learner = augmenter.chosen(arm.adapting)
            learner.adapt(own, made, derive_seed("adapt", spec.adapter.augmenter.name), room)
        adapting = time.perf_counter() - started
        for candidate in arm.candidates:
            started = time.perf_counter()
            tried = augmenter.chosen(candidate.settings)
            tried.load(made if augmenter.learns else None, context.device)
            pictures, classes = _generated(tried, own, spec.adapter, augmenter.scoring().pictures)
            found = judge(pictures, classes)
            seconds = {"adapting": adapting, "generating": time.perf_counter() - started}
            rows.append({"settings": candidate.settings, "fold": arm.fold, **found, "seconds": seconds})
            log.info("%s: %s, %s", *(canonical_json(part) for part in (candidate.settings, found, seconds)))
    arm_name = context.store.arm_name(spec, number)
    context.store.write_json_at(arm_name, {"rows": rows, "augbench": augbench.__version__})
    shutil.rmtree(scratch, ignore_errors=True)
    return rows


def decide(context: Context, spec: SearchSpec) -> dict[str, Any]:
    """Choose by what all arms have found, and commit the search's record. Returns it.

    Of the candidates that do not copy, the one of the lowest score wins, averaged over the folds; where all copy, or
    nothing could be tried, the settings stay as they are, and the record says why.
    """
    scoring, why = context.library.augmenter(spec.adapter.augmenter).scoring(), why_not(context, spec)
    names = [context.store.arm_name(spec, number) for number in range(arms_to_run(context, spec))]
    found = [row for name in names for row in context.store.parsed(name)["rows"]]
    table = _averaged(found, scoring)
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
        "provenance": {
            "seconds": _seconds(found),
            "device": device_name(context.device),
            "git_sha": context.git_sha,
            "versions": versions(),
        },
    }
    context.store.write_json("searches", spec.key, record)
    context.store.clear_failure(spec.key)
    log.info("%s", line_of(record))
    return record


def line_of(record: Mapping[str, Any]) -> str:
    """What a reader must know of a search, in a line."""
    result = record["result"]
    if not result["chosen"]:
        return f"no quality search: {result['why']}"
    chosen = ", ".join(f"{name} {value:g}" for name, value in result["chosen"].items())
    best = next(row for row in result["table"] if row["settings"] == result["chosen"])
    by = f"{result['metric'].upper()} {best['score']:.3f} by {result['extractor']} on shots not adapted to"
    return f"quality search over {len(result['table'])} candidates chose {chosen} ({by})"


class _HalfScorer:
    """Scores pictures by the half of the shots that was not learned from."""

    def __init__(
        self,
        context: Context,
        adapter: AdapterSpec,
        scoring: Scoring,
        learned: pd.DataFrame,
        judged: pd.DataFrame,
        labels: np.ndarray,
    ) -> None:
        """``labels`` are the classes of ``judged``, as they are asked for."""
        seen, unseen = (images_of(context.library, adapter.data, rows) for rows in (learned, judged))
        self.scoring, self.labels = scoring, labels
        self.extractor: Extractor = loaded_extractor(context, scoring.extractor)
        self.size = self.extractor.size(aspect_of(unseen))
        self.unseen = self.extractor(unseen, self.size)
        self.small = thumbnails(seen), thumbnails(unseen)

    def __call__(self, pictures: Sequence[np.ndarray], classes: np.ndarray) -> dict[str, float]:
        """``score`` (lower is better) and ``memorisation`` of pictures, each H,W,3 uint8, and their classes."""
        made = self.extractor(pictures, self.size)
        if self.scoring.metric == "fid":
            score = fid(self.unseen, made)
            if score is None:
                need, have = made.shape[1] + 1, min(len(self.unseen), len(made))
                raise UserError(f"FID needs {need} pictures on each side, there are {have}: score by kid")
        else:
            score = float(np.mean(list(kid_by_class(self.unseen, self.labels, made, classes).values())))
        return {"score": score, "memorisation": memorisation(thumbnails(pictures), *self.small)}


def _halves(context: Context, spec: SearchSpec) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The shots, the class each is asked for as, and the half that each is in."""
    adapter = spec.adapter
    shots = context.library.shots(adapter.data, adapter.shots, adapter.draw).reset_index(drop=True)
    known = bool(adapter.data.classes)
    labels = shots["label"].to_numpy() if known else np.full(len(shots), DEFECT, object)
    table = shots.assign(label=labels)
    if table["group"].nunique() < 2:
        return shots, labels, np.zeros(len(shots), int)
    return shots, labels, np.asarray(grouped_folds(table, 2, f"search-{adapter.data.name}"))


def _view(context: Context, adapter: AdapterSpec, augmenter: Augmenter) -> TrainView:
    return context.library.view(adapter.data, adapter.shots, adapter.draw, augmenter.reads(adapter.shots or 0))


def _generated(
    augmenter: Augmenter, view: TrainView, adapter: AdapterSpec, per_class: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures as a pool would hold them, chunk by chunk, and their classes."""
    classes = adapter.data.classes or (DEFECT,)
    requests = [
        Request(i, derive_seed("search", augmenter.name, i), classes[i % len(classes)])
        for i in range(per_class * len(classes))
    ]
    size = augmenter.chunk_size
    chunks = [augmenter.generate(requests[start : start + size], view) for start in range(0, len(requests), size)]
    return [made.image for chunk in chunks for made in chunk], np.array([request.label for request in requests])


def _averaged(rows: Sequence[Mapping[str, Any]], scoring: Scoring) -> list[dict[str, Any]]:
    """One row a candidate, best first, those that copy last: means over the folds, and the scores of each."""
    by_settings: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_settings.setdefault(canonical_json(row["settings"]), []).append(row)
    table = []
    for own in by_settings.values():
        copies = float(np.mean([row["memorisation"] for row in own]))
        scores = [row["score"] for row in sorted(own, key=lambda row: row["fold"])]
        mean = {"score": float(np.mean(scores)), "scores": scores, "memorisation": copies}
        table.append({"settings": own[0]["settings"], **mean, "refused": copies < scoring.least_distance})
    return sorted(table, key=lambda row: (row["refused"], row["score"]))


def _seconds(rows: Sequence[Mapping[str, Any]]) -> float:
    """Of all arms together: each adaptation counts once."""
    adaptations = {(row["fold"], row["seconds"]["adapting"]) for row in rows}
    return sum(seconds for _, seconds in adaptations) + sum(row["seconds"]["generating"] for row in rows)
