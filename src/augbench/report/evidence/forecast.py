"""What a plan will be able to say, and how long it takes: from the plan, and from what its store holds already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from math import isnan
from statistics import median
from typing import Any

import pandas as pd

from augbench.metrics.inference import FEWEST_RUNS, smallest_difference
from augbench.metrics.resampling import Interval, welch
from augbench.planning.outline import expected_of
from augbench.planning.plan import Plan
from augbench.planning.remaining import Remaining
from augbench.report.evidence.build import baseline_among, build_evidence
from augbench.report.evidence.part_costs import read_costs
from augbench.report.evidence.sheets import NAMES
from augbench.report.frame import expected_frame, load_records, with_audits
from augbench.report.numbers import seconds_text, share, shots_text
from augbench.report.runs import runs_of
from augbench.storage.store import Store

RESAMPLES = 200  # a standard error needs few
MOST_RUNS, MOST_DRAWS = 16, 8  # of a row that are read for it
MOST_RECORDS = 200  # that are read for the time of a training
AXES = {"draw": "draw", "seed": "seed", "adapter": "adapter_seed", "fold": "fold"}
"""Sources of variance that more of them shrink -> the axis of a cell."""


def forecast(plan: Plan, remaining: Remaining, store: Store) -> list[str]:
    """Say which rows will have too few runs for a verdict, the smallest differences that will show, and the time left.

    Raises:
        UserError: a damaged record.
    """
    expected = expected_frame(expected_of(plan))
    done = store.keys("cells") & set(expected["key"]) if store.exists() else set()
    return [*_too_few(expected), *_smallest(store, expected, done), *_time_left(remaining, store, done)]


def _rows(expected: pd.DataFrame) -> dict[tuple[Any, ...], list[Any]]:
    found: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    for cell in expected.itertuples(index=False):
        found[cell.dataset, cell.protocol, cell.shots, cell.augmenter, cell.n_aug].append(cell)
    return found


def _too_few(expected: pd.DataFrame) -> Iterator[str]:
    """Name the rows that will read "too few runs to say"."""
    keys = set(expected["key"])
    few: dict[int, dict[str, None]] = defaultdict(dict)
    for (_, _, shots, augmenter, _), cells in _rows(expected).items():
        runs = len(runs_of(cells, keys).complete)
        is_random = any((cell.draw, cell.seed, cell.test_share) != (None, None, None) for cell in cells)
        if runs < FEWEST_RUNS and is_random:
            few[runs][f"{augmenter} at {shots_text(shots)}"] = None
    for runs, names in sorted(few.items()):
        rows = ", ".join(list(names)[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield f"no verdict with {runs} run{'s' * (runs != 1)} ({rows}): give {FEWEST_RUNS} or more seeds or draws"


def _smallest(store: Store, expected: pd.DataFrame, done: Collection[str]) -> Iterator[str]:
    """Yield for each table with two finished rows the smallest difference that it will show with power `POWER`."""
    if not done:
        yield "which differences would show: not known before some cells are done"
        return
    for (dataset, protocol, shots), table in expected.groupby(["dataset", "protocol", "shots"], sort=False):
        if (pair := _pair(table, done)) is None:
            continue
        found = build_evidence(store, with_audits(store, pair), load_records(store, pair["key"]), resamples=RESAMPLES)
        one = next((one for each in found for one in each.against if not isnan(one.alone.error)), None)
        if one is None:
            continue
        row = dataset, protocol, shots, one.augmenter, one.n_aug
        scale, freedom = _planned(one.alone, _rows(pair)[row], _rows(table)[row])
        rows = len({(cell.augmenter, cell.n_aug) for cell in table.itertuples()} - {(one.versus, one.versus_n_aug)})
        value = smallest_difference(one.alone.parts, freedom, rows, scale)
        which = f"differences above {share(value)} {NAMES[found[0].headline]} will show four times out of five"
        yield f"{dataset}, {shots_text(shots)}, {protocol}: {which}"


def _planned(found: Interval, done: Sequence[Any], planned: Sequence[Any]) -> tuple[dict[str, float], float]:
    """Return what more cells make of an interval: source -> factor of its variance; degrees of freedom of the sum.

    Args:
        found: the difference over the finished cells.
        done: these cells of the row.
        planned: all of its cells.
    """
    scale, freedoms, folds = {}, dict(found.freedoms), len({cell.fold for cell in planned})
    for name in found.parts.keys() & AXES.keys():
        before, after = (len({(cell.fold, getattr(cell, AXES[name])) for cell in cells}) for cells in (done, planned))
        scale[name], freedoms[name] = before / after, after - (1 if name == "fold" else folds)
    return scale, welch({name: error**2 * scale.get(name, 1) for name, error in found.parts.items()}, freedoms)


def _pair(table: pd.DataFrame, done: Collection[str]) -> pd.DataFrame | None:
    """Return finished cells of the baseline and of the row that has most of them; None where there are not two rows.

    Of many runs some are enough: as many of each draw.
    """
    rows = {(name[3], name[4]): cells for name, cells in _rows(table[table["key"].isin(done)]).items()}
    baseline = baseline_among({augmenter for augmenter, _ in rows})
    others = [row for row in rows if row[0] != baseline]
    if not baseline or not others:
        return None
    longest = max(others, key=lambda row: (len(rows[row]), row[1]))
    runs: dict[Any, list[list[Any]]] = defaultdict(list)
    for run in runs_of(rows[longest], done).complete:
        runs[run[0].draw].append(run)
    some = list(runs.values())[:MOST_DRAWS]
    chosen = [cell for own in some for run in own[: MOST_RUNS // len(some)] for cell in run]
    draws = {cell.draw for cell in chosen}
    base = [cell for row, cells in rows.items() if row[0] == baseline for cell in cells if cell.draw in {*draws, None}]
    keys = {cell.key for cell in (*chosen, *base)}
    return table[table["key"].isin(keys)].reset_index(drop=True) if chosen else None


def _time_left(remaining: Remaining, store: Store, done: Collection[str]) -> Iterator[str]:
    """Yield how much work is left, by what the finished part took."""
    if not done or remaining.nothing:
        return
    trainings = len(remaining.cells) * median(load_records(store, sorted(done)[:MOST_RECORDS])["seconds"])
    each = [part.seconds_per_image for part in read_costs(store).values() if part.kind == "pools" and part.pictures]
    images = remaining.images * median([one for one in each if one is not None] or [0.0])
    unknown = "" if each or not remaining.images else ", without the images, whose cost is not known yet"
    yield f"work left: about {seconds_text(trainings + images)} s of one worker{unknown}"
