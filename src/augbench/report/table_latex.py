"""Tables -> LaTeX with booktabs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from augbench.report.confusion import Matrix, MatrixRow
from augbench.report.fidelity_table import Fidelity, FidelityRow
from augbench.report.numbers import Column
from augbench.report.tables import Row, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u2013": "--",
}


def to_latex(name: str, tables: Sequence[Table]) -> str:
    """Render all tables of a report as ``table`` environments, for use with ``\\input``."""
    head = f"% {' '.join(name.split())}: needs \\usepackage{{booktabs}}\n"
    return head + "\n" + "\n".join(_table(one) for table in tables for one in _parts(table))


def escape_latex(text: str) -> str:
    """Escape text for LaTeX and put it on one line."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))


def _parts(table: Table) -> list[Table | Fidelity | Matrix]:
    """Return a table, its fidelity table, and the confusion matrices chosen for print."""
    fidelity = [table.fidelity] if table.fidelity.rows else []
    return [table, *fidelity, *(table.confusions.alone(one) for one in table.confusions.chosen)]


def _table(table: Table | Fidelity | Matrix) -> str:
    sides = "".join("r" if column.is_number else "l" for column in table.columns)
    label = rf"\textbf{{{escape_latex(table.label)}}}. " if table.label else ""
    caption = f"{escape_latex(table.title)}. {label}{escape_latex(' '.join(table.captions))}"
    return environment(caption, sides, _headings(table.columns), _body(table), map(escape_latex, table.notes))


def environment(caption: str, sides: str, head: Iterable[str], body: Iterable[str], notes: Iterable[str]) -> str:
    """Assemble a ``table`` environment with booktabs rules from parts that are already LaTeX.

    Args:
        caption: caption above the table.
        sides: alignment of each column, ``l`` or ``r``.
        head: lines above the middle rule.
        body: lines below it.
        notes: paragraphs below the table.
    """
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{caption}}}",
        r"\small",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        *head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip\footnotesize {note}" for note in notes),
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def _headings(columns: Sequence[Column]) -> list[str]:
    """Return group headings, a rule under each that spans several columns, and the titles."""
    groups, rules, start = [], [], 1
    for name, members in groupby(columns, key=lambda column: column.group or column.key):
        width = len(list(members))
        heading = name if columns[start - 1].group else ""
        groups.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(heading)}}}" if heading else "")
        if width > 1:
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    titles = [r"$N_\mathrm{aug}$" if column.key == "n_aug" else escape_latex(column.title) for column in columns]
    above = [_line(groups), *([" ".join(rules)] if rules else [])] if any(groups) else []
    return [*above, _line(titles)]


def _body(table: Table | Fidelity | Matrix) -> list[str]:
    lines = []
    for place, row in enumerate(table.rows):
        if table.in_blocks and row.first and place:
            lines.append(r"\addlinespace")
        lines.append(_line(_entries(table, row)))
    return lines


def _entries(table: Table | Fidelity | Matrix, row: Row | FidelityRow | MatrixRow) -> list[str]:
    """Return the entries of a row; the augmenter's name appears once per block."""
    texts = []
    for column in table.columns:
        text = escape_latex(row.text(column)) if row.first or column.key != "augmenter" else ""
        mark = "textbf" if table.is_best(row, column) else "textit" if row.is_average and text else ""
        texts.append(rf"\{mark}{{{text}}}" if mark else text)
    return texts


def _line(entries: Sequence[str]) -> str:
    return " & ".join(entries) + r" \\"
