"""Errors of classifiers: misclassified images, and recall by size and contrast of the defect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD
from augbench.report.leaderboard.headings import Content, Keys
from augbench.report.leaderboard.merge import Gathered
from augbench.report.leaderboard.score_tables import PlottedRow, Scores, plotted_rows
from augbench.report.leaderboard.sources import OpenDataset, Thumbs
from augbench.report.numbers import Stat, share, stat_of
from augbench.storage.store import parse_json

EACH = 6  # maximum images of a strip
THIRDS = ((0, "area", ("small", "medium", "large")), (1, "contrast", ("faint", "middling", "plain")))
FEWEST = 6  # defects with a mask; below it, recalls by size and contrast are not printed
AT = {
    "heldout": "the threshold chosen on held-out normal training images",
    "oracle": "the threshold with the best F1, chosen on the test images (oracle)",
}
"""Threshold of a record -> its description."""
DETECTION = (
    "For each augmenter its largest N_aug: the false positives (normal test images) with the highest scores, and the "
    "false negatives (defect images) with the lowest. Scores are relative to the threshold of their run and averaged "
    "over runs; real masks are outlined. An image is positive if its score reaches"
)
RECOGNITION = (
    "For each augmenter its largest N_aug: the test images that are misclassified by the widest margin, averaged over "
    "runs. Real masks are outlined."
)


class Errors:
    """Builds the parts of the page about errors, table by table."""

    def __init__(self, gathered: Gathered, scores: Scores, thumbs: Thumbs) -> None:
        self._gathered = gathered
        self._scores = scores
        self._thumbs = thumbs

    def of(self, table: Content, cells: Keys, source: OpenDataset) -> dict[str, Any] | None:
        """Return the errors of a table for the template; None without scores of the images at hand."""
        rows = plotted_rows(table, cells)
        kind = self._threshold(rows) if table["task"] == "detection" else ""
        predictions = {row: runs for row in rows if (runs := self._predictions(row, kind))}
        every = pd.concat([run for runs in predictions.values() for run in runs]) if predictions else None
        if every is None or source.dataset is None or not source.holds(every):
            return None
        about = f"{DETECTION} {AT[kind]}." if kind else RECOGNITION
        defects = sorted(set(every.loc[every["label"] != GOOD, "id"])) if kind else []
        shapes = {name: source.shape(name) for name in defects}
        return {
            "about": about,
            "galleries": [self._gallery(row, runs, source, bool(kind)) for row, runs in predictions.items()],
            "recalls": _recalls(predictions, shapes, AT[kind]) if kind else None,
        }

    def _threshold(self, rows: Sequence[PlottedRow]) -> str:
        """Choose the threshold of the errors: the held-out one if every run has it, else the oracle."""
        every = [self._result(key)["heldout"] for row in rows for key in row.keys]
        return "heldout" if all(every) else "oracle"

    def _result(self, key: str) -> dict[str, Any]:
        return parse_json(self._gathered.raw[key], key)["result"]

    def _predictions(self, row: PlottedRow, kind: str) -> list[pd.DataFrame]:
        """Return the predictions of each run whose cells all have scores, those of its folds in one table.

        Returns:
            Tables with ``id``, ``label`` and ``margin`` (>= 0: predicted positive, or as its class); in recognition,
            where ``kind`` is "", also ``predicted``, the highest other class.
        """
        runs = []
        for run in row.runs:
            tables = {key: table for key in run if (table := self._scores.of(key)) is not None}
            if len(tables) == len(run):
                runs.append(pd.concat([self._margins(*one, kind) for one in tables.items()]))
        return runs

    def _margins(self, key: str, table: pd.DataFrame, kind: str) -> pd.DataFrame:
        if not kind:
            return _margins_of_classes(table)
        margin = table["logit"].astype(float) - self._result(key)[kind]["threshold"]
        return table[["id", "label"]].assign(margin=margin)

    def _gallery(
        self, row: PlottedRow, runs: Sequence[pd.DataFrame], source: OpenDataset, detects: bool
    ) -> dict[str, Any]:
        every = pd.concat(runs)
        normal = every["label"] == GOOD
        detection = ("False positives", normal, 1), ("False negatives", ~normal, -1)
        kinds = detection if detects else (("Misclassified", ~normal, -1),)
        strips = [self._strip(title, every[which], sign, source) for title, which, sign in kinds]
        note = f"N_aug {row.n_aug}" if row.n_aug else "no synthetic images"
        return {"augmenter": row.augmenter, "note": f"{note}, {_count(len(runs), 'run')}", "strips": strips}

    def _strip(self, title: str, predictions: pd.DataFrame, sign: int, source: OpenDataset) -> dict[str, Any]:
        """Show the images furthest on the wrong side: above the threshold (sign 1) or below (-1)."""
        summary = by_image(predictions, sign)
        worst = summary[summary["wrong"] > 0]
        predicted = _predicted_class(predictions[beyond(predictions, sign)]) if "predicted" in predictions else {}
        images = [self._image(row, predicted.get(row.Index, ""), source) for row in worst.head(EACH).itertuples()]
        of = f"{len(worst):,} of {_count(len(summary), 'image')} in any run"
        return {"title": f"{title}: {of}" if len(worst) else f"{title}: none", "images": images}

    def _image(self, row: Any, predicted: str, source: OpenDataset) -> dict[str, Any]:
        image, mask = source.load(row.Index)
        caption = "" if row.label == GOOD else f"{row.label}, "
        caption += f"predicted {predicted}, " if predicted else ""
        caption += f"{row.wrong} of {_count(row.runs, 'run')}"
        return self._thumbs.add(image, f"{row.Index}: wrong, {caption}", caption, mask)


def beyond(predictions: pd.DataFrame, sign: int) -> pd.Series:
    """Whether each prediction is on one side: at or above the threshold (sign 1), or below it (-1)."""
    return predictions["margin"] >= 0 if sign > 0 else predictions["margin"] < 0


def by_image(predictions: pd.DataFrame, sign: int) -> pd.DataFrame:
    """Summarise predictions by image, the furthest on that side first.

    Args:
        predictions: ``id``, ``label`` and ``margin`` of every run.
        sign: the side that is wrong, see `beyond`.

    Returns:
        By id: ``margin``, the mean; ``wrong``, the number of ``runs`` that are on that side; ``label``.
    """
    images = predictions.assign(wrong=beyond(predictions, sign)).groupby("id")
    summary = images.agg(
        margin=("margin", "mean"), wrong=("wrong", "sum"), runs=("wrong", "size"), label=("label", "first")
    )
    return summary.assign(far=-sign * summary["margin"]).sort_values(["far", "id"])


def _margins_of_classes(table: pd.DataFrame) -> pd.DataFrame:
    """Return the margins: logit of the true class minus the highest other one."""
    classes = [column.removeprefix("logit_") for column in table if column.startswith("logit_")]
    logits = table[[f"logit_{name}" for name in classes]].to_numpy(np.float64, copy=True)
    true = np.array([classes.index(label) for label in table["label"]])
    at = np.arange(len(true)), true
    own, logits[at] = logits[at], -np.inf
    predicted = np.array(classes, object)[logits.argmax(axis=1)]
    return table[["id", "label"]].assign(margin=own - logits.max(axis=1), predicted=predicted)


def _predicted_class(wrong: pd.DataFrame) -> dict[str, str]:
    """Return the class most often predicted for each image; ties go to the first by name."""
    counts = wrong.groupby(["id", "predicted"]).size().reset_index(name="n")
    counts = counts.sort_values(["id", "n", "predicted"], ascending=[True, False, True])
    return dict(counts.drop_duplicates("id")[["id", "predicted"]].itertuples(index=False))


def _recalls(
    predictions: Mapping[PlottedRow, Sequence[pd.DataFrame]], shapes: Mapping[str, tuple[float, float] | None], at: str
) -> dict[str, Any] | None:
    """Tabulate recall by size and by contrast, in thirds of the defects with a mask."""
    known = {name: shape for name, shape in shapes.items() if shape is not None}
    if len(known) < FEWEST:
        return None
    columns, groups = [], []
    for column, unit, names in THIRDS:
        values = pd.Series({name: shape[column] for name, shape in known.items()})
        low, high = np.quantile(values, [1 / 3, 2 / 3])
        thirds = (values <= low, (low < values) & (values <= high), values > high)
        bounds = (f"to {_bound(low, unit)}", f"to {_bound(high, unit)}", f"over {_bound(high, unit)}")
        for name, bound, third in zip(names, bounds, thirds, strict=True):
            columns.append({"title": name, "note": f"{unit} {bound} ({third.sum()})"})
            groups.append(set(values.index[third]))
    rows = [
        {
            "augmenter": row.augmenter,
            "note": f"N_aug {row.n_aug}" if row.n_aug else "",
            "texts": [_recall(runs, members).text for members in groups],
        }
        for row, runs in predictions.items()
    ]
    return {
        "about": f"Recall at {at}, mean (sample standard deviation) over runs, each with the images "
        f"of all of its folds, by thirds of the {len(known)} defect "
        "images of the test split with a mask: of the defect's share of the image area, and of its contrast, the "
        "difference of mean grey levels inside the mask and around it. For each augmenter its largest N_aug.",
        "columns": columns,
        "rows": rows,
    }


def _recall(runs: Sequence[pd.DataFrame], members: set[str]) -> Stat:
    found = [run.loc[run["id"].isin(members), "margin"] >= 0 for run in runs]
    return stat_of(float(positive.mean()) for positive in found if len(positive))


def _bound(value: float, unit: str) -> str:
    return f"{100 * value:.2g} %" if unit == "area" else share(value)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
