"""Print the answer of `augbench try`: sentences, then a table."""

from __future__ import annotations

import textwrap

from rich.console import Console

from augbench.advice.page import commands
from augbench.advice.table import table_of
from augbench.advice.tryout import ADVICE, FULL, PAGE, Answer
from augbench.report.render.terminal import sheet_parts


def show(answer: Answer, console: Console) -> None:
    """Print what to do, the numbers behind it, and where to go on."""
    console.print()
    for sentence in answer.sentences:
        console.print(textwrap.fill(sentence, min(console.width, 100)), markup=False, highlight=False)
    console.print(sheet_parts(table_of(answer.advice, answer.understood.name)))
    grid = answer.out / f"{FULL}.yaml"
    lines = (
        f"The page, with images: {answer.out / PAGE}; all numbers: {answer.out / ADVICE}",
        f"To go on, with the grid changed or not: {grid}",
    )
    for line in [*lines, *(f"  {command}" for _, command in commands(grid))]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
