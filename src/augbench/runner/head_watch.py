"""Notice that the head of a Ray cluster is gone.

Ray itself gives up after a minute: it then ends the process of the driver at once, with a message of its own, and no
code of ours runs any more.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 2.0  # seconds between two looks, and that an answer may take
PATIENCE = 20.0  # seconds without any answer


@contextmanager
def watch_head(on_lost: Callable[[str], None]) -> Iterator[None]:
    """Call ``on_lost`` with the address of the head, in another thread, once it has not answered for `PATIENCE`."""
    import ray

    done = threading.Event()
    address = ray.get_runtime_context().gcs_address
    thread = threading.Thread(target=_watch, args=(address, done, on_lost), name="head-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _watch(address: str, done: threading.Event, on_lost: Callable[[str], None]) -> None:
    host, _, port = address.rpartition(":")
    answered = time.monotonic()
    while not done.wait(EVERY):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=EVERY).close()
            answered = time.monotonic()
        except OSError:
            if time.monotonic() - answered > PATIENCE:
                on_lost(address)
                return
