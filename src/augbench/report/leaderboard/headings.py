"""Words of the leaderboard: headings explained, regimes, runs, spans of time."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

from augbench.report.numbers import DASH, share

COLUMN_WORDS = {
    "augmenter": "the way of making synthetic defects",
    "n_aug": "synthetic pictures that a training takes",
    "ap": "average precision, mean (sample standard deviation) over runs",
    "accuracy": "mean (sample standard deviation) over runs",
    "macro_f1": "mean over classes of F1",
    "interval": "of the headline metric, over test items and runs",
    "gain": "difference to the baseline: to training without synthetic pictures, else to memseg with as many",
    "gain_interval": "of the gain; it holds for all rows of a table at once",
    "verdict": "whether the gain is more than chance: what is said where its interval leaves out 0",
    "precision": "at the threshold with the best F1, chosen on the test pictures",
    "recall": "at the threshold with the best F1, chosen on the test pictures",
    "heldout_recall": "at the threshold chosen on held-out good training pictures",
    "heldout_false_alarm_rate": "good test pictures called defective, at the threshold chosen on held-out ones",
    "kid": "Kernel Inception Distance of its pictures to real defects: smaller is closer",
    "seconds_per_picture": "seconds of generating one picture",
    "cost": "time for what one classifier needs before it is trained: learning, and generating N_aug pictures",
    "training": "time of one training",
    "runs": "trainings behind the row",
}
"""Column -> what it holds, said where the pointer rests on its heading and in a list under the tables."""


DIGITS = 6  # of numbers in the page's data


def entry(text: str, value: float, files: Sequence[Sequence[str]] = (), *, tone: str = "") -> dict[str, Any]:
    """What stands in a table, what it is sorted by, where it is from, and whether it says better or worse."""
    number = None if isnan(value) else round(value, DIGITS)
    return {"text": text, "value": number, "files": [list(file) for file in files], "tone": tone}


def shots_text(shots: int | str) -> str:
    """``zero-shot``, ``5 shots``, ``1 shot``, ``full-shot``."""
    if shots == "all":
        return "full-shot"
    return "zero-shot" if not shots else f"{shots} shot{'s' * (shots != 1)}"


def run_label(cell: Any) -> str:
    """``N_aug 80, seed 0``, with draw and fold where there are any."""
    parts = [("N_aug", cell.n_aug or None), ("fold", cell.fold), ("draw", cell.draw), ("seed", cell.seed)]
    return ", ".join(f"{name} {int(value)}" for name, value in parts if value is not None)


def gain_text(value: float) -> str:
    """``+.034``, ``-.012``, ``.000``."""
    text = share(value)
    return f"+{text}" if value > 0 and text != ".000" else text


def span_text(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min``, ``3.4 min``, ``5.6 h``."""
    if isnan(seconds):
        return DASH
    for limit, unit, name in ((100, 1, "s"), (100 * 60, 60, "min")):
        if seconds < limit:
            return _amount(seconds / unit, name)
    return _amount(seconds / 3600, "h")


def _amount(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}" if value >= 10 or value == round(value) else f"{value:.1f} {unit}"
