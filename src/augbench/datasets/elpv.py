"""ELPV: 2,624 electroluminescence images of solar cells, 300 x 300, grey, from 44 modules; no masks.

Buerhop-Lutz et al., "A benchmark for visual identification of defective solar cells in electroluminescence imagery", EU
PVSEC 2018; Deitsch et al., Solar Energy 185, 2019. Experts gave every cell a probability of a defect: 0, 1/3, 2/3 or 1.
The images come with the package `elpv-dataset`.

Which module a cell is from is not published. Files lie module by module, and near-copies lie close together (93 % of
them within 60 files), so a split by image leaks. A group is a block of 60 consecutive files here: a heuristic, not an
official list. There is no official split; the grouped folds are an axis of the grid.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from importlib import resources
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd
from pydantic import Field

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset, Settings
from augbench.core.errors import DatasetError, UserError
from augbench.core.images import read_bytes
from augbench.core.walk import Names, walk

PACKAGE = "elpv_dataset"
LABELS = "labels.csv"
BLOCK = 60  # consecutive files of a group
PUBLISHED = {"mono": (588, 117, 56, 313), "poly": (920, 178, 50, 402)}
"""Type of cell -> number of images with the probability 0, 1/3, 2/3 and 1."""
TOLERANCE = 0.01  # so that a setting of 0.67 means 2/3


class ELPV(Dataset):
    """Layout: ``labels.csv`` (path, probability, type, without heading) beside ``images/cell0001.png``, ...

    A defect image has the type of its solar cell as label: ``mono`` (monocrystalline) or ``poly`` (polycrystalline).
    Without a root the images of the installed package `elpv-dataset` are read.
    """

    title = "ELPV solar cells"
    licence = "CC BY-NC-SA 4.0"
    citation = (
        "Buerhop-Lutz et al.: A benchmark for visual identification of defective solar cells in electroluminescence "
        "imagery. EU PVSEC, 2018; Deitsch et al.: Automatic classification of defective photovoltaic module cells in "
        "electroluminescence images. Solar Energy 185, 455-468, 2019; Deitsch et al.: Segmentation of photovoltaic "
        "module cells in uncalibrated electroluminescence images. Machine Vision and Applications 32, 2021"
    )
    homepage = "https://github.com/zae-bayern/elpv-dataset"
    official_counts = {GOOD: 1508, "mono": 313, "poly": 402}  # of the default settings
    folds = 5

    class Config(Settings):
        """Settings of ELPV."""

        root: Path | None = Field(None, description="the folder with labels.csv; not part of any key")
        defective_from: float = Field(
            1.0, gt=0, le=1, description="the lowest probability of a defect from which a cell counts as defective"
        )
        between: Literal["left_out", "good"] = Field(
            "left_out", description="what becomes of cells above 0 and below that: left_out, or good (normal)"
        )
        groups: Literal["blocks", "images"] = Field(
            "blocks", description="blocks of 60 files; or images, each alone: this leaks, and is for comparison only"
        )

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        if self.config.root is None and find_spec(PACKAGE):
            self.config = self.config.model_copy(update={"root": Path(str(resources.files(PACKAGE) / "data"))})
        counts = Counter[str]()
        for kind, numbers in PUBLISHED.items():
            for third, number in enumerate(numbers):
                counts[self._label(third / 3, kind)] += number
        self.official_counts = {label: number for label, number in counts.items() if label}

    def root(self) -> Path:
        """Return the folder with `LABELS`. Raises UserError where there is none."""
        if self.config.root is None:
            raise UserError(
                "dataset 'elpv' has no root: pip install 'augbench[demo]' brings its images (91 MB), or "
                f"{self.where_to_put_it()} with labels.csv and images/"
            )
        return super().root()

    def samples(self) -> pd.DataFrame:
        """Return the sample table; ids are file stems, e.g. ``cell0001``."""
        return self._table

    @cached_property
    def _table(self) -> pd.DataFrame:
        path = self.root() / LABELS
        names = Names(self.root(), walk(self.root()).files)
        rows, problems = [], []
        for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines()):
            try:
                image, text, kind = line.split()
                probability = float(text)
                if not 0 <= probability <= 1 or kind not in PUBLISHED:
                    raise ValueError
                image = names.find(image)[1]
            except (ValueError, UserError):
                problems.append(
                    f"'{path}', line {number + 1}: '{line[:60]}' is not path, probability and type of a cell"
                )
                continue
            label, name = self._label(probability, kind), PurePosixPath(image).stem
            group = f"block{number // BLOCK:02d}" if self.config.groups == "blocks" else name
            if label:
                rows.append((name, image, "", label, "", group))
        table = pd.DataFrame(rows, columns=SAMPLE_COLUMNS).sort_values("id", ignore_index=True)
        if problems:
            raise DatasetError("elpv", problems, table)
        return table

    def tables(self) -> set[str]:
        """Name the table of labels."""
        return {LABELS}

    def reason(self, name: str) -> str:
        """Explain why an image is left out."""
        return "cells between normal and defective, or that labels.csv does not name"

    def _label(self, probability: float, kind: str) -> str:
        """Return the label of a cell; "" where it is left out."""
        if probability >= self.config.defective_from - TOLERANCE:
            return kind
        return GOOD if probability == 0 or self.config.between == "good" else ""
