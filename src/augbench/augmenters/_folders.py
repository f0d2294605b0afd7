"""Folders of images that settings name: textures, and masks drawn by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from augbench.core.errors import UserError
from augbench.core.images import SUFFIXES
from augbench.core.walk import walk


def image_files(setting: str, folder: Path, fix: str) -> list[Path]:
    """List the images in a folder and below it, in an order that does not depend on the file system.

    Args:
        setting: its name, for messages.
        folder: its value.
        fix: the end of a message: the way out.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"{setting} '{folder}' is not a folder: {fix}")
    names = [name for name in walk(folder).images() if (folder / name).is_file()]
    if not names:
        raise UserError(f"{setting} '{folder}' holds no images ({', '.join(sorted(SUFFIXES))}): {fix}")
    return [folder / name for name in names]


def content_key(folder: Path, files: Sequence[Path]) -> str:
    """Return names and bytes of files as a value for keys: names decide which request gets which file."""
    total = hashlib.sha256()
    for path in files:
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{total.hexdigest()}"
