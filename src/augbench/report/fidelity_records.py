"""Read and validate fidelity records, each once."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import pandas as pd

from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.storage.store import FIX_HINT, Store, parse_json

MEASURES = (
    *("kid", "kid_low", "kid_high", "fid", "diversity", "diversity_of_real", "memorisation"),
    "auroc_of_normal",
    "seconds_per_picture",  # of generation
)
"""The numbers of a record, in the order of tables."""

OPTIONAL = ("fid", "memorisation", "auroc_of_normal")
"""None where there are too few images; where no shots are read; without normal images, and in older records."""


@dataclass(frozen=True)
class Measured:
    """The part of a fidelity record that reports use."""

    augmenter_id: str  # digest of the augmenter with its settings
    extractor: str
    made: int  # synthetic images of the pool
    real: int  # defect images of the test split
    values: dict[str, float]  # each of `MEASURES`; NaN where it is not defined
    kid_by_class: dict[str, float]  # in recognition
    fid_by_layer: dict[int, float]  # number of features of a max-pooling layer of Inception -> FID


def load_measured(store: Store, expected: pd.DataFrame) -> dict[str, Measured]:
    """Load the fidelity records of these cells' pools, by key. Each is read once, however many cells share it.

    Args:
        store: the store with the records.
        expected: the expected cells, see `frame.load_expected`.

    Raises:
        UserError: a damaged record, named.
    """
    wanted = {key for pairs in expected["fidelity"] for _, key in pairs}
    held = sorted(wanted & store.keys("fidelity")) if wanted else []
    contents = store.files.read_many([store.name("fidelity", key) for key in held])
    found = zip(held, contents, strict=True)
    return {key: _measured(key, data, store.where("fidelity", key)) for key, data in found if data is not None}


def _measured(key: str, data: bytes, place: str) -> Measured:
    record = parse_json(data, place)
    if record.get("key") != key:
        raise UserError(f"record '{place}' is not the record of '{key}': {FIX_HINT}")
    try:
        augmenter, result = record["spec"]["pool"]["augmenter"], record["result"]
        low, high = result["kid_interval"]
        given = result | record["provenance"] | {"kid_low": low, "kid_high": high}
        given.setdefault("auroc_of_normal", None)
        return Measured(
            augmenter_id=digest([augmenter["name"], augmenter["key_settings"]]),
            extractor=str(result["extractor"]),
            made=int(result["made"]),
            real=int(result["real"]),
            values={name: nan if given[name] is None and name in OPTIONAL else float(given[name]) for name in MEASURES},
            kid_by_class={name: float(value) for name, value in result.get("kid_by_class", {}).items()},
            fid_by_layer={int(layer): float(value) for layer, value in result.get("fid_by_layer", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"record '{place}' is damaged ({type(error).__name__}: {error}): {FIX_HINT}") from None
