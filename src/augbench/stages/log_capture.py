"""What is said while a unit is made, on its way into the unit's log: by jobs, libraries and plug-ins.

Jobs speak through `logging`, as libraries do: INFO of ours and WARNING of others is kept. What a plug-in prints is kept
too, and Python's warnings, which are printed. All of it still goes where it would have gone.
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

OURS = "augbench"
SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
SHORTEST_SECRET = 8  # characters: shorter values would be found in ordinary words


@contextmanager
def unit_log(context: Context, key: str, part: int | None = None, whole_process: bool = True) -> Iterator[None]:
    """Keep what is said meanwhile in the log of a unit, with a header, and with the traceback of what ended it.

    Args:
        context: the store, the device, and where in a cluster this is.
        key: of the unit.
        part: the chunk of a pool, or the arm of a search.
        whole_process: False where other threads of this process do and print other things: then only what this thread
            says through `logging` is kept.
    """
    log = UnitLog(context.store.files, context.store.log_name(key, part))
    ear = _LogListener(log, None if whole_process else threading.get_ident())
    ear.head(key, part, context)
    started = time.perf_counter()
    try:
        with ear.listening():
            yield
        ear.note(f"done after {time.perf_counter() - started:.2f} s")
    except BaseException as error:
        ear.note("".join(traceback.format_exception(error)).rstrip())
        ear.note(f"failed after {time.perf_counter() - started:.2f} s")
        raise
    finally:
        log.close()


_listeners: list[Callable[[logging.LogRecord], None]] = []  # of units in work, which may be in several threads
_listening = threading.Lock()
_restore = ExitStack()  # what was changed for the first of them, and ends with the last


@contextmanager
def _records_to(listener: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Call ``listener`` with every record of `logging` that is made meanwhile, INFO of ours among them."""
    with _listening:
        if not _listeners:
            _restore.enter_context(_all_records())
        _listeners.append(listener)
    try:
        yield
    finally:
        with _listening:
            _listeners.remove(listener)
            if not _listeners:
                _restore.close()


@contextmanager
def _all_records() -> Iterator[None]:
    """Not by a handler of the root: libraries that end in handlers of their own would not reach it."""
    ours, before = logging.getLogger(OURS), logging.getLogRecordFactory()
    level = logging.INFO if ours.level == logging.NOTSET else ours.level  # without handlers of ours they go nowhere

    def made(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = before(*arguments, **options)
        for listener in tuple(_listeners):
            listener(record)
        return record

    logging.setLogRecordFactory(made)
    try:
        with log_levels(level, OURS):
            yield
    finally:
        logging.setLogRecordFactory(before)


class _LogListener:
    """Hears what is said in this process, or in one thread of it, and writes it down with the time."""

    def __init__(self, log: UnitLog, thread: int | None) -> None:
        self._log, self._thread = log, thread
        self._heard = ""  # the message that came last through `logging`
        self._secrets = _secrets(os.environ)

    def head(self, key: str, part: int | None, context: Context) -> None:
        """What the attempt is, where and with what."""
        what = key if part is None else f"{key}, part {part}"
        where = f"host {socket.gethostname()}, process {os.getpid()}, {context.device} ({device_name(context.device)})"
        self.note(f"{what}: begun {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}")
        self.note(", ".join([where, *([context.place] if context.place else [])]))
        self.note(", ".join(f"{name} {version}" for name, version in versions().items()))

    def note(self, text: str) -> None:
        """A line, or several, of the log's own."""
        self._say("\n".join(f"=== {line}" for line in text.splitlines()))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear records of `logging` and, unless it is for one thread, what is printed."""
        with _records_to(self.record), ExitStack() as printed:
            if self._thread is None:
                printed.enter_context(redirect_stdout(_ListenedStream(sys.stdout, self)))
                printed.enter_context(redirect_stderr(_ListenedStream(sys.stderr, self)))
            yield

    def printed(self, line: str, text: str) -> None:
        """A line that was printed, in a ``text``; handlers print what was heard as a record already."""
        if not (self._heard and self._heard in text):
            self._say(f"{_clock()} {line}")

    def record(self, record: logging.LogRecord) -> None:
        """What was said through `logging`: INFO of ours, WARNING of others."""
        is_ours = record.name.split(".")[0] == OURS
        if record.levelno < (logging.INFO if is_ours else logging.WARNING):
            return
        if self._thread not in (None, record.thread):
            return
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a message that does not fit its arguments: `logging` complains of that itself
            message = str(record.msg)
        self._heard = message
        name = record.name.rpartition(".")[2] if is_ours else record.name
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        self._say(f"{_clock()} {level}{name}: {message}")
        if record.exc_info and record.exc_info[1] is not None:
            self._say("".join(traceback.format_exception(record.exc_info[1])).rstrip())

    def _say(self, text: str) -> None:
        for name, secret in self._secrets.items():
            text = text.replace(secret, f"[{name}]")
        self._log.say(text)


class _ListenedStream:
    """A stream that is heard line by line; everything else about it is the stream's own."""

    def __init__(self, stream: TextIO, ear: _LogListener) -> None:
        self._stream, self._ear = stream, ear
        self._begun = ""  # of the line that is being printed

    def write(self, text: str) -> int:
        """Print, and hear."""
        self._begun += text
        *lines, begun = self._begun.split("\n")
        self._begun = begun.rpartition("\r")[2][-10_000:]  # of a bar that is drawn over and over, what stands
        for line in lines:
            self._ear.printed(line.rstrip("\r").rpartition("\r")[2], text)
        return self._stream.write(text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Print each, and hear."""
        for line in lines:
            self.write(line)

    @property
    def rich_proxied_file(self) -> TextIO:
        """Where a console of rich shall print: what it draws is for a terminal, the run's own progress above all."""
        return getattr(self._stream, "rich_proxied_file", self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Values that must not be seen in a store: a traceback, or a library that shows its settings, may hold them."""
    named = {name: value.strip() for name, value in environment.items() if SECRET.search(name.upper())}
    return {name: value for name, value in named.items() if len(value) >= SHORTEST_SECRET}


def _clock() -> str:
    return time.strftime("%H:%M:%S", time.gmtime())
