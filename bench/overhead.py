"""Measure the driver's overhead per cell: the production trainable with a job that only sleeps.

    python bench/overhead.py [--cells 500] [--slots 2] [--job-seconds 0.2]

Each cell sleeps, then writes a real record and 1,004 scores. Overhead = (wall x slots - seconds slept) / cells, from
the first record on, when the first workers have started. Store time is included, and printed separately.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sleeping import SleepingJob, noted

GOAL = 0.05  # seconds per cell


def grid(cells: int):
    """Make a grid with one cell per seed."""
    from augbench.planning.grid import make_grid

    return make_grid({
        "name": "overhead",
        "datasets": [{"name": "surfaces", "settings": {"train_good": 24, "test_good": 12, "test_defective": 8}}],
        "augmenters": ["none"],
        "shots": ["all"],
        "seeds": list(range(cells)),
        "protocols": ["demo"],
    })  # fmt: skip


def main() -> None:
    """Run the grid once and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--job-seconds", type=float, default=0.2)
    options = parser.parse_args()

    import ray

    from augbench.runner import driver
    from augbench.stages.provenance import versions
    from augbench.storage.store import Store

    for name, value in driver.RAY_ENV.items():
        os.environ.setdefault(name, value)
    ray.init("local", num_cpus=options.slots, logging_level="ERROR", log_to_driver=False, include_dashboard=False)
    with tempfile.TemporaryDirectory() as folder:
        store, notes = Store(Path(folder) / "store"), Path(folder)
        job = SleepingJob(options.job_seconds, notes)
        started = time.perf_counter()
        summary = driver.run(grid(options.cells), store, console=Console(stderr=True), job=job)
        total = time.perf_counter() - started
        assert summary.done == options.cells, summary
        slots = noted(notes)
    ray.shutdown()
    times = np.concatenate(list(slots.values()))
    times = times[times[:, 3].argsort()]  # by commit time
    steady = times[options.slots :]  # the first cell of each slot includes the worker's start
    wall = steady[-1, 3] - times[options.slots - 1, 3]
    overhead = (wall * options.slots - options.job_seconds * len(steady)) / len(steady)
    figures = {
        "cells": options.cells,
        "slots": options.slots,
        "workers that worked": len(slots),
        "total seconds, start included": round(total, 2),
        "overhead, seconds per cell": round(float(overhead), 4),
        "  of it computing metrics": round(float((steady[:, 2] - steady[:, 1]).mean()), 4),
        "  of it in the store": round(float((steady[:, 3] - steady[:, 2]).mean()), 4),
        "goal, seconds per cell": GOAL,
    }
    table = Table("what", "value")
    for name, value in figures.items():
        table.add_row(name, str(value))
    Console().print(table)
    print(json.dumps({**figures, "versions": versions()}))


if __name__ == "__main__":
    main()
