"""Who may see which sample: folds, held-out negatives, shots. Everything is by group, and seeded by names alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset, Shots, TrainView
from augbench.core.errors import UserError
from augbench.core.seeds import rng
from augbench.core.specs import DataSpec


@dataclass(frozen=True)
class Split:
    """The four disjoint parts of a dataset in one fold. Each is a table with the columns of `Dataset.samples`."""

    negatives: pd.DataFrame  # training pictures without a defect, the held-out ones left out
    positives: pd.DataFrame  # all real defective training pictures; shots are chosen from them
    heldout: pd.DataFrame  # negatives to choose a threshold on; no augmenter and no training sees them
    test: pd.DataFrame


def make_split(dataset: Dataset, spec: DataSpec) -> Split:
    """The parts of ``dataset`` for the fold and hold-out of ``spec``.

    Raises:
        UserError: a table that breaks the contract, or one without positives to train or judge on.
    """
    table = checked_samples(dataset)
    if spec.fold is None:
        train, test = table[table["split"] == "train"], table[table["split"] == "test"]
    else:
        folds = grouped_folds(table, dataset.folds, spec.name)
        train, test = table[folds != spec.fold], table[folds == spec.fold]
    defective = train["label"] != GOOD
    _refuse_one_sided(dataset, spec, train, test)
    negatives = train[~defective]
    heldout = _holdout(negatives, train.loc[defective, "group"], spec)
    parts = (
        negatives[~negatives["id"].isin(heldout)],
        train[defective],
        negatives[negatives["id"].isin(heldout)],
        test,
    )
    return Split(*(part.reset_index(drop=True) for part in parts))


def _refuse_one_sided(dataset: Dataset, spec: DataSpec, train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Both kinds of pictures are needed on both sides (in recognition, defects on both)."""
    for side, part in (("training", train), ("test", test)):
        found = ", ".join(f"{label} {count}" for label, count in part["label"].value_counts().items()) or "nothing"
        where = f"dataset '{spec.alias}': the {side} side" + ("" if spec.fold is None else f" of fold {spec.fold}")
        if not (part["label"] != GOOD).any():
            raise UserError(f"{where} has no defective pictures (found: {found}): nothing to learn or judge by")
        if dataset.task == "detection" and not (part["label"] == GOOD).any():
            raise UserError(f"{where} has no good pictures (found: {found}): detection needs both")


def checked_samples(dataset: Dataset) -> pd.DataFrame:
    """``dataset.samples()``, sorted by id, held to its contract.

    Raises:
        UserError: columns missing, ids repeated, or one group on both sides of the split.
    """
    table = dataset.samples()
    missing = [column for column in SAMPLE_COLUMNS if column not in table.columns]
    if missing:
        raise UserError(f"dataset '{dataset.name}': its table lacks the columns {', '.join(missing)}")
    if table.empty:
        raise UserError(f"dataset '{dataset.name}' has no samples")
    if table["id"].duplicated().any():
        raise UserError(f"dataset '{dataset.name}': id '{table['id'][table['id'].duplicated()].iloc[0]}' occurs twice")
    if not dataset.folds:
        wrong = table[~table["split"].isin(("train", "test"))]
        if len(wrong):
            raise UserError(
                f"dataset '{dataset.name}': sample '{wrong['id'].iloc[0]}' has split '{wrong['split'].iloc[0]}': "
                "use 'train' or 'test'"
            )
        sides = table.groupby("group")["split"].nunique()
        if (sides > 1).any():
            raise UserError(
                f"dataset '{dataset.name}': group '{sides.index[sides > 1][0]}' is in training and test: "
                "pictures of one physical item belong on one side"
            )
    return table[list(SAMPLE_COLUMNS)].sort_values("id", ignore_index=True)


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


def _holdout(negatives: pd.DataFrame, positive_groups: pd.Series, spec: DataSpec) -> set[str]:
    """Ids of whole groups of negatives, about ``spec.holdout`` of them; groups that also hold defects are left in."""
    if not spec.holdout:
        return set()
    candidates = negatives[~negatives["group"].isin(set(positive_groups))]
    groups = sorted(candidates["group"].unique())
    wanted = round(spec.holdout * len(negatives))
    chosen: set[str] = set()
    for index in rng("holdout", spec.name, spec.fold).permutation(len(groups)):
        members = candidates.loc[candidates["group"] == groups[index], "id"]
        if len(chosen) + len(members) <= max(wanted, 1):
            chosen.update(members)
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
    return TrainView(dataset, split.negatives, chosen, reads)
