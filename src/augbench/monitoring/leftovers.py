"""What no grid of a store names: results of grids and plug-ins that have changed since, which may be removed."""

from __future__ import annotations

from itertools import chain
from typing import Any, get_args

from augbench.core.errors import UserError
from augbench.monitoring.known_grids import KnownGrid, known_from_store
from augbench.storage.store import ADAPTER_MARKER, LOGS, Folder, Store

FOLDERS = ("scratch", LOGS)  # named after units, but not by their keys alone


def leftovers(store: Store) -> dict[str, list[str]]:
    """List what no grid of the store names: kind -> keys, or names of logs and of scratch folders, sorted.

    Near-copies and digests of datasets stay: any grid may use them.

    Raises:
        UserError: the store knows no grid, or an earlier version planned one, so that its pools are not known.
    """
    grids = known_from_store(store)
    for grid in grids:
        if not grid.complete:
            raise UserError(f"an earlier version planned grid '{grid.name}', so its pools are not known: run it again")
    named = _named(store, grids)
    found = {kind: sorted(store.keys(kind) - keys) for kind, keys in named.items()}
    units = set().union(*(keys for kind, keys in named.items() if kind != "failures"))
    for folder in FOLDERS:
        # A log is KEY.log or the folder KEY, checkpoints of a search are in KEY-000.
        names = {name: name.removesuffix(".log") for name in store.files.names(folder)}
        found[folder] = sorted(n for n, key in names.items() if not {key, key.rpartition("-")[0]} & units)
    return {kind: keys for kind, keys in found.items() if keys}


def remove(store: Store, found: dict[str, list[str]]) -> None:
    """Remove what `leftovers` listed."""
    for kind, keys in found.items():
        for key in keys:
            name = f"{kind}/{key}" if kind in FOLDERS else store.name(kind, key)  # type: ignore[arg-type]
            if kind == "pools":
                store.files.remove_folder(f"{name}/chunks")  # the commit markers first, so that nothing is half there
            if kind == "adapters":
                store.files.remove(f"{name}/{ADAPTER_MARKER}")
            if kind in (*get_args(Folder), "scratch") or (kind == LOGS and not key.endswith(".log")):
                store.files.remove_folder(name)
            else:
                store.files.remove(name)
            if kind == "searches":
                store.files.remove_folder(f"searches/{key}.arms")


def _named(store: Store, grids: list[KnownGrid]) -> dict[Any, set[str]]:
    """Return what the grids name: kind -> keys. Records come before their scores: they are the commit markers."""
    outlines = [grid.outline for grid in grids]
    cells = set().union(*(outline.cells for outline in outlines))
    pools = [work for outline in outlines for work in outline.pools.values()]
    adapters = {work.adapter for work in pools if work.adapter}
    named: dict[Any, set[str]] = {
        "cells": cells,
        "scores": cells,
        "weights": cells,
        "fidelity": set().union(*(outline.fidelity for outline in outlines)),
        "features": set().union(*(outline.features for outline in outlines)),
        "pools": set().union(*(outline.pools for outline in outlines)),
        "adapters": adapters,
        "searches": {work.search for work in pools if work.search},
        "shared": _shared(store, adapters),
    }
    return {**named, "failures": set(chain.from_iterable(named.values()))}


def _shared(store: Store, adapters: set[str]) -> set[str]:
    """Return the shared parts behind adapters; all of them if the adapter of an earlier version does not say."""
    parts: set[str] = set()
    for key in adapters & store.keys("adapters"):
        try:
            record = store.parsed(f"{store.name('adapters', key)}/{ADAPTER_MARKER}")
            parts |= record["provenance"]["shared_seconds"].keys()
        except (FileNotFoundError, KeyError):
            return store.keys("shared")
    return parts
