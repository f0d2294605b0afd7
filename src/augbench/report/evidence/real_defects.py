"""How many independent real defects a row was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from augbench.metrics.exchange import independent

ITEMS, IMAGES = "independent defects", "defect images"


@dataclass(frozen=True)
class Counting:
    """The numbers of real defects of a curve."""

    of: Mapping[int | str, float]  # shots -> their number, mean over folds
    what: str  # `ITEMS`, or `IMAGES` where the items of training images are not known

    @property
    def is_of_items(self) -> bool:
        """Whether items are counted: images of one physical item show one defect, as far as is known."""
        return self.what == ITEMS


def counting(
    images: Mapping[int | str, Sequence[int]], defects: Mapping[int, Counter[str]], folds_drawn: bool
) -> Counting:
    """Count the real defects behind each number of shots.

    Shots are drawn image by image, and a record does not name them. Where folds are a partition, the defect images of
    the other folds are those that a fold draws from: the expected number of items among its shots follows.

    Args:
        images: shots -> the real defect images of each of their cells.
        defects: fold -> item -> its test images with a defect.
        folds_drawn: folds are random splits, which share items.
    """
    trained = {fold: sum((own for other, own in defects.items() if other != fold), Counter()) for fold in defects}
    whole = [sum(items.values()) for items in trained.values()]
    is_known = "all" in images and not folds_drawn and len(whole) > 1 and set(images["all"]) == set(whole)
    if not is_known:
        return Counting({shots: fmean(own) for shots, own in images.items()}, IMAGES)
    found = {
        shots: fmean(
            independent(list(items.values()), total if shots == "all" else round(fmean(own)))
            for items, total in zip(trained.values(), whole, strict=True)
        )
        for shots, own in images.items()
    }
    return Counting(found, ITEMS)
