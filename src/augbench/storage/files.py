"""The files of a store: what it asks of a place, and the place it mostly has, a local folder.

Names are relative to the store, with ``/`` between. A file is either whole or not there: it is written beside its
place, flushed to disk and renamed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from augbench.core.errors import StoreError, UserError

UNFINISHED = (".part", ".gone")  # how names end, beside a dot before them, until a file is whole, or has been removed


class Files(ABC):
    """What a store asks of a place."""

    url: str  # opens the same place in another process
    one_process: bool = False  # nothing outside this process sees it
    folder: Path | None = None  # the local folder, where there is one

    def where(self, name: str) -> str:
        """The file in words that a user can paste."""
        return f"{self.url}/{name}"

    @abstractmethod
    def top(self) -> set[str]:
        """Names of what lies at the top, empty where nothing was written yet. Raises UserError if it is no place."""

    @abstractmethod
    def names(self, folder: str) -> set[str]:
        """Names of what lies directly in a folder, empty where there is none; unfinished files are left out."""

    def unfinished(self, folder: str) -> list[str]:
        """Files and folders directly in a folder that somebody has begun: at work on them, or killed meanwhile."""
        return []

    def discard(self, unfinished: Sequence[str]) -> None:
        """Remove what was begun and will not be finished. Raises StoreError."""
        for name in unfinished:
            self.remove(name)

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content. Raises FileNotFoundError where there is none, StoreError where it cannot be had."""

    @abstractmethod
    def read_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        """The contents in order, None where there is no such file; remote ones are asked for together."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all. Raises StoreError."""

    def appending(self, name: str) -> BinaryIO | None:
        """A file to add to, where the place can: for what is read while it is written. None: write it whole, and again.

        Raises:
            StoreError: it cannot be written.
        """
        return None

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it is there; False if it is. Of several callers one succeeds, where the place can."""

    @abstractmethod
    def remove(self, name: str) -> bool:
        """Remove a file; False where it is gone already. Of several callers one gets True, where the place can."""

    @abstractmethod
    def age(self, name: str) -> float | None:
        """Seconds since it was written, None where there is no such file."""

    def ages(self, folder: str) -> dict[str, float | None]:
        """Seconds since each file directly in a folder was written; None where the place does not say.

        One listing, where the place tells times with its names.
        """
        return {name: self.age(f"{folder}/{name}") for name in self.names(folder) if self.exists(f"{folder}/{name}")}

    @abstractmethod
    def commit_folder(self, made: Path, name: str, marker: str) -> None:
        """Put a finished local folder there; the file ``marker`` comes last. What is there already may stay."""

    @abstractmethod
    def local_folder(self, name: str) -> Path:
        """A committed folder as a local one, to be read only."""

    @abstractmethod
    def scratch_folder(self, name: str) -> Path:
        """A folder on a disk that outlives this process, for work that is not finished; the same for the same name."""


class LocalFiles(Files):
    """A folder on a disk. Once it has been there it is not made again: its disk is gone, and may come back."""

    def __init__(self, folder: Path, there: bool = False) -> None:
        """``there``: somebody has made it, so it must be seen from here too."""
        self.folder: Path = folder.expanduser().resolve()
        self.url = str(self.folder)
        self._there = there or self.folder.is_dir()
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"store '{folder}' is a file: give a folder")

    def _require(self) -> None:
        if self._there and not self.folder.is_dir():
            raise StoreError(
                f"store '{self.folder}' is not there: bring its disk back, or give --store a folder that all machines "
                "see, and run the same command again"
            )

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Write a file in here: its folders are made, but that of the store only once. Raises StoreError."""
        try:
            if not self._there:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._there = True
            _make_below(self.folder, path.parent)
            yield
        except OSError as error:
            self._require()
            raise _cannot_write(path, error) from error

    @override
    def top(self) -> set[str]:
        return self.names("")

    @override
    def names(self, folder: str) -> set[str]:
        try:
            with os.scandir(self.folder / folder) as entries:
                return {entry.name for entry in entries if entry.name[0] != "."}
        except (FileNotFoundError, NotADirectoryError):
            self._require()
            return set()
        except OSError as error:
            raise _cannot_read(self.folder / folder, error) from error

    @override
    def unfinished(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.folder / folder) as entries:
                return [f"{folder}/{e.name}" for e in entries if e.name[0] == "." and e.name.endswith(UNFINISHED)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _cannot_read(self.folder / folder, error) from error

    @override
    def discard(self, unfinished: Sequence[str]) -> None:
        for path in (self.folder / name for name in unfinished):
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:  # its writer lives after all, and was just done
                continue
            except OSError as error:
                raise _cannot_write(path, error) from error

    @override
    def exists(self, name: str) -> bool:
        is_there = (self.folder / name).is_file()
        if not is_there:
            self._require()
        return is_there

    @override
    def read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            self._require()
            raise
        except OSError as error:
            raise _cannot_read(self.folder / name, error) from error

    @override
    def read_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        for name in names:
            try:
                yield self.read(name)
            except FileNotFoundError:
                yield None

    @override
    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        with self._writing(path):
            _write_whole(path, data)

    @override
    def appending(self, name: str) -> BinaryIO | None:
        path = self.folder / name
        with self._writing(path):
            return path.open("ab", buffering=0)

    @override
    def create(self, name: str, data: bytes) -> bool:
        path = self.folder / name
        with self._writing(path):
            try:
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
        return True

    @override
    def remove(self, name: str) -> bool:
        # A rename decides between several callers: unlink alone could hit what one of them made anew.
        path = self.folder / name
        grave = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.gone")
        try:
            path.rename(grave)
        except FileNotFoundError:
            return False
        grave.unlink(missing_ok=True)
        return True

    @override
    def age(self, name: str) -> float | None:
        try:
            return time.time() - (self.folder / name).stat().st_mtime
        except FileNotFoundError:
            return None

    @override
    def ages(self, folder: str) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        now = time.time()
        try:
            with os.scandir(self.folder / folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                        if entry.name[0] != "." and entry.is_file():
                            found[entry.name] = now - entry.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise _cannot_read(self.folder / folder, error) from error
        return found

    @override
    def commit_folder(self, made: Path, name: str, marker: str) -> None:
        # A copy beside the place and one rename: it appears whole, also from another disk.
        target = self.folder / name
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        with self._writing(target):
            try:
                shutil.move(made, beside)
                beside.rename(target)
            except OSError:
                shutil.rmtree(beside, ignore_errors=True)
                if not target.is_dir():  # else it was made elsewhere meanwhile, from the same spec
                    raise

    @override
    def local_folder(self, name: str) -> Path:
        return self.folder / name

    @override
    def scratch_folder(self, name: str) -> Path:
        path = self.folder / "scratch" / name
        with self._writing(path / "any"):
            return path


def made_folder(folder: Path) -> Path:
    """The local folder, made where it is not there.

    Raises:
        StoreError: no room, or no rights.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


def write_atomic(path: Path, data: bytes) -> None:
    """Write a local file so that it is whole or not there, also when the machine loses power in between.

    Raises:
        StoreError: no room, or no rights.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, data)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _write_whole(path: Path, data: bytes) -> None:
    """Beside its place, to the disk, and then to its place. Raises OSError."""
    beside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"  # with_name would stumble over '.' and '/'
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _make_below(top: Path, folder: Path) -> None:
    """Make a folder, and those that lead to it from ``top``, which is never made. Raises OSError."""
    if folder == top:
        return
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        _make_below(top, folder.parent)
        folder.mkdir(exist_ok=True)


def _cannot_read(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot read '{path}' ({error.strerror}): check its rights")


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write '{path}' ({error.strerror}): make room or rights, or write elsewhere")
