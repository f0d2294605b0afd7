"""The cost of table rows, and the rows that are Pareto-optimal in metric and cost.

The cost of a row is what one of its classifiers needs before training: its augmenter's search, class images and
adaptation, each once, and generating N_aug images of one pool, at that pool's seconds per image. All are seconds of one
worker, averaged over the row's cells. A part that other classifiers share (an adapter serves all seeds and all N_aug)
counts in full, since a single classifier needs all of it. Training time is reported separately: it is equal for all
augmenters where a protocol fixes the number of samples per epoch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from augbench.report.evidence.lineage import Lineage, Lineages
from augbench.report.evidence.part_costs import MadePart, read_costs
from augbench.storage.store import Kind, Store

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


@dataclass(frozen=True)
class CostItem:
    """The cost of one part behind a cell."""

    kind: Kind
    key: str | None  # of the part
    seconds: float | None  # None: not on record


def cost_items(lineage: Lineage, parts: Mapping[str, MadePart]) -> Iterator[CostItem]:
    """Yield the cost of every part behind a cell: pool slices, searches, adapters, class images, each part once.

    Args:
        lineage: the cell's lineage.
        parts: the costs on record, see `part_costs.read_costs`.
    """
    for pool, n in lineage.pools:
        part = parts.get(pool) if pool else None
        each = part.seconds_per_image if part else None
        yield CostItem("pools", pool, None if each is None else each * n)
    shared: set[str] = set()
    for kind, keys in (("searches", lineage.searches), ("adapters", lineage.adapters)):
        for key in keys:
            part = parts.get(key)
            yield CostItem(kind, key, part.own_seconds if part else None)
            shared |= set((part and part.shared) or ())
    for key in sorted(shared):
        yield CostItem("shared", key, parts[key].seconds if key in parts else None)


class Spending:
    """Computes the cost of cells from the recorded costs of a store's parts."""

    def __init__(self, store: Store, keys: Sequence[str]) -> None:
        """Read the costs of a store; ``keys`` are the cells that `of` will be called with."""
        self._parts = read_costs(store)
        lineages = Lineages(self._parts)
        self._lineage = {record["key"]: lineages.of(record) for record in store.read_records(sorted(keys))}

    def of(self, keys: Sequence[str]) -> RowCost | None:
        """Return the cost of a row with these cells; None where that of one of them is not on record."""
        costs = [self._cell(self._lineage[key]) for key in keys]
        if not costs or None in costs:
            return None
        names = ("search", "class_pictures", "adapting", "generating")
        means = {name: fsum(getattr(cost, name) for cost in costs) / len(costs) for name in names}
        devices = tuple(sorted({device for cost in costs for device in cost.devices}))
        return RowCost(**means, devices=devices, told_apart=all(cost.told_apart for cost in costs))

    def inferred(self, keys: Sequence[str]) -> int:
        """Count the cells whose lineage is not in their record."""
        return sum(self._lineage[key].inferred for key in keys)

    def _cell(self, lineage: Lineage) -> RowCost | None:
        seconds: dict[str, float] = defaultdict(float)
        devices = set()
        for item in cost_items(lineage, self._parts):
            if item.seconds is None or item.key is None:
                return None
            seconds[item.kind] += item.seconds
            if item.kind != "shared":  # their device is not recorded; an adapter made them
                devices.add(self._parts[item.key].device)
        return RowCost(
            search=seconds["searches"],
            class_pictures=seconds["shared"],
            adapting=seconds["adapters"],
            generating=seconds["pools"],
            devices=tuple(sorted(devices)),
            told_apart=all(self._parts[key].shared is not None for key in lineage.adapters),
        )


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
