"""The one table model: sheets of texts under headings. Every renderer in `report.render` prints these.

What the texts say is decided where a sheet is built; renderers only set them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

Mark = Literal["best", "second"]
Medium = Literal["terminal", "markdown", "latex"]
"""Sections may depend on it: the terminal and LaTeX leave out what only files have room for."""

WIDTH = 100  # characters of a line that sheets must fit into where no terminal says how many it has
GAP = 2  # characters between the columns of a sheet
NARROWEST = 16  # characters that a column of names needs at least


class Legend(str):
    """A sentence that explains numbers wherever they stand: a terminal prints it once, below all tables.

    ``columns``: the keys of the columns that it explains, () for all; ``about``: what tells it from legends of others,
    for example ``protocol probe``.
    """

    columns: tuple[str, ...]
    about: str

    def __new__(cls, text: str, *columns: str, about: str = "") -> Legend:
        """Create it from its text."""
        made = super().__new__(cls, text)
        made.columns, made.about = columns, about
        return made


class Detail(str):
    """A sentence that a first look does without: a terminal prints it with ``--verbose`` alone."""


@dataclass(frozen=True)
class Column:
    """A column of a table. Adjacent columns with the same ``group`` share that heading."""

    key: str
    title: str
    group: str = ""
    is_text: bool = False  # left-aligned, and may be folded; else a number
    detail: int = 0  # a terminal that is too narrow leaves out the columns of the highest first, never those of 0


@dataclass(frozen=True)
class SheetRow:
    """A row of a sheet."""

    texts: tuple[str, ...]
    marks: Mapping[int, Mark] = field(default_factory=dict)  # index of a column -> mark of its entry
    is_average: bool = False  # set in italics
    starts_block: bool = False  # a rule above
    repeats_name: bool = False  # its first text is that of the row above: left out where readers see both


@dataclass(frozen=True)
class Sheet:
    """A table as renderers print it."""

    columns: Sequence[Column]
    rows: Sequence[SheetRow]
    title: str = ""
    captions: Sequence[str] = ()  # sentences above
    notes: Sequence[str] = ()  # footnotes
    is_folded: bool = False  # collapsed under its title where the medium can

    @classmethod
    def of(cls, texts: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Sheet:
        """Create a sheet from headings and rows of texts; columns of text come before those of numbers."""
        columns = [Column(name, name, is_text=True) for name in texts] + [Column(name, name) for name in numbers]
        return cls(columns, [SheetRow(tuple(row)) for row in rows], title)

    def only(self, indices: Sequence[int]) -> Sheet:
        """Return the sheet with only these columns."""
        rows = [
            replace(
                row,
                texts=tuple(row.texts[index] for index in indices),
                marks={place: row.marks[index] for place, index in enumerate(indices) if index in row.marks},
            )
            for row in self.rows
        ]
        return replace(self, columns=[self.columns[index] for index in indices], rows=rows)

    def fitting(self, width: int) -> Sheet:
        """Return the sheet without as many details as it takes to fit into a terminal."""
        sheet = self
        while sheet.width() > width and (last := max(column.detail for column in sheet.columns)):
            sheet = sheet.only([index for index, column in enumerate(sheet.columns) if column.detail < last])
        return sheet

    def width(self, gap: int = 1) -> int:
        """Return the characters that a line takes where no name is folded."""
        return sum(max(self.widths(index)) for index in range(len(self.columns))) + gap * (len(self.columns) - 1)

    def widths(self, index: int) -> list[int]:
        """Return the widths of a column's entries and of the words of its heading."""
        column = self.columns[index]
        return [
            len(text) for text in (*column.title.split(), *column.group.split(), *(r.texts[index] for r in self.rows))
        ]

    def groups(self) -> list[tuple[str, list[int]]]:
        """Return the group headings with the indices of their columns; a column without a group stands alone."""
        found = groupby(enumerate(self.columns), key=lambda one: (one[1].group, "" if one[1].group else one[0]))
        return [(name, [index for index, _ in members]) for (name, _), members in found]


@dataclass(frozen=True)
class Section:
    """Sheets under one heading."""

    title: str
    label: str = ""  # warning about its numbers; "" where there is none
    sentences: Sequence[str] = ()
    sheets: Sequence[Sheet] = ()
    under: str = ""  # title of the section that it is a part of
    lead: str = ""  # what its numbers say, in a sentence above them: of terminals alone
