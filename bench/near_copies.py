"""Measure the search for near-copies: the planted copies it finds, how its pairs agree with the groups, its time.

python bench/near_copies.py NAME [--root DIR] [--set KEY=VALUE ...]     a dataset; figures: docs/leaks.md
python bench/near_copies.py --synthetic 20000                           time and memory, of images without copies
"""

from __future__ import annotations

import argparse
import io
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from augbench.cli.datasets_view import open_library
from augbench.metrics.near_copies import FULL_SIDE, NearCopies, near_copies, thumbnail

PLANTED = 40  # copies of evenly spaced images, of one kind at a time


def jpeg(image: np.ndarray) -> np.ndarray:
    """Encode as JPEG of quality 60."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer).convert("RGB"))


def resized(image: np.ndarray) -> np.ndarray:
    """Resize to 0.9 of the sides."""
    return np.asarray(Image.fromarray(image).resize([round(0.9 * side) for side in image.shape[1::-1]]))


def shifted(image: np.ndarray) -> np.ndarray:
    """Shift by 3 pixels down and right."""
    return np.pad(image, ((3, 0), (3, 0), (0, 0)), mode="reflect")[: len(image), : image.shape[1]]


def scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return what multiplies the brightness."""
    return lambda image: np.clip(image * factor, 0, 255).astype(np.uint8)


KINDS = {"JPEG 60": jpeg, "resized": resized, "shifted": shifted, "brighter": scaled(1.2), "darker": scaled(0.8)}


class Images:
    """Images reduced to the two sizes of the search."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self.small = np.stack([thumbnail(image) for image in images])
        self.large = np.stack([thumbnail(image, FULL_SIDE) for image in images])

    def search(self, copies: Images | None = None) -> NearCopies:
        """Search these images, and copies of some of them."""
        parts = [self, copies] if copies else [self]
        large = np.concatenate([part.large for part in parts])
        return near_copies(np.concatenate([part.small for part in parts]), large.__getitem__)


def dataset(name: str, root: Path | None, changes: list[str]) -> None:
    """Print the pairs found in a dataset, and the share of planted copies found."""
    library = open_library(name, root, changes)
    table = library.samples(name)
    rows = table.to_dict("records")
    read = library.dataset(name).read_image
    images = Images([read(row) for row in rows])
    started = time.perf_counter()
    found = images.search()
    seconds = time.perf_counter() - started
    groups = table["group"].to_numpy()[found.pairs]
    inside = int((groups[:, 0] == groups[:, 1]).sum())
    print(f"{name}: {len(rows):,} images, {len(found.pairs):,} pairs, {inside:,} in one group, {seconds:.0f} s")
    print(f"threshold {found.threshold:.3f}, {found.expected_false:.2g} by chance, largest {found.largest_component}")
    chosen = np.linspace(0, len(rows) - 1, min(PLANTED, len(rows))).round().astype(int)
    for kind, change in KINDS.items():
        found = images.search(Images([change(read(rows[index])) for index in chosen]))
        pairs = set(map(tuple, found.pairs.tolist()))
        recall = np.mean([(index, len(rows) + place) in pairs for place, index in enumerate(chosen.tolist())])
        print(f"{kind}: {recall:.3f} of {len(chosen)} found, threshold {found.threshold:.3f}", flush=True)


def synthetic(number: int) -> None:
    """Print how long the search among images of noise takes, a hundredth of them copies by one pixel of shift."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (number, 96, 96), dtype=np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    copies = number // 100
    small[-copies:] = np.roll(small[:copies], 1, axis=1)
    started, processor = time.perf_counter(), time.process_time()

    def large(indices: np.ndarray) -> np.ndarray:
        return small[indices].repeat(FULL_SIDE // 96, axis=1).repeat(FULL_SIDE // 96, axis=2)

    found = near_copies(small, large)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{number:,} images: {len(found.pairs):,} pairs of {copies:,} planted, {seconds:.0f} s")
    print(f"{processor:.0f} s of processor time, {more:.0f} MB beside the thumbnails ({small.nbytes / 1e6:.0f} MB)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--synthetic", type=int)
    arguments = parser.parse_args()
    if arguments.synthetic:
        synthetic(arguments.synthetic)
    else:
        dataset(arguments.name, arguments.root, arguments.changes)
