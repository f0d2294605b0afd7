"""Masks among the images of class folders: recognised by names and content, and matched with their images."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from augbench.core.errors import UserError, listed
from augbench.core.images import FEW, colours, read_rgb, thinned
from augbench.core.walk import MASK_ENDING, plain_stem

MASK_FOLDERS = re.compile(r"masks?|gt|ground[_ -]?truths?|labels?|annotations?|seg|segmentations?", re.IGNORECASE)
IMAGE_FOLDERS = re.compile(r"im(age|g)s?|pictures?|photos?", re.IGNORECASE)
SAMPLES, MOST_SAMPLES = 4, 32  # files of a folder that are looked at; more only while all are of one colour
MOST_FOLDERS = 64  # of which the first image is looked at, although nothing in its name is that of a mask

Key = tuple[str, ...]


def masks_among(root: Path, names: Iterable[str]) -> list[str]:
    """Return the images that are masks, sorted: by the name of a folder or file, and by the content of a few of them.

    - in a folder called mask, gt, ground_truth, label, ...;
    - called ``x_mask.png``, where ``x.jpg`` lies beside it;
    - called ``x.png``, where ``x.jpg`` lies beside it;
    - two-valued in a folder without other images, and called like images of another folder that are not.

    A folder of photographs that is called `label` stays a class.
    """
    names = sorted(names)
    stems = defaultdict(list)
    for name in names:
        stems[name.removesuffix(PurePosixPath(name).suffix)].append(name)
    bunches: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        beside = str(path.with_name(plain_stem(path)))
        if depth := next((n for n, part in enumerate(path.parts[:-1], 1) if MASK_FOLDERS.fullmatch(part)), 0):
            bunches["in a folder of masks", path.parts[0], path.parts[depth - 1]].append(name)
        elif beside != str(path.with_suffix("")) and beside in stems and (ending := MASK_ENDING.search(path.stem)):
            bunches["beside its image", path.parts[0], ending[0]].append(name)
        elif len(stems[str(path.with_suffix(""))]) > 1:
            bunches["beside a namesake", path.parts[0], path.suffix].append(name)
        else:
            bunches["", str(path.parent)].append(name)
    found = [name for key, bunch in bunches.items() if key[0] and _are_masks(root, bunch, key[0]) for name in bunch]
    return sorted([*found, *_unnamed(root, [bunch for key, bunch in bunches.items() if not key[0]])])


def _unnamed(root: Path, folders: Sequence[Sequence[str]]) -> list[str]:
    """Return the images of folders whose first image is two-valued and has the name of one elsewhere that is not."""
    chosen = {round(index) for index in np.linspace(0, len(folders) - 1, min(MOST_FOLDERS, len(folders)))}
    firsts = [folders[index][0] for index in sorted(chosen)] if len(folders) > 1 else []
    looks = {name: _values(root, name) for name in firsts}
    suspects = [names for names in folders if looks.get(names[0]) == "two" and _are_masks(root, names, "")]
    photographs = [{PurePosixPath(name).stem for name in names} for names in folders if looks.get(names[0]) == "many"]
    return [
        name
        for names in suspects
        if any({plain_stem(PurePosixPath(name)) for name in names} <= stems for stems in photographs)
        for name in names
    ]


def _are_masks(root: Path, names: Sequence[str], how: str) -> bool:
    """Whether some images of a folder, evenly spaced, all look like masks, and not all are of one colour."""
    allowed = {"one", "two"} if how in ("", "beside a namesake") else {"one", "two", "grey"}
    looks = set()
    for number, index in enumerate(np.linspace(0, len(names) - 1, min(MOST_SAMPLES, len(names))), start=1):
        looks.add(_values(root, names[round(index)]))
        if not looks <= allowed:
            return False
        if number >= SAMPLES and looks != {"one"}:  # masks of normal images are black
            break
    return looks != {"one"}


def _values(root: Path, name: str) -> str:
    """Describe the values of an image: "one", "two", "grey" (a mask with blurred borders or few colours), "many"."""
    try:
        image = read_rgb(root / name)
    except UserError:
        return "many"  # reading the sample raises this error again
    number = colours(image)
    if number <= FEW:  # a colour for each kind of defect
        return {1: "one", 2: "two"}.get(number, "grey")
    part = thinned(image)
    brightest = part.max(axis=2)
    extreme = (brightest < 32).mean(), (brightest > 223).mean()
    return "grey" if (np.ptp(part, axis=2) < 16).all() and min(extreme) > 0 and sum(extreme) > 0.9 else "many"


def matched(masks: Iterable[str], images: Iterable[str]) -> dict[str, str]:
    """Map images to their masks, by the names of folders and files; a mask without an image is not in the result.

    ``scratch/masks/000.png``, ``masks/scratch/000_mask.png`` and ``scratch/000_gt.png`` belong to
    ``scratch/images/000.jpg`` or ``test/scratch/000.jpg``, if there is but one such image.

    Raises:
        UserError: an image has two masks.
    """
    ends: Mapping[Key, list[str]] = defaultdict(list)
    for image in images:
        path = PurePosixPath(image)
        parts = (*(part for part in path.parts[:-1] if not IMAGE_FOLDERS.fullmatch(part)), path.stem)
        for start in range(len(parts)):
            ends[parts[start:]].append(image)
    found: dict[str, str] = {}
    for mask in sorted(masks):
        candidates = ends.get(_key(mask), ())
        if len(candidates) != 1:
            continue
        (image,) = candidates
        if image in found:
            raise two_masks(image, found[image], mask)
        found[image] = mask
    return found


def _key(mask: str) -> Key:
    path = PurePosixPath(mask)
    folders = (part for part in path.parts[:-1] if not (MASK_FOLDERS.fullmatch(part) or IMAGE_FOLDERS.fullmatch(part)))
    return (*folders, plain_stem(path))


def two_masks(image: str, first: str, second: str) -> UserError:
    """Return the error about an image with two masks."""
    return UserError(f"image '{image}' has two masks, {listed((first, second))}: keep one")


def refuse(name: str, masks: Sequence[str], why: str) -> UserError:
    """Return the error about masks that are no images, and where to put them."""
    ways = "call them like their images, in a folder masks/ beside these; list the images in a CSV; or move them away"
    return UserError(f"dataset '{name}': {listed(masks)} look{'s' * (len(masks) == 1)} like masks, {why}: {ways}")
