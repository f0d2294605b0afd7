"""What bench/chaos.py does to a run: one class for each disturbance, and the places where a round's store may lie."""

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

PATIENCE = (
    7.5  # seconds that a run asks a remote store again before it gives up, at least: `storage.remote_files.WAITS`
)
SMALL_DISK = "24m"  # what a round's store takes twice over
AT_WORK = 60.0  # seconds to wait for a process that is to be killed
MARKER = re.compile(r"(cells/[^./][^/]*\.json|pools/[^/]+/chunks/\d+\.jsonl)$")  # what commits a cell or a chunk
RECORD, CHUNK = re.compile(r"cells/[^./][^/]*\.json$"), re.compile(r"pools/[^/]+/(chunks/\d+\.jsonl|images/\d+\.png)$")
UNIT = " surfaces-"  # behind the title of a worker that is at work: how keys of the grid begin
UNFINISHED = re.compile(r"pools/[^/]+/(chunks|images|masks)/[^/]+$")

# -- where a store lies


class Place:
    """A store as files: listed, read and damaged behind the back of those that work in it."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self.kind, self.url = kind, url
        self._fs, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)

    def names(self) -> set[str]:
        """Every file, unfinished ones too, relative to the store."""
        return {path.removeprefix(self._root).lstrip("/") for path in self._fs.find(self._root)}

    def read(self, name: str) -> bytes:
        """A file."""
        return self._fs.cat_file(f"{self._root}/{name}")

    def contents(self) -> dict[str, bytes]:
        """Every file."""
        found = self._fs.cat([f"{self._root}/{name}" for name in sorted(self.names())] or [])
        return {path.removeprefix(self._root).lstrip("/"): data for path, data in found.items()}

    def write(self, name: str, data: bytes) -> None:
        """Write a file in place, as it should not be done."""
        self._fs.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(f"{self._root}/{name}", data)

    def delete(self, name: str) -> None:
        """Remove a file; it may be gone."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")


def committed(names: Iterable[str]) -> int:
    """How many cells and chunks are done."""
    return sum(bool(MARKER.match(name)) for name in names)


@contextlib.contextmanager
def small_disk() -> Iterator[tuple[Path, str]]:
    """A disk that can be filled, and what it is; a folder where this system lets nobody mount one: see `PRETENDER`."""
    folder = Path(tempfile.mkdtemp(prefix="augbench-chaos-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    mounted = bool(shutil.which("mount")) and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield folder, "tmpfs" if mounted else "pretended"
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


FULL = "AUGBENCH_CHAOS_FULL"  # the variable that names the file
PRETENDER = f'''
"""A plug-in that loads everywhere: as long as a certain file is there, every write to disk ends as on a full one."""

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


# -- what may happen


@dataclass
class Scene:
    """What there is to strike at."""

    machines: Machines
    place: Place
    driver: subprocess.Popen
    server: Any = None  # tests/helpers/s3.py's, where the store is on S3
    full: Path | None = None  # of a small disk: the file that fills it
    pretended: bool = False  # that disk is none: see `PRETENDER`
    expected: frozenset[str] = frozenset()  # names of the files of a run that is done
    damaged: set[str] = field(default_factory=set)  # names of files that were cut short
    problems: list[str] = field(default_factory=list)  # what should not have been


Phase = Literal["chunks", "cells", "any"]


class Disturbance:
    """Something that befalls a run at a moment. What a run may then end with, beside success, is in `ends_with`."""

    name: ClassVar[str]
    places: ClassVar[tuple[str, ...]] = ("folder", "s3")
    phase: ClassVar[Phase] = "any"
    ends_with: ClassVar[dict[int, str]] = {}  # exit status -> what its one line matches
    stays: ClassVar[bool] = False  # until the run has ended
    lingers: ClassVar[bool] = False  # a later run may be the one that finds it

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def strike(self, scene: Scene) -> bool:
        """Do it; False where there was nothing left to strike at."""
        raise NotImplementedError

    def lift(self, scene: Scene) -> None:
        """Make the place usable again."""


class _KilledWorker(Disturbance):
    kind: ClassVar[str]

    def strike(self, scene: Scene) -> bool:
        """Kill one of those at work; wait for it where none has begun."""
        hit = False

        def strike_once() -> bool:
            nonlocal hit
            found = scene.machines.workers(self.kind, UNIT)
            hit = bool(found) and kill(found[int(self.rng.integers(len(found)))])
            return hit or scene.driver.poll() is not None

        wait_until(strike_once, AT_WORK, pause=0.002)
        return hit


class Worker(_KilledWorker):
    """Of a training."""

    name, phase, kind = "worker killed while it trains", "cells", TRAINING


class Generator(_KilledWorker):
    """Of pictures."""

    name, phase, kind = "generator killed while it makes a chunk", "chunks", GENERATING


class Node(Disturbance):
    """A machine is gone, with all that went on there."""

    name = "machine killed"

    def strike(self, scene: Scene) -> bool:
        """Never the last one: without any a run could only wait."""
        if scene.machines.working < 2:
            scene.machines.join()
        scene.machines.kill_one(int(self.rng.integers(100)))
        return True


class NodeReplaced(Node):
    """A machine is gone, and after a while there is another."""

    name = "machine killed, another joins"

    def strike(self, scene: Scene) -> bool:
        """Kill, wait, join."""
        super().strike(scene)
        time.sleep(self.rng.uniform(0, 2))
        scene.machines.join()
        return True


class Driver(Disturbance):
    """The driver is gone; Ray ends its workers when it notices."""

    name, places, ends_with = "driver killed", ("folder", "s3", "disk"), {-signal.SIGKILL: ""}

    def strike(self, scene: Scene) -> bool:
        """As the system does it where memory is short."""
        return scene.driver.poll() is None and kill(scene.driver.pid)


class TornFiles(Driver):
    """The driver is gone, and writers with it: files are left that they had begun."""

    name, places, phase = "driver killed, files half written", ("folder",), "chunks"

    def strike(self, scene: Scene) -> bool:
        """Beside some files that are there, under the names by which `storage.files` begins one."""
        hit = super().strike(scene)
        names = scene.place.names()
        begun = {name.split("/")[1] for name in scene.expected - names if CHUNK.match(name)}  # pools, and not done
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
        """To the driver alone: its workers are no children of the terminal."""
        if scene.driver.poll() is not None:
            return False
        scene.driver.send_signal(signal.SIGINT)
        return True


class FullDisk(Disturbance):
    """Nothing can be written any more."""

    name, places, stays = "disk full", ("disk",), True
    ends_with = {2: r"cannot write '.*No space left on device"}

    def strike(self, scene: Scene) -> bool:
        """To the last block."""
        assert scene.full is not None
        with scene.full.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # it ends by being full
            while not scene.pretended:
                file.write(bytes(4096))
        return scene.driver.poll() is None

    def lift(self, scene: Scene) -> None:
        """Somebody made room."""
        assert scene.full is not None
        scene.full.unlink(missing_ok=True)


class FolderAway(Disturbance):
    """The store's folder is not there for a while, as where a file server is unmounted."""

    name, places = "store's folder away for seconds", ("folder",)
    ends_with = {2: "store '.*' is not there: "}

    def strike(self, scene: Scene) -> bool:
        """By another name, and back. Whatever was made in its place meanwhile hides nothing: it is seen and told."""
        folder = Path(scene.place.url)
        away = folder.with_name(f"{folder.name}.away")
        folder.rename(away)
        time.sleep(self.rng.uniform(1, 4))
        if folder.exists():
            scene.problems.append("a store was made anew where it had gone away")
            folder.rename(folder.with_name(f"{folder.name}.second"))
        away.rename(folder)
        return True


class StoreBusy(Disturbance):
    """S3 answers 503, but not for longer than a run is patient."""

    name, places = "S3 answers 503 for seconds", ("s3",)

    def strike(self, scene: Scene) -> bool:
        """For less than `PATIENCE`."""
        scene.server.down = True
        time.sleep(self.rng.uniform(1, PATIENCE / 2))
        scene.server.down = False
        return True


class StoreDown(Disturbance):
    """S3 answers 503 until the run has given up."""

    name, places, stays = "S3 answers 503 till the run ends", ("s3",), True
    ends_with = {2: "run the same command again when it answers"}

    def strike(self, scene: Scene) -> bool:
        """From now on."""
        scene.server.down = True
        return scene.driver.poll() is None

    def lift(self, scene: Scene) -> None:
        """It answers again."""
        scene.server.down = False


class _Damaged(Disturbance):
    lingers = True
    ends_with: ClassVar[dict[int, str]] = {2: "delete it, and run the grid again to make it anew"}
    what: ClassVar[re.Pattern[str]]

    def strike(self, scene: Scene) -> bool:
        """Half of a committed file is lost, as after a crash of a disk."""
        found = sorted(name for name in scene.place.names() if self.what.match(name))
        if found:
            name = found[int(self.rng.integers(len(found)))]
            data = scene.place.read(name)
            scene.place.write(name, data[: len(data) // 2])
            scene.damaged.add(name)
        return bool(found)


class Record(_Damaged):
    """Of a cell that is done."""

    name, phase, what = "committed record cut short", "cells", RECORD


class Chunk(_Damaged):
    """A chunk's marker, or one of its pictures."""

    name, what = "committed chunk or picture cut short", CHUNK


DISTURBANCES: tuple[type[Disturbance], ...] = (
    Worker, Generator, Node, NodeReplaced, Driver, TornFiles, Interrupt, FullDisk, FolderAway, StoreBusy, StoreDown,
    Record, Chunk,
)  # fmt: skip
