"""What bench/chaos.py holds a run to: what it says when it ends, and what it leaves, against an undisturbed one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chaos_disturbances import Disturbance

DONE = re.compile(r"\d+ cells done, \d+ of them now|All \d+ cells were done already: nothing to do")
ALL_IS_DONE = "nothing to do"
FAILED = "failed: "  # begins the line of a unit that could not be made
TOLD_TO_DELETE = ": delete it, and run the grid again"
IT = (re.compile(r"chunk '([^']+)'"), re.compile(r"'([^']+)'"))  # of a chunk's picture the chunk, else what is named
ABOUT_NOTHING = ("logs/", "reports/", "leases/")  # no results
OF_ITS_RUN = ("provenance",)  # of a record: seconds, device, versions


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: int  # negative: the signal that killed it
    out: str
    err: str
    seconds: float

    @property
    def says_all_is_done(self) -> bool:
        """Whether it found nothing left to do."""
        return self.status == 0 and ALL_IS_DONE in self.out

    def to_delete(self) -> list[str]:
        """The places that its messages say to delete."""
        told = [line for line in f"{self.err}\n{self.out}".splitlines() if TOLD_TO_DELETE in line]
        found = [next(filter(None, (words.search(line) for words in IT))) for line in told]
        return list(dict.fromkeys(match[1] for match in found))


def judged(outcome: Outcome, struck: Iterable[Disturbance]) -> list[str]:
    """What a run said otherwise than documented, given what had befallen it: one sentence each."""
    problems = []
    lines = outcome.err.strip().splitlines()
    if "Traceback" in outcome.err + outcome.out:
        problems.append("a traceback is on screen")
    if outcome.status == 0:
        return problems if DONE.search(outcome.out) else [*problems, "it ended well without saying what is done"]
    expected = [one.ends_with[outcome.status] for one in struck if outcome.status in one.ends_with]
    if not expected:
        return [
            *problems,
            f"it ended with {outcome.status}, which nothing that befell it explains: {outcome.err[-500:]}",
        ]
    if outcome.status == 2:
        said = lines or [line for line in outcome.out.splitlines() if line.startswith(FAILED)]
        if len(lines) > 1 or not all(line.startswith("augbench: ") for line in lines):
            problems.append(f"not one line on standard error: {outcome.err[-500:]}")
    else:
        said = [outcome.out]
    if outcome.status > 0 and not any(re.search(words, line) for words in expected for line in said):
        problems.append(f"status {outcome.status} is not explained by {said}")
    return problems


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Where a store is not what the undisturbed run made: one sentence for each file."""
    problems = [f"'{name}' is missing" for name in sorted(expected.keys() - found.keys()) if _is_result(name)]
    for name in sorted(found):
        if name not in expected:
            problems.append(f"'{name}' should not be there")
        elif _is_result(name) and _essence(name, found[name]) != _essence(name, expected[name]):
            problems.append(f"'{name}' has another content")
    return problems


def _is_result(name: str) -> bool:
    return not name.startswith(ABOUT_NOTHING)


def _essence(name: str, data: bytes) -> Any:
    """What of a file must be the same however it was made; all of it, unless it tells how."""
    if name.endswith(".provenance.json"):
        return json.loads(data)["pictures"]
    if name.endswith(".json") and isinstance(value := json.loads(data), dict):
        return {key: part for key, part in value.items() if key not in OF_ITS_RUN}
    return data
