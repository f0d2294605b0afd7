"""What bench/chaos.py strikes at: a Ray cluster of several machines, played by raylets of this one, and its processes.

Processes are found from the raylets down, so that nothing of another cluster on this machine is ever hit.
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

WORKING = 2  # machines with a CPU each, beside a head that only drives
NOTICED = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
"""How soon a dead machine is missed: Ray's own half a minute would only make rounds longer."""
TRIES = 5  # to start a machine
TRAINING = "Trainable"  # in the title that Ray gives a worker
GENERATING = "ChunkMaker"


class Machines:
    """A head and `WORKING` machines of one CPU each. Use as a context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """``environment``: variables that every process of the cluster gets beside those of this process."""
        self._environment = dict(environment)
        self._cluster: Any = None

    def __enter__(self) -> Machines:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": NOTICED}
        with contextlib.ExitStack() as begun:
            begun.enter_context(folder_of_ray())
            with self._variables():
                self._cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
            begun.callback(self._cluster.shutdown)
            self.top_up()
            self._begun = begun.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._begun.close()

    @property
    def address(self) -> str:
        """Where a driver joins."""
        return self._cluster.address

    @property
    def working(self) -> int:
        """How many machines work, beside the head."""
        return len(self._cluster.worker_nodes)

    def top_up(self) -> None:
        """As many working machines as there were in the beginning."""
        while self.working < WORKING:
            self.join()

    def join(self) -> None:
        """One more machine."""
        with self._variables():
            _patiently(lambda: self._cluster.add_node(num_cpus=1))

    def kill_one(self, which: int) -> None:
        """A machine is gone from one moment to the next: raylet, agents and workers."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: node.node_id)
        node = nodes[which % len(nodes)]
        raylet = _raylet(node)
        for pid in [raylet, *below(raylet)]:
            kill(pid)
        self._cluster.remove_node(node, allow_graceful=False)

    def workers(self, kind: str, at_work_on: str = "") -> list[int]:
        """Pids of the workers that are `TRAINING` or `GENERATING`; with ``at_work_on``, whose title says so, too."""
        # On the head too: what reserves nothing, as generators do where there is no GPU, may be anywhere.
        found = [pid for node in self._cluster.list_all_nodes() for pid in below(_raylet(node))]
        return sorted(pid for pid in found if kind in (title := title_of(pid)) and at_work_on in title)

    @contextlib.contextmanager
    def _variables(self) -> Iterator[None]:
        """A raylet hands the variables of whoever starts it to its workers."""
        before = dict(os.environ)
        os.environ.update(self._environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _patiently(start: Callable[[], T]) -> T:
    """What ``start`` starts. Ray gives a machine half a minute, which is too little where others are at work too."""
    for _ in range(TRIES - 1):
        try:
            return start()
        except Exception as error:  # Ray has no type for it
            if "timed out during startup" not in str(error):
                raise
    return start()


def kill(pid: int) -> bool:
    """As the system's out-of-memory killer does; False where it was gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], object], seconds: float, pause: float = 0.02) -> bool:
    """Whether ``condition()`` came true in that time."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(pause)
    return bool(true)


def _raylet(node: Any) -> int:
    return node.all_processes["raylet"][0].process.pid


def below(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    children: list[int] = []
    for thread in (Path("/proc") / str(pid) / "task").glob("*"):
        with contextlib.suppress(OSError):  # ended since it was listed
            children += map(int, (thread / "children").read_text().split())
    return children + [deeper for child in children for deeper in below(child)]


def title_of(pid: int) -> str:
    """What `ps` shows of a process, "" where it has ended. Ray titles its workers."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
