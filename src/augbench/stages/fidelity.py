"""The fidelity stage: how close a pool is to real defects, how diverse it is, and whether it copies training images.

The reference are the defect images of the test split. No augmenter and no choice of settings sees them, and the
measurement affects no classifier.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from augbench.core.contracts import GOOD
from augbench.core.gpu import enough_memory
from augbench.core.seeds import rng
from augbench.core.specs import DataSpec, FidelitySpec
from augbench.features.extractor import aspect_of, thumbnails
from augbench.metrics import fidelity as measures
from augbench.planning.library import Library
from augbench.stages.context import Context, loaded_extractor, repeatable

log = logging.getLogger(__name__)


def measure(context: Context, spec: FidelitySpec) -> dict[str, Any]:
    """Measure the first images of a pool and commit the record. Returns the record.

    Raises:
        UserError: the extractor or the images are not available.
    """
    started = time.perf_counter()
    library, pool = context.library, spec.pool
    split = library.split(pool.data)
    unseen = split.test[split.test["label"] != GOOD]
    shots = library.shots(pool.data, pool.shots, pool.draw)
    real = images_of(library, pool.data, unseen)
    learned = images_of(library, pool.data, shots)
    made = _pool_images(context, spec)
    # Normal images that no augmenter has seen; none in recognition.
    normal = evenly(split.test[split.test["label"] == GOOD], len(made))
    with repeatable(True, context.device), enough_memory("fidelity.extractor"):
        extractor = loaded_extractor(context, spec.extractor)
        size = extractor.size(aspect_of(real))
        features, layers = zip(*(extractor.with_layers(part, size, spec.layers) for part in (real, made)), strict=True)
        of_normal = extractor(images_of(library, pool.data, normal), size) if len(normal) else None
    with threadpool_limits(1):  # the number of threads changes rounding
        found = compare(*features, spec.key)
        if spec.layers:
            of_layers = {
                str(layer): measures.fid(*(side[layer] for side in layers), singular=True) for layer in spec.layers
            }
            found["fid_by_layer"] = of_layers
        found["auroc_of_normal"] = None
        if of_normal is not None:
            items = [*normal["group"], *_items(context, spec)]
            found["auroc_of_normal"] = measures.told_apart(of_normal, features[1], items)
        found["memorisation"] = measures.memorisation(*map(thumbnails, (made, learned, real))) if learned else None
        if pool.data.classes:
            labels = np.array(pool.data.classes)[np.arange(len(made)) % len(pool.data.classes)]
            found["kid_by_class"] = kid_by_class(features[0], unseen["label"].to_numpy(), features[1], labels)
    counts = {"made": len(made), "real": len(real), "shots": len(learned)}
    cost = {"seconds": time.perf_counter() - started, "seconds_per_picture": _seconds_per_image(context, spec)}
    record = {
        "key": spec.key,
        "spec": spec.as_dict(),
        "result": {"extractor": spec.extractor, "size": list(size), **counts, **found},
        "provenance": cost | context.origin("fp32"),
    }
    context.store.write_json("fidelity", spec.key, record)
    context.store.clear_failure(spec.key)
    against = f"{len(made)} images against {len(real)} real defects, {len(learned)} shots"
    log.info("KID %s, FID %s by %s: %s", found["kid"], found["fid"], spec.extractor, against)
    return record


def evenly(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most that many rows, evenly spaced."""
    return rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


def _items(context: Context, spec: FidelitySpec) -> list[str]:
    """Return what each of the first images of the pool was made from; an image without a source is its own item."""
    lines = [line for chunk in range(spec.chunks) for line in context.store.chunk_lines(spec.pool, chunk)]
    return [line["meta"].get("source") or f"image {number}" for number, line in enumerate(lines[: spec.pictures])]


def compare(real: np.ndarray, made: np.ndarray, name: str) -> dict[str, Any]:
    """Return the measures of features N,D as JSON values; ``name`` seeds the bootstrap. Undefined ones are None."""
    return {
        "kid": measures.kid(real, made),
        "kid_interval": list(measures.kid_interval(real, made, rng("fidelity", name))),
        "fid": measures.fid(real, made),
        "diversity": measures.diversity(made),
        "diversity_of_real": measures.diversity(real),
    }


def kid_by_class(
    real: np.ndarray, real_labels: np.ndarray, made: np.ndarray, made_labels: np.ndarray
) -> dict[str, float]:
    """Return KID within each class that has at least two images on both sides."""
    found = {}
    for label in sorted(set(made_labels)):
        sides = real[real_labels == label], made[made_labels == label]
        if min(map(len, sides)) >= 2:
            found[str(label)] = measures.kid(*sides)
    return found


def images_of(library: Library, data: DataSpec, rows: pd.DataFrame) -> list[np.ndarray]:
    """Read the images of rows of a dataset's table, each H,W,3 uint8."""
    dataset = library.dataset(data.alias)
    return [dataset.read_image(row) for row in rows.to_dict("records")]


def _pool_images(context: Context, spec: FidelitySpec) -> list[np.ndarray]:
    """Read the first images of the pool, each H,W,3 uint8."""
    store = context.store
    names = [store.image_name(spec.pool, index) for index in range(spec.pictures)]
    files = zip(names, store.files.read_many(names), strict=True)
    return [store.decoded(spec.pool, name, data) for name, data in files]


def _seconds_per_image(context: Context, spec: FidelitySpec) -> float:
    """Return the seconds of generation per image, without adaptation and search."""
    store = context.store
    chunks = [store.parsed(store.chunk_provenance_name(spec.pool, chunk)) for chunk in range(spec.chunks)]
    return sum(chunk["seconds"] for chunk in chunks) / sum(chunk["pictures"] for chunk in chunks)
