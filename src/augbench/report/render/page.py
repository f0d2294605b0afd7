"""Sections -> HTML: a self-contained page, or a part of one for notebooks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from augbench.report.sheet import Section

_URL = re.compile(r"https://[^\s&\"'<>]+")


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Render sections under a title. All texts are escaped; addresses become links."""
    return _render("sections.html", title=title, sections=sections)


def to_fragment(sections: Sequence[Section]) -> str:
    """Render sections without the page around them. All texts are escaped; addresses become links."""
    return f"<div>\n{_render('sheets.html', sections=sections)}</div>"


def _render(template: str, **content: object) -> str:
    loader = PackageLoader("augbench", "assets/templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["linked"] = _linked
    return environment.get_template(template).render(marks={"best": "b", "second": "u"}, **content)


def _linked(text: str) -> Markup:
    return Markup(_URL.sub(lambda found: f'<a href="{found[0]}">{found[0]}</a>', str(escape(text))))  # noqa: S704
