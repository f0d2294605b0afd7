"""Leases: who works on what, so that two live drivers on one store share the work instead of doing it twice.

They are advisory. Deleting them never changes a result: a unit made twice is the same unit, since the same key means
the same bytes. A lease is a file made with an exclusive create that names its driver; a driver shows that it lives by
one heartbeat file. A lease whose driver has been silent for `LIFETIME` seconds, or is a process of this machine that
is gone, may be taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from augbench.core.errors import StoreError
from augbench.storage.files import Files

LIFETIME = 60.0  # seconds of silence after which a driver counts as gone
HEARTBEAT = 15.0  # seconds
FOLDER = "leases"
DRIVERS = f"{FOLDER}/drivers"


def lease_name(key: str) -> str:
    """The file that says who holds the unit ``key``."""
    return f"{FOLDER}/{key}"


def heartbeat_name(owner: str) -> str:
    """The file that a driver writes anew every `HEARTBEAT` seconds: one, however many leases it holds."""
    return f"{DRIVERS}/{owner}"


@dataclass(frozen=True)
class Driver:
    """A run at work in a store, or what one left behind."""

    owner: str
    host: str
    pid: int | None  # on its host
    since: float | None  # Unix seconds, by its clock; None: it does not say (an earlier version)
    silence: float | None  # seconds since it last showed that it lives; None: no heartbeat file, or no times there
    lives: bool
    holds: Mapping[str, float | None]  # keys whose leases it has -> seconds since it took each, None where unknown

    @property
    def seconds(self) -> float | None:
        """For how long it has been at work, as far as is known."""
        known = [age for age in self.holds.values() if age is not None]
        return max(0.0, time.time() - self.since) if self.since is not None else max(known, default=None)


class Leases:
    """The leases one driver holds in a store; use it as a context manager, so that they are given back."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._process = {"host": socket.gethostname(), "pid": os.getpid(), "pids": _pids()}
        self._sign = json.dumps({**self._process, "since": time.time()}).encode()
        self._held: set[str] = set()
        self._others: dict[str, dict[str, Any]] = {}  # leases of other drivers as they were when they were read last
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)

    def __enter__(self) -> Leases:
        self.files.write(heartbeat_name(self.owner), self._sign)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=HEARTBEAT)  # or a last heartbeat could come after the file was removed
        for key in list(self._held):
            self.release(key)
        with contextlib.suppress(StoreError):
            self.files.remove(heartbeat_name(self.owner))

    def acquire(self, key: str) -> bool:
        """Take the lease of that unit; False while a live driver elsewhere holds it. Holding it already is True."""
        with self._lock:
            if key in self._held:
                return True
            if not self._create(key):
                if not abandoned(self.files, key):
                    return False
                self._bury(key)
                if not self._create(key):
                    return False
            self._held.add(key)
            return True

    def to_be_had(self, keys: Collection[str]) -> list[str]:
        """Of the units that others held: those that `acquire` may get now. Two listings, however many units.

        Each lease that is there is read once; that its driver lives is told by the listing of heartbeats.
        """
        taken, beating = self.files.ages(FOLDER), self.files.ages(DRIVERS)
        self._others = {key: lease for key, lease in self._others.items() if key in taken}
        unread = [key for key in keys if key in taken and key not in self._others]
        for key, data in zip(unread, self.files.read_many([lease_name(key) for key in unread]), strict=True):
            if lease := _parsed(data):
                self._others[key] = lease
        return [key for key in keys if key not in taken or self._looks_abandoned(key, taken[key], beating)]

    def _looks_abandoned(self, key: str, age: float | None, beating: Mapping[str, float | None]) -> bool:
        """As `abandoned`, by what is known; another driver may have taken it over since it was read."""
        lease = self._others.get(key, {})
        silence = beating.get(lease.get("owner"), age)
        gone = {"host", "pid"} <= lease.keys() and _gone(lease["host"], lease["pid"], lease.get("pids"))
        if silence is None or silence > LIFETIME or gone:  # None: the place tells no times here
            self._others.pop(key, None)  # read it anew next time
            return True
        return False

    def release(self, key: str) -> None:
        """Give the lease back, if it is still ours. With the store out of reach it lapses by itself."""
        with self._lock, contextlib.suppress(StoreError):
            if key not in self._held:
                return
            self._held.remove(key)
            holder = _holder(self.files, key)
            if holder and holder["owner"] == self.owner:
                self.files.remove(lease_name(key))

    def sweep(self) -> None:
        """Remove what dead drivers left: leases of units that were done meanwhile are asked for by nobody."""
        for driver in survey(self.files):
            if not driver.lives:
                for key in driver.holds:
                    if abandoned(self.files, key):  # it may have another holder by now
                        self.files.remove(lease_name(key))
                self.files.remove(heartbeat_name(driver.owner))

    def _create(self, key: str) -> bool:
        lease = {"owner": self.owner, **self._process}
        if self.files.create(lease_name(key), json.dumps(lease).encode()):
            return True
        # A remote create that was tried again may have found its own first attempt.
        holder = _holder(self.files, key)
        return bool(holder and holder["owner"] == self.owner)

    def _bury(self, key: str) -> None:
        """Remove an abandoned lease and its driver's heartbeat, which a driver that lives after all writes again."""
        holder = _holder(self.files, key)
        if holder:
            self.files.remove(heartbeat_name(holder["owner"]))
        self.files.remove(lease_name(key))

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            with contextlib.suppress(StoreError):  # the next beat may come through
                self.files.write(heartbeat_name(self.owner), self._sign)


def survey(files: Files) -> list[Driver]:
    """Every driver that shows itself in a store or holds a lease there, sorted by owner.

    Two listings, and every lease and heartbeat read once. Whether a driver lives is decided as in `abandoned`.
    """
    taken, heartbeats = files.ages(FOLDER), files.ages(DRIVERS)
    keys, beating = sorted(taken), sorted(heartbeats)
    held: dict[str, dict[str, float | None]] = {owner: {} for owner in beating}
    signs: dict[str, dict[str, Any]] = {}
    for owner, data in zip(beating, files.read_many([heartbeat_name(owner) for owner in beating]), strict=True):
        signs[owner] = _parsed(data)
    for key, data in zip(keys, files.read_many([lease_name(key) for key in keys]), strict=True):
        lease = _parsed(data)
        if isinstance(owner := lease.get("owner"), str):  # else it is being written, or gone
            held.setdefault(owner, {})[key] = taken[key]
            signs.setdefault(owner, lease)
    return [_driver(owner, signs[owner], heartbeats, held[owner]) for owner in sorted(held)]


def _driver(
    owner: str, sign: Mapping[str, Any], heartbeats: Mapping[str, float | None], holds: Mapping[str, float | None]
) -> Driver:
    host, pid, since = sign.get("host"), sign.get("pid"), sign.get("since")
    named = owner.rsplit("-", 2)  # heartbeats of earlier versions are empty, but their names tell
    host = host if isinstance(host, str) else named[0]
    if pid is None and len(named) == 3 and named[1].isdecimal():
        pid = int(named[1])
    pid = pid if isinstance(pid, int) and 0 < pid < 2**31 else None
    since = float(since) if isinstance(since, (int, float)) and 0 <= since < 2**40 else None
    silence = heartbeats.get(owner)
    if owner in heartbeats:
        silent = silence is not None and silence > LIFETIME
    else:
        silent = all(age is None or age > LIFETIME for age in holds.values())
    gone = pid is not None and _gone(host, pid, sign.get("pids"))
    return Driver(owner, host, pid, since, silence, not (silent or gone), holds)


def _parsed(data: bytes | None) -> dict[str, Any]:
    """A lease or a heartbeat; empty where it is not (yet) what it should be."""
    try:
        value = json.loads(data or b"null")
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def abandoned(files: Files, key: str) -> bool:
    """Whether nobody alive seems to hold it: its driver is silent, or its process on this host is gone."""
    age = files.age(lease_name(key))
    if age is None:
        return True
    holder = _holder(files, key)
    if holder is None:  # being written right now, or its driver died in that moment
        return age > LIFETIME
    if _gone(holder["host"], holder["pid"], holder.get("pids")):
        return True
    silence = files.age(heartbeat_name(holder["owner"]))
    return age > LIFETIME if silence is None else silence > LIFETIME


def _gone(host: str, pid: int, pids: str | None) -> bool:
    """Whether it is a process that could be seen from here, and there is none. Earlier versions do not say ``pids``."""
    return host == socket.gethostname() and pids in (None, _pids()) and not _lives(pid)


@cache
def _pids() -> str:
    """What process ids are counted in: a machine since it booted, and a container in it; "" where nobody says.

    Containers of one machine may share its host name, and see none of each other's processes.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _holder(files: Files, key: str) -> dict | None:
    """What the lease says, or None while it is being written or gone."""
    try:
        return json.loads(files.read(lease_name(key)))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
