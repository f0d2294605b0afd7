"""Logs of work units: cells, chunks, adapters, searches and fidelity computations.

No code reads a log, and deleting it changes nothing. All attempts at a unit share one file. In a local folder, lines
are appended immediately, so that a killed worker leaves its log. Remote stores cannot append, so the whole file is
rewritten every `PAUSE` seconds and at the end.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from augbench.core.errors import StoreError, UserError, did_you_mean, listed
from augbench.storage.files import Files
from augbench.storage.store import LOGS, Store

PAUSE = 10.0  # seconds between rewrites of a log with new lines
MOST_BEFORE = 64_000  # bytes of earlier attempts that are kept, from the end
MOST_FIRST = 128_000  # bytes of an attempt that are kept from its start
MOST_LAST = 64_000  # and from its end; lines in between are counted
MOST_OF_A_LINE = 4_000  # characters
ENDING = ".log"


class UnitLog:
    """The log of one attempt at a unit. Write errors affect only the log, never the unit."""

    def __init__(self, files: Files, name: str) -> None:
        """Open the log after the lines of earlier attempts."""
        self._files, self._name = files, name
        self._first: list[bytes] = []
        self._first_size = 0
        self._last: deque[bytes] = deque()
        self._last_size = 0
        self._left_out = 0
        self._unwritten = False
        self._lines_lock = threading.Lock()  # guards the fields above
        self._before: bytes | None = None  # previous content; None: not read yet
        self._file_lock = threading.Lock()  # guards rewrites of the file
        self._reported = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None  # rewrites the file
        self._file: BinaryIO | None = None  # open for appending
        with self._report_errors():
            self._file = self._opened()
        if self._file is None:
            self._start_rewriting()

    def say(self, text: str) -> None:
        """Log a line, or each line of a text."""
        for line in text.splitlines() or [""]:
            cut = line if len(line) <= MOST_OF_A_LINE else f"{line[:MOST_OF_A_LINE]} [cut]"
            self._add(f"{cut}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Write pending lines and close the file."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._rewrite()
        if self._file is not None:
            self._file.close()

    def _opened(self) -> BinaryIO | None:
        """Open the file for appending, truncated to its end; None if appending is not supported."""
        file = self._files.appending(self._name)
        if file is None or file.tell() <= MOST_BEFORE:
            return file
        file.close()
        self._files.write(self._name, self._end_of_file(MOST_BEFORE))
        return self._files.appending(self._name)

    def _add(self, line: bytes) -> None:
        with self._lines_lock:
            is_first = not self._last and self._first_size + len(line) <= MOST_FIRST
            if is_first:
                self._first.append(line)
                self._first_size += len(line)
            else:
                self._last.append(line)
                self._last_size += len(line)
            while self._last_size > MOST_LAST:
                self._last_size -= len(self._last.popleft())
                self._left_out += 1
            self._unwritten = True
            if is_first and self._file is not None:
                with self._report_errors():
                    self._file.write(line)
            elif self._thread is None:  # a long log in a local folder is rewritten from now on
                self._start_rewriting()

    def _start_rewriting(self) -> None:
        self._thread = threading.Thread(target=self._rewrite_periodically, name="unit-log", daemon=True)
        self._thread.start()

    def _rewrite_periodically(self) -> None:
        with self._file_lock, self._report_errors():
            self._read_before()  # in this thread, so that the work need not wait
        while not self._ended.wait(PAUSE):
            self._rewrite()

    def _rewrite(self) -> None:
        with self._file_lock, self._report_errors():
            self._read_before()
            with self._lines_lock:
                is_new, self._unwritten = self._unwritten, False
                gap = [f"[{self._left_out} lines left out]\n".encode()] if self._left_out else []
                first = self._first if self._file is None else []  # else the file has it already
                text = b"".join([self._before or b"", *first, *gap, *self._last])
            if is_new:
                self._files.write(self._name, text)

    def _read_before(self) -> None:
        if self._before is None:
            self._before = self._end_of_file(MOST_BEFORE + (MOST_FIRST if self._file is not None else 0))

    def _end_of_file(self, most: int) -> bytes:
        """Return the last bytes of the previous content, from the start of a line."""
        try:
            found = self._files.read(self._name)
        except FileNotFoundError:
            return b""
        return found if len(found) <= most else b"[earlier lines left out]\n" + found[-most:].partition(b"\n")[2]

    @contextlib.contextmanager
    def _report_errors(self) -> Iterator[None]:
        """Report an error of writing the log once, and continue: only writing results may fail the unit."""
        try:
            yield
        except (StoreError, OSError) as error:
            if not self._reported and sys.__stderr__ is not None:
                print(f"augbench: the log '{self._files.where(self._name)}' has a gap: {error}", file=sys.__stderr__)
            self._reported = True


# -- reading


def logs_of(store: Store, word: str) -> list[str]:
    """Return the names of a unit's logs: one, or one for each chunk of a pool or arm of a search.

    ``word`` is a key or a key prefix, optionally followed by ``/`` and the number of a chunk or an arm.

    Raises:
        UserError: there is no such log, or the prefix is ambiguous.
    """
    prefix, has_part, part = word.partition("/")
    entries = store.files.names(LOGS)
    keys = {entry.removesuffix(ENDING) for entry in entries}
    if not keys:
        raise UserError(f"store '{store.url}' has no logs: they are written when a grid runs")
    key = _the_key(keys, prefix, store)
    parts = sorted(store.files.names(f"{LOGS}/{key}")) if key in entries else []
    if not has_part:
        own = [f"{key}{ENDING}"] if f"{key}{ENDING}" in entries else []
        return [f"{LOGS}/{name}" for name in (*(f"{key}/{name}" for name in parts), *own)]
    wanted = store.log_name(key, int(part)) if part.isdecimal() else ""
    if wanted.rpartition("/")[2] not in parts:
        numbers = ", ".join(str(int(name.removesuffix(ENDING))) for name in parts)
        raise UserError(f"'{key}' has no log of a part '{part}'" + (f": there are {numbers}" if parts else ""))
    return [wanted]


def _the_key(keys: set[str], prefix: str, store: Store) -> str:
    if prefix in keys:
        return prefix
    found = sorted(key for key in keys if prefix and key.startswith(prefix))
    if not found:
        near = did_you_mean(prefix, keys)
        hint = near if near.startswith(" (did") else ": augbench status names what failed"  # there may be many
        raise UserError(f"store '{store.url}' has no log of '{prefix}'{hint}")
    if len(found) > 1:
        raise UserError(f"'{prefix}' is a prefix of {len(found)} keys ({listed(found)}): give a longer one")
    return found[0]
