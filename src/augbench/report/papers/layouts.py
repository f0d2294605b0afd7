"""Layouts: the tables of papers, row by row as they print them, to be filled with ours.

A layout is a paper and the number of a table; `papers` has both, so nothing about a table is written here. Our cells
are found by the name of the augmenter, shots and N_aug; `comparison` lays them beside theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from augbench.core.errors import UserError, did_you_mean
from augbench.report.numbers import Stat
from augbench.report.papers.printed import Paper, Reference, load_paper, paper_names

TASK = "detection"  # what the papers' tables are about


@dataclass(frozen=True)
class Layout:
    """A table of a paper."""

    name: str  # inout_table1
    paper: Paper
    number: int

    @property
    def rows(self) -> tuple[Reference, ...]:
        """As the paper prints them, averages apart."""
        return self.paper.rows[self.number]

    @property
    def title(self) -> str:
        """``In&Out (VISAPP 2024), Table 1: Results between ...``."""
        return f"{self.paper.about.name}, Table {self.number}: {self.paper.about.tables[self.number].title}"


@dataclass(frozen=True)
class Line:
    """A row of a layout: theirs, ours, and how far apart they are."""

    augmenter: str  # by its name here
    label: str  # as the paper prints it; "Average"
    n_aug: int | None  # None in an average
    theirs: Mapping[str, Stat]  # of each of `METRICS`, as are the following two
    ours: Mapping[str, Stat]
    reference: Reference | None = None  # None in an average
    cells: tuple[Any, ...] = ()  # the expected ones
    found: int = 0  # how many of them have a record
    expected: int = 0
    comparable: bool = True  # whether anything of ours could be this row
    differs: tuple[int, ...] = ()  # numbers, from 1 on, of what does not match
    elsewhere: str = ""  # the protocol of ours, where it is that of a copied row and not that of the rows beside it
    average: bool = False
    best: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # side -> metric -> "best" or "second"

    @property
    def incomplete(self) -> bool:
        """Whether a cell is missing, or all are, since no grid of the store has this row."""
        return self.comparable and (self.found < self.expected or not self.expected)

    @property
    def matches(self) -> bool:
        """Whether theirs and ours are of the same making, so that their difference says something."""
        return self.comparable and not self.incomplete and not self.differs

    def difference(self, metric: str) -> float:
        """Ours minus theirs; NaN where it would say nothing."""
        return self.ours[metric].mean - self.theirs[metric].mean if self.matches else float("nan")


@dataclass(frozen=True)
class Comparison:
    """What every renderer prints."""

    layout: Layout
    dataset: str  # of ours; "" where the store has no cell of the layout
    protocol: str  # of all rows but `Line.elsewhere`
    lines: tuple[Line, ...]
    captions: tuple[str, ...]  # sentences over the table
    mismatches: tuple[str, ...]  # what `Line.differs` counts, from 1 on
    notes: tuple[str, ...]  # footnotes
    embedded: tuple[str, ...]  # embedded parts behind ours: then they show mechanics and are no evidence

    @property
    def label(self) -> str:
        """``ours: mechanics, not evidence (dataset surfaces)``, or ""."""
        return f"ours: mechanics, not evidence ({', '.join(self.embedded)})" if self.embedded else ""

    @property
    def has_differences(self) -> bool:
        """Whether any row has one."""
        return any(line.matches for line in self.lines)


def layouts() -> dict[str, Layout]:
    """Every layout by its name."""
    papers = [load_paper(key) for key in paper_names()]
    return {name: Layout(name, paper, number) for paper in papers for name, number in paper.layouts.items()}


def find_layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        UserError: there is none; the message names those that there are, or the one that was meant.
    """
    known = layouts()
    if name not in known:
        raise UserError(f"--layout '{name}' does not exist{did_you_mean(name, known)}")
    return known[name]


def choose(layout: Layout, expected: pd.DataFrame, dataset: str | None, protocol: str | None) -> pd.DataFrame:
    """The expected cells of the layout's rows, of one dataset and one protocol.

    Rows that the paper copied from another protocol come from that one where the store has them there alone, unless a
    protocol is asked for: so did the paper.

    Args:
        layout: says which are the paper's: they are taken where they are there and no other is asked for.
        expected: columns as `frame.load_expected` gives them.
        dataset: by its name in the grid; None = the paper's, or the only one.
        protocol: likewise.

    Raises:
        UserError: no such dataset or protocol, or several and none that is the paper's.
    """
    rows = layout.rows
    held = expected[expected["task"] == TASK]
    if held.empty:
        raise UserError(f"--layout {layout.name} is a table of {TASK}, and the store holds none: give another store")
    held = held[held["dataset"] == _one("dataset", held["dataset"], rows[0].dataset, dataset)]
    chosen = _one("protocol", held["protocol"], layout.paper.about.protocol, protocol)
    places = list(zip(held["protocol"], held["augmenter"], held["shots"], held["n_aug"], strict=True))
    there, wanted = set(places), set()
    for row in rows:
        own, copied = ((name, row.augmenter, row.shots, row.n_aug) for name in (chosen, row.protocol))
        elsewhere = protocol is None and row.copied_from and own not in there
        if row.augmenter not in layout.paper.about.baselines:
            wanted.add(copied if elsewhere else own)
    return held[pd.Series([place in wanted for place in places], index=held.index, dtype=bool)]


def _one(what: str, held: pd.Series, theirs: str, asked: str | None) -> str:
    names = sorted(set(held))
    if asked is not None and asked not in names:
        raise UserError(f"--{what} '{asked}' is not in the store{did_you_mean(asked, names)}")
    if asked is not None or theirs in names or len(names) == 1:
        return asked or (theirs if theirs in names else names[0])
    raise UserError(f"the store holds several {what}s, and not the paper's: give --{what} {' or '.join(names)}")
