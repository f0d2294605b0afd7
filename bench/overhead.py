"""What the driver loop costs per cell: the production trainable with a job that only sleeps.

    python bench/overhead.py [--cells 500] [--slots 2] [--job-seconds 0.2]

Each cell sleeps, then writes a real record and 1,004 scores. Overhead = (wall x slots - seconds slept) / cells, from
the first record on, when the first workers are up; the time in the store is part of it and shown separately.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

GOAL = 0.05  # seconds per cell


class SleepingJob:
    """Stands in for `jobs.train.train_cell`: same arguments, same writes, no training."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, context, pictures, cell, takes):
        """Sleep, score, commit; notes how long scoring and committing took."""
        from augbench.jobs.train import commit, evaluate

        time.sleep(self.seconds)
        begun = time.perf_counter()
        rng = np.random.default_rng(cell.seed)
        labels = np.where(np.arange(1004) < 110, "defect", "good")
        scores = pd.DataFrame({
            "id": [f"{20000 + i}" for i in range(1004)],
            "part": "test",
            "label": labels,
            "group": [f"{20000 + i}" for i in range(1004)],
            "logit": rng.normal(size=1004).astype(np.float32),
        })  # fmt: skip
        counts = {"train_negatives": 2085, "shots": 246, "synthetic": 120, "heldout_negatives": 0}
        curve = [{"epoch": epoch, "ap": 0.5} for epoch in range(1, 51)]
        result = {**evaluate(scores, cell.protocol), "counts": counts, "curves": {"loss": [0.5] * 50, "test": curve}}
        evaluated = time.perf_counter()
        seconds = {"total": self.seconds, "fit": self.seconds, "gather": 0.0, "judge": evaluated - begun}
        record = commit(context, cell, takes, scores, result, seconds, shown=0)
        with (context.store.files.folder / f"times-{os.getpid()}.txt").open("a") as file:
            file.write(f"{time.time()} {evaluated - begun} {time.perf_counter() - evaluated}\n")
        return record


def grid(cells: int):
    """One cell per seed."""
    from augbench.core.grid import make_grid

    return make_grid({
        "name": "overhead",
        "datasets": [{"name": "surfaces", "settings": {"train_good": 24, "test_good": 12, "test_defective": 8}}],
        "augmenters": ["none"],
        "shots": ["all"],
        "seeds": list(range(cells)),
        "protocols": ["demo"],
    })  # fmt: skip


def main() -> None:
    """Run the grid once and print where the time went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--job-seconds", type=float, default=0.2)
    options = parser.parse_args()

    import ray

    from augbench.core.store import Store
    from augbench.engine import driver
    from augbench.jobs.provenance import versions

    for name, value in driver.LEAN.items():
        os.environ.setdefault(name, value)
    ray.init(num_cpus=options.slots, logging_level="ERROR", log_to_driver=False, include_dashboard=False)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        started = time.perf_counter()
        summary = driver.run(
            grid(options.cells), store, console=Console(stderr=True), job=SleepingJob(options.job_seconds)
        )
        total = time.perf_counter() - started
        assert summary.done == options.cells, summary
        lines = [line.split() for path in Path(folder).glob("times-*.txt") for line in path.read_text().splitlines()]
        workers = len(list(Path(folder).glob("times-*.txt")))
    ray.shutdown()
    times = np.array(sorted((float(at), float(judge), float(store_)) for at, judge, store_ in lines))
    steady = times[options.slots :]  # the first cell of each slot includes its start
    wall = steady[-1, 0] - times[options.slots - 1, 0]
    overhead = (wall * options.slots - options.job_seconds * len(steady)) / len(steady)
    figures = {
        "cells": options.cells,
        "slots": options.slots,
        "workers that worked": workers,
        "total seconds, start included": round(total, 2),
        "overhead, seconds per cell": round(float(overhead), 4),
        "  of it computing metrics": round(float(steady[:, 1].mean()), 4),
        "  of it in the store": round(float(steady[:, 2].mean()), 4),
        "goal, seconds per cell": GOAL,
    }
    table = Table("what", "value")
    for name, value in figures.items():
        table.add_row(name, str(value))
    Console().print(table)
    print(json.dumps({**figures, "versions": versions()}))


if __name__ == "__main__":
    main()
