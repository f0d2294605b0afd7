"""File access of a store: the interface `Files` and its implementation for a local folder.

Names are paths relative to the store, separated by ``/``. Writes are atomic: a temporary file is flushed to disk and
renamed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from typing_extensions import override

from augbench.core.errors import StoreError, UserError

MARKER = ".augbench-store"
"""Name of an empty file in a local store: where it is missing, the folder is not the store, but what its disk hid."""
UNFINISHED = (".part", ".gone")  # suffixes of temporary names, which also begin with a dot


class Files(ABC):
    """Interface for the files of a store."""

    url: str  # opens the same files in another process
    one_process: bool = False  # True: not visible to other processes
    publication: bool = False  # True: only reports are written into it, see `storage.publication`
    archives: Mapping[str, str] = MappingProxyType({})  # folder -> the archive that holds its files
    folder: Path | None = None  # the local folder; None: remote

    def where(self, name: str) -> str:
        """Return the path or URL of a file, for messages."""
        return f"{self.url}/{name}"

    def top(self) -> set[str]:
        """List names at the top level; empty if nothing was written yet. Raises UserError if the URL is unusable."""
        return self.names("")

    @abstractmethod
    def names(self, folder: str) -> set[str]:
        """List names directly in a folder, without unfinished files; empty if it does not exist."""

    def unfinished(self, folder: str) -> list[str]:
        """List unfinished files and folders directly in a folder: being written, or left by a killed process."""
        return []

    def discard(self, unfinished: Sequence[str]) -> None:
        """Remove unfinished files and folders. Raises StoreError."""
        for name in unfinished:
            self.remove(name)

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether the file exists."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content. Raises FileNotFoundError, or StoreError if the store cannot be read."""

    @abstractmethod
    def read_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        """Yield contents in order, None for missing files; remote files are requested concurrently."""

    def _read_or_none(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically. Raises StoreError."""

    def appending(self, name: str) -> BinaryIO | None:
        """Open a file for appending. None: not supported, so rewrite the whole file instead.

        Raises:
            StoreError: the file cannot be written.
        """
        return None

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it exists; return False if it does. Exclusive if the file system supports it."""

    @abstractmethod
    def remove(self, name: str) -> bool:
        """Remove a file; False if it does not exist. Only one caller gets True, if the file system supports it.

        Raises:
            StoreError: it cannot be removed.
        """

    @abstractmethod
    def remove_folder(self, name: str) -> None:
        """Remove a folder that no one writes to, with its contents; no effect if it does not exist."""

    @abstractmethod
    def age(self, name: str) -> float | None:
        """Return the seconds since the file was written, None if it does not exist."""

    def ages(self, folder: str) -> dict[str, float | None]:
        """Return the seconds since each file directly in a folder was written; None if unknown.

        Needs only one listing if listings contain times.
        """
        return {name: self.age(f"{folder}/{name}") for name in self.names(folder) if self.exists(f"{folder}/{name}")}

    @abstractmethod
    def commit_folder(self, made: Path, name: str, marker: str) -> None:
        """Move a finished local folder into the store, the file ``marker`` last. One that has its marker may stay."""

    @abstractmethod
    def local_folder(self, name: str) -> Path:
        """Return a local, read-only path of a committed folder."""

    @abstractmethod
    def scratch_folder(self, name: str) -> Path:
        """Return a persistent folder for unfinished work, the same for the same name."""


class LocalFiles(Files):
    """A local folder. Once it existed, it is never recreated: its disk may be unmounted temporarily.

    The first write leaves `MARKER` in it. A folder without it is a new store, or one of an earlier version.
    """

    def __init__(self, folder: Path, there: bool = False) -> None:
        """``there``: a driver has written to it already, so it must be visible on this machine, too."""
        self.folder: Path = expanded(folder).resolve()
        self.url = str(self.folder)
        self._there = there or self.folder.is_dir()
        self._marked = not self.publication and (there or (self.folder / MARKER).is_file())
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"store '{folder}' is a file: give a folder")

    def _require(self) -> None:
        gone = self._there and not self.folder.is_dir()
        if gone or (self._marked and not (self.folder / MARKER).is_file()):
            raise StoreError(
                f"store '{self.folder}' is not there: mount its disk, or set --store to a folder that all machines "
                "share, and run the same command again"
            )

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Create the parent folders and wrap errors of writing; creates the store's folder once. Raises StoreError."""
        self._require()
        try:
            if not self._there:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._there = True
            if not self._marked and not self.publication:
                (self.folder / MARKER).touch()
                self._marked = True
            _make_below(self.folder, path.parent)
            yield
        except OSError as error:
            self._require()
            raise _cannot_write(path, error) from error

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
            except FileNotFoundError:  # its writer is alive and has just finished it
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
        return map(self._read_or_none, names)

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
        # Rename first, so that only one caller wins: unlink could remove a file that another has just recreated.
        path = self.folder / name
        removed = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.gone")
        try:
            path.rename(removed)
            removed.unlink(missing_ok=True)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _cannot_write(path, error) from error
        return True

    @override
    def remove_folder(self, name: str) -> None:
        try:
            shutil.rmtree(self.folder / name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _cannot_write(self.folder / name, error) from error

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
                    with contextlib.suppress(FileNotFoundError):  # removed after the listing
                        if entry.name[0] != "." and entry.is_file():
                            found[entry.name] = now - entry.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise _cannot_read(self.folder / folder, error) from error
        return found

    @override
    def commit_folder(self, made: Path, name: str, marker: str) -> None:
        # Move next to the target, then rename: atomic even from another file system.
        target = self.folder / name
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        with self._writing(target):
            try:
                shutil.move(made, temporary)
                if target.is_dir() and not (target / marker).is_file():  # deleted, so that it is made anew
                    shutil.rmtree(target)
                temporary.rename(target)
            except OSError:
                shutil.rmtree(temporary, ignore_errors=True)
                if not target.is_dir():  # else another process has committed the same unit
                    raise

    @override
    def local_folder(self, name: str) -> Path:
        return self.folder / name

    @override
    def scratch_folder(self, name: str) -> Path:
        path = self.folder / "scratch" / name
        with self._writing(path / "any"):
            return path


def expanded(path: str | Path) -> Path:
    """Replace ``~`` and ``~user`` by a home folder. Raises UserError if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"'{path}': there is no such user: write ./{path} for a folder of that name") from None


def made_folder(folder: Path) -> Path:
    """Create a local folder if it does not exist, and return it. Raises StoreError without space or permission"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


def write_atomic(path: Path, data: bytes) -> None:
    """Write a local file atomically, even if the machine loses power. Raises StoreError without space or permission"""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, data)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _write_whole(path: Path, data: bytes) -> None:
    """Write a temporary file, flush it to disk, and rename it. Raises OSError."""
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"  # with_name fails for '.' and '/'
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _make_below(top: Path, folder: Path) -> None:
    """Create a folder and its parents below ``top``, but not ``top`` itself. Raises OSError."""
    if folder == top:
        return
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        _make_below(top, folder.parent)
        folder.mkdir(exist_ok=True)


def _cannot_read(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot read '{path}' ({error.strerror}): check its permissions")


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write '{path}' ({error.strerror}): free space, check permissions, or write elsewhere")
