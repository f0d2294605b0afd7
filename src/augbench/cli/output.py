"""Standard output that cannot be written: a pipe that its reader closed, a device that is full."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

OUTPUT_FAILS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def fails(error: OSError) -> bool:
    """Whether an error is one of standard output, and not of a file."""
    return error.filename is None and error.errno in OUTPUT_FAILS


def drop_output() -> None:
    """Send what this process still writes to standard output nowhere, so that it fails no more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.__stdout__.fileno())
    os.close(nowhere)


class LastingOutput(io.TextIOBase):
    """Standard output that never fails: from the first error on, what is written to it is dropped."""

    def __init__(self) -> None:
        self._stream = sys.stdout
        self.error: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of standard output."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write text; return its length."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush standard output."""
        self._attempt(self._stream.flush)

    def isatty(self) -> bool:
        """Whether standard output is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of standard output."""
        return self._stream.fileno()

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            if not fails(error):
                raise
            self.error = self.error or error
            drop_output()


@contextmanager
def lasting_console(way_on: str) -> Iterator[Console]:
    """Yield a console for a command whose work goes on where its output cannot be written.

    A closed pipe needs no word, as its reader wanted no more; any other error is one line on standard error at the end.

    Args:
        way_on: what tells how the work went, as the output does not.
    """
    from augbench.report.render.terminal import standard_output

    output = LastingOutput()
    try:
        yield standard_output(output)
    finally:
        if output.error is not None and output.error.errno != errno.EPIPE:
            reason = f"the output cannot be written ({output.error.strerror}); the work went on without it"
            typer.echo(f"augbench: {reason}: {way_on}", err=True)
