"""Understand a user's folder: which images are normal, which have a defect, which show one item, what cannot be used.

What was understood is written as a table, one row per image, from which everything else is computed. Nothing is written
into the user's folder; a table there, with the columns image, label and group, says what the files' names do not.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from augbench.core import registry
from augbench.core.contracts import GOOD, Dataset
from augbench.core.errors import UserError, listed
from augbench.core.seeds import rng
from augbench.core.temporary import log_levels
from augbench.core.walk import Walk, spelling, walk
from augbench.datasets.folder import COLUMNS, NORMAL, SIDES
from augbench.planning.audits import audit_of
from augbench.planning.library import Library
from augbench.report.dataset_findings import Findings, examine
from augbench.report.table_notes import plural
from augbench.stages.leak_audit import audit, proposed_groups
from augbench.storage.files import write_atomic

DEFECTIVE = ("bad", "defect", "defects", "defective", "ng", "nok", "not ok", "not_ok", "anomaly", "anomalous",
             "abnormal", "faulty", "fail", "failed", "reject", "broken", "1", "positive", "yes")  # fmt: skip
"""Usual names of the class of images with a defect: of two classes, the other one is normal."""

FEWEST_ITEMS = 4  # items with a defect below which nothing is said: two for training and two for testing
MOST_FOLDS = 5
LABEL = "data"  # the dataset's name while it is looked at


class WhichIsNormal(UserError):
    """The class of normal images is not known by its name."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        super().__init__(
            f"which class of '{folder}' holds the normal images? Name it with --good (found: {listed(classes, 8)})"
        )
        self.classes = list(classes)


@dataclass(frozen=True)
class Understood:
    """What was understood of a folder."""

    name: str  # of the dataset in grids and tables
    root: Path
    good: str  # the user's name of the class of normal images
    table: pd.DataFrame  # columns `COLUMNS`, without images that cannot be used; the label of normal images is "good"
    folds: int  # 0: the folder's own split
    sizes: tuple[tuple[int, int], ...]  # smallest and largest width x height
    left_out: dict[str, list[str]] = field(default_factory=dict)  # why -> images or masks
    of: int = 0  # images of the folder, where only a part of the normal ones is used

    @property
    def items(self) -> int:
        """Number of items with a defect."""
        return self.table.loc[self.table["label"] != GOOD, "group"].nunique()

    @property
    def classes(self) -> dict[str, int]:
        """Number of images of each class of defects, the most frequent first."""
        return self.table.loc[self.table["label"] != GOOD, "label"].value_counts().to_dict()

    @property
    def normal(self) -> int:
        """Number of normal images."""
        return int((self.table["label"] == GOOD).sum())

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what was understood, for a person: (what, text)."""
        classes = ", ".join(f"{name} {number:,}" for name, number in self.classes.items())
        images = f"{self.normal:,} normal images ({self.good})"
        if self.of > len(self.table):
            images += f", a random part, as the folder has {self.of:,} images in all"
        defects = len(self.table) - self.normal
        yield "images", f"{images}; {defects:,} with a defect ({classes}); {_size_text(self.sizes)}"
        masks = int(((self.table["mask"] != "") & (self.table["label"] != GOOD)).sum())
        yield "masks", f"of {masks:,} defect images" if masks else "none; nothing here needs them"
        shared = len(self.table) - self.table["group"].nunique()
        joined = "near-copies count as one item" if shared else "each image counts as an item of its own"
        normal = self.table.loc[self.table["label"] == GOOD, "group"].nunique()
        yield "items", f"{self.items:,} with a defect, {normal:,} normal; {joined} (--group says which images are one)"
        own = "the folder's own, train and test" if not self.folds else f"{self.folds} folds"
        yield "split", f"{own}; no item is in training and test at once"
        texts = (f"{len(names):,} {why} ({listed(names, 3)})" for why, names in self.left_out.items())
        yield "left out", "; ".join(texts) or "nothing"

    def settings(self, csv: Path) -> dict[str, Any]:
        """Return the settings of the dataset `folder` that read this table, written to ``csv``."""
        folds = {"folds": self.folds} if self.folds else {}
        return {"root": str(self.root.resolve()), "csv": str(csv.resolve()), **folds}


def understand(
    folder: Path, csv: Path, good: str | None = None, group: str | None = None, most: int | None = None
) -> Understood:
    """Find out what a folder holds, and write it to ``csv``.

    Args:
        folder: class folders, train and test, masks beside or in folders, or images with a CSV of image and label.
        csv: the table to write; outside the folder.
        good: the class of normal images, where its name does not tell.
        group: a regular expression for file names, whose part in brackets names the item.
        most: most images to use; of more, all with a defect and a random part of the normal ones.

    Raises:
        WhichIsNormal: no class has a usual name of normal images, and ``good`` does not say which it is.
        UserError: no such folder, no layout that is known, or too few images to say anything.
    """
    root = _inner(folder)
    settings = _layout(root) | ({"group": group} if group else {})
    labels = _open(settings | {"task": "recognition"}).samples()["label"]
    good = _normal_class(root, sorted(set(labels)), good)
    dataset = _open(settings | {"good": good})
    table = dataset.samples()
    _refuse_odd_names(root, table)
    _refuse_one_sided(root, table, good)
    kept = _thinned(table, most)
    dataset.samples = lambda: kept  # what is not used is not read
    with log_levels(logging.ERROR, "augbench.files"):
        findings = examine(dataset)
    usable, left_out = _usable(findings, set(table["image"]))
    usable = _with_items(usable, findings, root, csv)
    usable, folds = _split(usable)
    _refuse_few(root, usable)
    csv.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(csv, usable[list(COLUMNS)].to_csv(index=False).encode())
    sizes = sorted({one.size for one in findings.seen if one.size})
    of = len(table) if len(kept) < len(table) else 0
    return Understood(_name(folder), root, good, usable, folds, (sizes[0], sizes[-1]), left_out, of)


# -- layout and classes


def _inner(folder: Path) -> Path:
    """Return the folder, or the only one inside it, where there is nothing else: no other image, no table of them."""
    folder = folder.expanduser()
    if not folder.is_dir():
        what = "is a file: give the folder that it is in" if folder.exists() else "does not exist"
        raise UserError(f"folder '{folder}' {what}")
    found = walk(folder)
    while True:
        top = {name.split("/")[0] for name in found.images()}
        if len(top) != 1 or next(iter(top)) in found.files or next(iter(top)).lower() in SIDES:
            return folder
        if _tables(folder, found):
            return folder
        inner = folder / next(iter(top))
        deeper = walk(inner)
        if all("/" not in name for name in deeper.images()):
            return folder  # one class folder: the error about classes names it
        folder, found = inner, deeper


def _layout(root: Path) -> dict[str, Any]:
    """Return the settings by which `folder` reads this folder. Raises UserError where there is no way."""
    found = walk(root)
    images = found.images()
    if not images:
        raise UserError(f"folder '{root}' holds no images (PNG, JPEG, BMP, TIFF, WebP): give another folder")
    several = _datasets_in(found)
    if len(several) > 1:
        raise UserError(
            f"folder '{root}' holds several datasets ({listed(several, 6)}): give one, as '{root / several[0]}'"
        )
    named = _tables(root, found)
    if len(named) > 1:
        raise UserError(f"folder '{root}' has several tables of images ({listed(named)}): move all but one away")
    if named:
        return {"root": str(root), "csv": named[0]}
    if not any("/" in name for name in images):
        raise UserError(
            f"folder '{root}' has {len(images):,} images side by side, and nothing says which have a defect: put them "
            "into class folders (good/, scratch/, ...), or add a CSV with the columns image and label"
        )
    return {"root": str(root)}


def _datasets_in(found: Walk) -> list[str]:
    """Return the folders that have a train and a test folder of their own, as each category of MVTec AD has."""
    below: dict[str, set[str]] = {}
    for name in found.folders:
        if name.count("/") == 1:
            below.setdefault(name.split("/")[0], set()).add(name.split("/")[1].lower())
    return sorted(top for top, inside in below.items() if inside >= set(SIDES))


def _tables(root: Path, found: Walk) -> list[str]:
    """Return the tables beside the images that name images and labels."""
    tables = [name for name in found.files if "/" not in name and name.lower().endswith(".csv")]
    return [name for name in tables if {"image", "label"} <= _columns(root / name)]


def _columns(path: Path) -> set[str]:
    try:
        return set(pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns)
    except (OSError, ValueError):
        return set()


def _open(settings: dict[str, Any]) -> Dataset:
    return registry.make("datasets", "folder", settings)


def _normal_class(root: Path, classes: list[str], good: str | None) -> str:
    """Return the class of normal images, by the user's word or by its name."""
    if good is not None:
        found = [name for name in classes if spelling(name) == spelling(good)]
        if not found:
            raise UserError(f"--good '{good}' is no class of '{root}' (found: {listed(classes, 8)})")
        return found[0]
    usual = [name for name in classes if spelling(name) in NORMAL] or [name for name in classes if _sounds_normal(name)]
    if len(usual) == 1:
        return usual[0]
    rest = [name for name in classes if spelling(name) not in DEFECTIVE]
    if not usual and len(classes) == 2 and len(rest) == 1:
        return rest[0]
    raise WhichIsNormal(root, usual or classes)


def _sounds_normal(name: str) -> bool:
    """Whether a word of a name is one of normal images, and none is one of defects: ``MT_Free``, ``parts-ok``."""
    words = set(re.split(r"[^a-z0-9]+", spelling(name)))
    return bool(words & set(NORMAL)) and not words & set(DEFECTIVE)


def _refuse_odd_names(root: Path, table: pd.DataFrame) -> None:
    """Refuse names of folders and files that a table cannot hold."""
    for name in [*table["label"], *table["id"]]:
        if any(part != part.strip() for part in name.split("/")):
            raise UserError(f"folder '{root}' has '{name}', which begins or ends with a blank: rename it")
    names = table["label"].unique()
    twice = names[pd.Series(names).map(spelling).duplicated(keep=False)]
    if len(twice):
        raise UserError(f"folder '{root}' has classes that differ in spelling alone ({listed(twice)}): join them")


def _refuse_one_sided(root: Path, table: pd.DataFrame, good: str) -> None:
    normal = table["label"] == GOOD
    if normal.all():
        raise UserError(
            f"folder '{root}' has {len(table):,} normal images ({good}) and none with a defect: nothing can be "
            f"measured without real defects to test on; collect at least {FEWEST_ITEMS} (fifty say much more)"
        )
    if not normal.any():
        raise UserError(f"folder '{root}' has no normal image: a classifier needs both")


def _refuse_few(root: Path, table: pd.DataFrame) -> None:
    for what, rows in (("a defect", table["label"] != GOOD), ("no defect", table["label"] == GOOD)):
        items = table.loc[rows, "group"].nunique()
        if items < FEWEST_ITEMS:
            has = f"{plural(int(rows.sum()), 'usable image')} with {what}, of {plural(items, 'item')}"
            raise UserError(f"folder '{root}' has {has}: nothing can be said below {FEWEST_ITEMS} items: collect more")


# -- which images are used, and which are one item


def _thinned(table: pd.DataFrame, most: int | None) -> pd.DataFrame:
    """Keep all images with a defect and, of more than ``most`` images, a random part of the normal ones."""
    defects = table[table["label"] != GOOD]
    normal = table[table["label"] == GOOD]
    wanted = max((most or len(table)) - len(defects), len(defects))
    if len(normal) <= wanted:
        return table
    chosen = rng("try-normal", len(normal), wanted).permutation(len(normal))[:wanted]
    return table[table["id"].isin([*defects["id"], *normal["id"].iloc[chosen]])].reset_index(drop=True)


def _usable(findings: Findings, listed_images: set[str]) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Return the usable rows, and what cannot be used: why -> names. A mask that does not fit costs the mask alone."""
    table = findings.table.reset_index(drop=True)
    pixels = pd.Series([one.pixels for one in findings.seen])
    unreadable = pd.Series([one.size is None for one in findings.seen])
    unclear = table["label"].groupby(pixels).transform("nunique").reindex(table.index).fillna(1) > 1
    misfit = pd.Series([bool(one.problems) and one.size is not None for one in findings.seen])
    normal_mask = (table["label"] == GOOD) & (table["mask"] != "")
    reasons = {
        "cannot be read": table.loc[unreadable, "id"],
        "are equal, but of two classes": table.loc[unclear, "id"],
        "masks do not fit their image": table.loc[misfit, "mask"],
    }
    table.loc[misfit | normal_mask, "mask"] = ""
    strays = [name for name in findings.strays if name not in listed_images]
    left_out = {why: list(names) for why, names in reasons.items() if len(names)}
    if strays:
        left_out["in no class"] = strays
    return table[~(unreadable | unclear)].reset_index(drop=True), left_out


def _with_items(table: pd.DataFrame, findings: Findings, root: Path, csv: Path) -> pd.DataFrame:
    """Join the items that near-copies show to be one."""
    csv.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(csv, table.assign(split="")[list(COLUMNS)].to_csv(index=False).encode())
    settings = {"root": str(root), "csv": str(csv.resolve()), "folds": 2}
    library = Library({LABEL: ("folder", settings)})
    thumbnails = zip(findings.table["id"], (one.thumbnail for one in findings.seen), strict=True)
    known = {name: image for name, image in thumbnails if image is not None}
    record, _ = audit(library, LABEL, audit_of(library, LABEL, ""), known)
    groups = proposed_groups(library.samples(LABEL), record["result"]["clusters"])
    return table.assign(group=table["id"].map(dict(zip(groups["image"], groups["group"], strict=True))))


def _split(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Keep the folder's own split if both sides can be used and share no item; else return grouped folds."""
    defective = table["label"] != GOOD
    sides = [
        set(table.loc[(table["split"] == side) & rows, "group"]) for side in SIDES for rows in (defective, ~defective)
    ]
    apart = not set(table.loc[table["split"] == "train", "group"]) & set(table.loc[table["split"] == "test", "group"])
    if apart and min(map(len, sides)) >= FEWEST_ITEMS:
        return table, 0
    items = min(table.loc[rows, "group"].nunique() for rows in (defective, ~defective))
    return table.assign(split=""), max(2, min(MOST_FOLDS, items // 2))


def _name(folder: Path) -> str:
    """Return a name for grids, which are strict about letters, and in which names of datasets are taken."""
    stem = re.sub(r"[^A-Za-z0-9]+", "_", folder.resolve().name).strip("_")
    taken = not stem[:1].isalpha() or stem in registry.find("datasets")
    return f"folder_{stem}".rstrip("_") if taken else stem


def _size_text(sizes: tuple[tuple[int, int], ...]) -> str:
    smallest, largest = (f"{width} x {height}" for width, height in sizes)
    return smallest if smallest == largest else f"{smallest} to {largest}"
