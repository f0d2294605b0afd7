"""Scores of the evaluated images, read once, and the rows of a table that curves and galleries use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.report.leaderboard.headings import Content, Keys
from augbench.report.leaderboard.merge import Gathered
from augbench.storage.scores import checked_scores
from augbench.storage.store import FIX_HINT

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which the precision-recall curves of several runs are averaged."""


class Scores:
    """Reads and caches the stored scores of cells."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._stored = {store.url: store.keys("scores") for store in gathered.stores}
        self._read: dict[str, pd.DataFrame] = {}

    def of(self, key: str) -> pd.DataFrame | None:
        """Return the scores of a cell's test images: ``id``, ``label`` and logits; None if none are stored.

        Raises:
            UserError: the file is damaged; the message names it.
        """
        if key not in self._read:
            store = self._gathered.home[key]
            if key not in self._stored[store.url]:
                return None
            try:
                table = checked_scores(store.files.read(store.name("scores", key))).to_pandas(use_threads=False)
            except ValueError as error:
                raise UserError(f"'{store.where('scores', key)}' is damaged ({error}): {FIX_HINT}") from None
            self._read[key] = table[table["part"] == "test"].drop(columns=["part", "group"]).reset_index(drop=True)
        return self._read[key]


@dataclass(frozen=True)
class PlottedRow:
    """A row of a table that represents its augmenter in curves and galleries."""

    augmenter: str
    n_aug: int
    runs: tuple[tuple[str, ...], ...]  # the keys of the records of each run, one for each of its folds

    @property
    def keys(self) -> list[str]:
        """Keys of its records."""
        return [key for run in self.runs for key in run]


def plotted_rows(table: Content, cells: Keys) -> list[PlottedRow]:
    """Return each augmenter's row with the largest N_aug among those with complete runs, whatever its metrics."""
    largest: dict[str, PlottedRow] = {}
    for row in table["rows"]:
        runs = cells.get((row["augmenter"], row["n_aug"]), ())
        if runs and (row["augmenter"] not in largest or row["n_aug"] > largest[row["augmenter"]].n_aug):
            largest[row["augmenter"]] = PlottedRow(row["augmenter"], row["n_aug"], tuple(map(tuple, runs)))
    return list(largest.values())


def precision_at_recalls(scores: pd.DataFrame) -> np.ndarray:
    """Compute the precision of a detection run at each of `RECALLS`: at the highest threshold that reaches it.

    Args:
        scores: ``label`` and ``logit`` of the test images.

    Returns:
        101 float64 in [0, 1].
    """
    labels = (scores["label"] != GOOD).to_numpy()
    logits = scores["logit"].to_numpy(np.float64)
    order = np.argsort(-logits, kind="stable")
    last = np.append(np.diff(logits[order]) != 0, True)  # images with equal scores share a threshold
    true_positives, positives = np.cumsum(labels[order])[last], np.arange(1, len(labels) + 1)[last]
    recall = true_positives / max(labels.sum(), 1)
    return (true_positives / positives)[np.searchsorted(recall, RECALLS - 1e-12)]
