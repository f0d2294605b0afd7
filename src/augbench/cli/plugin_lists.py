"""Lists of plug-ins: one row each; a broken one has a row that says so, and breaks no list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from augbench.core import registry
from augbench.core.errors import UserError
from augbench.report.sheet import Sheet


def plugins_sheet(kind: str, columns: Sequence[str], row: Callable[[type], Sequence[str]]) -> Sheet:
    """Return a table of all plug-ins of a kind, sorted by name, with the reasons of broken ones below it.

    Args:
        kind: "datasets" or "augmenters".
        columns: headings; the first one is of the names.
        row: makes the entries of a plug-in, without its name.
    """
    rows: list[tuple[str, ...]] = []
    problems: dict[str, UserError] = {**registry.broken(kind)}
    for name, plugin in registry.find(kind).items():
        try:
            rows.append((name, *row(plugin)))
        except UserError as error:
            problems[name] = error
    rows += [(name, "broken: see below", *["-"] * (len(columns) - 2)) for name in problems]
    notes = [f"{name} is broken: {problem}" for name, problem in problems.items()]
    return replace(Sheet.of(columns, [], sorted(rows)), notes=notes)
