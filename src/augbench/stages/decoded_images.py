"""Decode images at a protocol's size: dataset images once per node, pool images at most once per worker."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from augbench.classifiers.loader import on_device
from augbench.core.contracts import Dataset
from augbench.core.protocol import Protocol
from augbench.core.specs import PoolSpec
from augbench.planning.plan import Plan, PoolSlice
from augbench.planning.splits import checked_samples
from augbench.storage.store import Store

if TYPE_CHECKING:
    import torch

AT_ONCE = 32  # images of a dataset held at their own size; a multiple of the batch of a round trip
POOL_CACHE_SIZE = 16  # decoded pools a worker caches; cells of one pool run close together


class Geometry(NamedTuple):
    """The settings of a protocol that decide how decoded images become those that a classifier sees."""

    width: int
    height: int
    crop: str
    first: tuple[int, int] | tuple[()] = ()  # the size to resize to first
    quality: int = 0  # of the JPEG as which every image is stored first; 0: as it is


def geometry(protocol: Protocol) -> Geometry:
    """Return these settings of a protocol."""
    first, quality = protocol.resize_first or (), protocol.harmonise or 0
    return Geometry(protocol.width, protocol.height, protocol.crop, first, quality)


def prepared(image: np.ndarray, size: Geometry) -> np.ndarray:
    """Return an image H,W,3 uint8 as a classifier sees it: harmonised at its own size, then resized."""
    return fit_to_protocol(as_jpeg(image, size.quality) if size.quality else image, size)


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Store H,W,3 uint8 as JPEG with colours at half the resolution (4:2:0), as is usual, and decode it.

    What is such a JPEG of that quality already hardly changes: by the rounding of its pixels.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))


def fit_to_protocol(image: np.ndarray, size: Geometry) -> np.ndarray:
    """Resize H,W,3 uint8 to the geometry's height,width,3, after an optional first resize and centre crop."""
    width, height, crop, first, *_ = size
    if first:
        image = _resized(image, *first)
    if crop == "centre":
        image = _centre_crop(image, width / height)
    return _resized(image, width, height)


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize bilinearly; an image of that size is returned as it is."""
    from PIL import Image

    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _centre_crop(image: np.ndarray, aspect: float) -> np.ndarray:
    """Crop to the largest centred rectangle with ``aspect`` = width / height."""
    height, width = image.shape[:2]
    new_width = min(width, max(1, round(height * aspect)))
    new_height = min(height, max(1, round(width / aspect)))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return image[top : top + new_height, left : left + new_width]


def decode_rows(
    dataset: Dataset, table: pd.DataFrame, size: Geometry, reconstruct: Callable[[list], list] = list
) -> np.ndarray:
    """Decode the images of rows of a dataset's table: N,height,width,3 uint8.

    ``reconstruct`` gets images at their own sizes, `AT_ONCE` at a time, and returns them as they are to be prepared.

    Raises:
        UserError: an image cannot be read; the message names it.
    """
    rows = table.to_dict("records")
    out = np.empty((len(rows), size[1], size[0], 3), np.uint8)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as executor:  # decoding releases the GIL
        for start in range(0, len(rows), AT_ONCE):
            images = reconstruct(list(executor.map(dataset.read_image, rows[start : start + AT_ONCE])))
            for index, image in enumerate(executor.map(prepared, images, repeat(size)), start):
                out[index] = image
    return out


def decode_pool(store: Store, pool: PoolSpec, indices: range, size: Geometry) -> np.ndarray:
    """Decode images of a pool: N,height,width,3 uint8.

    Raises:
        UserError: an image is missing or damaged; the message names it.
    """
    out = np.empty((len(indices), size[1], size[0], 3), np.uint8)
    names = [store.image_name(pool, index) for index in indices]
    for number, data in enumerate(store.files.read_many(names)):
        out[number] = prepared(store.decoded(pool, names[number], data), size)
    return out


def decode_all(plan: Plan) -> dict[tuple[str, Geometry], np.ndarray]:
    """Decode the datasets of a plan at every size at which it fine-tunes. Raises UserError as `decode_rows`.

    Images that made a round trip are in the store, see `stages.features`.
    """
    read = [cell for cell in plan.cells if cell.key not in plan.reads]
    sizes = {(cell.data.alias, geometry(cell.protocol)) for cell in read}
    datasets = {alias: plan.library.dataset(alias) for alias, _ in sizes}
    return {
        (alias, size): decode_rows(datasets[alias], checked_samples(datasets[alias]), size)
        for alias, size in sorted(sizes)
    }


class DecodedImages:
    """Decoded images by dataset and pool, with cached copies on the device."""

    def __init__(self, store: Store, real: Mapping[tuple[str, Geometry], np.ndarray]) -> None:
        """``real`` has N,H,W,3 uint8 by (dataset's name in the grid, geometry), in the order of the dataset's table."""
        self.store = store
        self.real = real
        self._pools: OrderedDict[tuple[str, Geometry], np.ndarray] = OrderedDict()
        self._tensors: OrderedDict[int, tuple[np.ndarray, torch.Tensor]] = OrderedDict()

    def pool(self, pool_slice: PoolSlice, size: Geometry) -> np.ndarray:
        """Return the first ``pool_slice.n`` images of a pool: n,H,W,3 uint8."""
        key = (pool_slice.pool.key, size)
        cached = self._pools.pop(key, None)
        if cached is None or len(cached) < pool_slice.n:
            # All chunks that hold the first n images, so that a larger N_aug in the same chunks is cached too.
            indices = range(pool_slice.chunks * pool_slice.pool.chunk_size)
            cached = decode_pool(self.store, pool_slice.pool, indices, size)
        self._pools[key] = cached
        while len(self._pools) > POOL_CACHE_SIZE:
            self._pools.popitem(last=False)
        return cached[: pool_slice.n]

    def tensor(self, array: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return the array as a tensor on the device. A GPU caches the last few of them across cells."""
        if device.type == "cpu":
            return on_device(array, device)
        address = array.__array_interface__["data"][0] ^ len(array)
        if address not in self._tensors:
            self._tensors[address] = array, on_device(array, device)  # with the array: its address is not reused
        self._tensors.move_to_end(address)
        while len(self._tensors) > POOL_CACHE_SIZE:
            self._tensors.popitem(last=False)
        return self._tensors[address][1]
