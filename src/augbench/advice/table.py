"""The table of all that was compared, for the terminal and for the page."""

from __future__ import annotations

from augbench.advice.decide import Advice, Option, difference
from augbench.report.numbers import DASH, seconds_text, share
from augbench.report.sheet import Column, Sheet, SheetRow

NAMES = [Column("name", "what is done", is_text=True)]
NUMBERS = [Column("ap", "AP"), Column("gain", "gain"), Column("seconds", "seconds")]
KINDS = ("free", "augmenter", "control", "fewer")


def options_of(advice: Advice) -> list[Option]:
    """Return the options in the order of the table: by kind, then as in the grid."""
    return [option for kind in KINDS for option in advice.of_kind(kind)]


def table_of(advice: Advice, name: str) -> Sheet:
    """Return the table of all options; the best one is marked."""
    rows = [SheetRow(_texts(option), {0: "best"} if option is advice.best else {}) for option in options_of(advice)]
    notes = [
        "AP: mean over folds, pools and draws, step-wise. Gain: over no synthetic images; 95 % intervals over test "
        "items and runs, for all augmenters at once. Seconds: to make the images of one classifier."
    ]
    return Sheet([*NAMES, *NUMBERS], rows, name, notes=notes)


def _texts(option: Option) -> tuple[str, ...]:
    cost = option.evidence.cost
    seconds = seconds_text(cost.total) if cost and option.augmenter else DASH
    gain = difference(option.gain) if option.gain else DASH
    return option.name[0], share(option.evidence.intervals["ap"].estimate), gain, seconds
