"""Verification of a published store: ``augbench results check``.

Every metric is recomputed from the scores, every key from its spec. What cannot be recomputed from a published store
(seconds, fidelity, measurements of searches) is checked for its schema and for consistency with the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from augbench.core.contracts import GOOD
from augbench.core.errors import UserError, listed
from augbench.core.hashing import digest
from augbench.core.specs import Cell, DataSpec, FidelitySpec, PoolSpec
from augbench.planning.grid import make_grid
from augbench.report.evidence.part_costs import read_costs
from augbench.report.frame import load_expected, load_records
from augbench.report.publish import recompute
from augbench.report.publish.consistency import LineageCheck, ScoredItems, grid_problems, paths_in, settings_note
from augbench.report.publish.contents import COMPLETE, README, stray_files, today
from augbench.storage.publication import ARCHIVES
from augbench.storage.records import MODELS, RecordKind, not_at_hand, read_as, spec_of
from augbench.storage.scores import checked_scores
from augbench.storage.store import Store, parse_json

_NOT_READ = (UserError, ValueError, TypeError, AttributeError, KeyError)
"""Exceptions of reading a record that may hold values of any type."""

MAX_PROBLEMS = 8  # reported problems per record


@dataclass
class CheckResult:
    """The result of a check: problems, notes and counts."""

    refused: list[str] = field(default_factory=list)  # problems, one sentence each, which names the record
    said: list[str] = field(default_factory=list)  # notes for the reader, no reason to refuse
    counts: dict[str, int] = field(default_factory=dict)  # kind -> number of records

    @property
    def summary(self) -> str:
        """Counts and outcome in one line."""
        what = ", ".join(_number(number, kind) for kind, number in self.counts.items()) or "archives"
        if self.refused:
            return f"{what}: {_number(len(self.refused), 'problem')}; remake or remove what is refused"
        return f"{what}: all is well"


def check_results(folder: Path) -> CheckResult:
    """Check the files, records, scores, grids and reports of a published store, without writing to it.

    Raises:
        UserError: there is no such folder, or it is no store.
    """
    if not folder.is_dir():
        raise UserError(f"'{folder}' is no folder: give one that `augbench results export` made")
    store = Store(folder)
    if damaged := list(_damaged_archives(store)):
        return CheckResult(damaged)
    if not store.keys("cells"):
        raise UserError(f"'{folder}' holds no records: give a folder that `augbench results export` made")
    check = _Check(store)
    check.cells()
    check.fidelity()
    check.searches()
    check.audits()
    check.grids()
    check.costs()
    check.reports()
    check.origin()
    return check.verdict


def _damaged_archives(store: Store) -> Iterator[str]:
    """Yield why an archive of a publication cannot be read, which tells nothing about its records."""
    for kind in ARCHIVES:
        try:
            store.files.names(kind)
        except UserError as error:
            yield str(error)


class _Check:
    """The state of a check: what was read, and the verdict so far."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.verdict = CheckResult()
        self.note = self.verdict.said.append
        self.records: dict[str, dict[str, Any]] = {}  # records of cells that match the schema
        self.specs: dict[str, Cell] = {}
        self.pools: dict[str, FidelitySpec] = {}
        self.classes: dict[str, tuple[str, ...]] = {}  # digest of a data spec -> its classes, which are not in keys
        self.positives: dict[str, int] = {}  # digest of a data spec -> number of defect test images
        self.known = set(store.files.archives.values())  # names of checked files
        self.paths: set[str] = set()  # absolute paths in grids and specs

    def refuse(self, kind: str, key: str, problems: Iterable[str]) -> None:
        """Add problems of one record, one sentence each, up to `MAX_PROBLEMS`."""
        problems = list(problems)
        more = f" (and {len(problems) - MAX_PROBLEMS} more)" if len(problems) > MAX_PROBLEMS else ""
        for index, problem in enumerate(problems[:MAX_PROBLEMS]):
            self.verdict.refused.append(f"{kind} '{key}': {problem}{more if index == MAX_PROBLEMS - 1 else ''}")

    # -- records

    def read(self, kind: RecordKind, what: str) -> Iterable[tuple[str, dict[str, Any], Any]]:
        """Yield (key, record, spec) of every record of a kind with valid schema and key; refuse the others."""
        keys = sorted(self.store.keys(kind))
        names = [self.store.name(kind, key) for key in keys]
        self.known.update(names)
        self.verdict.counts[f"{what} record" if kind == "fidelity" else what] = len(keys)
        for key, name, data in zip(keys, names, self.store.files.read_many(names), strict=True):
            try:
                record = parse_json(data or b"", name)
                read_as(MODELS[kind], record)
                spec = spec_of(kind, record["spec"])
                if record["key"] != key:
                    raise UserError(f"the record says that it is '{record['key']}'")
                if why := not_at_hand(spec):
                    self.note(f"{what} '{key}': its key was not recomputed: {why}")
                elif spec.key != key:
                    raise UserError(f"its spec gives the key '{spec.key}'")
            except _NOT_READ as error:
                self.refuse(what, key, [" ".join(str(error).split())])
                continue
            yield key, record, spec

    def cells(self) -> None:
        """Check every cell against its scores, and its test images against the other cells of its data spec."""
        items, lineage = ScoredItems(), LineageCheck(self.store)
        held = self.store.keys("scores")
        self.known.update(self.store.name("scores", key) for key in held)
        for key, record, cell in self.read("cells", "cell"):
            self.records[key], self.specs[key] = record, cell
            try:
                data = self.store.files.read(self.store.name("scores", key))
                scores = checked_scores(data).to_pandas(use_threads=False)
            except FileNotFoundError:
                self.refuse("cell", key, ["its scores are missing"])
                continue
            except ValueError as error:
                self.refuse("cell", key, [str(error)])
                continue
            problems = recompute.score_problems(cell, scores)
            origin = record["provenance"]
            found = list(problems) or recompute.differences(cell, record["result"], scores)
            found += recompute.unmarked(cell, origin["embedded"]) + recompute.seconds_problems(origin["seconds"])
            self.refuse("cell", key, [*found, *lineage.problems(cell, record), *self._other_classes(cell.data)])
            if not problems:
                items.add(key, cell, scores, is_twin=recompute.counts_nothing(record["result"]))
                self.positives[cell.data.digest] = int(((scores["part"] == "test") & (scores["label"] != GOOD)).sum())
        for keys in items.twins():
            self.note(f"{_number(len(keys), 'cell')} have the same logits to the last bit: {listed(keys)}")
        for key, problem in items.strangers():
            self.refuse("cell", key, [problem])
        for key in sorted(held - self.store.keys("cells")):
            self.refuse("scores", key, ["they belong to no record"])

    def _other_classes(self, data: DataSpec) -> list[str]:
        """Report classes that differ from those of the first spec with the same data, which fit the scores."""
        known = self.classes.setdefault(data.digest, data.classes)
        return [] if data.classes == known else [f"its classes are {data.classes}, elsewhere of this data {known}"]

    def fidelity(self) -> None:
        """Check every fidelity record: its schema, and that it agrees with its spec."""
        for key, record, spec in self.read("fidelity", "fidelity"):
            self.pools[key] = spec
            result = record["result"]
            agree = {"extractor": spec.extractor, "made": spec.pictures}
            if spec.pool.data.digest in self.positives:
                agree["real"] = self.positives[spec.pool.data.digest]
            problems = [
                f"{name} is {result[name]!r}, its spec and the test images give {value!r}"
                for name, value in agree.items()
                if result[name] != value
            ]
            if result["kid_interval"][0] > result["kid_interval"][1]:
                problems.append(f"kid_interval {result['kid_interval']} ends below its beginning")
            if other := result.get("kid_by_class", {}).keys() - set(spec.pool.data.classes):
                problems.append(f"kid_by_class names '{min(other)}', which is none of its classes")
            self.refuse("fidelity", key, [*problems, *self._other_classes(spec.pool.data)])

    def searches(self) -> None:
        """Check every search: the means of its table, and the choice that follows from it."""
        for key, record, spec in self.read("searches", "search"):
            result, problems = record["result"], self._other_classes(spec.adapter.data)
            for index, row in enumerate(result["table"]):
                mean = float(np.mean(row["scores"]))
                if abs(mean - row["score"]) > recompute.TOLERANCE * max(1, abs(mean)):
                    problems.append(f"table[{index}].score is {row['score']!r}, the mean of its scores is {mean!r}")
            ordered = sorted(result["table"], key=lambda row: (row["refused"], row["score"]))
            if ordered != result["table"]:
                problems.append("its table is not sorted by refusal, then by score")
            best = ordered[0]["settings"] if ordered and not ordered[0]["refused"] else {}
            if result["chosen"] != best:
                problems.append(f"chosen is {result['chosen']!r}, its table gives {best!r}")
            if bool(result["chosen"]) == bool(result["why"]):
                problems.append("it must state either what was chosen or why nothing was")
            self.refuse("search", key, problems)

    def audits(self) -> None:
        """Check every search for near-copies: its schema, and that its counts agree."""
        if not self.store.keys("audits"):
            return  # older than they are, or of embedded datasets
        for key, record, spec in self.read("audits", "audit"):
            result, problems = record["result"], []
            folds = [one["fold"] for one in result["folds"]]
            if other := set(folds) - set(spec.folds or (None,)):
                problems.append(f"its folds {sorted(map(str, other))} are not in its spec")
            problems += [
                f"fold {one['fold']}: {one['copies']} of {one['test']} test images cannot have near-copies"
                for one in result["folds"]
                if not one["copies"] <= one["test"] <= result["images"]
            ]
            if any(len(cluster) < 2 or len(set(cluster)) < len(cluster) for cluster in result["clusters"]):
                problems.append("a cluster has fewer than two images, or one twice")
            if sum(map(len, result["clusters"])) > result["images"] or result["items"] > result["images"]:
                problems.append("its clusters or items are more than its images")
            self.refuse("audit", key, problems)
        self.note("near-copies need images to be found again: only schema, keys and counts were checked")

    # -- grids and reports

    def grids(self) -> None:
        """Check every grid: that the names of its cells agree with their records, and which cells are missing."""
        names = sorted(self.store.keys("grids"))
        self.known.update(self.store.name("grids", name) for name in names)
        self.verdict.counts["grid"] = len(names)
        named: set[str] = set()
        for name in names:
            try:
                named |= self._grid(name)
            except _NOT_READ as error:
                self.refuse("grid", name, [" ".join(str(error).split())])
        if names and (strays := sorted(self.store.keys("cells") - named)):
            self.note(f"{_number(len(strays), 'cell')} that no grid names: {listed(strays)}")
        if not names:
            self.note("no grid is on record: the report treats all cells as expected")

    def _grid(self, name: str) -> set[str]:
        """Check one grid. Returns the keys of its cells."""
        content = (self.store.read_json("grids", name) or {}).get("grid") or {}
        self.paths.update(paths_in(content))
        made, cells = make_grid(content, "its grid"), load_expected(self.store, name)
        if made.name != name:
            raise UserError(f"its grid is called '{made.name}'")
        found = load_records(self.store, cells["key"][cells["key"].isin(self.specs)])
        measured = {key: spec.pool for key, spec in self.pools.items()}
        self.refuse("grid", name, grid_problems(made, cells, found, self.specs, measured))
        held = self.store.keys("cells")
        if missing := [key for key in cells["key"] if key not in held]:
            self.note(f"grid '{name}': {len(missing)} of {len(cells)} cells are missing: {listed(missing)}")
        pools = {key for pairs in cells["fidelity"] for _, key in pairs}
        if unmeasured := pools - self.store.keys("fidelity"):
            self.note(f"grid '{name}': the fidelity of {len(unmeasured)} of {len(pools)} pools is not on record")
        return set(cells["key"])

    def costs(self) -> None:
        """Check the costs of parts that are not published: the schema, and the keys of pools."""
        try:
            parts = read_costs(self.store)
        except UserError as error:
            self.verdict.refused.append(f"costs: {error}")
            return
        pools = {key: part.spec for key, part in parts.items() if part.kind == "pools"}
        for key, value in pools.items():
            try:
                found = PoolSpec.from_dict(value).key
            except _NOT_READ as error:
                found = f"none ({error})"
            self.refuse("costs of pool", key, [] if found == key else [f"its spec gives the key '{found}'"])
        self.paths.update(paths_in([*pools.values()]))

    def reports(self) -> None:
        """Compare the reports with those of the installed version, and refuse files that do not belong here."""
        written = None
        if self.verdict.refused:
            self.note("reports were not compared with what `augbench report` writes: records are refused")
        else:
            try:
                written = today(self.store)
            except UserError as error:
                self.refuse("reports", "all", [str(error)])
        folder = self.store.files.folder
        for name, content in sorted((written or {}).items()):
            file = folder / name
            if not file.is_file():
                self.note(f"'{name}' is missing: `augbench report` writes it")
            elif file.read_bytes() != content:
                self.note(f"'{name}' differs from what `augbench report` writes today")
        self.verdict.refused += stray_files(folder, self.known, None if written is None else set(written))
        if (folder / README).is_file() and COMPLETE.encode() in (folder / README).read_bytes():
            self.note(f"'{README}' says {COMPLETE}")

    # -- provenance

    def origin(self) -> None:
        """Add notes on the provenance of the records."""
        records = self.records.values()
        origins = [record["provenance"] for record in records]
        unknown = sum(not origin["git_sha"] for origin in origins)
        dirty = sum(str(origin["git_sha"]).endswith("-dirty") for origin in origins)
        if unknown:
            self.note(f"{_number(unknown, 'cell')} made at an unknown commit")
        if dirty:
            self.note(f"{_number(dirty, 'cell')} made at a commit with changes that are not in it (-dirty)")
        embedded = sorted({part for origin in origins for part in origin["embedded"]})
        if embedded:
            number = sum(bool(origin["embedded"]) for origin in origins)
            self.note(f"{_number(number, 'cell')} made with smoke-test parts: not evidence ({', '.join(embedded)})")
        self._mixed("device", [origin["device"] for origin in origins])
        self._mixed("precision", [cell.protocol.precision for cell in self.specs.values()])
        for package in ("augbench", "torch"):
            self._mixed(f"version of {package}", [origin["versions"].get(package, "unknown") for origin in origins])
        if paths := sorted(self.paths.union(*(paths_in(record["spec"]) for record in records))):
            self.note(f"grids and records contain absolute paths: {listed(paths)}")
        specs = {digest(cell.augmenter.as_dict()): cell.augmenter for cell in self.specs.values()}
        self.verdict.said += sorted({note for note in map(settings_note, specs.values()) if note})
        if self.verdict.counts["fidelity record"] or self.verdict.counts["search"]:
            self.note("fidelity and searches need images to recompute: only schema, keys and choices were checked")

    def _mixed(self, what: str, values: list[str]) -> None:
        counts = sorted(Counter(values).items())
        if len(counts) > 1:
            self.note(f"more than one {what}: {', '.join(f'{value} ({number} cells)' for value, number in counts)}")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "es" if what.endswith("ch") else "s")
