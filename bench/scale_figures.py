"""The figures of bench/scale.py, computed from the workers' times and samples of the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Any

import numpy as np

BEGAN, SLEPT, EVALUATED, COMMITTED, USED = range(5)  # columns of `sleeping.noted`


@dataclass(frozen=True)
class Seen:
    """A sample of the driver's process."""

    at: float  # Unix seconds
    megabytes: float  # resident memory
    cpu: float  # CPU seconds since its start


@dataclass(frozen=True)
class Driven:
    """Times that the driver's process measured itself."""

    began: float  # Unix seconds, at the call of `run`
    ended: float
    steps: Mapping[str, float]  # seconds of its steps
    cpu: float  # CPU seconds of `run`


def ideal(cells: int, slots: int, seconds: float) -> float:
    """Return the ideal seconds, without overhead: ceil(cells / slots) x seconds."""
    return ceil(cells / slots) * seconds


def gaps(slots: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return the seconds between consecutive cells of the same slot, for all slots."""
    return np.concatenate([times[1:, BEGAN] - times[:-1, COMMITTED] for times in slots.values()])


def at(seen: Sequence[Seen], moment: float, what: str) -> float:
    """Interpolate a figure of the driver linearly between samples."""
    return float(np.interp(moment, [look.at for look in seen], [getattr(look, what) for look in seen]))


def per_cells(committed: np.ndarray, step: int) -> list[float]:
    """Return the seconds of each ``step`` cells, by commit time."""
    return np.diff(np.sort(committed)[::step]).tolist()


def figures(
    slots: Mapping[int, np.ndarray], seen: Sequence[Seen], driven: Driven, workers: int, seconds: float
) -> dict[str, Any]:
    """Compute the figures of the table.

    Args:
        slots: process -> its cells, as `sleeping.noted` returns them.
        seen: samples of the driver.
        driven: the driver's own times.
        workers: slots of the cluster.
        seconds: sleep of a cell.
    """
    times = np.concatenate(list(slots.values()))
    committed, cells = np.sort(times[:, COMMITTED]), len(times)
    wall, least = driven.ended - driven.began, ideal(cells, workers, seconds)
    tenth, last = committed[cells // 10], committed[-1]
    at_tenth, at_last = (at(seen, moment, "megabytes") for moment in (tenth, last))
    while_cells = at(seen, last, "cpu") - at(seen, tenth, "cpu")
    between, work = gaps(slots), times[:, COMMITTED] - times[:, BEGAN] - seconds
    firsts = np.array([cells[0, BEGAN] for cells in slots.values()]) - driven.began
    ends = np.array([cells[-1, COMMITTED] for cells in slots.values()])
    step = 500 if cells >= 2500 else max(1, cells // 6)
    middle = [float(value) for value in (np.median(between), np.percentile(between, 95))] if len(between) else [0, 0]
    return {
        "cells": cells,
        "slots": workers,
        "seconds of a cell": seconds,
        "ideal, seconds": least,
        "measured, seconds": wall,
        "efficiency": least / wall,
        "workers that worked": len(slots),
        "first cell after, seconds": float(firsts.min()),
        "last worker's first cell after, seconds": float(firsts.max()),
        "a worker's first cell after, mean, seconds": float(firsts.mean()),
        "gap between two cells, median, seconds": middle[0],
        "gap between two cells, 95 %, seconds": middle[1],
        "metrics and store, median, seconds per cell": float(np.median(work)),
        "tail, seconds that a slot idled, mean": float((last - ends).mean()),
        "end, seconds from the last cell on": driven.ended - float(last),
        "driver, MB at the start": at(seen, driven.began, "megabytes"),
        "driver, MB at 10 %": at_tenth,
        "driver, MB at the end": at_last,
        "driver, MB per cell": (at_last - at_tenth) / (cells - cells // 10),
        "driver, CPU seconds": driven.cpu,
        "driver, CPU seconds per cell": while_cells / (cells - cells // 10),
        "worker, CPU seconds before its first cell": float(np.median([cells[0, USED] for cells in slots.values()])),
        f"seconds of each {step} cells": [round(value, 1) for value in per_cells(committed, step)],
        "seconds of steps": dict(driven.steps),
    }


def predicted(found: Mapping[str, float], cells: int) -> float:
    """Predict the efficiency for another number of cells, with the measured start, end and overhead per cell."""
    start, end = found["a worker's first cell after, mean, seconds"], found["end, seconds from the last cell on"]
    each = found["gap between two cells, median, seconds"] + found["metrics and store, median, seconds per cell"]
    rounds = ceil(cells / found["slots"])
    seconds = found["seconds of a cell"]
    return rounds * seconds / (start + rounds * (seconds + each) + end)


def slope(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Return the exponent of a cost's growth between the two largest sizes; 1: linear."""
    (n, a), (m, b) = sorted(zip(sizes, costs, strict=True))[-2:]
    return log(b / a) / log(m / n)
