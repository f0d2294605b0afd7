"""Tables of many datasets -> average ranks of augmenters, from `FEWEST_DATASETS` datasets on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from statistics import fmean

import numpy as np

from augbench.metrics.inference import FEWEST_DATASETS, Ranks, average_ranks
from augbench.report.evidence.build import Evidence

Means = dict[str, dict[str, list[float]]]  # dataset -> augmenter -> mean of the headline metric in each of its rows


@dataclass(frozen=True)
class Ranking:
    """The ranking of augmenters under one protocol and shots."""

    protocol: str
    shots: int | str
    metric: str
    datasets: tuple[str, ...]  # datasets that have all of the augmenters
    augmenters: tuple[str, ...]
    ranks: Ranks | None  # None: too few datasets or augmenters
    collapsed: int = 0  # runs behind it whose classifier has collapsed


def rankings(evidence: Sequence[Evidence]) -> list[Ranking]:
    """Rank augmenters for each protocol and shots, in the order of the tables.

    A dataset counts once, with the mean over its rows with N_aug > 0 (for ``none``, its only row) and over its folds.
    Only complete rows count, and only augmenters that most datasets have. Datasets that lack one of these are left out.
    """
    found: dict[tuple[str, int | str, str], Means] = {}
    collapsed: Counter[tuple[str, int | str, str]] = Counter()
    for one in evidence:
        table = one.table
        where = table.protocol, table.shots, one.headline
        collapsed[where] += sum(len(row.collapsed) for row in one.rows)
        means = found.setdefault(where, {}).setdefault(table.dataset, {})
        for row in one.rows:
            value = row.intervals[one.headline].estimate
            if not row.incomplete and not isnan(value):
                means.setdefault(row.augmenter, []).append(value)
    return [replace(_ranking(*where, means), collapsed=collapsed[where]) for where, means in found.items()]


def _ranking(protocol: str, shots: int | str, metric: str, means: Means) -> Ranking:
    every = dict.fromkeys(name for of in means.values() for name in of)
    augmenters = tuple(name for name in every if 2 * sum(name in of for of in means.values()) > len(means))
    datasets = tuple(dataset for dataset, of in means.items() if all(name in of for name in augmenters))
    ranks = None
    if len(datasets) >= FEWEST_DATASETS and len(augmenters) > 1:
        ranks = average_ranks(np.array([[fmean(means[d][name]) for name in augmenters] for d in datasets]))
    return Ranking(protocol, shots, metric, datasets, augmenters, ranks)


def missing_ranks_note(found: Sequence[Ranking]) -> str:
    """Explain why there are no average ranks; "" where there are some."""
    if any(one.ranks for one in found):
        return ""
    most = max((len(one.datasets) for one in found), default=0)
    return (
        f"No average ranks and no critical-difference diagram: they need {FEWEST_DATASETS} datasets with the same "
        f"augmenters, protocol and shots; here the most are {most}."
    )
