"""The one driver loop: plan, subtract, run what is left, and say what became of it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

import augbench
from augbench.core.errors import UserError
from augbench.core.specs import PoolSpec
from augbench.core.temporary import default_variables, log_levels
from augbench.planning.expected import expected_of
from augbench.planning.grid import Grid
from augbench.planning.outline import outline_of
from augbench.planning.plan import Plan, make_plan
from augbench.planning.remaining import subtract
from augbench.runner.inline import run_inline
from augbench.runner.progress import RunProgress
from augbench.runner.resources import Node, allot
from augbench.runner.scheduler import Scheduler
from augbench.runner.trackers import Tracker, trackers_of
from augbench.runner.worker import Job
from augbench.stages.context import Context
from augbench.stages.decoded_images import decode_all
from augbench.stages.generate import assemble_pool
from augbench.stages.preflight import preflight
from augbench.stages.train import train_cell
from augbench.storage.leases import Leases, survey
from augbench.storage.store import Store
from augbench.storage.versions import discard_chunks, mark_version

Executor = Literal["ray", "inline"]

# Read by Ray when it starts: results go to the store alone, and nothing is reported to anyone.
RAY_ENV = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray where it runs the command of a job
FOR_A_JOB = "runtime_resources"  # Ray's folder for what jobs bring along; deleted when they end


@dataclass
class Summary:
    """What a run did."""

    cells: int
    done: int
    trained: int
    seconds: float
    interrupted: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    blocked: Counter[str] = field(default_factory=Counter)
    user_error: bool = False


def run(
    grid: Grid,
    store: Store,
    executor: Executor = "ray",
    address: str | None = None,
    console: Console | None = None,
    job: Job = train_cell,
    track: Sequence[str] = (),
) -> Summary:
    """Complete a grid in a store. What is there already is not done again.

    Args:
        grid: what to run.
        store: what is done, and where results go.
        executor: "ray", or "inline" for this process alone.
        address: of a running Ray cluster ("auto" from one of its machines); None starts one here.
        console: where progress goes.
        job: what a training slot does; anything else than `train_cell` is for benchmarks.
        track: trackers that hear of each training, each ``tool`` or ``tool=where``; see `runner.trackers`.

    Raises:
        UserError: something the user gave cannot be used; nothing was started.
    """
    console = console or Console()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    trackers = trackers_of(track, executor)
    if executor == "ray" and store.files.one_process:
        raise UserError(f"store '{store.url}' is seen by one process only: use --executor inline, or another store")
    if IN_A_JOB in os.environ and store.files.folder and FOR_A_JOB in store.files.folder.parts:
        raise UserError(
            f"store '{store.files.folder.name}' would lie in the working directory of this job, which Ray deletes: "
            "give --store a folder that all machines see, from the root on, or a URL"
        )
    plan = make_plan(grid, store)
    plan.require_runnable()
    remaining = subtract(plan, store)
    if earlier := ", ".join(mark_version(store)):
        say(
            f"store '{store.url}' has results of augbench {earlier}, this is {augbench.__version__}: what is finished "
            "stays, the rest is made by this version; equal keys give equal bytes within one version only"
        )
    known = {"grid": grid.as_dict(), "cells": expected_of(plan), "outline": outline_of(plan).as_dict()}
    store.write_json("grids", grid.name, known)
    if remaining.nothing:
        leases = Leases(store.files)
        leases.sweep()
        _discard_unfinished(store, _assemble(plan, store), leases)
        return Summary(len(plan.cells), len(plan.cells), 0, 0.0)
    preflight(plan)
    started = time.monotonic()
    with Leases(store.files) as leases:
        leases.sweep()
        if remaining.begun_by_others:
            pools = len({pool.key for pool, _ in remaining.begun_by_others})
            say(f"{pools} unfinished pools were begun by another version of augbench: they are made anew")
            discard_chunks(store, remaining.begun_by_others)
        board = Scheduler(plan, remaining, store, leases)
        interrupted = False
        try:
            with RunProgress(board, console):
                if executor == "inline":
                    run_inline(plan, store, board)
                else:
                    _run_on_ray(plan, store, board, address, job, say, trackers)
        except KeyboardInterrupt:
            interrupted = True
            board.stop()
        if board.fatal:
            raise board.fatal
        _discard_unfinished(store, _assemble(plan, store), leases)
    seconds = time.monotonic() - started
    return Summary(
        board.total, board.done, board.trained, seconds, interrupted, board.failures, board.blocked, board.user_error
    )


def _run_on_ray(
    plan: Plan,
    store: Store,
    board: Scheduler,
    address: str | None,
    job: Job,
    say: Callable[[str], None],
    trackers: Sequence[Tracker],
) -> None:
    with _ray(address) as nodes, contextlib.ExitStack() as meanwhile:
        import ray

        from augbench.runner.ray_data import Generation, quiet_ray_data
        from augbench.runner.ray_tune import run_training
        from augbench.runner.tune_tracking import Tracking

        meanwhile.enter_context(quiet_ray_data())
        allotment = allot(plan, nodes)
        for note in allotment.notes:
            say(note)
        tracking = Tracking(trackers, plan, say) if trackers else None
        generation = Generation(plan, store, board, allotment)
        if board.pools_left:
            generation.start()
        # Once per node: every worker maps the same read-only arrays.
        real = {key: ray.put(array) for key, array in decode_all(plan).items()}
        try:
            run_training(plan, store, board, allotment, real, job, tracking)
            while generation.is_alive():  # what is measured or was surplus; in turns, so that Ctrl-C is heard
                generation.join(0.2)
        except BaseException:
            board.stop()
            generation.come_to_rest()
            raise
        if generation.error:
            raise generation.error


@contextlib.contextmanager
def _ray(address: str | None) -> Iterator[list[Node]]:
    """A Ray cluster: the machines it has. One that was started here is shut down here."""
    # Ray turns RAY_AUTH_MODE on for a cluster that it starts, and would ask others for a token from then on.
    # What these loggers call an error is the death of a worker, which the board is told of: no tracebacks on screen.
    quiet = log_levels(logging.CRITICAL, "ray", "ray._private.worker", "ray.tune", "ray.data", "ray.air")
    with default_variables(RAY_ENV, ["RAY_AUTH_MODE"]), quiet, _started_or_joined(address) as nodes:
        yield nodes


@contextlib.contextmanager
def _started_or_joined(address: str | None) -> Iterator[list[Node]]:
    import ray

    started_here = not ray.is_initialized()
    # Not in the folder for temporary files of every system: Ray's sockets need a short path.
    folder = tempfile.mkdtemp(prefix="augbench-ray-", dir="/tmp" if Path("/tmp").is_dir() else None)  # noqa: S108
    try:
        if started_here:
            # By default Ray joins whatever cluster another program started on this machine, and ends with it.
            _connect(address or os.environ.get("RAY_ADDRESS") or "local", folder)
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield [Node.of(resources) for resources in alive]
    finally:
        if started_here:
            with _deaf_to_ctrl_c():
                ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """A second Ctrl-C while Ray shuts down would only leave its processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _connect(address: str, folder: str) -> None:
    """Start Ray here ("local", with its files in ``folder``) or join a cluster. Raises UserError where none answers.

    A folder of its own keeps `--address auto` of another run from joining this one, which ends when this run ends.
    """
    import ray

    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit():  # ask first: Ray would try for two minutes and then end the process
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(
            address=address,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            **({"include_dashboard": False, "_temp_dir": folder} if address == "local" else {}),
            runtime_env=_runtime_env(address),
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Ray cluster at '{address}' ({' '.join(str(error).split())[:120]}): start one with `ray start --head`, "
            "set RAY_AUTH_MODE=token if it asks for a token, or leave --address out"
        ) from None


def _runtime_env(address: str) -> dict[str, Any]:
    """What workers get beside their machine's installation: on a cluster the code that runs here, its assets with it.

    So a record's commit is the code that made it on every machine. A run that was sent with `ray job submit` has the
    environment of its job, which brings code where it is to, and Ray refuses a second one.
    """
    environment: dict[str, Any] = {"env_vars": {k: v for k, v in RAY_ENV.items() if k.startswith("RAY_")}}
    if address == "local" or IN_A_JOB in os.environ:
        return environment
    return {**environment, "py_modules": [str(Path(augbench.__file__).parent)], "excludes": ["**/__pycache__"]}


def _discard_unfinished(store: Store, pools: Sequence[PoolSpec], leases: Leases) -> None:
    """Remove files that killed workers had begun, in these pools and in all rooms.

    Not where another driver lives: they may be its workers'. They are listed before drivers are looked for, so none of
    a driver that comes meanwhile is among them.
    """
    unfinished = store.unfinished(pools)
    if unfinished and not any(driver.lives for driver in survey(store.files) if driver.owner != leases.owner):
        store.files.discard(unfinished)


def _assemble(plan: Plan, store: Store) -> list[PoolSpec]:
    """Make every pool that this plan touched a readable image folder; also after an earlier run was killed.

    Returns those that were none.
    """
    context, begun = Context(store, plan.library), store.keys("pools")
    return [pool for key, pool in plan.pools.items() if key in begun and assemble_pool(context, pool)]
