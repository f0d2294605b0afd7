"""What the parts of a published store say of one another: pictures that cells share, grids, specs."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from augbench.core.contracts import Part
from augbench.core.errors import UserError, listed
from augbench.core.hashing import digest
from augbench.core.protocol import Protocol
from augbench.core.specs import AugmenterSpec, Cell, PoolSpec
from augbench.planning.grid import Grid
from augbench.planning.library import Library
from augbench.planning.plan import part_spec
from augbench.report.frame import CELL_FIELDS
from augbench.report.publish.recompute import ABOUT


class ScoredItems:
    """What the cells of each data spec were judged on. All must be judged on the same."""

    def __init__(self) -> None:
        # Held-out pictures belong to a data spec; test pictures also to those that differ in the hold-out alone.
        self.tables: dict[tuple[str, str], dict[str, pd.DataFrame]] = defaultdict(dict)
        self.keys: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self.logits: dict[bytes, list[str]] = defaultdict(list)

    def add(self, key: str, cell: Cell, scores: pd.DataFrame) -> None:
        """A cell with its scores."""
        identity = {name: value for name, value in cell.data.identity.items() if name != "holdout"}
        for part, of in (("test", digest(identity)), ("heldout", cell.data.digest)):
            table = scores.loc[scores["part"] == part, list(ABOUT)].sort_values("id", ignore_index=True)
            mark = hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()
            self.tables[part, of].setdefault(mark, table)
            self.keys[part, of][mark].append(key)
        logits = scores.drop(columns=list(ABOUT)).to_numpy()
        self.logits[hashlib.sha256(logits.tobytes()).digest()].append(key)

    def twins(self) -> Iterable[list[str]]:
        """Cells whose trainings cannot have been different ones."""
        return [keys for keys in self.logits.values() if len(keys) > 1]

    def strangers(self) -> Iterable[tuple[str, str]]:
        """(key, what is wrong) of cells that were judged on other pictures than most of their data spec."""
        for (part, of), by_mark in self.keys.items():
            usual = max(by_mark, key=lambda mark: (len(by_mark[mark]), mark))
            for mark, keys in sorted(by_mark.items()):
                if mark != usual:
                    tables = self.tables[part, of]
                    for key in keys:
                        yield key, _other_pictures(part, tables[mark], tables[usual], by_mark[usual][0])


def _other_pictures(part: str, own: pd.DataFrame, usual: pd.DataFrame, example: str) -> str:
    pictures = {"test": "test", "heldout": "held-out"}[part]
    rows, others = (set(table.itertuples(index=False, name=None)) for table in (own, usual))
    differ = sorted({row[0] for row in rows ^ others})
    return (
        f"its {pictures} pictures are not those of '{example}', which has the same data: "
        f"{listed(differ)} differ in id, label or group"
    )


def grid_problems(
    grid: Grid, cells: pd.DataFrame, found: pd.DataFrame, specs: Mapping[str, Cell], pools: Mapping[str, PoolSpec]
) -> list[str]:
    """Where a grid says other things of its cells than their records, one clause each: tables print what it says.

    Args:
        grid: the grid.
        cells: its cells, see `frame.load_expected`.
        found: the records that there are of them, see `frame.load_records`.
        specs: of these records, by key.
        pools: those that are measured, by the key of their fidelity.
    """
    rows = found.set_index("key")
    problems = []
    for cell in cells.to_dict("records"):
        key = cell["key"]
        if key not in rows.index:
            continue
        problems += [
            f"it says that '{key}' has {name} {cell[name]!r}, its record says {rows.at[key, name]!r}"
            for name in CELL_FIELDS
            if name != "key" and _differ(cell[name], rows.at[key, name])
        ]
        problems += [f"it has not {what} of '{key}'" for what in _not_in(grid, specs[key])]
        problems += [
            f"'{key}' did not take from the pool of '{measured}'"
            for _, measured in cell["fidelity"]
            if measured in pools and not _takes_from(specs[key], pools[measured])
        ]
    return problems


def _not_in(grid: Grid, cell: Cell) -> Iterator[str]:
    """What of a cell does not stand in its grid."""
    if _numbers(cell.protocol) not in [_numbers(protocol) for protocol in grid.protocols]:
        yield f"the protocol '{cell.protocol.name}'"
    if (cell.data.name, cell.data.alias) not in [(entry.name, entry.label) for entry in grid.datasets]:
        yield f"the dataset '{cell.data.alias}'"
    own = (cell.augmenter.name, cell.augmenter.alias, dict(cell.augmenter.settings))
    if own not in [(entry.name, entry.label, entry.settings) for entry in grid.augmenters]:
        yield f"the augmenter '{cell.augmenter.alias}' with the settings"


def _numbers(protocol: Protocol) -> dict[str, Any]:
    return protocol.model_dump(exclude={"about", "sources"})


def _takes_from(cell: Cell, pool: PoolSpec) -> bool:
    """Whether the cell may have taken pictures of the pool. Of what a mixture's parts are its key knows digests alone,
    and a part may be a mixture."""
    is_own = pool.augmenter.digest == cell.augmenter.digest or "parts" in cell.augmenter.key_settings
    same_shots = pool.shots is None or (pool.shots, pool.draw) == (cell.shots, cell.draw)
    return is_own and same_shots and pool.data.digest == cell.data.digest and pool.seed == cell.seed


def settings_note(spec: AugmenterSpec) -> str:
    """What must be known of an augmenter's settings beside its keys, a sentence; "" where they give what keys hold.

    No reason to refuse: settings may name files, which may be others here, and a plug-in may not be at hand.
    """
    try:
        here = part_spec(Library({}), Part(spec.name, spec.settings, 1.0))
    except UserError as error:
        return f"augmenter '{spec.alias}': its settings were not compared with its keys ({error})"
    same = digest(here.key_settings) == digest(spec.key_settings)
    return "" if same else f"augmenter '{spec.alias}': its settings enter keys on this machine as something else"


def paths_in(value: Any) -> Iterable[str]:
    """Texts in JSON values that name a place on a machine."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from paths_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from paths_in(inner)
    elif isinstance(value, str) and (value.startswith(("/", "~")) or value[1:3] == ":\\"):
        yield value


def _differ(a: Any, b: Any) -> bool:
    """None and NaN both stand for nothing."""
    empty = [value is None or value != value for value in (a, b)]
    return empty[0] != empty[1] or (not empty[0] and a != b)
