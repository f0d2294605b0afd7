"""The training side of a dataset: all that the page may show."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD, Augmenter, Dataset, Shots, TrainView
from augbench.core.errors import UserError, brief
from augbench.core.specs import DataSpec, Draw
from augbench.planning.library import Library
from augbench.planning.splits import Split, checked_samples, make_split, train_view

HOLDOUT = 0.1
"""Share of the normal images that most protocols keep to choose a threshold with: these are not shown either."""
MEASURED = 200  # real defects whose masks are measured, evenly spaced


class TrainingImages:
    """Normal training images and real training defects by id. Held-out and test images cannot be reached."""

    def __init__(self, dataset: Dataset, spec: DataSpec) -> None:
        """Split the dataset as grids do; one without any defect has no test side and is all for training.

        Raises:
            UserError: it is made for recognition, or its table is invalid.
        """
        if dataset.task != "detection":
            raise UserError(f"dataset '{dataset.name}' is for recognition: the page certifies defects on normal images")
        self.dataset, self.spec = dataset, spec
        table = checked_samples(dataset)
        none = table.iloc[:0]
        has_defects = bool((table["label"] != GOOD).any())
        self.split = make_split(dataset, spec) if has_defects else Split(table, none, none, none)
        rows = pd.concat([self.split.negatives, self.split.positives])
        self._rows: dict[str, dict[str, str]] = {row["id"]: row for row in rows.to_dict("records")}

    @classmethod
    def of(cls, dataset: Dataset, fold: int | None = None) -> TrainingImages:
        """Open a dataset with the split of a fold, by default the first; official splits have none.

        Raises:
            UserError: no such fold, or as above.
        """
        if dataset.folds and not 0 <= (fold or 0) < dataset.folds:
            raise UserError(f"--fold {fold}: '{dataset.name}' has the folds 0 to {dataset.folds - 1}")
        if not dataset.folds and fold is not None:
            raise UserError(f"--fold {fold}: '{dataset.name}' has an official split: leave --fold out")
        number = (fold or 0) if dataset.folds else None
        return cls(dataset, DataSpec(dataset.name, dataset.name, dataset.key_settings(), "", number, HOLDOUT))

    @classmethod
    def in_library(cls, library: Library, spec: DataSpec) -> TrainingImages:
        """Open the dataset of a pool or an adapter, with its own split."""
        return cls(library.dataset(spec.alias), spec)

    @cached_property
    def normals(self) -> list[str]:
        """Ids of the normal training images."""
        return self.split.negatives["id"].tolist()

    @cached_property
    def defects(self) -> list[str]:
        """Ids of all real training defects."""
        return self.split.positives["id"].tolist()

    @cached_property
    def masked(self) -> list[str]:
        """Ids of the real training defects with a mask."""
        rows = self.split.positives
        return rows.loc[rows["mask"] != "", "id"].tolist()

    def label(self, name: str) -> str:
        """Return the class of a training image. Raises UserError as `image`."""
        return self._row(name)["label"]

    def image(self, name: str) -> np.ndarray:
        """Read a training image, H,W,3 uint8. Raises UserError for any other id."""
        return self.dataset.read_image(self._row(name))

    def mask(self, name: str) -> np.ndarray | None:
        """Read the mask of a training image, H,W bool; None if it has none. Raises UserError as `image`."""
        return self.dataset.read_mask(self._row(name))

    def holds(self, name: object) -> bool:
        """Whether this is the id of a training image."""
        return name in self._rows

    def _row(self, name: str) -> dict[str, str]:
        if name not in self._rows:
            raise UserError(f"'{brief(name)}' is no training image of '{self.spec.alias}'")
        return self._rows[name]

    @cached_property
    def mask_shares(self) -> list[float]:
        """Shares of the image that masks of real training defects cover, sorted; of some, where there are many."""
        names = self.masked
        chosen = np.linspace(0, len(names) - 1, min(MEASURED, len(names))).astype(int)
        masks = (self.mask(names[index]) for index in chosen)
        return sorted(float(mask.mean()) for mask in masks if mask is not None and mask.any())

    def view(self, augmenter: Augmenter, shots: Shots, draw: Draw, source: str) -> TrainView:
        """Return the training view of an augmenter, in which ``source`` is the only image to start from.

        Args:
            augmenter: declares what it reads.
            shots: the regime.
            draw: of the shots.
            source: id of a normal training image, or of a shot where the augmenter starts from these.
        """
        reads = augmenter.reads(shots)
        full = train_view(self.dataset, self.split, self.spec, shots, draw, reads)
        if "negatives" not in reads:
            return full.with_shots([source])
        rows = self.split.negatives
        return TrainView(self.dataset, rows[rows["id"] == source], self.split.positives.iloc[:0], reads, shots)

    def shots(self, augmenter: Augmenter, shots: Shots, draw: Draw) -> list[str]:
        """Return the ids of the shots that an augmenter reads."""
        reads = augmenter.reads(shots)
        if "shots" not in reads:
            return []
        return train_view(self.dataset, self.split, self.spec, shots, draw, reads).shots["id"].tolist()

    def found(self, names: Sequence[str], query: str) -> list[str]:
        """Return the names that contain all words of a query, in lower or upper case."""
        words = query.casefold().split()
        return [name for name in names if all(word in name.casefold() for word in words)]

    def facts(self) -> dict[str, Any]:
        """Return what a review is of, for its ``review.yaml``."""
        return {"dataset": self.spec.name, "settings": dict(self.spec.settings), "fold": self.spec.fold}
