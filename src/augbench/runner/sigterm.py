"""SIGTERM (scancel, Kubernetes, a preemption) ends a run as Ctrl-C does; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, Self

STATUS = 128 + signal.SIGTERM
"""Exit status of a process that SIGTERM ended, as shells report it."""


class Sigterm:
    """A context manager under which the first SIGTERM raises KeyboardInterrupt in the main thread."""

    def __init__(self) -> None:
        self.received = False

    def arm(self) -> None:
        """Install the handler."""
        if threading.current_thread() is threading.main_thread():  # handlers can be set nowhere else
            signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def while_ray_starts(self) -> Iterator[None]:
        """Raise KeyboardInterrupt at the end if SIGTERM came meanwhile.

        ``ray.init`` installs a handler that raises SystemExit, which is lost where Python runs a callback of a fork. So
        a socket notes the signals, whatever their handlers do.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        noted, note = socket.socketpair()
        with noted, note:
            note.setblocking(False)
            before = signal.set_wakeup_fd(note.fileno())
            try:
                yield
            finally:
                self.arm()
                signal.set_wakeup_fd(before)
                note.close()
                self.received = self.received or signal.SIGTERM in noted.recv(64)
                if self.received:
                    raise KeyboardInterrupt from None

    def _handle(self, *_: object) -> NoReturn:
        if self.received:
            os._exit(STATUS)  # the default action would do nothing in a container's first process
        self.received = True
        raise KeyboardInterrupt  # a type of our own would not survive Ray's blocking calls

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGTERM)
        self.arm()
        return self

    def __exit__(self, *exception: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)  # None: it was not set from Python
