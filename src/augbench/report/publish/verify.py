"""A published store, held to what it claims: ``augbench results check``.

Every metric is worked out again from the scores, every key from its spec. What cannot be recomputed from what is
published (seconds, fidelity, what searches measured) is held to its form, and to what else is known of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
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
from augbench.report.publish.consistency import ScoredItems, grid_problems, paths_in, settings_note
from augbench.report.publish.contents import COMPLETE, README, stray_files, today
from augbench.report.publish.recompute import (
    TOLERANCE,
    differences,
    older_than,
    read_scores,
    score_problems,
    seconds_problems,
    unmarked,
)
from augbench.storage.records import MODELS, RecordKind, read_as, spec_of, weights_at_hand
from augbench.storage.store import Store, parse_json

_NOT_READ = (UserError, ValueError, TypeError, AttributeError, KeyError)
"""What a record can raise that holds anything at all where texts, numbers or tables are expected."""

SHOWN = 8  # values that differ, of one record


@dataclass
class Verdict:
    """What a check found: what is refused, what is said, and of how much."""

    refused: list[str] = field(default_factory=list)  # one sentence each, naming what it is about
    said: list[str] = field(default_factory=list)  # what a reader must know; no reason to refuse
    counts: dict[str, int] = field(default_factory=dict)  # kind -> how many there are

    @property
    def summary(self) -> str:
        """How much was looked at and what came out, in a line."""
        what = ", ".join(_number(number, kind) for kind, number in self.counts.items())
        if self.refused:
            return f"{what}: {_number(len(self.refused), 'problem')}; what is refused must be made again or taken out"
        return f"{what}: all is well"


def check_results(folder: Path) -> Verdict:
    """Check a published store: its files, records, scores, grids and reports. Nothing is written into it.

    Raises:
        UserError: there is no such folder, or it is no store.
    """
    if not folder.is_dir():
        raise UserError(f"'{folder}' is no folder: give one that `augbench results export` made")
    store = Store(folder)
    if not store.keys("cells"):
        raise UserError(f"'{folder}' holds no records: give a folder that `augbench results export` made")
    check = _Check(store)
    check.cells()
    check.fidelity()
    check.searches()
    check.grids()
    check.costs()
    check.reports()
    check.origin()
    return check.verdict


class _Check:
    """One check of one store: what was read so far, and what was found."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.verdict = Verdict()
        self.records: dict[str, dict[str, Any]] = {}  # cells that are well formed
        self.specs: dict[str, Cell] = {}
        self.pools: dict[str, FidelitySpec] = {}
        self.classes: dict[str, tuple[str, ...]] = {}  # digest of a data spec -> its classes, which keys do not hold
        self.positives: dict[str, int] = {}  # digest of a data spec -> defective test pictures
        self.known: set[str] = set()  # names of files that were looked at
        self.paths: set[str] = set()  # of a machine, that stand in grids and specs

    def refuse(self, kind: str, key: str, problems: Iterable[str]) -> None:
        """Note problems of one record, as one sentence each; of very many only the first."""
        problems = list(problems)
        more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
        for place, problem in enumerate(problems[:SHOWN]):
            self.verdict.refused.append(f"{kind} '{key}': {problem}{more if place == SHOWN - 1 else ''}")

    def say(self, sentence: str) -> None:
        """Note what must be known."""
        self.verdict.said.append(sentence)

    # -- records

    def read(self, kind: RecordKind, what: str) -> Iterable[tuple[str, dict[str, Any], Any]]:
        """(key, record, spec) of every record of that kind that has its form and its key; the others are refused."""
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
                if not weights_at_hand(spec):
                    self.say(f"{what} '{key}': its key was not recomputed: '{spec.protocol.weights}' is not at hand")
                elif spec.key != key:
                    raise UserError(f"its spec gives the key '{spec.key}'")
            except _NOT_READ as error:
                self.refuse(what, key, [" ".join(str(error).split())])
                continue
            yield key, record, spec

    def cells(self) -> None:
        """Every cell against its scores, and what was judged against the other cells of its data spec."""
        judged = ScoredItems()
        older: Counter[str] = Counter()
        held = self.store.keys("scores")
        self.known.update(self.store.name("scores", key) for key in held)
        for key, record, cell in self.read("cells", "cell"):
            self.records[key], self.specs[key] = record, cell
            try:
                scores = read_scores(self.store.files.read(self.store.name("scores", key)))
            except FileNotFoundError:
                self.refuse("cell", key, ["its scores are missing"])
                continue
            except UserError as error:
                self.refuse("cell", key, [str(error)])
                continue
            problems = score_problems(cell, scores)
            found = list(problems) or differences(cell, record["result"], scores)
            found += unmarked(cell, record["provenance"]["embedded"]) + seconds_problems(
                record["provenance"]["seconds"]
            )
            self.refuse("cell", key, [*found, *self._other_classes(cell.data)])
            if not problems:
                older.update(older_than(record["result"]))
                judged.add(key, cell, scores)
                self.positives[cell.data.digest] = int(((scores["part"] == "test") & (scores["label"] != GOOD)).sum())
        for keys in judged.twins():
            self.say(f"{_number(len(keys), 'cell')} have the same logits to the last bit: {listed(keys)}")
        for key, problem in judged.strangers():
            self.refuse("cell", key, [problem])
        for key in sorted(held - self.store.keys("cells")):
            self.refuse("scores", key, ["no record has them"])
        for metric, number in sorted(older.items()):
            self.say(f"{_number(number, 'cell')} made before there was '{metric}': it is not stated, so not checked")

    def _other_classes(self, data: DataSpec) -> list[str]:
        """Where a spec gives a data spec other classes than the first that had it: those that fit the scores."""
        known = self.classes.setdefault(data.digest, data.classes)
        return [] if data.classes == known else [f"its classes are {data.classes}, elsewhere of this data {known}"]

    def fidelity(self) -> None:
        """Every measurement of a pool: its form, and that it was made as its spec says."""
        for key, record, spec in self.read("fidelity", "fidelity"):
            self.pools[key] = spec
            result = record["result"]
            agree = {"extractor": spec.extractor, "made": spec.pictures}
            if spec.pool.data.digest in self.positives:
                agree["real"] = self.positives[spec.pool.data.digest]
            problems = [
                f"{name} is {result[name]!r}, its spec and the test pictures say {value!r}"
                for name, value in agree.items()
                if result[name] != value
            ]
            if result["kid_interval"][0] > result["kid_interval"][1]:
                problems.append(f"kid_interval {result['kid_interval']} ends below its beginning")
            if other := result.get("kid_by_class", {}).keys() - set(spec.pool.data.classes):
                problems.append(f"kid_by_class names '{min(other)}', which is none of its classes")
            self.refuse("fidelity", key, [*problems, *self._other_classes(spec.pool.data)])

    def searches(self) -> None:
        """Every search: means of its table, and the choice that follows from it."""
        for key, record, spec in self.read("searches", "search"):
            result, problems = record["result"], self._other_classes(spec.adapter.data)
            for place, row in enumerate(result["table"]):
                mean = float(np.mean(row["scores"]))
                if abs(mean - row["score"]) > TOLERANCE * max(1, abs(mean)):
                    problems.append(f"table[{place}].score is {row['score']!r}, the mean of its scores is {mean!r}")
            ordered = sorted(result["table"], key=lambda row: (row["refused"], row["score"]))
            if ordered != result["table"]:
                problems.append("its table is not sorted by what was refused, then by score")
            best = ordered[0]["settings"] if ordered and not ordered[0]["refused"] else {}
            if result["chosen"] != best:
                problems.append(f"chosen is {result['chosen']!r}, its table gives {best!r}")
            if bool(result["chosen"]) == bool(result["why"]):
                problems.append("it must say either what was chosen or why nothing was")
            self.refuse("search", key, problems)

    # -- grids and reports

    def grids(self) -> None:
        """Every grid: that its cells are called what their records say, and which are missing."""
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
            self.say(f"{_number(len(strays), 'cell')} that no grid names: {listed(strays)}")
        if not names:
            self.say("no grid is on record: its report takes all cells for what was to be made")

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
            self.say(f"grid '{name}': {len(missing)} of {len(cells)} cells are missing: {listed(missing)}")
        pools = {key for pairs in cells["fidelity"] for _, key in pairs}
        if unmeasured := pools - self.store.keys("fidelity"):
            self.say(f"grid '{name}': the fidelity of {len(unmeasured)} of {len(pools)} pools is not on record")
        return set(cells["key"])

    def costs(self) -> None:
        """What parts cost that are not published: the form, and the keys of pools."""
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
        """The reports, against what is written today; and all that does not belong into a published store."""
        written = None
        if self.verdict.refused:
            self.say("reports were not compared with what `augbench report` writes: records are refused")
        else:
            try:
                written = today(self.store)
            except UserError as error:
                self.refuse("reports", "all", [str(error)])
        folder = self.store.files.folder
        for name, content in sorted((written or {}).items()):
            file = folder / name
            if not file.is_file():
                self.say(f"'{name}' is missing: `augbench report` writes it")
            elif file.read_bytes() != content:
                self.say(f"'{name}' differs from what `augbench report` writes today")
        self.verdict.refused += stray_files(folder, self.known, None if written is None else set(written))
        if (folder / README).is_file() and COMPLETE.encode() in (folder / README).read_bytes():
            self.say(f"'{README}' says {COMPLETE}")

    # -- how it was made

    def origin(self) -> None:
        """What a reader must know of how the records were made."""
        records = self.records.values()
        origins = [record["provenance"] for record in records]
        unknown = sum(not origin["git_sha"] for origin in origins)
        dirty = sum(str(origin["git_sha"]).endswith("-dirty") for origin in origins)
        if unknown:
            self.say(f"{_number(unknown, 'cell')} made at an unknown commit")
        if dirty:
            self.say(f"{_number(dirty, 'cell')} made at a commit with changes that are not in it (-dirty)")
        embedded = sorted({part for origin in origins for part in origin["embedded"]})
        if embedded:
            number = sum(bool(origin["embedded"]) for origin in origins)
            self.say(
                f"{_number(number, 'cell')} made with embedded parts: mechanics, not evidence ({', '.join(embedded)})"
            )
        self._mixed("device", [origin["device"] for origin in origins])
        self._mixed("precision", [cell.protocol.precision for cell in self.specs.values()])
        for package in ("augbench", "torch"):
            self._mixed(f"version of {package}", [origin["versions"].get(package, "unknown") for origin in origins])
        if paths := sorted(self.paths.union(*(paths_in(record["spec"]) for record in records))):
            self.say(f"grids and records name paths of a machine: {listed(paths)}")
        specs = {digest(cell.augmenter.as_dict()): cell.augmenter for cell in self.specs.values()}
        self.verdict.said += sorted({note for note in map(settings_note, specs.values()) if note})
        if self.verdict.counts["fidelity record"] or self.verdict.counts["search"]:
            self.say("what fidelity and searches measured needs pictures: only form, keys and choices were checked")

    def _mixed(self, what: str, values: list[str]) -> None:
        counts = sorted(Counter(values).items())
        if len(counts) > 1:
            self.say(f"more than one {what}: {', '.join(f'{value} ({number} cells)' for value, number in counts)}")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "es" if what.endswith("ch") else "s")
