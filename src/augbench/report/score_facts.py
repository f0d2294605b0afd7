"""What the stored scores of cells say that records do not: whether a run has collapsed, and on how few items it is."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from augbench.core.contracts import GOOD
from augbench.metrics.collapse import collapsed
from augbench.storage.scores import evaluated_part
from augbench.storage.store import Store


@dataclass(frozen=True)
class ScoreFacts:
    """The facts of one cell; None where it has no scores, or damaged ones, which ``augbench store check`` names."""

    collapsed: bool | None = None  # see `metrics.collapse`
    items: int | None = None  # test items of the kind, normal or with a defect, that has fewer


def score_facts(store: Store, keys: Sequence[str], splits: Sequence[Hashable]) -> Iterator[ScoreFacts]:
    """Yield the facts of these cells, in their order, reading each score table once.

    Args:
        store: the store with the scores.
        keys: keys of cells.
        splits: what names the test images of each cell: cells with equal ones share the number of items.
    """
    items: dict[Hashable, int] = {}
    contents = store.files.read_many([store.name("scores", key) for key in keys])
    for split, data in zip(splits, contents, strict=True):
        try:
            logits = evaluated_part(data or b"", "logit")
            if split not in items:
                items[split] = _fewest(*evaluated_part(data or b"", "group", "label").T)
        except ValueError:
            yield ScoreFacts()
        else:
            yield ScoreFacts(collapsed(logits), items[split])


def _fewest(groups: np.ndarray, labels: np.ndarray) -> int:
    """Count physical items with and without a defect image; return the smaller count that is not 0."""
    defective = np.unique(groups[labels != GOOD])
    normal = np.setdiff1d(groups, defective)
    return min((len(items) for items in (normal, defective) if len(items)), default=0)
