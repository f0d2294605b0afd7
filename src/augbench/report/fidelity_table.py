"""Fidelity records -> the fidelity table under a result table: how close the synthetic images are to real defects.

Rows are augmenters, averaged over their pools: over those of a run's folds, then over runs. A mixture has no pool of
its own, so its parts have rows under their own names. As in the result table, the grid decides the rows: a pool without
a record is marked, never left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any

import pandas as pd

from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.planning.extractor_choice import EMBEDDED
from augbench.report.frame import filters_in
from augbench.report.numbers import (
    COLLAPSED,
    DASH,
    INCOMPLETE,
    Stat,
    decimals,
    flagged,
    range_text,
    seconds_text,
    share,
    stat_of,
)
from augbench.report.runs import Basis, over_runs, run_of
from augbench.report.sheet import Column, Detail, Legend, Section, Sheet, SheetRow
from augbench.storage.store import FIX_HINT, Store, parse_json

HEADING = "Fidelity of the synthetic images"
FIDELITY = "fidelity"  # what its legends are about
MEASURES = (
    *("kid", "kid_low", "kid_high", "fid", "diversity", "diversity_of_real", "memorisation"),
    "auroc_of_normal",
    "seconds_per_picture",  # of generation
)
"""The numbers of a record, in the order of tables."""

OPTIONAL = ("fid", "memorisation", "auroc_of_normal")
"""None where there are too few images; where no shots are read; without normal images, and in older records."""


@dataclass(frozen=True)
class Measured:
    """The part of a fidelity record that reports use."""

    augmenter_id: str  # digest of the augmenter with its settings
    extractor: str
    made: int  # synthetic images of the pool
    real: int  # defect images of the test split
    values: dict[str, float]  # each of `MEASURES`; NaN where it is not defined
    kid_by_class: dict[str, float]  # in recognition
    fid_by_layer: dict[int, float]  # number of features of a max-pooling layer of Inception -> FID


def load_measured(store: Store, expected: pd.DataFrame) -> dict[str, Measured]:
    """Load the fidelity records of these cells' pools, by key. Each is read once, however many cells share it.

    Args:
        store: the store with the records.
        expected: the expected cells, see `frame.load_expected`.

    Raises:
        UserError: a damaged record, named.
    """
    wanted = {key for pairs in expected["fidelity"] for _, key in pairs}
    held = sorted(wanted & store.keys("fidelity")) if wanted else []
    contents = store.files.read_many([store.name("fidelity", key) for key in held])
    found = zip(held, contents, strict=True)
    return {key: _measured(key, data, store.where("fidelity", key)) for key, data in found if data is not None}


def _measured(key: str, data: bytes, place: str) -> Measured:
    record = parse_json(data, place)
    if record.get("key") != key:
        raise UserError(f"record '{place}' is not the record of '{key}': {FIX_HINT}")
    try:
        augmenter, result = record["spec"]["pool"]["augmenter"], record["result"]
        low, high = result["kid_interval"]
        given = {"auroc_of_normal": None} | result | record["provenance"] | {"kid_low": low, "kid_high": high}
        return Measured(
            augmenter_id=digest([augmenter["name"], augmenter["key_settings"], *filters_in(augmenter)]),
            extractor=str(result["extractor"]),
            made=int(result["made"]),
            real=int(result["real"]),
            values={name: nan if given[name] is None and name in OPTIONAL else float(given[name]) for name in MEASURES},
            kid_by_class={name: float(value) for name, value in result.get("kid_by_class", {}).items()},
            fid_by_layer={int(layer): float(value) for layer, value in result.get("fid_by_layer", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"record '{place}' is damaged ({type(error).__name__}: {error}): {FIX_HINT}") from None


@dataclass(frozen=True)
class Outcome(Basis):
    """The effect of an augmenter on the classifier: its mean headline metric over rows with N_aug > 0."""

    stat: Stat = field(default_factory=Stat)

    @property
    def text(self) -> str:
        """The mean, marked where runs have collapsed or cells are missing: ``.626``."""
        text = flagged(share(self.stat.mean), len(self.collapsed))
        return f"{text} {INCOMPLETE}" if self.incomplete else text


@dataclass(frozen=True)
class FidelityRow:
    """An augmenter's pools, measured with one feature extractor."""

    augmenter: str
    extractor: str  # "" where no pool is measured
    images: tuple[int, ...]  # synthetic images per pool: the distinct numbers, ascending
    real: tuple[int, ...]  # real images per pool, likewise
    stats: dict[str, Stat]  # each of `MEASURES`, over pools
    kid_by_class: dict[str, Stat]
    fid_by_layer: dict[int, Stat]
    found: int  # pools with a record
    expected: int
    headline: str  # the metric of `outcome`
    outcome: Outcome  # empty for a part of a mixture without rows of its own
    n_aug, notes = None, ()  # files read these of every kind of row

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of its headline metric must know, in a few words each."""
        return self.outcome.caveats

    @property
    def incomplete(self) -> bool:
        """Whether a pool is not measured."""
        return self.found < self.expected

    def text(self, column: Column) -> str:
        """Return the entry of a column."""
        stats = self.stats
        texts = {
            "augmenter": self.augmenter,
            "extractor": self.extractor or DASH,
            "pictures": range_text(self.images),
            "kid": stats["kid"].text,
            "kid_interval": f"{share(stats['kid_low'].mean)}, {share(stats['kid_high'].mean)}"
            if stats["kid"].n
            else DASH,
            "fid": decimals(stats["fid"].mean, 2 if stats["fid"].mean < 10 else 1),
            "diversity": decimals(stats["diversity"].mean, 2),
            "memorisation": decimals(stats["memorisation"].mean, 2),
            "auroc_of_normal": share(stats["auroc_of_normal"].mean),
            "seconds_per_picture": seconds_text(stats["seconds_per_picture"].mean),
            self.headline: self.outcome.text,
            "pools": f"{self.found}/{self.expected} {INCOMPLETE}" if self.incomplete else str(self.found),
        }
        texts |= {f"fid_{layer}": decimals(stat.mean, 3) for layer, stat in self.fid_by_layer.items()}
        return texts.get(column.key, DASH)


@dataclass(frozen=True)
class Fidelity:
    """The fidelity table that is printed under a result table; without rows where there is no record."""

    title: str = ""
    label: str = ""  # warning about the numbers; "" where there is none
    columns: list[Column] = field(default_factory=list)
    rows: list[FidelityRow] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    embedded: tuple[str, ...] = ()  # smoke-test parts behind the numbers, among them the extractor

    def sections(self, under: str) -> list[Section]:
        """Return the section below the table of the title ``under``; none without rows."""
        rows = [SheetRow(tuple(row.text(column) for column in self.columns)) for row in self.rows]
        sheet = Sheet(self.columns, rows, captions=self.captions, notes=self.notes)
        return [Section(HEADING, self.label, sheets=[sheet], under=under)] if rows else []


Pools = dict[str, list[Any]]  # key of a pool's record -> the cells that use the pool


def fidelity_of(
    title: str,
    cells: Sequence[Any],
    measured: Mapping[str, Measured],
    outcomes: Mapping[str, Outcome],
    headline: Column,
    embedded: Iterable[str],
) -> Fidelity:
    """Build the fidelity table of the pools that a table's cells train on.

    Args:
        title: title of the table above.
        cells: expected cells of that table, in the order of the grid.
        measured: fidelity records by key, see `fidelity_table.load_measured`; those of other pools are ignored.
        outcomes: headline metric by augmenter.
        headline: the column of `outcomes`.
        embedded: smoke-test parts behind the table above.
    """
    pools: dict[str, Pools] = {}
    for cell in cells:
        for name, key in cell.fidelity:
            pools.setdefault(name, {}).setdefault(key, []).append(cell)
    if not any(key in measured for keys in pools.values() for key in keys):
        return Fidelity()
    rows = [row for name, keys in pools.items() for row in _rows(name, keys, measured, outcomes, headline.key)]
    shipped = [f"extractor {name}" for name in _all("extractor", rows) if name.partition(".")[0] == EMBEDDED]
    parts = (*embedded, *shipped)
    folds = {cell.fold for cell in cells if cell.test_share is None}
    over = "runs, each the average of its folds' pools" if len(folds) > 1 else "an augmenter's pools"
    warning = [f"smoke-test parts: not evidence ({', '.join(parts)})"] if parts else []
    return Fidelity(
        title=f"{title}: {HEADING.lower()}",
        label="; ".join([*_not_comparable(rows), *warning]),
        columns=_columns(
            headline,
            len(_all("extractor", rows)) > 1,
            sorted({n for row in rows for n in row.fid_by_layer}),
            any(row.stats["auroc_of_normal"].n for row in rows),
        ),
        rows=rows,
        captions=_captions(rows, over),
        notes=_notes(rows, headline.title),
        embedded=parts,
    )


def _rows(
    name: str, pools: Pools, measured: Mapping[str, Measured], outcomes: Mapping[str, Outcome], headline: str
) -> Iterator[FidelityRow]:
    """Group the pools of one name into rows, so that only comparable numbers are averaged.

    There are several rows where a mixture's part has other settings than the grid's entry of that name, and where
    extractors differ. A pool without a record joins the row of the grid's entry, or else the first row.
    """
    is_own = {key: any(cell.augmenter == name for cell in cells) for key, cells in pools.items()}
    keys = sorted(pools, key=lambda key: not is_own[key])  # stable
    own = [key for key in keys if is_own[key]]
    kinds = {key: (measured[key].augmenter_id, measured[key].extractor) for key in keys if key in measured}
    usual = next((kinds[key] for key in own or keys if key in kinds), ("", ""))
    groups: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        groups.setdefault(kinds.get(key, usual), []).append(key)
    several = len({settings for settings, _ in groups}) > 1
    for (settings, extractor), members in groups.items():
        has_rows = bool(own) and settings == usual[0]  # the augmenter has rows of its own, with these settings
        found = [measured[key] for key in members if key in measured]
        runs = pool_runs({key: pools[key] for key in members}, measured)
        whole = [one for run in runs for one in run]
        yield FidelityRow(
            augmenter=f"{name} #{settings[:6]}" if several and not has_rows else name,
            extractor=extractor,
            images=tuple(sorted({one.made for one in found})),
            real=tuple(sorted({one.real for one in found})),
            stats={measure: _stat(measure, runs) for measure in MEASURES},
            kid_by_class={
                name: over_runs(runs, lambda one, name=name: one.kid_by_class.get(name, nan), gaps=True)
                for name in sorted({name for one in whole for name in one.kid_by_class})
            },
            fid_by_layer={
                layer: over_runs(runs, lambda one, layer=layer: one.fid_by_layer.get(layer, nan))
                for layer in sorted({layer for one in whole for layer in one.fid_by_layer})
            },
            found=len(found),
            expected=len(members),
            headline=headline,
            outcome=outcomes.get(name, Outcome()) if has_rows else Outcome(),
        )


def pool_runs(pools: Mapping[str, Iterable[Any]], measured: Mapping[str, Measured]) -> list[list[Measured]]:
    """Group fidelity records by run: the pools of a run differ in their fold alone. A run that lacks one is left out.

    Args:
        pools: key of a pool's record -> the cells that use the pool.
        measured: fidelity records by key.
    """
    runs: dict[frozenset[Any], list[str]] = {}
    for key, cells in pools.items():
        has_folds = any(cell.fold is not None for cell in cells)
        used_by = {(cell.augmenter, cell.n_aug, *run_of(cell)) for cell in cells} if has_folds else {key}
        runs.setdefault(frozenset(used_by), []).append(key)
    return [[measured[key] for key in keys] for keys in runs.values() if all(key in measured for key in keys)]


def _stat(measure: str, runs: list[list[Measured]]) -> Stat:
    """Average over runs; empty where a pool lacks the value, so that all columns of a row cover the same pools."""
    stat = over_runs(runs, lambda one: one.values[measure])
    return stat if stat.n == len(runs) else Stat()


def _columns(headline: Column, several_extractors: bool, layers: list[int], told_apart: bool) -> list[Column]:
    return [
        Column("augmenter", "augmenter", is_text=True),
        *([Column("extractor", "extractor", is_text=True)] if several_extractors else []),
        Column("pictures", "images"),
        Column("kid", "KID"),
        Column("kid_interval", "95 % interval"),
        Column("fid", "FID", detail=3),
        *(Column(f"fid_{layer}", f"FID {layer}", detail=3) for layer in layers),
        Column("diversity", "diversity", detail=2),
        Column("memorisation", "nearest shot"),
        *([Column("auroc_of_normal", "told from normal", detail=1)] if told_apart else []),
        Column("seconds_per_picture", "s per image"),
        Column(headline.key, headline.title),
        Column("pools", "pools"),
    ]


# -- texts


def _not_comparable(rows: list[FidelityRow]) -> list[str]:
    """Name the differences that make the rows of the table incomparable."""
    found = [row for row in rows if row.found]
    differ = []
    for attribute, what in (("extractor", "extractors"), ("images", "numbers of synthetic images")):
        if len(values := _all(attribute, found)) > 1:
            differ.append(f"{what} ({', '.join(map(str, values))})")
    if len({row.real for row in found}) > 1:  # several within one row come from its folds
        differ.append(f"numbers of real images ({', '.join(map(str, _all('real', found)))})")
    return [f"rows must not be compared: {' and '.join(differ)} differ"] if differ else []


def _captions(rows: list[FidelityRow], over: str) -> list[str]:
    made, real = range_text(_all("images", rows)), range_text(_all("real", rows))
    extractors = " and ".join(_all("extractor", rows))
    pools = max(row.found for row in rows)
    mean = f"Mean (sample standard deviation) over {over}." if pools > 1 else "One pool each: no standard deviation."
    return [
        Legend(
            f"The first {made} images of each pool against the {real} defect images of the test split, which neither "
            f"augmenters nor searches use, by features of {extractors}.",
            about=FIDELITY,
        ),
        Detail(mean),
        Legend("Numbers of other extractors or of other image counts must not be compared with these.", about=FIDELITY),
    ]


def _notes(rows: list[FidelityRow], headline: str) -> list[str]:
    notes: list[str] = []
    found, expected = sum(row.found for row in rows), sum(row.expected for row in rows)
    if found < expected:
        notes.append(f"{INCOMPLETE} incomplete: {found} of {expected} pools have a record")
    if any(row.outcome.incomplete for row in rows):
        notes.append(f"{INCOMPLETE} at {headline}: cells are missing")
    if any(row.outcome.collapsed for row in rows):
        notes.append(f"{COLLAPSED} at {headline}: runs behind it have collapsed, see the table of {headline}.")
    if any("#" in row.augmenter for row in rows):
        digests = "#: start of the digest of the settings, where pools of one name may have different settings."
        notes.append(Legend(digests))
    notes.append(
        Legend(
            "KID: Kernel Inception Distance, unbiased: about 0 is as close as real defects are to one another; an "
            "estimate may be negative. Its 95 % interval is bootstrapped over images: means of the lower and of the "
            "upper ends."
        )
    )
    if any(row.stats["kid"].n and isnan(row.stats["fid"].mean) for row in rows):
        notes.append(
            Legend(
                "FID: a dash where synthetic or real images are not more than the extractor has features, since their "
                "covariance is then singular.",
                "fid",
            )
        )
    if layers := sorted({layer for row in rows for layer in row.fid_by_layer}):
        notes.append(
            Legend(
                f"FID {' and '.join(map(str, layers))}: on max-pooling layers of Inception with that many features, "
                "also where the images are fewer: compare it at equal numbers of images alone.",
                *(f"fid_{layer}" for layer in layers),
            )
        )
    diversity = "Diversity: mean distance between the features of two images of a pool; of the real ones"
    notes.append(Legend(f"{diversity} {_real_diversity(rows)}.", "diversity"))
    notes.append(
        Legend(
            "Nearest shot: median distance of synthetic images to the nearest shot, between thumbnails, divided by "
            "that of the real test images: 1 is as far as those, 0 are copies; a dash where no shots are read.",
            "memorisation",
        )
    )
    if any(row.stats["auroc_of_normal"].n for row in rows):
        notes.append(
            Legend(
                "Told from normal: AUROC with which a linear classifier on the same features tells the pool from "
                "normal test images, cross-validated by item: .5 not at all. Not only by their defects: see that of "
                "a null.",
                "auroc_of_normal",
            )
        )
    notes.append(Legend("s per image: seconds of generation alone, without adaptation and search."))
    parts = any(not row.outcome.expected for row in rows)
    dash = "; a dash for parts of a mixture, with which no classifier is trained alone" if parts else ""
    mean = f"{headline}: mean over that augmenter's rows with N_aug > 0 in the table of {headline}{dash}."
    notes.append(Legend(mean, about=FIDELITY))
    return notes


def _real_diversity(rows: list[FidelityRow]) -> str:
    """Return the diversity of the real images, ``4.15``; one per extractor, since they are not comparable."""
    texts = []
    for name in _all("extractor", rows):
        values = [row.stats["diversity_of_real"].mean for row in rows if row.extractor == name]
        texts.append((decimals(stat_of(values).mean, 2), name))
    return ", ".join(text if len(texts) == 1 else f"{text} ({name})" for text, name in sorted(texts))


def _all(attribute: str, rows: list[FidelityRow]) -> list[Any]:
    """Return the distinct values of an attribute over the rows, ascending."""
    values = [getattr(row, attribute) for row in rows]
    each = [one for value in values for one in (value if isinstance(value, tuple) else (value,) if value else ())]
    return sorted(set(each))
