"""Specs: frozen descriptions of searches, adapters, pools, fidelity, features and cells, and their keys.

A key is a readable prefix and the first digits of a hash of the spec's canonical JSON, for example
``ksdd2-inout-few5-n100-s2-1f3a9c02``. Bump `SCHEMA` when the meaning of a field changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from augbench.core.contracts import Shots
from augbench.core.filters import make_filters
from augbench.core.hashing import digest
from augbench.core.protocol import PIXELS, UNKEYED, Protocol, make_protocol

SCHEMA = 1
AUDIT_METHOD = 2  # of the search for near-copies; another number for one that finds other pairs
HASH_LENGTH = 8  # enough, since the prefix separates everything except settings and protocols


Draw = int | tuple[str, ...] | None
"""Which samples the shots are: the number of a random draw, or named ones, sorted ids; None: no or all samples."""


def regime(shots: Shots | None, draw: Draw = None) -> str:
    """Return the name of the shot regime in keys and tables: ``zero``, ``few5``, ``full``; ``ids5_1f3a9c`` if named."""
    if isinstance(draw, tuple):
        return f"ids{len(draw)}_{digest(draw)[:6]}"
    return "full" if shots == "all" else "zero" if not shots else f"few{shots}"


def shots_in_all(shots: int, draw: Draw, classes: Sequence[str]) -> int:
    """Return the number of real defect images: shots of a random draw are per class in recognition."""
    return shots if isinstance(draw, tuple) else shots * max(len(classes), 1)


class _Keyed:
    """A spec with a key. Subclasses define `kind`, `identity` (the hashed values) and `prefix` (the readable part)."""

    kind: str

    @property
    def identity(self) -> dict[str, Any]:
        """The hashed values."""
        raise NotImplementedError

    @property
    def prefix(self) -> str:
        """The readable part of the key."""
        raise NotImplementedError

    @cached_property
    def key(self) -> str:
        """The prefix and eight hex digits."""
        return f"{self.prefix}-{digest({'schema': SCHEMA, 'kind': self.kind, **self.identity})[:HASH_LENGTH]}"


@dataclass(frozen=True)
class DataSpec:
    """The samples that a stage may see: a dataset (by content), a fold, and the share of held-out negatives."""

    name: str  # the plug-in
    alias: str  # its name in tables and keys; `name` unless the grid sets another
    settings: Mapping[str, Any]  # without locations such as root
    fingerprint: str  # of table and files; "absent" if the files are not available
    fold: int | None
    holdout: float
    classes: tuple[str, ...] = ()  # recognition: the defect classes, in pool order; () in detection
    test_share: float | None = None  # the fold is a random test split of this share; None: one of k folds

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The fields that enter keys (the fingerprint determines the classes)."""
        fields = ["name", "settings", "fingerprint", "fold", "holdout"]
        if self.test_share is not None:  # no entry for None, as in older keys
            fields.append("test_share")
        return {field: getattr(self, field) for field in fields}

    @cached_property
    def content(self) -> dict[str, Any]:
        """The fields that decide its images, without those that split them."""
        return {field: getattr(self, field) for field in ("name", "settings", "fingerprint")}

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of `identity`."""
        return digest(self.identity)

    @cached_property
    def prefix(self) -> str:
        """The first part of keys: ``ksdd2`` or, with folds, ``magnetic_tile-f0``."""
        return self.alias if self.fold is None else f"{self.alias}-f{self.fold}"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; inverse of `DataSpec.from_dict`."""
        return {**self.identity, "alias": self.alias, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> DataSpec:
        """Create it from the result of `as_dict`."""
        return cls(**{**value, "classes": tuple(value["classes"])})


@dataclass(frozen=True)
class AugmenterSpec:
    """An augmenter by name and settings; `alias` is its name in tables, so one plug-in can have several rows."""

    name: str
    alias: str
    settings: Mapping[str, Any]  # arguments of the plug-in's ``Config``
    key_settings: Mapping[str, Any]  # settings that enter keys, with paths replaced by digests
    filters: Mapping[str, Any] = field(default_factory=dict)  # `core.filters.Filters.as_dict`: {} keeps every image

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of name, key settings and filters. The alias is not part of it, so equal settings share pools."""
        filters = {"filters": make_filters(self.filters).key_fields} if self.filters else {}  # as in older keys
        return digest({"name": self.name, "settings": self.key_settings, **filters})

    @property
    def unfiltered(self) -> AugmenterSpec:
        """The same augmenter without filters: what it learns does not depend on them."""
        return replace(self, filters={})

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; inverse of `AugmenterSpec(**value)`."""
        settings = {"settings": dict(self.settings), "key_settings": dict(self.key_settings)}
        filters = {"filters": dict(self.filters)} if self.filters else {}
        return {"name": self.name, "alias": self.alias, **settings, **filters}


@dataclass(frozen=True)
class AdapterSpec(_Keyed):
    """The weights that an augmenter trains before it generates, shared by all seeds and N_aug."""

    data: DataSpec
    augmenter: AugmenterSpec
    shots: Shots | None  # None: the augmenter does not read them in this regime
    draw: Draw
    regions: bool = False  # whether the augmenter reads the masks of all training positives
    adapter_seed: int = 0  # of its randomness
    kind = "adapter"

    @property
    def identity(self) -> dict[str, Any]:
        """The hashed values."""
        return {
            "data": self.data.digest,
            "augmenter": self.augmenter.digest,
            "shots": self.shots,
            "draw": self.draw,
            **_where_read(self.regions),
            **_where_seeded(self.adapter_seed),
        }

    @property
    def prefix(self) -> str:
        """Dataset, augmenter, the regime if shots are read, and the adapter's seed if it is not 0."""
        regime, seed = _read_regime(self.shots, self.draw), _adapter_name(self.adapter_seed)
        return _join(self.data.prefix, self.augmenter.name, regime, seed)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; inverse of `AdapterSpec.from_dict`."""
        return self.identity | {"data": self.data.as_dict(), "augmenter": self.augmenter.as_dict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> AdapterSpec:
        """Create it from the result of `as_dict`."""
        return cls(**{**value, **_nested_specs(value)})


@dataclass(frozen=True)
class PoolSpec(_Keyed):
    """An ordered set of synthetic images that grows by whole chunks; a cell uses the first N_aug images."""

    data: DataSpec
    augmenter: AugmenterSpec
    shots: Shots | None  # None: not read in this regime, so all such regimes share the pool
    draw: Draw
    seed: int
    chunk_size: int
    fresh_for: int | None = None  # N_aug, if each N_aug has its own pool (`fresh_pools`)
    regions: bool = False  # whether the augmenter reads the masks of all training positives
    adapter_seed: int = 0  # of its adapter; 0 where the augmenter does not learn
    kind = "pool"

    @property
    def identity(self) -> dict[str, Any]:
        """The hashed values."""
        return self.adapter.identity | {"augmenter": self.augmenter.digest} | self._own_fields

    @property
    def prefix(self) -> str:
        """Dataset, augmenter, the regime if shots are read, and the seed."""
        fresh = f"n{self.fresh_for}" if self.fresh_for else ""
        return _join(self.adapter.prefix, fresh, f"s{self.seed}")

    @property
    def adapter(self) -> AdapterSpec:
        """The adapter of its augmenter; only used if the augmenter learns. Filtered and other pools share it."""
        augmenter = self.augmenter.unfiltered
        return AdapterSpec(self.data, augmenter, self.shots, self.draw, self.regions, self.adapter_seed)

    def chunks_for(self, n: int) -> int:
        """Return the number of chunks that hold the first ``n`` images."""
        return -(-n // self.chunk_size)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; inverse of `PoolSpec.from_dict`."""
        return self.adapter.as_dict() | {"augmenter": self.augmenter.as_dict()} | self._own_fields

    @property
    def _own_fields(self) -> dict[str, int | None]:
        return {"seed": self.seed, "chunk_size": self.chunk_size, "fresh_for": self.fresh_for}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> PoolSpec:
        """Create it from the result of `as_dict`."""
        return cls(**{**value, **_nested_specs(value)})


@dataclass(frozen=True)
class SearchSpec(_Keyed):
    """A search for an augmenter's settings by image quality, before it trains on all shots.

    The adapters and all pools of a table row share one search, which is that of the first adapter.
    """

    adapter: AdapterSpec  # the adapter whose settings it chooses
    kind = "search"

    @property
    def identity(self) -> dict[str, Any]:
        """The first adapter's identity: the candidates are part of the augmenter's settings."""
        return self._first.identity

    @property
    def prefix(self) -> str:
        """The first adapter's prefix."""
        return self._first.prefix

    @property
    def _first(self) -> AdapterSpec:
        return replace(self.adapter, adapter_seed=0)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return self._first.as_dict()


@dataclass(frozen=True)
class FidelitySpec(_Keyed):
    """A comparison of the first images of a pool with real defect images, by features of one extractor."""

    pool: PoolSpec
    extractor: str  # see classifiers.features
    pictures: int  # number of first images; equal for all pools that are compared
    layers: tuple[int, ...] = ()  # max-pooling layers of Inception whose FID is measured too, by their features
    kind = "fidelity"

    @property
    def identity(self) -> dict[str, Any]:
        """The hashed values."""
        return {**self._own_fields, "pool": digest(self.pool.identity)}

    @property
    def prefix(self) -> str:
        """The pool's prefix, the extractor and the number of images."""
        return _join(self.pool.prefix, self.extractor.partition(".")[0], f"f{self.pictures}")

    @property
    def chunks(self) -> int:
        """The number of chunks that must be committed."""
        return self.pool.chunks_for(self.pictures)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**self._own_fields, "pool": self.pool.as_dict()}

    @property
    def _own_fields(self) -> dict[str, Any]:
        """The fields besides the pool; without layers no entry for them, as in older keys."""
        layers = {"layers": list(self.layers)} if self.layers else {}
        return {"extractor": self.extractor, "pictures": self.pictures, **layers}


FEATURE_CHUNK = 256
"""Images of a dataset per chunk of features."""
POOLING = "max and mean of the last four stages"


@dataclass(frozen=True)
class FeatureSpec(_Keyed):
    """Features of all images of a dataset, or of a pool, by the frozen backbone of a protocol.

    They are made by chunks: `FEATURE_CHUNK` images in the order of the dataset's table, or a chunk of the pool.
    Fine-tuning has no frozen backbone: its features are the pixels of a dataset behind the protocol's `roundtrip`.
    """

    images: DataSpec | PoolSpec  # of a `DataSpec`, folds and held-out negatives do not count
    protocol: Protocol  # only its `feature_fields` count
    kind = "features"

    @property
    def pool(self) -> PoolSpec | None:
        """The pool; None for a dataset."""
        return self.images if isinstance(self.images, PoolSpec) else None

    @property
    def identity(self) -> dict[str, Any]:
        """The hashed values."""
        images = self.images.identity if isinstance(self.images, PoolSpec) else self.images.content
        what = {} if self.pixels else {"pooling": POOLING}
        return {"images": digest(images), "network": self.network, **what}

    @property
    def pixels(self) -> bool:
        """Whether these are images N,H,W,3 uint8 instead of features N,D float32."""
        return self.protocol.kind == "finetune"

    @property
    def network(self) -> dict[str, Any]:
        """The fields of the protocol that decide them: synthetic images make no round trip."""
        fields = self.protocol.feature_fields
        unread = ("roundtrip",) if self.pool else [name for name in fields if name not in PIXELS] if self.pixels else ()
        return {name: value for name, value in fields.items() if name not in unread}

    @property
    def prefix(self) -> str:
        """The pool's prefix or the dataset, and the backbone."""
        network = "roundtrip" if self.pixels else self.protocol.backbone.partition(".")[0]
        own = self.images.prefix if isinstance(self.images, PoolSpec) else self.images.alias
        return _join(own, network)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"images": self.images.as_dict(), "network": self.network}


@dataclass(frozen=True)
class Cell(_Keyed):
    """One training of one classifier."""

    data: DataSpec
    augmenter: AugmenterSpec
    shots: Shots
    draw: Draw  # None unless shots is a number > 0
    n_aug: int  # in recognition: per class
    seed: int | None  # None: no synthetic images, and a protocol without randomness: see `Protocol.is_random`
    protocol: Protocol
    fresh_pools: bool = False
    adapter_seed: int = 0  # of the adapters behind its pools
    kind = "cell"

    @property
    def identity(self) -> dict[str, Any]:
        """The hashed values."""
        return {
            "data": self.data.digest,
            "augmenter": self.augmenter.digest,
            "shots": self.shots,
            "draw": self.draw,
            "n_aug": self.n_aug,
            "seed": self.seed,
            "protocol": self.protocol.digest,
            "fresh_pools": self.fresh_pools,
            **_where_seeded(self.adapter_seed),
        }

    @property
    def prefix(self) -> str:
        """Dataset, augmenter, regime, the adapters' seed if it is not 0, N_aug and seed."""
        shots, seed = _read_regime(self.shots, self.draw), "" if self.seed is None else f"s{self.seed}"
        adapter = _adapter_name(self.adapter_seed)
        return _join(self.data.prefix, self.augmenter.alias, shots, adapter, f"n{self.n_aug}", seed)

    @property
    def block(self) -> str:
        """The block of cells that one lease covers: all N_aug and seeds of one table row."""
        return _block(
            self.data.digest, self.augmenter.digest, self.shots, self.draw, self.protocol.digest, self.fresh_pools
        )

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; inverse of `Cell.from_dict`."""
        protocol = self.protocol.model_dump(mode="json", exclude=set(UNKEYED))  # grids hold the prose
        specs = {"data": self.data.as_dict(), "augmenter": self.augmenter.as_dict(), "protocol": protocol}
        return self.identity | specs

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Cell:
        """Create it from the result of `as_dict`."""
        return cls(**{**value, **_nested_specs(value), "protocol": make_protocol(value["protocol"])})


@dataclass(frozen=True)
class AuditSpec(_Keyed):
    """The search for near-copies across the sides of a split: a dataset, by content, and how it is split."""

    name: str  # the plug-in
    settings: Mapping[str, Any]  # without locations such as root
    fingerprint: str
    folds: tuple[int, ...]  # (): the official split
    test_share: float | None = None  # the folds are random test splits of this share; None: those of k folds
    method: int = AUDIT_METHOD
    kind = "audit"

    @property
    def identity(self) -> dict[str, Any]:
        """The hashed values."""
        fields = ("name", "settings", "fingerprint", "folds", "test_share", "method")
        return {field: getattr(self, field) for field in fields}

    @property
    def prefix(self) -> str:
        """The plug-in's name."""
        return self.name

    def data(self, alias: str, fold: int | None) -> DataSpec:
        """Return the spec of its data in a fold; ``alias`` is the name in the grid."""
        return DataSpec(self.name, alias, self.settings, self.fingerprint, fold, 0.0, test_share=self.test_share)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; inverse of `AuditSpec.from_dict`."""
        return {**self.identity, "folds": list(self.folds)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> AuditSpec:
        """Create it from the result of `as_dict`."""
        return cls(**{**value, "folds": tuple(value["folds"])})


@cache  # hashed once per row, not once per cell
def _block(data: str, augmenter: str, shots: Shots, draw: Draw, protocol: str, fresh_pools: bool) -> str:
    row = {"data": data, "augmenter": augmenter, "shots": shots, "draw": draw, "protocol": protocol}
    return f"cells-{digest({'schema': SCHEMA, **row, 'fresh_pools': fresh_pools})[:16]}"


def _nested_specs(value: Mapping[str, Any]) -> dict[str, Any]:
    draw = tuple(value["draw"]) if isinstance(value["draw"], list) else value["draw"]
    return {"data": DataSpec.from_dict(value["data"]), "augmenter": AugmenterSpec(**value["augmenter"]), "draw": draw}


def _where_read(regions: bool) -> dict[str, bool]:
    """Return no entry if regions are not read, as in keys older than regions."""
    return {"regions": True} if regions else {}


def _where_seeded(adapter_seed: int) -> dict[str, int]:
    """Return no entry for the first adapter, as in keys older than seeds of adapters."""
    return {"adapter_seed": adapter_seed} if adapter_seed else {}


def _adapter_name(adapter_seed: int) -> str:
    return f"a{adapter_seed}" if adapter_seed else ""


def _read_regime(shots: Shots | None, draw: Draw) -> str:
    if shots is None:
        return ""
    return regime(shots, draw) + (f"d{draw}" if isinstance(draw, int) and draw else "")


def _join(*parts: str) -> str:
    return "-".join(part for part in parts if part)
