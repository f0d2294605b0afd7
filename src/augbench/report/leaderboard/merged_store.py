"""Several stores seen as one that can only be read: what evidence is drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from typing_extensions import override

from augbench.storage.files import Files
from augbench.storage.store import Store


class MergedStore(Store):
    """The units of all stores; of one that several hold, that of the first."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.files = MergedFiles([store.files for store in stores])


class MergedFiles(Files):
    """The files of several places by name. Nothing is ever written."""

    def __init__(self, places: Sequence[Files]) -> None:
        self._places = places
        self.url = ", ".join(place.url for place in places)

    @override
    def where(self, name: str) -> str:
        return self._holder(name).where(name)

    @override
    def top(self) -> set[str]:
        return set().union(*(place.top() for place in self._places))

    @override
    def names(self, folder: str) -> set[str]:
        return set().union(*(place.names(folder) for place in self._places))

    @override
    def exists(self, name: str) -> bool:
        return any(place.exists(name) for place in self._places)

    @override
    def read(self, name: str) -> bytes:
        return self._holder(name).read(name)

    @override
    def read_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        if len(self._places) == 1:
            yield from self._places[0].read_many(names)
            return
        for name in names:  # each place is asked only for what those before it lack
            found = None
            for place in self._places:
                (found,) = place.read_many([name])
                if found is not None:
                    break
            yield found

    @override
    def age(self, name: str) -> float | None:
        return self._holder(name).age(name)

    @override
    def write(self, name: str, data: bytes) -> None:
        _refuse()

    @override
    def create(self, name: str, data: bytes) -> bool:
        _refuse()

    @override
    def remove(self, name: str) -> bool:
        _refuse()

    @override
    def commit_folder(self, made: Path, name: str, marker: str) -> None:
        _refuse()

    @override
    def local_folder(self, name: str) -> Path:
        return self._holder(name).local_folder(name)

    @override
    def scratch_folder(self, name: str) -> Path:
        _refuse()

    def _holder(self, name: str) -> Files:
        """The first place with that file; the first of all where none has it, whose error says so."""
        return next((place for place in self._places if place.exists(name)), self._places[0])


def _refuse() -> NoReturn:
    raise AssertionError("united stores are for reading")
