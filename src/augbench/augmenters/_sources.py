"""Ids of the real images that an augmenter starts from, or one line that says what is missing."""

from __future__ import annotations

from augbench.core.contracts import TrainView
from augbench.core.errors import UserError


def normal_ids(augmenter: str, view: TrainView) -> list[str]:
    """Return the ids of the normal images, in the order of the view.

    Raises:
        UserError: there is none; the message names the augmenter.
    """
    ids = view.negatives["id"].tolist()
    if not ids:
        raise UserError(f"{augmenter} needs training negatives, and there are none: give the dataset normal images")
    return ids


def shot_ids(augmenter: str, view: TrainView, label: str) -> list[str]:
    """Return the ids of the shots of a class, in detection of all shots, in the order of the view.

    Raises:
        UserError: there is none; the message names augmenter and class.
    """
    rows = view.shots[view.shots["label"] == label] if view.task == "recognition" else view.shots
    if rows.empty:
        raise UserError(f"{augmenter} needs a shot of class '{label}', and there is none: give it shots")
    return rows["id"].tolist()
