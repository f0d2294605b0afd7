"""Evidence -> sections and sheets, which all renderers print; and sentences above the tables of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf, isnan

from augbench.metrics.exchange import Rate
from augbench.metrics.inference import Verdict
from augbench.metrics.resampling import Interval
from augbench.report.evidence import explanations
from augbench.report.evidence.build import Comparison, Evidence, Worth
from augbench.report.evidence.ranking import Ranking
from augbench.report.numbers import COLLAPSED, DASH, count_text, flagged, seconds_text, share, shots_text, signed
from augbench.report.references import REFERENCES
from augbench.report.sheet import Column, Detail, Legend, Section, Sheet, SheetRow
from augbench.report.table_notes import AP_SENTENCES, plural
from augbench.report.tables import AP_NAMES

NAMES = {"ap": "AP", "accuracy": "accuracy", "macro_f1": "macro-F1"}
DECIDED = (Verdict.BETTER, Verdict.WORSE)
NAMED_GAINS = 3  # augmenters that a lead names
NO_NUMBER = (Rate.UNKNOWN, Rate.TOO_FEW)
MAX_ROWS = 30  # rows of a list of comparisons in the terminal; of a longer list only the decided ones
AUGMENTER = Column("augmenter", "augmenter", is_text=True)
N_AUG = Column("n_aug", "N_aug", is_text=True)


def section_of(evidence: Evidence, brief: bool = False) -> Section:
    """Build the section of one table; sentences stand in place of sheets that cannot be built.

    Args:
        evidence: the evidence of the table.
        brief: as in the terminal: begin with what the differences say, and leave out of long lists those that are
            neither better nor worse.
    """
    table = evidence.table
    sheets, sentences = [_intervals(evidence)], []
    if table.frozen:
        sentences.append(Legend(table.frozen, about=f"protocol {table.protocol}"))
    if table.near_copies:
        sentences.append(table.near_copies)
    if table.task == "detection":
        sentences.append(Legend(AP_SENTENCES[table.ap_definition]))
    if evidence.against:
        sheets.append(_comparisons(evidence, evidence.against, f"Against {evidence.baseline}", False, brief))
    elif len(evidence.rows) > 1:
        sentences.append(Detail(explanations.why_not_against(evidence)))  # the lead says it
    if evidence.over_free:
        sheets.append(_over_free(evidence))
    if evidence.worths:
        sheets.append(exchange_sheet(evidence))
    if evidence.pairs:
        title = "Between augmenters, at the same N_aug"
        sheets.append(_comparisons(evidence, evidence.pairs, title, True, brief))
    if evidence.checks:
        sheets.append(_artefact_checks(evidence))
    if sentence := explanations.no_variance_split(evidence):
        sentences.append(Detail(sentence))
    else:
        sheets.append(_variance(evidence))
    if any(row.cost is not None and row.n_aug for row in evidence.rows):
        sheets.append(_costs(evidence))
    elif any(row.n_aug for row in evidence.rows):
        sentences += ["The cost of the images is not on record.", *explanations.lineage_notes(evidence)]
    if brief:
        return Section(table.placed_title, table.label, sentences, sheets, lead=lead_of(evidence))
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
    errors = [Column("items", "s.e. items", detail=1), Column("runs_error", "s.e. runs", detail=1)]
    columns += [*errors, Column("runs", "runs")]
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
        Column("runs", "pairs", detail=1),
        *([Column("p", "p (Holm)", detail=2)] if tested else []),
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


def _over_free(evidence: Evidence) -> Sheet:
    columns = [
        AUGMENTER,
        N_AUG,
        Column("strongest", "strongest free baseline", is_text=True),
        Column("difference", f"difference in {NAMES[evidence.headline]}"),
        Column("interval", "95 % interval"),
        Column("verdict", "verdict", is_text=True),
    ]
    rows = []
    for one in evidence.over_free:
        numbers = signed(one.together.estimate), span(one.together, signed), str(one.verdict)
        texts = (one.augmenter, str(one.n_aug), one.strongest, *(flagged(text, one.collapsed) for text in numbers))
        is_found = one.verdict in DECIDED and not one.collapsed
        rows.append(SheetRow(texts, {len(texts) - 1: "best"} if is_found else {}))
    return Sheet(columns, rows, "Against the strongest free baseline", [explanations.FREE_CAPTION])


def exchange_sheet(evidence: Evidence) -> Sheet:
    """Return what the rows of a table are worth in real defects."""
    columns = [
        AUGMENTER,
        N_AUG,
        Column("real", "real"),
        Column("worth", "worth"),
        Column("interval", "95 % interval"),
        Column("extra", "extra"),
        Column("rate", "what can be said", is_text=True),
    ]
    rows = []
    for one in evidence.worths:
        numbers = (number_text(one), *(worth_span(one), extra_text(one)))
        texts = (flagged(text, one.collapsed) for text in (*numbers, str(one.found.rate)))
        rows.append(SheetRow((one.augmenter, str(one.n_aug), count_text(one.found.count), *texts)))
    return Sheet(columns, rows, "Worth in real defects", explanations.exchange_captions(evidence))


def _artefact_checks(evidence: Evidence) -> Sheet:
    columns = [
        AUGMENTER,
        N_AUG,
        Column("gain", f"gain over {evidence.baseline}", detail=1),
        Column("null", "null", is_text=True),
        Column("null_gain", "its gain", detail=2),
        Column("over", "over the null"),
        Column("interval", "95 % interval"),
        Column("runs", "pairs", detail=3),
        Column("finding", "finding", is_text=True),
    ]
    rows = []
    for one in evidence.checks:
        parts = one.gain, one.null_gain, one.over
        gain, null_gain, over = (flagged(signed(part.together.estimate), part.collapsed) for part in parts)
        interval, runs = flagged(span(one.over.together, signed), one.over.collapsed), str(one.over.together.runs)
        names, found = (one.gain.augmenter, str(one.gain.n_aug)), flagged(str(one.finding), one.collapsed)
        rows.append(SheetRow((*names, gain, one.over.versus, null_gain, over, interval, runs, found)))
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
    columns = [AUGMENTER, N_AUG, *(Column(part, titles[part], detail=int(part != "total")) for part in parts)]
    columns += [Column("training", "training")]
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


def verdicts_of(evidence: Sequence[Evidence]) -> dict[str, tuple[str, list[str]]]:
    """Return the title of each table -> what its differences say, and a sentence per row with a verdict against its
    baseline, as `compare` has it, and on what it is worth in real defects.
    """
    return {one.table.title: (lead_of(one), [*sentences_of(one), *worth_sentences(one.worths)]) for one in evidence}


def lead_of(evidence: Evidence) -> str:
    """Say in one sentence which augmenters are shown to improve the headline metric, by how much, and what the rest is.

    Rows with collapsed runs and the reference row count among neither.
    """
    compared = [one for one in evidence.against if one.augmenter not in REFERENCES]
    if not compared:
        return explanations.why_not_against(evidence) if len(evidence.rows) > 1 else ""
    sound = [one for one in compared if not one.collapsed]
    of = {verdict: [one for one in sound if one.verdict == verdict] for verdict in Verdict}
    goal = f"{NAMES[evidence.headline]} over {evidence.baseline}"
    if better := of[Verdict.BETTER]:
        found = {check.gain.row: f"; {flagged(str(check.finding), check.collapsed)}" for check in evidence.checks}
        ordered = sorted(better, key=lambda one: -one.together.estimate)
        best = list({one.augmenter: one for one in reversed(ordered)}.values())[::-1]  # the best row of each
        each = [_gain(one, found.get(one.row, "")) for one in best[:NAMED_GAINS]]
        more = [f"{len(best) - NAMED_GAINS} more"] if len(best) > NAMED_GAINS else []
        head = f"Shown to improve {goal}: {', '.join([*each, *more])}"
    elif len(of[Verdict.TOO_FEW]) == len(compared):
        return f"Too few runs to say whether an augmenter improves {goal} ({plural(len(compared), 'row')})."
    else:
        head = f"No augmenter is shown to improve {goal}"
    reach = max((max(abs(one.together.low), abs(one.together.high)) for one in of[Verdict.NONE]), default=0.0)
    parts = [
        (len(better), "is better", "are better"),
        (
            len(of[Verdict.NONE]),
            *(f"{verb} no detectable difference (intervals reach at most ±{share(reach)})" for verb in ("has", "have")),
        ),
        (len(of[Verdict.WORSE]), "is worse", "are worse"),
        (len(of[Verdict.TOO_FEW]), "has too few runs to say", "have too few runs to say"),
        (len(compared) - len(sound), "rests on collapsed runs", "rest on collapsed runs"),
    ]
    counts = ", ".join(f"{number} {one if number == 1 else many}" for number, one, many in parts if number)
    return f"{head}; of {plural(len(compared), 'row')} {counts}.{over_free_text(evidence)}"


def over_free_text(evidence: Evidence) -> str:
    """Say which augmenters beat every free baseline, with a space before it; "" where there is no choice of these."""
    sound = [one for one in evidence.over_free if not one.collapsed and one.verdict != Verdict.TOO_FEW]
    if not sound:
        return ""
    better = {one.augmenter: one for one in sound if one.verdict == Verdict.BETTER}
    if better:
        return f" Better than every free baseline: {', '.join(better)}."
    best = max(sound, key=lambda one: one.together.estimate)
    gain = f"{signed(best.together.estimate)}, {span(best.together, signed)}"
    return (
        f" None is shown to beat the strongest free baseline; closest is {best.augmenter} to {best.strongest} ({gain})."
    )


# -- worth in real defects


def number_text(one: Worth) -> str:
    """Format k*: ``9.9``, or where it lies beside the curve; a dash where there is none."""
    low, high = min(one.counting.of.values()), max(one.counting.of.values())
    return _count(one.found.worth, low, high)


def worth_span(one: Worth) -> str:
    """Format its interval: ``4.6 to 23``, with ``<`` and ``>`` beside the curve; a dash where it says nothing."""
    if one.found.rate in NO_NUMBER:
        return DASH
    low, high = min(one.counting.of.values()), max(one.counting.of.values())
    return f"{_count(one.found.low, low, high)} to {_count(one.found.high, low, high)}"


def extra_text(one: Worth) -> str:
    """Format k* - k: ``+4.9``, or that it is less than nothing."""
    if one.found.rate in NO_NUMBER:
        return DASH
    return count_text(one.found.extra, 2, "+") if one.found.rate == Rate.WORTH else "fewer than none"


def _count(value: float, low: float, high: float) -> str:
    if isnan(value):
        return DASH
    return f"<{count_text(low)}" if value == 0 else f">{count_text(high)}" if value == inf else count_text(value)


def worth_section(evidence: Sequence[Evidence]) -> list[Section]:
    """Build the section of a report on what rows are worth in real defects; [] without a curve over these."""
    sheets = [replace(exchange_sheet(one), title=one.table.title) for one in evidence if one.worths]
    return [Section("What synthetic images are worth in real defects", sheets=sheets)] if sheets else []


def worth_sentences(worths: Iterable[Worth]) -> list[str]:
    """Return a sentence for each row: ``4.8 real + 80 memseg images = 9.9 [4.6, 23] real ones.``"""
    return [worth_sentence(one) for one in worths]


def worth_sentence(one: Worth) -> str:
    """Say what a row is worth in real defects, as far as it can be told."""
    added = f"{one.n_aug} {one.augmenter} images" if one.n_aug else "the distance to normal images"
    what = f"{count_text(one.found.count)} real + {added}"
    interval = worth_span(one).replace(" to ", ", ")
    said = {
        Rate.WORTH: f"{what} = {number_text(one)} [{interval}] real ones",
        Rate.FEWER: f"{what} = {number_text(one)} [{interval}] real ones: fewer than none",
        **{rate: f"{what}: {rate}" for rate in NO_NUMBER},
    }
    return f"{flagged(said[one.found.rate], one.collapsed)}."


def _gain(one: Comparison, finding: str) -> str:
    """Format a gain: ``memseg, N_aug 80, by +.078 (95 % interval +.011 to +.146)``."""
    interval = f"{explanations.PERCENT} interval {span(one.together, signed)}{finding}"
    return f"{one.augmenter} (N_aug {one.n_aug}) by {signed(one.together.estimate)} ({interval})"


def sentences_of(evidence: Evidence) -> list[str]:
    """Return a sentence per comparison with the baseline, with what the null of the row tells."""
    found = {
        check.gain.row: f"; {flagged(str(check.finding), check.collapsed)} ({check.over.versus})"
        for check in evidence.checks
    }
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
