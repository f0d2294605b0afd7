"""Measure seconds and memory of planning a large grid and of reporting many records. Prints a table and a line of JSON.

    python bench/plan.py [--cells N] [--records N]

Every measurement runs in its own process. On Linux a process inherits the peak memory of its parent, so the parent
allocates nothing large: another process fills the store as well. The store is temporary and holds synthetic records of
realistic size, with curves of 50 epochs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
from rich.console import Console
from rich.table import Table

from augbench.core.specs import Cell
from augbench.planning.expected import expected_of
from augbench.planning.grid import Grid, make_grid
from augbench.planning.outline import outline_of
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.report import report
from augbench.storage.store import Store, json_bytes

SHOTS = [0, 1, 2, 5, 10, 20, "all"]
N_AUG = [20, 40, 60, 80, 100]
OPACITIES = 10  # aliases of memseg, one per opacity
EPOCHS = 50
PROTOCOL = {"name": "bench", "width": 64, "height": 176, "lr": 0.01, "batch": 5, "epochs": EPOCHS, "holdout": 0.1}
GOALS = {"plan": 5.0, "report": 10.0}  # seconds
MEMORY_GOAL = 1.0  # GB


def grid_of(cells: int) -> Grid:
    """Make a grid of about ``cells`` cells: shots x N_aug x memseg's aliases x seeds, and rows without augmentation."""
    memseg = [{"name": "memseg", "as": f"memseg_{i}", "settings": {"opacity": [0.05 * i, 1]}} for i in range(OPACITIES)]
    seeds = -(-cells // (len(SHOTS) * len(N_AUG) * OPACITIES + len(SHOTS) - 1))
    axes = {"shots": SHOTS, "n_aug": N_AUG, "seeds": list(range(seeds))}
    grid = {"name": "bench", "datasets": ["surfaces"], "augmenters": ["none", *memseg], "protocols": [PROTOCOL]}
    return make_grid(grid | axes)


def record_of(cell: Cell, rng: np.random.Generator) -> dict:
    """Make a record like the train job's, with random numbers."""
    numbers = rng.random(2 * EPOCHS + 16).tolist()
    at_threshold = dict(
        zip(("threshold", "precision", "recall", "f1", "accuracy", "false_alarm_rate"), numbers, strict=False)
    )
    curve = [{"epoch": epoch + 1, "ap": numbers[16 + epoch]} for epoch in range(EPOCHS)]
    result = {
        **dict(zip(("ap", "ap_step", "ap_trapezoidal", "auroc"), numbers[6:], strict=False)),
        "oracle": at_threshold,
        "heldout": at_threshold,
        "counts": dict.fromkeys(("train_negatives", "shots", "synthetic", "heldout_negatives", "test_negatives"), 100),
        "curves": {"loss": numbers[16 + EPOCHS :], "test": curve},
        "best_epoch_oracle": curve[0],
    }
    provenance = {
        "seconds": {"total": 60.0, "gather": 1.0, "judge": 9.0, "fit": 50.0},
        "images_per_second": 100.0,
        "embedded": ["dataset surfaces"],
        "device": "invented",
        "git_sha": "0" * 40,
        "versions": dict.fromkeys(("python", "augbench", "torch", "timm", "numpy", "scikit-learn", "ray"), "1.2.3"),
    }
    return {"schema": 1, "key": cell.key, "spec": cell.as_dict(), "result": result, "provenance": provenance}


def fill(cells: int, root: Path, count: int) -> dict:
    """Write ``count`` records, evenly spread over the plan, and the grid's listing."""
    plan, store = make_plan(grid_of(cells)), Store(root)
    rng = np.random.default_rng(0)
    for kind in ("cells", "scores"):
        (store.files.folder / kind).mkdir(parents=True)
    for cell in plan.cells[:: len(plan.cells) // count][:count]:
        path = store.files.folder / store.name("cells", cell.key)
        path.write_bytes(json_bytes(record_of(cell, rng)))  # faster than a flush for each
        (store.files.folder / store.name("scores", cell.key)).touch()  # a record without scores does not count
    known = {"grid": plan.grid.as_dict(), "cells": expected_of(plan), "outline": outline_of(plan).as_dict()}
    store.write_json("grids", "bench", known)
    return {}


def measure_plan(cells: int, root: Path) -> dict:
    """Measure planning, with keys and pool slices."""
    grid = grid_of(cells)
    seconds, plan = timed(lambda: make_plan(grid))
    return {"what": f"plan {len(plan.cells):,} cells", "seconds": seconds, "goal": GOALS["plan"]}


def measure_subtract(cells: int, root: Path) -> dict:
    """Measure subtracting the store's content; reads every record."""
    plan, store = make_plan(grid_of(cells)), Store(root)
    seconds, remaining = timed(lambda: subtract(plan, store))
    return {"what": f"subtract {remaining.done:,} of {len(plan.cells):,} cells", "seconds": seconds, "goal": None}


def measure_report(cells: int, root: Path) -> dict:
    """Measure a report whose expected cells all have records: reading them and writing the four files."""
    store, out = Store(root), root / "out"
    plan = make_plan(grid_of(cells))
    held = store.keys("cells")
    expected = [cell for cell in expected_of(plan) if cell["key"] in held]
    seconds, _ = timed(lambda: report(store, "bench", expected, out))
    return {"what": f"report {len(expected):,} records", "seconds": seconds, "goal": GOALS["report"]}


def measure_report_alone(cells: int, root: Path) -> dict:
    """Measure the command, which also reads the listing of the whole grid, most of whose cells are missing."""
    store = Store(root)
    seconds, _ = timed(lambda: report(store, "bench"))
    found = len(store.keys("cells"))
    return {"what": f"report the grid, {found:,} cells done", "seconds": seconds, "goal": GOALS["report"]}


def timed(call: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds of a call and its result."""
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


def alone(measure: Callable[[int, Path], dict], cells: int, root: Path) -> dict:
    """Run a measurement in a fresh process; add the peak memory of that process in GB, with its imports."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_with_memory, (measure, cells, root))


def _with_memory(measure: Callable[[int, Path], dict], cells: int, root: Path) -> dict:
    found = measure(cells, root)
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, kilobytes elsewhere
    return found | {"gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000, help="cells of the grid (default 100,000)")
    parser.add_argument("--records", type=int, default=10_000, help="records in the store (default 10,000)")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        alone(partial(fill, count=args.records), args.cells, root)
        size = sum(path.stat().st_size for path in (root / "cells").iterdir()) / args.records
        measures = (measure_plan, measure_subtract, measure_report, measure_report_alone)
        rows = [alone(measure, args.cells, root) for measure in measures]

    table = Table(
        "what", "seconds", "goal", "peak memory", title=f"Planning and reporting (records of {size:,.0f} bytes)"
    )
    for row in rows:
        goal = f"< {row['goal']:g} s, < {MEMORY_GOAL:g} GB" if row["goal"] else ""
        table.add_row(row["what"], f"{row['seconds']:.2f}", goal, f"{row['gigabytes']:.2f} GB")
    Console().print(table)
    rounded = [{k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    versions = {"python": platform.python_version(), "numpy": np.__version__, "pandas": pd.__version__}
    versions |= {"pydantic": pydantic.VERSION}
    setup = {"record_bytes": round(size), "machine": platform.machine()}
    print(json.dumps({"bench": "plan", "measured": rounded, **setup, "versions": versions}))


if __name__ == "__main__":
    main()
