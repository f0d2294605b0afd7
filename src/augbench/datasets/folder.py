"""Read your own images from class folders or a CSV file.

Class folders: ``ROOT/<class>/*.png``, split into grouped folds with each image its own group; or
``ROOT/train/<class>/...`` and ``ROOT/test/<class>/...``. The setting ``good`` names the class of normal images.

CSV (setting ``csv``, relative to the root): columns ``image`` and ``label``, and optionally ``mask``, ``split``
(train/test) and ``group``. Paths are relative to the root. Give ``group`` where several images show one physical item.
"""

from __future__ import annotations

import posixpath
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset
from augbench.core.errors import UserError
from augbench.core.images import SUFFIXES


class Folder(Dataset):
    """Layouts: ``<class>/*.png``; ``train/<class>/*.png`` with ``test/<class>/*.png``; or a CSV file that lists the
    images (setting ``csv``): columns ``image`` and ``label``, and optionally ``mask``, ``split`` and ``group``.
    """

    title = "a folder of images"
    licence = "yours"

    class Config(Dataset.Config):
        """Which files to read, and how to read them."""

        csv: str | None = Field(None, description="the table of the images, a path relative to the root")
        task: Literal["detection", "recognition"] = Field("detection", description="detection, or recognition")
        good: str = Field(GOOD, description="the label of normal images (no defect)")
        folds: int = Field(5, ge=2, description="number of folds, where the files come without a split")
        mask_threshold: int = Field(0, ge=0, le=254, description="mask values above it are defect pixels")

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

    @cached_property
    def _table(self) -> pd.DataFrame:
        table = self._from_csv() if self.config.csv else self._from_folders()
        labels = sorted(set(table["label"]))
        if self.config.task == "detection" and self.config.good not in labels:
            wrong = f"no class is called '{self.config.good}' (found: {', '.join(labels[:8])})"
            raise UserError(f"dataset 'folder': {wrong}: name the class of normal images with the setting good")
        table["label"] = table["label"].where(table["label"] != self.config.good, GOOD)
        return table[list(SAMPLE_COLUMNS)].sort_values("id", ignore_index=True)

    def _from_csv(self) -> pd.DataFrame:
        path = self._inside(self.config.csv)
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"dataset 'folder': '{path}' is not UTF-8: save it as UTF-8") from None
        except (OSError, ValueError) as error:
            raise UserError(f"dataset 'folder': '{path}' cannot be read as CSV: {error}") from None
        missing = {"image", "label"} - set(table.columns)
        unknown = set(table.columns) - {"image", "label", "mask", "split", "group"}
        if missing or unknown:
            wrong = f"lacks {sorted(missing)}" if missing else f"has unknown {sorted(unknown)}"
            names = "columns are image, label, mask, split, group, with commas between"
            raise UserError(f"dataset 'folder': '{path}' {wrong}: {names}")
        self._check_cells(path, table)
        for column in {"image", "mask"} & set(table.columns):
            table[column] = [posixpath.normpath(name) if name else "" for name in table[column]]
        if table["image"].duplicated().any():
            twice = table["image"][table["image"].duplicated()].iloc[0]
            raise UserError(f"dataset 'folder': '{path}' names '{twice}' twice: one row per image")
        for column in {"mask", "split", "group"} - set(table.columns):
            table[column] = ""
        return table.assign(id=table["image"], group=table["group"].where(table["group"] != "", table["image"]))

    def _check_cells(self, path: Path, table: pd.DataFrame) -> None:
        """Refuse rows without image or label, blanks around values, and paths outside the root."""
        for number, row in enumerate(table.to_dict("records"), start=2):  # the header is line 1
            for column in ("image", "label"):
                if not row[column]:
                    raise UserError(f"dataset 'folder': '{path}' line {number} has no {column}")
            for column, value in row.items():
                if value != value.strip():
                    raise UserError(f"dataset 'folder': '{path}' line {number}: blanks around {column} '{value}'")
            for name in (row["image"], row.get("mask", "")):
                self._inside(name)
        spellings = table["label"].groupby(table["label"].str.lower()).unique()
        for names in spellings[spellings.map(len) > 1]:
            raise UserError(f"dataset 'folder': '{path}' spells one class in several ways: {', '.join(names)}")

    def _from_folders(self) -> pd.DataFrame:
        root = self.root()
        split = (root / "train").is_dir() and (root / "test").is_dir()
        rows = []
        for side in ("train", "test") if split else ("",):
            for folder in sorted(path for path in (root / side).iterdir() if path.is_dir() and path.name[0] != "."):
                files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
                names = sorted(path.relative_to(root).as_posix() for path in files)
                rows += [(name, name, "", folder.name, side, name) for name in names]
        if not rows:
            raise UserError(f"dataset 'folder': no class folders with images in '{root}' (<class>/*.png)")
        return pd.DataFrame(rows, columns=SAMPLE_COLUMNS)

    def _inside(self, name: str) -> Path:
        """Resolve a path of the table; it must not leave the root."""
        path = (self.root() / name).resolve()
        if not path.is_relative_to(self.root().resolve()):
            raise UserError(f"dataset 'folder': '{name}' leaves the root '{self.root()}': use paths inside it")
        return path
