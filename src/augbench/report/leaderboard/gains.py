"""Gains over the baseline with their significance: from `report.evidence` where scores are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isnan, nan
from statistics import fmean
from typing import Any

from augbench.metrics.inference import FEWEST_RUNS, Verdict
from augbench.report.evidence.build import BASELINES, Comparison, Evidence, baseline_among, build_evidence
from augbench.report.evidence.explanations import exchange_captions, seed_notes
from augbench.report.evidence.sheets import over_free_text, worth_sentences
from augbench.report.leaderboard.headings import Content, entry
from augbench.report.leaderboard.merge import Gathered, MergedStore
from augbench.report.numbers import COLLAPSED, DASH, flagged, share, signed
from augbench.report.tables import Table

TableName = tuple[str, str, Any, tuple[int, ...]]
"""Dataset, protocol, shots and folds of a table."""
TONES = {Verdict.BETTER: "up", Verdict.WORSE: "down"}


def name_of(table: Table) -> TableName:
    """Return what identifies a table among the others."""
    return table.dataset, table.protocol, table.shots, table.folds


def evidence_of(gathered: Gathered) -> dict[TableName, Evidence]:
    """Build the evidence of every table whose records all have scores.

    Raises:
        UserError: scores are damaged, or belong to another run than their record.
    """
    store = MergedStore(gathered.stores)
    scored = store.keys("scores")
    lacking = gathered.expected["key"].isin(set(gathered.records["key"]) - scored)
    axes = ["dataset", "protocol", "shots"]
    complete = ~lacking.groupby([gathered.expected[axis] for axis in axes]).transform("any")
    expected = gathered.expected[complete]
    if expected.empty:
        return {}
    return {name_of(one.table): one for one in build_evidence(store, expected, gathered.records)}


def with_gains(table: Table, rows: list[dict[str, Any]], evidence: Evidence | None) -> str:
    """Add intervals, gains and verdicts to the rows of a table.

    Returns:
        The augmenter that rows are compared with; "" if the table has none.
    """
    single = [row for row in rows if not row["is_average"]]
    present = {row["augmenter"] for row in single if row["found"]}
    against = evidence.baseline if evidence else baseline_among(present)
    intervals = {one.name: one.intervals[table.headline] for one in evidence.rows} if evidence else {}
    compared = {(one.augmenter, one.n_aug): one for one in evidence.against} if evidence else {}
    for row in single:
        name = row["augmenter"], row["n_aug"]
        partner = _partner(row, single, against)
        row["partner"] = partner["id"] if partner else None
        row["is_reference"] = row["augmenter"] == against
        found = intervals.get(name)
        row["values"]["interval"] = _interval(found.low, found.high, row["collapsed"]) if found else entry()
        row["values"] |= _of_comparison(compared[name]) if name in compared else _of_means(table, row, partner)
    for row in rows:
        if row["is_average"]:
            _average(row, [one for one in single if one["augmenter"] == row["augmenter"] and one["n_aug"]], against)
    return against


def notes_of(table: Table, against: str, evidence: Evidence | None) -> list[str]:
    """Explain the gains and intervals of a table."""
    if not against:
        return [f"Gain: none, since these cells have no baseline ({' or '.join(BASELINES)})."]
    if evidence is None:
        return [f"Gain: difference of means to {against}. Some records have no scores: no interval, no verdict."]
    items = f"{evidence.groups:,} test items ({evidence.defective_groups:,} with defects)"
    return [
        f"95 % interval: bootstrap over test items and runs, {evidence.resamples:,} resamples of {items} and of "
        "the runs of the row.",
        f"Gain: difference to {against} over the runs that both have. Its interval holds for all rows of the table at "
        f"once. The verdict is better or worse if the interval excludes 0; it needs at least {FEWEST_RUNS} runs.",
        *seed_notes(evidence, evidence.against),
        *([free] if (free := over_free_text(evidence).strip()) else []),
        *_worth_notes(evidence),
    ]


def _worth_notes(evidence: Evidence) -> list[str]:
    """Say what the rows are worth in real defects, where there is a curve over these."""
    if not evidence.worths:
        return []
    return [" ".join(["In real defects:", *worth_sentences(evidence.worths), *exchange_captions(evidence)])]


def verdict_summary(rows: Sequence[Content]) -> tuple[str, str]:
    """Summarise the verdicts of an augmenter's rows in a few words, with their tone."""
    verdicts = [row["values"]["verdict"]["text"] for row in rows if row["values"]["verdict"]["text"] != DASH]
    if not verdicts:
        return "", ""
    if any(verdict.endswith(COLLAPSED) for verdict in verdicts):
        return f"rests on collapsed runs {COLLAPSED}", ""
    counts = Counter(verdicts)
    if len(counts) == 1:
        return verdicts[0], TONES.get(verdicts[0], "")
    decided = [verdict for verdict in TONES if counts[verdict]]
    texts = [f"{verdict} at {counts[verdict]}" for verdict in decided or [Verdict.NONE]]
    few = [f"too few runs at {counts[Verdict.TOO_FEW]}"] if counts[Verdict.TOO_FEW] else []
    return f"{', '.join([*texts, *few])} of {len(verdicts)} N_aug", ""


def _partner(row: Content, rows: Sequence[dict[str, Any]], against: str) -> dict[str, Any] | None:
    """Return the row to compare with, as evidence does: without synthetic images, else with as many."""
    if not against or row["augmenter"] == against:
        return None
    by_name = {(one["augmenter"], one["n_aug"]): one for one in rows}
    return by_name.get((against, 0)) or by_name.get((against, row["n_aug"]))


def _of_comparison(one: Comparison) -> dict[str, Any]:
    tone = "" if one.collapsed else TONES.get(one.verdict, "")
    gain = one.together.estimate
    verdict = flagged(one.verdict.value, one.collapsed) if one.together.runs else DASH
    return {
        "gain": entry(flagged(signed(gain), one.collapsed), gain, tone=tone),
        "gain_interval": _interval(one.together.low, one.together.high, one.collapsed),
        "verdict": entry(verdict, nan if verdict == DASH else -float(list(Verdict).index(one.verdict)), tone=tone),
    }


def _of_means(table: Table, row: Content, partner: Content | None) -> dict[str, Any]:
    values = [one["values"][table.headline]["value"] if one else None for one in (row, partner)]
    gain = nan if None in values else values[0] - values[1]
    collapsed = row["collapsed"] + (partner["collapsed"] if partner else 0)
    return {"gain": entry(flagged(signed(gain), collapsed), gain), "gain_interval": entry(), "verdict": entry()}


def _average(row: dict[str, Any], members: Sequence[Content], against: str) -> None:
    """Average the gains, if all members have one; an average gets no interval and no verdict."""
    gains = [one["values"]["gain"]["value"] for one in members]
    mean = nan if None in gains else fmean(gains)
    row["partner"], row["is_reference"] = None, row["augmenter"] == against
    row["values"] |= {"interval": entry(), "gain_interval": entry(), "verdict": entry()}
    collapsed = sum(one["values"]["gain"]["text"].endswith(COLLAPSED) for one in members)
    row["values"]["gain"] = entry(flagged(signed(mean), collapsed), mean)


def _interval(low: float, high: float, collapsed: int) -> dict[str, Any]:
    if isnan(low) or isnan(high):
        return entry()
    return entry(flagged(f"[{share(float(low))}, {share(float(high))}]", collapsed), float(low))
