"""Thresholds for a production line, chosen on held-out normal training images alone: never on test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from augbench.metrics.detection import threshold_for_false_alarms
from augbench.metrics.inference import share_interval

RATES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""False positive rates that are offered where the held-out images are enough to allow one of them."""


ROUNDING = 1e-4
"""Share of a threshold, or of 1 below 1, by which it is raised: a graph's scores differ from torch's by rounding, which
must not lift a held-out image above its threshold."""


@dataclass(frozen=True)
class Threshold:
    """A threshold: an image is called a defect if its logit is at least ``logit``."""

    rate: float  # of the held-out normal images that may lie above it; 0: none
    above: int  # of them that do
    heldout: int
    interval: tuple[float, float]  # 95 %, of the false positive rate, over held-out items
    logit: float  # above the score of the held-out image that decides it by `ROUNDING`

    def as_dict(self, name: str) -> dict[str, Any]:
        """Return JSON values; ``name`` is that of the score: ``logit``, which has a probability, or ``distance``."""
        probability = {"probability": float(1 / (1 + np.exp(-self.logit)))} if name == "logit" else {}
        return {
            "false_positive_rate": self.rate,
            "above": self.above,
            "heldout_images": self.heldout,
            "interval": list(self.interval),
            name: self.logit,
            **probability,
        }


def thresholds_of(scores: pd.DataFrame, rate: float) -> list[Threshold]:
    """Return the thresholds that the held-out images support, that of the protocol's ``rate`` first.

    A rate is supported if it allows at least one held-out image; else its threshold is that of rate 0, above all.

    Args:
        scores: a score table of detection, see `metrics.evaluate`.
        rate: the false positive rate of the protocol.

    Returns:
        None of two allow the same images. Empty where nothing was held out.
    """
    heldout = scores[scores["part"] == "heldout"]
    if heldout.empty:
        return []
    found: dict[int, Threshold] = {}
    for one in (rate, *(other for other in (*RATES, 0.0) if other != rate)):
        allowed = int(one * len(heldout) + 1e-9)
        if allowed in found:
            continue
        logit = threshold_for_false_alarms(heldout["logit"].to_numpy(), one)
        logit += ROUNDING * max(1.0, abs(logit))
        above = int((heldout["logit"].astype(np.float64) >= logit).sum())
        interval = share_interval(above / len(heldout), heldout["group"].nunique())
        found[allowed] = Threshold(one if allowed else 0.0, above, len(heldout), interval, logit)
    first, *others = found.values()
    return [first, *sorted(others, key=lambda one: -one.rate)]
