"""Output of `augbench status`: text for the terminal, or one JSON object."""

from __future__ import annotations

import json
import shlex
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from augbench.monitoring.status import STAGES, STATES, Failed, GridStatus, Rate, Status, one_line, printable
from augbench.report.render.terminal import sheet_parts
from augbench.report.sheet import Sheet
from augbench.storage.leases import Driver

FORMAT = 1
"""Version of the JSON object; raised when a field changes its meaning."""
MOST = 10  # groups of equal failures to print
KEYS = 3  # keys to print per group
ONE = {"searches": "search", "features": "set of features", "fidelity": "measurement"}  # irregular singulars of stages


def to_json(status: Status) -> str:
    """Format a status as one line of ASCII JSON, whatever error texts contain."""
    return json.dumps(as_dict(status), sort_keys=True, allow_nan=False)


def as_dict(status: Status) -> dict[str, Any]:
    """Return a status as JSON values. Times are in seconds, ``since`` is ISO 8601 in UTC; null means unknown."""
    return {
        "format": FORMAT,
        "store": status.store,
        "done": status.done,
        "drivers": [_driver_dict(driver) for driver in status.drivers],
        "grids": [_grid_dict(grid) for grid in status.grids],
    }


def _driver_dict(driver: Driver) -> dict[str, Any]:
    as_they_are = ("owner", "host", "pid", "lives", "seconds", "silence")
    values = {name: getattr(driver, name) for name in as_they_are}
    return {**values, "since": _utc(driver.since), "leases": len(driver.holds)}


def _grid_dict(grid: GridStatus) -> dict[str, Any]:
    as_they_are = ("name", "done", "blocked", "eta_seconds", "again")
    return {
        **{name: getattr(grid, name) for name in as_they_are},
        "planned": grid.source,
        "stages": {name: counts and {**counts, "total": sum(counts.values())} for name, counts in grid.stages.items()},
        **{name: _chunks_dict(getattr(grid, name)) for name in ("chunks", "feature_chunks")},
        "drivers": list(grid.drivers),
        "rates": {what: asdict(rate) for what, rate in grid.rates.items()},
        "failures": [asdict(failure) for failure in grid.failures],
        "notes": list(grid.notes),
    }


def _chunks_dict(counts: tuple[int, int] | None) -> dict[str, int] | None:
    return counts and {"done": counts[0], "total": counts[1]}


def print_status(status: Status, console: Console) -> None:
    """Print the drivers, and each grid: counts, rates, failures and the command to retry them."""
    console.print(Text(f"store {printable(status.store)}: {_at_work(status.drivers)}"), soft_wrap=True)
    for driver in status.drivers:
        console.print(Text(f"  {_driver_line(driver)}", style="" if driver.lives else "yellow"), soft_wrap=True)
    for grid in status.grids:
        console.print()
        console.print(_grid(grid, status.store), soft_wrap=True)


def _at_work(drivers: Sequence[Driver]) -> str:
    lives = sum(driver.lives for driver in drivers)
    return f"{lives} run{'s' * (lives > 1)} at work" if lives else "nobody is at work"


def _driver_line(driver: Driver) -> str:
    who = one_line(driver.host) + (f", process {driver.pid}" if driver.pid is not None else "")
    leases = f"{len(driver.holds)} lease{'s' * (len(driver.holds) != 1)}"
    if not driver.lives:
        silent = f"silent for {_duration(driver.silence)}" if driver.silence is not None else "gone"
        return f"{who}: {silent}; its work ({leases}) may be taken over"
    since = f" since {_utc(driver.since)}" if driver.since is not None else ""
    busy = f" ({_duration(driver.seconds)})" if driver.seconds is not None else ""
    heartbeat = f", last heartbeat {_duration(driver.silence)} ago" if driver.silence is not None else ""
    return f"{who}: at work{since}{busy}, {leases}{heartbeat}"


def _grid(grid: GridStatus, store: str) -> RenderableType:
    parts: list[RenderableType] = [Text(f"{one_line(grid.name)}: {_headline(grid)}", style="bold"), _counts(grid)]
    if grid.blocked:
        parts.append(Text(f"{_cells(grid.blocked)} of the missing are blocked by failures"))
    parts += [Text(line, style="dim") for line in _rate_lines(grid)]
    parts += [Text(f"note: {note}", style="dim") for note in grid.notes]
    if grid.failures:
        parts += _failure_lines(grid, store)
    return Group(*parts)


def _headline(grid: GridStatus) -> str:
    cells = grid.stages["cells"] or {}
    total = sum(cells.values())
    if grid.done:
        return f"done, all {_cells(total)}"
    share = f"{cells['done']:,} of {_cells(total)} done ({100 * cells['done'] / total:.1f} %)"
    if grid.eta_seconds:
        return f"{share}, about {_duration(grid.eta_seconds)} left"
    return share


def _counts(grid: GridStatus) -> RenderableType:
    rows: list[tuple[str, ...]] = []
    for stage in STAGES:
        counts = grid.stages[stage]
        if counts and (total := sum(counts.values())):
            rows.append((stage, *(f"{counts[state]:,}" if counts[state] else "-" for state in STATES), f"{total:,}"))
        chunks = {"pools": grid.chunks, "features": grid.feature_chunks}.get(stage)
        if chunks and chunks[1]:
            done, total = chunks
            rows.append(("  chunks", f"{done:,}" if done else "-", *[""] * (len(STATES) - 1), f"{total:,}"))
    return sheet_parts(Sheet.of([""], [*STATES, "total"], rows))


def _rate_lines(grid: GridStatus) -> list[str]:
    if grid.done:
        return []
    return [_rate_line(grid, what.replace("_", " "), rate) for what, rate in grid.rates.items() if rate.left]


def _rate_line(grid: GridStatus, what: str, rate: Rate) -> str:
    if not grid.drivers:
        return f"{what}: {rate.left:,} left, and nobody is at work on this grid"
    if rate.seconds is None:
        return f"{what}: {rate.left:,} left; this store has no file times, so rate and time left are unknown"
    span = f"in the last {_duration(rate.seconds)}"
    if rate.per_minute is None or rate.eta_seconds is None:
        return f"{what}: {rate.left:,} left, none finished {span}"
    end = f"the rest takes {_duration(rate.eta_seconds)} at that rate"
    return f"{what}: {rate.left:,} left, {rate.finished:,} finished {span} ({rate.per_minute:.3g} a minute): {end}"


def _failure_lines(grid: GridStatus, store: str) -> list[Text]:
    """Format failures, grouped by stage and error, the most frequent first."""
    groups: defaultdict[tuple[str, str], list[Failed]] = defaultdict(list)
    for failure in grid.failures:
        groups[failure.stage, failure.error].append(failure)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0].key))
    lines = [Text(), Text("Failed:", style="bold")]
    for group in ordered[:MOST]:
        lines += [Text(f"  {_what(group)}: {group[0].error}", style="red"), Text(f"    {_which(group)}")]
        if logged := next((failure.key for failure in group if failure.log), None):
            command = shlex.join(["augbench", "log", store, logged])
            lines.append(Text(f"    log: {printable(command)}"))
    if len(ordered) > MOST:
        lines.append(Text(f"  and {len(ordered) - MOST} other errors; --json gives them all"))
    again = grid.again or "the original command, or give --grid FILE to see it here"
    lines.append(Text(f"Try again: {printable(again)}"))
    return lines


def _what(group: Sequence[Failed]) -> str:
    stage = group[0].stage
    return f"1 {ONE.get(stage, stage[:-1])}" if len(group) == 1 else f"{len(group):,} {stage}"


def _which(group: Sequence[Failed]) -> str:
    named = ", ".join(one_line(failure.key) for failure in group[:KEYS])
    more = f" and {len(group) - KEYS:,} more" if len(group) > KEYS else ""
    tries = sorted({failure.attempts for failure in group})
    attempts = f"{tries[0]}" if len(tries) == 1 else f"{tries[0]} to {tries[-1]}"
    waiting = sum(failure.waiting for failure in group)
    blocked = f"; {_cells(waiting)} blocked" if waiting else ""
    return f"{named}{more}; attempts: {attempts}{blocked}"


def _cells(count: int) -> str:
    return f"{count:,} cell{'s' * (count != 1)}"


def _utc(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _duration(seconds: float | None) -> str:
    """Format a duration, such as ``40 s``, ``12 min``, ``3 h 20 min``, ``2 d 5 h``."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
