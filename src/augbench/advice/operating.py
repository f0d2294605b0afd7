"""What a classifier does at thresholds that can be set in production: misses, false alarms, recall of each class.

A threshold is chosen on held-out normal images alone. What it does is measured on the test images, over all folds and
runs; no threshold is ever chosen on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import pandas as pd

from augbench.advice.decide import Advice, Option
from augbench.advice.understand import Understood
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.metrics.detection import threshold_for_false_alarms
from augbench.metrics.inference import RULE_OF_THREE, share_interval
from augbench.report.frame import load_records
from augbench.report.leaderboard.misclassified import beyond
from augbench.report.table_notes import plural
from augbench.storage.scores import scores_frame
from augbench.storage.store import Store

FEW = 50  # images of a class; with more, it is not found for want of others, or it is hard to see
PARTS = 1000


@dataclass(frozen=True)
class Production:
    """What the user states about the parts that will be inspected.

    Raises:
        UserError: a number is out of its range, or one cost is given without the other.
    """

    defect_rate: float | None = None  # share of parts with a defect; None: as in the folder
    miss_cost: float | None = None
    false_alarm_cost: float | None = None

    def __post_init__(self) -> None:
        if self.defect_rate is not None and not 0 < self.defect_rate < 1:
            raise UserError(
                f"--defect-rate {self.defect_rate:g}: give the share of parts with a defect, above 0 and below 1 (0.02)"
            )
        costs = {"--miss-cost": self.miss_cost, "--false-alarm-cost": self.false_alarm_cost}
        for name, cost in costs.items():
            if cost is not None and not 0 <= cost < inf:
                raise UserError(f"{name} {cost:g}: a cost is a number, 0 or more")
        if len(missing := [name for name, cost in costs.items() if cost is None]) == 1:
            raise UserError(f"{missing[0]} is missing: give both costs, or none")


@dataclass(frozen=True)
class Share:
    """A share of test images, mean over runs, with its 95 % interval over items."""

    value: float
    images: int
    items: int
    low: float
    high: float

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Share:
        """Return the share that is positive, of predictions of test images: of each image one for each run."""
        value, items = float(beyond(rows, 1).mean()), rows["group"].nunique()
        return cls(value, rows["id"].nunique(), items, *share_interval(value, items))


@dataclass(frozen=True)
class Point:
    """A threshold of an option, and what it does."""

    option: str
    rate: float  # of the held-out normal images that may lie above the threshold; 0: none
    heldout: int  # normal images that a threshold was chosen on: the fewest of a fold
    recall: Share  # of images with a defect
    false_positives: Share  # of normal images

    @property
    def where(self) -> str:
        """Where the threshold is."""
        images = plural(self.heldout, "held-out normal image")
        return (
            f"above {'all ' * (self.heldout > 1)}{images}"
            if not self.rate
            else f"above {percent(1 - self.rate)} of {images}"
        )

    @property
    def lowest(self) -> float:
        """Lowest false positive rate that the held-out images alone can show."""
        return min(1.0, RULE_OF_THREE / self.heldout)

    def misses(self, defect_rate: float) -> float:
        """Return the defects that are missed among `PARTS` parts."""
        return PARTS * defect_rate * (1 - self.recall.value)

    def false_alarms(self, defect_rate: float) -> float:
        """Return the normal parts that are called defective among `PARTS` parts."""
        return PARTS * (1 - defect_rate) * self.false_positives.value


@dataclass(frozen=True)
class DefectClass:
    """A class of defects."""

    name: str
    images: int  # in the folder
    recall: Share
    others: Share  # recall of the other classes together


@dataclass(frozen=True)
class Operation:
    """What is to be expected in production, of the best option and of no synthetic images."""

    points: list[Point]  # of the best option first, its lowest threshold first
    classes: list[DefectClass]  # of the best option at its first point, the least found first
    defect_rate: float
    is_stated: bool  # the defect rate: by the user
    costs: tuple[float, float] | None  # of a miss and of a false alarm
    predictions: pd.DataFrame = field(repr=False)  # of the test images by the best option at its first point

    @property
    def rate_text(self) -> str:
        """The defect rate, and where it is from."""
        source = "as stated" if self.is_stated else "as in the folder; --defect-rate states another"
        return f"{percent(self.defect_rate)} with a defect, {source}"

    def cost(self, point: Point) -> float:
        """Return the expected cost of `PARTS` parts; needs costs."""
        assert self.costs is not None
        return self.costs[0] * point.misses(self.defect_rate) + self.costs[1] * point.false_alarms(self.defect_rate)

    @property
    def cheapest(self) -> Point | None:
        """The point of the lowest expected cost; None without costs."""
        return min(self.points, key=self.cost) if self.costs else None

    def sentences(self) -> list[str]:
        """Say what is missed and rejected, what that costs, and which class to collect."""
        return [*filter(None, (self._at_work(), self._costs(), class_sentence(self.classes)))]

    def _at_work(self) -> str:
        option = self.points[0].option
        found = "; ".join(
            f"{self.misses_text(point)} misses and {self.alarms_text(point)} false alarms at a threshold {point.where}"
            for point in self.points
            if point.option == option
        )
        return f"To expect of {PARTS:,} parts ({self.rate_text}) with {option}: {found}."

    def misses_text(self, point: Point) -> str:
        """Format the misses among `PARTS` parts; where none was seen, how many that can mean."""
        if point.recall.value < 1:
            return number_text(point.misses(self.defect_rate))
        most, items = PARTS * self.defect_rate * (1 - point.recall.low), point.recall.items
        return f"0 (0 of {plural(items, 'item')} with a defect show only: below {number_text(most)})"

    def alarms_text(self, point: Point) -> str:
        """Format the false alarms among `PARTS` parts; where none was seen, how many that can mean."""
        if point.false_positives.value:
            return number_text(point.false_alarms(self.defect_rate))
        most = PARTS * (1 - self.defect_rate) * point.false_positives.high
        return f"0 (0 of {point.false_positives.items} normal items show only: below {number_text(most)})"

    def _costs(self) -> str:
        if self.costs is None or self.cheapest is None:
            return ""
        point, cost, passing = self.cheapest, self.cost(self.cheapest), PARTS * self.defect_rate * self.costs[0]
        text = f"Expected cost per {PARTS:,} parts: {number_text(cost)} with {point.option}, threshold {point.where}"
        if others := [number_text(self.cost(other)) for other in self.points if other is not point]:
            text += f" (the cheapest; otherwise {', '.join(others)})"
        unseen = {"miss": point.recall.value == 1, "false alarm": point.false_positives.value == 0}
        if names := [name for name, none in unseen.items() if none]:
            text += f"; no {' and no '.join(names)} was seen, so it may be more"
        passing_text = f"{number_text(passing)}{', which is less' if passing < cost else ''}"
        return f"{text}; letting every part pass costs {passing_text}."

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "defect_rate": self.defect_rate,
            "defect_rate_is_stated": self.is_stated,
            "points": [
                {
                    "option": point.option,
                    "rate_on_heldout": point.rate,
                    "heldout": point.heldout,
                    "lowest_rate_shown_by_heldout": point.lowest,
                    "recall": _dict(point.recall),
                    "false_positive_rate": _dict(point.false_positives),
                    "misses_per_1000": point.misses(self.defect_rate),
                    "false_alarms_per_1000": point.false_alarms(self.defect_rate),
                    "cost_per_1000": None if self.costs is None else self.cost(point),
                }
                for point in self.points
            ],
            "classes": [{"name": one.name, "images": one.images, "recall": _dict(one.recall)} for one in self.classes],
            "collect": self.classes[0].name if stands_out(self.classes) and self.classes[0].images < FEW else None,
        }


def operate(store: Store, advice: Advice, understood: Understood, production: Production) -> Operation | None:
    """Find the operating points of the best option and of no synthetic images, and the recall of each class.

    Returns:
        None where no normal images are held out, so that there is nothing to choose a threshold on.
    """
    points: list[Point] = []
    first = pd.DataFrame()
    for option in {one.name: one for one in (advice.best, advice.none)}.values():
        cells, rate = _cells(store, option)
        for one in _rates(cells, rate):
            predictions = at_threshold(cells, one)
            first = first if points else predictions
            points.append(_point(option.name[0], one, cells, predictions))
    if not points:
        return None
    defects = len(understood.table) - understood.normal
    costs = production.miss_cost, production.false_alarm_cost
    return Operation(
        points=points,
        classes=recall_by_class(first, understood.classes),
        defect_rate=production.defect_rate or defects / max(understood.of, len(understood.table)),
        is_stated=production.defect_rate is not None,
        costs=None if None in costs else costs,
        predictions=first,
    )


def _cells(store: Store, option: Option) -> tuple[list[pd.DataFrame], float]:
    """Return the scores of an option's cells, and the false positive rate of their protocol; none without a rate."""
    rates = load_records(store, option.keys)["false_alarm_rate"]
    if rates.isna().any():
        return [], 0.0
    names = [store.name("scores", key) for key in option.keys]
    return [scores_frame(data) for data in store.files.read_many(names) if data is not None], float(rates.iloc[0])


def _rates(cells: Sequence[pd.DataFrame], rate: float) -> list[float]:
    """Return the false positive rates to choose thresholds for: ``rate`` where it allows any image, and 0."""
    if not cells:
        return []
    return [rate, 0.0] if any(int(rate * _heldout(scores) + 1e-9) for scores in cells) else [0.0]


def _heldout(scores: pd.DataFrame) -> int:
    return int((scores["part"] == "heldout").sum())


def at_threshold(cells: Sequence[pd.DataFrame], rate: float) -> pd.DataFrame:
    """Predict the test images of each cell at a threshold chosen on its held-out normal images.

    Args:
        cells: score tables, see `metrics.evaluate`.
        rate: the false positive rate on held-out images.

    Returns:
        ``id``, ``label``, ``group`` and ``margin`` (>= 0: positive) of the test images of all cells.
    """
    parts = []
    for scores in cells:
        heldout, test = (scores[scores["part"] == part] for part in ("heldout", "test"))
        threshold = threshold_for_false_alarms(heldout["logit"].to_numpy(), rate)
        margin = test["logit"].astype(np.float64) - threshold
        parts.append(test[["id", "label", "group"]].assign(margin=margin))
    return pd.concat(parts, ignore_index=True)


def _point(option: str, rate: float, cells: Sequence[pd.DataFrame], predictions: pd.DataFrame) -> Point:
    normal = predictions["label"] == GOOD
    heldout = min(map(_heldout, cells))
    return Point(option, rate, heldout, Share.of(predictions[~normal]), Share.of(predictions[normal]))


# -- classes


def recall_by_class(predictions: pd.DataFrame, images: Mapping[str, int]) -> list[DefectClass]:
    """Return the recall of each class of defects, the least found first; none where there is one class only.

    Args:
        predictions: as `at_threshold` returns them.
        images: number of images of each class in the folder.
    """
    defects = predictions[predictions["label"] != GOOD]
    if defects["label"].nunique() < 2:
        return []
    found = [
        DefectClass(name, images[name], Share.of(rows), Share.of(defects[defects["label"] != name]))
        for name, rows in defects.groupby("label")
    ]
    return sorted(found, key=lambda one: (one.recall.value, one.images, one.name))


def stands_out(classes: Sequence[DefectClass]) -> bool:
    """Whether the first class is found less than the others together, by more than the uncertainty of both.

    As the least of several is looked at, its interval alone would name one of five equal classes in one folder of ten.
    """
    return bool(classes) and classes[0].recall.high < classes[0].others.low


def class_sentence(classes: Sequence[DefectClass]) -> str:
    """Say which class to collect; "" without classes."""
    if not classes:
        return ""
    least = classes[0]
    found = f"{percent(least.recall.value)} of {plural(least.recall.images, 'image')} found"
    found += f", {percent(least.others.value)} of the others"
    if not stands_out(classes):
        return f"No class of defects stands out: the least found is {least.name}, {found}, which may be chance."
    if least.images >= FEW:
        return f"{least.name} stands out, {found}; it is not rare, so look at those that are missed before you collect."
    return f"Collect more of {least.name} next: {found}."


# -- texts


def percent(value: float) -> str:
    """Format a share for readers in a factory: ``29 %``, ``2.5 %``; 100 % of all alone."""
    number = 100 * value
    if 99.5 <= number < 100:
        return f"{min(number, 99.9):.1f} %"
    return f"{number:.0f} %" if number >= 10 or number == round(number) else f"{number:.2g} %"


def number_text(value: float) -> str:
    """Format an expected number of parts: ``104``, ``4.2``."""
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.2g}"


def _dict(one: Share) -> dict[str, Any]:
    return {"value": one.value, "low": one.low, "high": one.high, "images": one.images, "items": one.items}
