"""The images of a leaderboard: datasets and pools that can be read, and thumbnails of their images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from augbench.core import registry
from augbench.core.contracts import GOOD, Dataset
from augbench.core.errors import UserError, did_you_mean
from augbench.core.hashing import digest
from augbench.core.specs import DataSpec, PoolSpec
from augbench.planning.library import open_dataset, resolve_roots
from augbench.planning.outline import shots_and_draw
from augbench.planning.splits import Split, checked_samples, make_split
from augbench.report.contact_sheet import OUTLINE, outline
from augbench.report.frame import filters_in, shots_rank
from augbench.report.leaderboard.merge import Gathered
from augbench.storage.store import Store

SMALLEST_RING = 8  # minimum width in pixels of the surroundings that a defect's contrast is measured against


class OpenDataset:
    """A dataset of the leaderboard, opened on first use."""

    def __init__(self, label: str, spec: DataSpec, settings: Mapping[str, Any]) -> None:
        """``settings``: those that were given besides the ones in keys."""
        self.label = label
        self.spec = spec
        self.settings = settings
        self._shapes: dict[str, tuple[float, float] | None] = {}

    @cached_property
    def dataset(self) -> Dataset | None:
        """The plug-in; None if it, or its files, are not available. Raises UserError where settings were given."""
        try:
            version = registry.version("datasets", self.spec.name)
            stored = {k: v for k, v in self.spec.settings.items() if k not in version}
            dataset = open_dataset(self.spec.name, {**stored, **self.settings})
            checked_samples(dataset)
        except UserError:
            if self.settings:
                raise
            return None
        return dataset

    @property
    def licence(self) -> str:
        """The licence that the plug-in states."""
        if self._plugin is None:
            return "unknown, since its plug-in is not available here"
        return self._plugin.licence or "not stated"

    @property
    def citation(self) -> str:
        """What the plug-in asks to cite; "" if that is unknown."""
        return self._plugin.citation if self._plugin else ""

    @property
    def _plugin(self) -> type[Dataset] | None:
        return registry.find("datasets").get(self.spec.name)

    @property
    def split(self) -> Split:
        """The split of its first fold; needs the dataset's files."""
        assert self.dataset is not None
        return make_split(self.dataset, self.spec)

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """Id -> row of its table; empty if the dataset is not available."""
        if self.dataset is None:
            return {}
        return {row["id"]: row for row in checked_samples(self.dataset).to_dict("records")}

    def holds(self, scores: pd.DataFrame) -> bool:
        """Return whether the files here match the scored images by ids and labels."""
        labels = scores["id"].map({name: row["label"] for name, row in self.rows.items()})
        return bool(self.rows) and bool((labels == scores["label"]).all())

    def load(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Read an image by its id: H,W,3 uint8; and its mask: H,W bool, or None for normal images."""
        assert self.dataset is not None
        row = self.rows[name]
        return self.dataset.read_image(row), None if row["label"] == GOOD else self.dataset.read_mask(row)

    def shape(self, name: str) -> tuple[float, float] | None:
        """Return a defect's share of the image area and its contrast, both in [0, 1]; None without a mask.

        Contrast is the difference of mean grey levels inside and outside the mask, within its bounding box widened by
        half its size on each side.
        """
        if name not in self._shapes:
            image, mask = self.load(name)
            self._shapes[name] = None if mask is None or not mask.any() or mask.all() else _shape(image, mask)
        return self._shapes[name]


def _shape(image: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = []
    for pixels in (rows, columns):
        margin = max((pixels[-1] - pixels[0] + 1) // 2, SMALLEST_RING)
        box.append(slice(max(pixels[0] - margin, 0), pixels[-1] + 1 + margin))
    grey, inside = image[tuple(box)].mean(axis=2), mask[tuple(box)]
    around = grey[~inside] if (~inside).any() else image.mean(axis=2)[~mask]
    return float(mask.mean()), float(abs(grey[inside].mean() - around.mean()) / 255)


def sources_of(
    gathered: Gathered, settings: Mapping[str, Mapping[str, Any]], roots: Sequence[str]
) -> dict[str, OpenDataset]:
    """Map the name of each dataset in the tables to the dataset, in the order of the tables.

    Raises:
        UserError: ``settings`` or ``roots`` name another dataset.
    """
    first: dict[str, DataSpec] = {}  # the lowest fold and hold-out
    for key, label in zip(gathered.expected["key"], gathered.expected["dataset"], strict=True):
        if key in gathered.specs:
            spec = DataSpec.from_dict(gathered.specs[key]["data"])
            first[label] = min(first.get(label, spec), spec, key=lambda one: (one.fold or 0, one.holdout))
    known = {spec.alias for spec in first.values()}
    for name in settings:
        if name not in known:
            raise UserError(f"no table is of a dataset '{name}'{did_you_mean(name, known)}")
    folders = resolve_roots(roots, {spec.alias: spec.name for spec in first.values()})
    given = {name: {**settings.get(name, {}), **({"root": folders[name]} if name in folders else {})} for name in known}
    return {label: OpenDataset(label, spec, given[spec.alias]) for label, spec in first.items()}


@dataclass(frozen=True)
class Pool:
    """A pool whose images can be read."""

    spec: PoolSpec
    store: Store
    augmenter: str  # its name in the tables; the plug-in's if only mixtures use the pool
    lines: list[dict[str, Any]]  # of its metadata

    @classmethod
    def of(cls, spec: PoolSpec, store: Store, augmenter: str = "") -> Pool:
        """Read the metadata of the images that a pool has; ``augmenter`` is the plug-in's name by default."""
        lines = [line for chunk in sorted(store.chunks(spec)) for line in store.chunk_lines(spec, chunk)]
        return cls(spec, store, augmenter or spec.augmenter.name, lines)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Read the image of a line: H,W,3 uint8; and its mask: H,W bool, or None if it has none."""
        return self.store.read_image(self.spec, self.lines[index])


def shots_of(spec: PoolSpec) -> int | str | None:
    """Return the shots of a pool as reports have them; None where it reads none."""
    return None if spec.shots is None else shots_and_draw(spec.shots, spec.draw)["shots"]


def pools_of(gathered: Gathered) -> dict[str, list[Pool]]:
    """Map each dataset to its pools, one per augmenter and shot regime: that of the first fold, draw and seeds."""
    cells = gathered.expected.merge(gathered.records[["key", "dataset_id", "augmenter_id"]], on="key")
    datasets = dict(zip(cells["dataset_id"], cells["dataset"], strict=True))
    augmenters = dict(zip(cells["augmenter_id"], cells["augmenter"], strict=True))
    older = set(gathered.older["augmenter_id"])
    held: list[tuple[str, str, PoolSpec, Store]] = []  # dataset and augmenter by their names in the tables
    for store in gathered.stores:
        for record in filter(None, store.read_pools(sorted(store.keys("pools")))):
            spec = PoolSpec.from_dict(record["spec"])
            # The digests that `frame.load_records` makes of a dataset and of an augmenter.
            label = datasets.get(digest([spec.data.name, spec.data.settings, spec.data.fingerprint]))
            of_filters = filters_in(spec.augmenter.as_dict())
            identity = digest([spec.augmenter.name, spec.augmenter.key_settings, bool(spec.fresh_for), *of_filters])
            if label is not None and (identity in augmenters or identity not in older):
                held.append((label, augmenters.get(identity, spec.augmenter.name), spec, store))
    places = {name: place for place, name in enumerate(dict.fromkeys(gathered.expected["augmenter"]))}

    def order(one: tuple[str, str, PoolSpec, Store]) -> tuple[Any, ...]:
        label, name, spec, _ = one
        drawn = shots_and_draw(spec.shots, spec.draw)["draw"]
        rank = (spec.data.fold or 0, drawn or 0, spec.adapter_seed, spec.seed, spec.fresh_for or 0, spec.key)
        return label, places.get(name, len(places)), name, shots_rank(shots_of(spec) or 0), *rank

    seen: set[tuple[Any, ...]] = set()
    found: dict[str, list[Pool]] = {}
    for label, name, spec, store in sorted(held, key=order):
        where = (label, name, shots_of(spec))
        if where not in seen:
            seen.add(where)
            pool = Pool.of(spec, store, name)
            if pool.lines and store.files.exists(store.image_name(spec, pool.lines[0]["index"])):
                found.setdefault(label, []).append(pool)
    return found


# -- thumbnails


SIDE = 96  # pixels
QUALITY = 78  # of WebP


class Thumbs:
    """Thumbnails by content. The template refers to what `add` returns; `library` holds the bytes."""

    def __init__(self, side: int = SIDE) -> None:
        """``side``: pixels of the longer side, at most."""
        self.side = side
        self.library: list[dict[str, Any]] = []
        self._by_url: dict[str, dict[str, Any]] = {}

    def add(self, image: np.ndarray, alt: str, caption: str = "", mask: np.ndarray | None = None) -> dict[str, Any]:
        """Add an image.

        Args:
            image: H,W,3 uint8.
            alt: alternative text.
            caption: text below it.
            mask: H,W bool: its outline is drawn.

        Returns:
            Id, width, height, alt and caption.
        """
        small, buffer = _small(image, mask, self.side), io.BytesIO()
        small.save(buffer, "WEBP", quality=QUALITY, method=4)
        url = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        known = self._by_url.get(url)
        if known is None:
            known = {"id": f"p{len(self.library)}", "width": small.width, "height": small.height}
            self._by_url[url] = known
            self.library.append(known | {"url": url})
        return known | {"alt": alt, "caption": caption}


def _small(image: np.ndarray, mask: np.ndarray | None, side: int) -> Image.Image:
    """Shrink the image to at most ``side`` pixels; never enlarge it."""
    height, width = image.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if mask is not None and mask.any():
        small.paste(OUTLINE, mask=outline(mask, size))
    return small
