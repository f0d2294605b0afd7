"""Measure the driver with thousands of cells on many slots, without GPUs: a cluster of raylets on this machine.

    python bench/scale.py [--cells 5000] [--slots 64] [--nodes 4] [--job-seconds 10 3 1] [--starting 4]
    python bench/scale.py --store s3 [--fail-every 200]
    python bench/scale.py --steps [1000 5000 20000]

The production driver runs in its own process and joins the cluster like any other; a cell only sleeps, then writes a
real record and 1,004 scores. Efficiency is ideal / measured: ideal = ceil(cells / slots) x seconds of a cell; measured
spans the whole call of `run`, with planning, worker start, the last cell and shutdown. With ``--store s3`` results go
to an S3 server on loopback, in its own process, that answers every Nth request with 503 SlowDown. ``--steps`` needs no
Ray: it finds steps that grow faster than the number of cells, see bench/steps.py. Linux only (reads /proc).

A worker takes about 2 CPU seconds to start. Real nodes have cores for that; here all workers share a few cores, so Tune
starts only ``--starting`` at once. All together would take as long, and none would work before all have started.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path

import steps
from multinode import folder_of_ray
from rich.console import Console
from rich.table import Table
from scale_figures import Driven, Seen, figures, predicted
from sleeping import noted

from augbench.runner.driver import RAY_ENV
from augbench.stages.provenance import versions

HERE = Path(__file__).parent
GOALS = {"efficiency": 0.9, "driver, MB per cell": 0.1}
OBJECTS = 150_000_000  # bytes of each node's object store
LOOK = 0.5  # seconds between samples of the driver
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def cluster(slots: int, nodes: int) -> Iterator[str]:
    """Start ``nodes`` raylets that share the slots as CPUs; yield the address. Workers inherit this environment."""
    with folder_of_ray():
        from ray.cluster_utils import Cluster

        each, more = divmod(slots, nodes)
        started = Cluster()
        try:
            for node in range(nodes):
                head = {"include_dashboard": False} if node == 0 else {}
                started.add_node(num_cpus=each + (node < more), object_store_memory=OBJECTS, **head)
            yield started.address
        finally:
            started.shutdown()


# -- the store on S3


def _serve(fail_every: int, pipe: Connection) -> None:
    """Run an S3 server until the parent is done; send requests by method and CPU seconds when asked."""
    sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))
    from s3 import S3Server

    with S3Server() as server:
        server.make_bucket("scale")
        server.reset()
        server.fail_every = fail_every
        pipe.send(server.variables)
        while pipe.recv():
            pipe.send((Counter(_kind(*one) for one in list(server.requests)), sum(os.times()[:2])))


def _kind(method: str, path: str) -> str:
    """Return the method; a GET of the bucket itself is LIST."""
    return "LIST" if method == "GET" and path.strip("/").count("/") == 0 else method


@contextmanager
def s3(fail_every: int) -> Iterator[Callable[[], tuple[Counter, float]]]:
    """Start an S3 server and set its environment variables; yield a function that returns its request counts."""
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(fail_every, child), daemon=True)
    process.start()
    os.environ.update(parent.recv())

    def request_counts() -> tuple[Counter, float]:
        parent.send(True)
        return parent.recv()

    try:
        yield request_counts
    finally:
        parent.send(False)
        process.join(10)
        process.kill()


# -- one run


def look_at(pid: int) -> Seen:
    """Sample memory and CPU time of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Seen(time.time(), pages * PAGE / 1e6, (int(fields[11]) + int(fields[12])) / TICKS)


def began_at(pid: int) -> float | None:
    """Return the start time of a process in Unix seconds; None if it has ended."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / TICKS


def own_megabytes(pid: int) -> float:
    """Return the proportional set size of a process in MB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def drive(address: str, store: str, notes: Path, options: argparse.Namespace, seconds: float) -> dict:
    """Run the driver once in its own process; return the figures."""
    command = [sys.executable, HERE / "scale_run.py", address, store, notes, options.cells, seconds]
    process = subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        process.stdout.readline()  # the store is prepared
        before = options.request_counts() if options.request_counts else None
        process.stdin.write("\n")
        process.stdin.flush()
        seen, births, memory = _watch(process, notes, options.slots)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise SystemExit(f"the driver ended with {process.returncode}")
    driven = Driven(**json.loads((notes / "driven.json").read_text()))
    found = figures(noted(notes), seen, driven, options.slots, seconds)
    found |= {
        "first worker's process began after, seconds": min(births) - driven.began,
        "last worker's process began after, seconds": max(births) - driven.began,
        "worker, MB": memory,
        "predicted efficiency at 5,000 cells": predicted(found, 5000),
    }
    return found | (requests_of(before, options.request_counts(), found["cells"]) if options.request_counts else {})


def _watch(process: subprocess.Popen, notes: Path, slots: int) -> tuple[list[Seen], list[float], float]:
    """Sample the driver until it ends.

    Returns:
        Samples of the driver, start times of its workers, and their mean memory in MB once all have started.
    """
    births: dict[int, float | None] = {}
    seen, memory = [], 0.0
    while process.poll() is None:
        seen.append(look_at(process.pid))
        pids = [int(path.stem.partition("-")[2]) for path in notes.glob("times-*.txt")]
        births |= {pid: began_at(pid) for pid in pids if pid not in births}
        if len(pids) == slots and not memory:
            memory = sum(map(own_megabytes, pids)) / slots
        time.sleep(LOOK)
    return seen, [began for began in births.values() if began is not None], memory


def requests_of(before: tuple[Counter, float], after: tuple[Counter, float], cells: int) -> dict:
    """Count the requests between two samples of the S3 server, per cell."""
    counts = after[0] - before[0]
    per_cell = {name: round(count / cells, 2) for name, count in sorted(counts.items())}
    return {"requests": counts.total(), "requests per cell": per_cell, "server, CPU seconds": after[1] - before[1]}


def print_table(title: str, runs: list[dict]) -> None:
    """Print a table with a column for each run."""
    table = Table("what", *[f"{run['seconds of a cell']:g} s" for run in runs], title=title)
    for name in runs[0]:
        table.add_row(name, *[_formatted(run.get(name, "")) for run in runs])
    Console().print(table)


def _formatted(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {amount:g}" for name, amount in value.items())
    if isinstance(value, list):
        return " ".join(f"{item:g}" for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run_all(options: argparse.Namespace) -> list[dict]:
    """Run every cell length on one cluster, each with its own store and driver."""
    begun, runs = time.perf_counter(), []
    with cluster(options.slots, options.nodes) as address:
        started = time.perf_counter() - begun
        for seconds in options.job_seconds:
            with tempfile.TemporaryDirectory(prefix="augbench-scale-") as folder:
                store = f"s3://scale/{seconds:g}" if options.request_counts else f"{folder}/store"
                found = drive(address, store, Path(folder), options, seconds)
                runs.append({**found, "cluster start, seconds": started})
                print(f"cells of {seconds:g} s: efficiency {found['efficiency']:.3f}", file=sys.stderr)
    return runs


def main() -> None:
    """Run the bench, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=5000, help="approximate number (default 5,000)")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--job-seconds", type=float, nargs="+", default=[10.0, 3.0, 1.0])
    parser.add_argument("--store", choices=("folder", "s3"), default="folder")
    parser.add_argument("--fail-every", type=int, default=200, help="with --store s3: every Nth request fails; 0: none")
    parser.add_argument(
        "--steps", type=int, nargs="*", metavar="CELLS", help="only the steps without Ray, at these sizes"
    )
    parser.add_argument("--starting", type=int, help="workers that start at once (default: twice the cores)")
    options = parser.parse_args()
    if options.steps is not None:
        steps.measure_all(options.steps or steps.SIZES)
        return
    options.starting = options.starting or 2 * (os.cpu_count() or 1)
    own = {"TUNE_MAX_PENDING_TRIALS_PG": str(options.starting)}
    os.environ.update({name: os.environ.get(name, value) for name, value in {**RAY_ENV, **own}.items()})
    with s3(options.fail_every) if options.store == "s3" else nullcontext() as options.request_counts:
        runs = run_all(options)
    where = f"{options.slots} slots on {options.nodes} nodes, {os.cpu_count()} cores"
    print_table(f"{runs[0]['cells']:,} cells, {where}, store: {options.store}", runs)
    setup = {"store": options.store, "fail_every": options.fail_every, "nodes": options.nodes, "cores": os.cpu_count()}
    print(json.dumps({"bench": "scale", **setup, "goals": GOALS, "runs": runs, "versions": versions()}))


if __name__ == "__main__":
    main()
