"""The layout "mean_std": records -> tables of mean (sample std), as the papers print them.

There is one `Table` per dataset, protocol, folds and shots. What is printed (`Table.sections`) and what is written as
CSV and JSON (`table_exports`) comes from it, so that all agree. The expected cells of the grid decide the rows: missing
cells are marked, never left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import nan
from operator import attrgetter, itemgetter
from typing import Any

import pandas as pd

from augbench.planning.audits import Audit
from augbench.report.confusion import Confusion, Named, confusion_of, confusion_sections, confusions_of
from augbench.report.fidelity_table import Fidelity, Measured, Outcome, fidelity_of
from augbench.report.frame import CLASS_METRICS, METRICS, shots_rank
from augbench.report.numbers import INCOMPLETE, Stat, average_of, flagged, share
from augbench.report.references import REFERENCES
from augbench.report.runs import Basis, averaged, basis_of, over_runs
from augbench.report.sheet import WIDTH, Column, Detail, Mark, Medium, Section, Sheet, SheetRow
from augbench.report.table_notes import (
    captions,
    caveat_notes,
    filter_note,
    footnotes,
    frozen_text,
    near_copies_text,
    table_caveats,
    title_of,
    used_note,
    weight_note,
)

HEADLINE = {"detection": "ap", "recognition": "accuracy"}
AP_NAMES = {"trapezoidal": "trapezoidal", "step": "step-wise", "trapezoidal_ties": "trapezoidal, ties spread"}
ORACLE = "at best F1 on test (oracle)"
HELDOUT = "at held-out threshold"


@dataclass(frozen=True)
class Row(Basis):
    """The row of an augmenter with one N_aug, or of its average over several."""

    augmenter: str
    n_aug: int | None  # None in an average
    stats: dict[str, Stat]  # every metric of the task, printed or not
    best: bool = False  # whether it has the best headline metric of the complete rows
    classes: dict[str, dict[str, Stat]] = field(default_factory=dict)  # class -> "support" and metrics; not printed
    confusion: Confusion | None = None  # of recognition, over its cells
    weights: tuple[float, ...] = ()  # of its synthetic images, in each cell whose protocol leaves them open
    notes: tuple[str, ...] = ()  # remarks about its synthetic images
    used: tuple[str, ...] = ()  # what these were made from
    filtered: tuple[Mapping[str, Any], ...] = ()  # what filters dropped of the pools of each of its cells
    mark: str = ""  # refers to these notes under the table: "(1)"

    def numbered(self, numbers: dict[str, int]) -> Row:
        """Return the row with marks of notes that tables share; ``numbers``, note -> number, is filled."""
        mine = [note for note in self.notes if not isinstance(note, Detail)]
        marks = [str(numbers.setdefault(note, len(numbers) + 1)) for note in mine]
        return replace(self, mark=f"({', '.join(marks)})" if marks else "")

    def text(self, column: Column) -> str:
        """Return the entry of a column."""
        if column.key == "augmenter":
            return f"{self.augmenter} {self.mark}".rstrip()
        if column.key == "n_aug":
            return "Average" if self.is_average else str(self.n_aug)
        if column.key != "runs":
            return flagged(self.stats[column.key].text, len(self.collapsed))
        return self.runs_text if not self.is_average else INCOMPLETE if self.incomplete else ""


@dataclass
class Table:
    """A table of results."""

    title: str
    dataset: str
    protocol: str
    folds: tuple[int, ...]  # (): the official split
    test_share: float | None  # fraction of test images, where the folds are random splits
    shots: int | str
    task: str
    ap_definition: str  # "" in recognition
    embedded: tuple[str, ...]  # smoke-test parts (dataset, weights) behind the numbers: these are not evidence
    columns: list[Column]
    rows: list[Row]
    captions: list[str]  # sentences over or under the table
    notes: list[str] = field(default_factory=list)  # footnotes
    fidelity: Fidelity = field(default_factory=Fidelity)  # of the pools that its cells use; printed below
    audit: Audit | None = None  # of near-copies in test and training images; None: never searched for
    verdicts: list[str] = field(default_factory=list)  # sentences over it, where they were asked for
    lead: str = ""  # what they say in one sentence, for terminals
    place: str = ""  # folder of its dataset's files, where the dataset has no telling name: for terminals
    frozen: str = ""  # the caption about its classifier on frozen features; "": it was fine-tuned

    @property
    def label(self) -> str:
        """``smoke-test parts: not evidence (dataset surfaces)`` where such are behind the numbers; else ""."""
        return f"smoke-test parts: not evidence ({', '.join(self.embedded)})" if self.embedded else ""

    @property
    def placed_title(self) -> str:
        """The title with the folder of a dataset that is called only `folder`: ``folder 'bottles', few-shot ...``."""
        return self.title.replace(self.dataset, f"{self.dataset} '{self.place}'", 1) if self.place else self.title

    @property
    def near_copies(self) -> str:
        """The caption about near-copies in test and training images; "" where they are never searched for."""
        return near_copies_text(self.audit, self.folds)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of any of its numbers must know, in a few words each; others are those of a row."""
        return table_caveats(self.audit, self.folds, self.embedded)

    @property
    def headline(self) -> str:
        """The metric whose best mean is set bold."""
        return HEADLINE[self.task]

    @property
    def confusions(self) -> list[Named]:
        """The confusion matrices of its rows, printed below the table; none in detection and without records."""
        return confusions_of(self.rows, self.headline)

    def sections(self, medium: Medium, numbers: dict[str, int] | None = None, width: int = WIDTH) -> list[Section]:
        """Return the sections of the table, of the fidelity of its pools, and of its confusion matrices.

        Args:
            medium: where they are printed.
            numbers: of the notes on augmenters, where several tables share them, see `Row.numbered`.
            width: columns of a terminal.
        """
        headline = [column.key for column in self.columns].index(self.headline)
        rows, before = [], None
        for row in self.rows if numbers is None else [row.numbered(numbers) for row in self.rows]:
            texts = tuple(row.text(column) for column in self.columns)
            marks: dict[int, Mark] = {headline: "best"} if row.best else {}
            starts = before is not None and row.augmenter != before
            repeats = row.augmenter == before and medium != "markdown"
            rows.append(SheetRow(texts, marks, row.is_average, starts_block=starts, repeats_name=repeats))
            before = row.augmenter
        sheet = Sheet(self.columns, rows, captions=self.captions, notes=self.notes)
        is_terminal = medium == "terminal"
        title, lead = (self.placed_title, self.lead) if is_terminal else (self.title, "")
        own = Section(title, self.label, self.verdicts, [sheet], lead=lead)
        confusions = confusion_sections(self.title, self.label, self.confusions, medium, width)
        return [own, *self.fidelity.sections(self.title), *confusions]


def build_tables(
    expected: pd.DataFrame, records: pd.DataFrame, measured: Mapping[str, Measured] | None = None
) -> list[Table]:
    """Build one table per dataset, protocol, folds and shots, in the order of the grid.

    Args:
        expected: the expected cells, see `frame.load_expected`.
        records: the cell records, see `frame.load_records`; those of other cells are ignored.
        measured: the fidelity records of the pools by key, see `fidelity_table.load_measured`.
    """
    found = {record.key: record for record in records.itertuples(index=False)}
    return [_table(rows, found, measured or {}) for rows in _by_table(expected)]


Rows = dict[tuple[str, int], list[Any]]  # (augmenter, N_aug) -> its expected cells


def _by_table(expected: pd.DataFrame) -> list[Rows]:
    """Group the expected cells by table and row. Rows of different folds are not comparable, so they get own tables."""
    blocks: dict[tuple[str, str, int | str], Rows] = {}
    for cell in expected.itertuples(index=False):
        block = blocks.setdefault((cell.dataset, cell.protocol, cell.shots), {})
        block.setdefault((cell.augmenter, cell.n_aug), []).append(cell)
    names = {name: place for place, name in enumerate(dict.fromkeys((d, p) for d, p, _ in blocks))}
    tables = []
    for where in sorted(blocks, key=lambda where: (names[where[:2]], shots_rank(where[2]))):
        by_folds: dict[tuple[int, ...], Rows] = {}
        for row, cells in blocks[where].items():
            by_folds.setdefault(folds_of(cells), {})[row] = cells
        tables += by_folds.values()
    return tables


def folds_of(cells: Sequence[Any]) -> tuple[int, ...]:
    """Return the folds of these cells, sorted; () for the official split."""
    return tuple(sorted({int(cell.fold) for cell in cells if cell.fold is not None}))


def _table(cells_of: Rows, found: dict[str, Any], measured: Mapping[str, Measured]) -> Table:
    cells = [cell for row in cells_of.values() for cell in row]
    records = [found[cell.key] for cell in cells if cell.key in found]
    first, folds = cells[0], folds_of(cells)
    few = first.shots == 0 or (first.shots == 1 and first.task == "detection")  # a single defect cannot be held out
    noted = _note_filters(_note_weights(_rows(cells_of, found, first.task), is_chosen=not few))
    rows, marked = _mark_notes(_mark_best(noted, HEADLINE[first.task]))
    used = {row.augmenter: row.used for row in rows if row.used}
    embedded = tuple(sorted({part for record in records for part in record.embedded}))
    title, headline, leak = title_of(first, folds), HEADLINE[first.task], near_copies_text(first.audit, folds)
    own = [found[cell.key] for cell in cells if cell.key in found and cell.augmenter not in REFERENCES]
    pooled = len({(cell.draw, cell.adapter_seed, cell.fold if cell.test_share else None) for cell in cells}) > 1
    columns = _columns(first, pooled or any(cell.seed is None for cell in cells))
    headline_column = next(column for column in columns if column.key == headline)
    return Table(
        title=title,
        dataset=first.dataset,
        protocol=first.protocol,
        folds=folds,
        test_share=first.test_share,
        shots=first.shots,
        task=first.task,
        ap_definition=first.ap_definition if first.task == "detection" else "",
        embedded=embedded,
        columns=columns,
        rows=rows,
        captions=[*captions(list(cells_of.values()), own), *([leak] if leak else [])],
        notes=[
            *marked,
            *footnotes(first, len(records), len(cells), any(row.is_average for row in rows)),
            *([Detail(used_note(used))] if used else []),
            *caveat_notes(rows, first.task),
        ],
        fidelity=fidelity_of(title, cells, measured, _outcomes(rows, headline), headline_column, embedded),
        audit=first.audit,
        frozen=frozen_text(own),
    )


def _columns(cell: Any, are_runs: bool) -> list[Column]:
    """Return the columns of the table of a cell; ``are_runs``: its runs differ in more than the seed, or have none."""
    if cell.task == "recognition":
        metrics = [Column("accuracy", "accuracy"), Column("macro_f1", "macro-F1")]
    else:
        metrics = [
            Column("ap", "AP", AP_NAMES[cell.ap_definition]),
            Column("precision", "precision", ORACLE, detail=2),
            Column("recall", "recall", ORACLE, detail=2),
        ]
        if cell.false_alarm_rate is not None:
            metrics += [
                Column("heldout_recall", "recall", HELDOUT),
                Column("heldout_false_alarm_rate", "FPR", HELDOUT, detail=1),
            ]
    runs = Column("runs", "runs" if are_runs else "seeds")
    return [Column("augmenter", "augmenter", is_text=True), Column("n_aug", "N_aug", is_text=True), *metrics, runs]


def _rows(cells_of: Rows, found: dict[str, Any], task: str) -> list[Row]:
    """Build rows by augmenter: first those without synthetic images, then in grid order; an average ends each block."""
    blocks: dict[str, list[Row]] = {}
    for (augmenter, n_aug), cells in cells_of.items():
        blocks.setdefault(augmenter, []).append(_row(augmenter, n_aug, cells, found, task))
    ordered = sorted(blocks.values(), key=lambda block: any(row.n_aug for row in block))  # stable
    return [row for block in ordered for row in (*block, *_average(block))]


def _row(augmenter: str, n_aug: int, cells: list[Any], found: dict[str, Any], task: str) -> Row:
    basis, runs = basis_of(augmenter, cells, found)
    records = [record for run in runs for record in run]
    return Row(
        augmenter,
        int(n_aug),
        stats={metric: over_runs(runs, attrgetter(metric)) for metric in METRICS[task]},
        classes=_class_stats(runs, task),
        confusion=confusion_of(runs),
        weights=tuple(record.weight for record in records if record.weight is not None),
        notes=tuple(
            [f"normals-only reference: {REFERENCES[augmenter]}."]
            if augmenter in REFERENCES
            else dict.fromkeys(note for cell in cells if cell.key in found for note in found[cell.key].notes)
        ),
        used=next((record.used for record in records), ()),
        filtered=tuple(one for record in records for one in record.filtered),
        **basis.basis(),
    )


def _class_stats(runs: list[list[Any]], task: str) -> dict[str, dict[str, Stat]]:
    """Average the metrics of each class over runs; older records have none."""

    def value(record: Any, name: str, metric: str) -> float:
        number = (record.per_class or {}).get(name, {}).get(metric)
        return nan if number is None else number

    names = sorted({name for run in runs for record in run for name in record.per_class or ()})
    metrics = ("support", *CLASS_METRICS[task])
    return {
        name: {metric: over_runs(runs, partial(value, name=name, metric=metric), gaps=True) for metric in metrics}
        for name in names
    }


def _average(block: list[Row]) -> list[Row]:
    """Return the average row of an augmenter with several N_aug > 0, else no row."""
    parts = [row for row in block if row.n_aug]
    if len(parts) < 2:
        return []
    stats = {metric: average_of([row.stats[metric] for row in parts]) for metric in parts[0].stats}
    return [Row(block[0].augmenter, None, stats, used=parts[0].used, **averaged(parts))]


def _outcomes(rows: list[Row], headline: str) -> dict[str, Outcome]:
    """Average the headline metric of each augmenter over its rows with synthetic images."""
    outcomes = {}
    for name in {row.augmenter for row in rows}:
        block = [row for row in rows if row.augmenter == name and row.n_aug]
        outcomes[name] = Outcome(average_of([row.stats[headline] for row in block]), **averaged(block))
    return outcomes


def _mark_best(rows: list[Row], headline: str) -> list[Row]:
    """Mark the best complete row without collapsed runs, if several are complete. Equal printed digits tie."""
    complete = [row for row in rows if not row.is_average and not row.incomplete]
    sound = [row for row in complete if not row.collapsed]
    if len(complete) < 2 or not sound:
        return rows
    best = share(max(row.stats[headline].mean for row in sound))
    return [replace(row, best=row in sound and share(row.stats[headline].mean) == best) for row in rows]


def _note_weights(rows: list[Row], is_chosen: bool) -> list[Row]:
    """Note the weights of synthetic images, once per augmenter."""
    weights: dict[str, dict[int, tuple[float, ...]]] = {}
    for row in rows:
        if row.weights:
            weights.setdefault(row.augmenter, {})[row.n_aug or 0] = row.weights
    notes = {name: Detail(weight_note(name, found, is_chosen)) for name, found in weights.items()}
    return [replace(row, notes=(*row.notes, notes[row.augmenter])) if row.weights else row for row in rows]


def _note_filters(rows: list[Row]) -> list[Row]:
    """Note what filters dropped, once per augmenter: in each pool, until the largest slice of it was made."""
    pools: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        for one in row.filtered:
            own = pools.setdefault(row.augmenter, {})
            own[one["key"]] = max(one, own.get(one["key"], one), key=itemgetter("made"))
    notes = {name: filter_note(name, found.values()) for name, found in pools.items()}
    return [replace(row, notes=(*row.notes, notes[row.augmenter])) if row.filtered else row for row in rows]


def _mark_notes(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Number the notes; return the rows with marks, the same for all rows of an augmenter, and the numbered notes."""
    of_block: dict[str, list[str]] = {}
    for row in rows:
        of_block.setdefault(row.augmenter, []).extend(row.notes)
    every = dict.fromkeys(note for notes in of_block.values() for note in notes)
    numbers = {note: number for number, note in enumerate(every, 1)}
    marked = []
    for row in rows:
        notes = tuple(dict.fromkeys(of_block[row.augmenter]))
        mark = f"({', '.join(str(numbers[note]) for note in notes)})" if notes else ""
        marked.append(replace(row, notes=notes, mark=mark))
    return marked, [Detail(f"({number}) {note}") for note, number in numbers.items()]
