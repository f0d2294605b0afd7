"""Pydantic models of records, and the specs inside records.

Metrics have no model here: `augbench.metrics.evaluate` defines them, and each can be recomputed. Fields that records of
older versions lack have defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from augbench.core.errors import UserError
from augbench.core.hashing import canonical_json
from augbench.core.models import first_problem
from augbench.core.specs import SCHEMA, AdapterSpec, AuditSpec, Cell, FidelitySpec, PoolSpec, SearchSpec

RecordKind = Literal["cells", "fidelity", "searches", "audits"]
RECORD_KINDS: tuple[RecordKind, ...] = ("cells", "fidelity", "searches", "audits")

Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class _RecordModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Origin(_RecordModel):
    """Provenance. Newer versions may add fields, since it affects no result."""

    model_config = ConfigDict(extra="allow")

    device: str
    git_sha: str | None
    versions: dict[str, str]


class _CellSeconds(_RecordModel):
    total: Amount
    gather: Amount
    judge: Amount
    fit: Amount


class PoolUse(_RecordModel):
    """A pool slice: the first ``n`` images of the pool ``key``."""

    key: str
    n: Count


class Filtered(_RecordModel):
    """What the filters of the pool ``key`` dropped until the images of a slice were made."""

    key: str
    made: Count
    dropped: dict[str, Count]  # filter -> images


class _CellOrigin(_Origin):
    seconds: _CellSeconds
    images_per_second: Amount
    embedded: list[str]
    notes: list[str] = []
    # The lineage of the synthetic images; older records have none of the three.
    pools: list[PoolUse] | None = None
    adapters: list[str] | None = None
    searches: list[str] | None = None
    filtered: list[Filtered] = []  # one entry per pool slice with filters


class _Envelope(_RecordModel):
    key: str
    spec: dict[str, Any]
    result: Any  # each kind has its own


class CellRecord(_Envelope):
    """The record of a cell, without its metrics."""

    format: Literal[SCHEMA] = Field(alias="schema")  # type: ignore[valid-type]
    provenance: _CellOrigin
    result: dict[str, Any]


class Curves(_RecordModel):
    """Training curves: the loss of each epoch, and points of the test curve."""

    loss: list[float]
    test: list[dict[str, float]]


class ProbeChoice(_RecordModel):
    """What a probe was fitted with: the protocol's values, or those that cross-validation chose."""

    C: Annotated[float, Field(gt=0)] | None  # None: its head has none
    synthetic_weight: Amount | None  # None: without synthetic images, or all images count alike


class GaussianChoice(_RecordModel):
    """The shrinkage of the covariance of normal images."""

    shrinkage: float = Field(ge=0, le=1)


class NeighboursChoice(_RecordModel):
    """The nearest normal images leave nothing to choose."""


CHOICES: dict[str, type[_RecordModel]] = {
    "probe": ProbeChoice,
    "gaussian": GaussianChoice,
    "neighbours": NeighboursChoice,
}
"""Kind of protocol on frozen features -> what a classifier of it was fitted with."""


class Counts(_RecordModel):
    """Numbers of images that a cell was trained and evaluated on."""

    train_negatives: Count
    shots: Count
    synthetic: Count
    heldout_negatives: Count
    test_negatives: Count
    test_positives: Count


class _FidelityOrigin(_Origin):
    seconds: Amount
    seconds_per_picture: Amount


class FidelityResult(_RecordModel):
    """The fidelity of a pool, see `augbench.metrics.fidelity`."""

    extractor: str
    size: tuple[int, int] = Field(strict=False)
    made: Count
    real: Count
    shots: Count
    kid: float
    kid_interval: tuple[float, float] = Field(strict=False)
    fid: float | None
    diversity: Amount
    diversity_of_real: Amount
    memorisation: Amount | None
    auroc_of_normal: Amount | None = None  # older records lack it
    kid_by_class: dict[str, float] = {}


class FidelityRecord(_Envelope):
    """The record of a pool's fidelity."""

    provenance: _FidelityOrigin
    result: FidelityResult


class _SearchOrigin(_Origin):
    seconds: Amount


class SearchRow(_RecordModel):
    """A candidate of a quality search."""

    settings: dict[str, Any]
    score: float
    scores: list[float] = Field(min_length=1)
    memorisation: Amount
    refused: bool


class SearchResult(_RecordModel):
    """The choice of a quality search, and its table, best first."""

    chosen: dict[str, Any]
    why: str
    metric: Literal["kid", "fid"]
    extractor: str
    table: list[SearchRow]


class SearchRecord(_Envelope):
    """The record of a finished quality search."""

    provenance: _SearchOrigin
    result: SearchResult


class _AuditOrigin(_Origin):
    seconds: Amount


class AuditedFold(_RecordModel):
    """The near-copies of one fold: how many test images have one on the other side."""

    fold: int | None  # None: the official split
    test: Count
    copies: Count


class AuditResult(_RecordModel):
    """What a search for near-copies found, see `augbench.metrics.near_copies`."""

    images: Count
    grouped: bool  # whether most images are in groups of several: a known pair does not make a dataset grouped
    threshold: float | None  # None: no pair is better than chance
    pairs: Count
    expected_false: Amount  # pairs that are found by chance
    mirrored: Count
    items: Count  # images that show different items: groups, joined where near-copies join them
    largest_component: Count
    clusters: list[list[str]]  # ids of images that all show the same
    folds: list[AuditedFold]


class AuditRecord(_Envelope):
    """The record of a search for near-copies."""

    provenance: _AuditOrigin
    result: AuditResult


MODELS: dict[RecordKind, type[_Envelope]] = {
    "cells": CellRecord,
    "fidelity": FidelityRecord,
    "searches": SearchRecord,
    "audits": AuditRecord,
}


def read_as(model: type[BaseModel], value: object) -> Any:
    """Validate a JSON value by one of the models above. Raises UserError for an unknown, missing or invalid value."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(first_problem(error, model)) from None


Spec = Cell | FidelitySpec | SearchSpec | AuditSpec


def spec_of(kind: RecordKind, value: Mapping[str, Any]) -> Spec:
    """Create the spec of a record from the result of its ``as_dict``.

    Raises:
        UserError: missing, unknown or invalid fields.
    """
    spec: Spec
    try:
        canonical_json(value)  # refuses NaN, which JSON readers accept
        if kind == "cells":
            spec = Cell.from_dict(value)
        elif kind == "audits":
            spec = AuditSpec.from_dict(value)
        elif kind == "searches":
            spec = SearchSpec(AdapterSpec.from_dict(value))
        else:
            given = {**value, "pool": PoolSpec.from_dict(value["pool"]), "layers": tuple(value.get("layers", ()))}
            spec = FidelitySpec(**given)
        _check_types(spec)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"its spec is not valid for {kind}: {what}") from None
    return spec


def _check_types(spec: Spec) -> None:
    """Raise TypeError if a name is not a string or settings are not a mapping: dataclasses do not validate types."""
    if isinstance(spec, AuditSpec):
        if not isinstance(spec.name, str) or not isinstance(spec.settings, Mapping):
            raise TypeError("name is not a string, or settings are not a mapping")
        return
    owner = spec.adapter if isinstance(spec, SearchSpec) else spec.pool if isinstance(spec, FidelitySpec) else spec
    names = {"data.name": owner.data.name, "data.alias": owner.data.alias}
    names |= {"augmenter.name": owner.augmenter.name, "augmenter.alias": owner.augmenter.alias}
    for name, value in (*names.items(), *(("data.classes", one) for one in owner.data.classes)):
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}, not a string")
    for name in ("settings", "key_settings", "filters"):
        if not isinstance(getattr(owner.augmenter, name), Mapping):
            raise TypeError(f"augmenter.{name} are not a mapping")
    if isinstance(spec, Cell):
        _check_seed(spec)


def _check_seed(cell: Cell) -> None:
    """Raise TypeError unless the seed is a whole number; None is that of a cell in which nothing is random."""
    fixed = not cell.protocol.is_random and not cell.n_aug
    if fixed and cell.seed is not None:
        raise TypeError(
            f"seed is {cell.seed!r}, but nothing is random: kind '{cell.protocol.kind}' and no synthetic images"
        )
    if not fixed and (not isinstance(cell.seed, int) or isinstance(cell.seed, bool)):
        raise TypeError(f"seed is {cell.seed!r}, not a whole number")


def not_at_hand(spec: Spec) -> str:
    """Say why the key cannot be recomputed here: files that the protocol names are missing; "" if it can be."""
    try:
        _ = spec.protocol.digest if isinstance(spec, Cell) else ""
    except UserError as error:
        return str(error)
    return ""
