"""Comparisons with papers -> sections and sheets, which all renderers print.

The first section has theirs, ours and the difference next to each other. The second has ours alone in the form of the
paper's table, with two augmenters side by side where the paper prints them so.
"""

from __future__ import annotations

from itertools import zip_longest
from math import isnan
from typing import Literal

from augbench.report.numbers import DASH, INCOMPLETE, Stat, flagged, share, signed
from augbench.report.papers.layouts import LayoutComparison, Line
from augbench.report.papers.printed import METRICS
from augbench.report.sheet import Column, Mark, Section, Sheet, SheetRow

Side = Literal["theirs", "ours"]
Entries = list[tuple[str, Mark | None]]  # texts and marks of some columns of a row

COPIED = "\N{DAGGER}"
PRINTED = "Ours, in the form of the paper's table"
NO_DIFFERENCE = "No difference is given where something does not match:"


def sections_of(comparison: LayoutComparison) -> list[Section]:
    """Return both sections."""
    about, title = comparison.layout.paper.about, comparison.layout.title
    reasons = [f"({number}) {text}" for number, text in enumerate(comparison.mismatches, 1)]
    notes = [*([NO_DIFFERENCE, *reasons] if reasons else []), *comparison.notes, f"{about.reference}. {about.url}"]
    first = compared(comparison, comparison.captions, tuple(notes))
    return [
        Section(title, comparison.label, sheets=[first]),
        Section(PRINTED, comparison.label, sheets=[printed(comparison, "ours")], under=title),
    ]


def compared(comparison: LayoutComparison, captions: tuple[str, ...] = (), notes: tuple[str, ...] = ()) -> Sheet:
    """Build the sheet of theirs, ours, the difference where there is any, and our number of runs."""
    headings = comparison.layout.paper.about.headings
    groups = ["theirs", "ours", *(["difference"] if comparison.has_differences else [])]
    numbers = [Column(f"{group} {metric}", title, group)
               for group in groups for metric, title in zip(METRICS, headings[1:], strict=True)]  # fmt: skip
    rows = []
    for line, above in zip(comparison.lines, (None, *comparison.lines[:-1]), strict=True):
        entries = [entry for side in ("theirs", "ours") for entry in _numbers(comparison, line, side)]
        if comparison.has_differences:
            entries += [(flagged(signed(line.difference(m)), len(line.collapsed)), None) for m in METRICS]
        starts = above is not None and _block(comparison, above) != _block(comparison, line)
        rows.append(_row([*_names(_label(line), line), *entries, (_runs(line), None)], line.is_average, starts))
    columns = [*_name_columns(comparison), *numbers, Column("runs", "runs")]
    return Sheet(columns, rows, captions=captions, notes=notes)


def printed(comparison: LayoutComparison, side: Side) -> Sheet:
    """Build the sheet of one side alone, in the form of the paper's table."""
    about = comparison.layout.paper.about
    blocks: dict[str, list[Line]] = {}
    for line in comparison.lines:
        blocks.setdefault(line.augmenter, []).append(line)
    beside = about.tables[comparison.layout.number].side_by_side
    halves = list(blocks.values()) if beside else [list(comparison.lines)]
    numbers = [Column(metric, title) for metric, title in zip(METRICS, about.headings[1:], strict=True)]
    blank: Entries = [("", None)] * (2 + len(METRICS))
    rows: list[SheetRow] = []
    above: Line | None = None
    for lines in zip_longest(*halves):
        whole = [line for line in lines if line]
        starts = above is not None and not beside and _block(comparison, whole[0]) != _block(comparison, above)
        entries = [entry for line in lines for entry in (_half(comparison, line, side) if line else blank)]
        rows.append(_row(entries, whole[0].is_average, starts))
        above = whole[0]
    return Sheet([*_name_columns(comparison), *numbers] * len(halves), rows)


def _row(entries: Entries, average: bool, starts_block: bool) -> SheetRow:
    marks = {index: mark for index, (_, mark) in enumerate(entries) if mark}
    return SheetRow(tuple(text for text, _ in entries), marks, average, starts_block)


def _name_columns(comparison: LayoutComparison) -> list[Column]:
    heading = comparison.layout.paper.about.headings[0]
    return [Column("label", heading, is_text=True), Column("n_aug", "N_aug", is_text=True)]


def _block(comparison: LayoutComparison, line: Line) -> str:
    """Return the block of a row: rows of one name in the paper, and their average."""
    return comparison.layout.paper.about.printed_as[line.augmenter]


def _half(comparison: LayoutComparison, line: Line, side: Side) -> Entries:
    missing = f" {INCOMPLETE}" if side == "ours" and line.incomplete else ""
    label = f"{_label(line) if side == 'theirs' else line.label}{missing}"
    return [*_names(label, line), *_numbers(comparison, line, side)]


def _label(line: Line) -> str:
    return f"{line.label} {COPIED}" if line.reference and line.reference.copied_from else line.label


def _names(label: str, line: Line) -> Entries:
    """Return label and N_aug; this is empty in an average and for methods that add no images."""
    n_aug = str(line.n_aug) if line.n_aug is not None and line.comparable else ""
    return [(label, None), (n_aug, None)]


def _numbers(comparison: LayoutComparison, line: Line, side: Side) -> Entries:
    std = comparison.layout.paper.about.prints_std
    stats, collapsed = getattr(line, side), len(line.collapsed) if side == "ours" else 0
    return [
        (flagged(_text(stats[metric], std, side), collapsed), line.best.get(side, {}).get(metric)) for metric in METRICS
    ]


def _text(stat: Stat, std: bool, side: Side) -> str:
    """Format ``.626 (.059)``, or ``.769`` where the paper prints no std; where the paper prints a dash, two."""
    if isnan(stat.mean) and side == "ours":
        return DASH
    return f"{share(stat.mean)} ({share(stat.std)})" if std else share(stat.mean)


def _runs(line: Line) -> str:
    """Format our number of runs: ``4``, ``2/4 *``, or ``*`` where no grid has the row."""
    if not line.comparable:
        return ""
    if line.is_average or not line.expected:
        return INCOMPLETE if line.incomplete else ""
    return line.runs_text
