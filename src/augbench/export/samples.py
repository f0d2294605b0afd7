"""What can be exported as a folder of images: a pool of synthetic images, or a dataset with its split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

import augbench
from augbench.core import registry
from augbench.core.contracts import GOOD, Dataset
from augbench.core.errors import UserError
from augbench.core.specs import DataSpec, PoolSpec
from augbench.export.licences import of_plugin
from augbench.planning.splits import make_split
from augbench.storage.store import Store

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Sample:
    """An image to export."""

    name: str  # of its file, without a suffix
    split: str  # `TRAIN` or `TEST`
    label: str  # `GOOD`, or the class of the defect
    image: np.ndarray  # H,W,3 uint8
    mask: np.ndarray | None  # H,W bool: defect pixels; None: unknown, or a normal image
    about: dict[str, Any] = field(default_factory=dict)  # JSON values


@dataclass(frozen=True)
class Source:
    """A set of images to export, with what a reader must know about it."""

    name: str
    about: str  # a sentence
    licence: str  # of the dataset: synthetic images are made from it
    citation: str
    is_synthetic: bool
    classes: tuple[str, ...]  # of defects, sorted
    counts: dict[str, dict[str, int]]  # split -> label -> images
    provenance: dict[str, Any]  # JSON values
    samples: Callable[[], Iterator[Sample]] = field(repr=False)

    @property
    def images(self) -> int:
        """The number of images."""
        return sum(sum(labels.values()) for labels in self.counts.values())

    def without(self, left_out: Sequence[tuple[str, str, str]]) -> Source:
        """Return it with the counts that remain without these images: name, split and label of each."""
        gone = Counter((split, label) for _, split, label in left_out)
        counts = {
            split: {label: count - gone[split, label] for label, count in labels.items()}
            for split, labels in self.counts.items()
        }
        return replace(self, counts=counts)


def pool_source(store: Store, asked: str) -> Source:
    """Return the committed images of a pool, all for training.

    Raises:
        UserError: there is no such pool, or none of its images is made yet; later, an image is missing or damaged.
    """
    spec = store.pool_spec(asked)
    lines = [line for chunk in sorted(store.chunks(spec)) for line in store.chunk_lines(spec, chunk)]
    if not lines:
        raise UserError(f"pool '{spec.key}' has no image yet: run its grid")
    labels = pd.Series([line["label"] for line in lines])
    dataset, augmenter = spec.data.name, spec.augmenter
    plugin = registry.find("datasets").get(dataset)
    licences = {
        "dataset": f"{dataset}: {of_plugin('datasets', dataset)}",
        "augmenter": f"{augmenter.name}: {of_plugin('augmenters', augmenter.name)}",
    }
    record = store.read_pool(spec.key) or {}
    return Source(
        name=spec.key,
        about=f"Synthetic defect images, made by augbench's augmenter `{augmenter.name}` from training images of the "
        f"dataset `{dataset}`.",
        licence=of_plugin("datasets", dataset),
        citation=plugin.citation if plugin else "",
        is_synthetic=True,
        classes=tuple(sorted(set(labels))),
        counts={TRAIN: labels.value_counts().sort_index().to_dict()},
        provenance={
            "augbench": augbench.__version__,
            "pool": spec.key,
            "spec": spec.as_dict(),
            "made": record.get("provenance", {}),
            "adapter": spec.adapter.key if store.has_adapter(spec.adapter) else None,
            "licences": licences,
        },
        samples=lambda: (_synthetic(store, spec, line) for line in lines),
    )


def _synthetic(store: Store, pool: PoolSpec, line: dict[str, Any]) -> Sample:
    index = line["index"]
    image, mask = store.read_image(pool, line)
    about = {"index": index, "seed": line["seed"], **line["meta"]}
    return Sample(f"{index:05d}", TRAIN, line["label"], image, mask, about)


def dataset_source(dataset: Dataset, fold: int | None) -> Source:
    """Return the images of a dataset with its split.

    Args:
        dataset: with a root.
        fold: which of its folds is the test split; None: 0, or the official split where it has one.

    Raises:
        UserError: the files are missing or invalid, a side of the split has nothing to learn from, or there is no such
            fold; later, an image cannot be read.
    """
    if fold is not None and not dataset.folds:
        raise UserError(f"--fold {fold}: dataset '{dataset.name}' has an official split: leave --fold out")
    if dataset.folds:
        fold = fold or 0
        if fold >= dataset.folds:
            raise UserError(f"--fold {fold}: dataset '{dataset.name}' has {dataset.folds} folds, from 0 on")
    settings = dataset.key_settings()
    split = make_split(dataset, DataSpec(dataset.name, dataset.name, settings, "", fold, 0.0))
    table = pd.concat([pd.concat([split.negatives, split.positives]).assign(part=TRAIN), split.test.assign(part=TEST)])
    where = "its official split" if fold is None else f"fold {fold} of {dataset.folds} as the test split"
    counts = {part: rows["label"].value_counts().sort_index().to_dict() for part, rows in table.groupby("part")}
    return Source(
        name=dataset.name if fold is None else f"{dataset.name}-f{fold}",
        about=f"{dataset.title or dataset.name}, with {where}.",
        licence=dataset.licence or "not stated",
        citation=dataset.citation,
        is_synthetic=False,
        classes=tuple(sorted(set(table["label"]) - {GOOD})),
        counts={part: counts[part] for part in (TRAIN, TEST)},
        provenance={
            "augbench": augbench.__version__,
            "dataset": dataset.name,
            "settings": settings,
            "fold": fold,
            "homepage": dataset.homepage,
            "licences": {"dataset": f"{dataset.name}: {dataset.licence or 'not stated'}"},
        },
        samples=lambda: (_real(dataset, number, row) for number, row in enumerate(table.to_dict("records"))),
    )


def _real(dataset: Dataset, number: int, row: dict[str, str]) -> Sample:
    """Read a sample. Ids may be paths, so its name is a number and what remains of the id."""
    name = f"{number:05d}_{re.sub(r'[^A-Za-z0-9]+', '_', row['id']).strip('_')[-80:]}"
    mask = None if row["label"] == GOOD else dataset.read_mask(row)
    about = {"id": row["id"], "group": row["group"]}
    return Sample(name, row["part"], row["label"], dataset.read_image(row), mask, about)
