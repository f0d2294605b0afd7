"""Compare a grid run on clusters of several raylets with the same grid run in one process.

    python bench/multinode.py [GRID] [--set key=value ...] [--keep FOLDER]

Runs the command line three times, each into its own store: inline; on a cluster of three raylets (a head without CPUs,
a CPU node, and a node with a GPU that exists only for Ray's scheduler); and on two nodes started by `ray start`.
Compares cells, scores and images byte by byte. Exits with status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from augbench.storage.store import Store, json_bytes

CPUS = os.cpu_count() or 1
RAY = Path(sys.executable).parent / "ray"


def contents(store: Store) -> dict[str, str]:
    """Digest everything that must not depend on the executor: each result, scores file, image and mask, by name."""
    found = {
        f"cells/{key}": hashlib.sha256(json_bytes(store.read_record(key)["result"])).hexdigest()
        for key in store.keys("cells")
    }
    assert store.files.folder is not None
    for pattern in ("scores/*", "pools/*/images/*", "pools/*/masks/*"):
        for path in store.files.folder.glob(pattern):
            found[str(path.relative_to(store.files.folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# -- clusters


Joining = tuple[list[str], dict[str, str]]
"""Arguments of a command that joins a cluster, and its environment."""
INLINE: Joining = (["--executor", "inline"], dict(os.environ))


@contextlib.contextmanager
def folder_of_ray() -> Iterator[Path]:
    """Give Ray a separate folder for its files, which no other Ray on this machine reads or deletes.

    `ray.cluster_utils` writes the address of a cluster into the subfolder ``ray``, and expects it to exist. The path is
    short, since Ray creates sockets below it.
    """
    before = os.environ.get("RAY_TMPDIR")
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        os.environ["RAY_TMPDIR"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["RAY_TMPDIR"]
            os.environ |= {} if before is None else {"RAY_TMPDIR": before}


@contextlib.contextmanager
def raylets() -> Iterator[Joining]:
    """Start a cluster of `ray.cluster_utils`."""
    from ray.cluster_utils import Cluster

    with folder_of_ray():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            cluster.add_node(num_cpus=max(CPUS // 2, 1))
            cluster.add_node(num_cpus=max(CPUS - CPUS // 2, 1), num_gpus=1)
            yield ["--address", cluster.address], dict(os.environ)
        finally:
            cluster.shutdown()


@contextlib.contextmanager
def started(dashboard: int | None = None) -> Iterator[Joining]:
    """Start two nodes with `ray start`, each with its own temporary folder.

    Nodes that share a folder delete each other's files.

    Args:
        dashboard: the port of a dashboard that takes jobs; needs `ray[default]`.
    """
    port, folder = (
        free_port(),
        Path(tempfile.mkdtemp(prefix="augbench-", dir="/tmp")),
    )  # short, for sockets
    dashboard_options = [f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"] if dashboard else []
    head = ["--head", f"--port={port}", f"--ray-client-server-port={free_port()}", "--num-cpus=1",
            *(dashboard_options or ["--include-dashboard=false"])]  # fmt: skip
    second = [f"--address=127.0.0.1:{port}", f"--num-cpus={max(CPUS - 1, 1)}"]
    nodes: list[subprocess.Popen] = []
    try:
        for number, options in enumerate((head, second)):
            own, output = folder / str(number), folder / f"{number}.log"
            agent = f"--dashboard-agent-listen-port={free_port()}"  # takes jobs; the default port would clash
            command = [RAY, "start", "--block", f"--temp-dir={own}", agent, *options]
            with output.open("w") as log:
                node = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=rays_environment())
            nodes.append(node)
            _wait_until(lambda output=output: "Ray runtime started" in output.read_text(), node, output)
        if dashboard:
            _wait_until(lambda: _answers(dashboard), nodes[0], folder / "0.log")
        yield ["--address", f"127.0.0.1:{port}"], rays_environment()
    finally:
        for node in reversed(nodes):
            node.terminate()
            node.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def rays_environment() -> dict[str, str]:
    """Return the environment of `ray start` and of drivers that join. Ray requires a token, since drivers run code."""
    return {
        **os.environ,
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",  # jobs are commands
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # default: 30 s
    }


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"ray start did not start:\n{log.read_text()}")
        time.sleep(0.1)


# -- runs


def complete(grid: Path, changes: list[str], store: Path, joining: Joining) -> float:
    """Run the command line once into a store; return its seconds."""
    settings = [word for change in changes for word in ("--set", change)]
    where, environment = joining
    begun = time.monotonic()
    command = [sys.executable, "-m", "augbench", "run", grid, *settings, "--store", store, *where]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.monotonic() - begun


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, nargs="?", default=Path("tune_configs/demo_surfaces.yaml"))
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="key=value")
    parser.add_argument("--keep", type=Path, help="a folder for the three stores (default: temporary)")
    options = parser.parse_args()
    table = Table("run", "seconds", "cells", "score files, images and masks", "differ from inline")
    seconds, differing, inline = {}, {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        for name, cluster in (("inline", None), ("raylets", raylets), ("ray start", started)):
            store = folder / name.replace(" ", "_")
            with cluster() if cluster else contextlib.nullcontext(INLINE) as joining:
                seconds[name] = complete(options.grid, options.changes, store, joining)
            found = contents(Store(store))
            inline = inline or found
            differing[name] = sorted(key for key in inline.keys() | found.keys() if inline.get(key) != found.get(key))
            cells = sum(key.startswith("cells/") for key in found)
            table.add_row(name, f"{seconds[name]:.0f}", str(cells), str(len(found) - cells), str(len(differing[name])))
            if differing[name]:
                print(f"{name}: {', '.join(differing[name][:5])}", file=sys.stderr)
    Console().print(table)
    figures = {"seconds": {name: round(value, 1) for name, value in seconds.items()}, "compared": len(inline)}
    print(json.dumps({**figures, "differ": {name: len(keys) for name, keys in differing.items()}}))
    raise SystemExit(any(differing.values()))


if __name__ == "__main__":
    main()
