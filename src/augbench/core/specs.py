"""Specs: the frozen descriptions of searches, adapters, pools, fidelity and cells; the one place of their keys.

A key is a readable prefix and the start of a hash of the spec's canonical JSON, for example
``ksdd2-inout-few5-n100-s2-1f3a9c02``. Bump `SCHEMA` when the meaning of a field changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from augbench.core.contracts import Shots
from augbench.core.hashing import digest
from augbench.core.protocol import Protocol, make_protocol

SCHEMA = 1
HASH_LENGTH = 8  # the prefix already separates everything but settings and protocols


def regime(shots: Shots | None) -> str:
    """``zero``, ``few5`` or ``full``: the shot regime as it appears in keys and tables."""
    return "full" if shots == "all" else "zero" if not shots else f"few{shots}"


class _Keyed:
    """A spec with a key. Subclasses give `kind`, `identity` (what is hashed) and `prefix` (what is read)."""

    kind: str
    identity: dict[str, Any]
    prefix: str

    @cached_property
    def key(self) -> str:
        """The readable prefix and eight hex digits."""
        return f"{self.prefix}-{digest({'schema': SCHEMA, 'kind': self.kind, **self.identity})[:HASH_LENGTH]}"


@dataclass(frozen=True)
class DataSpec:
    """Which samples a stage may see: a dataset (by content), a fold, and the share of negatives held out."""

    name: str  # the plug-in
    alias: str  # its name in tables and keys; the same as `name` unless the grid says otherwise
    settings: Mapping[str, Any]  # without locations
    fingerprint: str  # of table and files; "absent" while the files are not at hand
    fold: int | None
    holdout: float
    classes: tuple[str, ...] = ()  # recognition: the defect classes, in pool order; () in detection
    test_share: float | None = None  # the fold is a draw of this share to test on; None: it is one of k folds

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What of it is part of keys (the classes follow from the fingerprint)."""
        fields = ("name", "settings", "fingerprint", "fold", "holdout")
        share = {} if self.test_share is None else {"test_share": self.test_share}  # absent: keys stay as they were
        return {field: getattr(self, field) for field in fields} | share

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `identity`."""
        return digest(self.identity)

    @cached_property
    def prefix(self) -> str:
        """The dataset as it begins a key: ``ksdd2`` or, with folds, ``magnetic_tile-f0``."""
        return self.alias if self.fold is None else f"{self.alias}-f{self.fold}"

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `DataSpec.from_dict` is the way back."""
        return {**self.identity, "alias": self.alias, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> DataSpec:
        """The way back from `as_dict`."""
        return cls(**{**value, "classes": tuple(value["classes"])})


@dataclass(frozen=True)
class AugmenterSpec:
    """An augmenter by name and settings; `alias` names it in tables, so one plug-in can stand in several rows."""

    name: str
    alias: str
    settings: Mapping[str, Any]  # as the plug-in takes them
    key_settings: Mapping[str, Any]  # as they enter keys: paths replaced by content

    @cached_property
    def digest(self) -> str:
        """SHA-256 of name and key settings; the alias is not part of it, so equal settings share pools."""
        return digest({"name": self.name, "settings": self.key_settings})

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `AugmenterSpec(**value)` is the way back."""
        return {
            "name": self.name,
            "alias": self.alias,
            "settings": dict(self.settings),
            "key_settings": dict(self.key_settings),
        }


@dataclass(frozen=True)
class AdapterSpec(_Keyed):
    """What an augmenter learns before generating. One serves all seeds and all N_aug."""

    data: DataSpec
    augmenter: AugmenterSpec
    shots: Shots | None  # None: the augmenter does not read them in this regime
    draw: int | None
    regions: bool = False  # it reads the masks of all training positives
    kind = "adapter"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What is hashed."""
        return {
            "data": self.data.digest,
            "augmenter": self.augmenter.digest,
            "shots": self.shots,
            "draw": self.draw,
            **_where_read(self.regions),
        }

    @cached_property
    def prefix(self) -> str:
        """Dataset, augmenter, and the regime where it is read."""
        return _join(self.data.prefix, self.augmenter.name, _read_regime(self.shots, self.draw))

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `AdapterSpec.from_dict` is the way back."""
        return {
            "data": self.data.as_dict(),
            "augmenter": self.augmenter.as_dict(),
            "shots": self.shots,
            "draw": self.draw,
            **_where_read(self.regions),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> AdapterSpec:
        """The way back from `as_dict`."""
        return cls(
            **{**value, "data": DataSpec.from_dict(value["data"]), "augmenter": AugmenterSpec(**value["augmenter"])}
        )


@dataclass(frozen=True)
class PoolSpec(_Keyed):
    """An ordered set of synthetic pictures that grows in whole chunks; N_aug takes the first N_aug."""

    data: DataSpec
    augmenter: AugmenterSpec
    shots: Shots | None  # None: not read in this regime, so the pool is shared by all that do not read them
    draw: int | None
    seed: int
    chunk_size: int
    fresh_for: int | None = None  # an N_aug, where the grid asks for new pictures for each (`fresh_pools`)
    regions: bool = False  # it reads the masks of all training positives
    kind = "pool"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What is hashed."""
        return {
            "data": self.data.digest,
            "augmenter": self.augmenter.digest,
            "shots": self.shots,
            "draw": self.draw,
            "seed": self.seed,
            "chunk_size": self.chunk_size,
            "fresh_for": self.fresh_for,
            **_where_read(self.regions),
        }

    @cached_property
    def prefix(self) -> str:
        """Dataset, augmenter, the regime where it is read, and the seed."""
        fresh = f"n{self.fresh_for}" if self.fresh_for else ""
        return _join(self.data.prefix, self.augmenter.name, _read_regime(self.shots, self.draw), fresh, f"s{self.seed}")

    @property
    def adapter(self) -> AdapterSpec:
        """What its augmenter learns first, if it learns."""
        return AdapterSpec(self.data, self.augmenter, self.shots, self.draw, self.regions)

    def chunks_for(self, n: int) -> int:
        """How many chunks hold the first ``n`` pictures."""
        return -(-n // self.chunk_size)

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `PoolSpec.from_dict` is the way back."""
        return {
            **self.adapter.as_dict(),
            "seed": self.seed,
            "chunk_size": self.chunk_size,
            "fresh_for": self.fresh_for,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> PoolSpec:
        """The way back from `as_dict`."""
        return cls(
            **{**value, "data": DataSpec.from_dict(value["data"]), "augmenter": AugmenterSpec(**value["augmenter"])}
        )


@dataclass(frozen=True)
class SearchSpec(_Keyed):
    """The choice of an augmenter's settings by the quality of what they make, before anything is learned from all
    shots. One serves the adapter and all pools of a row."""

    adapter: AdapterSpec  # that it is for
    kind = "search"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What is hashed: the adapter's identity; what is tried is among the augmenter's settings."""
        return self.adapter.identity

    @cached_property
    def prefix(self) -> str:
        """As the adapter's."""
        return self.adapter.prefix

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return self.adapter.as_dict()


@dataclass(frozen=True)
class FidelitySpec(_Keyed):
    """How close the first pictures of a pool are to real defects, seen through one extractor."""

    pool: PoolSpec
    extractor: str  # see classifiers.features
    pictures: int  # the first so many; the same for all pools that are compared
    kind = "fidelity"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What is hashed."""
        return {"pool": digest(self.pool.identity), "extractor": self.extractor, "pictures": self.pictures}

    @cached_property
    def prefix(self) -> str:
        """The pool's, extractor and number of pictures."""
        return _join(self.pool.prefix, self.extractor.partition(".")[0], f"f{self.pictures}")

    @property
    def chunks(self) -> int:
        """How many of the pool's chunks must be there."""
        return self.pool.chunks_for(self.pictures)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"pool": self.pool.as_dict(), "extractor": self.extractor, "pictures": self.pictures}


@dataclass(frozen=True)
class Cell(_Keyed):
    """One training of one classifier."""

    data: DataSpec
    augmenter: AugmenterSpec
    shots: Shots
    draw: int | None  # None unless shots is a number > 0
    n_aug: int  # in recognition: per class
    seed: int
    protocol: Protocol
    fresh_pools: bool = False
    kind = "cell"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What is hashed."""
        return {
            "data": self.data.digest,
            "augmenter": self.augmenter.digest,
            "shots": self.shots,
            "draw": self.draw,
            "n_aug": self.n_aug,
            "seed": self.seed,
            "protocol": self.protocol.digest,
            "fresh_pools": self.fresh_pools,
        }

    @cached_property
    def prefix(self) -> str:
        """Dataset, augmenter, regime, N_aug and seed."""
        return _join(
            self.data.prefix,
            self.augmenter.alias,
            _read_regime(self.shots, self.draw),
            f"n{self.n_aug}",
            f"s{self.seed}",
        )

    @cached_property
    def block(self) -> str:
        """The block of cells that one lease covers: all N_aug and seeds of one row of a table."""
        what = {k: v for k, v in self.identity.items() if k not in ("n_aug", "seed")}
        return f"cells-{digest({'schema': SCHEMA, **what})[:16]}"

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `Cell.from_dict` is the way back."""
        return {
            "data": self.data.as_dict(),
            "augmenter": self.augmenter.as_dict(),
            "shots": self.shots,
            "draw": self.draw,
            "n_aug": self.n_aug,
            "seed": self.seed,
            "protocol": self.protocol.model_dump(mode="json", exclude={"about", "sources"}),  # prose is in the grid
            "fresh_pools": self.fresh_pools,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Cell:
        """The way back from `as_dict`."""
        return cls(
            **{
                **value,
                **_nested_specs(value),
                "protocol": make_protocol(value["protocol"]),
            }
        )


def _nested_specs(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": DataSpec.from_dict(value["data"]), "augmenter": AugmenterSpec(**value["augmenter"])}


def _where_read(regions: bool) -> dict[str, bool]:
    """Absent where they are not read: keys stay as they were before there were any."""
    return {"regions": True} if regions else {}


def _read_regime(shots: Shots | None, draw: int | None) -> str:
    if shots is None:
        return ""
    return regime(shots) + (f"d{draw}" if draw else "")


def _join(*parts: str) -> str:
    return "-".join(part for part in parts if part)
