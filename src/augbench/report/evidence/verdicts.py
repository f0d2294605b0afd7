"""Evidence -> sentences above a table: which differences exceed chance."""

from __future__ import annotations

import pandas as pd

from augbench.metrics.inference import Verdict
from augbench.report.evidence.build import Comparison, Evidence, build_evidence
from augbench.report.evidence.sheets import NAMES, span
from augbench.report.numbers import flagged, signed
from augbench.storage.store import Store


def find_verdicts(store: Store, expected: pd.DataFrame, records: pd.DataFrame) -> dict[str, list[str]]:
    """Return the title of each table -> a sentence per row with a verdict against its baseline, as `compare` has it.

    Arguments and errors as in `build_evidence`.
    """
    return {one.table.title: sentences_of(one) for one in build_evidence(store, expected, records)}


def sentences_of(evidence: Evidence) -> list[str]:
    """Return a sentence per comparison with the baseline."""
    name, checks = NAMES[evidence.headline], {check.over.row: check for check in evidence.checks}
    found = {row: f"; {check.finding} ({check.over.versus})" for row, check in checks.items()}
    return [_sentence(one, name, found.get(one.row, "")) for one in evidence.against]


def _sentence(one: Comparison, metric: str, check: str) -> str:
    row = f"{one.augmenter}, N_aug {one.n_aug}"
    if one.verdict == Verdict.TOO_FEW:
        return f"{row}: {one.verdict} (against {one.versus})."
    difference = f"{signed(one.together.estimate)} {metric} against {one.versus}"
    certainty = f"95 % interval {span(one.together, signed)}, {one.together.runs} pairs"
    return f"{row}: {flagged(f'{difference} ({certainty}): {one.verdict}', one.collapsed)}{check}."
