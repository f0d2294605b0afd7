"""The data of a cell: which images it is trained and evaluated on, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.core.seeds import rng
from augbench.core.specs import Cell
from augbench.planning.library import Library
from augbench.planning.plan import PoolSlice
from augbench.planning.splits import Split


@dataclass(frozen=True)
class CellData:
    """The images of a cell. All synthetic ones are trained on, after the real ones, in the order of the pool slices."""

    train: pd.DataFrame  # rows of the dataset's table: normal images, then shots
    train_rows: np.ndarray  # their numbers in the table
    labels: np.ndarray  # N int64, of the real, then of the synthetic training images: 0/1, or class indices. A protocol
    # that shuffles them permutes them over all of these; a synthetic image is an item of its own
    evaluated: pd.DataFrame  # evaluated rows: test, then held-out, as the column "part" says
    evaluated_rows: np.ndarray  # their numbers in the table
    classes: tuple[str, ...]  # recognition: one output each; (): detection with one output
    counts: dict[str, int]

    @property
    def outputs(self) -> int:
        """The number of logits of an image."""
        return len(self.classes) or 1

    @property
    def has_normal(self) -> bool:
        """Whether label 0 means a normal image; False in recognition among defect classes alone."""
        return not self.classes or self.classes[0] == GOOD

    @property
    def metric(self) -> str:
        """The headline metric."""
        return "accuracy" if self.classes else "ap"


@dataclass(frozen=True)
class Trained:
    """A trained and evaluated classifier."""

    scores: pd.DataFrame  # see `score_table`
    result: dict[str, Any]  # of the record: metrics, counts, and what is particular to the kind of protocol
    seconds: dict[str, float]  # total, gather, fit and judge
    shown: int  # training samples seen, repetitions counted
    arrays: Callable[[], dict[str, np.ndarray]]  # its weights, by name


def data_of(library: Library, cell: Cell, slices: Sequence[PoolSlice]) -> CellData:
    """Return the data of a cell.

    Raises:
        UserError: there is no defect image to train on.
    """
    split = library.split(cell.data)
    shots = library.shots(cell.data, cell.shots, cell.draw)
    classes = _outputs(cell, split)
    evaluated = library.evaluated(cell.data)
    train = pd.concat([split.negatives, shots])
    labels = [_labels(train["label"], classes), *(_pool_labels(pool_slice, cell, classes) for pool_slice in slices)]
    if not classes and not cell.protocol.normals_only and not any(part.any() for part in labels):
        raise UserError(f"cell '{cell.key}' has no defect image to train on: use shots > 0 or an augmenter")
    labels = np.concatenate(labels)
    if cell.protocol.shuffle_labels:
        items = pd.factorize(train["group"])[0]
        items = np.append(items, len(items) + np.arange(len(labels) - len(items)))
        labels = shuffled(labels, items, rng("shuffled-labels", cell.data.name, cell.data.fold, cell.draw, cell.seed))
    row_of = library.row_of(cell.data.alias)
    return CellData(
        train=train,
        train_rows=row_of[train["id"]].to_numpy(),
        labels=labels,
        evaluated=evaluated,
        evaluated_rows=row_of[evaluated["id"]].to_numpy(),
        classes=classes,
        counts={
            "train_negatives": len(split.negatives),
            "shots": len(shots),
            "synthetic": sum(pool_slice.n for pool_slice in slices),
            "heldout_negatives": len(split.heldout),
            "test_negatives": int((split.test["label"] == GOOD).sum()),
            "test_positives": int((split.test["label"] != GOOD).sum()),
        },
    )


def shuffled(labels: np.ndarray, items: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Permute labels N by item, N int: the labels of an item stay side by side and go to images of one item or two.

    Permuting image by image would give near-copies opposite labels, from which less is learned than by chance.
    """
    order = np.argsort(items, kind="stable")
    of_items = np.split(labels[order], np.flatnonzero(np.diff(items[order])) + 1)
    permuted = np.empty_like(labels)
    permuted[order] = np.concatenate([of_items[item] for item in generator.permutation(len(of_items))])
    return permuted


def _outputs(cell: Cell, split: Split) -> tuple[str, ...]:
    """Return the class of each logit: () in detection; in recognition the classes, with `GOOD` first if it occurs."""
    good = (GOOD,) if cell.data.classes and len(split.negatives) else ()
    return good + cell.data.classes


def _labels(names: pd.Series, classes: tuple[str, ...]) -> np.ndarray:
    if not classes:
        return (names != GOOD).to_numpy(np.int64)
    return names.map({name: number for number, name in enumerate(classes)}).to_numpy(np.int64)


def _pool_labels(pool_slice: PoolSlice, cell: Cell, classes: tuple[str, ...]) -> np.ndarray:
    """Return the labels of a slice: pools cycle through the defect classes; in detection all are positive."""
    if not classes:
        return np.ones(pool_slice.n, np.int64)
    numbers = np.array([classes.index(name) for name in cell.data.classes], np.int64)
    return numbers[np.arange(pool_slice.n) % len(numbers)]


def score_table(data: CellData, logits: np.ndarray) -> pd.DataFrame:
    """Return one row per evaluated image: id, part, label, group, and a float32 column per logit, named by class."""
    table = data.evaluated[["id", "part", "label", "group"]].astype(str).reset_index(drop=True)
    names = [f"logit_{name}" for name in data.classes] or ["logit"]
    for column, name in enumerate(names):
        table[name] = logits[:, column].astype(np.float32)
    return table
