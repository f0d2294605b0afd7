"""Read your own images from class folders or a CSV file.

Class folders: ``ROOT/<class>/*.png``, split into grouped folds with each image its own group; or
``ROOT/train/<class>/...`` and ``ROOT/test/<class>/...``. The setting ``good`` names the class of normal images. Masks
that lie among the images (``<class>/masks/000.png``, ``ground_truth/<class>/000.png``, ``000_mask.png`` beside
``000.jpg``) are used as such.

CSV (setting ``csv``, relative to the root or absolute): columns ``image`` and ``label``, and optionally ``mask``,
``split`` (train/test) and ``group``. Paths in it are relative to the root.

Say which images show one physical item, as images of one item must not be on both sides of a split: with the column
``group``; with the setting ``groups``, a CSV with the columns ``image`` and ``group``; or with the setting ``group``, a
regular expression for file names, whose part in brackets names the item: ``(part\\d+)_.*``.
"""

from __future__ import annotations

import difflib
import re
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd
from pydantic import Field, field_validator, model_validator

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset
from augbench.core.errors import UserError, listed
from augbench.core.mask_files import MASK_FOLDERS, masks_among, matched, refuse
from augbench.core.walk import Names, Walk, same_text, spelling, walk
from augbench.datasets._tables import read_table

SIDES = ("train", "test")
OTHER_SIDES = ("val", "valid", "validation", "dev", "holdout")
COLUMNS = ("image", "label", "mask", "split", "group")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
UNPRINTED = "has a line break or another control character: rename it"
NORMAL = ("good", "ok", "normal", "no", "0", "negative", "fine", "perfect", "defect-free", "free", "nodefect", "pass")
"""Usual names of the class of normal images, which an error proposes."""


class Folder(Dataset):
    """Layouts: ``<class>/*.png``; ``train/<class>/*.png`` with ``test/<class>/*.png``; or a CSV file that lists the
    images (setting ``csv``): columns ``image`` and ``label``, and optionally ``mask``, ``split`` and ``group``.
    """

    title = "a folder of images"
    licence = "yours"

    class Config(Dataset.Config):
        """Which files to read, and how to read them."""

        csv: str | None = Field(None, description="the table of the images: relative to the root, or absolute")
        task: Literal["detection", "recognition"] = Field("detection", description="detection, or recognition")
        good: str = Field(GOOD, description="the label of normal images (no defect)")
        folds: int = Field(5, ge=2, description="number of folds, where the files come without a split")
        mask_threshold: int = Field(0, ge=0, le=254, description="mask values above it are defect pixels")
        groups: str | None = Field(
            None, description="a table with the columns image and group (physical item), a path relative to the root"
        )
        group: str | None = Field(
            None,
            description="which physical item an image shows: a regular expression for its file name (with a / in it: "
            "for its path), whose part in brackets names the item, such as (part\\d+)_.*",
        )

        @field_validator("group")
        @classmethod
        def _expression(cls, value: str | None) -> str | None:
            try:
                re.compile(value or "")
            except re.error as error:
                raise ValueError(f"'{value}' is no regular expression ({error})") from None
            return value

        @model_validator(mode="after")
        def _one_way(self) -> Any:
            if self.group is not None and self.groups is not None:
                raise ValueError("groups and group both say which images show one item: give one of them")
            return self

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self.task = self.config.task
        self.mask_threshold = self.config.mask_threshold

    @property
    def folds(self) -> int:
        """Number of folds: 0 where the files come with a split, else the setting."""
        if self.config.root is None:  # the plan is made without the files
            return self.config.folds
        return 0 if (self._table["split"] != "").any() else self.config.folds

    def samples(self) -> pd.DataFrame:
        """Return the sample table; ids are image paths relative to the root."""
        return self._table

    def key_settings(self) -> dict:
        """Return the settings that enter keys; paths below the root are relative to it.

        Of a table outside the root its name is enough: what it says is in the fingerprint.
        """
        settings = super().key_settings()
        for key in ("csv", "groups"):
            if key in settings and self.config.root is not None:
                place = Path(self._place_of(settings[key]))
                settings[key] = place.name if place.is_absolute() else place.as_posix()
        return settings

    def notes(self) -> list[str]:
        """Name what was found besides the samples: masks among the images, further columns and folders."""
        _ = self._table
        return self._notes

    def tables(self) -> set[str]:
        """Name the tables that were read."""
        places = (self._place_of(name) for name in (self.config.csv, self.config.groups) if name)
        return {place for place in places if not Path(place).is_absolute()}

    def reason(self, name: str) -> str:
        """Explain why an image or a mask is left out."""
        if self.config.csv:
            return f"images that '{self.config.csv}' does not name"
        if name in self._unmatched:
            return "masks without an image of their name"
        sides = self._sides(self._walk)
        if sides and name.split("/")[0] not in sides:
            return "images outside train/ and test/"
        return "images in no class folder"

    @cached_property
    def _walk(self) -> Walk:
        return walk(self.root())

    @cached_property
    def _table(self) -> pd.DataFrame:
        self._notes: list[str] = []
        self._unmatched: frozenset[str] = frozenset()
        table = self._from_csv() if self.config.csv else self._from_folders()
        labels = sorted(set(table["label"]))
        normal = [label for label in labels if same_text(label) == same_text(self.config.good)]
        if self.task == "detection" and not normal:
            self._refuse_without_good(labels)
        table["label"] = table["label"].replace(dict.fromkeys(normal, GOOD))
        table["group"] = self._grouped(table)
        return table[list(SAMPLE_COLUMNS)].sort_values("id", ignore_index=True)

    def _refuse_without_good(self, labels: list[str]) -> None:
        wrong = f"no class is called '{self.config.good}' (found: {', '.join(labels[:8])})"
        likely = next((label for usual in NORMAL for label in labels if spelling(label) == usual), "NAME")
        ways = f"name the class of normal images with the setting good ({self.option('good', likely)})"
        recognition = f"tell defect classes apart without normal images ({self.option('task', 'recognition')})"
        raise UserError(f"dataset 'folder': {wrong}: {ways}, or {recognition}")

    # -- a CSV

    def _from_csv(self) -> pd.DataFrame:
        path = self.root() / self._place_of(self.config.csv)
        table = self._read_csv(path, ("image", "label"), COLUMNS)
        self._check_cells(path, table)
        names = Names(self.root(), self._walk.files)
        for column in ("mask", "split", "group"):
            if column not in table.columns:
                table[column] = ""
        table["id"], table["image"] = zip(*self._found(names, table["image"]), strict=True)
        table["mask"] = [file for _, file in self._found(names, table["mask"])]
        if table["image"].duplicated().any():
            twice = table["image"][table["image"].duplicated()].iloc[0]
            raise UserError(f"dataset 'folder': '{path}' names '{twice}' twice: one row per image")
        return table.assign(group=table["group"].where(table["group"] != "", table["id"]))

    def _read_csv(self, path: Path, needed: tuple[str, ...], known: tuple[str, ...]) -> pd.DataFrame:
        """Read a table; further columns are ignored, unless they look like a misspelt name."""
        try:
            table = read_table(path)
        except UnicodeDecodeError:
            raise UserError(f"dataset 'folder': '{path}' is not UTF-8: save it as UTF-8") from None
        except FileNotFoundError:
            raise UserError(f"dataset 'folder': '{path}' does not exist: paths are relative to the root") from None
        except (OSError, ValueError) as error:
            raise UserError(f"dataset 'folder': '{path}' cannot be read as CSV: {error}") from None
        names = f"columns are {', '.join(known)}, with commas between"
        missing = sorted(set(needed) - set(table.columns))
        if missing:
            raise UserError(f"dataset 'folder': '{path}' lacks {missing}: {names}")
        further = [column for column in table.columns if column not in known]
        for column in further:
            near = difflib.get_close_matches(spelling(column), set(known) - set(table.columns), n=1, cutoff=0.75)
            if near:
                raise UserError(
                    f"dataset 'folder': '{path}' has a column '{column}' (did you mean '{near[0]}'?): {names}"
                )
        if further:
            self._notes.append(f"columns of '{path.name}' that are not used: {', '.join(further)}")
        if table.empty:
            raise UserError(f"dataset 'folder': '{path}' has no rows: one per image")
        table = table[[column for column in known if column in table.columns]]
        for number, row in enumerate(table.to_dict("records"), start=2):  # the header is line 1
            for column, value in row.items():
                if CONTROL.search(value):
                    raise UserError(f"dataset 'folder': '{path}' line {number}: {column} {value!r} {UNPRINTED}")
        return table

    def _check_cells(self, path: Path, table: pd.DataFrame) -> None:
        """Refuse rows without image or label, and blanks around values."""
        for number, row in enumerate(table.to_dict("records"), start=2):  # the header is line 1
            for column in ("image", "label"):
                if not row[column]:
                    raise UserError(f"dataset 'folder': '{path}' line {number} has no {column}")
            for column, value in row.items():
                if value != value.strip():
                    raise UserError(f"dataset 'folder': '{path}' line {number}: blanks around {column} '{value}'")
        spellings = table["label"].groupby(table["label"].map(spelling)).unique()
        for names in spellings[spellings.map(len) > 1]:
            raise UserError(f"dataset 'folder': '{path}' spells one class in several ways: {', '.join(names)}")

    def _found(self, names: Names, column: pd.Series) -> list[tuple[str, str]]:
        try:
            return [names.find(name) if name else ("", "") for name in column]
        except UserError as error:
            raise UserError(f"dataset 'folder': {error}") from None

    def _place_of(self, name: str) -> str:
        """Return the path of a table relative to the root; unchanged where it is absolute and not below the root."""
        root = self.root().resolve()
        if Path(name).is_absolute() and not Path(name).resolve().is_relative_to(root):
            return name
        return self._found(Names(self.root(), ()), pd.Series([name]))[0][1]

    # -- class folders

    def _from_folders(self) -> pd.DataFrame:
        root, images = self.root(), self._walk.images()
        masks = masks_among(root, images)
        images = sorted(set(images) - set(masks))
        sides = self._sides(self._walk)
        rows = []
        for name in images:
            side, label = self._place(name, sides)
            if label and CONTROL.search(name):
                raise UserError(f"dataset 'folder': {name!r} in '{root}' {UNPRINTED}")
            if label:
                rows.append((name, name, "", label, side, name))
        if not rows and masks:
            raise refuse("folder", masks, "and there are no other images in class folders")
        if not rows:
            raise UserError(f"dataset 'folder': no class folders with images in '{root}' (<class>/*.png)")
        table = pd.DataFrame(rows, columns=SAMPLE_COLUMNS)
        odd = sorted({label for label in table["label"] if MASK_FOLDERS.fullmatch(label)})
        if odd:
            self._notes.append(f"class {listed(odd)}: called like a folder of masks, but its images are none")
        return self._with_masks(table, masks) if masks else table

    def _with_masks(self, table: pd.DataFrame, masks: list[str]) -> pd.DataFrame:
        mask_of = matched(masks, table["image"])
        self._unmatched = frozenset(masks) - set(mask_of.values())
        if not mask_of:
            raise refuse("folder", masks, "and no image, or more than one, has the name of each")
        first = next(iter(mask_of.values()))
        self._notes.append(f"{len(mask_of)} of the images are used as masks, such as '{first}'")
        return table.assign(mask=table["image"].map(mask_of).fillna(""))

    def _sides(self, found: Walk) -> dict[str, str]:
        """Map the folders train and test, in any case, to the sides of the split; {} where not both exist."""
        sides = {folder: folder.lower() for folder in found.folders if folder.lower() in SIDES}
        if sorted(sides.values()) == sorted(SIDES):
            return sides
        others = [folder for folder in found.folders if folder.lower() in OTHER_SIDES]
        if sides and others:
            has = f"'{self.root()}' has the folders {listed([*sides, *others])}"
            raise UserError(f"dataset 'folder': {has}: a split has two sides, called train and test")
        return {}

    def _place(self, name: str, sides: dict[str, str]) -> tuple[str, str]:
        """Return the side and the class of an image; "" where it is in no class folder."""
        folders = name.split("/")[:-1]
        if not sides:
            return "", folders[0] if folders else ""
        side = sides.get(folders[0], "") if folders else ""
        return side, folders[1] if side and len(folders) > 1 else ""

    # -- groups

    def _grouped(self, table: pd.DataFrame) -> pd.Series:
        """Return the group of each row: by the settings, else as it is."""
        if self.config.group is None and self.config.groups is None:
            return table["group"]
        if (table["group"] != table["id"]).any():
            setting = "group" if self.config.groups is None else "groups"
            raise UserError(
                f"dataset 'folder': '{self.config.csv}' has groups, and so has the setting {setting}: keep one"
            )
        return table["id"].map(self._items(table) if self.config.groups else self._item)

    def _items(self, table: pd.DataFrame) -> Any:
        """Read the table of groups; an image that is not in it is its own group."""
        path = self.root() / self._place_of(self.config.groups)
        rows = self._read_csv(path, ("image", "group"), ("image", "group"))
        groups: dict[str, str] = {}
        found = self._found(Names(self.root(), self._walk.files), rows["image"])
        for line, ((name, _), group) in enumerate(zip(found, rows["group"], strict=True), start=2):
            if not group or groups.setdefault(name, group) != group:
                wrong = f"names '{name}' in two groups" if group else "has no group"
                raise UserError(f"dataset 'folder': '{path}' line {line} {wrong}: one group per image")
        strangers = sorted(set(groups) - set(table["id"]))
        if strangers:
            raise UserError(
                f"dataset 'folder': '{path}' names {listed(strangers)}, not an image of the dataset: remove it"
            )
        return lambda name: groups.get(name, name)

    def _item(self, name: str) -> str:
        text = name if "/" in self.config.group else PurePosixPath(name).name
        match = re.fullmatch(self.config.group, text)
        if not match:
            raise UserError(
                f"dataset 'folder': group '{self.config.group}' does not fit the whole of '{text}': change it"
            )
        return "_".join(part or "" for part in match.groups()) or match[0]
