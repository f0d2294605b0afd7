"""What the page and its Markdown say, as plain JSON values: tables, rows, runs, and where each number comes from.

Numbers, words and marks are those of `report.tables`; the reports of a store and its leaderboard cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any
from urllib.parse import quote

from augbench.report.frame import METRICS
from augbench.report.leaderboard.costs import Cost, Costs, Source
from augbench.report.leaderboard.merge import Gathered
from augbench.report.leaderboard.words import COLUMN_WORDS, gain_text, run_label, shots_text, span_text
from augbench.report.stats import DASH, Column, Stat, seconds_text, share, stat_of
from augbench.report.tables import HELDOUT, ORACLE, Row, Table, build_tables

DIGITS = 6  # of numbers in the page's data


@dataclass(frozen=True)
class Board:
    """Everything but plots and pictures. ``content`` holds JSON values alone."""

    content: dict[str, Any]
    tables: list[Table]  # in the order of ``content["tables"]``
    cells: list[dict[tuple[str, int], list[str]]]  # of each table: (augmenter, N_aug) -> keys of its records
    files: dict[str, Source]  # place under the page's folder -> the file to be copied there


def board_of(gathered: Gathered) -> Board:
    """The leaderboard of these stores.

    Raises:
        UserError: a damaged file, named.
    """
    tables = build_tables(gathered.expected, gathered.records, gathered.measured)
    records = {record.key: record for record in gathered.records.itertuples(index=False)}
    of_rows = _cells_by_row(gathered)
    maker = _Maker(gathered, records, Costs(gathered))
    shown, cells = [], []
    for number, table in enumerate(tables, 1):
        mine = {
            (row.augmenter, row.n_aug): of_rows[table.dataset, table.protocol, table.shots, row.augmenter, row.n_aug]
            for row in table.rows
            if not row.is_average
        }
        shown.append(maker.table(f"t{number}", table, mine))
        cells.append({row: [cell.key for cell in found if cell.key in records] for row, found in mine.items()})
    content = {
        "totals": _totals(gathered, tables),
        "tables": shown,
        "filters": _filters(tables, shown),
        "overview": _overview(shown),
        "colours": _colours(tables),
        "embedded": sorted({part for table in tables for part in table.embedded}),
        "runs": list(maker.runs.values()),
    }
    return Board(content, tables, cells, maker.files)


def place_of(source: Source) -> str:
    """Where the page keeps its copy of a file, relative to the page."""
    folder = "records" if source.kind == "cells" else f"records/{source.kind}"
    return f"{folder}/{source.key}.json"


def link_to(place: str) -> str:
    """The place as a relative URL."""
    return quote(place)


def _cells_by_row(gathered: Gathered) -> dict[tuple[Any, ...], list[Any]]:
    rows: dict[tuple[Any, ...], list[Any]] = {}
    for cell in gathered.expected.itertuples(index=False):
        rows.setdefault((cell.dataset, cell.protocol, cell.shots, cell.augmenter, cell.n_aug), []).append(cell)
    return rows


class _Maker:
    """Makes tables, and gathers the runs and files that they name."""

    def __init__(self, gathered: Gathered, records: Mapping[str, Any], costs: Costs) -> None:
        self.gathered = gathered
        self.records = records
        self.costs = costs
        self.runs: dict[str, dict[str, Any]] = {}
        self.places: dict[str, int] = {}
        self.files: dict[str, Source] = {}

    def table(self, name: str, table: Table, cells: Mapping[tuple[str, int], list[Any]]) -> dict[str, Any]:
        """A table with what its entries come from."""
        columns = _columns(table)
        rows = []
        for number, row in enumerate(table.rows):
            found = [cell for key in _members(table, row) for cell in cells[key]]
            rows.append(self._row(f"{name}r{number}", table, row, found))
        rows = _with_gains(table, rows)
        return {
            "id": name,
            "title": table.title,
            "dataset": table.dataset,
            "protocol": table.protocol,
            "shots": table.shots,
            "shots_text": shots_text(table.shots),
            "task": table.task,
            "headline": table.headline,
            "label": table.label,
            "captions": table.captions,
            "notes": [*table.notes, *_gain_notes(rows), *_cost_notes(rows)],
            "fidelity_label": table.fidelity.label,
            "fidelity_notes": [*table.fidelity.captions, *table.fidelity.notes] if table.fidelity.rows else [],
            "columns": [_column(column) for column in columns if _is_filled(column, rows)],
            "rows": rows,
        }

    def _row(self, name: str, table: Table, row: Row, cells: list[Any]) -> dict[str, Any]:
        keys = [cell.key for cell in cells if cell.key in self.records]
        values = {column.key: _value(row, column) for column in table.columns}
        values |= self._fidelity(row, cells) | self._seconds(row, keys)
        return {
            "id": name,
            "augmenter": row.augmenter,
            "mark": row.mark,
            "n_aug": row.n_aug,
            "is_average": row.is_average,
            "is_baseline": row.n_aug == 0,
            "is_incomplete": row.incomplete,
            "is_best": row.best,
            "found": row.found,
            "expected": row.expected,
            "values": values,
            "runs": [self._run(table, cell) for cell in cells if cell.key in self.records],
        }

    def _run(self, table: Table, cell: Any) -> int:
        """The place of a cell's record among the runs."""
        if cell.key not in self.runs:
            record = self.records[cell.key]
            source = Source("cells", cell.key, self.gathered.home[cell.key], "")
            given = {metric: getattr(record, metric) for metric in METRICS[table.task]}
            values = {metric: round(value, DIGITS) for metric, value in given.items() if not isnan(value)}
            self.places[cell.key] = len(self.runs)
            self.runs[cell.key] = {"file": self._file(source), "label": run_label(cell), "values": values}
        return self.places[cell.key]

    def _fidelity(self, row: Row, cells: list[Any]) -> dict[str, Any]:
        """KID over the augmenter's own pools; nothing where they were looked at in different ways."""
        keys = dict.fromkeys(key for cell in cells for name, key in cell.fidelity if name == row.augmenter)
        found = {key: self.gathered.measured[key] for key in keys if key in self.gathered.measured}
        if not found or row.is_average or len({(one.extractor, one.made) for one in found.values()}) > 1:
            return {"kid": _entry(DASH, nan)}
        stat = stat_of(one.values["kid"] for one in found.values())
        sources = [
            (share(one.values["kid"]), Source("fidelity", key, store, store.name("fidelity", key)))
            for key, one in found.items()
            for store in [self.gathered.home[key]]
        ]
        return {"kid": _entry(stat.text, stat.mean, self._linked(sources))}

    def _seconds(self, row: Row, keys: Sequence[str]) -> dict[str, Any]:
        """Seconds of a picture and of a whole classifier."""
        nothing = {"seconds_per_picture": _entry(DASH, nan), "cost": _entry(DASH, nan)}
        if row.is_average or not keys:
            return nothing
        pools = {pool.source: pool.seconds_per_picture for key in keys if (pool := self.costs.pool(key))}
        each = stat_of(pools.values())
        costs = [self.costs.of(key, self.records[key].seconds) for key in keys]
        total, whole = stat_of(cost.total for cost in costs), all(cost.is_whole for cost in costs)
        files = [(seconds_text(seconds), source) for source, seconds in pools.items()]
        text = span_text(total.mean) if whole else f"\N{GREATER-THAN OR EQUAL TO} {span_text(total.mean)}"
        return {
            "seconds_per_picture": _entry(seconds_text(each.mean), each.mean, self._linked(files)),
            "cost": _entry(text, total.mean, self._cost_files(keys, costs)),
        }

    def _cost_files(self, keys: Sequence[str], costs: Sequence[Cost]) -> list[list[str]]:
        runs = [
            (span_text(cost.training), Source("cells", key, self.gathered.home[key], ""))
            for key, cost in zip(keys, costs, strict=True)
        ]
        others = dict.fromkeys(source for cost in costs for source in cost.sources)
        return self._linked([*runs, *(("", source) for source in others)])

    def _linked(self, sources: Iterable[tuple[str, Source]]) -> list[list[str]]:
        """(name, value, URL) of each file, which will be copied."""
        return [[source.key, value, self._file(source)] for value, source in sources]

    def _file(self, source: Source) -> str:
        place = place_of(source)
        self.files.setdefault(place, source)
        return link_to(place)


def _members(table: Table, row: Row) -> list[tuple[str, int]]:
    """The rows that a row is made of: itself, or those that it averages."""
    if not row.is_average:
        return [(row.augmenter, row.n_aug)]
    return [(one.augmenter, one.n_aug) for one in table.rows if one.augmenter == row.augmenter and one.n_aug]


def _entry(text: str, value: float, files: Sequence[Sequence[str]] = (), tone: str = "") -> dict[str, Any]:
    """What stands in the table, what it is sorted by, where it is from, and whether it says better or worse."""
    number = None if isnan(value) else round(value, DIGITS)
    return {"text": text, "value": number, "files": [list(file) for file in files], "tone": tone}


def _value(row: Row, column: Column) -> dict[str, Any]:
    if column.key == "augmenter":
        return _entry(row.augmenter, nan)
    if column.key == "n_aug":
        return _entry(row.text(column), nan if row.is_average else float(row.n_aug))
    if column.key == "runs":
        return _entry(row.text(column), float(row.found))
    stat: Stat = row.stats[column.key]
    return _entry(stat.text, stat.mean) | {"metric": column.key, "std": None if isnan(stat.std) else stat.std}


def _with_gains(table: Table, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the difference of their headline metric to that of the row without synthetic pictures."""
    base = next((row for row in rows if row["is_baseline"]), None)
    start = base["values"][table.headline]["value"] if base else None
    for row in rows:
        mean = row["values"][table.headline]["value"]
        there = not row["is_baseline"] and start is not None and mean is not None
        gain = mean - start if there else nan
        row["values"]["gain"] = _entry(gain_text(gain), gain, tone="up" if gain > 0 else "down" if gain < 0 else "")
    return rows


def _columns(table: Table) -> list[Column]:
    """The columns of the report's table, with what else is known about a row before the number of runs."""
    own = [column for column in table.columns if column.key != "runs"]
    place = next(i for i, column in enumerate(own) if column.key == table.headline) + 1
    more = [
        Column("kid", "KID"),
        Column("seconds_per_picture", "s per picture"),
        Column("cost", "cost"),
        next(column for column in table.columns if column.key == "runs"),
    ]
    return [*own[:place], Column("gain", "gain", "against no augmentation"), *own[place:], *more]


def _is_filled(column: Column, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any row has something there."""
    return any(row["values"][column.key]["text"] not in (DASH, "") for row in rows)


def _column(column: Column) -> dict[str, Any]:
    words = COLUMN_WORDS.get(column.key, "")
    group = {HELDOUT: "held out", ORACLE: "oracle"}.get(column.group, column.group)
    return {"key": column.key, "title": column.title, "group": group, "about": words, "is_number": column.is_number}


def _gain_notes(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    if all(row["values"]["gain"]["value"] is None for row in rows):
        return ["Gain: none, since no row without synthetic pictures is among these cells to compare with."]
    return []


def _cost_notes(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    texts = [row["values"]["cost"]["text"] for row in rows]
    notes = [
        "Cost: seconds that one classifier takes on the devices of the records, mean over its runs: learning of the "
        "augmenter, whole though several runs share it, generating N_aug pictures, and training."
    ]
    if any(text.startswith("\N{GREATER-THAN OR EQUAL TO}") for text in texts):
        notes.append("\N{GREATER-THAN OR EQUAL TO}: what was spent on generating or on learning is not on record.")
    return notes


def _filters(tables: Sequence[Table], shown: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The values that can be chosen, in the order of the tables."""
    return {
        "dataset": list(dict.fromkeys(table.dataset for table in tables)),
        "shots": list(dict.fromkeys(shots_text(table.shots) for table in tables)),
        "protocol": list(dict.fromkeys(table.protocol for table in tables)),
        "augmenter": _baselines_first(row for table in shown for row in table["rows"]),
    }


def _colours(tables: Sequence[Table]) -> list[str]:
    """Those with synthetic pictures first, in the order of the page: each has one colour and mark everywhere."""
    rows = [row for table in tables for row in table.rows]
    return list(dict.fromkeys([*(row.augmenter for row in rows if row.n_aug), *(row.augmenter for row in rows)]))


def _totals(gathered: Gathered, tables: Sequence[Table]) -> dict[str, Any]:
    records = gathered.records
    return {
        "runs": len(records),
        "expected": len(gathered.expected),
        "tables": len(tables),
        "datasets": len({table.dataset for table in tables}),
        "augmenters": len({row.augmenter for table in tables for row in table.rows if row.n_aug}),
        "seconds": round(float(records["seconds"].sum()), 3),
        "time": span_text(float(records["seconds"].sum())),
        "devices": sorted(set(records["device"])),
        "stores": len(gathered.stores),
    }


def _overview(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Augmenter x table: the headline metric over the rows with synthetic pictures, and its gain."""
    names = _baselines_first(row for table in tables for row in table["rows"])
    rows = [{"augmenter": name, "entries": [_summary(table, name) for table in tables]} for name in names]
    for place in range(len(tables)):
        found = [row["entries"][place] for row in rows if row["entries"][place]]
        whole = [entry for entry in found if entry["is_whole"]]
        best = share(max((entry["value"] for entry in whole), default=nan))
        for entry in whole:
            entry["is_best"] = len(whole) > 1 and entry["text"] == best
    notes = ["Bold: the best of a column."]
    if any(entry and not entry["is_whole"] for row in rows for entry in row["entries"]):
        notes.append("* incomplete.")
    return {"rows": rows, "note": " ".join(notes)}


def _baselines_first(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The augmenters, those without synthetic pictures before all others."""
    names = {row["augmenter"]: row["is_baseline"] for row in rows}
    return sorted(names, key=lambda name: not names[name])


def _summary(table: Mapping[str, Any], augmenter: str) -> dict[str, Any] | None:
    """An augmenter in a table: its average row, else its only one."""
    mine = [row for row in table["rows"] if row["augmenter"] == augmenter]
    row = next((row for row in mine if row["is_average"]), mine[0] if mine else None)
    if row is None or row["values"][table["headline"]]["value"] is None:
        return None
    value, gain = row["values"][table["headline"]]["value"], row["values"]["gain"]
    nothing = "no baseline" if not any(one["is_baseline"] for one in table["rows"]) else DASH
    return {
        "value": value,
        "text": share(value),
        "under": "baseline" if row["is_baseline"] else gain["text"] if gain["value"] is not None else nothing,
        "tone": gain["tone"],
        "is_whole": not row["is_incomplete"],
        "is_best": False,
    }
