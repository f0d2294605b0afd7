"""Procedural surfaces with rare defects; needs no download. Smoke-test data: not evidence.

Portrait images of 64 x 176 pixels (W x H, the aspect of KSDD2) of six materials, with five defect classes from obvious
to barely visible, and pixel masks. Items with and without a defect have harmless blemishes, so that "anything unusual
is a defect" is a poor rule. Some items have two exposures under different light, which share a group.

Every image is rendered on demand from its own derived seed: a larger count adds images and changes none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset
from augbench.core.seeds import rng
from augbench.datasets._surface_defects import DEFECTS, add_defect
from augbench.datasets._surface_materials import make_surface, photograph

RECIPE_VERSION = 2
"""Raise it with every change that alters a pixel; the fingerprint follows, so older results are no longer compared."""

HEIGHT, WIDTH = 176, 64
BLOCK, ITEMS_PER_BLOCK = 10, 9  # of ten consecutive images the last two show the same item


class Surfaces(Dataset):
    """Procedural surfaces: 176,64,3 uint8 images of six materials, defects of five classes with masks."""

    title = "procedural surfaces (embedded)"
    licence = "Apache-2.0"
    embedded = True
    folds = 0

    class Config(Dataset.Config):
        """Number of images of each kind, and the random seed; ``root`` is not used."""

        train_good: int = Field(400, ge=1, le=100_000, description="normal training images")
        train_defective: int = Field(40, ge=0, le=100_000, description="training images with a defect")
        test_good: int = Field(200, ge=1, le=100_000, description="normal test images")
        test_defective: int = Field(60, ge=1, le=100_000, description="test images with a defect")
        seed: int = Field(0, ge=0, description="random seed of all images")

    config: Config

    def samples(self) -> pd.DataFrame:
        """Return the sample table. Its ``image`` and ``mask`` are names, not files."""
        parts = [(split, kind) for split in ("train", "test") for kind in ("good", "defective")]
        rows = [_row(*part, i) for part in parts for i in range(getattr(self.config, "_".join(part)))]
        return pd.DataFrame(rows, columns=SAMPLE_COLUMNS).sort_values("id", ignore_index=True)

    def read_image(self, sample: Mapping[str, str]) -> np.ndarray:
        """Render the image of one row: 176,64,3 uint8, RGB."""
        return _render(self.config.seed, sample["group"], sample["id"], sample["label"])[0].copy()

    def read_mask(self, sample: Mapping[str, str]) -> np.ndarray:
        """Render the mask of one row: 176,64 bool, all False for a normal sample, never None."""
        return _render(self.config.seed, sample["group"], sample["id"], sample["label"])[1].copy()

    def files(self) -> list[Path]:
        """Return an empty list: images are rendered, not stored."""
        return []

    def fingerprint(self) -> str:
        """Return SHA-256 (hex) over the recipe version and the key settings; renders nothing."""
        content = json.dumps([RECIPE_VERSION, self.key_settings()], sort_keys=True)
        return hashlib.sha256(f"surfaces {content}".encode()).hexdigest()


def _row(split: str, kind: str, index: int) -> tuple[str, str, str, str, str, str]:
    """Make one table row. Defect classes alternate over the items, so a few-shot draw can hold several."""
    item = index // BLOCK * ITEMS_PER_BLOCK + min(index % BLOCK, ITEMS_PER_BLOCK - 1)
    label = GOOD if kind == "good" else list(DEFECTS)[item % len(DEFECTS)]
    name = f"{split}-{label}-{index:05d}"
    mask = "" if label == GOOD else f"{name}_mask.png"
    return name, f"{name}.png", mask, label, split, f"{split}-{kind}-item-{item:05d}"


@lru_cache(maxsize=256)  # an image and its mask are often read one after the other; about 45 kB each
def _render(seed: int, group: str, sample_id: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Render image (176,64,3 uint8) and mask (176,64 bool): the item by its group, the exposure by its id."""
    item, exposure = rng("surfaces-piece", seed, group), rng("surfaces-exposure", seed, sample_id)
    surface = make_surface(item, (HEIGHT, WIDTH))
    mask = np.zeros((HEIGHT, WIDTH), bool) if label == GOOD else add_defect(item, surface, label)
    return photograph(exposure, surface), mask
