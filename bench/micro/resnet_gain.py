"""Measure the gain of pretraining: `micro_resnet` with its shipped weights against from scratch, on `surfaces`.

    python bench/micro/resnet_gain.py [--seeds 6] [--epochs 8] [--shots all 5] [--lrs 0.001 0.003] [--store FOLDER]

Only the weights differ: images, order, flips and steps are equal. Each learning rate is a row, and the gain compares
both at their better rate, so that no rate favours one of them. `test_efficientnet`, a small timm model, is the
reference for speed (images/s of training in the same run). The shipped weights are smoke-test weights: not evidence.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from augbench.classifiers import micro_resnet
from augbench.planning.grid import make_grid
from augbench.runner.driver import run
from augbench.storage.store import Store

STARTS = {  # printed name: backbone, weights
    "pretrained": ("micro_resnet", "timm"),
    "scratch": ("micro_resnet", "scratch"),
    "test_efficientnet": ("test_efficientnet", "scratch"),
}
PROTOCOL = {
    "width": 64,
    "height": 176,
    "optimiser": "adamw",
    "weight_decay": 0.01,
    "schedule": "cosine",
    "batch": 16,
    "epoch_pictures": 160,
    "flip": True,
    "holdout": 0.1,
    "eval_every": 1000,
}

Found = dict[tuple[str, str], dict[str, list[float]]]
"""(shots, protocol) -> ``ap`` of each seed, in the order of seeds, and ``rate``: images/s."""


def measured(args: argparse.Namespace) -> Found:
    """Train every start at every rate without synthetic images, in ``args.store`` or a temporary store."""
    protocols = [
        {"name": f"{start}_{rate}", "backbone": backbone, "weights": weights, "lr": rate, "epochs": args.epochs}
        for start, (backbone, weights) in STARTS.items()
        for rate in args.lrs
    ]
    axes = {"datasets": ["surfaces"], "augmenters": ["none"], "protocols": [one | PROTOCOL for one in protocols]}
    axes |= {"shots": args.shots, "seeds": list(range(args.seeds)), "n_aug": [0]}
    micro_resnet.register()
    found: Found = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(args.store or folder)
        run(make_grid({"name": "gain", **axes}), store, "inline", console=Console(stderr=True))
        records = [store.read_record(key) for key in store.keys("cells")]
    for record in sorted(records, key=lambda record: record["spec"]["seed"]):
        spec = record["spec"]
        row = found.setdefault((str(spec["shots"]), spec["protocol"]["name"]), {"ap": [], "rate": []})
        row["ap"].append(record["result"]["ap"])
        row["rate"].append(record["provenance"]["images_per_second"])
    return found


def gain(found: Found, shots: str, lrs: list[float]) -> list[float]:
    """Compute the gain in AP of the pretrained start over the one from scratch, for each seed."""
    best = [
        max((found[shots, f"{start}_{rate}"]["ap"] for rate in lrs), key=statistics.mean)
        for start in ("pretrained", "scratch")
    ]
    return [pretrained - scratch for pretrained, scratch in zip(*best, strict=True)]


def main() -> None:
    """Train, print the table and the gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--shots", nargs="+", default=["all"], type=lambda text: text if text == "all" else int(text))
    parser.add_argument("--lrs", nargs="+", type=float, default=[0.001, 0.003])
    parser.add_argument("--store", type=Path, help="folder of the results (default: temporary)")
    args = parser.parse_args()
    found = measured(args)
    table = Table("shots", "start and lr", "AP, mean", "AP of each seed", "images/s")
    for (shots, name), row in found.items():
        each = " ".join(f"{ap:.3f}" for ap in row["ap"])
        table.add_row(shots, name, f"{statistics.mean(row['ap']):.3f}", each, f"{statistics.median(row['rate']):.0f}")
    Console().print(table)
    for shots in map(str, args.shots):
        gains = gain(found, shots, args.lrs)
        print(f"shots {shots}: pretraining gains {statistics.mean(gains):+.3f} AP (worst seed {min(gains):+.3f})")


if __name__ == "__main__":
    main()
