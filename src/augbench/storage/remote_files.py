"""Store files at a URL supported by fsspec (``s3://``, ``gs://``, ``az://``, ``memory://``, ...).

Object stores show only complete objects, so writes are atomic. Calls are retried after transient errors.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from typing_extensions import override

from augbench.core.errors import StoreError, UserError, brief
from augbench.storage.files import Files, made_folder

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

ATTEMPTS = 5  # then the store counts as unreachable
FIRST_WAIT = 0.5  # seconds between attempts; each further wait is twice as long
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "obs", "tos", "memory"}
"""Protocols of object stores: objects appear when complete, and there are no folders to create."""
TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
"""Names of the modification time in listings of fsspec's file systems, the most reliable first."""
READ_TOGETHER = 128  # concurrent requests, to overlap latencies


class RemoteFiles(Files):
    """Files at an fsspec URL. Every call is retried after transient errors."""

    def __init__(self, url: str, protocol: str) -> None:
        self.url = url
        self.one_process = protocol == "memory"
        self._holds_objects = protocol in OBJECT_STORES
        self._fs, self._root = _file_system(url, protocol)
        self._scratch: tempfile.TemporaryDirectory | None = None
        self._exhausted = False  # retries were exhausted: no more retries until the store answers

    @override
    def top(self) -> set[str]:
        # No retries, so that a wrong URL fails immediately.
        return self.names("", retry=False)

    @override
    def names(self, folder: str, retry: bool = True) -> set[str]:
        try:
            found = self._try("list", folder, lambda: self._fs.ls(self._path(folder), detail=False), retry)
        except FileNotFoundError:
            return set()
        return {name for path in found if (name := path.rstrip("/").rpartition("/")[2]) and name[0] != "."}

    @override
    def exists(self, name: str) -> bool:
        # Not fsspec's isfile, which treats any error as "missing". From object stores, read the (small) file: info() of
        # s3fs and gcsfs also lists possible folder contents if the object is missing.
        try:
            if self._holds_objects:
                self._try("look for", name, lambda: self._fs.cat_file(self._path(name)))
                return True
            return self._try("look for", name, lambda: self._fs.info(self._path(name)))["type"] == "file"
        except FileNotFoundError:
            return False

    @override
    def read(self, name: str) -> bytes:
        return self._try("read", name, lambda: self._fs.cat_file(self._path(name)))

    @override
    def read_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        for start in range(0, len(names), READ_TOGETHER):
            some = names[start : start + READ_TOGETHER]
            paths = [self._path(name) for name in some]
            found = self._try("read", some[0], partial(self._fs.cat, paths, on_error="return"))
            for name, path in zip(some, paths, strict=True):
                content = found.get(path)
                if isinstance(content, bytes):
                    yield content
                elif isinstance(content, FileNotFoundError):
                    yield None
                else:  # any other error: retry this file alone
                    yield self._read_or_none(name)

    @override
    def write(self, name: str, data: bytes) -> None:
        put = self._put_object if self._holds_objects else self._put_and_rename
        self._try_to_write(name, lambda: put(self._path(name), data))

    @override
    def create(self, name: str, data: bytes) -> bool:
        # Exclusive on S3; elsewhere two callers may succeed, which is harmless.
        try:
            self._try_to_write(name, lambda: self._put_object(self._path(name), data, mode="create"))
        except FileExistsError:
            return False
        return True

    def _try_to_write(self, name: str, put: Callable[[], None]) -> None:
        try:
            self._try("write", name, put)
        except FileNotFoundError as error:
            raise StoreError(f"cannot write '{self.where(name)}' ({error}): create the bucket first") from error

    @override
    def remove(self, name: str) -> bool:
        if not self.exists(name):
            return False
        with contextlib.suppress(FileNotFoundError):
            self._try("remove", name, lambda: self._fs.rm_file(self._path(name)))
        return True

    @override
    def remove_folder(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._try("remove", name, lambda: self._fs.rm(self._path(name), recursive=True))

    @override
    def age(self, name: str) -> float | None:
        # Compares the clocks of server and client, which should agree within half a minute.
        try:
            return time.time() - self._try("look at", name, lambda: self._fs.modified(self._path(name))).timestamp()
        except FileNotFoundError:
            return None

    @override
    def ages(self, folder: str) -> dict[str, float | None]:
        try:
            found = self._try("list", folder, lambda: self._fs.ls(self._path(folder), detail=True))
        except FileNotFoundError:
            return {}
        now = time.time()
        named = {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in found if entry["type"] == "file"}
        times = {name: _time_of(entry) for name, entry in named.items() if name and name[0] != "."}
        return {name: None if written is None else now - written for name, written in times.items()}

    @override
    def commit_folder(self, made: Path, name: str, marker: str) -> None:
        files = [path.relative_to(made).as_posix() for path in sorted(made.rglob("*")) if path.is_file()]
        for file in sorted(files, key=lambda file: file == marker):
            self.write(f"{name}/{file}", (made / file).read_bytes())
        shutil.rmtree(made)

    @override
    def local_folder(self, name: str) -> Path:
        # Copied once per process, into a temporary folder.
        self._scratch = self._scratch or tempfile.TemporaryDirectory(prefix="augbench-")
        copy = Path(self._scratch.name) / name
        if not copy.is_dir():
            temporary = copy.with_name(f".{copy.name}.part")
            for path in self._try("list", name, lambda: self._fs.find(self._path(name))):
                relative = path.removeprefix(self._path(name)).lstrip("/")
                target = temporary / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.read(f"{name}/{relative}"))
            temporary.rename(copy)
        return copy

    @override
    def scratch_folder(self, name: str) -> Path:
        # Local to this machine: other machines restart the work. Not in /tmp, where other users could place files.
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        return made_folder(cache / "augbench" / "scratch" / digest / name)

    def _put_object(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        if not self._holds_objects:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(path, data, mode=mode)

    def _put_and_rename(self, path: str, data: bytes) -> None:
        """Write a temporary file and rename it, for file systems that show incomplete files (sftp, hdfs)."""
        folder, _, file = path.rpartition("/")
        temporary = f"{folder}/.{file}.{uuid.uuid4().hex[:8]}.part"
        self._put_object(temporary, data)
        self._fs.mv(temporary, path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _try(self, verb: str, name: str, action: Callable[[], T], retry: bool = True) -> T:
        """Call ``action`` and retry after transient errors. FileNotFoundError and FileExistsError are not retried."""
        attempts = Retrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_attempt(ATTEMPTS if retry and not self._exhausted else 1),
            wait=wait_exponential_jitter(FIRST_WAIT, jitter=FIRST_WAIT),
            reraise=True,
        )
        try:
            answer = attempts(action)
        except (FileNotFoundError, FileExistsError):
            self._exhausted = False
            raise
        except Exception as error:  # fsspec's backends have no common base class
            way_out = "check the URL, your credentials and your permissions"
            if may_pass(error):
                self._exhausted = True
                number, seconds = map(attempts.statistics.get, ("attempt_number", "delay_since_first_attempt"))
                way_out = f"run the same command again when it answers (attempts: {number}, in {seconds:.0f} s)"
            what = " ".join(str(error).split())[:160] or type(error).__name__
            raise StoreError(f"cannot {verb} '{self.where(name).rstrip('/')}' ({what}): {way_out}") from error
        self._exhausted = False
        return answer


def _time_of(entry: Mapping[str, Any]) -> float | None:
    """Return the modification time of a listed file in Unix seconds; None if the listing has none."""
    for name in TIMES:
        value = entry.get(name)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None


def _file_system(url: str, protocol: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it. Raises UserError."""
    import fsspec

    if "::" in url:
        raise UserError(
            f"store '{url}': chained URLs cannot be written to: give a plain one such as s3://bucket/folder"
        )
    try:
        fsspec.get_filesystem_class(protocol)
        # No caching of listings, since other machines write to the same store. With max_concurrency > 1, s3fs requests
        # the size of every file before it reads, to split large files.
        options = {"max_concurrency": 1} if protocol in ("s3", "s3a") else {}
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        how = "pip install 'augbench[s3]'" if protocol in ("s3", "s3a") else "with pip"
        raise UserError(f"store '{url}': {' '.join(str(error).split())} ({how})") from None
    except Exception as error:  # of the backend: it cannot connect, lacks a library, or has no such archive
        what = brief(error, 160) or type(error).__name__
        raise UserError(f"store '{url}' cannot be used ({what}): give a path, or a URL like s3://bucket/x") from None
    root = root.rstrip("/")
    if not root and protocol != "memory":
        raise UserError(f"store '{url}' names no bucket: give {protocol}://bucket/folder")
    return fs, root


TRANSIENT = """EAGAIN EBUSY ECONNABORTED ECONNREFUSED ECONNRESET EHOSTUNREACH EIO ENETDOWN ENETUNREACH EPIPE EREMOTEIO
ESTALE ETIMEDOUT"""
TRANSIENT_ERRNOS = {getattr(errno, name) for name in TRANSIENT.split() if hasattr(errno, name)}
TRANSIENT_TYPES = {  # names of base classes from optional libraries
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "botocore.parsers.ResponseParserError",
    "aiohttp.client_exceptions.ClientError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
    "azure.core.exceptions.ServiceRequestError",
    "azure.core.exceptions.ServiceResponseError",
}


def may_pass(error: BaseException) -> bool:
    """Whether an error of a remote store is transient: overload or network, not permissions or a wrong name."""
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in TRANSIENT_ERRNOS
    return any(f"{kind.__module__}.{kind.__qualname__}" in TRANSIENT_TYPES for kind in type(error).__mro__)
