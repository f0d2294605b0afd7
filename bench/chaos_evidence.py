"""The checks of bench/chaos.py: the messages of a run, and its store against that of an undisturbed run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chaos_disturbances import Disturbance

DONE = re.compile(r"\d+ cells done, \d+ of them now|All \d+ cells were done already: nothing to do")
ALL_IS_DONE = "nothing to do"
FAILED = "failed: "  # prefix of the line of a failed unit
DELETE_HINT = ": delete it, and run the grid again"
NAMED = (re.compile(r"chunk '([^']+)'"), re.compile(r"'([^']+)'"))  # the chunk of a damaged image, else the named file
NOT_RESULTS = ("logs/", "reports/", "leases/")
RUN_FIELDS = ("provenance",)  # fields of a record that differ between runs: seconds, device, versions


@dataclass(frozen=True)
class Outcome:
    """The end of a run."""

    status: int  # negative: the signal that killed it
    out: str
    err: str
    seconds: float

    @property
    def says_all_is_done(self) -> bool:
        """Whether the run found nothing left to do."""
        return self.status == 0 and ALL_IS_DONE in self.out

    def to_delete(self) -> list[str]:
        """Return the paths that its messages say to delete."""
        hints = [line for line in f"{self.err}\n{self.out}".splitlines() if DELETE_HINT in line]
        found = [next(filter(None, (pattern.search(line) for pattern in NAMED))) for line in hints]
        return list(dict.fromkeys(match[1] for match in found))


def problems_of(outcome: Outcome, struck: Iterable[Disturbance]) -> list[str]:
    """Check the output of a run against the documentation, given its disturbances.

    Returns:
        One sentence for each deviation.
    """
    problems = []
    lines = outcome.err.strip().splitlines()
    if "Traceback" in outcome.err + outcome.out:
        problems.append("a traceback was printed")
    if outcome.status == 0:
        return problems if DONE.search(outcome.out) else [*problems, "it succeeded without saying what is done"]
    expected = [one.ends_with[outcome.status] for one in struck if outcome.status in one.ends_with]
    if not expected:
        return [
            *problems,
            f"it ended with {outcome.status}, which nothing that befell it explains: {outcome.err[-500:]}",
        ]
    if outcome.status == 2:
        messages = lines or [line for line in outcome.out.splitlines() if line.startswith(FAILED)]
        if len(lines) > 1 or not all(line.startswith("augbench: ") for line in lines):
            problems.append(f"not one line on standard error: {outcome.err[-500:]}")
    else:
        messages = [outcome.out]
    if outcome.status > 0 and not any(re.search(pattern, line) for pattern in expected for line in messages):
        problems.append(f"status {outcome.status} is not explained by {messages}")
    return problems


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Compare a store with that of the undisturbed run: one sentence for each file that differs."""
    problems = [f"'{name}' is missing" for name in sorted(expected.keys() - found.keys()) if _is_result(name)]
    for name in sorted(found):
        if name not in expected:
            problems.append(f"'{name}' should not be there")
        elif _is_result(name) and _essence(name, found[name]) != _essence(name, expected[name]):
            problems.append(f"'{name}' has another content")
    return problems


def _is_result(name: str) -> bool:
    return not name.startswith(NOT_RESULTS)


def _essence(name: str, data: bytes) -> Any:
    """Return the part of a file that must not depend on the run: all of it, except provenance."""
    if name.endswith(".provenance.json"):
        return json.loads(data)["pictures"]
    if name.endswith(".json") and isinstance(value := json.loads(data), dict):
        return {key: part for key, part in value.items() if key not in RUN_FIELDS}
    return data
