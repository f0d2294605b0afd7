"""Procedural surfaces with rare defects, the dataset that needs no download. Mechanics, not evidence.

Portrait pictures of 64 x 176 pixels (W x H, the aspect of KSDD2) of six materials, five kinds of defect from obvious to
barely visible, pixel masks, and harmless blemishes on good and defective pieces alike, so that "anything unusual is a
defect" is a poor rule. Some pieces were photographed twice under different light; both exposures share a group.

Every picture is rendered on demand from its own derived seed: raising a count adds pictures and changes none.
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
"""Raised with every change that alters a pixel: published numbers of an older version are then no longer compared."""

HEIGHT, WIDTH = 176, 64
BLOCK, ITEMS_PER_BLOCK = 10, 9  # of ten consecutive pictures the last two show the same piece


class Surfaces(Dataset):
    """Procedural surfaces: 176,64,3 uint8 pictures of six materials, defects of five classes with masks."""

    title = "procedural surfaces (embedded)"
    licence = "Apache-2.0"
    embedded = True
    folds = 0

    class Config(Dataset.Config):
        """How many pictures of each kind, and which world they come from; ``root`` is not used."""

        train_good: int = Field(400, ge=1, le=100_000, description="good training pictures")
        train_defective: int = Field(40, ge=0, le=100_000, description="defective training pictures")
        test_good: int = Field(200, ge=1, le=100_000, description="good test pictures")
        test_defective: int = Field(60, ge=1, le=100_000, description="defective test pictures")
        seed: int = Field(0, ge=0, description="which world they come from")

    config: Config

    def samples(self) -> pd.DataFrame:
        """The table that `Dataset.samples` describes. Its ``image`` and ``mask`` are names, not files."""
        rows = []
        for split in ("train", "test"):
            rows += [_row(split, "good", i) for i in range(getattr(self.config, f"{split}_good"))]
            rows += [_row(split, "defective", i) for i in range(getattr(self.config, f"{split}_defective"))]
        return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS)).sort_values("id", ignore_index=True)

    def read_image(self, sample: Mapping[str, str]) -> np.ndarray:
        """The rendered picture: 176,64,3 uint8, RGB."""
        return _render(self.config.seed, sample["group"], sample["id"], sample["label"])[0].copy()

    def read_mask(self, sample: Mapping[str, str]) -> np.ndarray:
        """Where the defect is: 176,64 bool. All False for a good sample, never None: here the truth is known."""
        return _render(self.config.seed, sample["group"], sample["id"], sample["label"])[1].copy()

    def files(self) -> list[Path]:
        """None: there are no files."""
        return []

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the recipe version and the settings that are part of keys; nothing is rendered."""
        content = json.dumps([RECIPE_VERSION, self.key_settings()], sort_keys=True)
        return hashlib.sha256(f"surfaces {content}".encode()).hexdigest()


def _row(split: str, kind: str, index: int) -> tuple[str, str, str, str, str, str]:
    """One row of the table. Classes take turns over the pieces, so every few-shot draw can hold several."""
    item = index // BLOCK * ITEMS_PER_BLOCK + min(index % BLOCK, ITEMS_PER_BLOCK - 1)
    label = GOOD if kind == "good" else list(DEFECTS)[item % len(DEFECTS)]
    name = f"{split}-{label}-{index:05d}"
    mask = "" if label == GOOD else f"{name}_mask.png"
    return name, f"{name}.png", mask, label, split, f"{split}-{kind}-item-{item:05d}"


@lru_cache(maxsize=256)  # an image and its mask are often read one after the other; about 45 kB each
def _render(seed: int, group: str, sample_id: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Picture (176,64,3 uint8) and mask (176,64 bool) of one sample: the piece by its group, the light by its id."""
    piece, exposure = rng("surfaces-piece", seed, group), rng("surfaces-exposure", seed, sample_id)
    surface = make_surface(piece, (HEIGHT, WIDTH))
    mask = np.zeros((HEIGHT, WIDTH), bool) if label == GOOD else add_defect(piece, surface, label)
    return photograph(exposure, surface), mask
