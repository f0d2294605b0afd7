"""The pools that a cell uses, found from its spec and from what a store records about pools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from augbench.core import registry
from augbench.core.contracts import Augmenter
from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.core.specs import DataSpec, PoolSpec

T = TypeVar("T")


class PoolIndex(Generic[T]):
    """Index of pools with a value each, looked up by the cells that use them."""

    def __init__(self, pools: Iterable[tuple[PoolSpec, T]]) -> None:
        self._pools: dict[tuple[str, str, int, int | None], list[tuple[PoolSpec, T]]] = {}
        for pool, known in pools:
            where = (pool.data.digest, pool.augmenter.digest, pool.seed, pool.fresh_for)
            self._pools.setdefault(where, []).append((pool, known))

    def find(self, spec: Mapping[str, Any], augmenter: str) -> T | None:
        """Return the value of the pool that a cell uses; None where it is unknown.

        The pool is that of the cell's shots where the augmenter reads them, else the one for all shots.

        Args:
            spec: the cell's spec, as in its record.
            augmenter: a digest from `slices_of`.
        """
        fresh = spec["n_aug"] if spec["fresh_pools"] else None
        found = self._pools.get((DataSpec.from_dict(spec["data"]).digest, augmenter, spec["seed"], fresh), [])
        own = [known for pool, known in found if (pool.shots, pool.draw) == (spec["shots"], spec["draw"])]
        for_all = [known for pool, known in found if pool.shots is None and not _reads_shots(pool, spec["shots"])]
        return next(iter(own + for_all), None)


def slices_of(augmenter: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield (digest of an augmenter, fraction of the images): the parts of a mixture, else the augmenter itself."""
    settings = augmenter["key_settings"]
    parts = settings.get("parts") if list(settings) == ["parts"] else None
    if isinstance(parts, list) and parts and all(isinstance(part, list) and len(part) == 2 for part in parts):
        yield from ((str(name), float(share)) for name, share in parts)
    else:
        yield digest({"name": augmenter["name"], "settings": settings}), 1.0


def plugin_of(pool: PoolSpec) -> Augmenter | None:
    """Build the augmenter of a pool; None where it is not installed or rejects the settings."""
    try:
        return registry.make("augmenters", pool.augmenter.name, dict(pool.augmenter.settings))
    except UserError:
        return None


def _reads_shots(pool: PoolSpec, shots: int | str) -> bool:
    """Whether the augmenter reads these shots, so that it needs a pool for them; False where it is not installed."""
    plugin = plugin_of(pool)
    return plugin is not None and "shots" in plugin.reads(shots)
