"""The driver's part of bench/scale.py, in a process of its own: a grid of many rows, run with a job that only sleeps.

    python bench/scale_run.py ADDRESS STORE NOTES CELLS SECONDS

The grid has pools, which are in the store before the run starts: as if a run had been interrupted after its pictures.
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
N_AUG = (5, 10, 15, 20)  # of one chunk
OPACITIES = (0.2, 0.5)  # as many rows of memseg
ROWS = DATASETS * len(SHOTS) * (1 + len(OPACITIES) * len(N_AUG))
STEPS = ("make_plan", "subtract", "expected_of", "outline_of", "preflight", "Board", "decode_all", "_assemble")
"""Names in `runner.driver` of what is timed by itself."""


def grid_of(cells: int) -> Grid:
    """A grid of about that many cells: datasets x (none and two rows of MemSeg) x shots x N_aug x seeds."""
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
    """Commit every chunk that the plan takes, without pictures: the job looks at none."""
    for key, pool in plan.pools.items():
        chunks = range(pool.chunks_for(plan.pool_sizes[key]))
        for chunk in chunks:
            store.files.write(store.chunk_name(pool, chunk), b"")
        store.files.write(store.pool_file(key), json_bytes({"key": key, "chunks": list(chunks)}))


def timed(call: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """The same call; adds what it takes to ``seconds[name]``."""

    @functools.wraps(call)
    def timing(*arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begun

    return timing


def main() -> None:
    """Plant, run, tell."""
    address, store, notes, cells, seconds = sys.argv[1:]
    store, grid = Store(store), grid_of(int(cells))
    plant_pools(make_plan(grid), store)
    told = dict.fromkeys(STEPS, 0.0)
    for name in STEPS:
        setattr(driver, name, timed(getattr(driver, name), name, told))
    print("planted", flush=True)
    sys.stdin.readline()  # until the other side has counted what that took of the store
    began, used = time.time(), sum(os.times()[:2])
    job, console = SleepingJob(float(seconds), Path(notes)), Console(stderr=True)
    summary = driver.run(grid, store, address=address, console=console, job=job)
    ended, used = time.time(), sum(os.times()[:2]) - used
    if summary.done != summary.cells:
        raise SystemExit(f"{summary.done} of {summary.cells} cells: {summary}")
    said = {"began": began, "ended": ended, "cpu": used, "steps": {name: round(took, 2) for name, took in told.items()}}
    (Path(notes) / "driven.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
