"""Tables -> terminal and Markdown. LaTeX is in `table_latex`, CSV and JSON are in `table_exports`."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence

import rich.table
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from augbench.report.confusion import MATRICES, Confusions, Matrix, MatrixRow
from augbench.report.fidelity_table import HEADING, Fidelity, FidelityRow
from augbench.report.numbers import Column
from augbench.report.tables import Row, Table

_MARKDOWN = re.compile(r"([\\`*_\[\]<>#|~$&])")


WIDTH = 100  # characters of a terminal line that tables must fit into
GAP = 2  # characters between the columns of a table


def standard_output() -> Console:
    """Return a console on standard output. A file or a pipe gets `WIDTH` columns instead of the 80 of rich."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, WIDTH))


def to_terminal(table: Table) -> RenderableType:
    """Render a table, its fidelity table and its confusion matrices for `WIDTH` columns of a terminal."""
    below = [Text(), *_terminal_parts(table.fidelity, HEADING)] if table.fidelity.rows else []
    below += _terminal_confusions(table.confusions) if table.confusions.matrices else []
    return Group(*_terminal_parts(table, table.title), *below, Text())


def _terminal_confusions(found: Confusions) -> list[RenderableType]:
    """Render the means of the chosen matrices; where they do not fit, refer to the file that has them."""
    matrices = [(one.name, one.narrow(WIDTH, GAP)) for one in found.chosen]
    fitting = [(name, matrix) for name, matrix in matrices if matrix]
    rest = "with standard deviations" if fitting else "whose classes are too many for the terminal"
    captions = [*(found.captions(means_only=True) if fitting else []), f"Those of all rows, {rest}, are in report.md."]
    notes = found.notes(found.chosen) if fitting else []
    return [
        Text(),
        Text(MATRICES, style="bold"),
        *([Text(found.label, style="yellow")] if found.label else []),
        *(Text(sentence, style="dim") for sentence in captions),
        *([Text()] if fitting else []),
        *(part for name, matrix in fitting for part in _terminal_parts(matrix, name)),
        *(Text(note, style="dim") for note in notes),
    ]


def _terminal_parts(table: Table | Fidelity | Matrix, title: str) -> list[RenderableType]:
    grid = rich.table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for column in table.columns:
        side = "right" if column.is_number else "left"
        limit = None if table.in_blocks or column.is_number else _text_width(table)
        grid.add_column(_header(table, column), justify=side, vertical="bottom", overflow="fold", max_width=limit)
    for row, following in zip(table.rows, [*table.rows[1:], None], strict=True):
        grid.add_row(*_entries(table, row), end_section=table.in_blocks and following is not None and following.first)
    label = [Text(table.label, style="yellow")] if table.label else []
    captions = [Text(sentence, style="dim") for sentence in table.captions]
    notes = [Text(note, style="dim") for note in table.notes]
    return [Text(title, style="bold"), *label, *captions, Padding(grid, (1, 0)), *notes]


def _entries(table: Table | Fidelity | Matrix, row: Row | FidelityRow | MatrixRow) -> list[Text]:
    """Return the entries of a row; the augmenter's name appears once per block."""
    style = "italic" if row.is_average else ""
    texts = [Text(row.text(column), style="bold" if table.is_best(row, column) else style) for column in table.columns]
    return texts if row.first else [Text(), *texts[1:]]


def _text_width(table: Fidelity | Matrix) -> int:
    """Return the characters that numbers leave to each text column: rich alone would fold numbers beside long names."""
    numbers = [_width(table, column) for column in table.columns if column.is_number]
    texts = len(table.columns) - len(numbers)
    return (WIDTH - sum(numbers) - GAP * (len(table.columns) - 1)) // texts


def _width(table: Table | Fidelity | Matrix, column: Column) -> int:
    """Return the width of the widest entry or heading word."""
    heading = f"{column.title} {column.group}".split()
    return max(len(text) for text in (*heading, *(row.text(column) for row in table.rows)))


def _header(table: Table | Fidelity | Matrix, column: Column) -> Text:
    """Wrap title and group to the width of the entries, so that long names get the remaining width."""
    width = _width(table, column)
    lines = [*textwrap.wrap(column.title, width), *textwrap.wrap(column.group, width)]
    return Text("\n".join(lines))


def to_markdown(name: str, tables: Sequence[Table]) -> str:
    """Render all tables of a report in GitHub's Markdown."""
    return "\n".join([f"# {escape_markdown(name)}", "", *(_markdown(table) for table in tables)])


def _markdown(table: Table) -> str:
    """Render a table, its fidelity table and its confusion matrices."""
    below = [_markdown_table(table.fidelity, f"### {HEADING}")] if table.fidelity.rows else []
    below += [_markdown_confusions(table.confusions)] if table.confusions.matrices else []
    return "\n".join([_markdown_table(table, f"## {escape_markdown(table.title)}"), *below])


def _markdown_confusions(found: Confusions) -> str:
    """Render every matrix in a collapsed section."""
    label = [f"**{escape_markdown(found.label)}**", ""] if found.label else []
    sentences = [*found.captions(), *found.notes(found.matrices)]
    lines = [f"### {MATRICES}", "", *label, escape_markdown(" ".join(sentences)), ""]
    for one in found.matrices:
        lines += ["<details>", f"<summary>{html.escape(' '.join(one.name.split()))}</summary>", ""]
        lines += [*_markdown_grid(one.matrix()), "", "</details>", ""]
    return "\n".join(lines)


def _markdown_table(table: Table | Fidelity, heading: str) -> str:
    lines = [heading, ""]
    label = [f"**{escape_markdown(table.label)}**", ""] if table.label else []
    lines += [*label, escape_markdown(" ".join(table.captions)), ""]
    lines += _markdown_grid(table)
    lines += ["", *(f"- {escape_markdown(note)}" for note in table.notes), ""]
    return "\n".join(lines)


def _markdown_grid(table: Table | Fidelity | Matrix) -> list[str]:
    """Return the lines of a table without heading and notes."""
    titles = [f"{escape_markdown(c.title)}<br>{escape_markdown(c.group)}" if c.group else escape_markdown(c.title)
              for c in table.columns]  # fmt: skip
    rules = ["---:" if column.is_number else ":---" for column in table.columns]
    entries = [_markdown_entries(table, row) for row in table.rows]
    return [_markdown_row(line) for line in (titles, rules, *entries)]


def _markdown_entries(table: Table | Fidelity | Matrix, row: Row | FidelityRow | MatrixRow) -> list[str]:
    texts = []
    for column in table.columns:
        text = escape_markdown(row.text(column))
        mark = "**" if table.is_best(row, column) else "*" if row.is_average and text else ""
        texts.append(f"{mark}{text}{mark}")
    return texts


def _markdown_row(entries: Sequence[str]) -> str:
    return f"| {' | '.join(entries)} |"


def escape_markdown(text: str) -> str:
    """Escape text for a Markdown table cell and put it on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
