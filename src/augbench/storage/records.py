"""What records hold beside metrics, and the keys that their specs must give.

Metrics have no model here: `augbench.metrics.evaluate` says which there are, and each can be recomputed. Records of
earlier versions lack what came later; such fields have defaults here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from augbench.core.errors import UserError
from augbench.core.hashing import canonical_json
from augbench.core.protocol import first_problem
from augbench.core.specs import SCHEMA, AdapterSpec, Cell, FidelitySpec, PoolSpec, SearchSpec

RecordKind = Literal["cells", "fidelity", "searches"]
RECORD_KINDS: tuple[RecordKind, ...] = ("cells", "fidelity", "searches")

Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Origin(BaseModel):
    """How it was made. More may be said of that by later versions: it decides no number."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    device: str
    git_sha: str | None
    versions: dict[str, str]


class _CellSeconds(_Strict):
    total: Amount
    gather: Amount
    judge: Amount
    fit: Amount


class _CellOrigin(_Origin):
    seconds: _CellSeconds
    images_per_second: Amount
    embedded: list[str]
    notes: list[str] = []


class _Envelope(_Strict):
    key: str
    spec: dict[str, Any]
    result: dict[str, Any]


class CellRecord(_Envelope):
    """A cell's record, its metrics aside."""

    format: Literal[SCHEMA] = Field(alias="schema")  # type: ignore[valid-type]
    provenance: _CellOrigin


class Curves(_Strict):
    """Of a training: the loss of each epoch, and points of the test curve."""

    loss: list[float]
    test: list[dict[str, float]]


class Counts(_Strict):
    """Pictures that a cell learned from and was judged by."""

    train_negatives: Count
    shots: Count
    synthetic: Count
    heldout_negatives: Count
    test_negatives: Count
    test_positives: Count


class _FidelityOrigin(_Origin):
    seconds: Amount
    seconds_per_picture: Amount


class FidelityResult(_Strict):
    """How close a pool is to real defects, see `augbench.metrics.fidelity`."""

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
    kid_by_class: dict[str, float] = {}


class FidelityRecord(_Envelope):
    """A pool against real defects."""

    provenance: _FidelityOrigin
    result: FidelityResult


class _SearchOrigin(_Origin):
    seconds: Amount


class SearchRow(_Strict):
    """A candidate of a quality search."""

    settings: dict[str, Any]
    score: float
    scores: list[float] = Field(min_length=1)
    memorisation: Amount
    refused: bool


class SearchResult(_Strict):
    """What a quality search chose, and its table, best first."""

    chosen: dict[str, Any]
    why: str
    metric: Literal["kid", "fid"]
    extractor: str
    table: list[SearchRow]


class SearchRecord(_Envelope):
    """A quality search that is decided."""

    provenance: _SearchOrigin
    result: SearchResult


MODELS: dict[RecordKind, type[_Envelope]] = {"cells": CellRecord, "fidelity": FidelityRecord, "searches": SearchRecord}


def read_as(model: type[BaseModel], value: object) -> Any:
    """A JSON value as one of the models above.

    Raises:
        UserError: an unknown, missing or impossible value, named.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(first_problem(error, model)) from None


def spec_of(kind: RecordKind, value: Mapping[str, Any]) -> Cell | FidelitySpec | SearchSpec:
    """The spec in a record, the way back from its ``as_dict``.

    Raises:
        UserError: fields that are missing, unknown or impossible.
    """
    try:
        canonical_json(value)  # refuses NaN, which JSON readers let pass
        if kind == "cells":
            spec = Cell.from_dict(value)
        elif kind == "searches":
            spec = SearchSpec(AdapterSpec.from_dict(value))
        else:
            spec = FidelitySpec(**{**value, "pool": PoolSpec.from_dict(value["pool"])})
        _hold_to_types(spec)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"its spec is not that of one of the {kind}: {what}") from None
    return spec


def _hold_to_types(spec: Cell | FidelitySpec | SearchSpec) -> None:
    """Raises TypeError where a name is no text, or settings are no mapping: keys would be made of them all the same."""
    owner = spec.adapter if isinstance(spec, SearchSpec) else spec.pool if isinstance(spec, FidelitySpec) else spec
    names = {"data.name": owner.data.name, "data.alias": owner.data.alias}
    names |= {"augmenter.name": owner.augmenter.name, "augmenter.alias": owner.augmenter.alias}
    for name, value in (*names.items(), *(("data.classes", one) for one in owner.data.classes)):
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}, not a text")
    for name in ("settings", "key_settings"):
        if not isinstance(getattr(owner.augmenter, name), Mapping):
            raise TypeError(f"augmenter.{name} are no mapping")


def weights_at_hand(spec: Cell | FidelitySpec | SearchSpec) -> bool:
    """Whether the key can be recomputed here: that of a protocol with weights from a file needs the file."""
    if not isinstance(spec, Cell):
        return True
    try:
        _ = spec.protocol.digest
    except UserError:
        return False
    return True
