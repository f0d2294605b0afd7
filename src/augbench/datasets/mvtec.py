"""One category of MVTec AD, BTech or VisA, or of any dataset in one of their layouts; with pixel masks.

MVTec AD: Bergmann, Fauser, Sattlegger, Steger, CVPR 2019 and IJCV 129, 2021. BTech: Mishra, Verk, Fornasier,
Piciarelli, Foresti, "VT-ADL", IEEE ISIE 2021. VisA: Zou, Jeong, Pemula, Zhang, Dabeer, ECCV 2022.

Their official training splits hold normal images only (except VisA's 2cls splits), so only zero-shot runs on them;
``split: folds`` pools all images into five folds instead. The archives name no items: each image is its own group.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd
from pydantic import Field, field_validator

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset
from augbench.core.errors import UserError, did_you_mean
from augbench.core.mask_files import masks_among, refuse, two_masks
from augbench.core.walk import Names, Walk, walk
from augbench.datasets._mvtec_counts import official_counts
from augbench.datasets._tables import read_table

DEFECT = "defect"  # the label where the archive has no defect classes (BTech, VisA)
VISA_SPLITS = {"official": "1cls.csv", "2cls_fewshot": "2cls_fewshot.csv", "2cls_highshot": "2cls_highshot.csv"}

Row = tuple[str, str, str, str, str, str]  # the values of SAMPLE_COLUMNS


class MVTec(Dataset):
    """Layouts, recognised by the folders that exist:

    - MVTec AD: ``<category>/train/good``, ``test/good``, ``test/<defect>``, ``ground_truth/<defect>/000_mask.png``
    - BTech: ``<category>/train/ok``, ``test/ok``, ``test/ko``, ``ground_truth/ko`` with masks of the same name
    - VisA: ``<category>/Data/Images/Normal``, ``Data/Images/Anomaly``, ``Data/Masks/Anomaly``, and ``split_csv/``
      beside the categories (as in its repository) for the splits it comes with
    """

    title = "MVTec AD, BTech, VisA"
    licence = "MVTec AD: CC BY-NC-SA 4.0; BTech: CC BY-SA; VisA: CC BY 4.0"
    citation = (
        "Bergmann et al.: The MVTec anomaly detection dataset. IJCV 129, 1038-1059, 2021; Mishra et al.: VT-ADL. IEEE "
        "ISIE, 2021 (BTech); Zou et al.: SPot-the-difference self-supervised pre-training for anomaly detection and "
        "segmentation. ECCV 2022 (VisA)"
    )
    homepage = (
        "https://www.mvtec.com/company/research/datasets/mvtec-ad, https://avires.dimi.uniud.it/papers/btad/btad.zip "
        "or https://github.com/amazon-science/spot-diff"
    )

    class Config(Dataset.Config):
        """Which images to use, and how to split them."""

        category: str = Field(
            "",
            pattern=r"^[A-Za-z0-9_-]*$",
            description="a folder below the root, such as bottle; empty where the root is the category's folder itself "
            "(then no official counts are compared)",
        )
        split: Literal["official", "folds", "2cls_fewshot", "2cls_highshot"] = Field(
            "official",
            description="official, as in the archive (VisA: 1cls); folds, five of all images; or one of VisA's "
            "2cls_fewshot and 2cls_highshot",
        )

        @field_validator("category", mode="before")
        @classmethod
        def _number(cls, value: Any) -> Any:
            """YAML reads BTech's 01 as the number 1."""
            return f"{value:02d}" if type(value) is int else value

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self.folds = 5 if self.config.split == "folds" else 0
        self.official_counts = official_counts(self.config.category, self.config.split)

    def samples(self) -> pd.DataFrame:
        """Return the sample table; ids are paths below the category without suffix, e.g. ``test/crack/000``."""
        return self._table

    def home(self) -> Path:
        """Return the category's folder.

        Raises:
            UserError: the root has no folder of that name.
        """
        root, category = self.root(), self.config.category
        if category and not (root / category).is_dir():
            found = [path.name for path in root.iterdir() if path.is_dir()]
            raise UserError(f"dataset 'mvtec': no folder '{category}' in '{root}'{did_you_mean(category, found)}")
        return root / category

    @cached_property
    def _table(self) -> pd.DataFrame:
        home, split = self.home(), self.config.split
        found = walk(home)
        if (home / "Data" / "Images").is_dir():
            rows = self._visa(home, found)
        elif (home / "train").is_dir() and (home / "test").is_dir():
            if split.startswith("2cls"):
                raise UserError(f"dataset 'mvtec': split '{split}' is one of VisA's, '{home}' has another layout")
            rows = self._folders(home, found)
        else:
            fix = "set category to one of its folders" if not self.config.category else "see augbench datasets show"
            raise UserError(f"dataset 'mvtec': '{home}' holds neither train/ and test/ nor Data/Images/: {fix}")
        table = pd.DataFrame(rows, columns=SAMPLE_COLUMNS).sort_values("id", ignore_index=True)
        masks = masks_among(self.root(), table["image"])
        if masks:
            raise refuse("mvtec", masks, "and masks lie in another folder in this layout")
        return table.assign(split="") if split == "folds" else table

    def _row(self, image: str, mask: str | None, label: str, split: str, below: str) -> Row:
        """Make a table row of paths below the category; the id is the image's path below ``below``, without suffix."""
        name = image.removeprefix(below).removesuffix(PurePosixPath(image).suffix)
        category = f"{self.config.category}/" if self.config.category else ""
        return name, category + image, category + mask if mask else "", label, split, name

    def _folders(self, home: Path, found: Walk) -> list[Row]:
        """List the samples of MVTec AD or BTech. BTech calls normal images ok and its one defect class ko."""
        names = {"ok": GOOD, "ko": DEFECT} if "train/ok" in found.folders else {}
        rows = []
        for folder in found.folders:
            split, _, folder_name = folder.partition("/")
            if split not in ("train", "test") or not folder_name or "/" in folder_name:
                continue
            label = names.get(folder_name, folder_name)
            mask_of = _masks(found, f"ground_truth/{folder_name}", "_mask.png" if not names else ".png")
            for image in _images(found, folder):
                rows.append(self._row(image, None if label == GOOD else mask_of(image), label, split, ""))
        if not any(row[3] == GOOD for row in rows):
            raise UserError(f"dataset 'mvtec': no normal images in '{home}' (train/good/*.png or train/ok/*.bmp)")
        return rows

    def _visa(self, home: Path, found: Walk) -> list[Row]:
        images, mask_of = "Data/Images/", _masks(found, "Data/Masks/Anomaly", ".png")
        if self.config.split == "folds":
            sides = dict.fromkeys([*_images(found, images + "Normal"), *_images(found, images + "Anomaly")], "")
        else:  # also what is listed but missing: reading it raises an error
            names = Names(home, found.files)
            sides = {names.find(name)[1]: side for name, side in self._visa_sides(home).items()}
        rows = []
        for image, side in sides.items():
            label, mask = (DEFECT, mask_of(image)) if image.startswith(f"{images}Anomaly/") else (GOOD, None)
            rows.append(self._row(image, mask, label, side, images))
        return rows

    def _visa_sides(self, home: Path) -> dict[str, str]:
        """Read the split's CSV: image path relative to the category -> train or test."""
        file = VISA_SPLITS[self.config.split]
        path = home.resolve().parent / "split_csv" / file
        try:
            table = read_table(path)[["object", "split", "image"]]
        except FileNotFoundError:
            fix = "copy it from the archive, or set split: folds"
            raise UserError(f"dataset 'mvtec': '{path}' is missing: {fix}") from None
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"dataset 'mvtec': '{path}' cannot be read ({error}): restore it") from None
        category = home.resolve().name
        rows = table[table["object"] == category]
        pattern = re.compile(rf"{re.escape(category)}/(Data/Images/(?:Normal|Anomaly)/[^/]+)")
        sides = {}
        for image, side in zip(rows["image"], rows["split"], strict=True):
            match = pattern.fullmatch(image.replace("\\", "/"))
            if not match:
                raise UserError(f"dataset 'mvtec': '{path}' names '{image}', which is no image of '{category}'")
            sides[match[1]] = side
        if not sides:
            raise UserError(f"dataset 'mvtec': '{path}' names no images of '{category}': set split: folds")
        return sides


def _images(found: Walk, folder: str) -> list[str]:
    """List the images in a folder, not below it."""
    return [name for name in found.images() if name.rpartition("/")[0] == folder]


def _masks(found: Walk, folder: str, ending: str) -> Callable[[str], str | None]:
    """Return a function from images of a defect class to their masks; it returns None where the dataset has no masks.

    Masks are called ``000_mask.png`` or ``000.png``, with the suffix of any image format. One that does not exist has
    the ``ending``, for error messages. The function raises UserError where an image has two.
    """
    if folder.rpartition("/")[0] not in found.folders:
        return lambda image: None
    names: dict[str, list[str]] = defaultdict(list)
    for name in _images(found, folder):
        names[PurePosixPath(name).stem.removesuffix("_mask")].append(name)

    def mask_of(image: str) -> str:
        stem = PurePosixPath(image).stem
        first, *others = names.get(stem, [f"{folder}/{stem}{ending}"])
        if others:
            raise two_masks(image, first, others[0])
        return first

    return mask_of
