"""Which leases of a run's work this driver has, and which others have: asked of the store as seldom as can be.

A driver asks again and again what it can do, and another driver may have hundreds of units for hours. So a lease that
was refused is not asked for again until it was seen free, which two listings tell of all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from augbench.storage.leases import Leases

LOOK_AGAIN = 2.0  # seconds between looks at what another driver does


class LeaseCache:
    """By keys of units, and of blocks of cells. What changes it is called under the board's lock, or is one step."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._ours: set[str] = set()
        self._refused: set[str] = set()  # another driver had them when we asked, and no look has found them free
        self._looked: dict[str, float] = {}  # what of other drivers was looked at -> when
        self._turn = 0  # how many units of others have had their turn

    def __contains__(self, key: str) -> bool:
        """Whether we have that lease."""
        return key in self._ours

    def refused(self, key: str) -> bool:
        """Whether another driver has that lease, as far as is known."""
        return key in self._refused

    def obtain(self, key: str) -> bool:
        """Whether the lease is ours now. Asks the store, unless it is known."""
        if key in self._ours or key in self._refused:
            return key in self._ours
        is_ours = self._leases.acquire(key)
        (self._ours if is_ours else self._refused).add(key)
        return is_ours

    def release(self, key: str) -> None:
        """Give a lease back; nothing where it is not ours."""
        self._ours.discard(key)
        self._leases.release(key)

    def look(self) -> None:
        """Every now and then, see which of the refused leases are free: by two listings, however many."""
        if self._refused and self.due("leases"):
            self._refused.difference_update(self._leases.to_be_had(sorted(self._refused)))

    def in_turn(self, keys: Sequence[str], most: int) -> list[str]:
        """Every now and then, a few of the units that others have: all have their turn."""
        refused = [key for key in keys if key in self._refused]
        if not refused or not self.due("turn"):
            return []
        start = self._turn % len(refused)
        self._turn += most
        return (refused[start:] + refused[:start])[:most]

    def due(self, what: str) -> bool:
        """Whether it is time for another look at something of other drivers; if so, it is noted as done."""
        now = time.monotonic()
        if now - self._looked.get(what, -LOOK_AGAIN) < LOOK_AGAIN:
            return False
        self._looked[what] = now
        return True
