"""The same run in this process, one thing after the other: for a debugger, and to compare with Ray."""

from __future__ import annotations

import time
from collections.abc import Callable

from augbench.core.plan import Plan
from augbench.core.store import Store
from augbench.engine.board import LOOK_AGAIN, Board
from augbench.engine.worker import Failure, WorkerSetup
from augbench.jobs.adapt import adapt
from augbench.jobs.context import Context
from augbench.jobs.fidelity import measure
from augbench.jobs.generate import generate_chunk
from augbench.jobs.pictures import Pictures, decode_all
from augbench.jobs.search import arms_to_run, decide, run_arm
from augbench.jobs.train import headline, train_cell


def run_inline(plan: Plan, store: Store, board: Board) -> None:
    """Search, adapt, generate, measure and train whatever the board hands out."""
    context = WorkerSetup.of(plan, store).context(use_gpu=True)
    _until_done(lambda: bool(board.searches) and not board.stopped, lambda: _search_all(context, board))
    _until_done(lambda: bool(board.adapters) and not board.stopped, lambda: _adapt_all(context, board))
    _until_done(lambda: board.chunks_left, lambda: _generate_all(context, board))
    _measure_all(context, board)
    pictures = Pictures(store, decode_all(plan))
    _until_done(lambda: board.cells_left, lambda: _train_all(context, pictures, board))


def _until_done(left: Callable[[], bool], work: Callable[[], bool]) -> None:
    """Call ``work`` while something is left; where it found nothing to do, another driver is at it."""
    while left():
        if not work():
            time.sleep(LOOK_AGAIN)


def _search_all(context: Context, board: Board) -> bool:
    specs = board.next_searches()
    for spec in specs:
        try:
            for number in range(arms_to_run(context, spec)):
                run_arm(context, spec, number, board.adapter_at)
            decide(context, spec)
            board.search_done(spec.key)
        except Exception as error:
            context.store.record_failure(spec.key, spec.as_dict(), error)
            board.search_failed(spec.key, Failure.of(error))
    return bool(specs)


def _measure_all(context: Context, board: Board) -> None:
    for spec in board.next_fidelity():
        if board.stopped:
            return
        try:
            measure(context, spec)
            board.fidelity_done(spec.key)
        except Exception as error:
            context.store.record_failure(spec.key, spec.as_dict(), error)
            board.fidelity_failed(spec.key, Failure.of(error))


def _adapt_all(context: Context, board: Board) -> bool:
    specs = board.next_adapters()
    for spec in specs:
        try:
            adapt(context, spec, board.adapter_at)
            board.adapter_done(spec.key)
        except Exception as error:  # one bad unit never stops the sweep
            context.store.record_failure(spec.key, spec.as_dict(), error)
            board.adapter_failed(spec.key, Failure.of(error))
    return bool(specs)


def _generate_all(context: Context, board: Board) -> bool:
    units = board.next_chunks()
    for pool, chunk in units:
        if pool.key in board.failures or board.stopped:
            continue
        try:
            generate_chunk(context, pool, chunk)
            board.chunk_done(pool.key, chunk)
        except Exception as error:
            context.store.record_failure(pool.key, pool.as_dict(), error)
            board.chunk_failed(pool.key, Failure.of(error))
    return bool(units)


def _train_all(context: Context, pictures: Pictures, board: Board) -> bool:
    unit = board.next_cell()
    if unit is None:
        return False
    cell, takes = unit
    try:
        board.cell_done(cell.key, headline(train_cell(context, pictures, cell, takes)))
    except Exception as error:
        context.store.record_failure(cell.key, cell.as_dict(), error)
        board.cell_failed(cell.key, Failure.of(error))
    return True
