"""Write images as a folder that other tools read: Hugging Face ImageFolder, MVTec AD, COCO or YOLO."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from augbench.core.contracts import GOOD
from augbench.core.errors import UserError, listed
from augbench.export.card import card
from augbench.export.samples import TEST, TRAIN, Sample, Source
from augbench.export.whole_folder import whole_folder
from augbench.storage.store import json_bytes, json_lines


def export_images(source: Source, layout: str, out: Path) -> list[str]:
    """Write a source in one of `LAYOUTS` into a new folder, with a dataset card and its provenance.

    Returns:
        What was written, one sentence each.

    Raises:
        UserError: an image cannot be read, ``out`` is not empty, or the layout needs masks that are not there.
    """
    left_out: list[tuple[str, str, str]] = []
    if layout == "mvtec":
        _refuse_as_folders(source)
    with whole_folder(out) as folder:
        samples = _with_outline(source.samples(), left_out) if layout in OUTLINED else source.samples()
        LAYOUTS[layout](source, samples, folder)
        kept = source.without(left_out)
        if left_out and not any(labels[name] for labels in kept.counts.values() for name in labels if name != GOOD):
            raise UserError(
                f"'{source.name}' has no masks, and without them {layout} would call its defects normal: give "
                "--format imagefolder or mvtec"
            )
        missing = {"left_out": [name for name, _, _ in left_out]} if left_out else {}
        (folder / "provenance.json").write_bytes(json_bytes({**source.provenance, **missing}))
        (folder / "README.md").write_text(card(kept, layout), encoding="utf-8")
    counts = "; ".join(
        f"{split}: {', '.join(f'{label} {count}' for label, count in labels.items())}"
        for split, labels in kept.counts.items()
    )
    lines = [f"written to {out}: {kept.images} images ({counts}), licence {kept.licence}"]
    if left_out:
        lines.append(f"left out, as they show a defect that has no mask: {listed(missing['left_out'])}")
    return lines


def _refuse_as_folders(source: Source) -> None:
    """Refuse classes that cannot be names of folders: the labels of a table may be anything."""
    for label in sorted({label for labels in source.counts.values() for label in labels}):
        if label in (".", "..") or not label.isprintable() or set(label) & set("/\\"):
            raise UserError(
                f"'{source.name}' has the class '{label}', which cannot name a folder: give another --format"
            )


def _with_outline(samples: Iterator[Sample], left_out: list[tuple[str, str, str]]) -> Iterator[Sample]:
    """Yield normal images, and defect images with a mask; append name, split and label of the others to a list."""
    for sample in samples:
        if sample.label == GOOD or (sample.mask is not None and sample.mask.any()):
            yield sample
        else:
            left_out.append((sample.name, sample.split, sample.label))


# -- layouts


def _imagefolder(source: Source, samples: Iterable[Sample], folder: Path) -> None:
    """``SPLIT/images/``, ``SPLIT/masks/`` and ``SPLIT/metadata.jsonl``, as `datasets` loads them."""
    lines: dict[str, list[dict[str, Any]]] = {split: [] for split in source.counts}
    for sample in samples:
        _write_png(folder / sample.split / "images" / f"{sample.name}.png", sample.image)
        line = {**_plain(sample.about), "file_name": f"images/{sample.name}.png", "label": sample.label}
        line["mask_file_name"] = None
        if sample.mask is not None:
            line["mask_file_name"] = f"masks/{sample.name}.png"
            _write_png(folder / sample.split / line["mask_file_name"], _grey(sample.mask))
        lines[sample.split].append(line)
    for split, written in lines.items():
        if all(line["mask_file_name"] is None for line in written):  # a column of nothing is not one of images
            for line in written:
                del line["mask_file_name"]
        (folder / split / "metadata.jsonl").write_bytes(json_lines(written))


def _mvtec(source: Source, samples: Iterable[Sample], folder: Path) -> None:
    """``train/good``, ``test/LABEL`` and ``ground_truth/LABEL/NAME_mask.png``.

    The layout has no place for training defects. Those of a dataset are beside it, in ``train_defects/LABEL`` and
    ``train_defects_ground_truth/LABEL``, where its readers do not look; those of a pool, which holds nothing else, are
    in ``test``.
    """
    (folder / TRAIN / GOOD).mkdir(parents=True)  # its readers look for this folder, although a pool has no normal image
    for sample in samples:
        usual = sample.label == GOOD or sample.split == TEST or source.is_synthetic
        split = TEST if source.is_synthetic else sample.split
        images, masks = (split, "ground_truth") if usual else ("train_defects", "train_defects_ground_truth")
        _write_png(folder / images / sample.label / f"{sample.name}.png", sample.image)
        if sample.mask is not None:
            _write_png(folder / masks / sample.label / f"{sample.name}_mask.png", _grey(sample.mask))


def _coco(source: Source, samples: Iterable[Sample], folder: Path) -> None:
    """``SPLIT/`` with images, and ``annotations/instances_SPLIT.json`` with one annotation for each region."""
    numbers = {name: number for number, name in enumerate(source.classes, start=1)}
    files: dict[str, dict[str, list[Any]]] = {split: {"images": [], "annotations": []} for split in source.counts}
    count: Counter[str] = Counter()
    for number, sample in enumerate(samples, start=1):
        _write_png(folder / sample.split / f"{sample.name}.png", sample.image)
        height, width = sample.image.shape[:2]
        image = {"id": number, "file_name": f"{sample.name}.png", "width": width, "height": height, "license": 1}
        files[sample.split]["images"].append(image)
        for outline in outlines(sample.mask):
            count["annotations"] += 1
            (left, top), (right, bottom) = outline.min(0).tolist(), outline.max(0).tolist()
            files[sample.split]["annotations"].append(
                {
                    "id": count["annotations"],
                    "image_id": number,
                    "category_id": numbers[sample.label],
                    "segmentation": [outline.ravel().tolist()],
                    "area": _area(outline),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )
    common = {
        "info": {"description": source.about},
        "licenses": [{"id": 1, "name": source.licence, "url": ""}],
        "categories": [{"id": number, "name": name, "supercategory": "defect"} for name, number in numbers.items()],
    }
    (folder / "annotations").mkdir()
    for split, lists in files.items():
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(common | lists), encoding="utf-8")


def _yolo(source: Source, samples: Iterable[Sample], folder: Path) -> None:
    """``images/SPLIT``, ``labels/SPLIT`` with one outline a line (segmentation), and ``data.yaml``; test is `val`."""
    numbers = {name: number for number, name in enumerate(source.classes)}
    for sample in samples:
        _write_png(folder / "images" / sample.split / f"{sample.name}.png", sample.image)
        size = np.array(sample.image.shape[1::-1])
        lines = [
            f"{numbers[sample.label]} {' '.join(f'{value:.6f}' for value in (outline / size).ravel())}\n"
            for outline in outlines(sample.mask)
        ]
        path = folder / "labels" / sample.split / f"{sample.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    splits = {{TRAIN: "train", TEST: "val"}[split]: f"images/{split}" for split in source.counts}
    names = {number: name for name, number in numbers.items()}
    text = yaml.safe_dump({"path": ".", **splits, "names": names}, sort_keys=False)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


LAYOUTS: dict[str, Callable[[Source, Iterable[Sample], Path], None]] = {
    "imagefolder": _imagefolder,
    "mvtec": _mvtec,
    "coco": _coco,
    "yolo": _yolo,
}
"""Name of a layout -> its writer."""

OUTLINED = ("coco", "yolo")
"""Layouts that say what is a defect by its outline alone: an image without one is normal."""


# -- parts


def outlines(mask: np.ndarray | None) -> list[np.ndarray]:
    """Return the outer outline of each connected region of a mask, H,W bool: K,2 int32 of x, y on borders of pixels.

    Holes are filled, as polygons have none. OpenCV joins the centres of pixels, by which a line of one pixel would have
    no area: so the mask is traced at twice its size, and its coordinates are rounded outwards.
    """
    import cv2

    if mask is None:
        return []
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(contour[:, 0] + 1) // 2 for contour in found]


def _area(outline: np.ndarray) -> float:
    import cv2

    return float(cv2.contourArea(outline.astype(np.int32)))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return JSON values of which `datasets` makes columns: what is nested becomes text."""
    return {k: json.dumps(v, sort_keys=True) if isinstance(v, (dict, list)) else v for k, v in values.items()}


def _grey(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * 255


def _write_png(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "PNG", compress_level=3)
