"""The driver process of bench/scale.py: runs a grid with many rows and a job that only sleeps.

    python bench/scale_run.py ADDRESS STORE NOTES CELLS SECONDS

The grid's pools are in the store before the run starts, as if a run had been interrupted after generating its images.
Writes ``NOTES/driven.json``.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from sleeping import SleepingJob

from augbench.planning.grid import Grid, make_grid
from augbench.planning.plan import Plan, make_plan
from augbench.runner import driver
from augbench.storage.store import Store, json_bytes

DATASETS = 10
SHOTS = (5, "all")
N_AUG = (5, 10, 15, 20)  # within one chunk
OPACITIES = (0.2, 0.5)  # one row of memseg each
ROWS = DATASETS * len(SHOTS) * (1 + len(OPACITIES) * len(N_AUG))
STEPS = ("make_plan", "subtract", "stored_grid", "preflight", "Scheduler", "decode_all", "_assemble")
"""Names in `runner.driver` of the steps that are timed separately."""


def grid_of(cells: int) -> Grid:
    """Make a grid of about ``cells`` cells: datasets x (none and two rows of MemSeg) x shots x N_aug x seeds."""
    size = {"test_good": 12, "test_defective": 8}
    surfaces = [
        {"name": "surfaces", "as": f"surfaces{i}", "settings": {"train_good": 24 + i, **size}} for i in range(DATASETS)
    ]
    memseg = [{"name": "memseg", "as": f"memseg{i}", "settings": {"opacity": [a, 1]}} for i, a in enumerate(OPACITIES)]
    return make_grid({
        "name": "scale",
        "datasets": surfaces,
        "augmenters": ["none", *memseg],
        "shots": list(SHOTS),
        "n_aug": list(N_AUG),
        "seeds": list(range(max(1, round(cells / ROWS)))),
        "protocols": ["demo"],
        "fidelity": None,
    })  # fmt: skip


def plant_pools(plan: Plan, store: Store) -> None:
    """Commit every chunk of the plan without images, since the job reads none."""
    for key, pool in plan.pools.items():
        chunks = range(pool.chunks_for(plan.pool_sizes[key]))
        for chunk in chunks:
            store.files.write(store.chunk_name(pool, chunk), b"")
        store.files.write(store.pool_file(key), json_bytes({"key": key, "chunks": list(chunks)}))


def timed(call: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """Wrap a call so that it adds its seconds to ``seconds[name]``."""

    @functools.wraps(call)
    def timing(*arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begun

    return timing


def main() -> None:
    """Plant pools, run, write the times."""
    address, store, notes, cells, seconds = sys.argv[1:]
    store, grid = Store(store), grid_of(int(cells))
    plant_pools(make_plan(grid), store)
    times = dict.fromkeys(STEPS, 0.0)
    for name in STEPS:
        setattr(driver, name, timed(getattr(driver, name), name, times))
    print("planted", flush=True)
    sys.stdin.readline()  # until the parent has sampled the store's request counts
    began, used = time.time(), sum(os.times()[:2])
    job, console = SleepingJob(float(seconds), Path(notes)), Console(stderr=True)
    summary = driver.run(grid, store, address=address, console=console, job=job)
    ended, used = time.time(), sum(os.times()[:2]) - used
    if summary.done != summary.cells:
        raise SystemExit(f"{summary.done} of {summary.cells} cells: {summary}")
    steps = {name: round(took, 2) for name, took in times.items()}
    driven = {"began": began, "ended": ended, "cpu": used, "steps": steps}
    (Path(notes) / "driven.json").write_text(json.dumps(driven))


if __name__ == "__main__":
    main()
