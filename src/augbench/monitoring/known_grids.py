"""The grids to report on: planned from a file, or read from a store."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from augbench.core import registry
from augbench.core.errors import UserError, did_you_mean
from augbench.planning.library import root_change
from augbench.planning.outline import COMMAND, CellWork, Outline, outline_of, read_outline
from augbench.planning.plan import Plan
from augbench.storage.store import Store


@dataclass(frozen=True)
class KnownGrid:
    """A grid to report on."""

    name: str
    outline: Outline
    complete: bool  # whether the outline is; else an earlier version planned it, and it has the keys of cells alone
    again: str | None  # the command that runs it again; None: unknown
    source: Literal["file", "store"]


def known_from_plan(plan: Plan, store: Store, arguments: Sequence[str]) -> KnownGrid:
    """Create the known grid of a plan.

    Args:
        plan: of the grid file.
        store: where it runs.
        arguments: the grid file and its ``--set`` options, as command-line arguments.
    """
    options = ((store.read_json("grids", plan.grid.name) or {}).get(COMMAND) or {}).get("options", {})
    again = _command({"plugins": list(registry.loaded_files()), "options": options}, arguments, store)
    return KnownGrid(plan.grid.name, outline_of(plan), True, again, "file")


def known_from_store(store: Store, name: str | None = None) -> list[KnownGrid]:
    """Read the grid of that name from a store, or all its grids, sorted by name.

    Raises:
        UserError: the store has no such grid, or no grid at all, or the file of a grid is damaged.
    """
    names = sorted(store.keys("grids"))
    if name is not None and name not in names:
        raise UserError(
            f"store '{store.url}' knows no grid '{name}'{did_you_mean(name, names)}: run it, or name a file"
        )
    if not names:
        raise UserError(f"store '{store.url}' knows no grid yet: run one in it, or name one with --grid FILE")
    return [_known(store, one) for one in names if name in (None, one)]


def _known(store: Store, name: str) -> KnownGrid:
    content = store.read_json("grids", name) or {}
    try:
        alone = Outline({str(cell["key"]): CellWork("", {}) for cell in content["cells"]}, {}, {})
        outline = read_outline(content["outline"]) if "outline" in content else alone
        if outline.cells.keys() != alone.cells.keys():
            raise ValueError("its outline has other cells")
    except (KeyError, TypeError, ValueError):
        path = store.where("grids", name)
        raise UserError(f"'{path}' does not list the cells of a grid: run the grid again to rewrite it") from None
    local = store.files.folder is not None and not store.files.publication
    again = _command(content.get(COMMAND) or {}, [store.where("grids", name)], store) if local else None
    return KnownGrid(name, outline, "outline" in content, again, "store")


def _command(run: Mapping[str, Any], arguments: Sequence[str], store: Store) -> str | None:
    """Return the command that goes on with a run, as it was started; None if a plug-in of it is not here.

    Args:
        run: what the store says about its command, see `planning.outline.stored_grid`; {}: an earlier version ran it.
        arguments: its grid.
        store: where it runs.
    """
    files = list(dict.fromkeys([*run.get("plugins", ()), *registry.loaded_files()]))
    if not all(Path(file).is_file() for file in files):
        return None
    plugins = [argument for file in files for argument in ("--plugin", file)]
    roots = [a for label, root in run.get("roots", {}).items() for a in ("--set", root_change(label, root))]
    options = [argument for option in run.get("options", {}).items() for argument in option]
    return shlex.join(["augbench", *plugins, "run", *arguments, *roots, "--store", store.url, *options])
