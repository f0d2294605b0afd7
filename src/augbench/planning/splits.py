"""Splits: folds, held-out negatives, shots. Splits keep groups together and are seeded by names only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset, Shots, TrainView
from augbench.core.errors import UserError, listed
from augbench.core.seeds import rng
from augbench.core.specs import DataSpec, Draw
from augbench.core.walk import is_absolute, spelling


@dataclass(frozen=True)
class Split:
    """The four disjoint parts of a dataset in one fold. Each is a table with the columns of `Dataset.samples`."""

    negatives: pd.DataFrame  # normal training images without the held-out ones
    positives: pd.DataFrame  # all real defect images for training, possibly none; shots are drawn from them
    heldout: pd.DataFrame  # negatives to choose a threshold; hidden from augmenters and training
    test: pd.DataFrame


def make_split(dataset: Dataset, spec: DataSpec) -> Split:
    """Split ``dataset`` by the fold and holdout of ``spec``.

    Raises:
        UserError: the table is invalid, or it lacks images to train or evaluate on.
    """
    table = checked_samples(dataset)
    tested = _is_test(table, dataset, spec)
    train, test = table[~tested], table[tested]
    _refuse_one_sided(dataset, spec, train, test)
    defective = (train["label"] != GOOD).to_numpy()
    held = train["group"].isin(_holdout(train[~defective], train.loc[defective, "group"], spec)).to_numpy()
    # Defect images of a held-out group are in no part: they show an item that training must not see.
    parts = (train[~defective & ~held], train[defective & ~held], train[~defective & held], test)
    return Split(*(part.reset_index(drop=True) for part in parts))


def _is_test(table: pd.DataFrame, dataset: Dataset, spec: DataSpec) -> np.ndarray:
    """Return whether each row is in the test split: official, a random share, or one of k folds."""
    if spec.fold is None:
        return (table["split"] == "test").to_numpy()
    if spec.test_share is not None:
        return drawn_share(table, spec.test_share, spec.name, spec.fold)
    return grouped_folds(table, dataset.folds, spec.name) == spec.fold


def _refuse_one_sided(dataset: Dataset, spec: DataSpec, train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Raise if a side lacks defect images or, in detection, normal images.

    Training for detection needs no real defects, because of the zero-shot regime.
    """
    for side, part in (("training", train), ("test", test)):
        found = ", ".join(f"{label} {count}" for label, count in part["label"].value_counts().items()) or "nothing"
        where = f"dataset '{spec.alias}': the {side} side" + ("" if spec.fold is None else f" of fold {spec.fold}")
        optional = side == "training" and dataset.task == "detection"
        if not optional and not (part["label"] != GOOD).any():
            raise UserError(f"{where} has no defect images (found: {found}): nothing to train on or evaluate")
        if dataset.task == "detection" and not (part["label"] == GOOD).any():
            raise UserError(f"{where} has no normal images (found: {found}): detection needs both")


def checked_samples(dataset: Dataset) -> pd.DataFrame:
    """Return ``dataset.samples()``, validated and sorted by id.

    Raises:
        UserError: missing columns, duplicate ids, or a group on both sides of the split.
    """
    table = dataset.samples()
    problems = table_problems(dataset, table)
    if problems:
        more = f" (and {len(problems) - 1} more: augbench datasets check {dataset.name})" if problems[1:] else ""
        raise UserError(f"dataset '{dataset.name}': {problems[0]}{more}")
    return table[list(SAMPLE_COLUMNS)].sort_values("id", ignore_index=True)


def table_problems(dataset: Dataset, table: pd.DataFrame) -> list[str]:
    """List the violations of the contract of `Dataset.samples`, one sentence each.

    Raises:
        UserError: columns are missing or the table is empty.
    """
    missing = [column for column in SAMPLE_COLUMNS if column not in table.columns]
    if missing or table.empty:
        what = f"its table lacks the columns {', '.join(missing)}" if missing else "it has no samples"
        raise UserError(f"dataset '{dataset.name}': {what}")
    problems = [
        f"id '{name}' occurs {len(rows)} times: {listed(rows['image'])}: remove all but one"
        for name, rows in table[table["id"].duplicated(keep=False)].groupby("id")
    ]
    problems += [*_absolute_paths(table), *_masks_as_images(table), *_spellings(table)]
    if dataset.folds:
        return problems + (_lone_groups(table) if dataset.task == "recognition" else [])
    for row in table[~table["split"].isin(("train", "test"))].itertuples():
        problems.append(f"sample '{row.id}' has split '{row.split}': use 'train' or 'test'")
    split = table[table["split"].isin(("train", "test"))]
    sides = split.groupby("group")["split"].nunique()
    for group, rows in split[split["group"].isin(sides.index[sides > 1])].groupby("group"):
        train, test = (listed(rows.loc[rows["split"] == side, "id"]) for side in ("train", "test"))
        problems.append(
            f"group '{group}' is in training ({train}) and test ({test}): "
            "images of one physical item must be on one side"
        )
    return problems + (_one_sided_classes(split) if dataset.task == "recognition" else [])


def _absolute_paths(table: pd.DataFrame) -> list[str]:
    """Name absolute paths: they would differ on every machine, and keys and published tables would hold them."""
    problems = []
    for column in ("id", "image", "mask", "group"):
        absolute = [name for name in table[column] if is_absolute(name)]
        if absolute:
            problems.append(f"{column} {listed(absolute)}: absolute path; make it relative to the root")
    return problems


def _masks_as_images(table: pd.DataFrame) -> list[str]:
    both = sorted(set(table["image"]) & set(table["mask"]) - {""})
    return [f"{listed(both)}: image of one sample and mask of another; remove its row"] if both else []


def _spellings(table: pd.DataFrame) -> list[str]:
    """Name labels that differ only in case, blanks, or forms of letters."""
    alike: dict[str, list[str]] = {}
    for label in sorted(set(table["label"]) - {""}):
        alike.setdefault(spelling(label), []).append(label)
    several = [names for names in alike.values() if len(names) > 1]
    return [f"one class is spelt in several ways, {listed(names)}: rename all but one" for names in several]


def _one_sided_classes(split: pd.DataFrame) -> list[str]:
    """Name classes without training or test images; in detection a test may hold unseen kinds of defects."""
    labelled = split[~split["label"].isin(("", GOOD))]
    if labelled["split"].nunique() < 2:
        return []  # `make_split` says that a side is empty
    sides = labelled.groupby("label")["split"].agg(set)
    return [
        f"class '{label}' has {'no training' if found == {'test'} else 'no test'} images: recognition needs both"
        for label, found in sides.items()
        if len(found) == 1
    ]


def _lone_groups(table: pd.DataFrame) -> list[str]:
    counts = table[table["label"] != ""].groupby("label")["group"].nunique()
    return [
        f"class '{label}' is one group, so never in training and test at once: recognition needs two groups of it"
        for label in counts.index[counts == 1]
    ]


def grouped_folds(table: pd.DataFrame, k: int, name: str) -> np.ndarray:
    """Assign a fold number in 0..k-1 to each row: groups stay together, labels are balanced greedily.

    As in scikit-learn's StratifiedGroupKFold, each group, largest first, goes to the fold where its labels have the
    lowest shares so far; a seeded shuffle breaks ties.
    """
    counts = pd.crosstab(table["group"], table["label"])
    counts = counts.iloc[rng("folds", name, k).permutation(len(counts))]
    shares = counts / counts.sum()
    order = np.argsort(-counts.to_numpy().std(axis=1) - 1e-3 * counts.to_numpy().sum(axis=1), kind="stable")
    filled = np.zeros((k, counts.shape[1]))
    fold_of = {}
    for row in order:
        share = shares.iloc[row].to_numpy()
        spread = [(filled + np.outer(np.arange(k) == fold, share)).std(axis=0).mean() for fold in range(k)]
        best = min(range(k), key=lambda fold: (round(spread[fold], 12), filled[fold].sum(), fold))
        filled[best] += share
        fold_of[counts.index[row]] = best
    return table["group"].map(fold_of).to_numpy()


def drawn_share(table: pd.DataFrame, share: float, name: str, number: int) -> np.ndarray:
    """Draw about ``share`` of the rows and of every label, by whole groups: N bool.

    Groups are visited in a seeded random order. A group is drawn if it brings the shares of the labels, weighted
    equally, closer to ``share``. If every image is its own group, each label's count is the rounded share.

    Args:
        table: with the columns group and label.
        share: in (0, 1).
        name: name of the dataset; seeds the order.
        number: number of the draw, from 0; different draws are independent.
    """
    counts = pd.crosstab(table["group"], table["label"])
    members = counts.to_numpy() / counts.to_numpy().sum(axis=0)  # share of each label in each group
    lacking = np.full(members.shape[1], share)
    drawn = np.zeros(len(counts), bool)
    for group in rng("test_share", name, number).permutation(len(counts)):
        after = lacking - members[group]
        drawn[group] = np.abs(after).sum() < np.abs(lacking).sum() - 1e-9  # tolerance for rounding errors in ties
        lacking = after if drawn[group] else lacking
    return table["group"].isin(counts.index[drawn]).to_numpy()


def _holdout(negatives: pd.DataFrame, positive_groups: pd.Series, spec: DataSpec) -> set[str]:
    """Draw groups with about ``spec.holdout`` of the negatives; return their names.

    Groups with defects are not held out, unless all groups have defects (as in KolektorSDD, where each item has one).
    """
    if not spec.holdout:
        return set()
    sizes = negatives.groupby("group").size()
    clean = sizes[~sizes.index.isin(set(positive_groups))]
    wanted, drawn = max(round(spec.holdout * len(negatives)), 1), 0
    chosen: set[str] = set()
    groups = clean if len(clean) else sizes
    for index in rng("holdout", spec.name, spec.fold).permutation(len(groups)):
        total = drawn + groups.iloc[index]
        # Clean groups must not exceed the wanted number. Items with defects are few and large: get closest to it.
        if total <= wanted if len(clean) else abs(total - wanted) < abs(drawn - wanted):
            chosen.add(groups.index[index])
            drawn = total
    if not chosen:
        raise UserError(
            f"dataset '{spec.alias}' has no group of normal images small enough to hold out {spec.holdout:.0%}: "
            "use a protocol with holdout: 0"
        )
    return chosen


def choose_shots(split: Split, spec: DataSpec, shots: Shots | None, draw: Draw, per_class: bool) -> pd.DataFrame:
    """Draw the real positives to use, sorted by id. Shots of one draw are nested: the 5 are among the 10.

    Args:
        split: split of the dataset.
        spec: seeds the draw by dataset and fold.
        shots: 0 or None, a number, or "all".
        draw: index of the random draw, or the ids of the shots.
        per_class: whether ``shots`` counts per class (recognition).

    Raises:
        UserError: there are fewer positives than shots, or a named one is none of them.
    """
    positives = split.positives
    if not shots:
        return positives.iloc[:0]
    if isinstance(draw, tuple):
        _check_named(split, spec, draw)
        return positives[positives["id"].isin(draw)].reset_index(drop=True)
    if positives.empty:
        raise UserError(
            f"dataset '{spec.alias}' has no defect images for training, shots asks for {shots}: only shots: [0] is "
            "possible, with an augmenter; or choose another split, if the dataset has a setting for it"
        )
    if shots == "all":
        return positives
    chosen = []
    for label, rows in positives.groupby("label") if per_class else [("defective", positives)]:
        if shots > len(rows):
            raise UserError(
                f"dataset '{spec.alias}' has {len(rows)} {label} training images, shots asks for {shots}: "
                "use fewer, or 'all'"
            )
        order = rng("shots", spec.name, spec.fold, draw, label).permutation(len(rows))
        chosen.append(rows.iloc[order[:shots]])
    return pd.concat(chosen).sort_values("id", ignore_index=True)


def _check_named(split: Split, spec: DataSpec, ids: Sequence[str]) -> None:
    """Refuse named shots that are no defect images of the training part."""
    strangers = sorted(set(ids) - set(split.positives["id"]))
    if not strangers:
        return
    parts = {"a test image": split.test, "a held-out image": split.heldout, "a normal image": split.negatives}
    what = (part for part, rows in parts.items() if strangers[0] in set(rows["id"]))
    fold, leave = ("", "") if spec.fold is None else (f", fold {spec.fold}", ", or leave this fold out")
    problem = f"dataset '{spec.alias}'{fold}: shots name '{strangers[0]}', {next(what, 'which it does not have')}"
    raise UserError(f"{problem}: name ids of defect images of the training part{leave}")


def train_view(
    dataset: Dataset, split: Split, spec: DataSpec, shots: Shots | None, draw: Draw, reads: frozenset[str]
) -> TrainView:
    """Return the view of an augmenter that declares ``reads``."""
    chosen = choose_shots(split, spec, shots, draw, dataset.task == "recognition")
    return TrainView(dataset, split.negatives, chosen, reads, shots, split.positives)
