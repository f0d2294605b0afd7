"""What a person decided about synthetic images, as it lies on disk: a review. `augbench.studio.Review` writes it.

A grid reads of it: ``accepted/`` and ``rejected/`` (images, masks and ``metadata.jsonl`` in the layout of a pool), and
``seen.txt``, the real images that were looked at, or learned from, on the way.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.core.images import decode_grey, decode_rgb, read_bytes
from augbench.core.models import StrictModel
from augbench.core.seeds import rng

LOG = "decisions.jsonl"
SEEN = "seen.txt"
METADATA = "metadata.jsonl"
ACCEPTED, REJECTED = "accepted", "rejected"
_FILE = re.compile(r"(images|masks)/[0-9]{6}\.png")


def review_of(folder: Path) -> Path:
    """Return the folder of a review, which may be given as its ``accepted/``.

    Raises:
        UserError: it is no review.
    """
    for place in (folder, folder.parent):
        if (place / LOG).is_file() and (place == folder or folder.name == ACCEPTED):
            return place
    raise UserError(f"'{folder}' is no review, as it has no {LOG}: make one with augbench studio --review {folder}")


@dataclass(frozen=True)
class Chosen:
    """The images of a review that are trained on."""

    root: Path  # the review
    lines: tuple[Mapping[str, Any], ...]  # of their metadata, with the folder of each as ``folder``
    accepted: int
    decided: int

    @classmethod
    def of(cls, root: Path, random_subset: int | None = None, pool: str | None = None) -> Self:
        """Read the accepted images of a review, or as many at random of all that were decided.

        Args:
            root: the review, or its ``accepted/``.
            random_subset: None: the accepted images in order; a number: a random subset, the draw of this number.
            pool: only images of the pool with this key; None: images that were made on the page.

        Raises:
            UserError: it is no review, or its metadata is damaged.
        """
        root = review_of(root)
        accepted, rejected = ([one for one in _lines(root, folder) if one.get("pool") == pool] for folder in FOLDERS)
        lines = accepted
        if random_subset is not None:
            every = sorted([*accepted, *rejected], key=lambda line: line["file_name"])
            order = rng("random_subset", random_subset, len(accepted), pool or "").permutation(len(every))
            lines = [every[index] for index in order[: len(accepted)]]
        return cls(root, tuple(lines), len(accepted), len(accepted) + len(rejected))

    @property
    def content(self) -> str:
        """A digest of the images, their masks and their order, for keys."""
        fields = ("sha256", "mask_sha256", "label", "pool")
        return digest([[line.get(field) for field in fields] for line in self.lines])

    def of_class(self, label: str, classes: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the images of a class; in detection, without classes, all."""
        return [line for line in self.lines if not classes or line["label"] == label]

    def capacity(self, classes: Sequence[str]) -> int:
        """Return the number of images; in recognition that of the rarest class, for each class."""
        return min(len(self.of_class(label, classes)) for label in classes or ("",)) * max(len(classes), 1)

    def take(
        self, index: int, label: str, classes: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray | None, Mapping[str, Any]]:
        """Return the image of a request, H,W,3 uint8, its mask, H,W bool, and its line; beyond the last it starts anew.

        Raises:
            UserError: there is none of this class, or a file is missing or was changed.
        """
        lines = self.of_class(label, classes)
        if not lines:
            raise UserError(f"review '{self.root}' has no accepted image of class '{label}': accept some")
        line = lines[index // max(len(classes), 1) % len(lines)]
        return *self.read(line), line

    def read(self, line: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
        """Read an image, H,W,3 uint8, and its mask, H,W bool. Raises UserError if a file is missing or was changed."""
        image = decode_rgb(*self._read(line, "file_name", "sha256"))
        if "mask_file_name" not in line:
            return image, None
        return image, decode_grey(*self._read(line, "mask_file_name", "mask_sha256")) > 0

    def _read(self, line: Mapping[str, Any], name: str, sha256: str) -> tuple[bytes, str]:
        path = self.root / line["folder"] / line[name]
        data = read_bytes(path)
        if hashlib.sha256(data).hexdigest() != line[sha256]:
            raise UserError(f"'{path}' is not what was reviewed: restore it, or review it again")
        return data, str(path)


FOLDERS = (ACCEPTED, REJECTED)


def seen_in(root: Path) -> tuple[str, ...]:
    """Return the ids of the real images that a review's images came from or that the person looked at, sorted."""
    try:
        text = (review_of(root) / SEEN).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    return tuple(sorted({line for line in text.splitlines() if line}))


def certified_words(accepted: int, decided: int, random_subset: int | None) -> str:
    """Say who chose the images of a row, for the line about what they were made from."""
    of = f"{accepted:,} of {decided:,} accepted"
    if random_subset is None:
        return f"certified by a person: {of}"
    return f"not certified: a random subset, of the size of the certified one, of what a person reviewed ({of})"


class ReviewedBy(StrictModel):
    """Only images that a person accepted: ``review: DIR``, or ``{root: DIR, random_subset: N}``.

    The other fields are read from the review when a grid is read, so that a spec names what was reviewed then.
    """

    root: Path
    random_subset: int | None = Field(None, ge=0)  # instead, as many at random of all that were decided
    content: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    accepted: int = Field(0, ge=0)
    decided: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        """Read the review, unless that was done already."""
        if isinstance(given, (str, Path)):
            given = {"root": given}
        if not isinstance(given, dict) or given.get("content") or not isinstance(given.get("root"), (str, Path)):
            return given
        return given | summary_of(Path(given["root"]).expanduser(), given.get("random_subset"))

    @property
    def words(self) -> str:
        """Who chose the images."""
        return certified_words(self.accepted, self.decided, self.random_subset)

    def chosen(self, pool: str) -> Chosen:
        """Return the images of a pool that was reviewed.

        Raises:
            UserError: the review changed since the grid was read.
        """
        if summary_of(self.root, self.random_subset)["content"] != self.content:
            raise UserError(f"filters: review '{self.root}' changed since the run began: run the grid again")
        return Chosen.of(self.root, self.random_subset, pool)


def summary_of(root: Path, random_subset: Any) -> dict[str, Any]:
    """Return the fields of `ReviewedBy` that come from the review: over all pools in it.

    Raises:
        UserError: as `Chosen.of`.
    """
    root = review_of(root)
    pools = sorted({line["pool"] for folder in FOLDERS for line in _lines(root, folder) if line.get("pool")})
    if not pools:
        raise UserError(
            f"filters: review '{root}' holds no decision about a pool's image: augbench studio --pool KEY "
            f"--store STORE --review {root} reviews one"
        )
    found = [Chosen.of(root, random_subset, pool) for pool in pools]
    return {
        "content": digest([[pool, one.content] for pool, one in zip(pools, found, strict=True)]),
        "accepted": sum(one.accepted for one in found),
        "decided": sum(one.decided for one in found),
    }


def _lines(root: Path, folder: str) -> list[dict[str, Any]]:
    """Read ``metadata.jsonl`` of a folder. Raises UserError for a line that names no file of the folder."""
    path = root / folder / METADATA
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):  # not at U+2028, as JSON
        if not text.strip():
            continue
        try:
            line = dict(json.loads(text))
            names = [line["file_name"], *([line["mask_file_name"]] if "mask_file_name" in line else [])]
            if not all(_FILE.fullmatch(name) for name in names) or not isinstance(line["label"], str):
                raise ValueError("it names no image of this folder")
            if len(line["sha256"]) != 64 or len(line.get("mask_sha256", "0" * 64)) != 64:
                raise ValueError("it has no digest of its image")
        except (ValueError, TypeError, KeyError) as error:
            fix = f"augbench studio --review {root} writes it again"
            raise UserError(f"'{path}' line {number} is damaged ({error}): {fix}") from None
        lines.append(line | {"folder": folder})
    return lines
