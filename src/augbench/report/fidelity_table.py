"""Fidelity records -> the small table under a table of AP: how good the pictures are that its cells took.

Rows are augmenters, pooled over their pools: seeds, draws and folds. A mixture owns no pictures, so its parts have rows
under their own names. Like the tables above them they are built from what the grid expects: a pool that is not measured
is marked, never left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import Any

from augbench.planning.extractor_choice import EMBEDDED
from augbench.report.fidelity_records import MEASURES, Measured
from augbench.report.numbers import (
    DASH,
    INCOMPLETE,
    Column,
    Stat,
    decimals,
    numbers_words,
    seconds_text,
    share,
    stat_of,
)

HEADING = "Fidelity of the pictures"


@dataclass(frozen=True)
class Outcome:
    """What came of an augmenter's pictures: its mean headline metric over rows with N_aug > 0."""

    stat: Stat = field(default_factory=Stat)
    found: int = 0  # cells with a record
    expected: int = 0

    @property
    def text(self) -> str:
        """``.626``, marked where cells are missing."""
        return f"{share(self.stat.mean)} {INCOMPLETE}" if self.found < self.expected else share(self.stat.mean)


@dataclass(frozen=True)
class FidelityRow:
    """An augmenter's pools, seen through one extractor."""

    augmenter: str
    extractor: str  # "" where no pool is measured
    pictures: tuple[int, ...]  # made, of each pool: the different numbers, ascending
    real: tuple[int, ...]  # likewise
    stats: dict[str, Stat]  # every one of `MEASURES`, over pools
    kid_by_class: dict[str, Stat]
    found: int  # pools with a record
    expected: int
    headline: str  # the metric of `outcome`
    outcome: Outcome  # empty for a part of a mixture without rows of its own
    first, is_average, n_aug, notes = True, False, None, ()  # what renderers ask of other rows too

    @property
    def incomplete(self) -> bool:
        """Whether a pool is not measured."""
        return self.found < self.expected

    def text(self, column: Column) -> str:
        """What stands in that column."""
        stats = self.stats
        texts = {
            "augmenter": self.augmenter,
            "extractor": self.extractor or DASH,
            "pictures": numbers_words(self.pictures),
            "kid": stats["kid"].text,
            "kid_interval": f"{share(stats['kid_low'].mean)}, {share(stats['kid_high'].mean)}" if self.found else DASH,
            "fid": _fid_text(stats["fid"].mean),
            "diversity": decimals(stats["diversity"].mean, 2),
            "memorisation": decimals(stats["memorisation"].mean, 2),
            "seconds_per_picture": seconds_text(stats["seconds_per_picture"].mean),
            self.headline: self.outcome.text,
            "pools": f"{self.found}/{self.expected} {INCOMPLETE}" if self.incomplete else str(self.found),
        }
        return texts[column.key]


@dataclass(frozen=True)
class Fidelity:
    """What every renderer prints under a table; without rows where nothing is measured."""

    title: str = ""
    label: str = ""  # what forbids to take the numbers as they stand, else ""
    columns: list[Column] = field(default_factory=list)
    rows: list[FidelityRow] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    embedded: tuple[str, ...] = ()  # parts behind the table above, whose metric stands here too; and the extractor
    in_blocks = False  # rows are not set apart by augmenter: each has one

    def is_best(self, row: FidelityRow, column: Column) -> bool:
        """Nothing is set bold: intervals overlap, and no one measure says which pictures serve best."""
        return False


Pools = dict[str, bool]  # key of a pool's record -> whether cells of the augmenter's own name take from it


@dataclass(frozen=True)
class _Group:
    """Pools of one row."""

    augmenter: str
    label: str  # what it is called in the table
    extractor: str
    keys: list[str]
    is_own: bool  # the augmenter has rows of its own, with these settings


def fidelity_of(
    title: str,
    cells: Iterable[Any],
    measured: Mapping[str, Measured],
    outcomes: Mapping[str, Outcome],
    headline: Column,
    embedded: Iterable[str],
) -> Fidelity:
    """The fidelity of the pools that a table's cells take from.

    Args:
        title: of the table above.
        cells: its expected cells, in the order of the grid.
        measured: see `measured.load_measured`; others than those of the cells are ignored.
        outcomes: of its augmenters, by name.
        headline: the column of `outcomes`.
        embedded: the embedded parts behind the table above.
    """
    pools: dict[str, Pools] = {}
    for cell in cells:
        for name, key in cell.fidelity:
            keys = pools.setdefault(name, {})
            keys[key] = keys.get(key, False) or cell.augmenter == name
    if not any(key in measured for keys in pools.values() for key in keys):
        return Fidelity()
    rows = [
        _row(one, [measured[key] for key in one.keys if key in measured], outcomes, headline.key)
        for name, keys in pools.items()
        for one in _groups(name, keys, measured)
    ]
    shipped = [f"extractor {name}" for name in _all("extractor", rows) if name.partition(".")[0] == EMBEDDED]
    parts = (*embedded, *shipped)
    mechanics = [f"mechanics, not evidence ({', '.join(parts)})"] if parts else []
    return Fidelity(
        title=f"{title}: {HEADING.lower()}",
        label="; ".join([*_not_comparable(rows), *mechanics]),
        columns=_columns(headline, several_extractors=len(_all("extractor", rows)) > 1),
        rows=rows,
        captions=_captions(rows),
        notes=_notes(rows, headline.title),
        embedded=parts,
    )


def _groups(name: str, pools: Pools, measured: Mapping[str, Measured]) -> list[_Group]:
    """The pools of that name: one group, unless it stands for several things whose numbers must not be averaged.

    These are a mixture's part with other settings than the grid's entry of that name, and several extractors. A pool
    without a record counts as one of the grid's entry, or where there is none, as like the first.
    """
    keys = sorted(pools, key=lambda key: not pools[key])  # stable
    own = [key for key in keys if pools[key]]
    kinds = {key: (measured[key].augmenter_id, measured[key].extractor) for key in keys if key in measured}
    usual = next((kinds[key] for key in own or keys if key in kinds), ("", ""))
    groups: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        groups.setdefault(kinds.get(key, usual), []).append(key)
    several = len({settings for settings, _ in groups}) > 1
    found = []
    for (settings, extractor), members in groups.items():
        is_own = bool(own) and settings == usual[0]
        label = f"{name} #{settings[:6]}" if several and not is_own else name
        found.append(_Group(name, label, extractor, members, is_own))
    return found


def _row(group: _Group, found: list[Measured], outcomes: Mapping[str, Outcome], headline: str) -> FidelityRow:
    return FidelityRow(
        augmenter=group.label,
        extractor=group.extractor,
        pictures=tuple(sorted({one.made for one in found})),
        real=tuple(sorted({one.real for one in found})),
        stats={measure: _stat(measure, found) for measure in MEASURES},
        kid_by_class=_class_stats(found),
        found=len(found),
        expected=len(group.keys),
        headline=headline,
        outcome=outcomes.get(group.augmenter, Outcome()) if group.is_own else Outcome(),
    )


def _stat(measure: str, found: list[Measured]) -> Stat:
    """Over pools; nothing where it cannot be had of some, so that all columns of a row speak of the same pools."""
    values = [one.values[measure] for one in found]
    return Stat() if any(map(isnan, values)) else stat_of(values)


def _class_stats(found: list[Measured]) -> dict[str, Stat]:
    names = sorted({name for one in found for name in one.kid_by_class})
    return {name: stat_of(one.kid_by_class[name] for one in found if name in one.kid_by_class) for name in names}


def _columns(headline: Column, several_extractors: bool) -> list[Column]:
    return [
        Column("augmenter", "augmenter"),
        *([Column("extractor", "extractor")] if several_extractors else []),
        Column("pictures", "pictures"),
        Column("kid", "KID"),
        Column("kid_interval", "95 % interval"),
        Column("fid", "FID"),
        Column("diversity", "diversity"),
        Column("memorisation", "nearest shot"),
        Column("seconds_per_picture", "s per picture"),
        Column(headline.key, headline.title),
        Column("pools", "pools"),
    ]


# -- words


def _not_comparable(rows: list[FidelityRow]) -> list[str]:
    """What differs in the table and so forbids comparing its rows."""
    found = [row for row in rows if row.found]
    differ = []
    if len(extractors := _all("extractor", found)) > 1:
        differ.append(f"extractors ({', '.join(extractors)})")
    if len(made := _all("pictures", found)) > 1:
        differ.append(f"numbers of made pictures ({', '.join(map(str, made))})")
    if len({row.real for row in found}) > 1:  # several in each row are its folds
        differ.append(f"numbers of real pictures ({', '.join(map(str, _all('real', found)))})")
    return [f"rows must not be compared: {' and '.join(differ)} differ"] if differ else []


def _captions(rows: list[FidelityRow]) -> list[str]:
    made, real = numbers_words(_all("pictures", rows)), numbers_words(_all("real", rows))
    extractors = " and ".join(_all("extractor", rows))
    pools = max(row.found for row in rows)
    return [
        f"The first {made} pictures of each pool against the {real} defective pictures of the test split, which no "
        f"augmenter and no choice sees, by features of {extractors}.",
        "Mean (sample standard deviation) over an augmenter's pools."
        if pools > 1
        else "One pool each: no standard deviation.",
        "Numbers of other extractors or of other counts of pictures must not be compared with these.",
    ]


def _notes(rows: list[FidelityRow], headline: str) -> list[str]:
    notes = []
    found, expected = sum(row.found for row in rows), sum(row.expected for row in rows)
    if found < expected:
        notes.append(f"{INCOMPLETE} incomplete: {found} of {expected} pools are measured")
    if any(row.outcome.found < row.outcome.expected for row in rows):
        notes.append(f"{INCOMPLETE} at {headline}: cells are missing")
    if any("#" in row.augmenter for row in rows):
        notes.append("#: the start of a digest of settings, where pools under one name are not known to share them.")
    notes.append(
        "KID: Kernel Inception Distance, unbiased: about 0 is as close as real defects are to one another, and chance "
        "may take it below. Its 95 % interval is bootstrapped over pictures: means of the lower and of the upper ends."
    )
    if any(row.found and isnan(row.stats["fid"].mean) for row in rows):
        notes.append(
            "FID: a dash where made or real pictures are not more than the extractor has features, since their "
            "covariance is singular then."
        )
    real = _real_diversity(rows)
    notes.append(f"Diversity: mean distance between the features of two pictures of a pool; of the real ones {real}.")
    notes.append(
        "Nearest shot: median distance of made pictures to the nearest shot, all shrunk to thumbnails, over that of "
        "the real ones of the test split: 1 is as far as they, 0 is copies; a dash where no shots are read."
    )
    notes.append("s per picture: seconds of generating alone, without what was learned or searched before.")
    parts = any(not row.outcome.expected for row in rows)
    dash = "; a dash for parts of a mixture, which are not trained with alone" if parts else ""
    notes.append(f"{headline}: mean over that augmenter's rows with N_aug > 0 in the table of {headline}{dash}.")
    return notes


def _real_diversity(rows: list[FidelityRow]) -> str:
    """``4.15``; of several extractors one each, since they are no more comparable than other numbers."""
    of = {}
    for row in rows:
        of.setdefault(row.extractor, []).append(row.stats["diversity_of_real"].mean)
    texts = {name: decimals(stat_of(values).mean, 2) for name, values in of.items() if name}
    return next(iter(texts.values())) if len(texts) == 1 else ", ".join(f"{t} ({n})" for n, t in sorted(texts.items()))


def _all(attribute: str, rows: list[FidelityRow]) -> list[Any]:
    """Every different value of the rows, ascending."""
    values = [getattr(row, attribute) for row in rows]
    each = [one for value in values for one in (value if isinstance(value, tuple) else (value,) if value else ())]
    return sorted(set(each))


def _fid_text(value: float) -> str:
    return decimals(value, 2 if value < 10 else 1)
