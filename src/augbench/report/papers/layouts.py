"""Layouts: the tables of papers, row by row as printed, to be compared with ours.

A layout is a paper and a table number; the content comes from `printed`. Our cells are found by augmenter, shots and
N_aug; `comparison` compares them with the paper's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from augbench.core.errors import UserError, did_you_mean
from augbench.report.numbers import Stat
from augbench.report.papers.fidelity_layout import FidelityLayout, fidelity_layouts
from augbench.report.papers.printed import Paper, Reference, load_paper, paper_names
from augbench.report.runs import Basis

TASK = "detection"  # the task of all papers' tables


@dataclass(frozen=True)
class Layout:
    """A table of a paper."""

    name: str  # e.g. "inout_table1"
    paper: Paper
    number: int

    @property
    def rows(self) -> tuple[Reference, ...]:
        """The rows in printed order, without averages."""
        return self.paper.rows[self.number]

    @property
    def title(self) -> str:
        """The title: ``In&Out (VISAPP 2024), Table 1: Results between ...``."""
        return f"{self.paper.about.name}, Table {self.number}: {self.paper.about.tables[self.number].title}"


@dataclass(frozen=True)
class Line(Basis):
    """A row of a layout with the paper's numbers (theirs) and ours; what it rests on is that of ours."""

    augmenter: str  # name in augbench
    label: str  # name in the paper; "Average"
    n_aug: int | None  # None in an average
    theirs: Mapping[str, Stat]  # each of `METRICS`
    ours: Mapping[str, Stat]
    reference: Reference | None = None  # None in an average
    cells: tuple[Any, ...] = ()  # expected cells
    comparable: bool = True  # whether the row can be reproduced here
    differs: tuple[int, ...] = ()  # numbers of its mismatches, from 1 on
    elsewhere: str = ""  # protocol of our row, where it follows a copied row and differs from our other rows
    best: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # side -> metric -> "best" or "second"

    @property
    def incomplete(self) -> bool:
        """Whether a cell is missing, or no grid of the store has this row."""
        return self.comparable and (self.runs < self.expected_runs or not self.expected)

    @property
    def matches(self) -> bool:
        """Whether both rows have the same settings, so that their difference is meaningful."""
        return self.comparable and not self.incomplete and not self.differs

    def difference(self, metric: str) -> float:
        """Return ours minus theirs; NaN where the rows do not match."""
        return self.ours[metric].mean - self.theirs[metric].mean if self.matches else float("nan")


@dataclass(frozen=True)
class LayoutComparison:
    """A paper's table with ours, as it is printed."""

    layout: Layout
    dataset: str  # our dataset; "" where the store has no cell of the layout
    protocol: str  # protocol of our rows, except those with `Line.elsewhere`
    lines: tuple[Line, ...]
    captions: tuple[str, ...]  # sentences above the table
    mismatches: tuple[str, ...]  # `Line.differs` refers to them, from 1 on
    notes: tuple[str, ...]  # footnotes
    embedded: tuple[str, ...]  # smoke-test parts (dataset, weights) behind ours: these are not evidence
    caveats: tuple[str, ...] = ()  # of all our numbers, in a few words each

    @property
    def label(self) -> str:
        """``ours with smoke-test parts: not evidence (dataset surfaces)`` where there are such; else ""."""
        return f"ours with smoke-test parts: not evidence ({', '.join(self.embedded)})" if self.embedded else ""

    @property
    def has_differences(self) -> bool:
        """Whether any row has a difference."""
        return any(line.matches for line in self.lines)


def layouts() -> dict[str, Layout | FidelityLayout]:
    """Return every layout by name."""
    papers = [load_paper(key) for key in paper_names()]
    printed = {name: Layout(name, paper, number) for paper in papers for name, number in paper.layouts.items()}
    return printed | fidelity_layouts()


def find_layout(name: str) -> Layout | FidelityLayout:
    """Return the layout of that name.

    Raises:
        UserError: there is none; the message names the known ones, or the closest.
    """
    known = layouts()
    if name not in known:
        raise UserError(f"--layout '{name}' does not exist{did_you_mean(name, known)}")
    return known[name]


def choose(layout: Layout, expected: pd.DataFrame, dataset: str | None, protocol: str | None) -> pd.DataFrame:
    """Select the expected cells of the layout's rows, of one dataset and one protocol.

    For a row that the paper copied from another protocol, the cell of that protocol is used where the store has no
    other and no protocol is given.

    Args:
        layout: the paper's table, which names the default dataset and protocol.
        expected: columns as `frame.load_expected` gives them.
        dataset: as in `layout_report.report_layout`.
        protocol: likewise.

    Raises:
        UserError: no such dataset or protocol, or several without the paper's.
    """
    rows = layout.rows
    held = expected[expected["task"] == TASK]
    if held.empty:
        raise UserError(f"--layout {layout.name} is a table of {TASK}, and the store holds none: give another store")
    held = held[held["dataset"] == _one("dataset", held["dataset"], rows[0].dataset, dataset)]
    chosen = _one("protocol", held["protocol"], layout.paper.about.protocol, protocol)
    axes = list(zip(held["protocol"], held["augmenter"], held["shots"], held["n_aug"], strict=True))
    available, wanted = set(axes), set()
    for row in rows:
        own, copied = ((name, row.augmenter, row.shots, row.n_aug) for name in (chosen, row.protocol))
        elsewhere = protocol is None and row.copied_from and own not in available
        if row.augmenter not in layout.paper.about.baselines:
            wanted.add(copied if elsewhere else own)
    return held[pd.Series([one in wanted for one in axes], index=held.index, dtype=bool)]


def _one(what: str, held: pd.Series, theirs: str, asked: str | None) -> str:
    names = sorted(set(held))
    if asked is not None and asked not in names:
        raise UserError(f"--{what} '{asked}' is not in the store{did_you_mean(asked, names)}")
    if asked is not None or theirs in names:
        return asked or theirs
    if len(names) == 1:
        return names[0]
    raise UserError(f"the store holds several {what}s, and not the paper's: give --{what} {' or '.join(names)}")
