"""Sections -> a self-contained HTML page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from augbench.report.sheet import Section

_URL = re.compile(r"https://[^\s&\"'<>]+")


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Render sections under a title. All texts are escaped; addresses become links."""
    loader = PackageLoader("augbench", "assets/templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["linked"] = _linked
    template = environment.get_template("sections.html")
    return template.render(title=title, sections=sections, marks={"best": "b", "second": "u"})


def _linked(text: str) -> Markup:
    return Markup(_URL.sub(lambda found: f'<a href="{found[0]}">{found[0]}</a>', str(escape(text))))  # noqa: S704
