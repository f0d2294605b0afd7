"""Tiny datasets drawn on disk in their official layouts: ``draw_<dataset name>(root)``."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pandas as pd
from PIL import Image

FOLDER_CLASSES = ("good", "scratch", "stain")


def picture(rng, height=40, width=32, mark=False):
    """A grey noise picture, with a bright rectangle if ``mark``; and the rectangle's mask."""
    image = rng.normal(120, 12, (height, width))
    mask = np.zeros((height, width), bool)
    if mark:
        top, left = rng.integers(4, height - 14), rng.integers(4, width - 14)
        mask[top : top + 8, left : left + 8] = True
        image[mask] += 90
    return np.clip(image, 0, 255).astype(np.uint8), mask


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def draw_folder(root, good=16, bad=8):
    rng = np.random.default_rng(0)
    for label in FOLDER_CLASSES:
        for index in range(good if label == "good" else bad):
            save(picture(rng, mark=label != "good")[0], root / label / f"{index:03d}.png")
    return {"root": str(root)}


def draw_folder_csv(root, good=16, bad=8):
    """The same with a CSV that gives masks, split and groups of two."""
    rng = np.random.default_rng(1)
    rows = []
    for label in ("good", "scratch"):
        for index in range(good if label == "good" else bad):
            image, mask = picture(rng, mark=label != "good")
            name = f"pictures/{label}_{index:03d}.png"
            save(image, root / name)
            mask_name = f"masks/{label}_{index:03d}.png" if label != "good" else ""
            if mask_name:
                save(mask.astype(np.uint8) * 255, root / mask_name)
            split = "test" if index % 4 >= 2 else "train"
            rows.append((name, label, mask_name, split, f"{label}{index // 2}"))
    pd.DataFrame(rows, columns=["image", "label", "mask", "split", "group"]).to_csv(root / "table.csv", index=False)
    return {"root": str(root), "csv": "table.csv"}


def draw_ksdd2(root):
    rng = np.random.default_rng(2)
    for split, first, count in (("train", 10000, 20), ("test", 20000, 12)):
        for index in range(count):
            image, mask = picture(rng, 63, 23, mark=index % 3 == 0)
            rgb = np.repeat(image[..., None], 3, axis=2)
            save(rgb, root / split / f"{first + index}.png")
            save(mask.astype(np.uint8) * 255, root / split / f"{first + index}_GT.png")
    save(rgb, root / "train" / "10301 (copy).png")
    save(mask.astype(np.uint8), root / "train" / "10301_GT (copy).png")
    return {"root": str(root)}


def draw_magnetic_tile(root):
    """The first pictures of a few groups of each class, under their official names."""
    rng = np.random.default_rng(3)
    table = pd.read_csv(str(resources.files("augbench") / "assets" / "groups" / "magnetic_tile.csv"))
    for _folder, rows in table.groupby(table["image"].str.split("/").str[0]):
        for name in rows.groupby("group").head(2)["image"].head(24):
            image, mask = picture(rng, mark="MT_Free" not in name)
            save(image, root / name)
            save(mask.astype(np.uint8) * 255, (root / name).with_suffix(".png"))
    return {"root": str(root)}


def draw_surfaces(root):
    """Embedded: nothing to draw, only small numbers."""
    return {"train_good": 24, "train_defective": 8, "test_good": 12, "test_defective": 8}
