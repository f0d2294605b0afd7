"""Sections -> GitHub's Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from augbench.report.sheet import Section, Sheet, SheetRow

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&])")
_MARKS = {"best": ("**", "**"), "second": ("<u>", "</u>")}


def to_markdown(title: str, sections: Sequence[Section], images: Sequence[tuple[str, str]] = ()) -> str:
    """Render sections under a title; ``images`` are (title, file) of plots in the same folder."""
    lines = [f"# {escape(title)}", ""]
    for name, file in images:
        lines += [f"![{escape(name)}]({file})", ""]
    for section in sections:
        lines += section_lines(section)
    return "\n".join(lines)


def escape(text: str) -> str:
    """Escape text for a table cell and put it on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table_lines(heads: Sequence[str], are_text: Sequence[bool], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose entries are Markdown already."""
    rules = [":---" if is_text else "---:" for is_text in are_text]
    return [f"| {' | '.join(line)} |" for line in (heads, rules, *rows)]


def grid(sheet: Sheet) -> list[str]:
    """Return the lines of a sheet's table, without title, captions and notes."""
    heads = [escape(c.title) + (f"<br>{escape(c.group)}" if c.group else "") for c in sheet.columns]
    return table_lines(heads, [column.is_text for column in sheet.columns], [_entries(row) for row in sheet.rows])


def _entries(row: SheetRow) -> list[str]:
    entries = []
    for index, text in enumerate(row.texts):
        before, behind = _MARKS.get(row.marks.get(index, ""), ("*", "*") if row.is_average and text else ("", ""))
        entries.append(f"{before}{escape(text)}{behind}")
    return entries


def section_lines(section: Section) -> Iterator[str]:
    """Yield the lines of a section."""
    level = "###" if section.under else "##"
    yield from (f"{level} {escape(section.title)}", "")
    if section.label:
        yield from (f"**{escape(section.label)}**", "")
    if section.sentences:
        yield from (escape(" ".join(section.sentences)), "")
    for sheet in section.sheets:
        yield from _folded(sheet) if sheet.is_folded else _sheet(sheet, f"{level}#")


def _sheet(sheet: Sheet, level: str) -> Iterator[str]:
    if sheet.title:
        yield from (f"{level} {escape(sheet.title)}", "")
    if sheet.captions:
        yield from (escape(" ".join(sheet.captions)), "")
    yield from (*grid(sheet), "")
    if sheet.notes:
        yield from (*(f"- {escape(note)}" for note in sheet.notes), "")


def _folded(sheet: Sheet) -> Iterator[str]:
    yield from ("<details>", f"<summary>{html.escape(' '.join(sheet.title.split()))}</summary>", "")
    yield from (*grid(sheet), "", "</details>", "")
