"""Sections -> the terminal, by rich."""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Collection, Iterable, Iterator
from typing import TextIO

import rich.table
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from augbench.report.sheet import GAP, NARROWEST, WIDTH, Detail, Legend, Section, Sheet

_STYLE = {"best": "bold", "second": "underline"}


def standard_output(file: TextIO | None = None) -> Console:
    """Return a console on standard output, or on ``file`` in its place.

    A file or a pipe gets the columns that the variable COLUMNS says, or `WIDTH` instead of the 80 of rich. A notebook
    gets text like a file.
    """
    console = Console(file=file, force_jupyter=False)
    known = console.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return console if known else Console(file=file, width=max(console.width, WIDTH), force_jupyter=False)


def to_terminal(sections: Iterable[Section], width: int = WIDTH) -> RenderableType:
    """Render sections in full for ``Console.print``: all columns, and all sentences beside their tables."""
    return Group(*(part for section in sections for part in _section(section, width)))


def to_brief(sections: Iterable[Section], width: int, endnotes: Iterable[str] = ()) -> RenderableType:
    """Render sections for a first look: the columns that fit, no details, and each legend once, at the end.

    Args:
        sections: what to print; one without content is a heading.
        width: columns of the terminal.
        endnotes: further sentences for the end.
    """
    parts: list[RenderableType] = []
    legends: dict[str, None] = {}
    left: dict[str, None] = {}

    def facts(sentences: Iterable[str], columns: Collection[str] = ()) -> Iterator[RenderableType]:
        """Yield what is about one table alone; collect the legends of the columns that are printed."""
        for one in sentences:
            if not isinstance(one, Legend | Detail):
                yield Text(one, style="dim")
            elif isinstance(one, Legend) and (not one.columns or not {*columns}.isdisjoint(one.columns)):
                legends[f"{one.about}: {one}" if one.about else str(one)] = None

    for section in sections:
        parts += _heading(section)
        parts += facts(section.sentences)
        for sheet in section.sheets:
            fitting = sheet.fitting(width)
            shown = {column.key for column in fitting.columns}
            left |= {" ".join((c.title, c.group)).strip(): None for c in sheet.columns if c.key not in shown}
            if sheet.title:
                parts += [Text(), Text(sheet.title, style="bold")]
            parts += facts(sheet.captions, shown)
            parts += [Padding(grid(part, width), (1, 0, 0, 0)) for part in _parts(fitting, width) if part.rows]
            notes = list(facts(sheet.notes, shown))
            parts += [Text(), *notes] if notes else []
        if section.sheets or section.sentences or section.lead:
            parts.append(Text())
    without = [f"Left out here: {', '.join(left)}."] if left else []
    ending = [*legends, *endnotes, *without, "--verbose prints every column, and notes on runs and images."]
    return Group(*parts, Text("How to read this", style="bold"), *(Text(one, style="dim") for one in ending))


def grid(sheet: Sheet, width: int = WIDTH) -> rich.table.Table:
    """Render the rows of a sheet. Where it is wider than the terminal names are folded, numbers never."""
    gap = GAP if sheet.width(GAP) <= width else 1
    table = rich.table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    widths = [max(sheet.widths(index)) for index in range(len(sheet.columns))]
    heads = [
        [*textwrap.wrap(column.title, widest), *textwrap.wrap(column.group, widest)]
        for column, widest in zip(sheet.columns, widths, strict=True)
    ]
    for index, (column, head) in enumerate(zip(sheet.columns, heads, strict=True)):
        word = max((len(word) for row in sheet.rows for word in row.texts[index].split()), default=0)
        table.add_column(
            Text("\n".join([*[""] * (max(map(len, heads)) - len(head)), *head])),
            justify="left" if column.is_text else "right",
            overflow="fold",
            no_wrap=not column.is_text,
            min_width=min(word, NARROWEST) if column.is_text else None,
        )
    for row, following in zip(sheet.rows, [*sheet.rows[1:], None], strict=True):
        style = "italic" if row.is_average else ""
        texts = [Text(text, style=_STYLE.get(row.marks.get(index, ""), style)) for index, text in enumerate(row.texts)]
        entries = [Text(), *texts[1:]] if row.repeats_name else texts
        table.add_row(*entries, end_section=following is not None and following.starts_block)
    return table


def sheet_parts(sheet: Sheet, width: int = WIDTH) -> RenderableType:
    """Render a sheet with its title, captions and notes."""
    title = [Text(sheet.title, style="bold")] if sheet.title else []
    captions = [Text(sentence, style="dim") for sentence in sheet.captions]
    grids = [Padding(grid(part, width), (1, 0, 0, 0)) for part in _parts(sheet, width) if part.rows]
    return Group(*title, *captions, *grids, Text(), *(Text(note, style="dim") for note in sheet.notes))


def _heading(section: Section) -> Iterator[RenderableType]:
    yield Text(section.title, style="bold")
    if section.label:
        yield Text(section.label, style="yellow")
    if section.lead:
        yield Text(section.lead)


def _section(section: Section, width: int) -> Iterator[RenderableType]:
    yield from _heading(section)
    yield from (Text(sentence, style="dim") for sentence in section.sentences)
    for sheet in section.sheets:
        if sheet.title:
            yield Text()
        yield sheet_parts(sheet, width)
    yield Text()


def _parts(sheet: Sheet, width: int) -> Iterator[Sheet]:
    """Split a sheet that is too wide: groups of columns that do not fit follow in further parts, beside the names."""
    groups = [indices for _, indices in sheet.groups()]
    names = [indices[0] for indices in itertools.takewhile(lambda group: sheet.columns[group[0]].is_text, groups)]
    part = list(names)
    for indices in groups[len(names) :]:
        if len(part) > len(names) and _least_width(sheet, [*part, *indices]) > width:
            yield sheet.only(part)
            part = list(names)
        part += indices
    yield sheet.only(part)


def _least_width(sheet: Sheet, indices: Iterable[int]) -> int:
    """Return the characters that these columns need at least, with names folded."""
    widths = [(max(sheet.widths(index)), sheet.columns[index].is_text) for index in indices]
    return sum(min(width, NARROWEST) if is_text else width for width, is_text in widths) + len(widths) - 1
