"""Sections -> the terminal, by rich."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator
from typing import TextIO

import rich.table
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from augbench.report.sheet import GAP, NARROWEST, WIDTH, Section, Sheet

_STYLE = {"best": "bold", "second": "underline"}


def standard_output(file: TextIO | None = None) -> Console:
    """Return a console on standard output, or on ``file`` in its place.

    A file or a pipe gets `WIDTH` columns instead of the 80 of rich.
    """
    console = Console(file=file)
    return console if console.is_terminal else Console(file=file, width=max(console.width, WIDTH))


def to_terminal(sections: Iterable[Section]) -> RenderableType:
    """Render sections for ``Console.print``."""
    return Group(*(part for section in sections for part in _section(section)))


def grid(sheet: Sheet) -> rich.table.Table:
    """Render the rows of a sheet. Where it is wider than the terminal names are folded, numbers never."""
    gap = GAP if _least_width(sheet, range(len(sheet.columns)), GAP) <= WIDTH else 1
    table = rich.table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    widths = [max(_widths(sheet, index)) for index in range(len(sheet.columns))]
    heads = [
        [*textwrap.wrap(column.title, width), *textwrap.wrap(column.group, width)]
        for column, width in zip(sheet.columns, widths, strict=True)
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


def sheet_parts(sheet: Sheet) -> RenderableType:
    """Render a sheet with its title, captions and notes."""
    title = [Text(sheet.title, style="bold")] if sheet.title else []
    captions = [Text(sentence, style="dim") for sentence in sheet.captions]
    grids = [Padding(grid(part), (1, 0, 0, 0)) for part in _parts(sheet) if part.rows]
    return Group(*title, *captions, *grids, Text(), *(Text(note, style="dim") for note in sheet.notes))


def _section(section: Section) -> Iterator[RenderableType]:
    yield Text(section.title, style="bold")
    if section.label:
        yield Text(section.label, style="yellow")
    yield from (Text(sentence, style="dim") for sentence in section.sentences)
    for sheet in section.sheets:
        if sheet.title:
            yield Text()
        yield sheet_parts(sheet)
    yield Text()


def _parts(sheet: Sheet) -> Iterator[Sheet]:
    """Split a sheet that is too wide: groups of columns that do not fit follow in further parts, beside the names."""
    groups = [indices for _, indices in sheet.groups()]
    names = [indices[0] for indices in itertools.takewhile(lambda group: sheet.columns[group[0]].is_text, groups)]
    part = list(names)
    for indices in groups[len(names) :]:
        if len(part) > len(names) and _least_width(sheet, [*part, *indices], 1) > WIDTH:
            yield sheet.only(part)
            part = list(names)
        part += indices
    yield sheet.only(part)


def _least_width(sheet: Sheet, indices: Iterable[int], gap: int) -> int:
    """Return the characters that these columns need at least, with names folded."""
    widths = [(max(_widths(sheet, index)), sheet.columns[index].is_text) for index in indices]
    return sum(min(width, NARROWEST) if is_text else width for width, is_text in widths) + gap * (len(widths) - 1)


def _widths(sheet: Sheet, index: int) -> list[int]:
    """Return the widths of a column's entries and of the words of its heading."""
    column = sheet.columns[index]
    return [len(text) for text in (*column.title.split(), *column.group.split(), *(r.texts[index] for r in sheet.rows))]
