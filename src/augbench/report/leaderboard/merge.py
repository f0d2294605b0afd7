"""Merge several stores: records by key, unambiguous names, the store of each record; and a view of them as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import pandas as pd
from typing_extensions import override

from augbench.core.errors import UserError
from augbench.report.fidelity_table import Measured, load_measured
from augbench.report.frame import (
    CELL_FIELDS,
    IDENTITIES,
    expected_frame,
    expected_from_records,
    load_expected,
    load_records,
)
from augbench.report.older_versions import older_keys
from augbench.report.references import with_reference
from augbench.report.store_report import WAY_OUT
from augbench.report.tables import HEADLINE
from augbench.storage.files import Files
from augbench.storage.store import Store, parse_json


@dataclass(frozen=True)
class Gathered:
    """The merged content of several stores. Equal stores in equal order give equal content."""

    expected: pd.DataFrame  # as `frame.expected_frame` returns it, with unambiguous names
    records: pd.DataFrame  # as `frame.load_records` returns it, of every expected cell with a record
    measured: dict[str, Measured]  # fidelity records by key
    raw: dict[str, bytes]  # key of a cell -> the bytes of its record
    specs: dict[str, dict[str, Any]]  # key of a cell -> the spec in its record
    home: dict[str, Store]  # key of a cell or of a fidelity record -> the store it is read from
    stores: tuple[Store, ...]
    differing: Mapping[str, float]  # key of a cell with different results -> largest difference of its headline
    older: pd.DataFrame  # records of earlier versions of edited plug-ins, which no table shows


ORIGIN = ("device", "versions", "git_sha")
"""Parts of provenance that determine a cell's result: other devices and versions round differently."""


def gather(stores: Sequence[Store]) -> Gathered:
    """Merge the cells of all stores by key.

    If another device, other versions or another commit gave another result of a cell, the first store's result counts,
    and ``differing`` lists the cell. A name of a dataset, augmenter or protocol that has several settings gets a digest
    prefix appended, as in reports of stores without a grid, so that numbers of different settings are never averaged.

    Args:
        stores: in the order of the tables' rows; within a store, grids come by name and cells in the grid's order.

    Raises:
        UserError: a store has no records, a record is damaged, or one key has two results of the same device, versions
            and commit; the message names the store or file.
    """
    raw: dict[str, bytes] = {}
    specs: dict[str, dict[str, Any]] = {}
    home: dict[str, Store] = {}
    frames, blocks, measured = [], [], {}
    named: set[str] = set()
    differing: dict[str, float] = {}
    for store in stores:
        keys = sorted(store.keys("cells"))
        if not keys:
            raise UserError(f"store '{store.url}' does not exist or holds no records: {WAY_OUT}, or give another")
        new = []
        contents = store.files.read_many([store.name("cells", key) for key in keys])
        for key, data in zip(keys, contents, strict=True):
            if data is None or data == raw.get(key):
                continue  # removed since the listing; the same in an earlier store
            record = parse_json(data, store.where("cells", key))
            if key in raw:
                earlier = parse_json(raw[key], home[key].where("cells", key))
                if record.get("result") != earlier.get("result"):
                    apart = _apart(earlier, record, home[key].where("cells", key), store.where("cells", key))
                    differing[key] = max(apart, differing.get(key, 0.0))
            else:
                raw[key], specs[key], home[key] = data, record.get("spec") or {}, store
                new.append(key)
        frames.append(load_records(store, new))
        named |= {key for name in store.keys("grids") for key in load_expected(store, name)["key"]}
        for block in _blocks(store, load_records(store, keys) if len(new) < len(keys) else frames[-1]):
            blocks.append(block)
            found = load_measured(store, block)
            home.update((key, store) for key in found if key not in measured)
            measured |= {key: one for key, one in found.items() if key not in measured}
    records = pd.concat(frames, ignore_index=True).sort_values("key", ignore_index=True)
    is_older = records["key"].isin(older_keys(records, named))
    older, records = records[is_older], records[~is_older].reset_index(drop=True)
    blocks = [block[~block["key"].isin(older["key"])] for block in blocks]
    expected = with_reference(_unambiguous([block for block in blocks if len(block)], records), records)
    return Gathered(expected, records, measured, raw, specs, home, tuple(stores), differing, older)


def _apart(first: Mapping[str, Any], second: Mapping[str, Any], path: str, other: str) -> float:
    """Return the largest difference of the headline metrics of two results of one cell.

    Raises:
        UserError: device, versions and commit are the same, so the results should be.
    """
    origins = [[(record.get("provenance") or {}).get(part) for part in ORIGIN] for record in (first, second)]
    if origins[0] == origins[1]:
        raise UserError(
            f"'{other}' and '{path}' hold different results of one cell from the same device, versions and commit: "
            "leave one store out, or delete the wrong record"
        )
    values = [record.get("result") or {} for record in (first, second)]
    return max(abs(values[0].get(m, 0.0) - values[1].get(m, 0.0)) for m in HEADLINE.values())


def _blocks(store: Store, records: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the expected cells of a store: of every grid with a record, then of records that no grid expects."""
    rest = set(records["key"])
    for name in sorted(store.keys("grids")):
        cells = load_expected(store, name)
        if set(cells["key"]) & set(records["key"]):
            rest -= set(cells["key"])
            yield cells
    if rest:
        plain = dict.fromkeys(IDENTITIES.values(), "")  # `_unambiguous` adds digests for all stores at once
        yield expected_from_records(records[records["key"].isin(rest)].assign(**plain))


def _unambiguous(blocks: list[pd.DataFrame], records: pd.DataFrame) -> pd.DataFrame:
    """Join all blocks into one table without duplicate cells, under unambiguous names.

    A cell without a record gets the settings that its name has in its own grid, if the grid has such a record.
    """
    known = records.set_index("key")[list(IDENTITIES.values())]
    parts = []
    for block in blocks:
        joined = block.join(known, on="key")
        for name, identity in IDENTITIES.items():
            usual = joined.groupby(name)[identity].transform("first")
            joined[identity] = joined[identity].where(joined[identity].notna(), usual)
        parts.append(joined)
    cells = pd.concat(parts, ignore_index=True).drop_duplicates("key", ignore_index=True)
    for name, identity in IDENTITIES.items():
        several = cells.groupby(name)[identity].transform("nunique") > 1
        ambiguous = several & cells[identity].notna()
        plain, cells[name] = cells[name], cells[name].where(~ambiguous, cells[name] + " #" + cells[identity].str[:6])
        if name == "augmenter":
            cells["fidelity"] = [
                [(new if part == old else part, key) for part, key in pairs]
                for old, new, pairs in zip(plain, cells[name], cells["fidelity"], strict=True)
            ]
    return expected_frame(cells[[*CELL_FIELDS, "fidelity", "audit"]].astype(object).to_dict("records"))


# -- several stores as one, for `report.evidence`


class MergedStore(Store):
    """The units of all stores; the first store wins."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.files = MergedFiles([store.files for store in stores])


class MergedFiles(Files):
    """The files of several stores by name, read-only."""

    def __init__(self, parts: Sequence[Files]) -> None:
        self._parts = parts
        self.url = ", ".join(part.url for part in parts)

    @override
    def where(self, name: str) -> str:
        return self._holder(name).where(name)

    @override
    def names(self, folder: str) -> set[str]:
        return set().union(*(part.names(folder) for part in self._parts))

    @override
    def exists(self, name: str) -> bool:
        return any(part.exists(name) for part in self._parts)

    @override
    def read(self, name: str) -> bytes:
        return self._holder(name).read(name)

    @override
    def read_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        if len(self._parts) == 1:
            yield from self._parts[0].read_many(names)
            return
        for name in names:  # ask each store only for what those before it lack
            found = None
            for part in self._parts:
                (found,) = part.read_many([name])
                if found is not None:
                    break
            yield found

    def _refuse(self, *_: object) -> NoReturn:
        raise AssertionError("merged stores are only for reading records, scores and costs")

    top = age = write = create = remove = remove_folder = commit_folder = local_folder = scratch_folder = _refuse

    def _holder(self, name: str) -> Files:
        """Return the first store with that file; without any, the first store, whose error reports it."""
        return next((part for part in self._parts if part.exists(name)), self._parts[0])
