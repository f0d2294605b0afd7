"""The grids whose status is asked for: planned from a file, or as a store knows them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from augbench.core import registry
from augbench.core.errors import UserError, did_you_mean
from augbench.planning.outline import Outline, outline_of
from augbench.planning.plan import Plan
from augbench.storage.store import Store


@dataclass(frozen=True)
class KnownGrid:
    """A grid to look for."""

    name: str
    outline: Outline | None  # None: planned by a version that kept no outline
    cells: tuple[str, ...]  # keys
    again: str | None  # the command that runs it again; None: not known
    source: Literal["file", "store"]


def known_from_plan(plan: Plan, store: Store, words: Sequence[str]) -> KnownGrid:
    """A grid that was planned here.

    Args:
        plan: of the grid file.
        store: where it is run.
        words: the grid file and its ``--set`` options, as words of a command line.
    """
    keys = tuple(cell.key for cell in plan.cells)
    return KnownGrid(plan.grid.name, outline_of(plan), keys, _command(words, store), "file")


def known_from_store(store: Store, name: str | None = None) -> list[KnownGrid]:
    """The grid of that name that was planned into a store, or every one, sorted by name.

    Raises:
        UserError: the store knows no such grid, or none at all, or a file about one is damaged.
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
        keys = tuple(str(cell["key"]) for cell in content["cells"])
        outline = Outline.from_dict(content["outline"]) if "outline" in content else None
        if outline and outline.cells.keys() != set(keys):
            raise ValueError("its outline is of other cells")
    except (KeyError, TypeError, ValueError, AttributeError):
        place = store.where("grids", name)
        raise UserError(f"'{place}' does not list the cells of a grid: run the grid again to make it anew") from None
    local = store.files.folder is not None
    return KnownGrid(name, outline, keys, _command([store.where("grids", name)], store) if local else None, "store")


def _command(words: Sequence[str], store: Store) -> str:
    added = [word for file in registry.loaded_files() for word in ("--plugin", file)]
    return shlex.join(["augbench", *added, "run", *words, "--store", store.url])
