"""The driver: plan a grid, subtract finished work, run the rest, and summarise the outcome."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

from rich.console import Console

import augbench
from augbench.core.errors import UserError, brief
from augbench.core.specs import PoolSpec
from augbench.core.temporary import default_variables, log_levels
from augbench.planning.grid import Grid
from augbench.planning.outline import stored_grid
from augbench.planning.plan import Plan, make_plan
from augbench.planning.remaining import Remaining, subtract
from augbench.runner.head_watch import watch_head
from augbench.runner.inline import run_inline
from augbench.runner.progress import RunProgress
from augbench.runner.resources import Node, allot
from augbench.runner.scheduler import Scheduler
from augbench.runner.sigterm import Sigterm
from augbench.runner.trackers import Tracker, trackers_of
from augbench.runner.worker import Failure, Job
from augbench.stages.context import Context
from augbench.stages.decoded_images import decode_all
from augbench.stages.features import load_shared
from augbench.stages.generate import assemble_pool
from augbench.stages.leak_audit import audit_all
from augbench.stages.preflight import preflight
from augbench.stages.train import train_cell
from augbench.storage.leases import Leases, survey
from augbench.storage.store import Store
from augbench.storage.versions import discard_chunks, mark_version, one_precision

Executor = Literal["ray", "inline"]

# Read by Ray when it starts: results go to the store only, and no usage statistics are sent.
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

# For Ray that runs here alone. Ray would write a token into the home folder, and from then on ask for it everywhere.
# One per process: Ray keeps the first that it reads.
OWN_TOKEN = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}

IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray where it runs the command of a job
FOR_A_JOB = "runtime_resources"  # Ray's directory for the files of jobs; deleted when they end


@dataclass
class Summary:
    """The outcome of a run."""

    cells: int
    done: int
    trained: int
    seconds: float
    interrupted: bool = False  # by Ctrl-C or SIGTERM
    terminated: bool = False  # by SIGTERM
    failures: dict[str, str] = field(default_factory=dict)
    blocked: Counter[str] = field(default_factory=Counter)
    user_error: bool = False


class Stopped(UserError):
    """The run was stopped by the user, or some of its cells failed. What is done is in the store."""

    def __init__(self, summary: Summary, store: Store) -> None:
        reasons = [f"{key}: {line}" for key, line in summary.failures.items()]
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        failed = f"; failed: {reasons[0]}{more}" if reasons else ""
        super().__init__(f"{summary.done} of {summary.cells} cells are done{failed}; {_go_on(store)}")
        self.summary = summary


def run(
    grid: Grid,
    store: Store,
    executor: Executor = "ray",
    address: str | None = None,
    console: Console | None = None,
    job: Job = train_cell,
    track: Sequence[str] = (),
) -> Summary:
    """Complete a grid in a store. Finished work is not repeated.

    Args:
        grid: what to run.
        store: finished work, and where results go.
        executor: "ray", or "inline" for this process only.
        address: of a running Ray cluster ("auto" from one of its nodes); None starts one here.
        console: where progress is printed.
        job: the function that trains a cell; anything else than `train_cell` is for benchmarks.
        track: experiment trackers, each ``tool`` or ``tool=where``; see `runner.trackers`.

    Raises:
        UserError: an input cannot be used; nothing was started.
    """
    console = console or Console()
    print_line = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    trackers = trackers_of(track, executor)
    store.require_writable()
    if executor == "inline" and address is not None:
        raise UserError("--address names a Ray cluster, and --executor inline uses none: leave one of them out")
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
        print_line(
            f"store '{store.url}' has results of augbench {earlier}, this is {augbench.__version__}: what is finished "
            "stays, the rest is made by this version; equal keys give equal bytes within one version only"
        )
    for line in audit_all(plan, store):
        print_line(line)
    options = {"--executor": executor if executor != "ray" else None, "--address": address}
    store.write_json("grids", grid.name, stored_grid(plan, options))
    if remaining.nothing:
        leases = Leases(store.files)
        leases.sweep()
        _discard_unfinished(store, _assemble(plan, store), leases)
        return Summary(len(plan.cells), len(plan.cells), 0, 0.0)
    preflight(plan)
    started = time.monotonic()
    with Sigterm() as sigterm, Leases(store.files) as leases:
        leases.sweep()
        if remaining.begun_by_others:
            pools = len({pool.key for pool, _ in remaining.begun_by_others})
            print_line(f"{pools} unfinished pools were begun by another version of augbench: they are generated again")
            discard_chunks(store, remaining.begun_by_others)
        _refuse_mixed_pools(plan, remaining, store)
        trained, interrupted = 0, False
        failed: dict[str, Failure] = {}
        for whole_gpus in (False, True):
            scheduler = Scheduler(plan, remaining, store, leases)
            scheduler.carry_over({key: failure for key, failure in failed.items() if not failure.again})
            try:
                with RunProgress(scheduler, console) as progress:
                    if executor == "inline":
                        run_inline(plan, store, scheduler)
                    else:
                        on_lost = partial(_end_without_head, store, leases, progress)
                        on_ray = (address, job, print_line, trackers, sigterm, on_lost, whole_gpus)
                        _run_on_ray(plan, store, scheduler, *on_ray)
            except KeyboardInterrupt:
                interrupted = True
                scheduler.stop()
            if scheduler.fatal:
                raise scheduler.fatal
            trained, failed = trained + scheduler.trained, scheduler.failed
            short = sum(failure.again for failure in failed.values())
            if not short or interrupted:
                break
            print_line(f"{short} units ran out of memory on a shared GPU: they are tried again, each on a whole GPU")
            remaining = subtract(plan, store)
        _discard_unfinished(store, _assemble(plan, store), leases)
    seconds = time.monotonic() - started
    return Summary(
        scheduler.total,
        scheduler.done,
        trained,
        seconds,
        interrupted,
        sigterm.received,
        scheduler.failures,
        scheduler.blocked,
        scheduler.user_error,
    )


def _refuse_mixed_pools(plan: Plan, remaining: Remaining, store: Store) -> None:
    """Refuse a store in which a pool that cells still need was made in two precisions. Raises UserError."""
    needed = {one.pool.key: one.pool for cell in remaining.cells for one in plan.needs[cell.key]}
    for pool in needed.values():
        if plan.library.augmenter(pool.augmenter).uses_gpu:  # others compute in no precision
            one_precision(store, pool, store.chunks(pool))


def _run_on_ray(
    plan: Plan,
    store: Store,
    scheduler: Scheduler,
    address: str | None,
    job: Job,
    print_line: Callable[[str], None],
    trackers: Sequence[Tracker],
    sigterm: Sigterm,
    on_lost: Callable[[str], NoReturn],
    whole_gpus: bool,
) -> None:
    """Work until nothing is left. With ``whole_gpus`` no GPU is shared."""
    with _ray(address, sigterm) as nodes, watch_head(on_lost), contextlib.ExitStack() as stack:
        import ray

        from augbench.runner.ray_data import Generation, quiet_ray_data
        from augbench.runner.ray_tune import run_training
        from augbench.runner.tune_tracking import Tracking

        stack.enter_context(quiet_ray_data())
        allotment = allot(plan, nodes, whole_gpus)
        for note in allotment.notes:
            print_line(note)
        tracking = Tracking(trackers, plan, print_line) if trackers else None
        generation = Generation(plan, store, scheduler, allotment)
        if scheduler.pools_left:
            generation.start()
        # Once per node: all its workers map the same read-only arrays.
        real = {key: ray.put(array) for key, array in decode_all(plan).items()}
        try:
            while scheduler.datasets_left or (allotment.in_turn and generation.is_alive()):
                time.sleep(0.1)
            features = {key: ray.put(array) for key, array in load_shared(plan, store).items()}
            run_training(plan, store, scheduler, allotment, real, features, job, tracking)
            while generation.is_alive():  # fidelity, unneeded chunks; short joins, so that Ctrl-C is handled
                generation.join(0.2)
            if generation.error:
                raise generation.error
        except BaseException as error:
            scheduler.stop()
            generation.come_to_rest()
            if isinstance(error, ray.exceptions.RayError):
                raise UserError(
                    f"Ray failed ({type(error).__name__}: {brief(error)}): see that its machines are well, and that "
                    f"RAY_AUTH_MODE is the same on all; {_go_on(store)}"
                ) from error
            raise


def _go_on(store: Store) -> str:
    return f"run the same command again to go on (store: {store.url})"


def _end_without_head(store: Store, leases: Leases, progress: RunProgress, address: str) -> NoReturn:
    """Release the leases, say how to go on, and end the process: Ray would end it, in the middle of any call to it."""
    progress.__exit__()
    leases.__exit__()
    print(
        f"augbench: the head of the Ray cluster at '{address}' is gone; what is finished is in the store: start Ray "
        f"again if you had started it, and {_go_on(store)}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


def nodes_at(address: str | None) -> list[Node]:
    """Join a Ray cluster, or start one here, as `run` does; list its nodes, and leave it.

    Raises:
        UserError: no cluster answers, or none can be started.
    """
    with Sigterm() as sigterm, _ray(address, sigterm) as nodes:
        return nodes


@contextlib.contextmanager
def _ray(address: str | None, sigterm: Sigterm) -> Iterator[list[Node]]:
    """Start or join a Ray cluster and yield its nodes. A cluster started here is shut down here."""
    # Ray sets RAY_AUTH_MODE for a cluster that it starts, and would from then on require a token of other clusters.
    # The errors of these loggers are dead workers, which the scheduler handles: no tracebacks on screen.
    quiet = log_levels(logging.CRITICAL, "ray", "ray._private.worker", "ray.tune", "ray.data", "ray.air")
    # By default Ray would join a cluster that another program started on this machine, and end with it.
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    token = OWN_TOKEN if address == "local" else {}
    with default_variables({**RAY_ENV, **token}, ["RAY_AUTH_MODE"]), quiet:
        import ray

        started_here = not ray.is_initialized()
        # Not in the system's default temporary directory: Ray's sockets need a short path.
        folder = tempfile.mkdtemp(prefix="augbench-ray-", dir="/tmp" if Path("/tmp").is_dir() else None)  # noqa: S108
        try:
            if started_here:
                with sigterm.while_ray_starts():
                    _connect(address, folder)
            from augbench.runner.nodes import read_nodes

            yield read_nodes()
        finally:
            if started_here:
                with _ignore_ctrl_c():
                    ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _ignore_ctrl_c() -> Iterator[None]:
    """Ignore Ctrl-C: a second one while Ray shuts down would only leave its processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _connect(address: str, folder: str) -> None:
    """Start Ray here ("local", with its files in ``folder``) or join a cluster.

    The separate folder keeps another run with `--address auto` from joining this cluster, which ends with this run.

    Raises:
        UserError: no cluster answers at ``address``.
    """
    import ray

    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit():  # probe first: Ray would retry for two minutes and then exit
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(
            address=address,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            **({"include_dashboard": False, "_temp_dir": folder} if address == "local" else {}),
            runtime_env=_runtime_env(address),
        )
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        if address == "local":
            raise UserError(f"Ray cannot be started here ({brief(error)}): use --executor inline") from error
        raise UserError(
            f"no Ray cluster at '{address}' ({brief(error)}): start one with `ray start --head`, or leave --address "
            "out; if it asks for a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what `ray get-auth-token` "
            "prints where it was started"
        ) from error


def _runtime_env(address: str) -> dict[str, Any]:
    """Return Ray's runtime environment. On a cluster it ships the package that runs here, with its assets.

    So all nodes run the code whose commit is in the records. A run that was sent with `ray job submit` uses the
    environment of its job; Ray refuses a second one.
    """
    environment: dict[str, Any] = {"env_vars": {k: v for k, v in RAY_ENV.items() if k.startswith("RAY_")}}
    if address == "local" or IN_A_JOB in os.environ:
        return environment
    return {**environment, "py_modules": [str(Path(augbench.__file__).parent)], "excludes": ["**/__pycache__"]}


def _discard_unfinished(store: Store, pools: Sequence[PoolSpec], leases: Leases) -> None:
    """Remove files that killed workers left unfinished, in these pools and in all directories of the store.

    Nothing is removed while another driver is alive: the files may belong to its workers. The files are listed before
    the drivers, so the list holds no file of a driver that starts in between.
    """
    unfinished = store.unfinished(pools)
    if unfinished and not any(driver.lives for driver in survey(store.files) if driver.owner != leases.owner):
        store.files.discard(unfinished)


def _assemble(plan: Plan, store: Store) -> list[PoolSpec]:
    """Complete the image folder of every pool of this plan, also after a killed run; return those that were not."""
    context, begun = Context(store, plan.library), store.keys("pools")
    return [pool for key, pool in plan.pools.items() if key in begun and assemble_pool(context, pool)]
