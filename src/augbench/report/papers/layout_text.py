"""Comparisons with papers -> terminal, Markdown, LaTeX, HTML. CSV and JSON are in `layout_exports`."""

from __future__ import annotations

import html
from collections.abc import Iterator

import rich.table
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from augbench.report.numbers import Column
from augbench.report.papers.layout_sheets import COPIED, Entry, LayoutSheet, SheetRow, blocks_of, compared, printed
from augbench.report.papers.layouts import LayoutComparison
from augbench.report.table_latex import environment, escape_latex
from augbench.report.table_text import GAP, WIDTH, escape_markdown

NO_DIFFERENCE = "No difference is given where something does not match:"

_MARKDOWN = {"best": ("**", "**"), "second": ("<u>", "</u>")}
_LATEX = {"best": (r"\textbf{", "}"), "second": (r"\underline{", "}")}
_HTML = {"best": ("<b>", "</b>"), "second": ("<u>", "</u>")}
_TERMINAL = {"best": "bold", "second": "underline"}

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; white-space: nowrap; }
th.text, td.text { text-align: left; }
thead tr:last-child th { border-bottom: 1px solid #888; }
thead th.group { text-align: center; border-bottom: 1px solid #ccc; }
tr.first td { border-top: 1px solid #ccc; }
tr.average td { font-style: italic; }
.label { color: #8a5a00; font-weight: 600; }
.words { color: #555; }
""".strip()


# -- terminal


def to_terminal(comparison: LayoutComparison) -> RenderableType:
    """Render theirs next to ours for `WIDTH` columns of a terminal.

    Where the differences do not fit, they follow as a separate table.
    """
    whole = compared(comparison)
    parts = [whole]
    if whole.width(1) > WIDTH:
        names = [not column.group for column in whole.columns[:-1]] + [False]
        is_difference = [column.group == "difference" for column in whole.columns]
        parts = [whole.only(not one for one in is_difference)]
        if any(is_difference):
            parts.append(whole.only(name or one for name, one in zip(names, is_difference, strict=True)))
    label = [Text(comparison.label, style="yellow")] if comparison.label else []
    captions = [Text(sentence, style="dim") for sentence in comparison.captions]
    reasons = [NO_DIFFERENCE, *_numbered(comparison)] if comparison.mismatches else []
    notes = [Text(sentence, style="dim") for sentence in (*reasons, *comparison.notes)]
    grids = [Padding(_terminal_grid(part), (1, 0, 0, 0)) for part in parts]
    return Group(Text(whole.title, style="bold"), *label, *captions, *grids, Text(), *notes, Text())


def _terminal_grid(sheet: LayoutSheet) -> rich.table.Table:
    gap = GAP if sheet.width(GAP) <= WIDTH else 1
    grid = rich.table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for column in sheet.columns:
        side = "left" if _is_text(column) else "right"
        grid.add_column(
            Text("\n".join(filter(None, (column.group, column.title)))), justify=side, vertical="bottom",
            no_wrap=column.key != "label",
        )  # fmt: skip
    for row, following in zip(sheet.rows, (*sheet.rows[1:], None), strict=True):
        texts = [Text(entry.text, style=_TERMINAL.get(entry.mark, "italic" * row.average)) for entry in row.entries]
        grid.add_row(*texts, end_section=following is not None and following.first)
    return grid


def _numbered(comparison: LayoutComparison) -> list[str]:
    return [f"{number}. {text}" for number, text in enumerate(comparison.mismatches, 1)]


def _is_text(column: Column) -> bool:
    return column.key.partition(" ")[0] in ("label", "n_aug")


# -- Markdown


def to_markdown(comparison: LayoutComparison) -> str:
    """Render as GitHub's Markdown."""
    about = comparison.layout.paper.about
    label = [f"**{escape_markdown(comparison.label)}**", ""] if comparison.label else []
    lines = [f"# {escape_markdown(comparison.layout.title)}", "", *label]
    lines += [escape_markdown(" ".join(comparison.captions)), "", *_markdown_grid(compared(comparison)), ""]
    if comparison.mismatches:
        lines += [NO_DIFFERENCE, ""]
        lines += [f"{number}. {escape_markdown(text)}" for number, text in enumerate(comparison.mismatches, 1)]
        lines += [""]
    lines += [*(f"- {escape_markdown(note)}" for note in comparison.notes), ""]
    ours = printed(comparison, "ours")
    lines += [f"## {escape_markdown(ours.title)}", "", *_markdown_grid(ours), ""]
    return "\n".join([*lines, f"{escape_markdown(about.reference)}. <{about.url}>", ""])


def _markdown_grid(sheet: LayoutSheet) -> list[str]:
    titles = ["<br>".join(map(escape_markdown, filter(None, (column.group, column.title)))) for column in sheet.columns]
    rules = [":---" if _is_text(column) else "---:" for column in sheet.columns]
    rows = [[_markdown_entry(entry, row) for entry in row.entries] for row in sheet.rows]
    return [f"| {' | '.join(line)} |" for line in (titles, rules, *rows)]


def _markdown_entry(entry: Entry, row: SheetRow) -> str:
    before, behind = _MARKDOWN.get(entry.mark, ("*", "*") if row.average and entry.text else ("", ""))
    return f"{before}{escape_markdown(entry.text)}{behind}"


# -- LaTeX


def to_latex(comparison: LayoutComparison) -> str:
    """Render as two ``table`` environments, for use with ``\\input``."""
    label = rf"\textbf{{{escape_latex(comparison.label)}}}. " if comparison.label else ""
    caption = f"{label}{_latex_text(' '.join(comparison.captions))}"
    reasons = [NO_DIFFERENCE, *_numbered(comparison)] if comparison.mismatches else []
    tables = [
        _latex_table(compared(comparison), caption, (*reasons, *comparison.notes)),
        _latex_table(printed(comparison, "ours"), f"{_latex_text(comparison.layout.title)}. {caption}", ()),
    ]
    return f"% {comparison.layout.name}: needs \\usepackage{{booktabs}}\n\n" + "\n".join(tables)


def _latex_table(sheet: LayoutSheet, text: str, notes: tuple[str, ...]) -> str:
    sides = "".join("l" if _is_text(column) else "r" for column in sheet.columns)
    caption = f"{_latex_text(sheet.title)}. {text}"
    return environment(caption, sides, _latex_headings(sheet), _latex_body(sheet), map(_latex_text, notes))


def _latex_headings(sheet: LayoutSheet) -> list[str]:
    groups, rules, start = [], [], 1
    for name, width in blocks_of(sheet.columns):
        groups.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(name)}}}" if name else "")
        rules += [rf"\cmidrule(lr){{{start}-{start + width - 1}}}"] if name else []
        start += width
    titles = [r"$N_\mathrm{aug}$" if column.title == "N_aug" else _latex_text(column.title) for column in sheet.columns]
    above = [_latex_line(groups), " ".join(rules)] if any(groups) else []
    return [*above, _latex_line(titles)]


def _latex_body(sheet: LayoutSheet) -> Iterator[str]:
    for row in sheet.rows:
        if row.first:
            yield r"\addlinespace"
        yield _latex_line([_latex_entry(entry, row) for entry in row.entries])


def _latex_entry(entry: Entry, row: SheetRow) -> str:
    before, behind = _LATEX.get(entry.mark, (r"\textit{", "}") if row.average and entry.text else ("", ""))
    return f"{before}{_latex_number(entry.text)}{behind}"


def _latex_text(text: str) -> str:
    return escape_latex(text).replace(COPIED, r"$^\dagger$")


def _latex_number(text: str) -> str:
    """Escape an entry and set the sign of a number in math mode."""
    return f"${text[0]}${text[1:]}" if text[:1] in ("-", "+") else _latex_text(text)


def _latex_line(entries: list[str]) -> str:
    return " & ".join(entries) + r" \\"


# -- HTML


def to_html(comparison: LayoutComparison) -> str:
    """Render as a self-contained HTML page; text from configurations is escaped."""
    about, title = comparison.layout.paper.about, html.escape(comparison.layout.title)
    ours = printed(comparison, "ours")
    label = [f'<p class="label">{html.escape(comparison.label)}</p>'] if comparison.label else []
    reasons = [f"<p>{NO_DIFFERENCE}</p>", "<ol>", *_html_items(comparison.mismatches), "</ol>"]
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>\n{_STYLE}\n</style>",
        "</head>",
        "<body>",
        f"<h1>{title}</h1>",
        *label,
        f'<p class="words">{html.escape(" ".join(comparison.captions))}</p>',
        *_html_grid(compared(comparison)),
        *(reasons if comparison.mismatches else []),
        "<ul>",
        *_html_items(comparison.notes),
        "</ul>",
        f"<h2>{html.escape(ours.title)}</h2>",
        *_html_grid(ours),
        f'<p class="words">{html.escape(about.reference)}. <a href="{html.escape(about.url)}">'
        f"{html.escape(about.url)}</a></p>",
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines)


def _html_items(texts: tuple[str, ...]) -> Iterator[str]:
    return (f"<li>{html.escape(text)}</li>" for text in texts)


def _html_grid(sheet: LayoutSheet) -> Iterator[str]:
    yield "<table>"
    yield "<thead>"
    groups = blocks_of(sheet.columns)
    if any(name for name, _ in groups):
        cells = (f'<th class="group" colspan="{width}">{html.escape(name)}</th>' if name else "<th></th>"
                 for name, width in groups)  # fmt: skip
        yield f"<tr>{''.join(cells)}</tr>"
    yield f"<tr>{''.join(_html_cell('th', column, html.escape(column.title)) for column in sheet.columns)}</tr>"
    yield "</thead>"
    yield "<tbody>"
    for row in sheet.rows:
        names = " ".join(name for name in ("first", "average") if getattr(row, name))
        pairs = zip(sheet.columns, row.entries, strict=True)
        cells = "".join(_html_cell("td", column, _html_entry(entry)) for column, entry in pairs)
        yield f'<tr class="{names}">{cells}</tr>' if names else f"<tr>{cells}</tr>"
    yield "</tbody>"
    yield "</table>"


def _html_cell(tag: str, column: Column, content: str) -> str:
    return f'<{tag} class="text">{content}</{tag}>' if _is_text(column) else f"<{tag}>{content}</{tag}>"


def _html_entry(entry: Entry) -> str:
    before, behind = _HTML.get(entry.mark, ("", ""))
    return f"{before}{html.escape(entry.text)}{behind}"
