"""Leases: who works on what, so that two live drivers on one store share the work instead of doing it twice.

They are advisory. Deleting them never changes a result: a unit made twice is the same unit, since the same key means
the same bytes. A lease is a file made with an exclusive create and kept young by a heartbeat; one that has not been
touched for `LIFETIME` seconds, or whose process on this machine is gone, may be taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path

LIFETIME = 60.0  # seconds without a heartbeat after which a lease counts as abandoned
HEARTBEAT = 15.0  # seconds


class Leases:
    """The leases one driver holds in a store; use it as a context manager, so that they are given back."""

    def __init__(self, store_root: Path) -> None:
        self.folder = store_root / "leases"
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Leases:
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for key in list(self._held):
            self.release(key)

    def acquire(self, key: str) -> bool:
        """Take the lease of that unit; False while a live driver elsewhere holds it. Holding it already is True."""
        with self._lock:
            if key in self._held:
                return True
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / key
            if not self._create(path):
                if not abandoned(path):
                    return False
                # Of several that find it abandoned, the one whose rename succeeds may try; the others find it gone.
                with contextlib.suppress(FileNotFoundError):
                    path.rename(grave := path.with_name(f".{key}.{self.owner}"))
                    grave.unlink(missing_ok=True)
                if not self._create(path):
                    return False
            self._held.add(key)
            return True

    def release(self, key: str) -> None:
        """Give the lease back, if it is still ours."""
        with self._lock:
            self._held.discard(key)
            path = self.folder / key
            holder = _holder(path)
            if holder and holder["owner"] == self.owner:
                path.unlink(missing_ok=True)

    def _create(self, path: Path) -> bool:
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump({"owner": self.owner, "host": socket.gethostname(), "pid": os.getpid()}, file)
        except FileExistsError:
            return False
        return True

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            with self._lock:
                for key in self._held:
                    with contextlib.suppress(FileNotFoundError):  # deleted by hand: allowed, see above
                        os.utime(self.folder / key)


def abandoned(path: Path) -> bool:
    """Whether nobody alive seems to hold it: no heartbeat for `LIFETIME`, or its process on this host is gone."""
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if age > LIFETIME:
        return True
    holder = _holder(path)
    if holder is None or holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _holder(path: Path) -> dict | None:
    """What the lease says, or None while it is being written or gone."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
