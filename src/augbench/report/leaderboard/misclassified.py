"""Where classifiers err: false alarms and misses picture by picture, and recall by size and contrast of the defect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD
from augbench.report.leaderboard.merge import Gathered
from augbench.report.leaderboard.score_tables import Scores, Shown, shown_rows
from augbench.report.leaderboard.sources import OpenDataset
from augbench.report.leaderboard.thumbs import Thumbs
from augbench.report.numbers import Stat, share, stat_of
from augbench.storage.store import parse_json

EACH = 6  # pictures of a strip, at most
THIRDS = ((0, "area", ("small", "medium", "large")), (1, "contrast", ("faint", "middling", "plain")))
FEWEST = 6  # defects with a mask that recalls by size and contrast are worth printing for
AT = {
    "heldout": "the threshold chosen on held-out good training pictures",
    "oracle": "the threshold with the best F1, chosen on the test pictures (oracle)",
}
"""Which threshold of a record -> words."""
DETECTION = (
    "Of each augmenter its largest N_aug: the good test pictures with the highest scores among those called defective, "
    "and the defective ones with the lowest among those that are not. Scores are taken against the threshold of their "
    "run and averaged over runs; real masks are outlined. Called defective is what reaches"
)
RECOGNITION = (
    "Of each augmenter its largest N_aug: the test pictures that are taken for another class by the widest margin, "
    "averaged over runs. Real masks are outlined."
)


class Errors:
    """Makes the parts of the page about errors, table by table."""

    def __init__(self, gathered: Gathered, scores: Scores, thumbs: Thumbs) -> None:
        self._gathered = gathered
        self._scores = scores
        self._thumbs = thumbs

    def of(
        self, table: Mapping[str, Any], cells: Mapping[tuple[str, int], Sequence[str]], source: OpenDataset
    ) -> dict[str, Any] | None:
        """What the template shows of a table; None where no scores are stored, or not of the pictures at hand."""
        rows = shown_rows(table, cells)
        kind = self._threshold(rows) if table["task"] == "detection" else ""
        judged = {shown: runs for shown in rows if (runs := self._judged(shown, kind))}
        every = pd.concat([run for runs in judged.values() for run in runs]) if judged else None
        if every is None or source.dataset is None or not source.holds(every):
            return None
        about = f"{DETECTION} {AT[kind]}." if kind else RECOGNITION
        defects = sorted(set(every.loc[every["label"] != GOOD, "id"])) if kind else []
        return {
            "about": about,
            "galleries": [self._gallery(shown, runs, source, bool(kind)) for shown, runs in judged.items()],
            "recalls": _recalls(judged, {name: source.shape(name) for name in defects}, AT[kind]) if kind else None,
        }

    def _threshold(self, rows: Sequence[Shown]) -> str:
        """The one that precision and recall are looked at with: on held-out pictures, where every run has it."""
        every = [self._result(key)["heldout"] for shown in rows for key in shown.keys]
        return "heldout" if all(every) else "oracle"

    def _result(self, key: str) -> dict[str, Any]:
        return parse_json(self._gathered.raw[key], key)["result"]

    def _judged(self, shown: Shown, kind: str) -> list[pd.DataFrame]:
        """Of each run with scores: ``id``, ``label``, ``margin`` (>= 0: called defective, or taken for its class),
        and in recognition, where no ``kind`` of threshold is given, ``taken``, the class that it is taken for."""
        tables = {key: found for key in shown.keys if (found := self._scores.of(key)) is not None}
        if not kind:
            return [_margins_of_classes(table) for table in tables.values()]
        return [
            table[["id", "label"]].assign(margin=table["logit"].astype(float) - self._result(key)[kind]["threshold"])
            for key, table in tables.items()
        ]

    def _gallery(
        self, shown: Shown, runs: Sequence[pd.DataFrame], source: OpenDataset, detects: bool
    ) -> dict[str, Any]:
        every = pd.concat(runs)
        good = every["label"] == GOOD
        kinds = (("False alarms", good, 1), ("Misses", ~good, -1)) if detects else (("Mistaken", ~good, -1),)
        strips = [self._strip(title, every[which], sign, source) for title, which, sign in kinds]
        note = f"N_aug {shown.n_aug}" if shown.n_aug else "no synthetic pictures"
        return {"augmenter": shown.augmenter, "note": f"{note}, {_count(len(runs), 'run')}", "strips": strips}

    def _strip(self, title: str, judged: pd.DataFrame, sign: int, source: OpenDataset) -> dict[str, Any]:
        """The pictures that are furthest on the wrong side: above the threshold (sign 1) or below (-1)."""
        wrong = (sign * judged["margin"] > 0) | ((sign > 0) & (judged["margin"] == 0))
        by_picture = judged.assign(wrong=wrong).groupby("id")
        summary = by_picture.agg(margin=("margin", "mean"), wrong=("wrong", "sum"), runs=("wrong", "size"))
        summary = summary.assign(label=by_picture["label"].first())
        worst = summary[summary["wrong"] > 0].assign(far=-sign * summary["margin"]).sort_values(["far", "id"])
        taken = _taken_for(judged[wrong]) if "taken" in judged else {}
        pictures = [self._picture(row, taken.get(row.Index, ""), source) for row in worst.head(EACH).itertuples()]
        of = f"{len(worst):,} of {_count(len(summary), 'picture')} in any run"
        return {"title": f"{title}: {of}" if len(worst) else f"{title}: none", "pictures": pictures}

    def _picture(self, row: Any, taken: str, source: OpenDataset) -> dict[str, Any]:
        image, mask = source.picture(row.Index)
        what = "" if row.label == GOOD else f"{row.label}, "
        what += f"taken for {taken}, " if taken else ""
        often = f"{what}{row.wrong} of {_count(row.runs, 'run')}"
        return self._thumbs.add(image, f"{row.Index}: wrong, {often}", often, mask)


def _margins_of_classes(table: pd.DataFrame) -> pd.DataFrame:
    """Logit of the true class less the highest other one."""
    classes = [column.removeprefix("logit_") for column in table if column.startswith("logit_")]
    logits = table[[f"logit_{name}" for name in classes]].to_numpy(np.float64)
    true = np.array([classes.index(label) for label in table["label"]])
    own = logits[np.arange(len(true)), true]
    others = logits.copy()
    others[np.arange(len(true)), true] = -np.inf
    taken = np.array(classes, object)[others.argmax(axis=1)]
    return table[["id", "label"]].assign(margin=own - others.max(axis=1), taken=taken)


def _taken_for(wrong: pd.DataFrame) -> dict[str, str]:
    """The class that a picture is most often taken for; of several the first by name."""
    counts = wrong.groupby(["id", "taken"]).size().reset_index(name="n")
    counts = counts.sort_values(["id", "n", "taken"], ascending=[True, False, True])
    return dict(counts.drop_duplicates("id")[["id", "taken"]].itertuples(index=False))


def _recalls(
    judged: Mapping[Shown, Sequence[pd.DataFrame]], shapes: Mapping[str, tuple[float, float] | None], at: str
) -> dict[str, Any] | None:
    """Recall of small and large, of faint and plain defects: thirds of those with a mask."""
    known = {name: shape for name, shape in shapes.items() if shape is not None}
    if len(known) < FEWEST:
        return None
    columns, groups = [], []
    for place, unit, names in THIRDS:
        values = {name: shape[place] for name, shape in known.items()}
        low, high = np.quantile(list(values.values()), [1 / 3, 2 / 3])
        thirds = [
            {name for name, value in values.items() if value <= low},
            {name for name, value in values.items() if low < value <= high},
            {name for name, value in values.items() if value > high},
        ]
        bounds = (f"to {_bound(low, unit)}", f"to {_bound(high, unit)}", f"over {_bound(high, unit)}")
        for name, bound, members in zip(names, bounds, thirds, strict=True):
            columns.append({"title": name, "note": f"{unit} {bound} ({len(members)})"})
            groups.append(members)
    rows = [
        {
            "augmenter": shown.augmenter,
            "note": f"N_aug {shown.n_aug}" if shown.n_aug else "",
            "texts": [_recall(runs, members).text for members in groups],
        }
        for shown, runs in judged.items()
    ]
    return {
        "about": f"Recall at {at}, mean (sample standard deviation) over runs, by thirds of the {len(known)} defective "
        "test pictures with a mask: of the defect's share of the picture, and of its contrast, the difference of mean "
        "grey levels inside the mask and around it. Of each augmenter its largest N_aug.",
        "columns": columns,
        "rows": rows,
    }


def _recall(runs: Sequence[pd.DataFrame], members: set[str]) -> Stat:
    found = [run.loc[run["id"].isin(members), "margin"] >= 0 for run in runs]
    return stat_of(float(called.mean()) for called in found if len(called))


def _bound(value: float, unit: str) -> str:
    return f"{100 * value:.2g} %" if unit == "area" else share(value)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
