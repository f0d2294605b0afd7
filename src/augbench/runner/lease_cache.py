"""A cache of the leases that this driver has and of those that others have, to save requests to the store.

A driver looks for work all the time, and another driver may hold hundreds of leases for hours. So a refused lease is
not requested again until it was seen free. Two listings check all refused leases at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from augbench.storage.leases import Leases

LOOK_AGAIN = 2.0  # seconds between checks of other drivers' work


class LeaseCache:
    """Leases by key of a unit or block. Callers hold the scheduler's lock, except for atomic operations."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._ours: set[str] = set()
        self._refused: set[str] = set()  # held by another driver when requested, and not seen free since
        self._checked: dict[str, float] = {}  # kind of check -> time of the last one
        self._turn = 0  # units that `in_turn` has returned so far

    def __contains__(self, key: str) -> bool:
        """Whether this driver has that lease."""
        return key in self._ours

    def refused(self, key: str) -> bool:
        """Whether another driver has that lease, as far as known."""
        return key in self._refused

    def obtain(self, key: str) -> bool:
        """Acquire a lease unless it is cached; return whether this driver has it."""
        if key in self._ours or key in self._refused:
            return key in self._ours
        is_ours = self._leases.acquire(key)
        (self._ours if is_ours else self._refused).add(key)
        return is_ours

    def release(self, key: str) -> None:
        """Release a lease; no effect if this driver does not have it."""
        self._ours.discard(key)
        self._leases.release(key)

    def look(self) -> None:
        """If due, check which refused leases are free: two listings for any number of them."""
        if self._refused and self.due("leases"):
            self._refused.difference_update(self._leases.to_be_had(sorted(self._refused)))

    def in_turn(self, keys: Sequence[str], most: int) -> list[str]:
        """If due, return up to ``most`` of the keys that other drivers hold, cycling through all of them."""
        refused = [key for key in keys if key in self._refused]
        if not refused or not self.due("turn"):
            return []
        start = self._turn % len(refused)
        self._turn += most
        return (refused[start:] + refused[:start])[:most]

    def due(self, what: str) -> bool:
        """Whether a kind of check is due (throttled to one per `LOOK_AGAIN` seconds); if so, note its time."""
        now = time.monotonic()
        if now - self._checked.get(what, -LOOK_AGAIN) < LOOK_AGAIN:
            return False
        self._checked[what] = now
        return True
