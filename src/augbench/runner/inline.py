"""Run a plan sequentially in this process, for a debugger and for comparison with Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from augbench.core.specs import Cell, SearchSpec
from augbench.planning.plan import Plan, PoolSlice
from augbench.runner.lease_cache import LOOK_AGAIN
from augbench.runner.scheduler import Scheduler
from augbench.runner.worker import Unit, WorkerSetup, attempt, chunk_maker
from augbench.stages.adapt import adapt
from augbench.stages.context import Context
from augbench.stages.decoded_images import DecodedImages, decode_all
from augbench.stages.fidelity import measure
from augbench.stages.search import arms_to_run, decide, run_arm
from augbench.stages.train import headline, train_cell
from augbench.storage.store import Store


def run_inline(plan: Plan, store: Store, scheduler: Scheduler) -> None:
    """Search, adapt, generate, measure and train everything that the scheduler hands out."""
    context = WorkerSetup.of(plan, store).context(gpu=1)

    def search(spec: SearchSpec) -> None:
        for number in range(arms_to_run(context, spec)):
            run_arm(context, spec, number, scheduler.adapter_at)
        decide(context, spec)

    def make_each(specs: Sequence[Unit], work: Callable[[Any], object], done: Callable, failed: Callable) -> bool:
        """Do the work of some units and report it; return whether there were any."""
        for spec in specs:
            if scheduler.stopped:
                break
            if failure := attempt(context, spec, partial(work, spec)):
                failed(spec.key, failure)
            else:
                done(spec.key)
        return bool(specs)

    def search_all() -> bool:
        return make_each(scheduler.next_searches(), search, scheduler.search_done, scheduler.search_failed)

    def adapt_all() -> bool:
        work = partial(adapt, context, report_progress=scheduler.adapter_at)
        return make_each(scheduler.next_adapters(), work, scheduler.adapter_done, scheduler.adapter_failed)

    _until_done(lambda: bool(scheduler.searches) and not scheduler.stopped, search_all)
    _until_done(lambda: bool(scheduler.adapters) and not scheduler.stopped, adapt_all)
    _until_done(lambda: scheduler.chunks_left, lambda: _generate_all(context, scheduler))
    make_each(scheduler.next_fidelity(), partial(measure, context), scheduler.fidelity_done, scheduler.fidelity_failed)
    context.free()
    images = DecodedImages(store, decode_all(plan))
    _until_done(lambda: scheduler.cells_left, lambda: _train_all(context, images, scheduler))


def _until_done(left: Callable[[], bool], work: Callable[[], bool]) -> None:
    """Call ``work`` while ``left`` is true. Where it found no work, another driver has it: wait."""
    while left():
        if not work():
            time.sleep(LOOK_AGAIN)


def _generate_all(context: Context, scheduler: Scheduler) -> bool:
    units = scheduler.next_chunks()
    for spec, chunk in units:
        if spec.key in scheduler.failures or scheduler.stopped:
            continue
        if failure := attempt(context, spec, partial(chunk_maker(spec), context, spec, chunk), part=chunk):
            scheduler.chunk_failed(spec.key, failure)
        else:
            scheduler.chunk_done(spec.key, chunk)
    return bool(units)


def _train_all(context: Context, images: DecodedImages, scheduler: Scheduler) -> bool:
    batch = scheduler.next_cells()
    for cell, slices in batch:
        _train(context, images, scheduler, cell, slices)
    return bool(batch)


def _train(
    context: Context, images: DecodedImages, scheduler: Scheduler, cell: Cell, slices: Sequence[PoolSlice]
) -> None:
    """Train a cell. Its seconds are not reported, so each batch is one cell: a hand-out costs nothing here."""
    record: dict = {}
    if failure := attempt(context, cell, lambda: record.update(train_cell(context, images, cell, slices))):
        scheduler.cell_failed(cell.key, failure)
    else:
        scheduler.cell_done(cell.key, headline(record))
