"""The features stage: features of a chunk of images by a frozen backbone, and how trainings read them.

For fine-tuning behind a round trip they are pixels: the VAE is passed once per dataset, not once per training.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from augbench.core.errors import UserError
from augbench.core.gpu import enough_memory
from augbench.core.hashing import digest
from augbench.core.specs import FEATURE_CHUNK, Cell, FeatureSpec
from augbench.features.frozen import FrozenBackbone
from augbench.planning.plan import Plan
from augbench.planning.splits import checked_samples
from augbench.stages.context import Context, repeatable
from augbench.stages.decoded_images import decode_pool, decode_rows, geometry
from augbench.storage.store import FIX_HINT, Store, json_bytes, parse_lines

CACHED = 32  # feature arrays that a worker caches; cells of one pool run close together
log = logging.getLogger(__name__)


def extract_chunk(context: Context, spec: FeatureSpec, chunk: int) -> None:
    """Extract the features of one chunk of images and commit them.

    Raises:
        UserError: an image or the weights are not available, or features are not finite.
    """
    from safetensors.numpy import save

    started = time.perf_counter()
    if spec.pool is None:
        images = _dataset_images(context, spec, chunk)
    else:
        first = chunk * spec.pool.chunk_size
        indices = range(first, first + spec.pool.chunk_size)
        images = decode_pool(context.store, spec.pool, indices, geometry(spec.protocol))
    memory = enough_memory("backbone", "width", "height", of=f"protocol '{spec.protocol.name}'")
    with repeatable(True, context.device, spec.protocol.precision), memory:
        features = images if spec.pixels else _loaded(context, spec).backbone(images)
    if not np.isfinite(features).all():
        which = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise UserError(
            f"backbone '{spec.protocol.backbone}' of protocol '{spec.protocol.name}' gives image {which} of chunk "
            f"{chunk} features that are not finite: set its precision to fp32, or give it other weights"
        )
    seconds = time.perf_counter() - started
    arrays = {"features": features}
    if spec.pool is not None:
        arrays["images"] = _digest(context.store.files.read(context.store.chunk_name(spec.pool, chunk)))
    provenance = {"seconds": seconds, "pictures": len(images), **context.origin(spec.protocol.precision)}
    context.store.files.write(context.store.chunk_provenance_name(spec, chunk), json_bytes(provenance))
    context.store.files.write(context.store.chunk_name(spec, chunk), save(arrays))
    context.store.clear_failure(spec.key)
    log.info("features of %d images in %.2f s", len(images), seconds)


def _dataset_images(context: Context, spec: FeatureSpec, chunk: int) -> np.ndarray:
    """Decode a chunk of a dataset, through the VAE where the protocol has one: in fp32, whatever its precision."""
    dataset, size = context.library.dataset(spec.images.alias), geometry(spec.protocol)
    rows = checked_samples(dataset).iloc[chunk * FEATURE_CHUNK : (chunk + 1) * FEATURE_CHUNK]
    if not spec.protocol.roundtrip:
        return decode_rows(dataset, rows, size)
    memory = enough_memory("roundtrip", of=f"protocol '{spec.protocol.name}'")
    with repeatable(True, context.device), memory:
        return decode_rows(dataset, rows, size, _loaded(context, spec).vae.reconstruct)


@dataclass(frozen=True)
class Features:
    """Features of the images of a dataset, in the order of its table, or of the first images of a pool."""

    values: np.ndarray  # N,D float32; pixels are N,H,W,3 uint8
    sources: list[str | None]  # pool: id of the sample that each image was made from, None: of none or several


def features_of(context: Context, spec: FeatureSpec, chunks: int) -> Features:
    """Return the features of the first chunks. A process caches them, and what `Context.shared_features` has.

    Raises:
        UserError: they are missing, damaged, or of other images than the pool holds.
    """
    if spec.key in context.shared_features:
        return Features(context.shared_features[spec.key], [])
    cached = context.features.pop((spec.key, chunks), None) or read_features(context.store, spec, chunks)
    context.features[spec.key, chunks] = cached
    while len(context.features) > CACHED:
        del context.features[next(iter(context.features))]  # the one that was used least recently
    return cached


def features_of_dataset(context: Context, cell: Cell) -> np.ndarray:
    """Return the features of all images of a cell's dataset, in the order of its table. Raises as `features_of`."""
    chunks = -(-len(context.library.samples(cell.data.alias)) // FEATURE_CHUNK)
    return features_of(context, FeatureSpec(cell.data, cell.protocol), chunks).values


def read_features(store: Store, spec: FeatureSpec, chunks: int) -> Features:
    """Read the features of the first chunks. Raises as `features_of`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    names = [store.chunk_name(spec, chunk) for chunk in range(chunks)]
    parts, sources = [], []
    for chunk, (name, data) in enumerate(zip(names, store.files.read_many(names), strict=True)):
        location = store.files.where(name)
        try:
            arrays = load(data or b"")
            parts.append(arrays["features"])
            made_of = arrays["images"] if spec.pool else None
        except (SafetensorError, KeyError):
            raise UserError(f"features '{location}' are missing or damaged: {FIX_HINT}") from None
        if spec.pool:
            marker = store.files.read(store.chunk_name(spec.pool, chunk))
            if not np.array_equal(made_of, _digest(marker)):
                raise UserError(f"features '{location}' are of images that the pool no longer holds: {FIX_HINT}")
            lines = parse_lines(marker, store.files.where(store.chunk_name(spec.pool, chunk)))
            sources += [line["meta"].get("source") for line in lines]
    return Features(np.concatenate(parts), sources)


def load_shared(plan: Plan, store: Store) -> dict[str, np.ndarray]:
    """Read the features of all datasets of a plan that are in the store, by key."""
    found = {}
    for key, spec in plan.features.items():
        chunks = plan.feature_chunks[key]
        if spec.pool is None and len(store.chunks(spec)) >= chunks:
            found[key] = read_features(store, spec, chunks).values
    return found


class _Networks(NamedTuple):
    """What images pass."""

    vae: Any  # `vae_roundtrip`, loaded; None: images are taken as they are
    backbone: FrozenBackbone | None  # None: the pixels are stored


def _loaded(context: Context, spec: FeatureSpec) -> _Networks:
    """Return the networks of a spec. Each process holds those of the last one."""

    def load() -> _Networks:
        vae = spec.protocol.vae() if spec.pool is None else None
        if vae:
            vae.load(None, context.device)
        return _Networks(vae, None if spec.pixels else FrozenBackbone(spec.protocol, context.device))

    return context.only(("backbone", digest(spec.network)), load)


def _digest(content: bytes) -> np.ndarray:
    """Return the SHA-256 as 32 uint8."""
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
