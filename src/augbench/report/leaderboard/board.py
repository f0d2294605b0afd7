"""The content of the page and of its Markdown as JSON values: tables, rows, runs, and the sources of each number.

Numbers, labels and marks come from `report.tables`, so a store's reports and its leaderboard cannot disagree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isnan, nan
from typing import Any
from urllib.parse import quote

from augbench.metrics.inference import FEWEST_RUNS
from augbench.planning.audits import NOT_AUDITED
from augbench.report.evidence.build import BASELINES, Evidence
from augbench.report.fidelity_table import pool_runs
from augbench.report.frame import METRICS
from augbench.report.leaderboard.gains import evidence_of, name_of, notes_of, verdict_summary, with_gains
from augbench.report.leaderboard.headings import COLUMN_HELP, DIGITS, Content, Keys, entry, span_text
from augbench.report.leaderboard.merge import Gathered
from augbench.report.leaderboard.row_costs import Costs, Source
from augbench.report.numbers import COLLAPSED, DASH, Stat, flagged, seconds_text, share, shots_text, stat_of
from augbench.report.older_versions import COLUMNS, NUMBERS, TITLE, older_rows
from augbench.report.plots import PALETTE
from augbench.report.runs import over_runs, runs_of
from augbench.report.sheet import Column
from augbench.report.table_notes import FEATURE_SECONDS, FEW_ITEMS, run_label
from augbench.report.tables import HELDOUT, ORACLE, Row, Table, build_tables

GREY = len(PALETTE) - 1
AT_LEAST = "\N{GREATER-THAN OR EQUAL TO}"
TABLE_FIELDS = ("title", "dataset", "protocol", "task", "headline", "label", "captions")
ROW_FIELDS = ("augmenter", "mark", "n_aug", "is_average", "found")
FILTERS = {"dataset": "dataset", "shots": "shots_text", "protocol": "protocol"}  # name of a filter -> field of a table


@dataclass(frozen=True)
class Board:
    """Everything on the page except plots and images. ``content`` holds JSON values only."""

    content: dict[str, Any]
    cells: list[Keys]  # of each table
    files: dict[str, Source]  # path relative to the page -> the file to copy there


def board_of(gathered: Gathered) -> Board:
    """Build the leaderboard of these stores, with confidence intervals and verdicts where scores allow them.

    Raises:
        UserError: a file is damaged; the message names it.
    """
    tables = build_tables(gathered.expected, gathered.records, gathered.measured)
    by_row = defaultdict(list)
    for cell in gathered.expected.itertuples(index=False):
        by_row[cell.dataset, cell.protocol, cell.shots, cell.augmenter, cell.n_aug].append(cell)
    builder, evidence = _TableBuilder(gathered), evidence_of(gathered)
    built, cells = [], []
    for number, table in enumerate(tables, 1):
        mine = {
            (row.augmenter, row.n_aug): by_row[table.dataset, table.protocol, table.shots, row.augmenter, row.n_aug]
            for row in table.rows
            if not row.is_average
        }
        built.append(builder.table(f"t{number}", table, mine, evidence.get(name_of(table))))
        runs = {row: runs_of(found, builder.records).complete for row, found in mine.items()}
        cells.append({row: [[cell.key for cell in run] for run in complete] for row, complete in runs.items()})
    names = _baselines_first(row for table in built for row in table["rows"])
    content = {
        "facts": _facts(gathered, tables),
        "tables": built,
        "filters": {key: list(dict.fromkeys(table[field] for table in built)) for key, field in FILTERS.items()},
        "augmenters": names,
        "overview": _overview(built, names),
        "colours": _colours(tables),
        "embedded": sorted({part for table in tables for part in table.embedded}),
        "runs": builder.runs,
        "older": builder.older(),
    }
    return Board(content, cells, builder.files)


class _TableBuilder:
    """Builds tables, and collects the runs and files that they refer to."""

    def __init__(self, gathered: Gathered) -> None:
        self.gathered = gathered
        self.records = {record.key: record for record in gathered.records.itertuples(index=False)}
        self.costs = Costs(gathered)
        self.runs: list[dict[str, Any]] = []
        self.run_indices: dict[str, int] = {}  # key of a cell -> index of its run
        self.files: dict[str, Source] = {}

    def keys(self, cells: Iterable[Any]) -> list[str]:
        """Return the keys of the cells that have a record."""
        return [cell.key for cell in cells if cell.key in self.records]

    def table(
        self, name: str, table: Table, cells: Mapping[tuple[str, int], list[Any]], evidence: Evidence | None
    ) -> dict[str, Any]:
        """Build a table whose entries list their sources."""
        rows: list[dict[str, Any]] = []
        for number, row in enumerate(table.rows):
            found = [cell for key in _members(table, row) for cell in cells[key]]
            rows.append(self._row(f"{name}r{number}", table, row, found))
        against = with_gains(table, rows, evidence)
        columns = _columns(table, against)
        keys = self.keys(chain.from_iterable(cells.values()))
        costs = [*_cost_notes(rows), *([FEATURE_SECONDS] if table.frozen else []), *self.costs.inference_notes(keys)]
        return {
            **{name: getattr(table, name) for name in TABLE_FIELDS},
            "id": name,
            "shots_text": shots_text(table.shots),
            "against": against,
            "notes": [*table.notes, *notes_of(table, against, evidence), *costs, *self._differing(keys)],
            "fidelity_label": table.fidelity.label,
            "fidelity_notes": [*table.fidelity.captions, *table.fidelity.notes] if table.fidelity.rows else [],
            "columns": [_column(column, table.headline) for column in columns if _is_filled(column, rows)],
            "rows": rows,
        }

    def older(self) -> dict[str, Any]:
        """Tabulate the rows of earlier versions of edited plug-ins, each with links to its records."""
        rows = []
        for row in older_rows(self.gathered.older):
            files = [self._file(Source("cells", key, self.gathered.home[key], "")) for key in row.keys]
            rows.append({"texts": row.texts, "files": files})
        return {"title": TITLE, "columns": [*COLUMNS, *NUMBERS], "rows": rows}

    def _differing(self, keys: Iterable[str]) -> list[str]:
        apart = [self.gathered.differing[key] for key in keys if key in self.gathered.differing]
        if not apart:
            return []
        which = f"{len(apart)} cells are" if len(apart) > 1 else "One cell is"
        return [
            f"{which} in several stores with different results (up to {share(max(apart))} apart), made on another "
            "device, with other versions or at another commit; the table uses those of the first store."
        ]

    def _row(self, name: str, table: Table, row: Row, cells: list[Any]) -> dict[str, Any]:
        keys = self.keys(cells)
        values = {column.key: _value(row, column) for column in table.columns}
        values |= {"kid": self._kid(row, cells)} | self._seconds(row, keys)
        return {
            **{name: getattr(row, name) for name in ROW_FIELDS},
            "id": name,
            "is_baseline": row.n_aug == 0,
            "is_incomplete": row.incomplete,
            "collapsed": len(row.collapsed),
            "caveats": [*row.caveats, *table.caveats],
            "is_best": row.best,
            "values": values,
            "runs": [self._run(table, cell) for cell in cells if cell.key in self.records],
        }

    def _run(self, table: Table, cell: Any) -> int:
        """Return the index of a cell's record in ``runs``; add the record if it is new."""
        if cell.key not in self.run_indices:
            record = self.records[cell.key]
            source = Source("cells", cell.key, self.gathered.home[cell.key], "")
            metrics = {metric: getattr(record, metric) for metric in METRICS[table.task]}
            values = {metric: round(value, DIGITS) for metric, value in metrics.items() if not isnan(value)}
            values["training"] = round(record.seconds, 3)
            self.run_indices[cell.key] = len(self.runs)
            label = run_label(cell) + (f" {COLLAPSED} collapsed" if record.collapsed else "")
            self.runs.append({"file": self._file(source), "label": label, "values": values})
        return self.run_indices[cell.key]

    def _kid(self, row: Row, cells: list[Any]) -> dict[str, Any]:
        """Average KID over the augmenter's own pools; none if their extractors or image counts differ."""
        pools: dict[str, list[Any]] = defaultdict(list)
        for cell in cells:
            for key in (key for name, key in cell.fidelity if name == row.augmenter):
                pools[key].append(cell)
        found = {key: self.gathered.measured[key] for key in pools if key in self.gathered.measured}
        if not found or row.is_average or len({(one.extractor, one.made) for one in found.values()}) > 1:
            return entry()
        stat = over_runs(pool_runs(pools, self.gathered.measured), lambda one: one.values["kid"])
        sources = []
        for key, one in found.items():
            store = self.gathered.home[key]
            sources.append((share(one.values["kid"]), Source("fidelity", key, store, store.name("fidelity", key))))
        return entry(stat.text, stat.mean, self._linked(sources))

    def _seconds(self, row: Row, keys: Sequence[str]) -> dict[str, Any]:
        """Return the seconds per image, of everything before a training, and of a training."""
        if row.is_average or not keys:
            return dict.fromkeys(("seconds_per_picture", "cost", "training"), entry())
        pools = dict(pool for key in keys if (pool := self.costs.seconds_per_image(key)))
        each, costs = stat_of(pools.values()), [self.costs.of(key) for key in keys]
        cost, training = stat_of(one.total for one in costs), stat_of(self.records[key].seconds for key in keys)
        is_whole = all(one.is_whole for one in costs)
        files = [(seconds_text(seconds), source) for source, seconds in pools.items()]
        parts = {source: seconds for one in costs for source, seconds in one.sources.items()}
        text = span_text(cost.mean)
        if not is_whole:
            text = f"{AT_LEAST} {text}" if cost.mean else DASH
        return {
            "seconds_per_picture": entry(seconds_text(each.mean), each.mean, self._linked(files)),
            "cost": entry(text, cost.mean, self._linked((span_text(v), source) for source, v in parts.items())),
            "training": entry(span_text(training.mean), training.mean),
        }

    def _linked(self, sources: Iterable[tuple[str, Source]]) -> list[list[str]]:
        """Return (name, value, URL) of each file, and mark the files for copying."""
        return [[source.key, value, self._file(source)] for value, source in sources]

    def _file(self, source: Source) -> str:
        """Return the URL of the page's copy of a file, relative to the page."""
        folder = "records" if source.kind == "cells" else f"records/{source.kind}"
        path = f"{folder}/{source.key}.json"
        self.files.setdefault(path, source)
        return quote(path)


def _members(table: Table, row: Row) -> list[tuple[str, int]]:
    """Return the rows behind a row: itself, or those that it averages."""
    if not row.is_average:
        return [(row.augmenter, row.n_aug)]
    return [(one.augmenter, one.n_aug) for one in table.rows if one.augmenter == row.augmenter and one.n_aug]


def _value(row: Row, column: Column) -> dict[str, Any]:
    if column.key == "augmenter":
        return entry(row.augmenter, nan)
    if column.key == "n_aug":
        return entry(row.text(column), nan if row.is_average else float(row.n_aug))
    if column.key == "runs":
        return entry(row.text(column), float(row.runs))
    stat: Stat = row.stats[column.key]
    return entry(row.text(column), stat.mean) | {"metric": column.key, "std": None if isnan(stat.std) else stat.std}


def _columns(table: Table, against: str) -> list[Column]:
    """Return the columns of the report's table; gains follow the headline, KID and costs stand before the runs."""
    reported = [column for column in table.columns if column.key != "runs"]
    split = next(i for i, column in enumerate(reported) if column.key == table.headline) + 1
    gains = [
        Column("interval", "95 % interval"),
        Column("gain", "gain", f"over {against}"),
        Column("gain_interval", "95 % interval", "of the gain"),
        Column("verdict", "verdict"),
    ]
    costs = [Column("seconds_per_picture", "s per image"), Column("cost", "cost"), Column("training", "training")]
    runs = [column for column in table.columns if column.key == "runs"]
    return [*reported[:split], *gains, *reported[split:], Column("kid", "KID"), *costs, *runs]


def _is_filled(column: Column, rows: Iterable[Content]) -> bool:
    return any(row["values"][column.key]["text"] not in (DASH, "") for row in rows)


def _column(column: Column, headline: str) -> dict[str, Any]:
    """Describe a column. The page prints its entries below those of the column ``under``, if that is not ""."""
    group = {HELDOUT: "held out", ORACLE: "oracle"}.get(column.group, column.group)
    return {
        "key": column.key,
        "title": column.title,
        "group": group,
        "about": COLUMN_HELP[column.key],
        "is_number": not column.is_text and column.key != "verdict",
        "under": {"interval": headline, "gain_interval": "gain"}.get(column.key, ""),
    }


def _cost_notes(rows: Iterable[Content]) -> list[str]:
    texts = [row["values"]["cost"]["text"] for row in rows]
    if all(text == DASH for text in texts):
        return []
    notes = [
        "Cost: time of one worker, on the devices of the records, for what one classifier needs before its training: "
        "search, class images and adaptation, each counted in full even if other classifiers share it, and generating "
        "N_aug images; mean over runs."
    ]
    if any(text.startswith(AT_LEAST) for text in texts):
        notes.append(f"{AT_LEAST} in the cost column: some part of the cost is not recorded.")
    return notes


def _colours(tables: Sequence[Table]) -> dict[str, int]:
    """Map each augmenter to its index in the palette and among the markers; without synthetic images: grey."""
    rows = [row for table in tables for row in table.rows]
    indices = [index for index in range(len(rows) + len(PALETTE)) if index % len(PALETTE) != GREY]
    synthetic = dict.fromkeys(row.augmenter for row in rows if row.n_aug)
    plain = [name for name in dict.fromkeys(row.augmenter for row in rows) if name not in synthetic]
    greys = {name: GREY + number * len(PALETTE) for number, name in enumerate(plain)}  # of different shape
    return greys | dict(zip(synthetic, indices, strict=False))


def _facts(gathered: Gathered, tables: Sequence[Table]) -> dict[str, str]:
    """Return the figures at the top of the page."""
    found, expected = len(gathered.records), gathered.expected["key"].nunique()
    return {
        "trainings": f"{found:,}" + (f" of {expected:,}" if found < expected else ""),
        "augmenters": str(len({row.augmenter for table in tables for row in table.rows if row.n_aug})),
        "datasets": str(len({table.dataset for table in tables})),
        "settings": str(len(tables)),
        "time of training": span_text(float(gathered.records["seconds"].sum())),
    }


def _overview(tables: Sequence[Content], names: Sequence[str]) -> dict[str, Any]:
    """Tabulate augmenters x tables: the headline metric over the rows with synthetic images, and its gain."""
    rows = [{"augmenter": name, "entries": [_summary(table, name) for table in tables]} for name in names]
    for index in range(len(tables)):
        found = [row["entries"][index] for row in rows if row["entries"][index]]
        complete = [one for one in found if one["is_whole"] and not one["text"].endswith(COLLAPSED)]
        best = share(max((one["value"] for one in complete), default=nan))
        for one in complete:
            one["is_best"] = len(complete) > 1 and one["text"] == best
    notes = ["Bold: the best of a column; its lead may be chance."]
    if any("#" in name for name in names):
        notes.append("#: a digest prefix of the settings, where several settings share one name.")
    if any(one and one["text"].endswith(COLLAPSED) for row in rows for one in row["entries"]):
        notes.append(f"{COLLAPSED} some runs have collapsed, see the tables.")
    caveats = [" ".join(caveat for row in table["rows"] for caveat in row["caveats"]) for table in tables]
    few = {
        "too few": f"rows of fewer than {FEWEST_RUNS} runs",
        "item": f"fewer than {FEW_ITEMS} test items of a kind",
        "no adaptation variance": "rows without adaptation variance",
        "near-copies": "near-copies across the split",
        NOT_AUDITED: "data that were not audited for near-copies",
    }
    numbers = {what: sum(sign in one for one in caveats) for sign, what in few.items()}
    notes += [f"{number} of {len(tables)} settings have {what}." for what, number in numbers.items() if number]
    if any(one and not one["is_whole"] for row in rows for one in row["entries"]):
        notes.append("* incomplete.")
    return {"rows": rows, "note": " ".join(notes)}


def _baselines_first(rows: Iterable[Content]) -> list[str]:
    """Return the augmenters, those without synthetic images first."""
    names = {row["augmenter"]: row["is_baseline"] for row in rows}
    return sorted(names, key=lambda name: not names[name])


def _summary(table: Content, augmenter: str) -> dict[str, Any] | None:
    """Summarise an augmenter in a table by its average row, else by its only one."""
    mine = [row for row in table["rows"] if row["augmenter"] == augmenter]
    row = next((row for row in mine if row["is_average"]), mine[0] if mine else None)
    if row is None or row["values"][table["headline"]]["value"] is None:
        return None
    value, gain = row["values"][table["headline"]]["value"], row["values"]["gain"]
    verdict, tone = verdict_summary([one for one in mine if not one["is_average"]])
    over = f" over {table['against']}" if table["against"] != BASELINES[0] else ""
    return {
        "value": value,
        "text": flagged(share(value), row["collapsed"]),
        "under": "baseline" if row["is_reference"] else "no baseline" if gain["value"] is None else gain["text"] + over,
        "verdict": verdict,
        "tone": tone,
        "is_whole": not row["is_incomplete"],
        "is_best": False,
    }
