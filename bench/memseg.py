"""Measure MemSeg images per second on one core, at two sizes, for each source. Prints a table and one line of JSON.

    python bench/memseg.py [--images N] [--repeats K]

A repeat is N images; the table has the median and the slowest repeat. Reading the negatives is not measured: they are
generated once and kept in memory. The first repeat of each row is a warm-up and dropped.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Mapping

import numpy as np
import pandas as pd
import PIL
from rich.console import Console
from rich.table import Table

from augbench.augmenters.memseg import MemSeg
from augbench.core.contracts import SAMPLE_COLUMNS, Dataset, Request, TrainView
from augbench.core.seeds import derive_seed, rng
from augbench.procedural.noise import spectral

SIZES = ((256, 256), (224, 632))  # width, height
TEXTURE_SHARES = {"texture": 1.0, "structure": 0.0, "mixture": 0.5}
NEGATIVES = 16


class InMemory(Dataset):
    """Random cloudy surfaces of one size, in memory."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self.images = [self._draw(width, height, i) for i in range(NEGATIVES)]

    def samples(self) -> pd.DataFrame:
        """Return `NEGATIVES` normal rows; ``image`` is an index."""
        rows = [(f"n{i}", f"{i}", "", "good", "train", f"n{i}") for i in range(NEGATIVES)]
        return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS))

    def read_image(self, sample: Mapping[str, str]) -> np.ndarray:
        """Return H,W,3 uint8."""
        return self.images[int(sample["image"])]

    @staticmethod
    def _draw(width: int, height: int, index: int) -> np.ndarray:
        generator = rng("bench-memseg", width, height, index)
        clouds = 128 + 25 * spectral(generator, (height, width), 1.2)
        return np.clip(clouds[..., None] + generator.normal(0, 15, 3), 0, 255).astype(np.uint8)


def measure(width: int, height: int, share: float, images: int, repeats: int) -> list[float]:
    """Measure the images per second of each repeat."""
    dataset = InMemory(width, height)
    table = dataset.samples()
    view = TrainView(dataset, table, table.head(0), frozenset({"negatives"}))
    augmenter = MemSeg(MemSeg.Config(texture_share=share))
    rates = []
    for repeat in range(repeats + 1):
        requests = [Request(i, derive_seed("bench-memseg", repeat, i), "defect") for i in range(images)]
        start = time.perf_counter()
        augmenter.generate(requests, view)
        rates.append(images / (time.perf_counter() - start))
    return rates[1:]


def main() -> None:
    """Measure every row, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60, help="images per repeat (default 60)")
    parser.add_argument("--repeats", type=int, default=5, help="repeats after the warm-up (default 5)")
    args = parser.parse_args()

    table = Table("size (W x H)", "source", "images/s, median", "images/s, min", title="MemSeg on one core")
    results = []
    for width, height in SIZES:
        for source, share in TEXTURE_SHARES.items():
            rates = measure(width, height, share, args.images, args.repeats)
            row = {"size": f"{width}x{height}", "source": source}
            row |= {"median": round(statistics.median(rates), 1), "min": round(min(rates), 1)}
            table.add_row(f"{width} x {height}", source, f"{row['median']:.1f}", f"{row['min']:.1f}")
            results.append(row)
    Console().print(table)
    versions = {"python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__}
    setup = {"images": args.images, "repeats": args.repeats, "machine": platform.machine()}
    print(json.dumps({"bench": "memseg", "images_per_second": results, **setup, "versions": versions}))


if __name__ == "__main__":
    main()
