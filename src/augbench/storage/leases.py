"""Leases on work units, so that several drivers on one store share the work instead of duplicating it.

Leases are advisory. Deleting them never changes a result, since equal keys mean equal bytes. A lease is a file, created
exclusively, that names its driver; each driver renews one heartbeat file. A lease may be taken over if its driver has
sent no heartbeat for `LIFETIME` seconds, or if its process on this machine no longer exists.
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

LIFETIME = 60.0  # seconds without heartbeat after which a driver counts as dead
HEARTBEAT = 15.0  # seconds between heartbeats
FOLDER = "leases"
DRIVERS = f"{FOLDER}/drivers"


def lease_name(key: str) -> str:
    """Return the name of the lease file of the unit ``key``."""
    return f"{FOLDER}/{key}"


def heartbeat_name(owner: str) -> str:
    """Return the name of a driver's heartbeat file, which it rewrites every `HEARTBEAT` seconds."""
    return f"{DRIVERS}/{owner}"


@dataclass(frozen=True)
class Driver:
    """A driver of a run in a store, alive or dead."""

    owner: str
    host: str
    pid: int | None  # on its host
    since: float | None  # start in Unix seconds, by its clock; None: unknown (older version)
    silence: float | None  # seconds since its last heartbeat; None: no heartbeat file, or no file times
    lives: bool
    holds: Mapping[str, float | None]  # keys of its leases -> age in seconds, None if unknown

    @property
    def seconds(self) -> float | None:
        """Seconds since it started, or the age of its oldest lease; None if unknown."""
        known = [age for age in self.holds.values() if age is not None]
        return max(0.0, time.time() - self.since) if self.since is not None else max(known, default=None)


class Leases:
    """The leases of one driver in a store; a context manager that releases them on exit."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._process = {"host": socket.gethostname(), "pid": os.getpid(), "pids": _pids()}
        self._heartbeat = json.dumps({**self._process, "since": time.time()}).encode()
        self._held: set[str] = set()
        self._others: dict[str, dict[str, Any]] = {}  # cached leases of other drivers
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_heartbeats, name="lease-heartbeat", daemon=True)

    def __enter__(self) -> Leases:
        self.files.write(heartbeat_name(self.owner), self._heartbeat)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=HEARTBEAT)  # else a last heartbeat could recreate the removed file
        for key in list(self._held):
            self.release(key)
        with contextlib.suppress(StoreError):
            self.files.remove(heartbeat_name(self.owner))

    def acquire(self, key: str) -> bool:
        """Acquire the lease of a unit; False while another live driver holds it, True if already held."""
        with self._lock:
            if key in self._held:
                return True
            if not self._create(key):
                if not abandoned(self.files, key):
                    return False
                self._remove_abandoned(key)
                if not self._create(key):
                    return False
            self._held.add(key)
            return True

    def to_be_had(self, keys: Collection[str]) -> list[str]:
        """Return those units whose leases `acquire` may get now, with two listings for any number of units.

        Each lease is read once and cached; the listing of heartbeats shows whether its driver is alive.
        """
        taken, beating = self.files.ages(FOLDER), self.files.ages(DRIVERS)
        self._others = {key: lease for key, lease in self._others.items() if key in taken}
        unread = [key for key in keys if key in taken and key not in self._others]
        for key, data in zip(unread, self.files.read_many([lease_name(key) for key in unread]), strict=True):
            if lease := _parsed(data):
                self._others[key] = lease
        return [key for key in keys if key not in taken or self._looks_abandoned(key, taken[key], beating)]

    def _looks_abandoned(self, key: str, age: float | None, beating: Mapping[str, float | None]) -> bool:
        """Decide as `abandoned`, but from cached leases, which may be outdated."""
        lease = self._others.get(key, {})
        silence = beating.get(str(lease.get("owner")), age)
        gone = {"host", "pid"} <= lease.keys() and _gone(lease["host"], lease["pid"], lease.get("pids"))
        if silence is None or silence > LIFETIME or gone:  # None: no file times
            self._others.pop(key, None)  # read it again next time
            return True
        return False

    def release(self, key: str) -> None:
        """Release the lease if it is still ours. If the store is unreachable, the lease expires."""
        with self._lock, contextlib.suppress(StoreError):
            if key not in self._held:
                return
            self._held.remove(key)
            holder = _holder(self.files, key)
            if holder and holder["owner"] == self.owner:
                self.files.remove(lease_name(key))

    def sweep(self) -> None:
        """Remove leases and heartbeats of dead drivers; nobody else removes leases of finished units."""
        for driver in survey(self.files):
            if not driver.lives:
                for key in driver.holds:
                    if abandoned(self.files, key):  # another driver may hold it by now
                        self.files.remove(lease_name(key))
                self.files.remove(heartbeat_name(driver.owner))

    def _create(self, key: str) -> bool:
        lease = {"owner": self.owner, **self._process}
        if self.files.create(lease_name(key), json.dumps(lease).encode()):
            return True
        # A retried remote create may have found the file of its own first attempt.
        holder = _holder(self.files, key)
        return bool(holder and holder["owner"] == self.owner)

    def _remove_abandoned(self, key: str) -> None:
        """Remove an abandoned lease and its driver's heartbeat, which a driver that is alive writes again."""
        holder = _holder(self.files, key)
        if holder:
            self.files.remove(heartbeat_name(holder["owner"]))
        self.files.remove(lease_name(key))

    def _send_heartbeats(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            with contextlib.suppress(StoreError):  # the next heartbeat may succeed
                self.files.write(heartbeat_name(self.owner), self._heartbeat)


def survey(files: Files) -> list[Driver]:
    """List all drivers with a heartbeat or a lease in a store, sorted by owner.

    Uses two listings and reads every lease and heartbeat once. A driver is alive by the rules of `abandoned`.
    """
    taken, heartbeats = files.ages(FOLDER), files.ages(DRIVERS)
    keys, beating = sorted(taken), sorted(heartbeats)
    held: dict[str, dict[str, float | None]] = {owner: {} for owner in beating}
    signs: dict[str, dict[str, Any]] = {}
    for owner, data in zip(beating, files.read_many([heartbeat_name(owner) for owner in beating]), strict=True):
        signs[owner] = _parsed(data)
    for key, data in zip(keys, files.read_many([lease_name(key) for key in keys]), strict=True):
        lease = _parsed(data)
        if isinstance(holder := lease.get("owner"), str):  # else it is being written, or was removed
            held.setdefault(holder, {})[key] = taken[key]
            signs.setdefault(holder, lease)
    return [_driver(owner, signs[owner], heartbeats, held[owner]) for owner in sorted(held)]


def _driver(
    owner: str, sign: Mapping[str, Any], heartbeats: Mapping[str, float | None], holds: Mapping[str, float | None]
) -> Driver:
    host, pid, since = sign.get("host"), sign.get("pid"), sign.get("since")
    named = owner.rsplit("-", 2)  # heartbeats of older versions are empty, but named after the owner
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
    """Parse a lease or a heartbeat; return {} if it is incomplete."""
    try:
        value = json.loads(data or b"null")
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def abandoned(files: Files, key: str) -> bool:
    """Whether no live driver holds the lease: no recent heartbeat, or its process on this host does not exist."""
    age = files.age(lease_name(key))
    if age is None:
        return True
    holder = _holder(files, key)
    if holder is None:  # being written, or its driver died while writing
        return age > LIFETIME
    if _gone(holder["host"], holder["pid"], holder.get("pids")):
        return True
    silence = files.age(heartbeat_name(holder["owner"]))
    return age > LIFETIME if silence is None else silence > LIFETIME


def _gone(host: str, pid: int, pids: str | None) -> bool:
    """Whether the process should be visible here but does not exist. Leases of older versions lack ``pids``."""
    return host == socket.gethostname() and pids in (None, _pids()) and not _is_alive(pid)


@cache
def _pids() -> str:
    """Identify the namespace of process ids: boot id and PID namespace; "" if unknown.

    Containers of one machine may share its host name without seeing each other's processes.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _holder(files: Files, key: str) -> dict | None:
    """Read the lease; None if it is being written or does not exist."""
    try:
        return json.loads(files.read(lease_name(key)))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
