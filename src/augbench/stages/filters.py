"""Filters of synthetic images: which ones of a pool are dropped, to be made again with other seeds.

They see training data only: the normal images, and the real defect images that the augmenter itself reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from augbench.classifiers.probe import CrossFitted, fit_cross_fitted
from augbench.core import filters as settings
from augbench.core.contracts import Synthetic, TrainView
from augbench.core.errors import UserError, WeightsError
from augbench.core.gpu import enough_memory
from augbench.core.specs import PoolSpec
from augbench.features.frozen import BATCH, FrozenBackbone
from augbench.metrics.near_copies import SAMPLE, thumbnail
from augbench.stages.context import Context, repeatable
from augbench.stages.copy_check import copies_of
from augbench.stages.decoded_images import geometry, prepared
from augbench.stages.fidelity import evenly

DROPPED = "dropped"  # in the metadata of an image: the filters that dropped earlier attempts at it, in order
LEAST = 0.2  # score of a near-copy: shots through the VAE of micro-sd have .35, other images of `surfaces` up to .15
FILTERED = "filtered"  # in provenance: how many images were made, and how many each filter dropped


class Filter(Protocol):
    """Decides which images are dropped."""

    name: str  # as in `core.filters.Filters`

    def __call__(self, samples: Sequence[Synthetic]) -> Sequence[bool]:
        """Return which images are dropped.

        Raises:
            UserError: the images lack what the filter needs.
        """


def filters_of(context: Context, pool: PoolSpec) -> list[Filter]:
    """Return the filters of a pool, in order. A process holds the last ones that read images of the dataset.

    Raises:
        UserError: weights are not available, or there are too few normal images.
    """
    chosen = settings.make_filters(pool.augmenter.filters)
    augmenter = context.library.augmenter(pool.augmenter)
    # On a CPU where its augmenter runs on one: features, and so what is dropped, depend on the device by rounding.
    device = context.device if augmenter.uses_gpu else "cpu"

    def held(kind: type[Memorised | Unseen], reads: tuple[object, ...], *more: object) -> Filter:
        if context.filters.get(kind.name, (None,))[0] != reads:
            view = context.library.view(pool.data, pool.shots, pool.draw, frozenset({"negatives", "shots"}))
            context.filters[kind.name] = (reads, kind(view, *more))
        return context.filters[kind.name][1]

    found: list[Filter] = []
    if chosen.unchanged:
        found.append(Unchanged(augmenter.name, context.view(augmenter, pool), chosen.unchanged.tolerance))
    if chosen.memorised:
        found.append(held(Memorised, (pool.data.digest, pool.shots, pool.draw)))
    if chosen.unseen:
        group_of = context.library.group_of(pool.data.alias)
        found.append(held(Unseen, (pool.data.digest, chosen.unseen, device), group_of, chosen.unseen, device))
    return found


def verdicts(filters: Sequence[Filter], samples: Sequence[Synthetic]) -> list[str]:
    """Return for each image the name of the first filter that drops it; "" if it passes all."""
    found = [""] * len(samples)
    for one in filters:
        left = [place for place, name in enumerate(found) if not name]
        for place, is_dropped in zip(left, one([samples[place] for place in left]) if left else (), strict=True):
            found[place] = one.name if is_dropped else ""
    return found


def counts_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Count attempts by the metadata lines of images: ``made``, and ``dropped`` by filter; None without filters."""
    attempts = [line[DROPPED] for line in lines if DROPPED in line]
    if not attempts:
        return None
    dropped = Counter(name for names in attempts for name in names)
    return {"made": len(attempts) + dropped.total(), "dropped": dict(sorted(dropped.items()))}


def load_judge(chosen: settings.Unseen, device: str) -> FrozenBackbone:
    """Load the backbone of the filter ``unseen``. Raises UserError if it is unknown or its weights are not at hand."""
    try:
        return FrozenBackbone(chosen.protocol, device)
    except WeightsError as error:
        raise WeightsError(
            f"filters.unseen: no pretrained weights of '{chosen.backbone}' at hand: put it into the Hugging Face cache "
            "(HF_HOME) on a machine with a network, or name another backbone"
        ) from error


@dataclass
class Unchanged:
    """Drops an image none of whose pixels inside the mask differs from its source by more than a tolerance."""

    augmenter: str
    view: TrainView
    tolerance: int
    name: str = "unchanged"

    def __call__(self, samples: Sequence[Synthetic]) -> list[bool]:
        """Compare each image with its source, as `Filter`."""
        return [bool(self._difference(sample) <= self.tolerance) for sample in samples]

    def _difference(self, sample: Synthetic) -> int:
        lacks = "a mask" if sample.mask is None else ""
        try:
            source = self.view.image(str(sample.meta.get("source")))
        except KeyError:
            lacks = lacks or "an image that they were made from ('source')"
        if lacks:
            raise UserError(
                f"augmenter '{self.augmenter}': filters.unchanged looks inside masks for what differs from the source, "
                f"and its images do not have {lacks}: take this filter out"
            )
        return np.abs(sample.image[sample.mask].astype(int) - source[sample.mask]).max()


class Memorised:
    """Drops a near-copy of a real defect image that its augmenter has read, and no closer one of a normal image."""

    name = "memorised"

    def __init__(self, view: TrainView) -> None:
        """Read the shots, and evenly spaced normal images, which tell how alike images of this surface are."""
        self._view, self._shots = view, len(view.shots)
        self._ids = [*view.shots["id"], *evenly(view.negatives, SAMPLE)["id"]]
        self._thumbnails = np.stack([thumbnail(view.image(name)) for name in self._ids]) if self._shots else None

    def __call__(self, samples: Sequence[Synthetic]) -> list[bool]:
        """Search for near-copies of the shots, as `Filter`."""
        if not self._shots:
            return [False] * len(samples)
        nearest: dict[int, int] = {}
        for real, own, score in copies_of(self._thumbnails, lambda index: self._view.image(self._ids[index]), samples):
            if score >= LEAST:
                nearest.setdefault(own, real)  # the best pair comes first
        return [nearest.get(place, self._shots) < self._shots for place in range(len(samples))]


class Unseen:
    """Drops an image that is no farther from the normal images, by a frozen backbone, than held-out ones of these are.

    Source: the distance is that of `classifiers.probe.fit_cross_fitted`; of an image that was made from a normal
    image, it is that to normal images of other items.
    """

    name = "unseen"

    def __init__(self, view: TrainView, group_of: Mapping[str, str], chosen: settings.Unseen, device: str) -> None:
        """Fit the normal training images.

        Raises:
            UserError: the backbone is not available, or there are too few normal images.
        """
        self._group_of, self._device = group_of, device
        self._size = geometry(chosen.protocol)
        self._backbone = load_judge(chosen, device)
        names = view.negatives["id"].tolist()
        groups = view.negatives["group"].to_numpy(str)
        features = np.concatenate(
            [
                self._features([view.image(name) for name in names[start : start + BATCH]])
                for start in range(0, len(names), BATCH)
            ]
        )
        with threadpool_limits(1):  # the number of threads changes rounding
            self._normals: CrossFitted = fit_cross_fitted(features, groups)
            self._farthest = np.quantile(self._normals.distances(features, groups), chosen.quantile)

    def __call__(self, samples: Sequence[Synthetic]) -> list[bool]:
        """Compare distances, as `Filter`."""
        groups = np.array([self._group_of.get(str(sample.meta.get("source")), "") for sample in samples])
        features = self._features([sample.image for sample in samples])
        with threadpool_limits(1):
            return (self._normals.distances(features, groups) <= self._farthest).tolist()

    def _features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        with repeatable(True, self._device), enough_memory("filters.unseen"):
            return self._backbone(np.stack([prepared(image, self._size) for image in images]))
