"""Context managers for temporary log levels and environment variables."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


@contextmanager
def log_levels(level: int, *loggers: str) -> Iterator[None]:
    """Set the level of loggers by name; restore it on exit."""
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, was in before.items():
            logging.getLogger(name).setLevel(was)


@contextmanager
def default_variables(values: Mapping[str, str], changed: Sequence[str] = ()) -> Iterator[None]:
    """Set environment variables that are not set; restore all on exit.

    Args:
        values: name -> value.
        changed: names of further variables to restore, which other code changes meanwhile.
    """
    before = {name: os.environ.get(name) for name in (*values, *changed)}
    os.environ.update({name: value for name, value in values.items() if before[name] is None})
    try:
        yield
    finally:
        for name, was in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if was is None else {name: was})
