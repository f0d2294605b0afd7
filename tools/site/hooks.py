"""mkdocs hook: add the pages that are made from code and results, and mend links to files outside of docs/.

Nothing of this is in git; the pages are made anew by every build (`make docs`).
"""

from __future__ import annotations

import posixpath
import re
from functools import cache
from typing import Any

from mkdocs.structure.files import File
from plugin_pages import REPOSITORY, Files, dataset_pages, method_pages
from reference_pages import (
    SCHEMA,
    cli_page,
    grid_page,
    grid_schema,
    leaderboard_page,
    protocols_page,
    python_page,
    store_page,
)

HOME = "---\nhide: [navigation]\n---\n"  # there is nothing beside the home page
OUTSIDE = "outside:"  # begins a link that has no place in the site
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
NAMED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "cluster/README.md": "cluster.md",
    "tune_configs/README.md": "grids.md",
}
"""Pages of the repository outside of docs/ -> their place in the site."""


@cache
def copied() -> dict[str, str]:
    """Return all pages that are copied into the site: path in the repository -> path in the site."""
    found = {source: page for source, page in NAMED.items() if (REPOSITORY / source).is_file()}
    found["results/README.md"] = "results/index.md"
    for path in sorted((REPOSITORY / "results").glob("*/README.md")):
        found[path.relative_to(REPOSITORY).as_posix()] = f"results/{path.parent.name}.md"
    for path in sorted((REPOSITORY / "src/augbench/assets/models").glob("*/README.md")):
        found[path.relative_to(REPOSITORY).as_posix()] = f"models/{path.parent.name}.md"
    return found | {"src/augbench/assets/papers/README.md": "results/papers.md"}  # the same file by its other name


def _sources() -> dict[str, str]:
    """Return path in the site -> path in the repository; of two names of one file the first."""
    return {page: source for source, page in reversed(copied().items())}


@cache
def generated() -> Files:
    """Return all pages and files that are made from code and results, by their path in the site."""
    return {
        **method_pages(),
        **dataset_pages(),
        "reference/cli.md": cli_page(),
        "reference/grid.md": grid_page(),
        f"reference/{SCHEMA}": grid_schema(),
        "reference/protocols.md": protocols_page(),
        "reference/python.md": python_page(),
        "reference/store.md": store_page(),
        "leaderboard.md": leaderboard_page(),
    }


def on_config(config: Any) -> None:
    """Replace an entry ``FOLDER/*`` of the navigation by the pages of that folder that are made or copied."""
    config.nav = _expanded(config.nav)


def _expanded(entries: list[Any]) -> list[Any]:
    found = []
    for entry in entries:
        if isinstance(entry, str) and entry.endswith("/*"):
            for name in dict.fromkeys([*generated(), *copied().values()]):
                stem, kind = posixpath.splitext(posixpath.basename(name))
                if posixpath.dirname(name) == entry[:-2] and kind == ".md" and stem != "index":
                    found.append({stem: name})
        elif isinstance(entry, dict):
            found.append({title: _expanded(one) if isinstance(one, list) else one for title, one in entry.items()})
        else:
            found.append(entry)
    return found


def on_files(files: Any, config: Any) -> None:
    """Add the generated and the copied pages."""
    for page, content in generated().items():
        files.append(File.generated(config, page, content=content))
    for page, source in _sources().items():
        content = (REPOSITORY / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=HOME + content if page == "index.md" else content))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links of pages of the repository lead to their place in the site.

    A link to a file that has no place there becomes its path, since readers have the repository.
    """
    here = page.file.src_uri
    source = _sources().get(here, f"docs/{here}")
    if here in generated():
        return markdown

    def mended(found: re.Match[str]) -> str:
        name, anchor = found[1], found[2] or ""
        if ":" in name or name.startswith("/"):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
        if (REPOSITORY / path / "README.md").is_file():
            path = f"{path}/README.md"
        site = copied().get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else "")
        return posixpath.relpath(site, posixpath.dirname(here) or ".") + anchor if site else f"{OUTSIDE}{path}"

    markdown = LINK.sub(mended, markdown)
    return re.sub(rf"\[([^\]]*)\]\({OUTSIDE}([^)]*)\)", r"\1 (`\2`)", markdown)
