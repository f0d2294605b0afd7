"""Docstrings and tables as Markdown, for the generated pages."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from inspect import cleandoc

ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")


def prose(docstring: str | None) -> str:
    """Turn a docstring into Markdown: double backticks become single ones, lists get the blank line they need."""
    text = re.sub(r"``([^`]+)``", r"`\1`", cleandoc(docstring or ""))
    text = re.sub(r"^(?![-\s])(.+)\n(- )", r"\1\n\n\2", text, flags=re.MULTILINE)
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the cells are Markdown already, see `cell` and `code`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: object) -> str:
    """Escape plain text for a cell of a table; what stands between backticks stays code."""
    parts = " ".join(str(text).split()).split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner
        return _plain("`".join(parts))
    return "".join(code(part) if number % 2 else _plain(part) for number, part in enumerate(parts))


def code(text: object) -> str:
    """Return text as code for a cell of a table."""
    escaped = _plain(" ".join(str(text).split())).replace("\\", "&#92;")
    return f"<code>{escaped}</code>" if escaped else ""


def _plain(text: str) -> str:
    """Escape what HTML, tables and Markdown would read as theirs."""
    escaped = html.escape(text, quote=False)
    for sign in "|*_[]{}`":
        escaped = escaped.replace(sign, f"&#{ord(sign)};")
    return escaped


def fence(text: str, language: str = "") -> str:
    """Return a block of code."""
    return f"```{language}\n{text.rstrip()}\n```"
