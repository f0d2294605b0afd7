"""The generate stage: make the images of one chunk of a pool, and commit them."""

from __future__ import annotations

import hashlib
import io
import logging
import time

import numpy as np

from augbench.core.contracts import Augmenter, Request, Synthetic
from augbench.core.seeds import derive_seed
from augbench.core.specs import PoolSpec
from augbench.stages.context import Context, chosen_augmenter, repeatable
from augbench.stages.copy_check import SHOT_COPIES, refuse_test_copies
from augbench.stages.image_gate import check_images
from augbench.storage.store import Store, json_bytes, json_lines
from augbench.storage.versions import one_precision

DEFECT = "defect"  # the label of synthetic images in detection
log = logging.getLogger(__name__)


def generate_chunk(context: Context, pool: PoolSpec, chunk: int) -> None:
    """Make one chunk and commit it: images and masks first, its metadata file last.

    Raises:
        UserError: the view lacks what the augmenter needs, other chunks were made in another precision, or an image
            from outside is a near-copy of a test image.
        PluginError: the augmenter violates its contract.
    """
    started = time.perf_counter()
    precision = context.library.augmenter(pool.augmenter).precision_on(context.device)
    if precision:
        one_precision(context.store, pool, sorted(context.store.chunks(pool))[:1], precision)
    augmenter = _loaded(context, pool, precision)
    view = context.view(augmenter, pool)
    requests = [_request(pool, i) for i in range(chunk * pool.chunk_size, (chunk + 1) * pool.chunk_size)]
    with repeatable(augmenter.uses_gpu, context.device, precision):
        samples = augmenter.generate(requests, view)
    seconds = time.perf_counter() - started
    check_images(augmenter, requests, samples, view)
    provenance = {"seconds": seconds, "pictures": len(samples), **context.origin(precision)}
    if augmenter.from_outside:
        provenance[SHOT_COPIES] = [requests[place].index for place in refuse_test_copies(context, pool, samples)]
    lines = [_write_sample(context, pool, r, s) for r, s in zip(requests, samples, strict=True)]
    context.store.files.write(context.store.chunk_provenance_name(pool, chunk), json_bytes(provenance))
    context.store.files.write(context.store.chunk_name(pool, chunk), json_lines(lines))
    context.store.clear_failure(pool.key)
    log.info("%d images in %.2f s; committed in %.2f s", len(samples), seconds, time.perf_counter() - started - seconds)


def assemble_pool(context: Context, pool: PoolSpec) -> bool:
    """Write ``metadata.jsonl`` and ``pool.json`` from the committed chunks. Returns False if they are up to date."""
    store = context.store
    chunks = sorted(store.chunks(pool))
    folder = store.name("pools", pool.key)
    summary = store.read_pool(pool.key)
    if not chunks or (summary and summary["chunks"] == chunks):
        return False
    lines = [line for chunk in chunks for line in store.chunk_lines(pool, chunk)]
    store.files.write(f"{folder}/metadata.jsonl", json_lines(lines))
    made = [store.parsed(store.chunk_provenance_name(pool, chunk)) for chunk in chunks]
    record = {
        "key": pool.key,
        "spec": pool.as_dict(),
        "pictures": len(lines),
        "chunks": chunks,
        "provenance": {
            "seconds": sum(m["seconds"] for m in made),
            **{name: made[-1][name] for name in _SAME_FOR_ALL if name in made[-1]},
        },
    }
    store.files.write(store.pool_file(pool.key), json_bytes(record))
    return True


_SAME_FOR_ALL = ("device", "git_sha", "versions", "precision")


def _loaded(context: Context, pool: PoolSpec, precision: str) -> Augmenter:
    """Return the pool's augmenter with its adapter. Only one stays loaded, as pipelines are large."""
    learns = context.library.augmenter(pool.augmenter).learns
    identity = (pool.augmenter.digest, pool.adapter.key if learns else "")

    def load() -> Augmenter:
        augmenter, _ = chosen_augmenter(context, pool.adapter)
        name = context.store.name("adapters", pool.adapter.key)
        folder = context.store.files.local_folder(name) if learns else None
        with repeatable(augmenter.uses_gpu, context.device, precision):  # an adapter is merged by matrix products
            augmenter.load(folder, context.device)
        return augmenter

    return context.only(identity, load)


def _request(pool: PoolSpec, index: int) -> Request:
    classes = pool.data.classes or (DEFECT,)
    seed = derive_seed("generate", pool.augmenter.name, pool.seed, pool.fresh_for or "", index)
    return Request(index, seed, classes[index % len(classes)])


def _write_sample(context: Context, pool: PoolSpec, request: Request, sample: Synthetic) -> dict:
    """Write image and mask. Returns the metadata line, with names relative to the pool's folder."""
    line = {
        "index": request.index,
        "seed": request.seed,
        "label": sample.label,
        "meta": sample.meta,
        "file_name": f"images/{request.index:05d}.png",
        "sha256": _write_png(context.store, context.store.image_name(pool, request.index), sample.image),
    }
    if sample.mask is not None:
        line["mask_file_name"] = f"masks/{request.index:05d}.png"
        mask = sample.mask.astype(np.uint8) * 255
        line["mask_sha256"] = _write_png(context.store, context.store.mask_name(pool, request.index), mask)
    return line


def _write_png(store: Store, name: str, array: np.ndarray) -> str:
    """Write a PNG file. Returns its SHA-256 (hex), by which the store detects damage."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    store.files.write(name, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()
