"""Texts of the leaderboard: help of the columns, shot regimes, labels of runs, durations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any

from augbench.report.numbers import DASH

COLUMN_HELP = {
    "augmenter": "the method that generates synthetic defects",
    "n_aug": "synthetic images in a training",
    "ap": "average precision, mean (sample standard deviation) over runs",
    "accuracy": "mean (sample standard deviation) over runs",
    "macro_f1": "F1, mean over classes",
    "interval": "of the headline metric, over test items and runs",
    "gain": "difference to the baseline: training without synthetic images, else normal images alone, else memseg",
    "gain_interval": "of the gain; it holds for all rows of a table at once",
    "verdict": "whether the gain is significant: its interval excludes 0",
    "precision": "at the threshold with the best F1, chosen on the test images",
    "recall": "at the threshold with the best F1, chosen on the test images",
    "heldout_recall": "at the threshold chosen on held-out normal training images",
    "heldout_false_alarm_rate": "false positive rate: normal test images above the threshold chosen on held-out ones",
    "kid": "Kernel Inception Distance of its images to real defect images: smaller is closer",
    "seconds_per_picture": "seconds to generate one image",
    "cost": "time before the training of one classifier: learning, and generating N_aug images",
    "training": "time of one training",
    "runs": "pool seeds, and draws of the shots: what means and standard deviations are over",
}
"""Column -> what it holds: the tooltip of its heading, and an entry of the list under the tables."""

DIGITS = 6  # of numbers in the page's data

Content = Mapping[str, Any]
"""A table, a row or an entry of `Board.content`."""
Keys = Mapping[tuple[str, int], Sequence[Sequence[str]]]
"""(augmenter, N_aug) of a row -> the keys of the records of each complete run, see `report.runs`."""


def entry(
    text: str = DASH, value: float = nan, files: Sequence[Sequence[str]] = (), *, tone: str = ""
) -> dict[str, Any]:
    """Make a table entry; without arguments, that of an unknown value.

    Args:
        text: what the table prints.
        value: the sort key; NaN: none.
        files: (name, value, URL) of each source.
        tone: "up" (better), "down" (worse) or "".
    """
    number = None if isnan(value) else round(value, DIGITS)
    return {"text": text, "value": number, "files": [list(file) for file in files], "tone": tone}


def span_text(seconds: float) -> str:
    """Format a duration: ``0.4 s``, ``12 s``, ``3 min``, ``3.4 min``, ``5.6 h``."""
    if isnan(seconds):
        return DASH
    size, unit = (1, "s") if seconds < 100 else (60, "min") if seconds < 100 * 60 else (3600, "h")
    value = seconds / size
    return f"{value:.{0 if value >= 10 or value == round(value) else 1}f} {unit}"
