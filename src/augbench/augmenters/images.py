"""Images that any generator made elsewhere: a folder of them takes part like an augmenter.

Layouts, masks being optional:

- a table ``metadata.jsonl`` or ``metadata.csv`` in the folder, with ``file_name`` and optionally ``label`` and
  ``mask_file_name``, paths relative to the folder: a pool of augbench, and what Hugging Face calls an ImageFolder;
- folders of classes, ``<class>/000.png`` or ``test/<class>/000.png`` with ``ground_truth/<class>/000_mask.png`` as in
  MVTec AD, or ``<class>/image/`` with ``<class>/mask/`` as generators write them; images of ``good`` are left out;
- images in one folder, with masks in ``masks/`` or beside them as ``000_mask.png``.

The stage compares every image with test images and refuses near-copies.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image

from augbench.augmenters._folders import content_key, image_files
from augbench.augmenters._settings import OURS, setting
from augbench.core.contracts import GOOD, Augmenter, Reads, Request, Settings, Shots, Synthetic, TrainView
from augbench.core.errors import UserError, listed
from augbench.core.hashing import digest
from augbench.core.images import read_grey, read_rgb
from augbench.core.mask_files import IMAGE_FOLDERS, masks_among, matched
from augbench.core.models import NamedIds
from augbench.core.walk import Names, Walk, walk

TABLES = ("metadata.jsonl", "metadata.csv")
UNKNOWN = "it is unknown what their generator was trained on: it may have seen test images"
SAME = "every seed trains on the same images, so deviations do not cover making them again"
RESIZED = "images of other sizes were resized to those of real ones, which changes their sharpness"


@dataclass(frozen=True)
class Entry:
    """One image of the folder: paths relative to it."""

    image: str
    mask: str  # "" = none
    label: str  # its class; "" where the layout has none


class Images(Augmenter):
    """Takes the images of a folder, which any generator made, as they are."""

    title = "images made elsewhere"
    licence = "yours"
    tasks = frozenset({"detection", "recognition"})
    from_outside = True

    class Config(Settings):
        """Where the images are, and what they come from."""

        folder: Path = setting(
            ...,
            "the folder: images with or without masks, alone, in class folders or listed in metadata.jsonl or .csv",
            OURS,
        )
        trained_on: NamedIds | Literal["unknown"] = setting(
            "unknown",
            "images of the dataset that the generator was trained on: {ids: FILE}, one id per line; unknown is noted "
            "under tables",
            OURS,
        )
        sample: Literal["in_order", "drawn"] = setting(
            "in_order",
            "in_order: the first N_aug images at every seed, of the table, or of class folders in turn; drawn: at "
            "random with replacement",
            OURS,
        )
        resize: bool = setting(
            False, "resize images to the size of a random normal image; false: another size is an error", OURS
        )

    config: Config

    def reads(self, shots: Shots) -> frozenset[Reads]:
        """Read the sizes of normal images."""
        return frozenset({"negatives"})

    def notes(self, shots: Shots) -> str:
        """Say what a reader cannot know: training data, the same images at all seeds, resizing."""
        remarks = {
            UNKNOWN: self.config.trained_on == "unknown",
            SAME: self.config.sample == "in_order",
            RESIZED: self.config.resize,
        }
        return "; ".join(remark for remark, holds in remarks.items() if holds)

    def key_settings(self) -> dict[str, object]:
        """Return the settings that enter keys: of the folder its content, of ids a digest.

        Raises:
            UserError: there is no such folder, or its images and masks do not fit.
        """
        settings = super().key_settings() | {"folder": self._content}
        if isinstance(self.config.trained_on, NamedIds):
            settings["trained_on"] = digest(self.config.trained_on.ids)
        return settings

    def trained_on(self) -> tuple[str, ...] | None:
        """Return the ids that the setting names; None: unknown."""
        return self.config.trained_on.ids if isinstance(self.config.trained_on, NamedIds) else None

    def capacity(self, view: TrainView) -> int:
        """Return the number of images; in recognition that of the rarest class, for each class."""
        return min(len(self._of(label, view)) for label in view.classes or ("",)) * max(len(view.classes), 1)

    def ready(self) -> None:
        """Check that every image and mask of the folder can be read, and that their sizes fit."""
        for entry in self._entries:
            self._read(entry)

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Take one image per request; its meta holds file name and class. A chunk beyond the last image starts anew."""
        sizes = _Sizes(view)
        return [self._one(request, view, sizes) for request in requests]

    def _one(self, request: Request, view: TrainView, sizes: _Sizes) -> Synthetic:
        entries, rng = self._of(request.label, view), request.rng
        turn = request.index // max(len(view.classes), 1)
        entry = entries[rng.integers(len(entries)) if self.config.sample == "drawn" else turn % len(entries)]
        image, mask = self._read(entry)
        if self.config.resize:
            image, mask = _resized(image, mask, sizes.random(rng))
        elif not sizes.have(image.shape):
            size = f"{image.shape[1]} x {image.shape[0]}"
            raise self._refused(f"'{entry.image}' is {size}, and no real image is: set resize: true, or resize it")
        return Synthetic(image, request.label, mask, {"file": entry.image, "class": entry.label})

    def _of(self, label: str, view: TrainView) -> Sequence[Entry]:
        """Return the images of a class; in detection all."""
        if view.task == "detection":
            return self._entries
        if label not in self._by_label:
            found = listed(sorted(self._by_label))
            raise self._refused(f"there is no image of class '{label}' (found: {found}): name class folders like them")
        return self._by_label[label]

    def _read(self, entry: Entry) -> tuple[np.ndarray, np.ndarray | None]:
        """Read an image, H,W,3 uint8, and its mask, H,W bool. Half of the largest value and more is defect."""
        image = read_rgb(self.config.folder / entry.image)
        if not entry.mask:
            return image, None
        values = read_grey(self.config.folder / entry.mask)
        if values.shape != image.shape[:2]:
            own, other = (f"{width} x {height}" for height, width in (values.shape, image.shape[:2]))
            raise self._refused(f"mask '{entry.mask}' is {own}, its image {other}: give it the size of its image")
        if not values.any():
            raise self._refused(f"mask '{entry.mask}' is empty: mark the defect, or take image and mask out")
        return image, values > values.max() / 2

    def _refused(self, problem: str) -> UserError:
        return UserError(f"augmenter 'images', folder '{self.config.folder}': {problem}")

    # -- files

    @cached_property
    def _content(self) -> str:
        files = [name for entry in self._entries for name in (entry.image, entry.mask) if name]
        order = digest([(entry.image, entry.mask, entry.label) for entry in self._entries])
        return f"{content_key(self.config.folder, [self.config.folder / name for name in files])}-{order[:16]}"

    @cached_property
    def _by_label(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        for entry in self._entries:
            found.setdefault(entry.label, []).append(entry)
        return found

    @cached_property
    def _entries(self) -> list[Entry]:
        folder = self.config.folder
        image_files("folder", folder, "set images' folder to a folder of images")
        found = walk(folder)
        table = next((name for name in TABLES if name in found.files), None)
        entries = [entry for entry in (self._of_table(table, found) if table else self._of_files(found))
                   if entry.label != GOOD]  # fmt: skip
        if not entries:
            raise self._refused("it holds no defect images: normal ones (good) are left out")
        lacking = [entry.image for entry in entries if not entry.mask]
        if lacking and len(lacking) < len(entries):
            raise self._refused(f"{listed(lacking)} lack a mask, others have one: give all images a mask, or none")
        return entries

    def _of_files(self, found: Walk) -> list[Entry]:
        """Pair images and masks by names; classes take turns."""
        images = found.images()
        masks = masks_among(self.config.folder, images)
        images = sorted(set(images) - set(masks))
        try:
            mask_of = matched(masks, images)
        except UserError as error:
            raise self._refused(str(error)) from None
        if stray := sorted(set(masks) - set(mask_of.values())):
            raise self._refused(f"{listed(stray)} look like masks, and no image has their name: rename or remove them")
        turns: Counter[str] = Counter()
        placed = []
        for name in images:
            label = _class_of(name)
            placed.append((turns[label], label, Entry(name, mask_of.get(name, ""), label)))
            turns[label] += 1
        return [entry for _, _, entry in sorted(placed, key=lambda one: one[:2])]

    def _of_table(self, table: str, found: Walk) -> list[Entry]:
        """Read a table; its order is that of the images."""
        names, entries = Names(self.config.folder, found.files), []
        for line, row in self._rows(table):
            paths = [str(row.get(column) or "") for column in ("file_name", "mask_file_name")]
            if not paths[0]:
                raise self._refused(f"'{table}' line {line} has no file_name: one row per image")
            image, mask = (names.find(path)[1] if path else "" for path in paths)
            if lost := [path for path in (image, mask) if path and path not in names.files]:
                raise self._refused(f"'{table}' line {line} names '{lost[0]}', which is not there: restore it")
            label = row.get("label")
            entries.append(Entry(image, mask, "" if label is None else str(label)))  # 0 is a class, too
        twice = [name for name, number in Counter(entry.image for entry in entries).items() if number > 1]
        if twice:
            raise self._refused(f"'{table}' names '{twice[0]}' twice: one row per image")
        return entries

    def _rows(self, table: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number and content of the rows of a table."""
        try:
            text = (self.config.folder / table).read_text(encoding="utf-8-sig")
            if table.endswith(".csv"):
                yield from enumerate(csv.DictReader(io.StringIO(text)), start=2)  # the header is line 1
                return
            for number, line in enumerate(text.split("\n"), start=1):  # not at U+2028, as JSON
                if line.strip():
                    yield number, dict(json.loads(line))
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise self._refused(f"'{table}' cannot be read ({error}): see the layouts of images") from None


def _class_of(name: str) -> str:
    """Return the innermost folder of a file that is not just called images; "" for none."""
    folders = [part for part in PurePosixPath(name).parts[:-1] if not IMAGE_FOLDERS.fullmatch(part)]
    return folders[-1] if folders else ""


class _Sizes:
    """The sizes of normal images, read as far as they are needed."""

    def __init__(self, view: TrainView) -> None:
        self._view, self._ids = view, list(view.negatives["id"])
        self._unread = iter(self._ids)
        self._seen: set[tuple[int, ...]] = set()

    def have(self, shape: tuple[int, ...]) -> bool:
        """Return whether a normal image has this shape; True where there is none, as in recognition."""
        while shape not in self._seen and (name := next(self._unread, None)) is not None:
            self._seen.add(self._view.image(name).shape)
        return shape in self._seen or not self._ids

    def random(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return height and width of a random normal image."""
        if not self._ids:
            raise UserError("augmenter 'images': resize needs normal images, and there are none: leave resize out")
        return self._view.image(self._ids[rng.integers(len(self._ids))]).shape[:2]


def _resized(
    image: np.ndarray, mask: np.ndarray | None, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Resize an image, H,W,3 uint8, and its mask, H,W bool: every pixel that the defect touches stays marked."""
    if image.shape[:2] == shape:
        return image, mask
    size = shape[::-1]
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    if mask is None:
        return resized, None
    touched = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return resized, np.asarray(touched) > 0
