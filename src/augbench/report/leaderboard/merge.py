"""Several stores as one: records by key, names that mean one thing each, and where everything lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd

from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.report.fidelity_records import Measured, load_measured
from augbench.report.frame import (
    CELL_FIELDS,
    IDENTITIES,
    expected_frame,
    expected_from_records,
    load_expected,
    load_records,
)
from augbench.report.store_report import WAY_OUT
from augbench.report.tables import HEADLINE
from augbench.storage.store import Store, parse_json


@dataclass(frozen=True)
class Gathered:
    """What the stores hold together. Equal stores in equal order give an equal one."""

    expected: pd.DataFrame  # as `frame.expected_frame` gives it; a name means one thing
    records: pd.DataFrame  # as `frame.load_records` gives it, of every expected cell that has one
    measured: dict[str, Measured]  # fidelity records by key
    raw: dict[str, bytes]  # key of a cell -> its record, as it was written
    specs: dict[str, dict[str, Any]]  # key of a cell -> the spec in its record
    home: dict[str, Store]  # key of a cell or of a fidelity record -> the store that it is read from
    stores: tuple[Store, ...]
    differing: Mapping[
        str, float
    ]  # key of a cell that a later store has another result of -> how far its headline is off


MADE_ALIKE = ("device", "versions", "git_sha")
"""Parts of provenance by which equal cells have equal results: another processor rounds otherwise."""


def gather(stores: Sequence[Store]) -> Gathered:
    """The cells of all stores, each once.

    Equal keys are the same cell. Where another device, other versions or another commit gave another result, the first
    store's is taken, and that it is so is kept in ``differing``. A name of a dataset, augmenter or protocol that stands
    for several things gets the start of a digest behind it, as in reports of stores without a grid, so that numbers of
    different settings are never averaged.

    Args:
        stores: in the order that tables follow; within a store, grids come by name and cells in the order of the grid.

    Raises:
        UserError: a store without records, a damaged record, or one key with two results though device, versions and
            commit are the same, named.
    """
    raw: dict[str, bytes] = {}
    specs: dict[str, dict[str, Any]] = {}
    home: dict[str, Store] = {}
    frames, blocks, measured = [], [], {}
    differing: dict[str, float] = {}
    for store in stores:
        keys = sorted(store.keys("cells"))
        if not keys:
            raise UserError(f"store '{store.url}' does not exist or holds no records: {WAY_OUT}, or give another")
        new = list(_take(store, keys, raw, specs, home, differing))
        frames.append(load_records(store, new))
        for block in _blocks(store, load_records(store, keys) if len(new) < len(keys) else frames[-1]):
            blocks.append(block)
            found = load_measured(store, block)
            home.update((key, store) for key in found if key not in measured)
            measured |= {key: one for key, one in found.items() if key not in measured}
    records = pd.concat(frames, ignore_index=True).sort_values("key", ignore_index=True)
    return Gathered(_told_apart(blocks, records), records, measured, raw, specs, home, tuple(stores), differing)


def _take(
    store: Store,
    keys: Sequence[str],
    raw: dict[str, bytes],
    specs: dict[str, Any],
    home: dict[str, Store],
    differing: dict[str, float],
) -> Iterator[str]:
    """Put the store's records to those that are there; yields the keys that are new."""
    contents = store.files.read_many([store.name("cells", key) for key in keys])
    for key, data in zip(keys, contents, strict=True):
        if data is None:
            continue  # removed since the listing: its readers would not miss it either
        record = parse_json(data, store.where("cells", key))
        if key not in raw:
            raw[key], specs[key], home[key] = data, record.get("spec") or {}, store
            yield key
        elif data != raw[key]:
            earlier = parse_json(raw[key], home[key].where("cells", key))
            if record.get("result") != earlier.get("result"):
                apart = _apart(earlier, record, home[key].where("cells", key), store.where("cells", key))
                differing[key] = max(apart, differing.get(key, 0.0))


def _apart(first: Mapping[str, Any], second: Mapping[str, Any], place: str, other: str) -> float:
    """How far the headline metrics of two results of one cell are apart. Raises UserError where nothing explains it."""
    origins = [[(record.get("provenance") or {}).get(part) for part in MADE_ALIKE] for record in (first, second)]
    if origins[0] == origins[1]:
        raise UserError(
            f"'{other}' and '{place}' hold different results of one cell, made alike: leave one store out, or delete "
            "the record that is wrong"
        )
    values = [record.get("result") or {} for record in (first, second)]
    return max(abs(values[0].get(m, 0.0) - values[1].get(m, 0.0)) for m in HEADLINE.values())


def _blocks(store: Store, records: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The expected cells of a store: of every grid with a record, then records that no grid expects."""
    rest = set(records["key"])
    for name in sorted(store.keys("grids")):
        cells = load_expected(store, name)
        if set(cells["key"]) & set(records["key"]):
            rest -= set(cells["key"])
            yield cells
    if rest:
        yield expected_from_records(records[records["key"].isin(rest)].assign(**_plain_names(records)))


def _plain_names(records: pd.DataFrame) -> dict[str, Any]:
    """Nothing is told apart here: `_told_apart` does it for all stores at once."""
    return dict.fromkeys(IDENTITIES.values(), "")


def _told_apart(blocks: list[pd.DataFrame], records: pd.DataFrame) -> pd.DataFrame:
    """One table of all blocks, each cell once, under names that mean one thing.

    A cell without a record has the settings that its name has in its own grid, if any record of the grid tells.
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
        told = several & cells[identity].notna()
        plain, cells[name] = cells[name], cells[name].where(~told, cells[name] + " #" + cells[identity].str[:6])
        if name == "augmenter":
            cells["fidelity"] = [
                [(new if part == old else part, key) for part, key in pairs]
                for old, new, pairs in zip(plain, cells[name], cells["fidelity"], strict=True)
            ]
    fields = [*CELL_FIELDS, "fidelity"]
    return expected_frame(cells[fields].astype(object).to_dict("records"))


def augmenter_identity(spec: dict[str, Any], fresh: bool = False) -> str:
    """The digest by which `frame.load_records` knows an augmenter with its settings."""
    return digest([spec["name"], spec["key_settings"], fresh])


def embedded_parts(records: pd.DataFrame) -> tuple[str, ...]:
    """The embedded parts behind any of these records, sorted."""
    return tuple(sorted(set(chain.from_iterable(records["embedded"]))))
