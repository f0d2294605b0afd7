"""Capture logging and standard output of one work unit into the unit's log.

Records of `logging` are captured from level INFO for augbench and WARNING for other libraries. Printed output of
plug-ins and Python's warnings, which are printed, are captured too. All of it is still passed on as usual.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

from augbench.core.temporary import log_levels
from augbench.stages.context import Context
from augbench.stages.provenance import device_name, versions
from augbench.storage.unit_logs import UnitLog

PACKAGE = "augbench"  # name of our root logger
SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
MIN_SECRET_LENGTH = 8  # characters: shorter values would match ordinary text


@contextmanager
def unit_log(context: Context, key: str, part: int | None = None, whole_process: bool = True) -> Iterator[None]:
    """Capture the output of the block in the log of a unit, with a header, and with the traceback of an error.

    Args:
        context: store, device, and description of the worker.
        key: of the unit.
        part: the chunk of a pool, or the arm of a search.
        whole_process: False where other threads of this process do other work: then only `logging` records of this
            thread are captured.
    """
    log = UnitLog(context.store.files, context.store.log_name(key, part))
    listener = _LogListener(log, None if whole_process else threading.get_ident())
    listener.write_header(key, part, context)
    started = time.perf_counter()
    try:
        with listener.listening():
            yield
        listener.note(f"done after {time.perf_counter() - started:.2f} s")
    except BaseException as error:
        listener.note("".join(traceback.format_exception(error)).rstrip())
        listener.note(f"failed after {time.perf_counter() - started:.2f} s")
        raise
    finally:
        log.close()


_listeners: list[Callable[[logging.LogRecord], None]] = []  # of running units, possibly in several threads
_listeners_lock = threading.Lock()
_restore = ExitStack()  # undoes the changes made for the first listener when the last one ends


@contextmanager
def _records_to(listener: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Call ``listener`` with every `logging` record created inside the block, augbench's INFO included."""
    with _listeners_lock:
        if not _listeners:
            _restore.enter_context(_all_records())
        _listeners.append(listener)
    try:
        yield
    finally:
        with _listeners_lock:
            _listeners.remove(listener)
            if not _listeners:
                _restore.close()


@contextmanager
def _all_records() -> Iterator[None]:
    """Pass all records to the listeners. A root handler would miss loggers that do not propagate."""
    logger, factory = logging.getLogger(PACKAGE), logging.getLogRecordFactory()
    level = logging.INFO if logger.level == logging.NOTSET else logger.level  # our logger has no handler of its own

    def observed_factory(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = factory(*arguments, **options)
        for listener in tuple(_listeners):
            listener(record)
        return record

    logging.setLogRecordFactory(observed_factory)
    try:
        with log_levels(level, PACKAGE):
            yield
    finally:
        logging.setLogRecordFactory(factory)


class _LogListener:
    """Write the output of this process, or the records of one thread, to a unit's log, with the time."""

    def __init__(self, log: UnitLog, thread: int | None) -> None:
        self._log, self._thread = log, thread
        self._last_message = ""  # of the last `logging` record
        self._secrets = _secrets(os.environ)

    def write_header(self, key: str, part: int | None, context: Context) -> None:
        """Write unit, host, device and versions of the attempt."""
        unit = key if part is None else f"{key}, part {part}"
        where = f"host {socket.gethostname()}, process {os.getpid()}, {context.device} ({device_name(context.device)})"
        self.note(f"{unit}: begun {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}")
        self.note(", ".join([where, *([context.place] if context.place else [])]))
        self.note(", ".join(f"{name} {version}" for name, version in versions().items()))

    def note(self, text: str) -> None:
        """Write lines of the log itself, marked by ``===``."""
        self._write("\n".join(f"=== {line}" for line in text.splitlines()))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Capture `logging` records and, unless restricted to one thread, printed output."""
        with _records_to(self.record), ExitStack() as redirects:
            if self._thread is None:
                redirects.enter_context(redirect_stdout(_ListenedStream(sys.stdout, self)))
                redirects.enter_context(redirect_stderr(_ListenedStream(sys.stderr, self)))
            yield

    def printed(self, line: str, text: str) -> None:
        """Log a printed line of ``text``, unless a handler printed a record that is logged already."""
        if not (self._last_message and self._last_message in text):
            self._write(f"{_clock()} {line}")

    def record(self, record: logging.LogRecord) -> None:
        """Log a `logging` record: INFO of augbench, WARNING of others."""
        is_own = record.name.split(".")[0] == PACKAGE
        if record.levelno < (logging.INFO if is_own else logging.WARNING):
            return
        if self._thread not in (None, record.thread):
            return
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # message and arguments do not match: `logging` reports that itself
            message = str(record.msg)
        self._last_message = message
        name = record.name.rpartition(".")[2] if is_own else record.name
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        self._write(f"{_clock()} {level}{name}: {message}")
        if record.exc_info and record.exc_info[1] is not None:
            self._write("".join(traceback.format_exception(record.exc_info[1])).rstrip())

    def _write(self, text: str) -> None:
        for name, secret in self._secrets.items():
            text = text.replace(secret, f"[{name}]")
        self._log.say(text)


class _ListenedStream:
    """Forward to a stream, and pass each line to a listener."""

    def __init__(self, stream: TextIO, listener: _LogListener) -> None:
        self._stream, self._listener = stream, listener
        self._partial = ""  # unfinished line

    def write(self, text: str) -> int:
        self._partial += text
        *lines, partial = self._partial.split("\n")
        self._partial = partial.rpartition("\r")[2][-10_000:]  # a progress bar redraws its line: keep the last state
        for line in lines:
            self._listener.printed(line.rstrip("\r").rpartition("\r")[2], text)
        return self._stream.write(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    @property
    def rich_proxied_file(self) -> TextIO:
        """Let rich consoles bypass the log: they draw for a terminal, above all the run's progress."""
        return getattr(self._stream, "rich_proxied_file", self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return secrets of the environment, to be masked in logs: tracebacks or printed settings may contain them."""
    candidates = {name: value.strip() for name, value in environment.items() if SECRET.search(name.upper())}
    return {name: value for name, value in candidates.items() if len(value) >= MIN_SECRET_LENGTH}


def _clock() -> str:
    return time.strftime("%H:%M:%S", time.gmtime())
