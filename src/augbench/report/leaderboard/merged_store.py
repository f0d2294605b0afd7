"""A read-only view of several stores as one, for `report.evidence`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

from typing_extensions import override

from augbench.storage.files import Files
from augbench.storage.store import Store


class MergedStore(Store):
    """The units of all stores; the first store wins."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.files = MergedFiles([store.files for store in stores])


class MergedFiles(Files):
    """The files of several stores by name, read-only."""

    def __init__(self, parts: Sequence[Files]) -> None:
        self._parts = parts
        self.url = ", ".join(part.url for part in parts)

    @override
    def where(self, name: str) -> str:
        return self._holder(name).where(name)

    @override
    def names(self, folder: str) -> set[str]:
        return set().union(*(part.names(folder) for part in self._parts))

    @override
    def exists(self, name: str) -> bool:
        return any(part.exists(name) for part in self._parts)

    @override
    def read(self, name: str) -> bytes:
        return self._holder(name).read(name)

    @override
    def read_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        if len(self._parts) == 1:
            yield from self._parts[0].read_many(names)
            return
        for name in names:  # ask each store only for what those before it lack
            found = None
            for part in self._parts:
                (found,) = part.read_many([name])
                if found is not None:
                    break
            yield found

    def _refuse(self, *_: object) -> NoReturn:
        raise AssertionError("merged stores are only for reading records, scores and costs")

    top = age = write = create = remove = remove_folder = commit_folder = local_folder = scratch_folder = _refuse

    def _holder(self, name: str) -> Files:
        """Return the first store with that file; without any, the first store, whose error reports it."""
        return next((part for part in self._parts if part.exists(name)), self._parts[0])
