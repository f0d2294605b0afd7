"""NEU surface defects: 1,800 grey images of hot-rolled steel, 200 x 200, six defect classes of 300, no normal images.

Song, Yan, "A noise robust method based on completed local binary patterns for hot-rolled steel strip surface defects",
Applied Surface Science 285, 2013 (NEU-CLS). Boxes: He, Song, Meng, Yan, "An end-to-end steel surface defect detection
approach via fusing multiple hierarchical features", IEEE TIM 69(4), 2020 (NEU-DET). The task is recognition
(classification of the defect). The archives name no items, so each image is its own group; NEU-CLS has no official
split.

Boxes serve as coarse masks. 188 of the 4,189 boxes, in 123 files, have another class than their file (71 `inclusion`
in `scratches`, 55 `patches` in `pitted_surface`, 52 `inclusion` in `patches`, ten others). A mask marks the defect
*of the label*, so it uses only the boxes of the file's own class; every file has at least one.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
import pandas as pd

from augbench.core.contracts import SAMPLE_COLUMNS, Dataset
from augbench.core.errors import DatasetError, UserError
from augbench.core.walk import walk

SHORT = {
    "Cr": "crazing",
    "In": "inclusion",
    "Pa": "patches",
    "PS": "pitted_surface",
    "RS": "rolled-in_scale",
    "Sc": "scratches",
}
NAME = re.compile(rf"({'|'.join([*SHORT, *SHORT.values()])})_([0-9]+)")  # Cr_1, crazing_1
DUPLICATES = {"patches_105": "patches_101"}  # pixel-identical: the first joins the group of the second
MAX_SIDE = 10_000  # pixels; a larger side in an annotation is a mistake


class NEU(Dataset):
    """Layouts: NEU-CLS (``Cr_1.bmp``, ``In_1.bmp``, ...), or NEU-DET (``crazing_1.jpg`` and ``crazing_1.xml``).

    Images and annotations are found by their official names in any folder below the root. So ``IMAGES/`` with
    ``ANNOTATIONS/`` (the archive), class folders, and ``train/`` with ``validation/`` all give the same table.
    """

    title = "NEU surface defects"
    task = "recognition"
    licence = "not stated; academic use, cite the papers"
    citation = (
        "Song, Yan: A noise robust method based on completed local binary patterns for hot-rolled steel strip surface "
        "defects. Applied Surface Science 285, 858-864, 2013; boxes: He et al.: IEEE Transactions on Instrumentation "
        "and Measurement 69(4), 1493-1504, 2020"
    )
    homepage = "http://faculty.neu.edu.cn/yunhyan/NEU_surface_defect_database.html"
    official_counts = dict.fromkeys(SHORT.values(), 300)
    known = dict.fromkeys(
        ("patches_101", "patches_105"), "these two are pixel-identical; both are kept and share one group"
    )
    folds = 5

    def samples(self) -> pd.DataFrame:
        """Return the sample table; ids are class and number, e.g. ``patches_101``, masks XML files with boxes."""
        return self._table

    @cached_property
    def _table(self) -> pd.DataFrame:
        root = self.root()
        found = walk(root)
        problems: list[str] = []
        images = _by_name(found.images(), problems)
        boxes = _by_name([name for name in found.files if name.lower().endswith(".xml")], problems)
        if not images:
            fix = f"unpack the archive of {self.homepage} there"
            raise UserError(f"dataset 'neu': no images Cr_1.bmp or crazing_1.jpg, ... below '{root}': {fix}")
        rows = [
            (name, image, boxes.get(name, ""), name.rpartition("_")[0], "", DUPLICATES.get(name, name))
            for name, image in sorted(images.items())
        ]
        table = pd.DataFrame(rows, columns=SAMPLE_COLUMNS)
        if problems:
            raise DatasetError("neu", problems, table)
        return table

    def reason(self, name: str) -> str:
        """Explain why an image is left out."""
        return "images that are not called like Cr_1 or crazing_1"

    def decode_mask(self, data: bytes, name: str, label: str) -> np.ndarray:
        """Decode the boxes of class ``label`` in a Pascal VOC XML annotation: H,W bool."""
        return _draw(_parse(data, name), name, label)


def _by_name(paths: list[str], problems: list[str]) -> dict[str, str]:
    """Map canonical ids to paths below the root, of files with official names; add duplicates to ``problems``."""
    found: dict[str, str] = {}
    for relative in sorted(paths, key=lambda path: path.split("/")):
        match = NAME.fullmatch(PurePosixPath(relative).stem)
        if not match:
            continue
        label, number = SHORT.get(match[1], match[1]), int(match[2])
        name = f"{label}_{number}"
        if found.setdefault(name, relative) != relative:
            both = f"'{found[name]}' and '{relative}' are both {name}"
            problems.append(f"dataset 'neu': {both}: keep one archive below the root")
    return found


def _parse(data: bytes, name: str) -> Element:
    """Parse the XML. A DOCTYPE is refused: its entities could expand without bound, and annotations have none."""

    def refuse(*_: object) -> None:
        raise UserError(f"annotation '{name}' has a DOCTYPE, which is not read: restore it from the original archive")

    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise UserError(f"annotation '{name}' is no XML ({error}): restore it from the original archive") from None
    return builder.close()


def _draw(tree: Element, name: str, label: str) -> np.ndarray:
    """Draw the boxes of class ``label``: H,W bool. Box corners count from 1 and belong to the box."""
    width, height = (_number(tree, f"size/{side}", name) for side in ("width", "height"))
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise UserError(f"annotation '{name}' gives the image size as {width} x {height}: restore it")
    mask = np.zeros((height, width), bool)
    for item in tree.iter("object"):
        left, top, right, bottom = (_number(item, f"bndbox/{side}", name) for side in ("xmin", "ymin", "xmax", "ymax"))
        if not (1 <= left <= right <= width and 1 <= top <= bottom <= height):
            raise UserError(f"annotation '{name}': box {left} {top} {right} {bottom} leaves the image: correct it")
        if (item.findtext("name") or "").strip() == label:
            mask[top - 1 : bottom, left - 1 : right] = True
    return mask


def _number(element: Element, path: str, name: str) -> int:
    text = (element.findtext(path) or "").strip()
    if not text.isdecimal():
        raise UserError(f"annotation '{name}': {path} is '{text}', not a number: restore it from the original archive")
    return int(text[:9])
