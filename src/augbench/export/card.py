"""The dataset card of an export: README.md with the YAML front matter that the Hugging Face Hub reads."""

from __future__ import annotations

import re
from typing import Any

import yaml

from augbench.export.samples import Source

LICENCES = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "cc0 1.0": "cc0-1.0",
    **{f"cc {kind} 4.0": f"cc-{kind}-4.0" for kind in ("by", "by-sa", "by-nc", "by-nc-sa", "by-nc-nd")},
}
"""Licence as datasets state it, in lower case -> its name on the Hub; all others are called "other" there."""

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))

LOADING = {
    "imagefolder": '`datasets.load_dataset("imagefolder", data_dir="THIS_FOLDER")`',
    "mvtec": "any reader of MVTec AD: this folder is a category",
    "coco": 'any reader of COCO: `torchvision.datasets.CocoDetection("train", "annotations/instances_train.json")`',
    "yolo": "Ultralytics YOLO, segmentation: `data.yaml`",
}
"""Layout -> what reads it."""

PLACE_OF_DEFECTS = {
    True: "The images are synthetic and for training. They lie in `test/`, since the layout has no place for training "
    "defects: do not evaluate on them. The normal images in `train/good/` are to be those of the dataset.",
    False: "Training defects lie in `train_defects/`, their masks in `train_defects_ground_truth/`, since the layout "
    "has no place for them.",
}


def card(source: Source, layout: str) -> str:
    """Return the dataset card of a source in a layout."""
    licence = LICENCES.get(source.licence.lower())
    front: dict[str, Any] = {
        "pretty_name": source.name,
        "license": licence or "other",
        **({} if licence else {"license_name": re.sub(r"[^a-z0-9]+", "-", source.licence.lower()).strip("-")}),
        "task_categories": ["image-classification", "image-segmentation"],
        "size_categories": [next((name for most, name in SIZES if source.images < most), "100K<n<1M")],
        "tags": ["surface-inspection", "augbench", *(["synthetic"] if source.is_synthetic else [])],
    }
    rows = [
        f"| {split} | {label} | {count} |" for split, labels in source.counts.items() for label, count in labels.items()
    ]
    licences = [f"- {what}: {text}" for what, text in source.provenance["licences"].items()]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {source.name}",
        "",
        source.about,
        "",
        f"Loaded by {LOADING[layout]}.",
        *(["", PLACE_OF_DEFECTS[source.is_synthetic]] if layout == "mvtec" else []),
        "",
        "| split | class | images |",
        "|---|---|---:|",
        *rows,
        "",
        "## Licences",
        *licences,
        "",
        *(
            ["Synthetic images are made from images of the dataset, so its licence holds for them."]
            * source.is_synthetic
        ),
        "Check that these licences let you pass the images on before you publish them.",
        "",
        *(["## Citation", source.citation, ""] if source.citation else []),
        "Where each image comes from: `provenance.json`"
        + (", and the columns of `metadata.jsonl`." if layout == "imagefolder" else "."),
        "",
    ]
    return "\n".join(lines)
