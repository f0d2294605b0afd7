"""The generate stage: make the images of one chunk of a pool, and commit them."""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from augbench.core.contracts import Augmenter, Request, Synthetic
from augbench.core.errors import UserError
from augbench.core.filters import make_filters
from augbench.core.reviews import ReviewedBy
from augbench.core.seeds import derive_seed
from augbench.core.specs import PoolSpec
from augbench.planning.plan import before_review
from augbench.stages.context import Context, chosen_augmenter, repeatable
from augbench.stages.copy_check import SHOT_COPIES, refuse_test_copies
from augbench.stages.filters import DROPPED, FILTERED, counts_of, filters_of, verdicts
from augbench.stages.image_gate import check_images
from augbench.storage.store import Store, json_bytes, json_lines
from augbench.storage.versions import one_precision

DEFECT = "defect"  # the label of synthetic images in detection
log = logging.getLogger(__name__)


def generate_chunk(context: Context, pool: PoolSpec, chunk: int) -> None:
    """Make one chunk and commit it: images and masks first, its metadata file last.

    Raises:
        UserError: the view lacks what the augmenter needs, other chunks were made in another precision, an image from
            outside is a near-copy of a test image, or filters drop every attempt at an image.
        PluginError: the augmenter violates its contract.
    """
    started = time.perf_counter()
    precision = context.library.augmenter(pool.augmenter).precision_on(context.device)
    if precision:
        one_precision(context.store, pool, sorted(context.store.chunks(pool))[:1], precision)
    made, checking = _made(context, pool, chunk, precision)
    seconds = time.perf_counter() - started - checking
    provenance = {"seconds": seconds, "pictures": len(made), **context.origin(precision)}
    if context.library.augmenter(pool.augmenter).from_outside:
        copies = refuse_test_copies(context, pool, [one.sample for one in made])
        provenance[SHOT_COPIES] = [made[place].request.index for place in copies]
    lines = [_write(context, pool, one) for one in made]
    if counts := counts_of(lines):
        provenance[FILTERED] = counts
    context.store.files.write(context.store.chunk_provenance_name(pool, chunk), json_bytes(provenance))
    context.store.files.write(context.store.chunk_name(pool, chunk), json_lines(lines))
    context.store.clear_failure(pool.key)
    log.info("%d images in %.2f s; committed in %.2f s", len(made), seconds, time.perf_counter() - started - seconds)


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
    identity = (pool.adapter.augmenter.digest, pool.adapter.key if learns else "")

    def load() -> Augmenter:
        augmenter, _ = chosen_augmenter(context, pool.adapter)
        name = context.store.name("adapters", pool.adapter.key)
        folder = context.store.files.local_folder(name) if learns else None
        with repeatable(augmenter.uses_gpu, context.device, precision):  # an adapter is merged by matrix products
            augmenter.load(folder, context.device)
        return augmenter

    return context.only(identity, load)


@dataclass(frozen=True)
class _Made:
    """An image that passed all filters."""

    request: Request
    sample: Synthetic
    dropped: tuple[str, ...] | None  # the filters that dropped earlier attempts; None: the pool has no filters


def _made(context: Context, pool: PoolSpec, chunk: int, precision: str) -> tuple[list[_Made], float]:
    """Make the images of a chunk. Those that a filter drops are made again, together, with seeds of their own.

    So an image depends on its chunk alone, and a filtered pool differs from the unfiltered one in dropped images only.

    Returns:
        The images by index, and the seconds of the gate, which are no cost of the augmenter.

    Raises:
        UserError: as `generate_chunk`; PluginError: an image breaks the contract.
    """
    settings = make_filters(pool.augmenter.filters)
    indices = range(chunk * pool.chunk_size, (chunk + 1) * pool.chunk_size)
    if settings.review:
        return _certified(context, pool, settings.review, indices), 0.0
    augmenter = _loaded(context, pool, precision)
    view, filters = context.view(augmenter, pool), filters_of(context, pool)
    dropped: dict[int, tuple[str, ...]] = dict.fromkeys(indices, ())
    kept: dict[int, _Made] = {}
    checking = 0.0
    for attempt in range(settings.attempts if filters else 1):
        requests = [_request(pool, index, attempt) for index in indices if index not in kept]
        with repeatable(augmenter.uses_gpu, context.device, precision):
            samples = augmenter.generate(requests, view)
        before = time.perf_counter()
        check_images(augmenter, requests, samples, view, may_be_unchanged=settings.unchanged is not None)
        checking += time.perf_counter() - before
        for request, sample, verdict in zip(requests, samples, verdicts(filters, samples), strict=True):
            earlier = dropped[request.index]
            if verdict:
                dropped[request.index] = (*earlier, verdict)
            else:
                kept[request.index] = _Made(request, sample, earlier if filters else None)
        if len(kept) == len(indices):
            return [kept[index] for index in indices], checking
    lost = next(index for index in indices if index not in kept)
    each = ", ".join(f"filters.{name} {number}" for name, number in Counter(dropped[lost]).items())
    raise UserError(
        f"augmenter '{pool.augmenter.alias}': image {lost} was dropped {settings.attempts} times ({each}): loosen or "
        "take out this filter, or raise filters.attempts"
    )


def _certified(context: Context, pool: PoolSpec, review: ReviewedBy, indices: range) -> list[_Made]:
    """Take the images of a chunk from a review: those of the unreviewed pool that a person accepted, in order.

    Raises:
        UserError: the review changed, or it has none of this pool; PluginError: an image breaks the contract.
    """
    augmenter, chosen = context.library.augmenter(pool.augmenter), review.chosen(before_review(pool).key)
    requests = [_request(pool, index, 0) for index in indices]
    samples = []
    for request in requests:
        image, mask, line = chosen.take(request.index, request.label, pool.data.classes)
        meta = {name: line[name] for name in ("source", "prompt") if name in line}
        meta |= {"reviewed": line["file_name"], "of": line["index"]}
        samples.append(Synthetic(image, request.label, mask, meta))
    check_images(augmenter, requests, samples, context.view(augmenter, pool), may_be_unchanged=True)
    return [_Made(request, sample, None) for request, sample in zip(requests, samples, strict=True)]


def _request(pool: PoolSpec, index: int, attempt: int) -> Request:
    classes = pool.data.classes or (DEFECT,)
    again = [attempt] if attempt else []
    seed = derive_seed("generate", pool.augmenter.name, pool.seed, pool.fresh_for or "", index, *again)
    return Request(index, seed, classes[index % len(classes)])


def _write(context: Context, pool: PoolSpec, made: _Made) -> dict:
    """Write image and mask. Returns the metadata line, with names relative to the pool's folder."""
    request, sample = made.request, made.sample
    line = {
        "index": request.index,
        "seed": request.seed,
        "label": sample.label,
        "meta": sample.meta,
        "file_name": f"images/{request.index:05d}.png",
        "sha256": _write_png(context.store, context.store.image_name(pool, request.index), sample.image),
    }
    if made.dropped is not None:
        line[DROPPED] = list(made.dropped)
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
