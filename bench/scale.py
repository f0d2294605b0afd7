"""How the driver behaves with thousands of cells on many slots, without GPUs: a cluster of raylets on this machine.

    python bench/scale.py [--cells 5000] [--slots 64] [--nodes 4] [--job-seconds 10 3 1] [--starting 4]
    python bench/scale.py --store s3 [--fail-every 200]
    python bench/scale.py --steps [1000 5000 20000]

The driver is the production one, in a process of its own, and joins the cluster as it would join any; a cell only
sleeps, then writes a real record and 1,004 scores. Efficiency is ideal / measured: ideal = ceil(cells / slots) x
seconds of a cell; measured is from the call of `run` to its end, with planning, starting workers, the last cell and
leaving. With ``--store s3`` results go to an S3 server on loopback, in a process of its own, of whose requests every
Nth ends in 503 SlowDown. ``--steps`` needs no Ray: what grows faster than the number of cells; see bench/steps.py.
Linux only (it reads /proc). Workers come up on the cores that there are, at some 2 CPU seconds each: real machines
have cores of their own for that, these share a few, so Tune is told to start only ``--starting`` at once. Together they
would take as long, and none would be at work before all are.
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
LOOK = 0.5  # seconds between looks at the driver
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def cluster(slots: int, nodes: int) -> Iterator[str]:
    """That many raylets, which share the slots as CPUs; its address. Their workers inherit this environment."""
    with folder_of_ray():
        from ray.cluster_utils import Cluster

        each, more = divmod(slots, nodes)
        made = Cluster()
        try:
            for node in range(nodes):
                head = {"include_dashboard": False} if node == 0 else {}
                made.add_node(num_cpus=each + (node < more), object_store_memory=OBJECTS, **head)
            yield made.address
        finally:
            made.shutdown()


# -- the store on S3


def _serve(fail_every: int, pipe: Connection) -> None:
    """An S3 server until the other side is done; when it is asked it tells its requests by method, and CPU seconds."""
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
    """A GET of the bucket itself is a listing."""
    return "LIST" if method == "GET" and path.strip("/").count("/") == 0 else method


@contextmanager
def s3(fail_every: int) -> Iterator[Callable[[], tuple[Counter, float]]]:
    """What asks the server how often it was asked; the variables by which clients find it are in the environment."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(fail_every, there), daemon=True)
    process.start()
    os.environ.update(here.recv())

    def asked() -> tuple[Counter, float]:
        here.send(True)
        return here.recv()

    try:
        yield asked
    finally:
        here.send(False)
        process.join(10)
        process.kill()


# -- one run


def look_at(pid: int) -> Seen:
    """A process now: memory and CPU time."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Seen(time.time(), pages * PAGE / 1e6, (int(fields[11]) + int(fields[12])) / TICKS)


def began_at(pid: int) -> float | None:
    """When a process began, in Unix seconds; None where it has ended."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / TICKS


def own_megabytes(pid: int) -> float:
    """Memory of a process, what it shares with others divided among them; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def drive(address: str, store: str, notes: Path, options: argparse.Namespace, seconds: float) -> dict:
    """One run of the driver in a process of its own; what was found."""
    words = [sys.executable, HERE / "scale_run.py", address, store, notes, options.cells, seconds]
    process = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()  # the store is as it shall be
        before = options.asked() if options.asked else None
        process.stdin.write("\n")
        process.stdin.flush()
        seen, births, memory = _watch(process, notes, options.slots)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise SystemExit(f"the driver ended with {process.returncode}")
    said = Driven(**json.loads((notes / "driven.json").read_text()))
    found = figures(noted(notes), seen, said, options.slots, seconds)
    found |= {
        "first worker's process began after, seconds": min(births) - said.began,
        "last worker's process began after, seconds": max(births) - said.began,
        "worker, MB": memory,
        "predicted efficiency at 5,000 cells": predicted(found, 5000),
    }
    return found | (requests_of(before, options.asked(), found["cells"]) if options.asked else {})


def _watch(process: subprocess.Popen, notes: Path, slots: int) -> tuple[list[Seen], list[float], float]:
    """Look at the driver until it ends; of its workers, when each began, and memory in MB when all are up, the mean."""
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
    """What the S3 server was asked meanwhile, per cell."""
    counts = after[0] - before[0]
    per_cell = {name: round(count / cells, 2) for name, count in sorted(counts.items())}
    return {"requests": counts.total(), "requests per cell": per_cell, "server, CPU seconds": after[1] - before[1]}


def print_table(title: str, runs: list[dict]) -> None:
    """A column for each run."""
    table = Table("what", *[f"{run['seconds of a cell']:g} s" for run in runs], title=title)
    for name in runs[0]:
        table.add_row(name, *[_shown(run.get(name, "")) for run in runs])
    Console().print(table)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {amount:g}" for name, amount in value.items())
    if isinstance(value, list):
        return " ".join(f"{item:g}" for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run_all(options: argparse.Namespace) -> list[dict]:
    """Every length of a cell on one cluster, each with a store and a driver of its own."""
    begun, runs = time.perf_counter(), []
    with cluster(options.slots, options.nodes) as address:
        started = time.perf_counter() - begun
        for seconds in options.job_seconds:
            with tempfile.TemporaryDirectory(prefix="augbench-scale-") as folder:
                store = f"s3://scale/{seconds:g}" if options.asked else f"{folder}/store"
                found = drive(address, store, Path(folder), options, seconds)
                runs.append({**found, "cluster start, seconds": started})
                print(f"cells of {seconds:g} s: efficiency {found['efficiency']:.3f}", file=sys.stderr)
    return runs


def main() -> None:
    """Run what is asked for, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=5000, help="about so many (default 5,000)")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--job-seconds", type=float, nargs="+", default=[10.0, 3.0, 1.0])
    parser.add_argument("--store", choices=("folder", "s3"), default="folder")
    parser.add_argument("--fail-every", type=int, default=200, help="of s3: every Nth request fails; 0: none")
    parser.add_argument("--steps", type=int, nargs="*", metavar="CELLS", help="only what needs no Ray, in these sizes")
    parser.add_argument("--starting", type=int, help="workers that start at once (default: twice the cores)")
    options = parser.parse_args()
    if options.steps is not None:
        steps.measure_all(options.steps or steps.SIZES)
        return
    options.starting = options.starting or 2 * (os.cpu_count() or 1)
    own = {"TUNE_MAX_PENDING_TRIALS_PG": str(options.starting)}
    os.environ.update({name: os.environ.get(name, value) for name, value in {**RAY_ENV, **own}.items()})
    with s3(options.fail_every) if options.store == "s3" else nullcontext() as options.asked:
        runs = run_all(options)
    where = f"{options.slots} slots on {options.nodes} nodes, {os.cpu_count()} cores"
    print_table(f"{runs[0]['cells']:,} cells, {where}, store: {options.store}", runs)
    setup = {"store": options.store, "fail_every": options.fail_every, "nodes": options.nodes, "cores": os.cpu_count()}
    print(json.dumps({"bench": "scale", **setup, "goals": GOALS, "runs": runs, "versions": versions()}))


if __name__ == "__main__":
    main()
