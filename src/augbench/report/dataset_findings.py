"""Validation of a dataset's files: reads each file once and collects all problems."""

from __future__ import annotations

import copy
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD, Dataset
from augbench.core.errors import DatasetError, UserError, listed
from augbench.core.guard import overrides
from augbench.core.images import FEW, colours, decode_grey, decode_rgb, look, read_bytes
from augbench.core.specs import DataSpec
from augbench.core.walk import plain_stem
from augbench.metrics.near_copies import thumbnail
from augbench.planning.splits import make_split, table_problems
from augbench.report.left_out import Account, account_for

Sample = Mapping[str, str]
Size = tuple[int, int]  # width, height


@dataclass
class Seen:
    """What was found when one sample was read."""

    size: Size | None = None
    pixels: bytes | None = None  # digest of the decoded image
    thumbnail: np.ndarray | None = None  # to search for near-copies, see `augbench.metrics.near_copies`
    stored: str = ""  # e.g. "JPEG, 8-bit grey"
    turned: bool = False  # it was rotated as its EXIF data say
    two_valued: bool = False  # the image has two colours, as masks do
    mask_stored: str = ""
    mask_empty: bool = False
    mask_turned: bool = False
    mask_grey: bool = False  # it has many values, as after lossy compression or scaling
    mask_share: float = 0  # of its pixels that are marked
    mask_border: float = 0  # of the pixels of its border that are marked
    problems: list[str] = field(default_factory=list)


@dataclass
class Findings:
    """Everything that `examine` found. Each sentence names the files or samples it is about."""

    table: pd.DataFrame  # label "" where the label is unknown
    seen: list[Seen]  # in the order of the table
    folds: list[pd.DataFrame]  # the test split of each fold that can be trained and evaluated
    strays: list[str]  # image files that are left out
    account: Account | None = None  # of every file; None for a dataset without files
    known: set[str] = field(default_factory=set)  # ids of `Dataset.known` whose listed problem was found
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def examine(dataset: Dataset) -> Findings:
    """Read every image and mask once and validate table, files, groups and folds.

    Raises:
        UserError: there is no table to validate: no files, or not in the expected layout.
    """
    problems: list[str] = []
    try:
        table = dataset.samples()
    except DatasetError as error:
        problems, table = list(error.problems), error.table
    problems += table_problems(dataset, table)
    view = _with_table(dataset, table)
    rows = table.to_dict("records")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        seen = list(pool.map(lambda row: _see(dataset, row), rows))
    folds, unfit = _folds(_with_table(dataset, _usable_rows(dataset, table)))
    on_disk = dataset.config.root is not None
    account = account_for(view, table) if on_disk else None
    problems += view.check() + unfit + [problem for one in seen for problem in one.problems]
    findings = Findings(table, seen, folds, view.strays() if on_disk else [], account)
    findings.problems += list(dict.fromkeys(problems)) + (account.problems() if account else [])
    findings.notes += dataset.notes() + (account.notes() if account else [])
    _check_masks(dataset, rows, findings)
    _note_odd_masks(dataset, rows, findings)
    _check_two_valued(rows, findings)
    _check_duplicates(dataset, findings)
    return findings


def _with_table(dataset: Dataset, table: pd.DataFrame) -> Dataset:
    """Copy the dataset with another sample table, so that checks can go on although a part of it is broken."""
    view = copy.copy(dataset)
    view.samples = lambda: table
    return view


def _see(dataset: Dataset, row: Sample) -> Seen:
    """Read one sample; a read error becomes a problem."""
    seen = Seen()
    try:
        image = _image(dataset, row, seen)
        seen.size = image.shape[1::-1]
        seen.thumbnail = thumbnail(image)
        seen.pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
    except UserError as error:
        seen.problems.append(str(error))
    try:
        mask = _mask(dataset, row, seen)
    except UserError as error:
        seen.problems.append(str(error))
        return seen
    seen.mask_empty = mask is not None and not mask.any()
    if seen.size and mask is not None and mask.shape[::-1] != seen.size:
        sizes = f"{_by(mask.shape[::-1])}, its image {_by(seen.size)}"
        turned = ", which is turned by its EXIF mark" if seen.turned and not seen.mask_turned else ""
        seen.problems.append(f"mask of '{row['id']}' ('{row['mask']}') is {sizes}{turned}: make them agree")
    return seen


def _image(dataset: Dataset, row: Sample, seen: Seen) -> np.ndarray:
    if overrides(type(dataset), "read_image"):
        return dataset.read_image(row)
    path = dataset.root() / row["image"]
    data = read_bytes(path)
    dataset.remember(path, data)
    image = decode_rgb(data, str(path))
    stored = look(data, str(path))
    three_equal = stored.kind == "8-bit RGB" and (image == image[..., :1]).all()
    seen.stored = f"{stored.format}, {stored.kind}" + (" (three equal channels)" if three_equal else "")
    seen.turned = stored.turned
    seen.two_valued = colours(image) == 2
    return image


def _mask(dataset: Dataset, row: Sample, seen: Seen) -> np.ndarray | None:
    if overrides(type(dataset), "read_mask") or not row["mask"]:
        return dataset.read_mask(row)
    path = dataset.root() / row["mask"]
    data = read_bytes(path)
    dataset.remember(path, data)
    if overrides(type(dataset), "decode_mask"):
        seen.mask_stored = f"{path.suffix[1:].upper()} annotations"
        return dataset.decode_mask(data, str(path), row["label"])
    grey = decode_grey(data, str(path))
    mask = grey > dataset.mask_threshold
    stored = look(data, str(path))
    seen.mask_stored = f"{stored.format}, {stored.kind}"
    seen.mask_turned, seen.mask_grey, seen.mask_share = stored.turned, colours(grey) > FEW, float(mask.mean())
    seen.mask_border = float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())
    return mask


def _usable_rows(dataset: Dataset, table: pd.DataFrame) -> pd.DataFrame:
    """Drop the rows that `table_problems` reported, so that the splits can still be checked."""
    table = table[table["label"] != ""].drop_duplicates("id")
    if dataset.folds:
        return table
    table = table[table["split"].isin(("train", "test"))]
    return table.assign(group=table["group"] + " in " + table["split"])


def _folds(dataset: Dataset) -> tuple[list[pd.DataFrame], list[str]]:
    """Return the test split of every fold that can be trained and evaluated, and why others cannot."""
    sides, problems = [], []
    for fold in range(dataset.folds) if dataset.folds else (None,):
        try:
            sides.append(make_split(dataset, DataSpec(dataset.name, dataset.name, {}, "", fold, 0.0)).test)
        except UserError as error:
            problems.append(str(error))
    return sides, problems


def _check_masks(dataset: Dataset, rows: Sequence[Sample], findings: Findings) -> None:
    """Report masks that are missing or contradict the label."""
    with_mask = sum(row["label"] != GOOD and row["mask"] != "" for row in rows)
    for row, seen in zip(rows, findings.seen, strict=True):
        name, label, has_mask = row["id"], row["label"], row["mask"] != ""
        if label == GOOD:
            if has_mask and not seen.mask_empty and not seen.problems:
                findings.problems.append(f"mask of '{name}' marks a defect, its label is {GOOD}: change one of them")
        elif label and not has_mask and with_mask:
            others = f"{with_mask} other defect images have one"
            findings.problems.append(f"sample '{name}' ({label}) has no mask, {others}: add it")
        elif label and has_mask and seen.mask_empty and name in dataset.known:
            findings.known.add(name)
        elif label and has_mask and seen.mask_empty:
            threshold = f", no value exceeds {dataset.mask_threshold}" if dataset.mask_threshold else ""
            findings.problems.append(f"mask of '{name}' ({label}) is empty{threshold}: mark the defect")


def _note_odd_masks(dataset: Dataset, rows: Sequence[Sample], findings: Findings) -> None:
    """Note masks that can be right, but are often wrong. Each sentence names the samples."""

    def note(sentence: str, which: Callable[[Seen], bool]) -> None:
        names = [row["id"] for row, seen in zip(rows, findings.seen, strict=True) if row["mask"] and which(seen)]
        if names:
            findings.notes.append(f"mask{'s' * (len(names) > 1)} of {listed(names)}: {sentence}")

    look_at = f"look at a sheet (augbench datasets sample {dataset.name})"
    if dataset.mask_threshold == 0:
        setting = "mask_threshold" in type(dataset).Config.model_fields
        way = f", or {dataset.option('mask_threshold', '127')}" if setting else ""
        note(
            f"grey values, as after JPEG or scaling, and all above 0 are defect: save as PNG with two values{way}",
            lambda seen: seen.mask_grey,
        )
    note(
        "inverted? They mark the border and more than half of the image: the defect must be bright",
        lambda seen: 0.5 < seen.mask_share < 1 and seen.mask_border > 0.9,
    )
    note(
        f"more than half of the image is defect: {look_at}",
        lambda seen: seen.mask_share > 0.5 and (seen.mask_border <= 0.9 or seen.mask_share == 1),
    )
    note(
        f"the image is turned by its EXIF mark, the mask has none: {look_at}",
        lambda seen: seen.turned and not seen.mask_turned,
    )


def _check_two_valued(rows: Sequence[Sample], findings: Findings) -> None:
    """Report images that are probably masks: of two colours, without a mask, where others have more."""
    stems = [plain_stem(PurePosixPath(row["image"])) for row in rows]
    pairs = list(zip(rows, stems, findings.seen, strict=True))
    others = {stem for _, stem, seen in pairs if seen.size and not seen.two_valued}
    suspects = [(row["id"], stem in others) for row, stem, seen in pairs if seen.two_valued and not row["mask"]]
    way = "if they are masks, use them as such, see augbench datasets show folder"
    if alike := [name for name, named_alike in suspects if named_alike]:
        findings.problems.append(f"{listed(alike)}: two colours only, and named like other images: {way}")
    alone = [name for name, named_alike in suspects if not named_alike]
    if alone and others:
        findings.notes.append(f"{listed(alone)}: two colours only: {way}")


def _check_duplicates(dataset: Dataset, findings: Findings) -> None:
    """Report pixel-identical images: harmless in one group, else one may be in training and test at once."""
    table = findings.table.assign(pixels=[seen.pixels for seen in findings.seen])
    for _, rows in table[table.duplicated("pixels", keep=False)].groupby("pixels", sort=False):  # None is dropped
        known = set(rows["id"]) & set(dataset.known)
        findings.known |= known
        labels, groups, sides = (list(dict.fromkeys(rows[column])) for column in ("label", "group", "split"))
        what = f"{listed(rows['id'], 6)} are pixel-identical"
        labels = [label for label in labels if label]
        if len(labels) > 1:
            what += f", but labelled {' and '.join(labels)}"
        if len(groups) == 1 and len(labels) <= 1:
            if len(known) < len(rows):
                findings.notes.append(f"{what}; they are in one group, so never on both sides of a split")
            continue
        if len(groups) > 1:
            where = " and on both sides of the split" if len(sides) > 1 else ""
            where = where or ("; a fold can put them on both sides" if dataset.folds else "")
            named = "" if set(groups) <= set(rows["id"]) else f" ({listed(groups)})"  # each may be its own group
            what += f", in different groups{named}{where}"
        findings.problems.append(f"{what}: take all but one out" + ("" if len(labels) > 1 else ", or group them"))


def count(values: Iterable[str]) -> str:
    """Count equal values except "", the most frequent first: ``1,344 JPEG, 8-bit grey; 3 PNG, palette``."""
    return "; ".join(f"{number:,} {value}" for value, number in Counter(filter(None, values)).most_common())


def _by(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
