"""The cluster of bench/chaos.py: several raylets on this machine stand for nodes.

Processes are looked up below the raylets, so that no process of another cluster on this machine is ever killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from multinode import folder_of_ray

T = TypeVar("T")

WORKING = 2  # nodes with one CPU each, beside a head without any
HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}
"""Health checks that detect a dead node within seconds: Ray's default of 30 s would make rounds longer."""
TRIES = 5  # attempts to start a node
TRAINING = "Trainable"  # in the process title of a Ray worker
GENERATING = "ChunkMaker"


class Machines:
    """A head and `WORKING` nodes of one CPU each. Use as a context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """``environment``: additional environment variables of every process of the cluster."""
        self._environment = dict(environment)
        self._cluster: Any = None

    def __enter__(self) -> Machines:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH_CHECKS}
        with contextlib.ExitStack() as begun:
            begun.enter_context(folder_of_ray())
            with self._variables():
                self._cluster = _with_retries(lambda: Cluster(initialize_head=True, head_node_args=head))
            begun.callback(self._cluster.shutdown)
            self.top_up()
            self._begun = begun.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._begun.close()

    @property
    def address(self) -> str:
        """The address that drivers connect to."""
        return self._cluster.address

    @property
    def working(self) -> int:
        """The number of nodes beside the head."""
        return len(self.nodes)

    @property
    def nodes(self) -> list[Any]:
        """The nodes beside the head."""
        return list(self._cluster.worker_nodes)

    @property
    def head(self) -> Any:
        """The node that only controls the others, and may run the driver."""
        return self._cluster.head_node

    def top_up(self) -> None:
        """Add nodes until there are `WORKING`."""
        while self.working < WORKING:
            self.join()

    def join(self) -> None:
        """Add a node."""
        with self._variables():
            _with_retries(lambda: self._cluster.add_node(num_cpus=1))

    def kill_one(self, which: int) -> None:
        """Kill a node at once: raylet, agents and workers."""
        nodes = sorted(self.nodes, key=lambda node: node.node_id)
        self.kill(nodes[which % len(nodes)])

    def kill(self, node: Any) -> None:
        """Kill a node at once. With the head its control service dies, without which no cluster lives on."""
        raylet = _raylet(node)
        controls = [one.process.pid for one in node.all_processes.get("gcs_server", ())]
        for pid in [raylet, *controls, *below(raylet)]:
            kill(pid)
        self._cluster.remove_node(node, allow_graceful=False)

    def workers(self, kind: str, at_work_on: str = "") -> list[int]:
        """Return the pids of workers of a ``kind``, `TRAINING` or `GENERATING`, whose title contains ``at_work_on``."""
        # Includes the head: Ray may place actors that reserve no resources, like CPU generators, anywhere.
        found = [pid for node in self._cluster.list_all_nodes() for pid in below(_raylet(node))]
        return sorted(pid for pid in found if kind in (title := title_of(pid)) and at_work_on in title)

    @contextlib.contextmanager
    def _variables(self) -> Iterator[None]:
        """Set the variables here: a raylet passes the environment of its parent to its workers."""
        before = dict(os.environ)
        os.environ.update(self._environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _with_retries(start: Callable[[], T]) -> T:
    """Call ``start`` until it succeeds: Ray allows a node 30 s to start, too little on a busy machine."""
    for _ in range(TRIES - 1):
        try:
            return start()
        except Exception as error:  # Ray has no specific exception type
            if "timed out during startup" not in str(error):
                raise
    return start()


def kill(pid: int) -> bool:
    """Send SIGKILL, like the out-of-memory killer; return False if the process has ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], object], seconds: float, pause: float = 0.02) -> bool:
    """Poll ``condition()`` until it is true or the time is up; return whether it is true."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(pause)
    return bool(true)


def _raylet(node: Any) -> int:
    return node.all_processes["raylet"][0].process.pid


def below(pid: int) -> list[int]:
    """Return all descendants of a process."""
    children: list[int] = []
    for thread in (Path("/proc") / str(pid) / "task").glob("*"):
        with contextlib.suppress(OSError):  # ended since it was listed
            children += map(int, (thread / "children").read_text().split())
    return children + [deeper for child in children for deeper in below(child)]


def title_of(pid: int) -> str:
    """Return the title of a process, "" if it has ended. Ray sets the titles of its workers."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
