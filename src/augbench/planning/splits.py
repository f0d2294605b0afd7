"""Who may see which sample: folds, held-out negatives, shots. Everything is by group, and seeded by names alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset, Shots, TrainView
from augbench.core.errors import UserError, listed
from augbench.core.seeds import rng
from augbench.core.specs import DataSpec


@dataclass(frozen=True)
class Split:
    """The four disjoint parts of a dataset in one fold. Each is a table with the columns of `Dataset.samples`."""

    negatives: pd.DataFrame  # training pictures without a defect, the held-out ones left out
    positives: pd.DataFrame  # all real defective training pictures, maybe none; shots are chosen from them
    heldout: pd.DataFrame  # negatives to choose a threshold on; no augmenter and no training sees them
    test: pd.DataFrame


def make_split(dataset: Dataset, spec: DataSpec) -> Split:
    """The parts of ``dataset`` for the fold and hold-out of ``spec``.

    Raises:
        UserError: a table that breaks the contract, or one without the pictures to train or judge on.
    """
    table = checked_samples(dataset)
    tested = _is_test(table, dataset, spec)
    train, test = table[~tested], table[tested]
    _refuse_one_sided(dataset, spec, train, test)
    defective = (train["label"] != GOOD).to_numpy()
    held = train["group"].isin(_holdout(train[~defective], train.loc[defective, "group"], spec)).to_numpy()
    # Defective pictures of a held-out group are in no part at all: they show an item that training must not see.
    parts = (train[~defective & ~held], train[defective & ~held], train[~defective & held], test)
    return Split(*(part.reset_index(drop=True) for part in parts))


def _is_test(table: pd.DataFrame, dataset: Dataset, spec: DataSpec) -> np.ndarray:
    """Whether each row is on the test side: by the official split, by a drawn share, or by one of k folds."""
    if spec.fold is None:
        return (table["split"] == "test").to_numpy()
    if spec.test_share is not None:
        return drawn_share(table, spec.test_share, spec.name, spec.fold)
    return grouped_folds(table, dataset.folds, spec.name) == spec.fold


def _refuse_one_sided(dataset: Dataset, spec: DataSpec, train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Both kinds of pictures are needed on both sides: in recognition only defects; in detection training can do
    without real defects, for then there is zero-shot."""
    for side, part in (("training", train), ("test", test)):
        found = ", ".join(f"{label} {count}" for label, count in part["label"].value_counts().items()) or "nothing"
        where = f"dataset '{spec.alias}': the {side} side" + ("" if spec.fold is None else f" of fold {spec.fold}")
        spared = side == "training" and dataset.task == "detection"
        if not spared and not (part["label"] != GOOD).any():
            raise UserError(f"{where} has no defective pictures (found: {found}): nothing to learn or judge by")
        if dataset.task == "detection" and not (part["label"] == GOOD).any():
            raise UserError(f"{where} has no good pictures (found: {found}): detection needs both")


def checked_samples(dataset: Dataset) -> pd.DataFrame:
    """``dataset.samples()``, sorted by id, held to its contract.

    Raises:
        UserError: columns missing, ids repeated, or one group on both sides of the split.
    """
    table = dataset.samples()
    problems = table_problems(dataset, table)
    if problems:
        more = f" (and {len(problems) - 1} more: augbench datasets check {dataset.name})" if problems[1:] else ""
        raise UserError(f"dataset '{dataset.name}': {problems[0]}{more}")
    return table[list(SAMPLE_COLUMNS)].sort_values("id", ignore_index=True)


def table_problems(dataset: Dataset, table: pd.DataFrame) -> list[str]:
    """Where the table of a dataset breaks its contract, one sentence each.

    Raises:
        UserError: it is no table of samples at all.
    """
    missing = [column for column in SAMPLE_COLUMNS if column not in table.columns]
    if missing or table.empty:
        what = f"its table lacks the columns {', '.join(missing)}" if missing else "it has no samples"
        raise UserError(f"dataset '{dataset.name}': {what}")
    problems = [
        f"id '{name}' occurs {len(rows)} times: {listed(rows['image'])}: take all but one out"
        for name, rows in table[table["id"].duplicated(keep=False)].groupby("id")
    ]
    if dataset.folds:
        return problems
    for row in table[~table["split"].isin(("train", "test"))].itertuples():
        problems.append(f"sample '{row.id}' has split '{row.split}': use 'train' or 'test'")
    split = table[table["split"].isin(("train", "test"))]
    sides = split.groupby("group")["split"].nunique()
    for group, rows in split[split["group"].isin(sides.index[sides > 1])].groupby("group"):
        train, test = (listed(rows.loc[rows["split"] == side, "id"]) for side in ("train", "test"))
        problems.append(
            f"group '{group}' is in training ({train}) and test ({test}): "
            "pictures of one physical item belong on one side"
        )
    return problems


def grouped_folds(table: pd.DataFrame, k: int, name: str) -> np.ndarray:
    """A fold number in 0..k-1 for each row; a group lies in one fold, and labels are spread evenly (greedy).

    Groups are placed largest first, each into the fold where the shares of its labels are lowest so far: the idea of
    scikit-learn's StratifiedGroupKFold, with ties broken by a seeded shuffle.
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
    """N bool: a draw of about ``share`` of the rows, by whole groups, with about that share of every label.

    Groups come in a seeded random order, and one is taken where it brings the shares of the labels, each label counting
    alike, closer to ``share``. Where every picture is a group of its own, each label's count is the share, rounded.

    Args:
        table: with the columns group and label.
        share: in (0, 1).
        name: the dataset's; seeds the order.
        number: of the draw, from 0; draws of different numbers are independent.
    """
    counts = pd.crosstab(table["group"], table["label"])
    members = counts.to_numpy() / counts.to_numpy().sum(axis=0)  # of each label the share that a group holds
    lacking = np.full(members.shape[1], share)
    taken = np.zeros(len(counts), bool)
    for group in rng("test_share", name, number).permutation(len(counts)):
        after = lacking - members[group]
        taken[group] = np.abs(after).sum() < np.abs(lacking).sum() - 1e-9  # a tie by rounding errors is a tie
        lacking = after if taken[group] else lacking
    return table["group"].isin(counts.index[taken]).to_numpy()


def _holdout(negatives: pd.DataFrame, positive_groups: pd.Series, spec: DataSpec) -> set[str]:
    """Names of groups that hold about ``spec.holdout`` of the negatives.

    Groups that also hold defects are left in, but where there are no others (each item of KolektorSDD has a defect
    somewhere): there whole items are held out.
    """
    if not spec.holdout:
        return set()
    sizes = negatives.groupby("group").size()
    clean = sizes[~sizes.index.isin(set(positive_groups))]
    wanted, taken = max(round(spec.holdout * len(negatives)), 1), 0
    chosen: set[str] = set()
    groups = clean if len(clean) else sizes
    for index in rng("holdout", spec.name, spec.fold).permutation(len(groups)):
        total = taken + groups.iloc[index]
        # Clean groups never exceed what is wanted. Items are too few and too large for that: the closer, the better.
        if total <= wanted if len(clean) else abs(total - wanted) < abs(taken - wanted):
            chosen.add(groups.index[index])
            taken = total
    if not chosen:
        raise UserError(
            f"dataset '{spec.alias}' has no group of good pictures small enough to hold out {spec.holdout:.0%}: "
            "use a protocol with holdout: 0"
        )
    return chosen


def choose_shots(split: Split, spec: DataSpec, shots: Shots | None, draw: int | None, per_class: bool) -> pd.DataFrame:
    """The real positives that may be used, sorted by id. Draws of one index nest: the 5 are among the 10.

    Args:
        split: of the dataset.
        spec: names the stream of the draw.
        shots: 0 or None, a number, or "all".
        draw: which sample of that number.
        per_class: ``shots`` counts per class (recognition).

    Raises:
        UserError: more shots than there are.
    """
    positives = split.positives
    if not shots:
        return positives.iloc[:0]
    if positives.empty:
        raise UserError(
            f"dataset '{spec.alias}' has no defective training pictures, shots asks for {shots}: only shots: [0] can "
            "be had, with an augmenter; or split it otherwise, where the dataset has a setting for that"
        )
    if shots == "all":
        return positives
    chosen = []
    for label, rows in positives.groupby("label") if per_class else [("defective", positives)]:
        if shots > len(rows):
            raise UserError(
                f"dataset '{spec.alias}' has {len(rows)} {label} training pictures, shots asks for {shots}: "
                "use fewer, or 'all'"
            )
        order = rng("shots", spec.name, spec.fold, draw, label).permutation(len(rows))
        chosen.append(rows.iloc[order[:shots]])
    return pd.concat(chosen).sort_values("id", ignore_index=True)


def train_view(
    dataset: Dataset, split: Split, spec: DataSpec, shots: Shots | None, draw: int | None, reads: frozenset[str]
) -> TrainView:
    """What an augmenter that declares ``reads`` may see."""
    chosen = choose_shots(split, spec, shots, draw, dataset.task == "recognition")
    return TrainView(dataset, split.negatives, chosen, reads, shots, split.positives)
