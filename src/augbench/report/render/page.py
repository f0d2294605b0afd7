"""Sections -> a self-contained HTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from augbench.report.sheet import Section, Sheet, SheetRow

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; white-space: nowrap; }
th.text, td.text { text-align: left; }
thead tr:last-child th { border-bottom: 1px solid #888; }
thead th.group { text-align: center; border-bottom: 1px solid #ccc; }
tr.block td { border-top: 1px solid #ccc; }
tr.average td { font-style: italic; }
.label { color: #8a5a00; font-weight: 600; }
.words { color: #555; }
""".strip()
_TEXT = ' class="text"'
_MARKS = {"best": "b", "second": "u"}
_URL = re.compile(r"https://[^\s&\"'<>]+")


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Render sections under a title. All texts are escaped; addresses become links."""
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        "</head>",
        "<body>",
        f"<h1>{html.escape(title)}</h1>",
        *(line for section in sections for line in _section(section)),
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines)


def _section(section: Section) -> Iterator[str]:
    yield f"<h2>{html.escape(section.title)}</h2>"
    if section.label:
        yield f'<p class="label">{html.escape(section.label)}</p>'
    if section.sentences:
        yield f'<p class="words">{_linked(" ".join(section.sentences))}</p>'
    for sheet in section.sheets:
        if sheet.title:
            yield f"<h3>{html.escape(sheet.title)}</h3>"
        if sheet.captions:
            yield f'<p class="words">{_linked(" ".join(sheet.captions))}</p>'
        yield from _table(sheet)
        if sheet.notes:
            yield from ("<ul>", *(f"<li>{_linked(note)}</li>" for note in sheet.notes), "</ul>")


def _linked(text: str) -> str:
    return _URL.sub(lambda found: f'<a href="{found[0]}">{found[0]}</a>', html.escape(text))


def _table(sheet: Sheet) -> Iterator[str]:
    yield from ("<table>", "<thead>")
    groups = sheet.groups()
    if any(name for name, _ in groups):
        heads = (f'<th class="group" colspan="{len(at)}">{html.escape(name)}</th>' if name else "<th></th>"
                 for name, at in groups)  # fmt: skip
        yield f"<tr>{''.join(heads)}</tr>"
    yield f"<tr>{_cells('th', sheet, [html.escape(column.title) for column in sheet.columns])}</tr>"
    yield from ("</thead>", "<tbody>")
    for row in sheet.rows:
        names = " ".join(name for name, holds in (("block", row.starts_block), ("average", row.is_average)) if holds)
        yield f'<tr class="{names}">{_row(sheet, row)}</tr>' if names else f"<tr>{_row(sheet, row)}</tr>"
    yield from ("</tbody>", "</table>")


def _row(sheet: Sheet, row: SheetRow) -> str:
    tags = [_MARKS.get(row.marks.get(index, "")) for index in range(len(row.texts))]
    texts = [html.escape(text) for text in row.texts]
    return _cells("td", sheet, [f"<{t}>{text}</{t}>" if t else text for t, text in zip(tags, texts, strict=True)])


def _cells(tag: str, sheet: Sheet, contents: Sequence[str]) -> str:
    pairs = zip(sheet.columns, contents, strict=True)
    return "".join(f"<{tag}{_TEXT if column.is_text else ''}>{content}</{tag}>" for column, content in pairs)
