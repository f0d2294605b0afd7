"""Write a folder whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from augbench.core.errors import UserError
from augbench.storage.files import made_folder


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out``, which it becomes at the end; after an error nothing is left of it.

    Raises:
        UserError: ``out`` is a file or a folder with something in it, or a file in it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file: give a new or an empty folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out '{out}' holds other things: give a new or an empty folder")
    out = out.resolve()  # of a link its target, which may be on another disk
    parent = made_folder(out.parent)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=parent))
    except OSError as error:
        raise UserError(f"--out '{out}' cannot be written ({error.strerror}): give another folder") from None
    try:
        yield temporary
        temporary.chmod(0o755)  # a temporary folder is its maker's alone
        try:
            temporary.replace(out)
        except OSError as error:  # where another disk is mounted, for example
            raise UserError(f"--out '{out}' cannot be replaced ({error.strerror}): give a new folder") from None
    except OSError as error:  # of writing: what cannot be read is a UserError
        raise UserError(
            f"--out '{out}' cannot be written ({error.strerror or error}): free space, or give another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
