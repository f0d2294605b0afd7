"""Logs of units: what was said while a cell, a chunk, an adapter, a search or a measurement was made.

A log is no result: nothing reads it but a person, and deleting it changes nothing. Attempts follow one another in one
file. In a folder it is written line by line, so that a worker that is killed leaves what it said; elsewhere, where
nothing can be added to a file, it is written whole, every `PAUSE` seconds and at the end.
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

PAUSE = 10.0  # seconds between the times that a log is written whole, as long as something new was said
MOST_BEFORE = 64_000  # bytes that are kept of earlier attempts: the last ones
MOST_FIRST = 128_000  # bytes of an attempt that are kept from its beginning
MOST_LAST = 64_000  # and from its end; what is between is counted
MOST_OF_A_LINE = 4_000  # characters
ENDING = ".log"


class UnitLog:
    """The log of one attempt at a unit. A place that cannot be written costs the log, never the unit."""

    def __init__(self, files: Files, name: str) -> None:
        """Begin it behind what earlier attempts said."""
        self._files, self._name = files, name
        self._first: list[bytes] = []
        self._first_size = 0
        self._last: deque[bytes] = deque()
        self._last_size = 0
        self._left_out = 0
        self._unwritten = False
        self._saying = threading.Lock()  # of what was said, above
        self._before: bytes | None = None  # what the file held; None: not read yet
        self._writing = threading.Lock()  # of the file as a whole
        self._told = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None  # writes the log whole
        self._file: BinaryIO | None = None  # is added to
        with self._or_tell():
            self._file = self._opened()
        if self._file is None:
            self._write_now_and_then()

    def say(self, text: str) -> None:
        """Add a line, or each line of a text."""
        for line in text.splitlines() or [""]:
            cut = line if len(line) <= MOST_OF_A_LINE else f"{line[:MOST_OF_A_LINE]} [cut]"
            self._add(f"{cut}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Write what is not written yet."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._write_whole()
        if self._file is not None:
            self._file.close()

    def _opened(self) -> BinaryIO | None:
        """The file to add to, not longer than it may be; None where nothing can be added to files."""
        file = self._files.appending(self._name)
        if file is None or file.tell() <= MOST_BEFORE:
            return file
        file.close()
        self._files.write(self._name, self._end_of_file(MOST_BEFORE))
        return self._files.appending(self._name)

    def _add(self, line: bytes) -> None:
        with self._saying:
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
                with self._or_tell():
                    self._file.write(line)
            elif self._thread is None:  # in a folder, a log that has grown long is written like any other from now on
                self._write_now_and_then()

    def _write_now_and_then(self) -> None:
        self._thread = threading.Thread(target=self._keep_writing, name="unit-log", daemon=True)
        self._thread.start()

    def _keep_writing(self) -> None:
        with self._writing, self._or_tell():
            self._read_before()  # beside the work, which need not wait for it
        while not self._ended.wait(PAUSE):
            self._write_whole()

    def _write_whole(self) -> None:
        with self._writing, self._or_tell():
            self._read_before()
            with self._saying:
                is_new, self._unwritten = self._unwritten, False
                gap = [f"[{self._left_out} lines left out]\n".encode()] if self._left_out else []
                first = self._first if self._file is None else []  # else it is in the file already
                text = b"".join([self._before or b"", *first, *gap, *self._last])
            if is_new:
                self._files.write(self._name, text)

    def _read_before(self) -> None:
        if self._before is None:
            self._before = self._end_of_file(MOST_BEFORE + (MOST_FIRST if self._file is not None else 0))

    def _end_of_file(self, most: int) -> bytes:
        """The last bytes of what was written before, from the beginning of a line on."""
        try:
            found = self._files.read(self._name)
        except FileNotFoundError:
            return b""
        return found if len(found) <= most else b"[earlier lines left out]\n" + found[-most:].partition(b"\n")[2]

    @contextlib.contextmanager
    def _or_tell(self) -> Iterator[None]:
        """What becomes of the unit is said where its results are written. That its log has a gap is said here, once."""
        try:
            yield
        except (StoreError, OSError) as error:
            if not self._told and sys.__stderr__ is not None:
                print(f"augbench: the log '{self._files.where(self._name)}' has a gap: {error}", file=sys.__stderr__)
            self._told = True


# -- reading


def logs_of(store: Store, word: str) -> list[str]:
    """The names of the logs that a person means: a unit's, or one for each chunk of a pool or arm of a search.

    Args:
        store: where they lie.
        word: a key or the beginning of one; behind it may stand ``/`` and the number of a chunk or an arm.

    Raises:
        UserError: there is no such log, or the beginning is that of several keys.
    """
    beginning, has_part, part = word.partition("/")
    entries = store.files.names(LOGS)
    keys = {entry.removesuffix(ENDING) for entry in entries}
    if not keys:
        raise UserError(f"store '{store.url}' has no logs: they are written when a grid runs")
    key = _the_key(keys, beginning, store)
    parts = sorted(store.files.names(f"{LOGS}/{key}")) if key in entries else []
    if not has_part:
        own = [f"{key}{ENDING}"] if f"{key}{ENDING}" in entries else []
        return [f"{LOGS}/{name}" for name in (*(f"{key}/{name}" for name in parts), *own)]
    wanted = store.log_name(key, int(part)) if part.isdecimal() else ""
    if wanted.rpartition("/")[2] not in parts:
        numbers = ", ".join(str(int(name.removesuffix(ENDING))) for name in parts)
        raise UserError(f"'{key}' has no log of a part '{part}'" + (f": there are {numbers}" if parts else ""))
    return [wanted]


def _the_key(keys: set[str], beginning: str, store: Store) -> str:
    if beginning in keys:
        return beginning
    found = sorted(key for key in keys if beginning and key.startswith(beginning))
    if not found:
        near = did_you_mean(beginning, keys)
        hint = near if near.startswith(" (did") else ": augbench status names what failed"  # there may be many
        raise UserError(f"store '{store.url}' has no log of '{beginning}'{hint}")
    if len(found) > 1:
        raise UserError(f"'{beginning}' begins {len(found)} keys ({listed(found)}): give more of it")
    return found[0]
