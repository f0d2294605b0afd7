"""The version of a leaderboard, and what differs from the page that it replaces.

A version is what its records are: their number, their last date and the commit of that one, and a digest. The clock
has no part in it, so that equal stores give equal bytes. ``versions.json`` beside the page lists the versions, newest
first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.report.leaderboard.merge import Gathered
from augbench.report.leaderboard.row_costs import Source
from augbench.report.numbers import DASH

FILE = "versions.json"
SHORT = 12  # hex digits of a commit


@dataclass(frozen=True)
class PageVersion:
    """One state of a leaderboard."""

    digest: str  # of keys and bytes of its records
    date: str  # of the record that was finished last, "2026-12-01"; "" where no record says
    commit: str  # of augbench, in that record; "" where it does not say
    records: int
    added: int | None = None  # records that the page before did not have; None: there was none
    removed: int | None = None
    changed: int | None = None  # with other bytes

    @property
    def name(self) -> str:
        """Date and digest: ``2026-12-01 (1f3a5c7e)``."""
        return f"{self.date or 'undated'} ({self.digest[:8]})"

    @property
    def difference(self) -> str:
        """What differs from the page before, in words."""
        if self.added is None:
            return "the first version"
        counts = {"added": self.added, "removed": self.removed, "changed": self.changed}
        return ", ".join(f"{number:,} {what}" for what, number in counts.items() if number) or "no record differs"

    @property
    def texts(self) -> tuple[str, ...]:
        """Date, digest, commit, number of records, difference."""
        return self.date or DASH, self.digest[:8], self.commit[:SHORT] or DASH, f"{self.records:,}", self.difference


COLUMNS = ("newest record", "version", "at commit", "records", "records that differ from the version before")
_VERSIONS = TypeAdapter(list[PageVersion])


def versions_of(gathered: Gathered, files: Mapping[str, Source], out: Path) -> list[PageVersion]:
    """Return the versions of the page in a folder, newest first: the new one, and those listed there.

    Args:
        gathered: the records of the new page.
        files: the files behind its numbers, by path relative to the page.
        out: the folder, with the page before if there is one.

    Raises:
        UserError: ``versions.json`` there is damaged.
    """
    earlier = _read(out / FILE)
    last = pd.concat([gathered.records, gathered.older]).sort_values(["finished", "key"]).iloc[-1]
    shown = {path: gathered.raw[source.key] for path, source in files.items() if source.kind == "cells"}
    marks = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(shown.items())}
    commit = last["git_sha"] if last["finished"] else ""  # of older records, none is known to be the newest
    new = PageVersion(digest(marks), last["finished"][:10], commit, len(shown))
    if earlier and earlier[0].digest == new.digest:
        return earlier
    before = {f"records/{path.name}": path for path in (out / "records").glob("*.json")}
    if before:
        same = marks.keys() & before.keys()
        changed = sum(before[path].read_bytes() != shown[path] for path in same)
        added, removed = len(marks.keys() - same), len(before.keys() - same)
        new = replace(new, added=added, removed=removed, changed=changed)
    return [new, *earlier]


def to_json(versions: list[PageVersion]) -> bytes:
    """Return the content of `FILE`."""
    return json.dumps([asdict(one) for one in versions], indent=1).encode() + b"\n"


def _read(path: Path) -> list[PageVersion]:
    try:
        return _VERSIONS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError):
        raise UserError(f"'{path}' is damaged: remove it, and the list of versions begins anew") from None
