"""The disturbances of bench/chaos.py, one class each, and the stores that a round can use."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import fsspec
import numpy as np
from chaos_machines import GENERATING, TRAINING, Machines, kill, wait_until

# seconds that a run retries a remote store before it gives up, at least: `storage.remote_files.WAITS`
PATIENCE = 7.5
SMALL_DISK = "24m"  # twice the size of a round's store
AT_WORK = 60.0  # seconds to wait for a process to kill
MARKER = re.compile(r"(cells/[^./][^/]*\.json|pools/[^/]+/chunks/\d+\.jsonl)$")  # commits a cell or a chunk
RECORD, CHUNK = re.compile(r"cells/[^./][^/]*\.json$"), re.compile(r"pools/[^/]+/(chunks/\d+\.jsonl|images/\d+\.png)$")
UNIT = " surfaces-"  # in the title of a working worker: the prefix of the grid's keys
UNFINISHED = re.compile(r"pools/[^/]+/(chunks|images|masks)/[^/]+$")

# -- stores


class Place:
    """Direct access to the files of a store: lists, reads and damages them while a run uses the store."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self.kind, self.url = kind, url
        self._fs, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)

    def names(self) -> set[str]:
        """Return the names of all files, unfinished ones too, relative to the store."""
        return {path.removeprefix(self._root).lstrip("/") for path in self._fs.find(self._root)}

    def read(self, name: str) -> bytes:
        """Read a file."""
        return self._fs.cat_file(f"{self._root}/{name}")

    def contents(self) -> dict[str, bytes]:
        """Read all files."""
        found = self._fs.cat([f"{self._root}/{name}" for name in sorted(self.names())] or [])
        return {path.removeprefix(self._root).lstrip("/"): data for path, data in found.items()}

    def write(self, name: str, data: bytes) -> None:
        """Write a file in place, not atomically."""
        self._fs.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(f"{self._root}/{name}", data)

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")


def committed(names: Iterable[str]) -> int:
    """Count the committed cells and chunks."""
    return sum(bool(MARKER.match(name)) for name in names)


@contextlib.contextmanager
def small_disk() -> Iterator[tuple[Path, str]]:
    """Mount a small tmpfs; if this system forbids it, make a folder for `PRETENDER`.

    Yields:
        The folder, and "tmpfs" or "pretended".
    """
    folder = Path(tempfile.mkdtemp(prefix="augbench-chaos-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    mounted = bool(shutil.which("mount")) and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield folder, "tmpfs" if mounted else "pretended"
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


FULL = "AUGBENCH_CHAOS_FULL"  # environment variable with the path of the file that signals a full disk
PRETENDER = f'''
"""A plug-in that every process loads: while a certain file exists, fsync fails as on a full disk."""

import os
from pathlib import Path

from augbench import Augmenter


class FullDisk(Augmenter):
    title = "full disk"


flush = os.fsync


def flush_or_fail(file):
    if Path(os.environ["{FULL}"]).exists():
        raise OSError({errno.ENOSPC}, "No space left on device")
    flush(file)


os.fsync = flush_or_fail
'''


# -- disturbances


@dataclass
class Scene:
    """The targets of disturbances."""

    machines: Machines
    place: Place
    driver: subprocess.Popen
    server: Any = None  # of tests/helpers/s3.py, if the store is on S3
    full: Path | None = None  # the file that fills the small disk
    pretended: bool = False  # the disk is simulated, see `PRETENDER`
    expected: frozenset[str] = frozenset()  # names of the files of a complete run
    damaged: set[str] = field(default_factory=set)  # names of truncated files
    problems: list[str] = field(default_factory=list)  # unexpected states


Phase = Literal["chunks", "cells", "any"]


class Disturbance:
    """A failure at a given moment of a run. `ends_with` lists how the run may then end, beside success."""

    name: ClassVar[str]
    places: ClassVar[tuple[str, ...]] = ("folder", "s3")
    phase: ClassVar[Phase] = "any"
    ends_with: ClassVar[dict[int, str]] = {}  # exit status -> pattern of its message
    stays: ClassVar[bool] = False  # lasts until the run has ended
    lingers: ClassVar[bool] = False  # a later run may detect it

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def strike(self, scene: Scene) -> bool:
        """Apply it; return False if there is no target left."""
        raise NotImplementedError

    def lift(self, scene: Scene) -> None:
        """Undo it."""


class _KilledWorker(Disturbance):
    kind: ClassVar[str]

    def strike(self, scene: Scene) -> bool:
        """Kill a working worker; wait for one if none works yet."""
        hit = False

        def strike_once() -> bool:
            nonlocal hit
            found = scene.machines.workers(self.kind, UNIT)
            hit = bool(found) and kill(found[int(self.rng.integers(len(found)))])
            return hit or scene.driver.poll() is not None

        wait_until(strike_once, AT_WORK, pause=0.002)
        return hit


class Worker(_KilledWorker):
    """A training worker is killed."""

    name, phase, kind = "worker killed while it trains", "cells", TRAINING


class Generator(_KilledWorker):
    """A generator worker is killed."""

    name, phase, kind = "generator killed while it makes a chunk", "chunks", GENERATING


class Node(Disturbance):
    """A node dies with all its processes."""

    name = "machine killed"

    def strike(self, scene: Scene) -> bool:
        """Kill a node, after adding one if it is the last: without any, a run could only wait."""
        if scene.machines.working < 2:
            scene.machines.join()
        scene.machines.kill_one(int(self.rng.integers(100)))
        return True


class NodeReplaced(Node):
    """A node dies, and another joins later."""

    name = "machine killed, another joins"

    def strike(self, scene: Scene) -> bool:
        """Kill a node, wait, add one."""
        super().strike(scene)
        time.sleep(self.rng.uniform(0, 2))
        scene.machines.join()
        return True


class Driver(Disturbance):
    """The driver is killed; Ray ends its workers when it notices."""

    name, places, ends_with = "driver killed", ("folder", "s3", "disk"), {-signal.SIGKILL: ""}

    def strike(self, scene: Scene) -> bool:
        """Send SIGKILL, like the out-of-memory killer."""
        return scene.driver.poll() is None and kill(scene.driver.pid)


class TornFiles(Driver):
    """The driver and its writers are killed; unfinished files stay."""

    name, places, phase = "driver killed, files half written", ("folder",), "chunks"

    def strike(self, scene: Scene) -> bool:
        """Kill the driver, and plant unfinished files under the temporary names of `storage.files`."""
        hit = super().strike(scene)
        names = scene.place.names()
        begun = {name.split("/")[1] for name in scene.expected - names if CHUNK.match(name)}  # unfinished pools
        whole = sorted(name for name in names if UNFINISHED.match(name) and name.split("/")[1] in begun)
        for name in self.rng.choice(whole, min(6, len(whole)), replace=False) if whole else ():
            folder, _, file = str(name).rpartition("/")
            data = scene.place.read(str(name))
            scene.place.write(f"{folder}/.{file}.{self.rng.bytes(4).hex()}.part", data[: len(data) // 2])
        scene.place.write(f"cells/.none-{self.rng.bytes(4).hex()}.json.{self.rng.bytes(4).hex()}.part", b'{"key"')
        scene.place.write(f"adapters/.toy-{self.rng.bytes(4).hex()}.{self.rng.bytes(4).hex()}.part/mean.json", b"{")
        return hit


class Interrupt(Disturbance):
    """Ctrl-C."""

    name, places, ends_with = "Ctrl-C", ("folder", "s3", "disk"), {130: "run the same command again to go on"}

    def strike(self, scene: Scene) -> bool:
        """Send SIGINT to the driver only: its workers do not belong to the terminal."""
        if scene.driver.poll() is not None:
            return False
        scene.driver.send_signal(signal.SIGINT)
        return True


class FullDisk(Disturbance):
    """The disk is full."""

    name, places, stays = "disk full", ("disk",), True
    ends_with = {2: r"cannot write '.*No space left on device"}

    def strike(self, scene: Scene) -> bool:
        """Fill the disk to the last block."""
        assert scene.full is not None
        with scene.full.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # raised once the disk is full
            while not scene.pretended:
                file.write(bytes(4096))
        return scene.driver.poll() is None

    def lift(self, scene: Scene) -> None:
        """Free the space."""
        assert scene.full is not None
        scene.full.unlink(missing_ok=True)


class FolderAway(Disturbance):
    """The store's folder disappears for a while, like an unmounted network drive."""

    name, places = "store's folder away for seconds", ("folder",)
    ends_with = {2: "store '.*' is not there: "}

    def strike(self, scene: Scene) -> bool:
        """Rename the folder and restore it. A store created in its place meanwhile is a problem."""
        folder = Path(scene.place.url)
        away = folder.with_name(f"{folder.name}.away")
        folder.rename(away)
        time.sleep(self.rng.uniform(1, 4))
        if folder.exists():
            scene.problems.append("a new store was created in place of the missing folder")
            folder.rename(folder.with_name(f"{folder.name}.second"))
        away.rename(folder)
        return True


class StoreBusy(Disturbance):
    """S3 answers 503 for less time than a run retries."""

    name, places = "S3 answers 503 for seconds", ("s3",)

    def strike(self, scene: Scene) -> bool:
        """Answer 503 for less than `PATIENCE`."""
        scene.server.down = True
        time.sleep(self.rng.uniform(1, PATIENCE / 2))
        scene.server.down = False
        return True


class StoreDown(Disturbance):
    """S3 answers 503 until the run gives up."""

    name, places, stays = "S3 answers 503 till the run ends", ("s3",), True
    ends_with = {2: "run the same command again when it answers"}

    def strike(self, scene: Scene) -> bool:
        """Answer 503 from now on."""
        scene.server.down = True
        return scene.driver.poll() is None

    def lift(self, scene: Scene) -> None:
        """Answer again."""
        scene.server.down = False


class _Damaged(Disturbance):
    lingers = True
    ends_with: ClassVar[dict[int, str]] = {2: "delete it, and run the grid again to make it anew"}
    what: ClassVar[re.Pattern[str]]

    def strike(self, scene: Scene) -> bool:
        """Truncate a committed file to half its size, as after a disk crash."""
        found = sorted(name for name in scene.place.names() if self.what.match(name))
        if found:
            name = found[int(self.rng.integers(len(found)))]
            data = scene.place.read(name)
            scene.place.write(name, data[: len(data) // 2])
            scene.damaged.add(name)
        return bool(found)


class Record(_Damaged):
    """The record of a complete cell is truncated."""

    name, phase, what = "committed record cut short", "cells", RECORD


class Chunk(_Damaged):
    """A chunk's marker or one of its images is truncated."""

    name, what = "committed chunk or image cut short", CHUNK


DISTURBANCES: tuple[type[Disturbance], ...] = (
    Worker, Generator, Node, NodeReplaced, Driver, TornFiles, Interrupt, FullDisk, FolderAway, StoreBusy, StoreDown,
    Record, Chunk,
)  # fmt: skip
