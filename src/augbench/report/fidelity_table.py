"""Fidelity records -> the fidelity table under a result table: how close the synthetic images are to real defects.

Rows are augmenters, averaged over their pools (seeds, draws and folds). A mixture has no pool of its own, so its parts
have rows under their own names. As in the result table, the grid decides the rows: a pool without a record is marked,
never left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import Any

from augbench.planning.extractor_choice import EMBEDDED
from augbench.report.fidelity_records import MEASURES, Measured
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
from augbench.report.sheet import Column, Section, Sheet, SheetRow
from augbench.report.table_notes import caveats_of

HEADING = "Fidelity of the synthetic images"


@dataclass(frozen=True)
class Outcome:
    """The effect of an augmenter on the classifier: its mean headline metric over rows with N_aug > 0."""

    stat: Stat = field(default_factory=Stat)
    found: int = 0  # cells with a record
    expected: int = 0
    collapsed: int = 0  # cells whose classifier has collapsed

    @property
    def text(self) -> str:
        """The mean, marked where runs have collapsed or cells are missing: ``.626``."""
        text = flagged(share(self.stat.mean), self.collapsed)
        return f"{text} {INCOMPLETE}" if self.found < self.expected else text


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
    n_aug, notes, items = None, (), None  # files read these of every kind of row

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of its headline metric must know, in a few words each."""
        return caveats_of(self.outcome.collapsed, self.outcome.found, None, None)

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
            "kid_interval": f"{share(stats['kid_low'].mean)}, {share(stats['kid_high'].mean)}" if self.found else DASH,
            "fid": decimals(stats["fid"].mean, 2 if stats["fid"].mean < 10 else 1),
            "diversity": decimals(stats["diversity"].mean, 2),
            "memorisation": decimals(stats["memorisation"].mean, 2),
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


Pools = dict[str, bool]  # key of a pool's record -> whether cells of the augmenter itself use the pool


def fidelity_of(
    title: str,
    cells: Iterable[Any],
    measured: Mapping[str, Measured],
    outcomes: Mapping[str, Outcome],
    headline: Column,
    embedded: Iterable[str],
) -> Fidelity:
    """Build the fidelity table of the pools that a table's cells train on.

    Args:
        title: title of the table above.
        cells: expected cells of that table, in the order of the grid.
        measured: fidelity records by key, see `fidelity_records.load_measured`; those of other pools are ignored.
        outcomes: headline metric by augmenter.
        headline: the column of `outcomes`.
        embedded: smoke-test parts behind the table above.
    """
    pools: dict[str, Pools] = {}
    for cell in cells:
        for name, key in cell.fidelity:
            keys = pools.setdefault(name, {})
            keys[key] = keys.get(key, False) or cell.augmenter == name
    if not any(key in measured for keys in pools.values() for key in keys):
        return Fidelity()
    rows = [row for name, keys in pools.items() for row in _rows(name, keys, measured, outcomes, headline.key)]
    shipped = [f"extractor {name}" for name in _all("extractor", rows) if name.partition(".")[0] == EMBEDDED]
    parts = (*embedded, *shipped)
    warning = [f"mechanics, not evidence ({', '.join(parts)})"] if parts else []
    return Fidelity(
        title=f"{title}: {HEADING.lower()}",
        label="; ".join([*_not_comparable(rows), *warning]),
        columns=_columns(
            headline, len(_all("extractor", rows)) > 1, sorted({n for row in rows for n in row.fid_by_layer})
        ),
        rows=rows,
        captions=_captions(rows),
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
    keys = sorted(pools, key=lambda key: not pools[key])  # stable
    own = [key for key in keys if pools[key]]
    kinds = {key: (measured[key].augmenter_id, measured[key].extractor) for key in keys if key in measured}
    usual = next((kinds[key] for key in own or keys if key in kinds), ("", ""))
    groups: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        groups.setdefault(kinds.get(key, usual), []).append(key)
    several = len({settings for settings, _ in groups}) > 1
    for (settings, extractor), members in groups.items():
        is_own = bool(own) and settings == usual[0]  # the augmenter has rows of its own, with these settings
        found = [measured[key] for key in members if key in measured]
        yield FidelityRow(
            augmenter=f"{name} #{settings[:6]}" if several and not is_own else name,
            extractor=extractor,
            images=tuple(sorted({one.made for one in found})),
            real=tuple(sorted({one.real for one in found})),
            stats={measure: _stat(measure, found) for measure in MEASURES},
            kid_by_class=_stats_of([one.kid_by_class for one in found]),
            fid_by_layer=_stats_of([one.fid_by_layer for one in found]),
            found=len(found),
            expected=len(members),
            headline=headline,
            outcome=outcomes.get(name, Outcome()) if is_own else Outcome(),
        )


def _stat(measure: str, found: list[Measured]) -> Stat:
    """Average over pools; empty where a pool lacks the value, so that all columns of a row cover the same pools."""
    values = [one.values[measure] for one in found]
    return Stat() if any(map(isnan, values)) else stat_of(values)


def _stats_of(found: list[dict[Any, float]]) -> dict[Any, Stat]:
    """Average the values of each name over the pools that have it."""
    names = sorted({name for one in found for name in one})
    return {name: stat_of(one[name] for one in found if name in one) for name in names}


def _columns(headline: Column, several_extractors: bool, layers: list[int]) -> list[Column]:
    return [
        Column("augmenter", "augmenter", is_text=True),
        *([Column("extractor", "extractor", is_text=True)] if several_extractors else []),
        Column("pictures", "images"),
        Column("kid", "KID"),
        Column("kid_interval", "95 % interval"),
        Column("fid", "FID"),
        *(Column(f"fid_{layer}", f"FID {layer}") for layer in layers),
        Column("diversity", "diversity"),
        Column("memorisation", "nearest shot"),
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


def _captions(rows: list[FidelityRow]) -> list[str]:
    made, real = range_text(_all("images", rows)), range_text(_all("real", rows))
    extractors = " and ".join(_all("extractor", rows))
    pools = max(row.found for row in rows)
    return [
        f"The first {made} images of each pool against the {real} defect images of the test split, which neither "
        f"augmenters nor searches use, by features of {extractors}.",
        "Mean (sample standard deviation) over an augmenter's pools."
        if pools > 1
        else "One pool each: no standard deviation.",
        "Numbers of other extractors or of other image counts must not be compared with these.",
    ]


def _notes(rows: list[FidelityRow], headline: str) -> list[str]:
    notes = []
    found, expected = sum(row.found for row in rows), sum(row.expected for row in rows)
    if found < expected:
        notes.append(f"{INCOMPLETE} incomplete: {found} of {expected} pools have a record")
    if any(row.outcome.found < row.outcome.expected for row in rows):
        notes.append(f"{INCOMPLETE} at {headline}: cells are missing")
    if any(row.outcome.collapsed for row in rows):
        notes.append(f"{COLLAPSED} at {headline}: runs behind it have collapsed, see the table of {headline}.")
    if any("#" in row.augmenter for row in rows):
        notes.append("#: start of the digest of the settings, where pools of one name may have different settings.")
    notes.append(
        "KID: Kernel Inception Distance, unbiased: about 0 is as close as real defects are to one another; an estimate "
        "may be negative. Its 95 % interval is bootstrapped over images: means of the lower and of the upper ends."
    )
    if any(row.found and isnan(row.stats["fid"].mean) for row in rows):
        notes.append(
            "FID: a dash where synthetic or real images are not more than the extractor has features, since their "
            "covariance is then singular."
        )
    if layers := sorted({layer for row in rows for layer in row.fid_by_layer}):
        notes.append(
            f"FID {' and '.join(map(str, layers))}: on max-pooling layers of Inception with that many features, also "
            "where the images are fewer: compare it at equal numbers of images alone."
        )
    real = _real_diversity(rows)
    notes.append(f"Diversity: mean distance between the features of two images of a pool; of the real ones {real}.")
    notes.append(
        "Nearest shot: median distance of synthetic images to the nearest shot, between thumbnails, divided by that of "
        "the real test images: 1 is as far as those, 0 are copies; a dash where no shots are read."
    )
    notes.append("s per image: seconds of generation alone, without adaptation and search.")
    parts = any(not row.outcome.expected for row in rows)
    dash = "; a dash for parts of a mixture, with which no classifier is trained alone" if parts else ""
    notes.append(f"{headline}: mean over that augmenter's rows with N_aug > 0 in the table of {headline}{dash}.")
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
