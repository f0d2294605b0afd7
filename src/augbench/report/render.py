"""Tables -> terminal and Markdown. LaTeX is in `latex`, CSV and JSON are in `data`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import rich.table
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from augbench.report.tables import Row, Table

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")


def to_terminal(table: Table) -> RenderableType:
    """A table for ``rich.console.Console.print``; made for 100 columns."""
    grid = rich.table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for column in table.columns:
        side = "right" if column.is_number else "left"
        header = Text(f"{column.title}\n{column.group}" if column.group else column.title)
        grid.add_column(header, justify=side, vertical="bottom", no_wrap=False, min_width=_width(table, column.key))
    for row, following in zip(table.rows, [*table.rows[1:], None], strict=True):
        grid.add_row(*_entries(table, row), end_section=following is not None and following.first)
    words = [Text(sentence, style="yellow" if place == 0 and table.embedded else "dim")
             for place, sentence in enumerate(table.captions)]  # fmt: skip
    notes = [Text(note, style="dim") for note in table.notes]
    return Group(Text(table.title, style="bold"), *words, Padding(grid, (1, 0)), *notes, Text())


def _entries(table: Table, row: Row) -> list[Text]:
    """The entries of a row; the augmenter's name stands once per block."""
    style = "italic" if row.is_average else ""
    texts = [Text(row.text(column), style="bold" if table.is_best(row, column) else style) for column in table.columns]
    return texts if row.first else [Text(), *texts[1:]]


def _width(table: Table, key: str) -> int | None:
    """Numbers are never wrapped, headings may be."""
    column = next(column for column in table.columns if column.key == key)
    return max((len(row.text(column)) for row in table.rows), default=None) if column.is_number else None


def to_markdown(name: str, tables: Sequence[Table]) -> str:
    """All tables of a report in GitHub's Markdown."""
    return "\n".join([f"# {escape_markdown(name)}", "", *(_markdown_table(table) for table in tables)])


def _markdown_table(table: Table) -> str:
    titles = [f"{escape_markdown(c.title)}<br>{escape_markdown(c.group)}" if c.group else escape_markdown(c.title)
              for c in table.columns]  # fmt: skip
    rules = ["---:" if column.is_number else ":---" for column in table.columns]
    lines = [f"## {escape_markdown(table.title)}", ""]
    lines += [escape_markdown(" ".join(_sentences(table))), ""]
    lines += [_markdown_row(titles), _markdown_row(rules)]
    lines += [_markdown_row(_markdown_entries(table, row)) for row in table.rows]
    lines += ["", *(f"- {escape_markdown(note)}" for note in table.notes), ""]
    return "\n".join(lines)


def _sentences(table: Table) -> list[str]:
    """The captions as running text: the label gets its full stop."""
    return [
        sentence if sentence.endswith(".") else f"{sentence[0].upper()}{sentence[1:]}." for sentence in table.captions
    ]


def _markdown_entries(table: Table, row: Row) -> list[str]:
    texts = []
    for column in table.columns:
        text = escape_markdown(row.text(column))
        mark = "**" if table.is_best(row, column) else "*" if row.is_average and text else ""
        texts.append(f"{mark}{text}{mark}")
    return texts


def _markdown_row(entries: Sequence[str]) -> str:
    return f"| {' | '.join(entries)} |"


def escape_markdown(text: str) -> str:
    """Text that Markdown prints as it is, on one line and inside a table cell."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
