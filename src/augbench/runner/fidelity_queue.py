"""What is to be measured of pools, and when it can be: once the chunks it is of are there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from math import inf

from augbench.core.specs import FidelitySpec


class Measurements:
    """By pool, so that a chunk costs the same however many pools there are. Under the board's lock."""

    def __init__(self, specs: Iterable[FidelitySpec], chunks: Mapping[str, Collection[int]]) -> None:
        """``chunks``: pool key -> chunks still to make."""
        self._waiting: dict[str, list[FidelitySpec]] = defaultdict(list)  # pool key -> what waits for its chunks
        self._ready: list[FidelitySpec] = []
        for spec in specs:
            self._waiting[spec.pool.key].append(spec)
        for pool in list(self._waiting):
            self.note(pool, chunks.get(pool, ()))

    def note(self, pool: str, missing: Collection[int]) -> None:
        """Of a pool, these chunks are still to be made."""
        waiting, there = self._waiting.pop(pool, []), min(missing, default=inf)  # the first so many chunks
        self._ready += [spec for spec in waiting if spec.chunks <= there]
        if later := [spec for spec in waiting if spec.chunks > there]:
            self._waiting[pool] = later

    def drop(self, pool: str) -> list[str]:
        """No more chunks of that pool are made: keys of what is never measured for that."""
        return [spec.key for spec in self._waiting.pop(pool, [])]

    def take(self) -> list[FidelitySpec]:
        """What can be measured and was not taken before."""
        ready, self._ready = self._ready, []
        return ready
