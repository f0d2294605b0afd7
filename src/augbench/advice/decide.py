"""Decide from a store what to recommend: the rows of several tables, side by side on the same test items."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from augbench.advice.design import ALIKE, FREE, LESS
from augbench.metrics.inference import Verdict
from augbench.report.evidence.build import Comparison, RowEvidence, Worth, compare_rows
from augbench.report.evidence.sheets import worth_sentences
from augbench.report.frame import load_expected, load_records
from augbench.report.numbers import share, signed
from augbench.storage.store import Store

NONE, CLASSIC = "no synthetic images", "classic"
NORMALS, NEAREST, BOTH = "normal images alone", "nearest normal image", "real defects + normal images"
COUNTED = {ALIKE: "counted like real defects", LESS: "counted less"}
NEARLY_ALL = 0.99  # AP from which on nothing is left to gain
ALONE = {"normals_only": NORMALS, "nearest_normal": NEAREST}
"""Protocol without any defect image -> its option."""
TABLE = "advice"  # the protocol of the table that all rows are put into

Name = tuple[str, int]
"""A row: what is done, and its N_aug."""


@dataclass(frozen=True)
class Option:
    """Something that can be done, and what it gave."""

    name: Name
    kind: str  # "free": needs no generator; "augmenter"; "control"; "fewer": with fewer real defects
    augmenter: str  # its name in the grid; "" where there is none
    protocol: str  # that it was run by
    shots: int | str
    evidence: RowEvidence
    gain: Comparison | None  # over `NONE`; None for itself and for fewer real defects
    keys: tuple[str, ...]  # of its cells

    @property
    def is_shown(self) -> bool:
        """Whether it is better than no synthetic images."""
        return self.gain is not None and self.gain.verdict == Verdict.BETTER


@dataclass(frozen=True)
class Advice:
    """What the numbers say."""

    options: list[Option]
    over_free: dict[Name, list[Comparison]]  # augmenter -> its difference to each free option but `NONE`
    over_null: dict[Name, Comparison]  # augmenter -> its difference to its null, which shows no defect
    curve: list[Comparison]  # more real defects minus fewer, step by step
    worths: dict[Name, Worth]  # augmenter -> what its images and all real defects are worth; {} without a curve
    recommended: Option | None  # an augmenter that beats every free option; None: there is none
    free: Option | None  # the best free option, where it is shown to be better than none

    @property
    def none(self) -> Option:
        """All real defects, no synthetic images."""
        return next(option for option in self.options if option.name[0] == NONE)

    @property
    def best(self) -> Option:
        """What to do: an augmenter that is recommended, else the best free option, else nothing."""
        return self.recommended or self.free or self.none

    @property
    def highest(self) -> Option:
        """What has the highest mean AP of all that can be done, shown or not; of equals what needs no generator."""
        return max(
            [*self.of_kind("free"), *self.of_kind("augmenter")], key=lambda one: one.evidence.intervals["ap"].estimate
        )

    def of_kind(self, kind: str) -> list[Option]:
        """Return the options of a kind, in the order of the grid."""
        return [option for option in self.options if option.kind == kind]


def decide(store: Store, grid: str, free: str) -> Advice:
    """Compare everything that was run with what needs no generator.

    An augmenter is recommended where its gain over *every* free option is shown: no synthetic images, classic
    augmentation, the distances to normal images, and these beside real defects. Which of them is strongest is seen on
    the test items, so that beating the one with the best mean would not do. Intervals hold for all augmenters at once.
    Among those that qualify, the cheapest within one standard error of the best is taken; without the first condition
    that rule would often take one of several useless methods.

    Args:
        store: the store of the run.
        grid: the name of the grid with the augmenters.
        free: the name of the grid with the scores that need no synthetic image.

    Raises:
        UserError: cells or scores are missing or damaged.
    """
    expected = pd.concat([load_expected(store, name) for name in (grid, free)], ignore_index=True)
    records = load_records(store, expected["key"])
    found = list(_rows(expected, set(expected["null"]) - {None}))
    table = pd.concat([cells.assign(augmenter=name[0], protocol=TABLE, shots="all") for name, *_, cells in found])
    names = {kind: [row[0] for row in found if row[1] == kind] for kind in ("free", "augmenter", "control", "fewer")}
    nulls = dict(zip(expected["augmenter"], expected["null"], strict=True))
    row_of = {(augmenter, protocol): name for name, _, augmenter, protocol, *_ in found}
    none = next(name for name in names["free"] if name[0] == NONE)
    others = [name for name in names["free"] if name != none]
    steps = [*names["fewer"], none]
    with_null = [
        (row, null) for (name, protocol), row in row_of.items() if (null := row_of.get((nulls.get(name), protocol)))
    ]
    wanted = [
        with_null,
        [(name, none) for name in names["augmenter"]],
        *([(name, other) for name in names["augmenter"]] for other in others),
        [(name, none) for name in [*others, *names["control"]]],
        list(zip(steps[1:], steps, strict=False)),
    ]
    points: dict[Name, int | str] = {name: int(name[0].split()[0]) for name in names["fewer"]} | {none: "all"}
    rows, compared, worths = compare_rows(store, table.reset_index(drop=True), records, wanted, curve=points)
    to_null, to_none, *to_free, rest, curve = compared
    gains = {one.row: one for one in [*to_none, *rest]}
    evidence = {row.name: row for row in rows}
    options = [
        Option(name, kind, augmenter, protocol, shots, evidence[name], gains.get(name), tuple(cells["key"]))
        for name, kind, augmenter, protocol, shots, cells in found
    ]
    over = {name: [one for part in to_free for one in part if one.row == name] for name in names["augmenter"]}
    over_null = {one.row: one for one in to_null}
    worth = {(one.augmenter, one.n_aug): one for one in worths if (one.augmenter, one.n_aug) in over}
    return Advice(options, over, over_null, curve, worth, _recommended(options, over), _best_free(options))


Found = tuple[Name, str, str, str, int | str, pd.DataFrame]


def _rows(expected: pd.DataFrame, controls: Collection[str]) -> Iterator[Found]:
    """Yield the rows to compare: name, kind, augmenter, protocol, shots, and the expected cells."""
    for (protocol, shots, augmenter), cells in expected.groupby(["protocol", "shots", "augmenter"], sort=False):
        n_aug = int(cells["n_aug"].iloc[0])
        if protocol in ALONE:
            yield (ALONE[protocol], 0), "free", "", protocol, shots, cells
        elif protocol == "probe_normality":
            if shots == "all":
                yield (BOTH, 0), "free", "", protocol, shots, cells
        elif augmenter != "none":
            kind = "free" if augmenter in FREE else "control" if augmenter in controls else "augmenter"
            yield (f"{augmenter}, {COUNTED[protocol]}", n_aug), kind, augmenter, protocol, shots, cells
        elif protocol == LESS:  # without synthetic images both protocols give the same
            free = shots == "all"
            yield (
                (NONE if free else f"{shots} real defects", 0),
                "free" if free else "fewer",
                "",
                protocol,
                shots,
                cells,
            )


def _recommended(options: Sequence[Option], over: dict[Name, list[Comparison]]) -> Option | None:
    shown = [
        option
        for option in options
        if option.kind == "augmenter" and option.is_shown and all(one.together.low > 0 for one in over[option.name])
    ]
    if not shown:
        return None
    best = max(shown, key=lambda option: option.gain.alone.estimate)
    near = [
        option for option in shown if option.gain.alone.estimate >= best.gain.alone.estimate - best.gain.alone.error
    ]
    return min(near, key=lambda option: option.evidence.cost.total if option.evidence.cost else float("inf"))


def _best_free(options: Sequence[Option]) -> Option | None:
    """Return the best free option; the gains of all hold at once, so that of the best one does, too."""
    shown = [option for option in options if option.kind == "free" and option.is_shown]
    return max(shown, key=lambda option: option.gain.alone.estimate, default=None)


# -- sentences


def sentences(advice: Advice) -> list[str]:
    """Say what to do, why, and what else helps."""
    return [_what_to_do(advice), *_augmenters(advice), *_free(advice), *_guess(advice), *_collecting(advice)]


def _what_to_do(advice: Advice) -> str:
    if (best := advice.recommended) is None:
        if _all_is_found(advice):
            at = share(advice.none.evidence.intervals["ap"].estimate)
            return f"Do not add synthetic images here: without any AP is {at}, there is nothing to gain."
        return (
            "No synthetic images are shown to do better here than what is to be had without a generator; "
            "a gain too small to show may be there."
        )
    least = min(one.together.low for one in (best.gain, *advice.over_free[best.name]))  # none is free, too
    text = (
        f"Add {best.name[1]} images of {best.augmenter}, {COUNTED[best.protocol]}: "
        f"{difference(best.gain)} AP over none, and at least {signed(least)} over the best free option."
    )
    null = advice.over_null.get(best.name)
    if null is None or null.verdict == Verdict.BETTER:
        return text
    as_well = "better" if null.verdict == Verdict.WORSE else "as well, as far as can be told"
    return f"{text} Plain noise in the same places does {as_well}: {difference(null)}."


def _all_is_found(advice: Advice) -> bool:
    return advice.none.evidence.intervals["ap"].low >= NEARLY_ALL


def _augmenters(advice: Advice) -> Iterator[str]:
    by_name: dict[str, list[str]] = {}
    for option in advice.of_kind("augmenter"):
        what = _verdict(option.gain)
        by_name.setdefault(option.augmenter, []).append(f"{COUNTED[option.protocol]}, {what}")
    for name, texts in by_name.items():
        text = "; ".join(texts)
        yield f"{name}: {text}."


def _verdict(one: Comparison) -> str:
    if one.verdict == Verdict.BETTER:
        return f"it raises AP by {difference(one)}"
    if one.verdict == Verdict.WORSE:
        return f"it lowers AP by {difference(one)}"
    return f"{one.verdict}, {difference(one)}"


def _free(advice: Advice) -> Iterator[str]:
    if advice.free:
        yield f"What helps without a generator: {advice.free.name[0]}, {difference(advice.free.gain)} AP over none."
    elif rest := [option for option in advice.of_kind("free") if option.gain]:
        names = ", ".join(f"{option.name[0]} {difference(option.gain)}" for option in rest)
        yield f"Without a generator nothing is shown to help either: {names}."


def _guess(advice: Advice) -> Iterator[str]:
    """Name what to try where nothing is shown, as whoever has parts to inspect has to do something."""
    undecided = advice.best == advice.none and not _all_is_found(advice)
    if undecided and advice.highest != advice.none:
        yield f"Highest mean: {advice.highest.name[0]}, a guess and not a finding."


def _collecting(advice: Advice) -> Iterator[str]:
    if not advice.curve:
        return
    steps = [f"from {one.versus.split()[0]} to {_number(one, advice)} {difference(one)}" for one in advice.curve]
    helped = [one.verdict == Verdict.BETTER for one in advice.curve]
    found = "helps" if helped[-1] else "is not shown to help any more" if any(helped) else "is not shown to help"
    yield f"Collecting defects {found}: {', '.join(steps)} AP."


def _number(one: Comparison, advice: Advice) -> str:
    return "all" if one.augmenter == NONE else one.augmenter.split()[0]


def difference(one: Comparison) -> str:
    """Format a difference with its simultaneous interval: ``+.031 (-.004 to +.070)``."""
    return f"{signed(one.together.estimate)} ({signed(one.together.low)} to {signed(one.together.high)})"


def as_dict(advice: Advice) -> dict[str, Any]:
    """Return JSON values of what was compared and recommended."""
    return {
        "recommended": advice.recommended.name[0] if advice.recommended else None,
        "best_without_generator": advice.free.name[0] if advice.free else None,
        "highest_mean": advice.highest.name[0],
        "sentences": sentences(advice),
        "options": [_option(option) for option in advice.options],
        "over_free": {name: [_compared(one) for one in every] for (name, _), every in advice.over_free.items()},
        "real_defects": [_compared(one) for one in advice.curve],
        "worth_in_real_defects": worth_sentences(advice.worths.values()),
    }


def _option(option: Option) -> dict[str, Any]:
    found = option.evidence.intervals["ap"]
    return {
        "name": option.name[0],
        "kind": option.kind,
        "augmenter": option.augmenter,
        "n_aug": option.name[1],
        "protocol": option.protocol,
        "shots": option.shots,
        "ap": {"estimate": found.estimate, "low": found.low, "high": found.high},
        "over_none": _compared(option.gain) if option.gain else None,
        "seconds": option.evidence.cost.total if option.evidence.cost else None,
        "cells": sorted(option.keys),
    }


def _compared(one: Comparison) -> dict[str, Any]:
    return {
        "of": one.augmenter,
        "over": one.versus,
        "estimate": one.together.estimate,
        "low": one.together.low,
        "high": one.together.high,
        "verdict": one.verdict.value,
    }


def ap_text(option: Option) -> str:
    """Format AP with its interval: ``.812 (.744 to .871)``."""
    found = option.evidence.intervals["ap"]
    return f"{share(found.estimate)} ({share(found.low)} to {share(found.high)})"
