"""Account for every file of a dataset: read, or left out with a reason."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from augbench.core.contracts import Dataset
from augbench.core.errors import listed
from augbench.core.images import UNREAD
from augbench.core.walk import CLOSED, NOT_UTF8, is_image, walk

OTHER = "that are no images"
UNREADABLE = "images of a format that is not read"
MISNAMED = "images by their content, not by their ending"
MISSING = "in the table, but missing"
PROBLEMS = {
    UNREADABLE: "save them as PNG, or move them away",
    MISNAMED: "rename them, or move them away",
    CLOSED: "check the permissions",
    NOT_UTF8: "rename them",
}
"""Reasons that are problems, as these files may belong to the dataset -> the way out."""

HEADS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"GIF8")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
CONVERT = "convert them to mask images, named in the column mask of a CSV (dataset folder), with"
NOTES = {
    "archives": "unpack them if they belong to the dataset",
    "COCO annotations": f"{CONVERT} pycocotools (annToMask)",
    "LabelMe annotations": f"{CONVERT} labelme_export_json",
    "YOLO labels": f"{CONVERT} supervision (DetectionDataset.from_yolo)",
    "run-length masks of Severstal": f"{CONVERT} pycocotools or NumPy",
    "Pascal VOC boxes": f"{CONVERT} supervision (DetectionDataset.from_pascal_voc)",
}
"""Reasons that need a word -> the way to use the files."""

YOLO_LINE = re.compile(rb"\s*\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}\s*", re.IGNORECASE)
PEEK = 65_536  # bytes of either end of an annotation file that are looked at


@dataclass(frozen=True)
class Account:
    """The files below a dataset's home. Names are relative to the root; those of folders end with ``/``."""

    read: frozenset[str]  # images, masks and tables that exist
    left_out: Mapping[str, Mapping[str, int]]  # reason -> name -> number of files
    idle: tuple[str, ...]  # topmost folders of which no file is read

    def line(self) -> str:
        """Return ``read N files, left out M: n reason (such as 'x'); ...``."""
        totals = {reason: sum(names.values()) for reason, names in self.left_out.items()}
        if not totals:
            return f"read all {len(self.read):,} files"
        reasons = [
            f"{totals[reason]:,} {reason} ({'such as ' * (totals[reason] > 1)}'{next(iter(names))}')"
            for reason, names in sorted(self.left_out.items(), key=lambda item: (-totals[item[0]], item[0]))
        ]
        return f"read {len(self.read):,} files, left out {sum(totals.values()):,}: {'; '.join(reasons)}"

    def problems(self) -> list[str]:
        """Name files that are left out and may belong to the dataset."""
        return self._named(PROBLEMS)

    def notes(self) -> list[str]:
        """Name folders of which nothing is read, and annotations that are not."""
        notes = [f"folder{'s' * (len(self.idle) > 1)} {listed(self.idle)}: no image in it is read"] if self.idle else []
        return notes + self._named(NOTES)

    def _named(self, fixes: Mapping[str, str]) -> list[str]:
        return [
            f"left out {listed(names)}: {reason}: {fixes[reason]}"
            for reason, names in self.left_out.items()
            if reason in fixes
        ]


def account_for(dataset: Dataset, table: pd.DataFrame) -> Account:
    """List the files below the home of a dataset that its ``table`` names, and why others are left out."""
    root, home = dataset.root(), dataset.home()
    below = "" if home == root else f"{home.relative_to(root).as_posix()}/"
    found = walk(home)
    images = set(table["image"]) | set(table["mask"]) - {""}
    named = {path.relative_to(root).as_posix() for path in dataset.files() if path.is_relative_to(root)}
    read = frozenset(name for name in images | named | dataset.tables() if (root / name).is_file())
    left_out: dict[str, dict[str, int]] = defaultdict(dict)
    stems = {str(PurePosixPath(name).with_suffix("")) for name in read}
    for name in (below + name for name in found.files):
        if name not in read:
            left_out[MISSING if name in images else _reason(dataset, name, stems)][name] = 1
    for name, reason in found.left_out.items():
        number = sum(file not in read for file in _below(root, below + name)) if name.endswith("/") else 1
        if number and below + name not in read:
            left_out[reason][below + name] = number
    return Account(read, dict(left_out), _idle((below + folder for folder in found.folders), images))


def _below(root: Path, folder: str) -> Iterable[str]:
    """List the files in a folder that is left out; a loop or a closed folder counts as one."""
    if (root / folder).is_symlink() or not os.access(root / folder, os.R_OK):
        return [folder]
    files = (Path(place) / name for place, _, names in os.walk(root / folder) for name in names)
    return [file.relative_to(root).as_posix() for file in files]


def _idle(folders: Iterable[str], read: Iterable[str]) -> tuple[str, ...]:
    """Return the topmost folders without any file that is read."""
    used = {str(folder) for name in read for folder in PurePosixPath(name).parents}
    idle = [folder for folder in folders if folder not in used]
    return tuple(f"{folder}/" for folder in idle if str(PurePosixPath(folder).parent) in used | {"."})


def _reason(dataset: Dataset, name: str, stems: set[str]) -> str:
    """Explain why a file is left out."""
    if is_image(name):
        return dataset.reason(name)
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if suffix in UNREAD:  # a raw image beside the developed one is no loss
        return OTHER if str(path.with_suffix("")) in stems else UNREADABLE
    if suffix in ARCHIVES:
        return "archives"
    head, tail = _ends(dataset.root() / name)
    if head.startswith(HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return MISNAMED
    return _annotations(suffix, head, tail) or OTHER


def _ends(path: Path) -> tuple[bytes, bytes]:
    try:
        with path.open("rb") as file:
            head = file.read(PEEK)
            file.seek(max(0, path.stat().st_size - PEEK))
            return head, file.read(PEEK)
    except OSError:
        return b"", b""


def _annotations(suffix: str, head: bytes, tail: bytes) -> str:
    """Recognise a format of annotations by its first and last bytes; return "" for none."""
    both = head + tail
    if suffix == ".json" and b'"images"' in both and (b'"annotations"' in both or b'"categories"' in both):
        return "COCO annotations"
    if suffix == ".json" and b'"shapes"' in both and b'"imagePath"' in both:
        return "LabelMe annotations"
    if suffix == ".csv" and b"EncodedPixels" in head.partition(b"\n")[0]:
        return "run-length masks of Severstal"
    if suffix == ".xml" and b"<annotation" in head:
        return "Pascal VOC boxes"
    lines = [line for line in head[: PEEK // 8].splitlines() if line.strip()]
    if suffix == ".txt" and lines and YOLO_LINE.fullmatch(lines[0]):
        return "YOLO labels"
    return ""
