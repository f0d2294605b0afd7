"""Scores of judged pictures, read once, and the rows of a table that curves and galleries are drawn of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.report.leaderboard.merge import Gathered
from augbench.storage.scores import scores_frame
from augbench.storage.store import FIX_HINT

RECALLS = np.linspace(0, 1, 101)
"""Where precision-recall curves of several runs are averaged."""


class Scores:
    """The stored scores of cells."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._held = {store.url: store.keys("scores") for store in gathered.stores}
        self._read: dict[str, pd.DataFrame] = {}

    def of(self, key: str) -> pd.DataFrame | None:
        """The test pictures of a cell: ``id``, ``label`` and its logits; None where the store has no scores of it.

        Raises:
            UserError: the file is damaged, named.
        """
        if key not in self._read:
            store = self._gathered.home[key]
            if key not in self._held[store.url]:
                return None
            table = _parse(store.files.read(store.name("scores", key)), store.where("scores", key))
            self._read[key] = table[table["part"] == "test"].drop(columns=["part", "group"]).reset_index(drop=True)
        return self._read[key]


def _parse(data: bytes, place: str) -> pd.DataFrame:
    try:
        table = scores_frame(data)
    except ValueError:
        raise UserError(f"scores '{place}' are damaged: {FIX_HINT}") from None
    if missing := {"id", "part", "label", "group"} - set(table.columns):
        raise UserError(f"scores '{place}' are damaged (no column {', '.join(sorted(missing))}): {FIX_HINT}")
    return table


@dataclass(frozen=True)
class Shown:
    """A row of a table that stands for its augmenter in curves and galleries."""

    augmenter: str
    n_aug: int
    keys: tuple[str, ...]  # of its records


def shown_rows(table: Mapping[str, Any], cells: Mapping[tuple[str, int], Sequence[str]]) -> list[Shown]:
    """Of each augmenter the row with the largest N_aug that has records; how good it is decides nothing."""
    largest: dict[str, Shown] = {}
    for row in table["rows"]:
        keys = cells.get((row["augmenter"], row["n_aug"]), ())
        if keys and (row["augmenter"] not in largest or row["n_aug"] > largest[row["augmenter"]].n_aug):
            largest[row["augmenter"]] = Shown(row["augmenter"], row["n_aug"], tuple(keys))
    return list(largest.values())


def precision_at_recalls(scores: pd.DataFrame) -> np.ndarray:
    """101 float64 in [0, 1]: the precision of a detection run at the highest threshold that has each of `RECALLS`."""
    labels = (scores["label"] != GOOD).to_numpy()
    logits = scores["logit"].to_numpy(np.float64)
    order = np.argsort(-logits, kind="stable")
    last = np.append(np.diff(logits[order]) != 0, True)  # pictures with equal scores are called together
    hits, calls = np.cumsum(labels[order])[last], np.arange(1, len(labels) + 1)[last]
    recall = hits / max(labels.sum(), 1)
    return (hits / calls)[np.searchsorted(recall, RECALLS - 1e-12)]
