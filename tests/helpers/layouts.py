"""Write tiny datasets in their official layouts: ``draw_<dataset name>(root)`` returns the settings."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pandas as pd
from PIL import Image


def noise_image(rng, height=40, width=32, mark=False, contrast=90):
    """Draw grey noise, with a rectangle brighter by ``contrast`` if ``mark``; return it and the rectangle's mask."""
    image = rng.normal(120, 12, (height, width))
    mask = np.zeros((height, width), bool)
    if mark:
        top, left = rng.integers(4, height - 14), rng.integers(4, width - 14)
        mask[top : top + 8, left : left + 8] = True
        image[mask] += contrast
    return np.clip(image, 0, 255).astype(np.uint8), mask


def save(array, path):
    """Write an image, H,W or H,W,3 uint8, or a mask, H,W bool."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array).save(path)


def rgb(image):
    return np.repeat(image[..., None], 3, axis=2)


def drawn(seed, **counts):
    """Yield folder, index, image and mask (None for normal images) of as many images as each folder should have."""
    rng = np.random.default_rng(seed)
    for folder, count in counts.items():
        defective = folder.rpartition("/")[2] not in ("good", "ok", "Normal")
        for index in range(count):
            image, mask = noise_image(rng, mark=defective)
            yield folder, index, image, mask if defective else None


def draw_folder(root, good=16, bad=8):
    for label, index, image, _ in drawn(0, good=good, scratch=bad, stain=bad):
        save(image, root / label / f"{index:03d}.png")
    return {"root": str(root)}


def draw_folder_csv(root):
    """A folder with a CSV that gives masks, split and groups of two images."""
    rows = []
    for label, index, image, mask in drawn(1, good=16, scratch=8):
        name = f"images/{label}_{index:03d}.png"
        save(image, root / name)
        mask_name = "" if mask is None else f"masks/{label}_{index:03d}.png"
        if mask_name:
            save(mask, root / mask_name)
        rows.append((name, label, mask_name, "test" if index % 4 >= 2 else "train", f"{label}{index // 2}"))
    pd.DataFrame(rows, columns=["image", "label", "mask", "split", "group"]).to_csv(root / "table.csv", index=False)
    return {"root": str(root), "csv": "table.csv"}


def draw_ksdd2(root, train=20, test=12, contrast=90):
    rng = np.random.default_rng(2)
    for split, first, count in (("train", 10000, train), ("test", 20000, test)):
        for index in range(count):
            image, mask = noise_image(rng, 63, 23, index % 3 == 0, contrast)
            save(rgb(image), root / split / f"{first + index}.png")
            save(mask, root / split / f"{first + index}_GT.png")
    save(rgb(image), root / "train" / "10301 (copy).png")
    save(mask.astype(np.uint8), root / "train" / "10301_GT (copy).png")
    return {"root": str(root)}


def draw_ksdd(root):
    """One folder per item; one image of each has a defect."""
    rng = np.random.default_rng(4)
    for item in range(1, 10):
        for part in range(4):
            image, mask = noise_image(rng, 63, 25, mark=part == item % 4)
            save(image, root / f"kos{item:02d}" / f"Part{part}.jpg")
            save(mask, root / f"kos{item:02d}" / f"Part{part}_label.bmp")
    return {"root": str(root)}


NEU_SHORT = {
    "crazing": "Cr",
    "inclusion": "In",
    "patches": "Pa",
    "pitted_surface": "PS",
    "rolled-in_scale": "RS",
    "scratches": "Sc",
}
NEU_NUMBERS = (1, 2, 3, 99, 100, 101, 105, 300)


def draw_neu(root, layout="det"):
    """A few images per class, in the layout "cls", "cls folders", "det" (the archive's), "kaggle" or "by class"."""
    rng = np.random.default_rng(5)
    for label, short in NEU_SHORT.items():
        for index, number in enumerate(NEU_NUMBERS):
            image, mask = noise_image(rng, mark=True)
            side = "validation" if index >= 6 else "train"
            name = f"{label}_{number}"
            paths = {
                "cls": (f"{short}_{number}.bmp", None),
                "cls folders": (f"{label}/{short}_{number}.bmp", None),
                "det": (f"IMAGES/{name}.jpg", f"ANNOTATIONS/{name}.xml"),
                "kaggle": (f"{side}/images/{label}/{name}.jpg", f"{side}/annotations/{name}.xml"),
                "by class": (f"images/{label}/{name}.jpg", f"annotations_voc/{name}.xml"),
            }
            image_path, boxes = paths[layout]
            save(image, root / image_path)
            if boxes:
                write_boxes(root / boxes, image.shape, [(label, box_of(mask)), ("other", (1, 1, 3, 3))])
    return {"root": str(root)}


def box_of(mask):
    """Left, top, right, bottom of the mask in pixels, counted from 1, inclusive."""
    ys, xs = np.nonzero(mask)
    return xs.min() + 1, ys.min() + 1, xs.max() + 1, ys.max() + 1


def write_boxes(path, shape, boxes):
    """Write a Pascal VOC annotation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for label, box in boxes
    )
    size = f"<size><width>{shape[1]}</width><height>{shape[0]}</height><depth>1</depth></size>"
    path.write_text(f"<annotation>{size}{objects}</annotation>")


def draw_mvtec(root):
    """MVTec AD with all images pooled: its official training split has no defect images."""
    draw_mvtec_ad(root)
    return {"root": str(root), "category": "bottle", "split": "folds"}


def draw_mvtec_ad(root):
    counts = {"train/good": 20, "test/good": 10, "test/broken": 8, "test/stain": 6}
    for folder, index, image, mask in drawn(6, **counts):
        save(rgb(image), root / "bottle" / folder / f"{index:03d}.png")
        if mask is not None:
            save(mask, root / "bottle/ground_truth" / folder.removeprefix("test/") / f"{index:03d}_mask.png")
    return {"root": str(root), "category": "bottle"}


def draw_btech(root):
    """Images in .bmp; masks of the same name in .png, two in .bmp."""
    for folder, index, image, mask in drawn(7, **{"train/ok": 12, "test/ok": 6, "test/ko": 5}):
        save(rgb(image), root / "01" / folder / f"{index:04d}.bmp")
        if mask is not None:
            save(mask, root / "01/ground_truth/ko" / f"{index:04d}.{'bmp' if index < 2 else 'png'}")
    return {"root": str(root), "category": "01"}


def draw_visa(root):
    """Mask values are small numbers, one per kind of defect; the split CSVs lie beside the category."""
    trained = {"1cls": (9, 0), "2cls_fewshot": (3, 2), "2cls_highshot": (7, 4)}  # normal, defect
    lines = {split: [] for split in trained}
    for folder, index, image, mask in drawn(8, Normal=12, Anomaly=6):
        name = f"candle/Data/Images/{folder}/{index:0{4 if folder == 'Normal' else 3}d}.JPG"
        save(rgb(image), root / name)
        mask_name = "" if mask is None else f"candle/Data/Masks/Anomaly/{index:03d}.png"
        if mask_name:
            save(mask.astype(np.uint8) * (index % 3 + 1), root / mask_name)
        for split, numbers in trained.items():
            side = "train" if index < numbers[folder == "Anomaly"] else "test"
            lines[split].append(("candle", side, folder.lower(), name, mask_name))
    (root / "split_csv").mkdir()
    for split, rows in lines.items():
        table = pd.DataFrame(rows, columns=["object", "split", "label", "image", "mask"])
        table.to_csv(root / "split_csv" / f"{split}.csv", index=False)
    return {"root": str(root), "category": "candle"}


def draw_magnetic_tile(root):
    """The first images of a few groups of each class, under their official names."""
    rng = np.random.default_rng(3)
    table = pd.read_csv(str(resources.files("augbench") / "assets" / "groups" / "magnetic_tile.csv"))
    for _folder, rows in table.groupby(table["image"].str.split("/").str[0]):
        for name in rows.groupby("group").head(2)["image"].head(24):
            image, mask = noise_image(rng, mark="MT_Free" not in name)
            save(image, root / name)
            save(mask, (root / name).with_suffix(".png"))
    return {"root": str(root)}


def draw_surfaces(root):
    """The embedded dataset needs no files, only small counts."""
    return {"train_good": 24, "train_defective": 8, "test_good": 12, "test_defective": 8}


def draw_elpv(root, cells=320):
    """Cells in blocks of 60, with every probability and both types."""
    rng = np.random.default_rng(9)
    lines = []
    for index in range(cells):
        probability = (0, 0, 0, 1, 0, 1, 1 / 3, 2 / 3)[index % 8]
        image, _ = noise_image(rng, 30, 30, mark=probability == 1)
        save(image, root / f"images/cell{index + 1:04d}.png")
        lines.append(f"images/cell{index + 1:04d}.png  {probability}  {'mono' if index < cells // 2 else 'poly'}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return {"root": str(root)}


def draw_pool(root, names, masks=None, size=(176, 64)):
    """Coloured images as a generator might leave them, of the size of `surfaces`, and masks of the files given."""
    rng = np.random.default_rng(len(names))
    for name in names:
        image, mask = noise_image(rng, *size, mark=True)
        save(rgb(image) + np.uint8([0, 3, 9]), root / name)
        if masks:
            save(mask, root / masks(name))
    return {"folder": str(root)}
