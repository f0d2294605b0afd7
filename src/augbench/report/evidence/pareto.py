"""The cost of table rows, and the rows that are Pareto-optimal in metric and cost.

The cost of a row is what one of its classifiers needs before training: its augmenter's search, class images and
adaptation, each once, and generating N_aug images of one pool, at that pool's seconds per image. All are seconds of one
worker, averaged over the row's cells. A part that other classifiers share (an adapter serves all seeds and all N_aug)
counts in full, since a single classifier needs all of it. Training time is reported separately: it is equal for all
augmenters where a protocol fixes the number of samples per epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from augbench.core.specs import PoolSpec, SearchSpec
from augbench.report.evidence.part_costs import MadePart, read_costs
from augbench.report.evidence.pool_slices import PoolIndex, plugin_of, slices_of
from augbench.storage.store import Store

DEFINITION = (
    "Seconds of one worker for what one classifier needs before training: search, class images and adaptation, each in "
    "full though other classifiers may share it, and generating N_aug images. Training is not included."
)


@dataclass(frozen=True)
class RowCost:
    """The cost of a row in seconds, averaged over its cells."""

    search: float = 0.0
    class_pictures: float = 0.0
    adapting: float = 0.0
    generating: float = 0.0
    devices: tuple[str, ...] = ()  # devices; "" where one is unknown
    told_apart: bool = True  # False: seconds of class images, if any, may be included in `adapting`

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return self.search + self.class_pictures + self.adapting + self.generating


class Spending:
    """Computes the cost of cells from the recorded costs of a store's parts."""

    def __init__(self, store: Store, keys: Sequence[str]) -> None:
        """Read the costs of a store; ``keys`` are the cells that `of` will be called with."""
        self._specs = {record["key"]: record["spec"] for record in store.read_records(sorted(keys))}
        self._parts = read_costs(store)
        pools = [
            (PoolSpec.from_dict(part.spec), part)
            for _, part in sorted(self._parts.items())
            if part.kind == "pools" and part.spec is not None
        ]
        self._pools = PoolIndex((pool, (pool, part)) for pool, part in pools)

    def of(self, keys: Sequence[str]) -> RowCost | None:
        """Return the cost of a row with these cells; None where that of one of them is not on record."""
        costs = [self._cell(self._specs[key]) for key in keys]
        known = [cost for cost in costs if cost is not None]
        if not known or len(known) < len(costs):
            return None
        names = ("search", "class_pictures", "adapting", "generating")
        means = {name: fsum(getattr(cost, name) for cost in known) / len(known) for name in names}
        devices = tuple(sorted({device for cost in known for device in cost.devices}))
        return RowCost(**means, devices=devices, told_apart=all(cost.told_apart for cost in known))

    def _cell(self, spec: Mapping[str, Any]) -> RowCost | None:
        images = spec["n_aug"] * max(len(spec["data"]["classes"]), 1)
        total = RowCost()
        for augmenter, share in slices_of(spec["augmenter"]) if images else ():
            part = self._slice_cost(spec, augmenter, share * images)
            if part is None:
                return None
            total = _sum(total, part)
        return total

    def _slice_cost(self, spec: Mapping[str, Any], augmenter: str, images: float) -> RowCost | None:
        """Return the cost of a number of images of one pool, with its search and adaptation."""
        found = self._pools.find(spec, augmenter)
        if found is None:
            return None
        pool, made = found
        plugin = plugin_of(pool)
        search, adapter = self._parts.get(SearchSpec(pool.adapter).key), self._parts.get(pool.adapter.key)
        if (adapter is None and (plugin is None or plugin.learns)) or (
            search is None and (plugin is None or plugin.candidates())
        ):
            return None
        known = [part for part in (search, adapter, made) if part is not None]
        class_images = self._class_images(adapter)
        if class_images is None or any(part.seconds is None for part in known):
            return None
        return RowCost(
            search=(search.seconds or 0.0) if search else 0.0,
            class_pictures=class_images,
            adapting=(adapter.own_seconds or 0.0) if adapter else 0.0,
            generating=(made.seconds or 0.0) / (made.pictures or 1) * images,
            devices=tuple(sorted({part.device for part in known})),
            told_apart=adapter is None or adapter.shared is not None,
        )

    def _class_images(self, adapter: MadePart | None) -> float | None:
        """Return the seconds of the shared parts that an adapter uses; None where they are not on record."""
        seconds = [
            self._parts[key].seconds if key in self._parts else None for key in (adapter and adapter.shared) or ()
        ]
        return None if None in seconds else fsum(second or 0.0 for second in seconds)


def efficient(rows: Sequence[tuple[RowCost | None, float, bool]]) -> list[bool]:
    """Find the Pareto-optimal rows: no other row is at least as good and as cheap, and better in one of the two.

    Args:
        rows: cost (None: not on record), mean of the metric, and whether the row is complete. Rows that are incomplete
            or whose cost is unknown are left out. No row is marked where fewer than two remain.

    Returns:
        One bool per row.
    """
    known = [(cost.total, value) for cost, value, complete in rows if cost is not None and complete]
    return [
        cost is not None
        and complete
        and len(known) > 1
        and not any(c <= cost.total and v >= value and (c, v) != (cost.total, value) for c, v in known)
        for cost, value, complete in rows
    ]


def _sum(a: RowCost, b: RowCost) -> RowCost:
    return RowCost(
        a.search + b.search,
        a.class_pictures + b.class_pictures,
        a.adapting + b.adapting,
        a.generating + b.generating,
        tuple(sorted({*a.devices, *b.devices})),
        a.told_apart and b.told_apart,
    )
