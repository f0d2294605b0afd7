"""Self-contained pages: one file of HTML that loads nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from augbench.report.plots import DARK

FOLDER = "assets"
BASE = "templates/base.css"
"""The style that all pages share: themes, headings, tables, thumbnails, phones, printing."""

_SIGN = re.compile(r"(?<!\w)-(?=[.\d])")


def render_page(template: str, style: str, script: str = "", **content: Any) -> bytes:
    """Render a page in UTF-8. The template escapes all texts; ``style`` and ``script`` are this package's own.

    Args:
        template: its file in `FOLDER`.
        style: CSS besides `BASE`.
        script: the only script that may run.
        content: what the template prints.
    """
    style = f"{asset(BASE)}:root {{ --dark-plot: {DARK}; }}\n{style}"
    loader = PackageLoader("augbench", FOLDER)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = minus
    policy = _policy(style, script)
    page = environment.get_template(template)
    return page.render(policy=policy, style=markup(style), script=markup(script), **content).encode()


def asset(name: str) -> str:
    """Read a text file of `FOLDER`."""
    return (resources.files("augbench") / FOLDER / name).read_text(encoding="utf-8")


def markup(text: str) -> Markup:
    """Mark text as safe markup: files of this package and escaped JSON."""
    return Markup(text)  # noqa: S704


def minus(text: str) -> str:
    """Replace hyphens before numbers by minus signs."""
    return _SIGN.sub("\N{MINUS SIGN}", text)


def _policy(style: str, script: str) -> str:
    """Build the Content-Security-Policy: nothing is loaded, and only this script and this style run."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
