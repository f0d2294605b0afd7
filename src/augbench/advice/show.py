"""Print the answer of `augbench try`: sentences, then a table."""

from __future__ import annotations

import textwrap

from rich.console import Console

from augbench.advice.decide import Advice, Option, difference
from augbench.advice.tryout import ADVICE, FULL, Answer
from augbench.report.numbers import DASH, seconds_text, share
from augbench.report.render.terminal import sheet_parts
from augbench.report.sheet import Column, Sheet, SheetRow

NAMES = [Column("name", "what is done", is_text=True)]
NUMBERS = [Column("ap", "AP"), Column("gain", "gain"), Column("seconds", "seconds")]


def show(answer: Answer, console: Console) -> None:
    """Print what to do, the numbers behind it, and where to go on."""
    console.print()
    for sentence in answer.sentences:
        console.print(textwrap.fill(sentence, min(console.width, 100)), markup=False, highlight=False)
    console.print(sheet_parts(table_of(answer.advice, answer.understood.name)))
    store = answer.out / "store"
    for line in (
        f"All of it: {answer.out / ADVICE}; the grid, to be changed: {answer.out / FULL}.yaml",
        f"To go on: augbench run {answer.out / FULL}.yaml --store {store}; augbench compare {store} --grid {FULL}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def table_of(advice: Advice, name: str) -> Sheet:
    """Return the table of all options, the best AP first among those of a kind."""
    best = advice.recommended or advice.free or advice.none
    rows = [
        SheetRow(_texts(option), {0: "best"} if option is best else {})
        for kind in ("free", "augmenter", "control", "fewer")
        for option in advice.of_kind(kind)
    ]
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
