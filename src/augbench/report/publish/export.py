"""Export of the results of a store for publication: ``augbench results export``.

Records and scores are put into archives (`storage.publication`), reports are written anew. Pools, adapters, weights,
leases, failures and fingerprints are left out: they contain images, are large, or belong to one machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augbench.core.errors import UserError, did_you_mean, listed
from augbench.planning.outline import COMMAND
from augbench.report.evidence.lineage import Lineages
from augbench.report.evidence.part_costs import COSTS, costs_of, read_costs
from augbench.report.frame import load_expected
from augbench.report.publish.contents import COMPLETE, README, today
from augbench.report.render.markdown import escape as escape_markdown
from augbench.report.render.markdown import section_lines
from augbench.report.sheet import Section, Sheet, SheetRow
from augbench.report.store_report import ALL, WAY_OUT, reported
from augbench.report.table_notes import short_sha
from augbench.report.tables import Table, build_tables
from augbench.storage.files import write_atomic
from augbench.storage.publication import ARCHIVES, RECORDS, packed
from augbench.storage.records import RECORD_KINDS
from augbench.storage.scores import checked_scores, scores_archive
from augbench.storage.store import FIX_HINT, Kind, Store, json_bytes, json_lines, parse_json

if TYPE_CHECKING:
    import pyarrow

VERSIONS = ("augbench", "torch")


def export(store: Store, out: Path, grid_name: str | None = None) -> list[str]:
    """Write the results of one grid, or of all, as a publication. Equal stores give equal folders.

    Args:
        store: the store of a run, or a publication of any form.
        out: a folder that is new, empty, or holds an earlier export of the same; an existing README is not changed.
        grid_name: the grid; None = all that the store knows, or all its cells where it knows none.

    Returns:
        What was done, one sentence each.

    Raises:
        UserError: no store, no such grid, no record, missing scores, damage, or a folder with other things in it.
    """
    keys = _keys(store, grid_name)
    behind = _parts_behind(store, keys["cells"])
    keys["searches"] = sorted(behind & store.keys("searches"))
    costs = costs_of(store)
    if grid_name:
        costs["costs"] = {key: part for key, part in costs["costs"].items() if key in behind}
    contents = {COSTS: json_bytes(costs), ARCHIVES["scores"]: scores_archive(_score_tables(store, keys["scores"]))}
    for kind in (*RECORD_KINDS, "grids"):
        if keys[kind]:
            contents[ARCHIVES[kind]] = packed(b"".join(_lines(store, kind, keys[kind])))
    _refuse_others(out, {*contents, README}, keys)
    for name, data in contents.items():
        write_atomic(out / name, data)
    copy = Store(out)
    for name, data in today(copy).items():
        write_atomic(out / name, data)
    counts = ", ".join(f"{kind} {len(own)}" for kind, own in keys.items() if own)
    messages = [f"written to {out}: {counts}"]
    if not (out / README).exists():
        write_atomic(out / README, readme(copy, out.resolve().name).encode())
        messages.append(f"{out / README} is a draft: complete it where it says {COMPLETE}")
    return messages


def _keys(store: Store, grid_name: str | None) -> dict[Kind, list[str]]:
    """Return the keys of grids and of what they name: kind -> keys, sorted."""
    if not store.keys("cells"):
        raise UserError(f"store '{store.url}' does not exist or holds no records: {WAY_OUT}")
    known = sorted(store.keys("grids"))
    if grid_name is not None and grid_name not in known:
        raise UserError(f"store '{store.url}' knows no grid '{grid_name}'{did_you_mean(grid_name, known)}")
    grids = known if grid_name is None else [grid_name]
    expected = [load_expected(store, name) for name in grids]
    wanted = {key for cells in expected for key in cells["key"]} if grids else store.keys("cells")
    cells = sorted(wanted & store.keys("cells"))
    if not cells:
        raise UserError(f"store '{store.url}' holds no record of {listed(grids)}: {WAY_OUT}")
    pools = {key for frame in expected for pairs in frame["fidelity"] for _, key in pairs}
    fidelity = sorted(store.keys("fidelity") & pools if grids else store.keys("fidelity"))
    named = {audit.key for frame in expected for audit in frame["audit"] if audit}
    audits = sorted(store.keys("audits") & named if grids else store.keys("audits"))
    return {"grids": grids, "cells": cells, "scores": cells, "fidelity": fidelity, "audits": audits}


def _parts_behind(store: Store, cells: Iterable[str]) -> set[str]:
    """Return the keys of the pools, adapters, searches and shared parts on record behind these cells.

    They are those of the whole store where the lineage of a cell is not known: too much is published rather than lost.
    """
    parts = read_costs(store)
    lineages = Lineages(parts)
    behind: set[str] = set()
    for record in store.read_records(sorted(cells)):
        lineage = lineages.of(record)
        if any(key is None for key, _ in lineage.pools):
            return set(parts)
        behind |= {key for key, _ in lineage.pools if key} | {*lineage.adapters, *lineage.searches}
    shared = {key for adapter in behind & parts.keys() for key in parts[adapter].shared or ()}
    return (behind | shared) & parts.keys()


def _contents(store: Store, kind: Kind, keys: list[str]) -> Iterable[tuple[str, bytes]]:
    """Yield (key, bytes) of grids, records or score tables. Raises UserError where one is missing."""
    for key, data in zip(keys, store.files.read_many([store.name(kind, key) for key in keys]), strict=True):
        if data is None:
            raise UserError(f"'{store.where(kind, key)}' is missing: run the grid again to make it anew")
        yield key, data


def _lines(store: Store, kind: Kind, keys: list[str]) -> Iterator[bytes]:
    for key, data in _contents(store, kind, keys):
        place = store.where(kind, key)
        record = parse_json(data, place)
        if kind == "grids":
            record["key"] = key
            record.pop(COMMAND, None)
        try:
            if record.get("key") != key:
                raise ValueError(f"it is not the record of '{key}'")
            yield json_lines([record])
        except ValueError as error:  # NaN, for example
            raise UserError(f"'{place}' is damaged ({error}): {FIX_HINT}") from None


def _score_tables(store: Store, keys: list[str]) -> Iterator[tuple[str, pyarrow.Table]]:
    for key, data in _contents(store, "scores", keys):
        try:
            yield key, checked_scores(data)
        except ValueError as error:
            raise UserError(f"'{store.where('scores', key)}' is damaged ({error}): {FIX_HINT}") from None


def _refuse_others(out: Path, own: set[str], keys: Mapping[Kind, list[str]]) -> None:
    """Raise UserError where the folder holds files or records that an export would not write again."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a folder")
    existing = {
        path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()
    }  # none where there is no folder
    reports = tuple(f"reports/{name}/" for name in keys["grids"] or [ALL])
    others = sorted(name for name in existing - own if not name.startswith(reports))
    if existing.intersection(RECORDS):
        published = Store(out)
        others += sorted({key for kind in ARCHIVES for key in published.keys(kind) - set(keys[kind])})
    if others:
        raise UserError(f"--out '{out}' holds other things ({listed(others)}): give a new or an empty folder")


# -- draft of a README


def readme(store: Store, name: str) -> str:
    """Draft the README of a published store in GitHub's Markdown from its records; `COMPLETE` marks what is missing."""
    grids = sorted(store.keys("grids"))
    records = list(store.read_records(sorted(store.keys("cells"))))
    lines = [f"# {escape_markdown(name)}", "", f"{COMPLETE}: what was asked, in a sentence or two.", ""]
    for grid in grids:
        about = (store.read_json("grids", grid) or {}).get("grid", {}).get("about", "")
        lines += [f"Grid `{grid}`: {escape_markdown(about) or f'{COMPLETE}: what it compares.'}", ""]
    lines += ["```", *map(_run_command, grids)]
    lines += [f"augbench results export STORE --out {name}", f"augbench results check {name}", "```", ""]
    lines += [_made(records), ""]
    lines += [line for table in _tables(store, grids) for line in section_lines(_headline(table))]
    reports = ", ".join(f"[{grid}](reports/{grid}/report.md)" for grid in grids or [ALL])
    lines += [f"All numbers: {reports}.", "", "## What it shows, and what not", "", f"{COMPLETE}.", ""]
    return "\n".join(lines)


def _run_command(grid: str) -> str:
    """Return the command that ran a grid; a name changed by ``--set`` ends with a digest of the changes."""
    name, changed, _ = grid.partition("+")
    return f"augbench run {name}.yaml{f' --set {COMPLETE}' if changed else ''} --store STORE"


def _made(records: list[dict[str, Any]]) -> str:
    origins = [record["provenance"] for record in records]
    commits = sorted({f"`{short_sha(origin['git_sha'] or 'unknown')}`" for origin in origins})
    devices = [f"{device} ({number} cells)" for device, number in sorted(Counter(o["device"] for o in origins).items())]
    versions = sorted({f"{name} {o['versions'][name]}" for o in origins for name in VERSIONS if name in o["versions"]})
    seconds = sum(origin["seconds"]["total"] for origin in origins)
    return (
        f"Made at commit {', '.join(commits)} on {escape_markdown(', '.join(devices))}, with {', '.join(versions)}. "
        f"The trainings took {seconds:,.0f} s, added up. This folder is a store without images: the records of "
        f"{len(records)} cells and the logits of every image that they were evaluated on."
    )


def _tables(store: Store, grids: list[str]) -> list[Table]:
    found = [one for grid in grids or [None] for one in reported(store, grid, None)]
    return [table for _, cells, records in found for table in build_tables(cells, records)]


def _headline(table: Table) -> Section:
    """Return the headline metric of each row, and the notes that rows refer to."""
    columns = [column for column in table.columns if column.key in ("augmenter", "n_aug", table.headline, "runs")]
    rows = [SheetRow(tuple(row.text(column) for column in columns)) for row in table.rows if not row.is_average]
    notes = [*table.captions[:1], *(note for note in table.notes if note[0] in "(*")]
    return Section(table.title, table.label, sheets=[Sheet(columns, rows, notes=notes)])
