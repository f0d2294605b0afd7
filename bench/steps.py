"""Find steps of a run that grow faster than its number of cells: CPU seconds at several sizes, and exponents.

    python bench/steps.py [--cells 1000 5000 20000]

Without Ray and without training: planning, subtracting, the scheduler from its construction to the last cell, outline,
status, report. A step of linear cost has the exponent 1. Each size is measured in its own process, with a temporary
store that holds a record of every second cell.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from plan import alone, fill, grid_of
from rich.console import Console
from rich.table import Table
from scale_figures import slope

from augbench.monitoring.known_grids import known_from_store
from augbench.monitoring.status import look
from augbench.planning.outline import stored_grid
from augbench.planning.plan import Plan, make_plan
from augbench.planning.remaining import subtract
from augbench.report import load_records, report
from augbench.runner.scheduler import Scheduler
from augbench.storage.leases import Leases
from augbench.storage.store import Store

SIZES = (1000, 5000, 20000)
MOST = 1.15  # a larger exponent marks a step as too slow


def play(scheduler: Scheduler) -> int:
    """Drive a scheduler through a run whose chunks and cells complete at once; return the number of cells done."""
    while scheduler.chunks_left:
        for pool, chunk in scheduler.next_chunks():
            scheduler.chunk_done(pool.key, chunk)
            for spec in scheduler.next_fidelity():  # the driver polls after each chunk
                scheduler.fidelity_done(spec.key)
    done = 0
    while batch := scheduler.next_cells():
        for cell, _ in batch:
            scheduler.cell_done(cell.key, {"ap": 0.5})
        done += len(batch)
    return done


def measure(cells: int, root: Path) -> dict[str, float]:
    """Measure the CPU seconds of every step at one size, on a filled store."""
    store, grid, seconds = Store(root), grid_of(cells), {}
    gc.disable()  # a collection would be charged to the step it interrupts

    def step(name, call):
        begun = time.process_time()  # CPU time, so other processes do not count
        value = call()
        seconds[name] = time.process_time() - begun
        return value

    plan: Plan = step("plan", lambda: make_plan(grid))
    remaining = step("subtract", lambda: subtract(plan, store))
    assert 0.4 < remaining.done / len(plan.cells) < 0.6, "every second cell should be done"
    step("outline", lambda: stored_grid(plan))
    step("status", lambda: look(store, known_from_store(store)))
    step("read records", lambda: load_records(store))
    step("report", lambda: report(store, "bench"))
    with Leases(store.files) as leases:
        scheduler = step("make the scheduler", lambda: Scheduler(plan, remaining, store, leases))
        done = step("dispatch and complete", lambda: play(scheduler))
    assert done == len(remaining.cells) and not scheduler.pools_left and not scheduler.cells_left
    return {"cells": len(plan.cells), **seconds}


def measure_all(sizes: Sequence[int]) -> None:
    """Measure every size, print a table and a line of JSON."""
    found = []
    for size in sorted(sizes):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "store"
            alone(partial(fill, count=size // 2), size, root)
            found.append(alone(measure, size, root))
    cells = [int(one.pop("cells")) for one in found]
    memory = [one.pop("gigabytes") for one in found]
    table = Table("step", *[f"{n:,} cells" for n in cells], "exponent", title="CPU seconds of steps without Ray")
    exponents = {}
    for step in found[0]:
        costs = [one[step] for one in found]
        exponents[step] = round(slope(cells, costs), 2) if len(cells) > 1 else None
        over = exponents[step] is not None and exponents[step] > MOST
        table.add_row(step, *[f"{cost:.3f}" for cost in costs], f"{exponents[step]}{' !' if over else ''}")
    table.add_row("peak memory, GB", *[f"{one:.2f}" for one in memory], "")
    Console().print(table)
    rounded = {step: [round(one[step], 4) for one in found] for step in found[0]}
    print(json.dumps({"bench": "steps", "cells": cells, "seconds": rounded, "exponents": exponents}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=list(SIZES))
    measure_all(parser.parse_args().cells)


if __name__ == "__main__":
    main()
