"""The lineage of a cell: the pool slices, adapters and searches behind its synthetic images.

Records name it. Older records do not: theirs is inferred from their settings and from the pools on record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from augbench.core import registry
from augbench.core.contracts import Augmenter, Shots
from augbench.core.errors import UserError
from augbench.core.specs import AugmenterSpec, DataSpec, PoolSpec, SearchSpec
from augbench.planning.outline import shots_and_draw
from augbench.report.evidence.part_costs import MadePart
from augbench.storage.store import FIX_HINT

FIELDS = ("pools", "adapters", "searches")
"""The fields of a record's provenance that hold its lineage."""


@dataclass(frozen=True)
class Lineage:
    """What the synthetic images of a cell come from; all empty for a cell without synthetic images."""

    pools: tuple[tuple[str | None, int], ...] = ()  # key and number of images of each slice; None: not on record
    adapters: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    inferred: bool = False  # from the settings, as the record is older than these fields


class Lineages:
    """Reads the lineage of cells from their records."""

    def __init__(self, parts: Mapping[str, MadePart]) -> None:
        """``parts`` are those on record, see `part_costs.read_costs`; only inference needs them."""
        self._pools: dict[tuple[str, str, int, int | None], list[PoolSpec]] = {}
        self._have_shots: dict[str, set[bool]] = {}  # digest of an augmenter -> whether its pools are of some shots
        self._plugins: dict[str, Augmenter | None] = {}
        for _, part in sorted(parts.items()):
            if part.kind == "pools" and part.spec is not None:
                pool = PoolSpec.from_dict(part.spec)
                where = (pool.data.digest, pool.augmenter.digest, pool.seed, pool.fresh_for)
                self._pools.setdefault(where, []).append(pool)
                self._have_shots.setdefault(pool.augmenter.digest, set()).add(pool.shots is not None)

    def of(self, record: Mapping[str, Any]) -> Lineage:
        """Return the lineage of a cell, recorded or inferred.

        Raises:
            UserError: the record's lineage is damaged.
        """
        origin = record["provenance"]
        if origin.get("pools") is None:
            return self._inferred(record["spec"])
        try:
            pools = tuple((str(use["key"]), int(use["n"])) for use in origin["pools"])
            return Lineage(pools, tuple(origin["adapters"]), tuple(origin["searches"]))
        except (KeyError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise UserError(f"the lineage in the record of '{record['key']}' is damaged ({why}): {FIX_HINT}") from None

    def _inferred(self, spec: Mapping[str, Any]) -> Lineage:
        slices = [(self._pool(spec, augmenter), n) for augmenter, n in slices_of(spec)]
        behind = [(pool.adapter, self._plugin(pool.augmenter)) for pool, _ in slices if pool is not None]
        # A part that may exist is named, so that it counts as not on record rather than as free.
        return Lineage(
            tuple((None if pool is None else pool.key, n) for pool, n in slices),
            tuple(adapter.key for adapter, plugin in behind if plugin is None or plugin.learns),
            tuple(SearchSpec(adapter).key for adapter, plugin in behind if plugin is None or plugin.candidates()),
            inferred=bool(slices),
        )

    def _pool(self, spec: Mapping[str, Any], augmenter: str) -> PoolSpec | None:
        """Return the only pool on record that a slice of this augmenter (a digest) can be of; None without one."""
        fresh = spec["n_aug"] if spec["fresh_pools"] else None
        found = self._pools.get((DataSpec.from_dict(spec["data"]).digest, augmenter, spec["seed"], fresh))
        reads = self._reads_shots(found[0].augmenter, spec["shots"]) if found else None
        if not found or reads is None:
            return None
        read = shots_and_draw(spec["shots"], spec["draw"]) if reads else shots_and_draw(None, None)
        fitting = [pool for pool in found if shots_and_draw(pool.shots, pool.draw) == read]
        return fitting[0] if len(fitting) == 1 else None

    def _reads_shots(self, augmenter: AugmenterSpec, shots: Shots) -> bool | None:
        """Return whether an augmenter reads these shots; None where neither its plug-in nor its pools tell."""
        plugin = self._plugin(augmenter)
        if plugin is not None:
            return "shots" in plugin.reads(shots)
        have_shots = self._have_shots[augmenter.digest]
        if len(have_shots) == 1:
            return True in have_shots
        return None if shots else False

    def _plugin(self, augmenter: AugmenterSpec) -> Augmenter | None:
        if augmenter.digest not in self._plugins:
            self._plugins[augmenter.digest] = plugin_of(augmenter)
        return self._plugins[augmenter.digest]


def slices_of(spec: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return (digest of an augmenter, number of images) of each pool slice of a cell.

    A mixture has a slice for each of its parts, and its first part gets the remainder, as in `planning.plan`.

    Args:
        spec: the cell's spec, as in its record.
    """
    images = spec["n_aug"] * max(len(spec["data"]["classes"]), 1)
    shares = shares_of(spec["augmenter"])
    counts = [int(share * images) for _, share in shares]
    counts[0] += images - sum(counts)
    return [(name, n) for (name, _), n in zip(shares, counts, strict=True) if n]


def shares_of(augmenter: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return (digest of an augmenter, share of the images): the parts of a mixture, else the augmenter itself."""
    settings = augmenter["key_settings"]
    parts = settings.get("parts") if list(settings) == ["parts"] else None
    if isinstance(parts, list) and parts and all(isinstance(one, list | tuple) and len(one) == 2 for one in parts):
        return [(str(name), float(share)) for name, share in parts]
    return [(AugmenterSpec(**augmenter).digest, 1.0)]


def plugin_of(augmenter: AugmenterSpec) -> Augmenter | None:
    """Build an augmenter from its spec; None where it is not installed or rejects the settings."""
    try:
        return registry.make("augmenters", augmenter.name, dict(augmenter.settings))
    except UserError:
        return None


def inference_notes(inferred: int, records: int) -> list[str]:
    """Say how many of the records with synthetic images are older than the recorded lineage; nothing where none is."""
    if not inferred:
        return []
    return [
        f"The pools of {inferred:,} of {records:,} records were inferred from their settings: these records are older "
        "than the recorded lineage. Where several pools may fit, the cost is not on record."
    ]
