"""Run a plan sequentially in this process, for a debugger and for comparison with Ray."""

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


def run_inline(plan: Plan, store: Store, scheduler: Scheduler) -> None:
    """Search, adapt, generate, measure and train everything that the scheduler hands out."""
    context = WorkerSetup.of(plan, store).context(use_gpu=True)
    _until_done(lambda: bool(scheduler.searches) and not scheduler.stopped, lambda: _search_all(context, scheduler))
    _until_done(lambda: bool(scheduler.adapters) and not scheduler.stopped, lambda: _adapt_all(context, scheduler))
    _until_done(lambda: scheduler.chunks_left, lambda: _generate_all(context, scheduler))
    _measure_all(context, scheduler)
    images = DecodedImages(store, decode_all(plan))
    _until_done(lambda: scheduler.cells_left, lambda: _train_all(context, images, scheduler))


def _until_done(left: Callable[[], bool], work: Callable[[], bool]) -> None:
    """Call ``work`` while ``left`` is true. Where it found no work, another driver has it: wait."""
    while left():
        if not work():
            time.sleep(LOOK_AGAIN)


def _search_all(context: Context, scheduler: Scheduler) -> bool:
    specs = scheduler.next_searches()
    for spec in specs:
        if failure := attempt(context, spec, partial(_search, context, spec, scheduler)):
            scheduler.search_failed(spec.key, failure)
        else:
            scheduler.search_done(spec.key)
    return bool(specs)


def _search(context: Context, spec: SearchSpec, scheduler: Scheduler) -> None:
    for number in range(arms_to_run(context, spec)):
        run_arm(context, spec, number, scheduler.adapter_at)
    decide(context, spec)


def _adapt_all(context: Context, scheduler: Scheduler) -> bool:
    specs = scheduler.next_adapters()
    for spec in specs:
        if failure := attempt(context, spec, partial(adapt, context, spec, scheduler.adapter_at)):
            scheduler.adapter_failed(spec.key, failure)
        else:
            scheduler.adapter_done(spec.key)
    return bool(specs)


def _generate_all(context: Context, scheduler: Scheduler) -> bool:
    units = scheduler.next_chunks()
    for pool, chunk in units:
        if pool.key in scheduler.failures or scheduler.stopped:
            continue
        if failure := attempt(context, pool, partial(generate_chunk, context, pool, chunk), part=chunk):
            scheduler.chunk_failed(pool.key, failure)
        else:
            scheduler.chunk_done(pool.key, chunk)
    return bool(units)


def _measure_all(context: Context, scheduler: Scheduler) -> None:
    for spec in scheduler.next_fidelity():
        if scheduler.stopped:
            return
        if failure := attempt(context, spec, partial(measure, context, spec)):
            scheduler.fidelity_failed(spec.key, failure)
        else:
            scheduler.fidelity_done(spec.key)


def _train_all(context: Context, images: DecodedImages, scheduler: Scheduler) -> bool:
    unit = scheduler.next_cell()
    if unit is None:
        return False
    cell, slices = unit
    record: dict = {}
    if failure := attempt(context, cell, lambda: record.update(train_cell(context, images, cell, slices))):
        scheduler.cell_failed(cell.key, failure)
    else:
        scheduler.cell_done(cell.key, headline(record))
    return True
