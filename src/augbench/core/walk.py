"""List the files below a folder, for datasets and for folders of textures and masks.

Hidden files and what file managers leave behind are never data. Links are followed; a link into a folder above itself
is a loop and ends there. What is not listed is named with the reason; names that are not UTF-8, which no table can
hold, are also logged as a warning, once for each folder.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

from augbench.core.errors import UserError, listed
from augbench.core.images import SUFFIXES

LITTER = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "$recycle.bin"}
    | {"system volume information", "lost+found"}
)
"""Names, in lower case, of what Finder, Explorer, network drives and file systems leave in folders."""

MASK_ENDING = re.compile(r"[ _.-](mask|gt|ground_?truth|label|seg|segmentation|annotation)s?$", re.IGNORECASE)

LOG = logging.getLogger("augbench.files")

HIDDEN = "hidden, or left by a file manager"
LOOP = "a link back to a folder above"
CLOSED = "a folder that cannot be read"
SPECIAL = "neither a file nor a folder"
NOT_UTF8 = "with a name that is not UTF-8"


@dataclass(frozen=True)
class Walk:
    """Everything below a folder. Names are relative to it, with ``/`` between parts."""

    files: tuple[str, ...]  # sorted; data or not
    folders: tuple[str, ...]  # sorted
    left_out: Mapping[str, str]  # name -> why it is not among files and folders; the name of a folder ends with "/"

    def images(self) -> list[str]:
        """Return the files with the suffix of an image, sorted."""
        return [name for name in self.files if is_image(name)]


def walk(root: Path) -> Walk:
    """List everything below ``root``, which may itself be hidden or a link."""
    files: list[str] = []
    folders: list[str] = []
    left_out: dict[str, str] = {}
    todo = [("", frozenset[tuple[int, int]]())]  # folder, and the identities of those above it
    while todo:
        folder, above = todo.pop()
        place = root / folder
        try:
            state = place.stat()
            entries = list(os.scandir(place))
        except OSError:
            left_out[f"{folder}/"] = CLOSED
            continue
        identity = (state.st_dev, state.st_ino)
        if identity in above:
            left_out[f"{folder}/"] = LOOP
            continue
        if folder:
            folders.append(folder)
        for entry in entries:
            name, reason, is_folder = _classify(f"{folder}/{entry.name}" if folder else entry.name, entry)
            if reason:
                left_out[f"{name}/" if is_folder else name] = reason
            elif is_folder:
                todo.append((name, above | {identity}))
            else:
                files.append(name)
    if nameless := sorted(name for name, reason in left_out.items() if reason == NOT_UTF8):
        _warn(root, tuple(nameless))
    return Walk(tuple(sorted(files)), tuple(sorted(folders)), dict(sorted(left_out.items())))


@cache  # several walks of one command say it once
def _warn(root: Path, names: tuple[str, ...]) -> None:
    what = "entries are left out, as their names are" if len(names) > 1 else "entry is left out, as its name is"
    LOG.warning("'%s': %s %s not UTF-8: %s: rename what is data", root, f"{len(names):,}", what, listed(names))


def _classify(name: str, entry: os.DirEntry[str]) -> tuple[str, str, bool]:
    """Return a printable name, why it is left out ("" = it is not), and whether it is a folder."""
    try:
        is_folder = entry.is_dir()
        reason = "" if is_folder or entry.is_file() or entry.is_symlink() else SPECIAL  # reading finds broken links
    except OSError:  # a link that points to itself
        is_folder, reason = False, LOOP
    if entry.name.startswith(".") or entry.name.lower() in LITTER:
        reason = HIDDEN
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace"), NOT_UTF8, is_folder
    return name, reason, is_folder


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image, in lower or upper case."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def by_stem(names: Iterable[str], ending: str) -> dict[str, str]:
    """Map paths without suffix to files. Of several, the one with the official ``ending`` counts, else the first."""
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: not name.endswith(ending)):
        found.setdefault(name.removesuffix(PurePosixPath(name).suffix), name)
    return found


def plain_stem(path: PurePosixPath) -> str:
    """Return the file name without suffix and without an ending of masks, such as ``_mask``."""
    return MASK_ENDING.sub("", path.stem) or path.stem


def same_text(text: str) -> str:
    """Return a text in composed letters (NFC), as macOS and Linux may write one name in two ways."""
    return unicodedata.normalize("NFC", text)


def spelling(text: str) -> str:
    """Return what two spellings of one class have in common: without case, blanks around, and forms of letters."""
    return " ".join(same_text(text).casefold().split())


def is_absolute(name: str) -> bool:
    """Whether a path is absolute on Linux, macOS or Windows."""
    return re.match(r"/|~/|\\\\|[A-Za-z]:[/\\]", name) is not None


class Names:
    """Finds the files that a table names, also with Windows separators, other forms of letters, or absolute paths."""

    def __init__(self, root: Path, files: Iterable[str]) -> None:
        """``files``: `Walk.files` of ``root``."""
        self.root = root
        self.files = frozenset(files)

    def find(self, name: str) -> tuple[str, str]:
        """Return a path relative to the root: in the table's letters, for ids; as the file system has it, for reading.

        Raises:
            UserError: the path leaves the root. A link inside the root may point to a file outside it.
        """
        if "\\" in name and name not in self.files:
            name = name.replace("\\", "/")
        relative = posixpath.normpath(name)
        if is_absolute(name) or relative.split("/")[0] == "..":
            relative = self._relative(name)
        if relative in self.files or relative.isascii():
            return relative, relative
        composed = same_text(relative)
        return (composed, self._composed[composed]) if composed in self._composed else (relative, relative)

    @cached_property
    def _composed(self) -> dict[str, str]:
        return {same_text(file): file for file in self.files}

    def _relative(self, name: str) -> str:
        path = self.root / name if Path(name).is_absolute() or not is_absolute(name) else Path("/")  # of Windows
        for place, base in ((path, self.root), (path, self.root.resolve()), (path.resolve(), self.root.resolve())):
            relative = posixpath.normpath(os.path.relpath(place, base)) if place.is_relative_to(base) else ".."
            if relative.split("/")[0] != "..":
                return relative
        raise UserError(f"'{name}' leaves the root '{self.root}': use paths relative to it, such as images/000.png")
