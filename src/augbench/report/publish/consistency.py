"""Consistency of the parts of a published store: evaluated images, grids, specs, lineage."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from augbench.core.contracts import Part
from augbench.core.errors import UserError, listed
from augbench.core.hashing import digest
from augbench.core.protocol import UNKEYED, Protocol
from augbench.core.specs import AugmenterSpec, Cell, PoolSpec, SearchSpec
from augbench.planning.grid import Grid
from augbench.planning.library import Library
from augbench.planning.plan import part_spec
from augbench.report.evidence.lineage import FIELDS, plugin_of, shares_of, slices_of
from augbench.report.evidence.part_costs import MadePart, read_costs
from augbench.report.frame import CELL_FIELDS
from augbench.storage.scores import ABOUT
from augbench.storage.store import Store


class ScoredItems:
    """The items that the cells of each data spec were evaluated on, which must be equal."""

    def __init__(self) -> None:
        # (part, data) -> digest of a table of items -> the table and the cells that have it.
        self.seen: dict[tuple[str, str], dict[str, tuple[pd.DataFrame, list[str]]]] = defaultdict(dict)
        self.logits: dict[bytes, list[str]] = defaultdict(list)

    def add(self, key: str, cell: Cell, scores: pd.DataFrame, is_twin: bool = False) -> None:
        """Add a cell with its scores; ``is_twin``: its logits are those of a cell without synthetic images."""
        # Held-out images belong to one data spec; test images also to specs that differ in the hold-out alone.
        identity = {name: value for name, value in cell.data.identity.items() if name != "holdout"}
        for part, of in (("test", digest(identity)), ("heldout", cell.data.digest)):
            table = scores.loc[scores["part"] == part, list(ABOUT)].sort_values("id", ignore_index=True)
            mark = hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()
            self.seen[part, of].setdefault(mark, (table, []))[1].append(key)
        if is_twin:
            return
        logits = scores.drop(columns=list(ABOUT)).to_numpy()
        self.logits[hashlib.sha256(logits.tobytes()).digest()].append(key)

    def twins(self) -> Iterable[list[str]]:
        """Return groups of cells with identical logits, which cannot come from different trainings."""
        return [keys for keys in self.logits.values() if len(keys) > 1]

    def strangers(self) -> Iterable[tuple[str, str]]:
        """Yield (key, problem) of cells that were evaluated on other images than most of their data spec."""
        for (part, _), by_mark in self.seen.items():
            most = max(by_mark, key=lambda mark: (len(by_mark[mark][1]), mark))
            usual, (example, *_) = by_mark[most]
            for mark in sorted(by_mark.keys() - {most}):
                table, keys = by_mark[mark]
                for key in keys:
                    yield key, _different_images(part, table, usual, example)


def _different_images(part: str, own: pd.DataFrame, usual: pd.DataFrame, example: str) -> str:
    images = {"test": "test", "heldout": "held-out"}[part]
    rows, others = (set(table.itertuples(index=False, name=None)) for table in (own, usual))
    differ = sorted({row[0] for row in rows ^ others})
    return (
        f"its {images} images are not those of '{example}', which has the same data: "
        f"{listed(differ)} differ in id, label or group"
    )


def grid_problems(
    grid: Grid, cells: pd.DataFrame, found: pd.DataFrame, specs: Mapping[str, Cell], pools: Mapping[str, PoolSpec]
) -> list[str]:
    """Find contradictions between a grid and the records of its cells, one clause each; tables print the grid's names.

    Args:
        grid: the grid.
        cells: its cells, see `frame.load_expected`.
        found: the records of these cells, see `frame.load_records`.
        specs: specs of these records, by key.
        pools: pools with a fidelity record, by the key of that record.
    """
    rows = {row["key"]: row for row in found.to_dict("records")}
    problems = []
    for cell in cells[cells["key"].isin(rows)].to_dict("records"):
        key = cell["key"]
        problems += [
            f"it says that '{key}' has {name} {cell[name]!r}, its record says {rows[key][name]!r}"
            for name in CELL_FIELDS
            if _differ(cell[name], rows[key][name])
        ]
        problems += [f"it lacks {what} of '{key}'" for what in _not_in(grid, specs[key])]
        problems += [
            f"'{key}' did not use the pool of '{measured}'"
            for _, measured in cell["fidelity"]
            if measured in pools and pool_mismatch(specs[key], pools[measured])
        ]
    return problems


def _not_in(grid: Grid, cell: Cell) -> Iterator[str]:
    if _numbers(cell.protocol) not in [_numbers(protocol) for protocol in grid.protocols]:
        yield f"the protocol '{cell.protocol.name}'"
    if (cell.data.name, cell.data.alias) not in [(entry.name, entry.label) for entry in grid.datasets]:
        yield f"the dataset '{cell.data.alias}'"
    own = (cell.augmenter.name, cell.augmenter.alias, dict(cell.augmenter.settings), dict(cell.augmenter.filters))
    if own not in [(entry.name, entry.label, entry.settings, entry.filters.as_dict()) for entry in grid.augmenters]:
        yield f"the augmenter '{cell.augmenter.alias}' with the settings"


def _numbers(protocol: Protocol) -> dict[str, Any]:
    return protocol.model_dump(exclude=set(UNKEYED))


def pool_mismatch(cell: Cell, pool: PoolSpec) -> list[str]:
    """Return in what a pool differs from those that the cell may use images of; [] if it may use this one."""
    differs = {
        "data": pool.data.digest != cell.data.digest,
        "augmenter": not _generates(cell.augmenter, pool.augmenter.digest),
        "shots": pool.shots is not None and (pool.shots, pool.draw) != (cell.shots, cell.draw),
        "seed": pool.seed != cell.seed,
        "adapter_seed": pool.adapter_seed not in (0, cell.adapter_seed),  # 0: of a part that does not learn
        "fresh_for": pool.fresh_for != (cell.n_aug if cell.fresh_pools else None),
    }
    return [name for name, is_other in differs.items() if is_other]


def _generates(own: AugmenterSpec, pool: str) -> bool:
    """Whether an augmenter's images may be of pools of the augmenter with this digest: itself, or a part of a mixture.

    The key settings of a mixture hold only digests of its parts, and a part may be a mixture too. Those are looked up
    by its settings, and any pool is accepted where a plug-in of these is not available here.
    """
    direct = {name for name, _ in shares_of(own.as_dict())}
    if pool in direct or direct == {own.digest}:
        return pool in direct
    try:
        library = Library({})
        parts = [part_spec(library, part, own.filters) for part in library.augmenter(own).parts()]
        return any(library.augmenter(part).parts() and _generates(part, pool) for part in parts)
    except UserError:
        return True


def settings_note(spec: AugmenterSpec) -> str:
    """Note where an augmenter's settings do not give its key settings on this machine; "" where they do.

    This is no reason to refuse: settings may name files that differ here, and a plug-in may not be installed.
    """
    try:
        here = part_spec(Library({}), Part(spec.name, spec.settings, 1.0), spec.filters)
    except UserError as error:
        return f"augmenter '{spec.alias}': its settings were not compared with its keys ({error})"
    same = digest(here.key_settings) == digest(spec.key_settings)
    return "" if same else f"augmenter '{spec.alias}': its settings enter keys on this machine as something else"


def paths_in(value: Any) -> Iterable[str]:
    """Yield the strings in JSON values that are absolute paths."""
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from paths_in(inner)
    elif isinstance(value, str) and (value.startswith(("/", "~")) or value[1:3] == ":\\"):
        yield value


def _differ(a: Any, b: Any) -> bool:
    """Whether two values differ; None and NaN are equal."""
    empty = [value is None or value != value for value in (a, b)]
    return empty[0] != empty[1] or (not empty[0] and a != b)


# -- lineage


class LineageCheck:
    """Compares the lineage of cells with the pools, adapters and searches on record in a published store."""

    def __init__(self, store: Store) -> None:
        try:
            self._parts = read_costs(store)
        except UserError:
            self._parts = {}  # the check of the costs refuses them
        specs = {key: _spec(key, part) for key, part in self._parts.items()}
        self._pools = {key: spec for key, spec in specs.items() if spec is not None}

    def problems(self, cell: Cell, record: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is wrong with the lineage of a cell, one clause each; nothing for a record older than lineage."""
        given = {name: record["provenance"].get(name) for name in FIELDS}
        lacking = [name for name, value in given.items() if value is None]
        if lacking:
            if len(lacking) < len(FIELDS):
                yield f"provenance.{lacking[0]} is missing beside the rest of its lineage"
            return
        images, named = sum(n for _, n in slices_of(record["spec"])), sum(use["n"] for use in given["pools"])
        if named != images:  # `counts.synthetic` is held to the same number
            yield f"provenance.pools hold {named} images, it trained on {images}"
        pools = {use["key"]: self._pools.get(use["key"]) for use in given["pools"]}
        known = {key: pool for key, pool in pools.items() if pool is not None}
        for key, pool in known.items():
            if wrong := pool_mismatch(cell, pool) or self._other_regime(cell, pool):
                yield f"it cannot have used the pool '{key}', which has other {listed(wrong)}"
        own = {
            "adapters": {pool.adapter.key for pool in known.values()},
            "searches": {SearchSpec(pool.adapter).key for pool in known.values()},
        }
        for name, behind in own.items():
            stated = set(given[name])
            if len(known) == len(pools) and (others := sorted(stated - behind)):
                yield f"provenance.{name} hold {listed(others)}, which its pools did not need"
            if unnamed := sorted((behind & self._parts.keys()) - stated):
                yield f"provenance.{name} lack {listed(unnamed)}, which its pools needed"

    def _other_regime(self, cell: Cell, pool: PoolSpec) -> list[str]:
        """Return ["shots"] if the augmenter reads the cell's shots but not the pool's, or the reverse."""
        plugin = plugin_of(pool.augmenter)
        other = plugin is not None and ("shots" in plugin.reads(cell.shots)) != (pool.shots is not None)
        return ["shots"] if other else []


def _spec(key: str, part: MadePart) -> PoolSpec | None:
    """Return the spec of a pool; None for other parts and for wrong specs, which the check of the costs refuses."""
    if part.kind != "pools" or part.spec is None:
        return None
    try:
        spec = PoolSpec.from_dict(part.spec)
        return spec if spec.key == key else None
    except (UserError, ValueError, TypeError, AttributeError, KeyError):
        return None
