"""The audit stage: search a dataset for near-copies across the sides of its split.

Re-encoded, resized, shifted or brightness-changed copies of training images among the test images, and exposures of
one item on both sides, raise every number of a benchmark.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from augbench.core.errors import UserError
from augbench.core.specs import AuditSpec
from augbench.metrics.near_copies import FULL_SIDE, NearCopies, components, near_copies, thumbnail
from augbench.planning.audits import LEAK, audits_of, percent
from augbench.planning.library import Library
from augbench.planning.plan import Plan
from augbench.stages.provenance import device_name, git_sha, versions
from augbench.storage.store import Store

CACHED = 2048  # images that confirm pairs, 37 kB each


def audit(
    library: Library, label: str, spec: AuditSpec, thumbnails: Mapping[str, np.ndarray] | None = None
) -> tuple[dict[str, Any], NearCopies]:
    """Search the images of a dataset for near-copies; return the record for the store, and the pairs.

    Args:
        library: holds the dataset.
        label: its name in the library.
        spec: the dataset's content and split.
        thumbnails: of images that were read already, by id.

    Raises:
        UserError: the table is invalid, or an image cannot be read.
    """
    started = time.perf_counter()
    dataset, table = library.dataset(label), library.samples(label)
    rows = table.to_dict("records")

    def small(row: Mapping[str, str]) -> np.ndarray:
        known = (thumbnails or {}).get(row["id"])
        return thumbnail(dataset.read_image(row)) if known is None else known

    @lru_cache(CACHED)  # the pairs of an item share images
    def large(index: int) -> np.ndarray:
        return thumbnail(dataset.read_image(rows[index]), FULL_SIDE)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as executor:  # decoding releases the GIL
        found = near_copies(
            np.stack(list(executor.map(small, rows))),
            lambda indices: np.stack(list(executor.map(large, indices.tolist()))),
        )
    ids = table["id"].to_numpy()
    clusters = [ids[cluster].tolist() for cluster in found.clusters]
    result = {
        "images": len(table),
        "grouped": bool(2 * table.duplicated("group", keep=False).sum() > len(table)),
        "threshold": round(found.threshold, 4) if np.isfinite(found.threshold) else None,
        "pairs": len(found.pairs),
        "expected_false": round(found.expected_false, 2),
        "mirrored": found.mirrored,
        "items": proposed_groups(table, clusters)["group"].nunique(),
        "largest_component": found.largest_component,
        "clusters": clusters,
        "folds": list(_folds(library, label, spec, ids[found.pairs])),
    }
    origin = {"device": device_name("cpu"), "git_sha": git_sha(), "versions": versions()}
    seconds = {"seconds": time.perf_counter() - started}
    return {"key": spec.key, "spec": spec.as_dict(), "result": result, "provenance": seconds | origin}, found


def audit_all(plan: Plan, store: Store) -> Iterator[str]:
    """Search the datasets of a plan that were not searched yet; yield a line for each that leaks or fails."""
    held = store.keys("audits")
    for (label, _), spec in audits_of(plan).items():
        if spec.key in held:
            continue
        try:
            record, _ = audit(plan.library, label, spec)
        except UserError as error:  # where it matters, the work on that image fails and says so
            yield f"near-copies across the split of '{label}': not audited ({error})"
            continue
        store.write_json("audits", spec.key, record)
        if leak := leak_of(record["result"]):
            yield f"dataset '{label}': {leak}"


def leak_of(result: Mapping[str, Any]) -> str:
    """Say how many test images have a near-copy in training; "" if none has."""
    test, copies = (sum(fold[name] for fold in result["folds"]) for name in ("test", "copies"))
    if not copies:
        return ""
    return (
        f"near-copies across the split: {percent(copies / test)} of the test images ({copies:,} of {test:,}) have "
        "one in training"
    )


def is_problem(result: Mapping[str, Any]) -> bool:
    """Whether so many test images have a near-copy in training that the numbers of a dataset without groups mislead."""
    test, copies = (sum(fold[name] for fold in result["folds"]) for name in ("test", "copies"))
    return not result["grouped"] and copies >= LEAK * max(test, 1)


def _folds(library: Library, label: str, spec: AuditSpec, pairs: np.ndarray) -> Iterable[dict[str, Any]]:
    """Count the test images of each fold, and those with a near-copy that is not a test image. ``pairs``: P,2 ids."""
    for fold in spec.folds or (None,):
        try:
            test = library.split(spec.data(label, fold)).test["id"]
        except UserError:
            continue  # a fold that cannot be evaluated is another check's to name
        sides = np.isin(pairs, test)
        crossing = sides[:, 0] != sides[:, 1]
        copies = np.unique(pairs[crossing][sides[crossing]])
        yield {"fold": fold, "test": len(test), "copies": len(copies)}


def proposed_groups(table: pd.DataFrame, clusters: Iterable[Sequence[str]]) -> pd.DataFrame:
    """Join the groups of a dataset's table that near-copies show to be one: columns image and group.

    A joined group has the name of its first one.
    """
    group_of = table.set_index("id")["group"]
    joined = components(sorted(set(group_of[list(cluster)])) for cluster in clusters)
    name_of = {group: part[0] for part in joined for group in part}
    groups = [name_of.get(group, group) for group in table["group"]]
    return pd.DataFrame({"image": table["image"].to_numpy(), "group": groups})
