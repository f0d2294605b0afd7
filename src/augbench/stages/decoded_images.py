"""Decoded pictures at a protocol's size: real ones once per node, pool ones at most once per worker."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from augbench.classifiers.loader import on_device
from augbench.core.contracts import Dataset, decode_rgb
from augbench.core.errors import UserError
from augbench.core.protocol import Protocol
from augbench.planning.plan import Plan, PoolSlice
from augbench.planning.splits import checked_samples
from augbench.storage.store import FIX_HINT, Store

if TYPE_CHECKING:
    import torch

Geometry = tuple[int, int, str, tuple[int, int] | tuple[()]]  # width, height, crop, size to resize to first or ()
POOLS_KEPT = 16  # decoded pools a worker keeps; cells of one pool run close together


def geometry(protocol: Protocol) -> Geometry:
    """What of a protocol decides how pictures are cut and resized."""
    return protocol.width, protocol.height, protocol.crop, protocol.resize_first or ()


def fit_to_protocol(image: np.ndarray, size: Geometry) -> np.ndarray:
    """H,W,3 uint8 to the geometry's height,width,3 uint8: resized first, and cut to its aspect, if it says so."""
    width, height, crop, first = size
    if first:
        image = _resized(image, *first)
    if crop == "centre":
        image = _centre_crop(image, width / height)
    return _resized(image, width, height)


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear; the same picture where it has the size already."""
    from PIL import Image

    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _centre_crop(image: np.ndarray, aspect: float) -> np.ndarray:
    """The largest centred rectangle with ``aspect`` = width / height."""
    height, width = image.shape[:2]
    new_width = min(width, max(1, round(height * aspect)))
    new_height = min(height, max(1, round(width / aspect)))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return image[top : top + new_height, left : left + new_width]


def decode(dataset: Dataset, size: Geometry, threads: int) -> np.ndarray:
    """All pictures of a dataset in the order of its table: N,height,width,3 uint8.

    Raises:
        UserError: a picture that cannot be read, named.
    """
    rows = checked_samples(dataset).to_dict("records")
    out = np.empty((len(rows), size[1], size[0], 3), np.uint8)

    def one(index: int) -> None:
        out[index] = fit_to_protocol(dataset.read_image(rows[index]), size)

    with ThreadPoolExecutor(threads) as pool:  # decoding releases the GIL
        list(pool.map(one, range(len(rows))))
    return out


def decode_all(plan: Plan) -> dict[tuple[str, Geometry], np.ndarray]:
    """The real pictures of a plan, at every size that its protocols ask for. Raises UserError as `decode`."""
    threads = min(8, os.cpu_count() or 1)
    sizes = {(cell.data.alias, geometry(cell.protocol)) for cell in plan.cells}
    return {(alias, size): decode(plan.library.dataset(alias), size, threads) for alias, size in sorted(sizes)}


class DecodedImages:
    """Decoded pictures by dataset and by pool, with their copies on the device."""

    def __init__(self, store: Store, real: Mapping[tuple[str, Geometry], np.ndarray]) -> None:
        """``real``: (dataset's name in the grid, geometry) -> N,H,W,3 uint8, in the order of its table."""
        self.store = store
        self.real = real
        self._pools: OrderedDict[tuple[str, Geometry], np.ndarray] = OrderedDict()
        self._tensors: OrderedDict[int, tuple[np.ndarray, torch.Tensor]] = OrderedDict()

    def pool(self, take: PoolSlice, size: Geometry) -> np.ndarray:
        """The first ``take.n`` pictures of a pool: n,H,W,3 uint8."""
        key = (take.pool.key, size)
        have = self._pools.pop(key, None)
        if have is None or len(have) < take.n:
            have = self._read_pool(take, size)
        self._pools[key] = have
        while len(self._pools) > POOLS_KEPT:
            self._pools.popitem(last=False)
        return have[: take.n]

    def _read_pool(self, take: PoolSlice, size: Geometry) -> np.ndarray:
        """All whole chunks that hold the first n, so that a larger N_aug of the same chunks is served too."""
        count = take.chunks * take.pool.chunk_size
        out = np.empty((count, size[1], size[0], 3), np.uint8)
        names = [self.store.image_name(take.pool, index) for index in range(count)]
        for index, data in enumerate(self.store.files.read_many(names)):
            place = self.store.files.where(names[index])
            try:
                out[index] = fit_to_protocol(decode_rgb(data or b"", place), size)
            except UserError:
                marker = self.store.files.where(self.store.chunk_name(take.pool, index // take.pool.chunk_size))
                raise UserError(f"pool picture '{place}' is missing or damaged: chunk '{marker}': {FIX_HINT}") from None
        return out

    def tensor(self, array: np.ndarray, device: torch.device) -> torch.Tensor:
        """The array on the device. On a GPU the last few stay there from cell to cell."""
        if device.type == "cpu":
            return on_device(array, device)
        address = array.__array_interface__["data"][0] ^ len(array)
        if address not in self._tensors:
            self._tensors[address] = (array, on_device(array, device))  # holding the array keeps its address taken
        self._tensors.move_to_end(address)
        while len(self._tensors) > POOLS_KEPT:
            self._tensors.popitem(last=False)
        return self._tensors[address][1]
