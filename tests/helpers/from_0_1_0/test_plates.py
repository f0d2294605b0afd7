"""Tests of plates: those that every dataset inherits, on a tiny one that is drawn in its layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from augbench.core import plugins
from augbench.core.contracts import Dataset
from augbench.testing import DatasetContract
from PIL import Image

plugins.load_file(Path(__file__).with_name("plates.py"))
COUNTS = {"train/good": 20, "train/scratch": 8, "test/good": 8, "test/scratch": 6}


def draw(root: Path) -> None:
    """Grey noise, with a brighter rectangle where it is defective; two pictures of each plate."""
    rng = np.random.default_rng(0)
    for folder, count in COUNTS.items():
        for index in range(count):
            image, mask = rng.normal(120, 10, (48, 32)), np.zeros((48, 32), bool)
            name = f"{folder}/{folder.replace('/', '')}{index // 2}_{index % 2}.png"
            if not folder.endswith("good"):
                mask[10 + index : 18 + index, 8:20] = True
                image[mask] += 80
                _save(mask * 255, root / "masks" / name)
            _save(image.clip(0, 255), root / name)


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


class TestPlates(DatasetContract):
    """What every dataset must keep."""

    plugin = "plates"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, Any]:
        """The settings of the tiny one."""
        draw(tmp_path)
        return {"root": str(tmp_path)}

    def test_it_finds_every_picture(self, dataset: Dataset) -> None:
        """No picture is left out, and each defective one has its mask."""
        table = dataset.samples()
        found = table["image"].str.rpartition("/")[0].value_counts().to_dict()
        assert found == COUNTS
        assert (table.loc[table["label"] == "scratch", "mask"] != "").all()
