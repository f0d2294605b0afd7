"""Measure probes: images per second of features, and cells per second with one and with two workers.

    python bench/probes.py [--cells 240]

The dataset is `surfaces` with 700 normal training images, the backbone EfficientNet-Lite0 with its packaged weights;
each draw of five shots has six cells, as a grid over N_aug and pool seeds has. A store with pools and features is
prepared, so the seconds between the first and the last record are those of trainings alone.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from augbench.core.protocol import load_preset
from augbench.features.frozen import BATCH, FrozenBackbone
from augbench.planning.grid import Grid, make_grid
from augbench.planning.plan import make_plan
from augbench.runner.driver import run
from augbench.storage.store import Store

SURFACES = {"train_good": 780, "train_defective": 60, "test_good": 150, "test_defective": 50}
N_AUG, SEEDS = [20, 80], [0, 1, 2]
PER_DRAW = len(N_AUG) * len(SEEDS)


def grid_of(draws: range, weight: float | str, workers: int = 1) -> Grid:
    """Return a grid of `PER_DRAW` cells per draw of five shots, of the same three pools."""
    return make_grid(
        {
            "name": "probes",
            "datasets": [{"name": "surfaces", "settings": SURFACES}],
            "augmenters": ["memseg"],
            "protocols": [{"name": "timed", "preset": "probe", "synthetic_weight": weight}],
            "shots": [5],
            "draws": list(draws),
            "n_aug": N_AUG,
            "seeds": SEEDS,
            "fidelity": None,
            "resources": {"train": {"workers": workers}},
        }
    )


def images_per_second() -> float:
    """Measure extraction by one thread, without reading and resizing."""
    torch.set_num_threads(1)
    protocol = load_preset("probe")
    images = np.random.default_rng(0).integers(0, 256, (4 * BATCH, protocol.height, protocol.width, 3), np.uint8)
    network = FrozenBackbone(protocol, "cpu")
    network(images[:BATCH])
    started = time.perf_counter()
    network(images)
    return len(images) / (time.perf_counter() - started)


def cells_per_second(prepared: Path, grid: Grid, folder: Path, console: Console) -> float:
    """Run a grid in a copy of a store that holds its pools and features."""
    store = Store(shutil.copytree(prepared, folder))
    summary = run(grid, store, console=console)
    names = {f"{key}.json" for key in make_plan(grid).by_key}
    assert summary.trained == len(names) and not summary.failures
    ages = [age for name, age in store.files.ages("cells").items() if name in names]
    return (len(ages) - 1) / (max(ages) - min(ages))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=240)
    options = parser.parse_args()
    console, quiet = Console(), Console(quiet=True)
    table = Table("what", "1 worker", "2 workers", "ratio")
    table.add_row("features, images/s of one thread", f"{images_per_second():.1f}", "", "")
    with tempfile.TemporaryDirectory(prefix="augbench-probes-") as scratch:
        root = Path(scratch)
        first = grid_of(range(10_000, 10_001), 1.0)
        run(first, Store(root / "prepared"), executor="inline", console=quiet)
        for weight, cells in ((1.0, options.cells), ("cv", options.cells // 4)):
            draws, rates = range(-(-cells // PER_DRAW)), []
            for workers in (1, 2):
                grid, folder = grid_of(draws, weight, workers), root / f"{weight}-{workers}"
                rates.append(cells_per_second(root / "prepared", grid, folder, quiet))
            named = f"probes, synthetic_weight {weight}, cells/s"
            table.add_row(named, *(f"{rate:.1f}" for rate in rates), f"{rates[1] / rates[0]:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
