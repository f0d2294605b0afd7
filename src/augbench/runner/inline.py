"""The same run in this process, one thing after the other: for a debugger, and to compare with Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from augbench.core.specs import SearchSpec
from augbench.planning.plan import Plan
from augbench.runner.lease_cache import LOOK_AGAIN
from augbench.runner.scheduler import Scheduler
from augbench.runner.worker import WorkerSetup, attempt
from augbench.stages.adapt import adapt
from augbench.stages.context import Context
from augbench.stages.decoded_images import DecodedImages, decode_all
from augbench.stages.fidelity import measure
from augbench.stages.generate import generate_chunk
from augbench.stages.search import arms_to_run, decide, run_arm
from augbench.stages.train import headline, train_cell
from augbench.storage.store import Store


def run_inline(plan: Plan, store: Store, board: Scheduler) -> None:
    """Search, adapt, generate, measure and train whatever the board hands out."""
    context = WorkerSetup.of(plan, store).context(use_gpu=True)
    _until_done(lambda: bool(board.searches) and not board.stopped, lambda: _search_all(context, board))
    _until_done(lambda: bool(board.adapters) and not board.stopped, lambda: _adapt_all(context, board))
    _until_done(lambda: board.chunks_left, lambda: _generate_all(context, board))
    _measure_all(context, board)
    pictures = DecodedImages(store, decode_all(plan))
    _until_done(lambda: board.cells_left, lambda: _train_all(context, pictures, board))


def _until_done(left: Callable[[], bool], work: Callable[[], bool]) -> None:
    """Call ``work`` while something is left; where it found nothing to do, another driver is at it."""
    while left():
        if not work():
            time.sleep(LOOK_AGAIN)


def _search_all(context: Context, board: Scheduler) -> bool:
    specs = board.next_searches()
    for spec in specs:
        if failure := attempt(context, spec, partial(_search, context, spec, board)):
            board.search_failed(spec.key, failure)
        else:
            board.search_done(spec.key)
    return bool(specs)


def _search(context: Context, spec: SearchSpec, board: Scheduler) -> None:
    for number in range(arms_to_run(context, spec)):
        run_arm(context, spec, number, board.adapter_at)
    decide(context, spec)


def _adapt_all(context: Context, board: Scheduler) -> bool:
    specs = board.next_adapters()
    for spec in specs:
        if failure := attempt(context, spec, partial(adapt, context, spec, board.adapter_at)):
            board.adapter_failed(spec.key, failure)
        else:
            board.adapter_done(spec.key)
    return bool(specs)


def _generate_all(context: Context, board: Scheduler) -> bool:
    units = board.next_chunks()
    for pool, chunk in units:
        if pool.key in board.failures or board.stopped:
            continue
        if failure := attempt(context, pool, partial(generate_chunk, context, pool, chunk), part=chunk):
            board.chunk_failed(pool.key, failure)
        else:
            board.chunk_done(pool.key, chunk)
    return bool(units)


def _measure_all(context: Context, board: Scheduler) -> None:
    for spec in board.next_fidelity():
        if board.stopped:
            return
        if failure := attempt(context, spec, partial(measure, context, spec)):
            board.fidelity_failed(spec.key, failure)
        else:
            board.fidelity_done(spec.key)


def _train_all(context: Context, pictures: DecodedImages, board: Scheduler) -> bool:
    unit = board.next_cell()
    if unit is None:
        return False
    cell, takes = unit
    record: dict = {}
    if failure := attempt(context, cell, lambda: record.update(train_cell(context, pictures, cell, takes))):
        board.cell_failed(cell.key, failure)
    else:
        board.cell_done(cell.key, headline(record))
    return True
