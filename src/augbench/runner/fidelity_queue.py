"""A queue of fidelity measurements. Each becomes ready when its chunks are committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from math import inf

from augbench.core.specs import FidelitySpec


class Measurements:
    """Pending measurements by pool: a chunk costs the same for any number of pools. Callers hold a lock."""

    def __init__(self, specs: Iterable[FidelitySpec], chunks: Mapping[str, Collection[int]]) -> None:
        """``chunks`` has the missing chunks by pool key."""
        self._waiting: dict[str, list[FidelitySpec]] = defaultdict(list)  # pool key -> specs that wait for its chunks
        self._ready: list[FidelitySpec] = []
        for spec in specs:
            self._waiting[spec.pool.key].append(spec)
        for pool in list(self._waiting):
            self.note(pool, chunks.get(pool, ()))

    def note(self, pool: str, missing: Collection[int]) -> None:
        """Update the missing chunks of a pool."""
        waiting = self._waiting.pop(pool, [])
        complete = min(missing, default=inf)  # chunks before the first missing one
        self._ready += [spec for spec in waiting if spec.chunks <= complete]
        if later := [spec for spec in waiting if spec.chunks > complete]:
            self._waiting[pool] = later

    def drop(self, pool: str) -> list[str]:
        """Drop the waiting measurements of a pool that gets no more chunks; return their keys."""
        return [spec.key for spec in self._waiting.pop(pool, [])]

    def take_ready(self) -> list[FidelitySpec]:
        """Return the ready measurements, each of them once."""
        ready, self._ready = self._ready, []
        return ready
