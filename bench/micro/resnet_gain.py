"""What pretraining gains: `micro_resnet` from its shipped weights against the same network from scratch on `surfaces`.

    python bench/micro/resnet_gain.py [--seeds 6] [--epochs 8] [--shots all 5] [--lrs 0.001 0.003] [--store FOLDER]

Equal but for the weights: pictures, order, flips, steps. Each learning rate is a row of its own, and the gain is taken
between the two at their better one, so that neither profits from a rate that suits it. `test_efficientnet`, a small
timm model, is the yardstick for speed (images/s of training in the same run). Mechanics, not
evidence.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from augbench.classifiers import micro_resnet
from augbench.core.grid import make_grid
from augbench.core.store import Store
from augbench.engine.driver import run
from augbench.jobs.provenance import versions

GOAL = 0.05  # AP
STARTS = {  # shown name: backbone, weights
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


def grid(args: argparse.Namespace):
    """Every start at every rate, with nothing added."""
    protocols = [
        {"name": f"{start}_{rate}", "backbone": backbone, "weights": weights, "lr": rate, **PROTOCOL}
        for start, (backbone, weights) in STARTS.items()
        for rate in args.lrs
    ]
    for protocol in protocols:
        protocol["epochs"] = args.epochs
    axes = {"shots": args.shots, "seeds": list(range(args.seeds)), "n_aug": [0]}
    return make_grid({"name": "gain", "datasets": ["surfaces"], "augmenters": ["none"], "protocols": protocols, **axes})


def gathered(store: Store) -> dict[tuple[str, str], dict[str, list[float]]]:
    """(shots, protocol) -> AP of each seed, in the order of seeds, and images/s."""
    records = sorted((store.read_record(key) for key in store.keys("cells")), key=lambda r: r["spec"]["seed"])
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for record in records:
        spec = record["spec"]
        row = found.setdefault((str(spec["shots"]), spec["protocol"]["name"]), {"ap": [], "rate": []})
        row["ap"].append(record["result"]["ap"])
        row["rate"].append(record["provenance"]["images_per_second"])
    return found


def measured(args: argparse.Namespace) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Train every cell in ``args.store``, or where nothing is kept; see `gathered`."""
    micro_resnet.register()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(args.store or folder)
        run(grid(args), store, "inline", console=Console(stderr=True))
        return gathered(store)


def gains(found: dict[tuple[str, str], dict[str, list[float]]], args: argparse.Namespace) -> dict[str, dict]:
    """For each number of shots the mean ``gain`` in AP over the seeds, and that of the ``worst seed``."""
    result = {}
    for shots in map(str, args.shots):
        best = {
            start: max((found[shots, f"{start}_{rate}"]["ap"] for rate in args.lrs), key=statistics.mean)
            for start in ("pretrained", "scratch")
        }
        each = [a - b for a, b in zip(best["pretrained"], best["scratch"], strict=True)]
        result[shots] = {"gain": round(statistics.mean(each), 4), "worst seed": round(min(each), 4)}
    return result


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--shots", nargs="+", default=["all"], type=lambda text: text if text == "all" else int(text))
    parser.add_argument("--lrs", nargs="+", type=float, default=[0.001, 0.003])
    parser.add_argument("--store", type=Path, help="keep the results here (default: nowhere)")
    return parser.parse_args(given)


def main() -> None:
    """Train, print the table and the JSON line."""
    args = arguments()
    found = measured(args)
    table = Table(
        "shots", "start", "lr", "AP, mean (std)", "images/s", title=f"{args.epochs} epochs, {args.seeds} seeds"
    )
    for shots, start, rate in itertools.product(map(str, args.shots), STARTS, args.lrs):
        row = found[shots, f"{start}_{rate}"]
        spread = statistics.stdev(row["ap"]) if args.seeds > 1 else 0.0
        score = f"{statistics.mean(row['ap']):.3f} ({spread:.3f})"
        table.add_row(shots, start, str(rate), score, f"{statistics.median(row['rate']):.0f}")
    Console().print(table)
    gained = gains(found, args)
    for shots, gain in gained.items():
        print(f"shots {shots}: pretraining gains {gain['gain']:+.3f} AP (worst seed {gain['worst seed']:+.3f})")
    rows = [{"shots": shots, "protocol": name, **row} for (shots, name), row in found.items()]
    print(json.dumps({"bench": "resnet_gain", "goal": GOAL, "gains": gained, "rows": rows, "versions": versions()}))


if __name__ == "__main__":
    main()
