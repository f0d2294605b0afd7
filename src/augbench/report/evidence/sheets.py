"""Evidence -> sheets -> terminal, Markdown, LaTeX. All renderers read the same sheets, so that they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan

import rich.table
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from augbench.metrics.inference import Verdict
from augbench.metrics.resampling import Interval
from augbench.report.evidence import explanations
from augbench.report.evidence.build import Comparison, Evidence, RowEvidence
from augbench.report.evidence.ranking import Ranking
from augbench.report.numbers import DASH, INCOMPLETE, Column, seconds_text, share
from augbench.report.table_latex import environment, escape_latex
from augbench.report.table_notes import AP_SENTENCES
from augbench.report.table_text import escape_markdown
from augbench.report.tables import AP_NAMES

NAMES = {"ap": "AP", "accuracy": "accuracy", "macro_f1": "macro-F1"}
DECIDED = (Verdict.BETTER, Verdict.WORSE)
MAX_ROWS = 30  # rows of a list of comparisons in the terminal; of a longer list only the decided ones


@dataclass(frozen=True)
class Sheet:
    """One table of texts and numbers."""

    title: str
    columns: list[Column]
    rows: list[tuple[str, ...]]
    captions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bold: frozenset[tuple[int, int]] = frozenset()  # row, column


@dataclass(frozen=True)
class Chapter:
    """A section: the sheets of one table, and sentences in place of sheets that cannot be built."""

    title: str
    label: str  # "mechanics, not evidence (...)", or ""
    sheets: list[Sheet]
    sentences: list[str] = field(default_factory=list)


def chapter_of(evidence: Evidence) -> Chapter:
    """Build the section of one table."""
    table = evidence.table
    sheets, sentences = [_intervals(evidence)], []
    if table.task == "detection":
        sentences.append(AP_SENTENCES[table.ap_definition])
    if evidence.against:
        sheets.append(_against(evidence))
    elif len(evidence.rows) > 1:
        sentences.append(explanations.why_not_against(evidence))
    if evidence.pairs:
        sheets.append(_pairs(evidence))
    sentence = explanations.no_variance_split(evidence)
    if sentence:
        sentences.append(sentence)
    else:
        sheets.append(_variance(evidence))
    if any(row.cost is not None and row.n_aug for row in evidence.rows):
        sheets.append(_costs(evidence))
    elif any(row.n_aug for row in evidence.rows):
        sentences.append("The cost of the images is not on record: this store has no pools and no costs.json.")
    return Chapter(table.title, table.label, sheets, sentences)


def method_chapter(evidence: Sequence[Evidence]) -> Chapter:
    """Build the first section, which explains the others."""
    return Chapter("How to read this", "", [], explanations.method(evidence))


def ranking_chapter(rankings: Sequence[Ranking], sentence: str) -> Chapter:
    """Build the section of average ranks over datasets, or of why there are none."""
    return Chapter(
        "Ranks over datasets", "", [_ranks(one) for one in rankings if one.ranks], [sentence] if sentence else []
    )


# -- sheets


def _intervals(evidence: Evidence) -> Sheet:
    names = [NAMES[metric] for metric in evidence.metrics]
    columns = [Column("augmenter", "augmenter"), Column("n_aug", "N_aug")]
    for metric, name in zip(evidence.metrics, names, strict=True):
        group = AP_NAMES[evidence.table.ap_definition] if metric == "ap" else ""
        columns += [Column(metric, name, group), Column("interval", "95 % interval")]
    columns += [Column("items", "s.e. items"), Column("runs_error", "s.e. runs"), Column("runs", "runs")]
    rows = []
    for row in evidence.rows:
        texts = [text for m in evidence.metrics for text in (share(row.intervals[m].estimate), span(row.intervals[m]))]
        headline = row.intervals[evidence.headline]
        parts = dict(headline.parts)
        items = parts.pop("items", float("nan"))
        between = sum(value**2 for value in parts.values()) ** 0.5 if parts else float("nan")
        runs = str(row.found) if row.found == row.expected else f"{row.found}/{row.expected} {INCOMPLETE}"
        rows.append((row.augmenter, str(row.n_aug), *texts, share(items), share(between), runs))
    return Sheet(
        "Intervals", columns, rows, explanations.interval_captions(evidence), explanations.interval_notes(evidence)
    )


def _against(evidence: Evidence) -> Sheet:
    """Build the sheet of all rows minus the baseline."""
    return _comparisons(evidence, evidence.against, f"Against {evidence.baseline}", names_both=False)


def _pairs(evidence: Evidence) -> Sheet:
    return _comparisons(evidence, evidence.pairs, "Between augmenters, at the same N_aug", names_both=True)


def _comparisons(evidence: Evidence, compared: list[Comparison], title: str, names_both: bool) -> Sheet:
    tested = any(one.p == one.p for one in compared)
    columns = [
        Column("augmenter", "augmenter"),
        *([Column("class", "minus")] if names_both else []),
        Column("n_aug", "N_aug"),
        Column("difference", f"difference in {NAMES[evidence.headline]}"),
        Column("interval", "95 % interval"),
        Column("runs", "pairs"),
        *([Column("p", "p (Holm)")] if tested else []),
        Column("class", "verdict"),
    ]
    rows, bold = [], set()
    for index, one in enumerate(compared):
        n_aug = (
            str(one.n_aug)
            if one.n_aug == one.versus_n_aug or not one.versus_n_aug
            else f"{one.n_aug}, {one.versus_n_aug}"
        )
        rows.append((
            one.augmenter,
            *((one.versus,) if names_both else ()),
            n_aug,
            signed(one.together.estimate),
            span(one.together, signed),
            str(one.together.runs),
            *((p_text(one.p_holm),) if tested else ()),
            str(one.verdict),
        ))  # fmt: skip
        if one.verdict in DECIDED:
            bold.add((index, len(columns) - 1))
    captions, notes = (
        explanations.comparison_captions(evidence, compared),
        explanations.comparison_notes(evidence, compared),
    )
    return Sheet(title, columns, rows, captions, notes, frozenset(bold))


def _variance(evidence: Evidence) -> Sheet:
    sources = [
        n
        for n in ("fold", "draw", "seed", "rest")
        if any(getattr(r.variance, n) == getattr(r.variance, n) for r in evidence.rows)
    ]
    titles = {"fold": "fold", "draw": "draw of shots", "seed": "seed", "rest": "draw x seed and rest"}
    columns = [
        Column("augmenter", "augmenter"),
        Column("n_aug", "N_aug"),
        *(Column(name, titles[name]) for name in sources),
    ]
    columns.append(Column("runs", "runs"))
    rows = [
        (row.augmenter, str(row.n_aug), *(share(getattr(row.variance, name)) for name in sources), str(row.found))
        for row in evidence.rows
    ]
    notes = ["A row with missing runs is not split."] if any(not row.variance.balanced for row in evidence.rows) else []
    title = f"Where the variance of {NAMES[evidence.headline]} comes from"
    return Sheet(title, columns, rows, explanations.variance_captions(), notes)


def _costs(evidence: Evidence) -> Sheet:
    titles = {
        "search": "search",
        "class_pictures": "class images",
        "adapting": "adaptation",
        "generating": "generation",
    }
    costs = [row.cost for row in evidence.rows if row.cost is not None]
    parts = [name for name in titles if any(getattr(cost, name) for cost in costs)]
    titles |= {"total": "total"}
    parts = [*parts, "total"]
    columns = [
        Column("augmenter", "augmenter"),
        Column("n_aug", "N_aug"),
        *(Column(name, titles[name]) for name in parts),
        Column("training", "training"),
        Column(evidence.headline, NAMES[evidence.headline]),
        Column("class", "efficient"),
    ]
    rows = [(row.augmenter, str(row.n_aug), *_cost_texts(row, parts), seconds_text(row.training_seconds),
             share(row.intervals[evidence.headline].estimate), "yes" if row.efficient else "")
            for row in evidence.rows]  # fmt: skip
    bold = frozenset((index, 0) for index, row in enumerate(evidence.rows) if row.efficient)
    name = NAMES[evidence.headline]
    title = f"{name[0].upper()}{name[1:]} against cost"
    return Sheet(title, columns, rows, explanations.cost_captions(), explanations.cost_notes(evidence), bold)


def _cost_texts(row: RowEvidence, parts: list[str]) -> list[str]:
    return [DASH if row.cost is None else seconds_text(getattr(row.cost, name)) for name in parts]


def _ranks(ranking: Ranking) -> Sheet:
    ranks = ranking.ranks
    assert ranks is not None
    order = sorted(range(len(ranking.augmenters)), key=lambda index: ranks.average[index])
    rows = [(ranking.augmenters[index], f"{ranks.average[index]:.2f}") for index in order]
    captions = [
        f"Average ranks by {NAMES[ranking.metric]} over {len(ranking.datasets)} datasets (1 is best): "
        f"{', '.join(ranking.datasets)}.",
        f"Friedman's test (Iman and Davenport): {p_value_text(ranks.p)}. Ranks closer than "
        f"{ranks.critical_difference:.2f} do not differ significantly (Nemenyi, .05).",
    ]
    return Sheet(
        f"{ranking.protocol}, {regime_text(ranking.shots)}",
        [Column("augmenter", "augmenter"), Column("rank", "average rank")],
        rows,
        captions,
    )


# -- texts


def signed(value: float) -> str:
    """Format a difference: ``+.053``, ``-.004``, ``.000``."""
    text = share(value)
    return text if isnan(value) or text.startswith("-") or text == ".000" else f"+{text}"


def span(found: Interval, text: object = share) -> str:
    """Format an interval: ``.412 to .655``; a dash for none."""
    assert callable(text)
    return DASH if isnan(found.low) else f"{text(found.low)} to {text(found.high)}"


def p_text(value: float) -> str:
    """Format a p-value: ``.016``; below a thousandth ``<.001``; a dash for NaN."""
    return DASH if isnan(value) else "<.001" if value < 0.0005 else share(value)


def p_value_text(value: float) -> str:
    """Format a p-value with its name: ``p = .016``, or ``p < .001``."""
    return f"p {p_text(value).replace('<', '< ')}" if value < 0.0005 else f"p = {p_text(value)}"


def regime_text(shots: int | str) -> str:
    """Format a regime: ``zero-shot``, ``5 shots``, ``full-shot``."""
    return {0: "zero-shot", 1: "1 shot", "all": "full-shot"}.get(shots, f"{shots} shots")


# -- renderers


def to_terminal(chapter: Chapter) -> RenderableType:
    """Render a section for ``rich.console.Console.print``."""
    label = [Text(chapter.label, style="yellow")] if chapter.label else []
    sentences = [Text(sentence, style="dim") for sentence in chapter.sentences]
    below = [part for sheet in chapter.sheets for part in _terminal(sheet)]
    return Group(Text(chapter.title, style="bold"), *label, *sentences, *below, Text())


def _terminal(sheet: Sheet) -> list[RenderableType]:
    grid = rich.table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for column in sheet.columns:
        heading = f"{column.title}\n{column.group}" if column.group else column.title
        whole = column.is_number or column.title == "verdict"  # names wrap where a line is too long
        side = "right" if column.is_number else "left"
        grid.add_column(heading, justify=side, vertical="bottom", overflow="fold", no_wrap=whole)
    decided = {index for index, _ in sheet.bold}
    is_long = len(sheet.rows) > MAX_ROWS and sheet.columns[-1].title == "verdict"
    for index, row in enumerate(sheet.rows):
        if not is_long or index in decided:
            grid.add_row(*(Text(text, style="bold" if (index, c) in sheet.bold else "") for c, text in enumerate(row)))
    if is_long:
        rest = len(sheet.rows) - len(decided)
        omitted = [f"{rest} of {len(sheet.rows)} differences are neither better nor worse: they are in compare.md."]
    else:
        omitted = []
    captions = [Text(sentence, style="dim") for sentence in sheet.captions]
    notes = [Text(note, style="dim") for note in (*omitted, *sheet.notes)]
    table = [Padding(grid, (1, 0))] if grid.row_count else []
    return [Text(), Text(sheet.title, style="bold"), *captions, *table, *notes]


def to_markdown(name: str, chapters: Sequence[Chapter], images: Sequence[tuple[str, str]] = ()) -> str:
    """Render all sections in GitHub's Markdown; ``images`` are (title, file) of plots in the same folder."""
    lines = [f"# {escape_markdown(name)}: comparison", ""]
    for title, file in images:
        lines += [f"![{escape_markdown(title)}]({file})", ""]
    for chapter in chapters:
        lines += [f"## {escape_markdown(chapter.title)}", ""]
        lines += [f"**{escape_markdown(chapter.label)}**", ""] if chapter.label else []
        lines += [escape_markdown(" ".join(chapter.sentences)), ""] if chapter.sentences else []
        for sheet in chapter.sheets:
            lines += _markdown(sheet)
    return "\n".join(lines)


def _markdown(sheet: Sheet) -> list[str]:
    titles = [" ".join(f"{column.title} {column.group}".split()) for column in sheet.columns]
    rules = ["---:" if column.is_number else ":---" for column in sheet.columns]
    entries = [
        [
            f"**{escape_markdown(text)}**" if (r, c) in sheet.bold else escape_markdown(text)
            for c, text in enumerate(row)
        ]
        for r, row in enumerate(sheet.rows)
    ]
    grid = [f"| {' | '.join(row)} |" for row in ([escape_markdown(t) for t in titles], rules, *entries)]
    notes = ["", *(f"- {escape_markdown(note)}" for note in sheet.notes)] if sheet.notes else []
    caption = [escape_markdown(" ".join(sheet.captions)), ""] if sheet.captions else []
    return [f"### {escape_markdown(sheet.title)}", "", *caption, *grid, *notes, ""]


def to_latex(name: str, chapters: Sequence[Chapter]) -> str:
    """Render all sheets as ``table`` environments, for use with ``\\input``; sentences become comments."""
    lines = [f"% {' '.join(name.split())}: needs \\usepackage{{booktabs}}", ""]
    for chapter in chapters:
        lines += [f"% {' '.join(text.split())}" for text in (chapter.title, *chapter.sentences)]
        lines += ["", *(_latex(chapter, sheet) for sheet in chapter.sheets)]
    return "\n".join(lines)


def _latex(chapter: Chapter, sheet: Sheet) -> str:
    label = rf"\textbf{{{escape_latex(chapter.label)}}}. " if chapter.label else ""
    caption = (
        f"{escape_latex(chapter.title)}: {escape_latex(sheet.title)}. {label}{escape_latex(' '.join(sheet.captions))}"
    )
    titles = [
        r"$N_\mathrm{aug}$" if c.key == "n_aug" else escape_latex(f"{c.title} {c.group}".strip()) for c in sheet.columns
    ]
    entries = [
        [
            rf"\textbf{{{escape_latex(text)}}}" if (r, c) in sheet.bold else escape_latex(text)
            for c, text in enumerate(row)
        ]
        for r, row in enumerate(sheet.rows)
    ]
    sides = "".join("r" if column.is_number else "l" for column in sheet.columns)
    head, *body = [" & ".join(row) + r" \\" for row in (titles, *entries)]
    return environment(caption, sides, [head], body, map(escape_latex, sheet.notes))
