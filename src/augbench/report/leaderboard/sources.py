"""The datasets and pools behind a leaderboard, as far as their pictures are at hand."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from augbench.core import registry
from augbench.core.contracts import GOOD, Dataset
from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.core.specs import DataSpec, PoolSpec
from augbench.planning.library import open_dataset
from augbench.planning.splits import Split, checked_samples, make_split
from augbench.report.frame import shots_rank
from augbench.report.leaderboard.merge import Gathered, augmenter_identity
from augbench.storage.store import Store

SMALLEST_RING = 8  # pixels around a defect that its contrast is measured against, at least


class OpenDataset:
    """A dataset of the leaderboard."""

    def __init__(self, label: str, specs: list[DataSpec]) -> None:
        self.label = label
        self.specs = specs  # of its folds and hold-outs; the first stands for it
        self._shapes: dict[str, tuple[float, float] | None] = {}

    @cached_property
    def dataset(self) -> Dataset | None:
        """The plug-in, its files at hand; None where they, or it, are not."""
        spec = self.specs[0]
        try:
            own = {k: v for k, v in spec.settings.items() if k not in registry.version("datasets", spec.name)}
            dataset = open_dataset(spec.name, own)
            checked_samples(dataset)
        except UserError:
            return None
        return dataset

    @property
    def licence(self) -> str:
        """As its plug-in states it."""
        try:
            return registry.get("datasets", self.specs[0].name).licence or "not stated"
        except UserError:
            return "not known here, since its plug-in is not at hand"

    @property
    def split(self) -> Split:
        """The parts of its first fold. Only where the dataset is at hand."""
        assert self.dataset is not None
        return make_split(self.dataset, self.specs[0])

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """Id -> row of its table; empty where it is not at hand."""
        if self.dataset is None:
            return {}
        return {row["id"]: row for row in checked_samples(self.dataset).to_dict("records")}

    def holds(self, judged: pd.DataFrame) -> bool:
        """Whether the files at hand are of the pictures that were judged, by ids and labels."""
        labels = judged["id"].map({name: row["label"] for name, row in self.rows.items()})
        return bool(len(self.rows)) and bool((labels == judged["label"]).all())

    def picture(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """H,W,3 uint8, and H,W bool or None."""
        assert self.dataset is not None
        row = self.rows[name]
        return self.dataset.read_image(row), None if row["label"] == GOOD else self.dataset.read_mask(row)

    def shape(self, name: str) -> tuple[float, float] | None:
        """A defect's share of the picture's area and its contrast, both in [0, 1]; None where there is no mask.

        Contrast is the difference of mean grey levels inside the mask and around it: in its bounding box, widened by
        half of it on each side.
        """
        if name not in self._shapes:
            image, mask = self.picture(name)
            self._shapes[name] = None if mask is None or not mask.any() or mask.all() else _shape(image, mask)
        return self._shapes[name]


def _shape(image: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = []
    for places in (rows, columns):
        beyond = max((places[-1] - places[0] + 1) // 2, SMALLEST_RING)
        box.append(slice(max(places[0] - beyond, 0), places[-1] + 1 + beyond))
    grey, inside = image[tuple(box)].mean(axis=2), mask[tuple(box)]
    around = grey[~inside] if (~inside).any() else image.mean(axis=2)[~mask]
    return float(mask.mean()), float(abs(grey[inside].mean() - around.mean()) / 255)


def sources_of(gathered: Gathered) -> dict[str, OpenDataset]:
    """Name of a dataset in the tables -> the dataset, in the order of the tables."""
    labels = dict(zip(gathered.expected["key"], gathered.expected["dataset"], strict=True))
    specs: dict[str, dict[str, DataSpec]] = {}
    for key, label in labels.items():
        if key in gathered.specs:
            spec = DataSpec.from_dict(gathered.specs[key]["data"])
            specs.setdefault(label, {}).setdefault(spec.digest, spec)
    order = {label: sorted(found.values(), key=lambda s: (s.fold or 0, s.holdout)) for label, found in specs.items()}
    return {label: OpenDataset(label, found) for label, found in order.items()}


@dataclass(frozen=True)
class Pool:
    """A pool whose pictures are at hand."""

    spec: PoolSpec
    store: Store
    augmenter: str  # as tables name it; of a part of a mixture without rows of its own, its plug-in
    lines: list[dict[str, Any]]  # of its metadata

    def picture(self, place: int) -> tuple[np.ndarray, np.ndarray | None]:
        """H,W,3 uint8, and H,W bool or None, of the picture in that place."""
        line = self.lines[place]
        image = _decoded(self.store.files.read(self.store.image_name(self.spec, line["index"])))
        if "mask_file_name" not in line:
            return image, None
        return image, _decoded(self.store.files.read(self.store.mask_name(self.spec, line["index"])))[..., 0] > 127


def _decoded(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def pools_of(gathered: Gathered) -> dict[str, list[Pool]]:
    """Name of a dataset -> its pools, one for each augmenter and regime: the first fold, draw and seed of them."""
    datasets, augmenters = _names(gathered)
    first: dict[tuple[Any, ...], tuple[tuple[Any, ...], PoolSpec, Store]] = {}
    for store in gathered.stores:
        for spec in _specs(store):
            label = datasets.get(digest([spec.data.name, spec.data.settings, spec.data.fingerprint]))
            if label is None:
                continue
            identity = augmenter_identity(spec.augmenter.as_dict(), bool(spec.fresh_for))
            name = augmenters.get(identity, spec.augmenter.name)
            rank = (spec.data.fold or 0, spec.draw or 0, spec.seed, spec.fresh_for or 0, spec.key)
            where = (label, name, spec.shots)
            if where not in first or rank < first[where][0]:
                first[where] = (rank, spec, store)
    found: dict[str, list[Pool]] = {}
    order = list(dict.fromkeys(gathered.expected["augmenter"]))
    for (label, name, _), (_, spec, store) in sorted(first.items(), key=lambda one: _order(one[0], order)):
        lines = [line for chunk in sorted(store.chunks(spec)) for line in store.chunk_lines(spec, chunk)]
        if lines and store.files.exists(store.image_name(spec, lines[0]["index"])):
            found.setdefault(label, []).append(Pool(spec, store, name, lines))
    return found


def _specs(store: Store) -> Iterator[PoolSpec]:
    for key in sorted(store.keys("pools")):
        record = store.read_pool(key)
        if record is not None:
            yield PoolSpec.from_dict(record["spec"])


def _order(where: tuple[Any, ...], order: list[str]) -> tuple[Any, ...]:
    label, name, shots = where
    return label, order.index(name) if name in order else len(order), name, shots_rank(shots or 0)


def _names(gathered: Gathered) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of datasets and of augmenters -> what the tables call them."""
    known = gathered.records.set_index("key")
    rows = gathered.expected[gathered.expected["key"].isin(known.index)]
    ids = known.loc[rows["key"]]
    datasets = dict(zip(ids["dataset_id"], rows["dataset"], strict=True))
    augmenters = dict(zip(ids["augmenter_id"], rows["augmenter"], strict=True))
    return datasets, augmenters
