"""Versions of edited plug-ins: an edit gives cells other keys, so tables show the newest version and fold the others.

A version is newer than another of the same row if a grid of the store names its cells, else if it ran later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from augbench.report.frame import load_expected, load_records, shots_rank
from augbench.report.numbers import stat_of
from augbench.report.sheet import Medium, Section, Sheet
from augbench.storage.store import Store

TITLE = "Earlier versions of edited plug-ins"
METRICS = {"detection": ("ap", "AP"), "recognition": ("accuracy", "accuracy")}
VERSION_LENGTH = 13  # characters of a file's digest, "sha256:" included


def older_keys(records: pd.DataFrame, named: Set[str]) -> set[str]:
    """Return the keys of the cells that a newer version of their plug-ins made too.

    Args:
        records: as `frame.load_records` returns them.
        named: keys of the cells that a grid names.
    """
    rows: dict[tuple[Any, ...], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for record in records.itertuples(index=False):
        row = record.dataset, record.augmenter, record.protocol, record.shots, record.n_aug, record.line
        rows[row][record.version].append(record)
    older: set[str] = set()
    for versions in rows.values():
        ranks = {
            version: (any(cell.key in named for cell in cells), max(cell.finished for cell in cells))
            for version, cells in versions.items()
        }
        newest = max(ranks.values())
        older |= {cell.key for version, cells in versions.items() if ranks[version] < newest for cell in cells}
    return older


def older_records(store: Store, records: pd.DataFrame) -> pd.DataFrame:
    """Return the records of a store that are of earlier versions of the plug-ins behind ``records``.

    Raises:
        UserError: a damaged record, named.
    """
    if not records["version"].any():
        return records.iloc[:0]
    named = {key for name in store.keys("grids") for key in load_expected(store, name)["key"]}
    others = load_records(store, store.keys("cells") - named - set(records["key"]))
    everything = pd.concat([records, others], ignore_index=True)
    return others[others["key"].isin(older_keys(everything, named or set(records["key"])))]


@dataclass(frozen=True)
class OlderRow:
    """A row of an earlier version of a plug-in."""

    texts: tuple[str, ...]  # of `COLUMNS`
    keys: tuple[str, ...]  # of its cells


COLUMNS = ("dataset", "shots", "protocol", "augmenter", "version", "last run")
NUMBERS = ("N_aug", "headline", "runs")


def older_rows(records: pd.DataFrame) -> list[OlderRow]:
    """Return the rows of earlier versions, the latest first."""
    rows = defaultdict(list)
    for record in records.itertuples(index=False):
        axes = record.dataset, record.shots, record.protocol, record.augmenter
        rows[(*axes, record.version, record.n_aug, record.line)].append(record)

    def order(item: tuple[tuple[Any, ...], list[Any]]) -> tuple[Any, ...]:
        (dataset, shots, protocol, augmenter, version, n_aug, line), cells = item
        return dataset, protocol, shots_rank(shots), augmenter, n_aug, max(c.finished for c in cells), version, line

    return [_row(cells) for _, cells in sorted(rows.items(), key=order)]


def _row(cells: list[Any]) -> OlderRow:
    first = cells[0]
    metric, name = METRICS[first.task]
    date = max(cell.finished for cell in cells)[:10] or "unknown"
    versions = [text[:VERSION_LENGTH] if text.startswith("sha256:") else text for text in first.version.split()]
    texts = (first.dataset, str(first.shots), first.protocol, first.augmenter, ", ".join(versions), date)
    stat = stat_of(getattr(cell, metric) for cell in cells)
    return OlderRow((*texts, str(first.n_aug), f"{name} {stat.text}", str(len(cells))), tuple(c.key for c in cells))


def older_sections(rows: Sequence[OlderRow], medium: Medium) -> list[Section]:
    """Return the section of earlier versions, folded where the medium can; a sentence in the terminal."""
    if not rows:
        return []
    names = ", ".join(dict.fromkeys(f"{row.texts[3]} of {row.texts[5]}" for row in rows))
    sentence = f"Not in the tables, as a newer version has run: {names}."
    if medium == "terminal":
        return [Section(TITLE, sentences=[f"{sentence} The written report lists them."])]
    sheet = Sheet.of(COLUMNS, NUMBERS, [row.texts for row in rows], title=f"{len(rows)} row{'s' * (len(rows) > 1)}")
    return [Section(TITLE, sentences=[sentence], sheets=[replace(sheet, is_folded=True)])]
