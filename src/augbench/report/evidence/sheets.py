"""Evidence -> sections and sheets, which all renderers print; and sentences above the tables of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan

import pandas as pd

from augbench.metrics.inference import Verdict
from augbench.metrics.resampling import Interval
from augbench.report.evidence import explanations
from augbench.report.evidence.build import Comparison, Evidence, build_evidence
from augbench.report.evidence.ranking import Ranking
from augbench.report.numbers import COLLAPSED, DASH, flagged, seconds_text, share, shots_text, signed
from augbench.report.sheet import Column, Section, Sheet, SheetRow
from augbench.report.table_notes import AP_SENTENCES
from augbench.report.tables import AP_NAMES
from augbench.storage.store import Store

NAMES = {"ap": "AP", "accuracy": "accuracy", "macro_f1": "macro-F1"}
DECIDED = (Verdict.BETTER, Verdict.WORSE)
MAX_ROWS = 30  # rows of a list of comparisons in the terminal; of a longer list only the decided ones
AUGMENTER = Column("augmenter", "augmenter", is_text=True)
N_AUG = Column("n_aug", "N_aug", is_text=True)


def section_of(evidence: Evidence, brief: bool = False) -> Section:
    """Build the section of one table; sentences stand in place of sheets that cannot be built.

    Args:
        evidence: the evidence of the table.
        brief: leave out of long lists the differences that are neither better nor worse, as in the terminal.
    """
    table = evidence.table
    sheets, sentences = [_intervals(evidence)], []
    if table.frozen:
        sentences.append(table.frozen)
    if table.near_copies:
        sentences.append(table.near_copies)
    if table.task == "detection":
        sentences.append(AP_SENTENCES[table.ap_definition])
    if evidence.against:
        sheets.append(_comparisons(evidence, evidence.against, f"Against {evidence.baseline}", False, brief))
    elif len(evidence.rows) > 1:
        sentences.append(explanations.why_not_against(evidence))
    if evidence.pairs:
        title = "Between augmenters, at the same N_aug"
        sheets.append(_comparisons(evidence, evidence.pairs, title, True, brief))
    if evidence.checks:
        sheets.append(_artefact_checks(evidence))
    if sentence := explanations.no_variance_split(evidence):
        sentences.append(sentence)
    else:
        sheets.append(_variance(evidence))
    if any(row.cost is not None and row.n_aug for row in evidence.rows):
        sheets.append(_costs(evidence))
    elif any(row.n_aug for row in evidence.rows):
        sentences += ["The cost of the images is not on record.", *explanations.lineage_notes(evidence)]
    return Section(table.title, table.label, sentences, sheets)


def method_section(evidence: Sequence[Evidence]) -> Section:
    """Build the first section, which explains the others."""
    return Section("How to read this", sentences=explanations.method(evidence))


def ranking_section(rankings: Sequence[Ranking], sentence: str) -> Section:
    """Build the section of average ranks over datasets, or of why there are none."""
    sheets = [_ranks(one) for one in rankings if one.ranks]
    return Section("Ranks over datasets", sentences=[sentence] if sentence else [], sheets=sheets)


# -- sheets


def _intervals(evidence: Evidence) -> Sheet:
    columns = [AUGMENTER, N_AUG]
    for metric in evidence.metrics:
        group = AP_NAMES[evidence.table.ap_definition] if metric == "ap" else ""
        columns += [Column(metric, NAMES[metric], group), Column("interval", "95 % interval")]
    columns += [Column("items", "s.e. items"), Column("runs_error", "s.e. runs"), Column("runs", "runs")]
    rows = []
    for row in evidence.rows:
        every = [row.intervals[metric] for metric in evidence.metrics]
        numbers = [text for one in every for text in (share(one.estimate), span(one))]
        texts = [flagged(text, len(row.collapsed)) for text in numbers]
        parts = dict(row.intervals[evidence.headline].parts)
        items = parts.pop("items", float("nan"))
        between = sum(value**2 for value in parts.values()) ** 0.5 if parts else float("nan")
        rows.append(SheetRow((row.augmenter, str(row.n_aug), *texts, share(items), share(between), row.runs_text)))
    captions, notes = explanations.interval_captions(evidence), explanations.interval_notes(evidence)
    return Sheet(columns, rows, "Intervals", captions, notes)


def _comparisons(evidence: Evidence, compared: list[Comparison], title: str, names_both: bool, brief: bool) -> Sheet:
    tested = any(one.p == one.p for one in compared)
    columns = [
        AUGMENTER,
        *([Column("versus", "minus", is_text=True)] if names_both else []),
        N_AUG,
        Column("difference", f"difference in {NAMES[evidence.headline]}"),
        Column("interval", "95 % interval"),
        Column("runs", "pairs"),
        *([Column("p", "p (Holm)")] if tested else []),
        Column("verdict", "verdict", is_text=True),
    ]
    notes = explanations.comparison_notes(evidence, compared)
    shown = compared
    if brief and len(compared) > MAX_ROWS:
        shown = [one for one in compared if one.verdict in DECIDED]
        rest = f"{len(compared) - len(shown)} of {len(compared)} differences are neither better nor worse"
        notes = [f"{rest}: they are in compare.md.", *notes]
    rows = []
    for one in shown:
        same = one.n_aug == one.versus_n_aug or not one.versus_n_aug
        texts = (
            one.augmenter,
            *((one.versus,) if names_both else ()),
            str(one.n_aug) if same else f"{one.n_aug}, {one.versus_n_aug}",
            flagged(signed(one.together.estimate), one.collapsed),
            flagged(span(one.together, signed), one.collapsed),
            str(one.together.runs),
            *((flagged(p_text(one.p_holm), one.collapsed),) if tested else ()),
            flagged(str(one.verdict), one.collapsed),
        )
        is_found = one.verdict in DECIDED and not one.collapsed
        rows.append(SheetRow(texts, {len(texts) - 1: "best"} if is_found else {}))
    return Sheet(columns, rows, title, explanations.comparison_captions(evidence, compared), notes)


def _artefact_checks(evidence: Evidence) -> Sheet:
    columns = [
        AUGMENTER,
        N_AUG,
        Column("gain", f"gain over {evidence.baseline}"),
        Column("null", "null", is_text=True),
        Column("null_gain", "its gain"),
        Column("over", "over the null"),
        Column("interval", "95 % interval"),
        Column("runs", "pairs"),
        Column("finding", "finding", is_text=True),
    ]
    rows = []
    for one in evidence.checks:
        gains = (signed(part.together.estimate) for part in (one.gain, one.null_gain, one.over))
        gain, null_gain, over = (flagged(text, one.over.collapsed) for text in gains)
        interval, runs = flagged(span(one.over.together, signed), one.over.collapsed), str(one.over.together.runs)
        names = one.gain.augmenter, str(one.gain.n_aug)
        rows.append(SheetRow((*names, gain, one.over.versus, null_gain, over, interval, runs, str(one.finding))))
    return Sheet(columns, rows, "Artefacts: gains over a null", explanations.ARTEFACT_CAPTIONS)


def _variance(evidence: Evidence) -> Sheet:
    titles = {"fold": "fold", "draw": "draw of shots", "seed": "seed", "rest": "draw x seed and rest"}
    sources = [name for name in titles if any(not isnan(getattr(row.variance, name)) for row in evidence.rows)]
    columns = [AUGMENTER, N_AUG, *(Column(name, titles[name]) for name in sources), Column("runs", "runs")]
    rows = [
        SheetRow(
            (
                *(row.augmenter, str(row.n_aug)),
                *(flagged(share(getattr(row.variance, source)), len(row.collapsed)) for source in sources),
                str(row.runs),
            )
        )
        for row in evidence.rows
    ]
    notes = ["A row with missing runs is not split."] if any(not row.variance.balanced for row in evidence.rows) else []
    title = f"Where the variance of {NAMES[evidence.headline]} comes from"
    return Sheet(columns, rows, title, explanations.variance_captions(evidence), notes)


def _costs(evidence: Evidence) -> Sheet:
    titles = {"search": "search", "class_pictures": "class images", "adapting": "adaptation",
              "generating": "generation", "total": "total"}  # fmt: skip
    costs = [row.cost for row in evidence.rows if row.cost is not None]
    parts = [name for name in titles if name == "total" or any(getattr(cost, name) for cost in costs)]
    name = NAMES[evidence.headline]
    columns = [AUGMENTER, N_AUG, *(Column(part, titles[part]) for part in parts), Column("training", "training")]
    columns += [Column(evidence.headline, name), Column("efficient", "efficient", is_text=True)]
    rows = []
    for row in evidence.rows:
        seconds = [DASH if row.cost is None else seconds_text(getattr(row.cost, part)) for part in parts]
        value = flagged(share(row.intervals[evidence.headline].estimate), len(row.collapsed))
        own = (*seconds, seconds_text(row.training_seconds), value, "yes" if row.efficient else "")
        rows.append(SheetRow((row.augmenter, str(row.n_aug), *own), {0: "best"} if row.efficient else {}))
    title = f"{name[0].upper()}{name[1:]} against cost"
    return Sheet(columns, rows, title, explanations.COST_CAPTIONS, explanations.cost_notes(evidence))


def _ranks(ranking: Ranking) -> Sheet:
    ranks = ranking.ranks
    assert ranks is not None
    order = sorted(range(len(ranking.augmenters)), key=lambda index: ranks.average[index])
    texts = [flagged(f"{ranks.average[index]:.2f}", ranking.collapsed) for index in order]
    rows = [SheetRow((ranking.augmenters[index], text)) for index, text in zip(order, texts, strict=True)]
    captions = [
        f"Average ranks by {NAMES[ranking.metric]} over {len(ranking.datasets)} datasets (1 is best): "
        f"{', '.join(ranking.datasets)}.",
        f"Friedman's test (Iman and Davenport): {p_value_text(ranks.p)}. Ranks closer than "
        f"{ranks.critical_difference:.2f} do not differ significantly (Nemenyi, .05).",
    ]
    if ranking.collapsed:
        captions.append(f"{COLLAPSED} {ranking.collapsed} of the runs behind these ranks have collapsed.")
    title = f"{ranking.protocol}, {shots_text(ranking.shots)}"
    return Sheet([AUGMENTER, Column("rank", "average rank")], rows, title, captions)


# -- verdicts of a report


def find_verdicts(store: Store, expected: pd.DataFrame, records: pd.DataFrame) -> dict[str, list[str]]:
    """Return the title of each table -> a sentence per row with a verdict against its baseline, as `compare` has it.

    Arguments and errors as in `build_evidence`.
    """
    return {one.table.title: sentences_of(one) for one in build_evidence(store, expected, records)}


def sentences_of(evidence: Evidence) -> list[str]:
    """Return a sentence per comparison with the baseline, with what the null of the row tells."""
    found = {check.gain.row: f"; {check.finding} ({check.over.versus})" for check in evidence.checks}
    return [_sentence(one, NAMES[evidence.headline], found.get(one.row, "")) for one in evidence.against]


def _sentence(one: Comparison, metric: str, finding: str) -> str:
    row = f"{one.augmenter}, N_aug {one.n_aug}"
    if one.verdict == Verdict.TOO_FEW:
        return f"{row}: {one.verdict} (against {one.versus})."
    difference = f"{signed(one.together.estimate)} {metric} against {one.versus}"
    certainty = f"95 % interval {span(one.together, signed)}, {one.together.runs} pairs"
    return f"{row}: {flagged(f'{difference} ({certainty}): {one.verdict}', one.collapsed)}{finding}."


# -- texts


def span(found: Interval, text: Callable[[float], str] = share) -> str:
    """Format an interval: ``.412 to .655``; a dash for none."""
    return DASH if isnan(found.low) else f"{text(found.low)} to {text(found.high)}"


def p_text(value: float) -> str:
    """Format a p-value: ``.016``; below a thousandth ``<.001``; a dash for NaN."""
    return DASH if isnan(value) else "<.001" if value < 0.0005 else share(value)


def p_value_text(value: float) -> str:
    """Format a p-value with its name: ``p = .016``, or ``p < .001``."""
    return f"p {p_text(value).replace('<', '< ')}" if value < 0.0005 else f"p = {p_text(value)}"
