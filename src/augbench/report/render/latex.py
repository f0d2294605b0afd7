"""Sections -> LaTeX with booktabs, for use with ``\\input``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from augbench.report.sheet import Section, Sheet, SheetRow

_SPECIAL = {character: rf"\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{EN DASH}": "--",
    "\N{DAGGER}": r"$^\dagger$",
}
_MARKS = {"best": "textbf", "second": "underline"}
_SIGN = re.compile(r"(?<![\w.])([+-])(?=\.?\d)")


def to_latex(name: str, sections: Sequence[Section]) -> str:
    """Render each sheet as a ``table`` environment; sentences of sections become comments."""
    lines = [f"% {_one_line(name)}: needs \\usepackage{{booktabs}}", ""]
    for section in sections:
        if section.sentences:
            lines += [*(f"% {_one_line(text)}" for text in (section.title, *section.sentences)), ""]
        for sheet in section.sheets:
            lines += [*_table(section, sheet), ""]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Escape text and put it on one line."""
    return _one_line(text).translate(str.maketrans(_SPECIAL))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _table(section: Section, sheet: Sheet) -> Iterator[str]:
    heading = ": ".join(filter(None, (section.under, section.title, sheet.title)))
    label = rf"\textbf{{{escape(section.label)}}}. " if section.label else ""
    yield r"\begin{table}[t]"
    yield r"\centering"
    yield rf"\caption{{{escape(heading)}. {label}{escape(' '.join(sheet.captions))}}}"
    yield r"\small"
    yield rf"\begin{{tabular}}{{{''.join('l' if column.is_text else 'r' for column in sheet.columns)}}}"
    yield r"\toprule"
    yield from _headings(sheet)
    yield r"\midrule"
    for row in sheet.rows:
        if row.starts_block:
            yield r"\addlinespace"
        yield _line(_entries(sheet, row))
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield from (rf"\par\smallskip\footnotesize {escape(note)}" for note in sheet.notes)
    yield r"\end{table}"


def _headings(sheet: Sheet) -> Iterator[str]:
    """Yield group headings, a rule under each that spans several columns, and the titles."""
    groups = sheet.groups()
    if any(name for name, _ in groups):
        yield _line([rf"\multicolumn{{{len(at)}}}{{c}}{{{escape(name)}}}" if name else "" for name, at in groups])
        rules = [rf"\cmidrule(lr){{{at[0] + 1}-{at[-1] + 1}}}" for _, at in groups if len(at) > 1]
        if rules:
            yield " ".join(rules)
    yield _line([r"$N_\mathrm{aug}$" if column.title == "N_aug" else escape(column.title) for column in sheet.columns])


def _entries(sheet: Sheet, row: SheetRow) -> Iterator[str]:
    """Yield the entries of a row, with the signs of numbers in math mode."""
    for index, (column, text) in enumerate(zip(sheet.columns, row.texts, strict=True)):
        if row.repeats_name and not index:
            yield ""
            continue
        entry = escape(text) if column.is_text else _SIGN.sub(r"$\1$", escape(text))
        command = _MARKS.get(row.marks.get(index, ""), "textit" if row.is_average and text else "")
        yield rf"\{command}{{{entry}}}" if command else entry


def _line(entries: Sequence[str] | Iterator[str]) -> str:
    """Join entries to a row. An empty group protects a ``[`` or ``*``, which would be an argument of the row before."""
    line = " & ".join(entries)
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"
