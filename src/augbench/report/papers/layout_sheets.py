"""Comparisons with papers -> sheets: tables as rows of entries, which all renderers print.

The first sheet has theirs, ours and the difference next to each other. The second has ours alone in the form of the
paper's table, with two augmenters side by side where the paper prints them so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import isnan
from typing import Literal

from augbench.report.numbers import DASH, INCOMPLETE, Column, Stat, share
from augbench.report.papers.layouts import LayoutComparison, Line
from augbench.report.papers.printed import METRICS

Mark = Literal["", "best", "second"]
Side = Literal["theirs", "ours"]

COPIED = "\N{DAGGER}"
PRINTED = "Ours, in the form of the paper's table"


@dataclass(frozen=True)
class Entry:
    """One entry of a sheet."""

    text: str
    mark: Mark = ""  # whether it is the best or the second best of its column


@dataclass(frozen=True)
class SheetRow:
    """A row of a sheet."""

    entries: tuple[Entry, ...]
    average: bool = False
    first: bool = False  # first row of an augmenter, with a rule above


@dataclass(frozen=True)
class LayoutSheet:
    """A table as renderers print it."""

    title: str
    columns: tuple[Column, ...]  # keys: "label", "n_aug", "runs", or "theirs", "ours" or "difference" with a metric
    rows: tuple[SheetRow, ...]

    def only(self, keep: Iterable[bool]) -> LayoutSheet:
        """Return the sheet with only the columns where ``keep`` is True."""
        indices = [index for index, is_kept in enumerate(keep) if is_kept]
        rows = [replace(row, entries=tuple(row.entries[index] for index in indices)) for row in self.rows]
        return replace(self, columns=tuple(self.columns[index] for index in indices), rows=tuple(rows))

    def width(self, gap: int) -> int:
        """Return the characters of a line with ``gap`` between columns, each as wide as its widest entry or heading."""
        widest = (
            max(len(text) for text in (column.title, column.group, *(row.entries[index].text for row in self.rows)))
            for index, column in enumerate(self.columns)
        )
        return sum(widest) + gap * (len(self.columns) - 1)


def compared(comparison: LayoutComparison) -> LayoutSheet:
    """Build the sheet of theirs, ours, our number of runs, and the difference where there is any."""
    headings = comparison.layout.paper.about.headings
    groups = ["theirs", "ours", *(["difference"] if comparison.has_differences else [])]
    numbers = [Column(f"{group} {metric}", title, group)
               for group in groups for metric, title in zip(METRICS, headings[1:], strict=True)]  # fmt: skip
    columns = (Column("label", headings[0]), Column("n_aug", "N_aug"), *numbers, Column("runs", "runs"))
    rows = []
    for line, above in zip(comparison.lines, (None, *comparison.lines[:-1]), strict=True):
        entries = [Entry(_label(line)), Entry(_n_aug(line)), *_numbers(comparison, line, "theirs")]
        entries += _numbers(comparison, line, "ours")
        if comparison.has_differences:
            entries += [Entry(signed(line.difference(metric))) for metric in METRICS]
        first = above is not None and _block(comparison, above) != _block(comparison, line)
        rows.append(SheetRow((*entries, Entry(_runs(line))), line.average, first))
    return LayoutSheet(comparison.layout.title, columns, tuple(rows))


def printed(comparison: LayoutComparison, side: Side) -> LayoutSheet:
    """Build the sheet of one side alone, in the form of the paper's table."""
    about = comparison.layout.paper.about
    blocks: dict[str, list[Line]] = {}
    for line in comparison.lines:
        blocks.setdefault(line.augmenter, []).append(line)
    beside = about.tables[comparison.layout.number].side_by_side
    halves = list(blocks.values()) if beside else [list(comparison.lines)]
    columns = [Column(f"{key} {place}", title) for place in range(len(halves))
               for key, title in (("label", about.headings[0]), ("n_aug", "N_aug"),
                                  *zip(METRICS, about.headings[1:], strict=True))]  # fmt: skip
    blank = (Entry(""),) * (2 + len(METRICS))
    rows: list[SheetRow] = []
    above: Line | None = None
    for lines in zip_longest(*halves):
        entries = [_half(comparison, line, side) if line else blank for line in lines]
        whole = [line for line in lines if line]
        first = above is not None and not beside and _block(comparison, whole[0]) != _block(comparison, above)
        rows.append(SheetRow(tuple(entry for half in entries for entry in half), whole[0].average, first))
        above = whole[0]
    return LayoutSheet(PRINTED, tuple(columns), tuple(rows))


def signed(value: float) -> str:
    """Format a difference with its sign: ``+.012``, ``-.004``, ``.000``; a dash for NaN."""
    text = share(value)
    return f"+{text}" if value > 0 and text != ".000" else text


def _block(comparison: LayoutComparison, line: Line) -> str:
    """Return the block of a row: rows of one name in the paper, and their average."""
    return comparison.layout.paper.about.printed_as[line.augmenter]


def _half(comparison: LayoutComparison, line: Line, side: Side) -> tuple[Entry, ...]:
    missing = f" {INCOMPLETE}" if side == "ours" and line.incomplete else ""
    label = Entry(f"{_label(line) if side == 'theirs' else line.label}{missing}")
    return label, Entry(_n_aug(line)), *_numbers(comparison, line, side)


def _label(line: Line) -> str:
    return f"{line.label} {COPIED}" if line.reference and line.reference.copied_from else line.label


def _n_aug(line: Line) -> str:
    """Format N_aug; empty in an average and for methods that add no images."""
    return str(line.n_aug) if line.n_aug is not None and line.comparable else ""


def _numbers(comparison: LayoutComparison, line: Line, side: Side) -> list[Entry]:
    std = comparison.layout.paper.about.prints_std
    marks, stats = line.best.get(side, {}), getattr(line, side)
    return [Entry(_text(stats[metric], std, side), marks.get(metric, "")) for metric in METRICS]


def _text(stat: Stat, std: bool, side: Side) -> str:
    """Format ``.626 (.059)``, or ``.769`` where the paper prints no std; where the paper prints a dash, two."""
    if isnan(stat.mean) and side == "ours":
        return DASH
    return f"{share(stat.mean)} ({share(stat.std)})" if std else share(stat.mean)


def _runs(line: Line) -> str:
    """Format our number of cells: ``4``, ``2/4 *``, or ``*`` where no grid has the row."""
    if not line.comparable:
        return ""
    if line.average or not line.expected:
        return INCOMPLETE if line.incomplete else ""
    return f"{line.found}/{line.expected} {INCOMPLETE}" if line.incomplete else str(line.found)


def blocks_of(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return group headings with their number of columns; "" for columns without a group."""
    found: list[tuple[str, int]] = []
    for column in columns:
        if found and column.group and found[-1][0] == column.group:
            found[-1] = (column.group, found[-1][1] + 1)
        else:
            found.append((column.group, 1))
    return found
