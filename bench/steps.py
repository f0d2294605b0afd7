"""What of a run grows faster than the number of its cells: CPU seconds of steps at several sizes, and exponents.

    python bench/steps.py [--cells 1000 5000 20000]

Without Ray and without training: planning, subtracting, the board from its making to the last cell, outline, status,
report. A step whose cost is in proportion to the number of cells has the exponent 1. Each size is measured in a process
of its own, with a temporary store that holds a record of every second cell.
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
from augbench.planning.outline import outline_of
from augbench.planning.plan import Plan, make_plan
from augbench.planning.remaining import subtract
from augbench.report import load_records, report
from augbench.runner.scheduler import Scheduler
from augbench.storage.leases import Leases
from augbench.storage.store import Store

SIZES = (1000, 5000, 20000)
MOST = 1.15  # an exponent above it is a step to mend


def play(board: Scheduler) -> int:
    """Everything a run asks of a board and tells it, as if each chunk and each cell were made at once; cells done."""
    while board.chunks_left:
        for pool, chunk in board.next_chunks():
            board.chunk_done(pool.key, chunk)
            for spec in board.next_fidelity():  # the engine asks after each chunk
                board.fidelity_done(spec.key)
    done = 0
    while (unit := board.next_cell()) is not None:
        board.cell_done(unit[0].key, {"ap": 0.5})
        done += 1
    return done


def measure(cells: int, root: Path) -> dict[str, float]:
    """CPU seconds of every step at that size; the store is filled."""
    store, grid, seconds = Store(root), grid_of(cells), {}
    gc.disable()  # Python's collector comes when it likes, and would be counted where it comes

    def step(name, call):
        begun = time.process_time()  # what else the machine does shall not count
        value = call()
        seconds[name] = time.process_time() - begun
        return value

    plan: Plan = step("plan", lambda: make_plan(grid))
    remaining = step("subtract", lambda: subtract(plan, store))
    assert 0.4 < remaining.done / len(plan.cells) < 0.6, "every second cell was to be done"
    step("outline", lambda: outline_of(plan).as_dict())
    step("status", lambda: look(store, known_from_store(store)))
    step("read records", lambda: load_records(store))
    step("report", lambda: report(store, "bench"))
    with Leases(store.files) as leases:
        board = step("make the board", lambda: Scheduler(plan, remaining, store, leases))
        done = step("hand out and complete", lambda: play(board))
    assert done == len(remaining.cells) and not board.pools_left and not board.cells_left
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
