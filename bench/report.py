"""Measure seconds and peak memory of `augbench report` and `augbench leaderboard` on many records.

    python bench/report.py [--records 10000] [--scored 0.1] [--keep FOLDER]

Creates a store of synthetic but valid records with curves of 50 epochs. The first ones, so that whole tables are
covered, have scores of 1,004 test images, from which their metrics are computed. Then runs both commands like a user,
each in its own process. The goal is for the report; the leaderboard, without images, also resamples the scores and
copies every record.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from augbench.core.hashing import digest
from augbench.core.protocol import make_protocol
from augbench.core.specs import AugmenterSpec, Cell, DataSpec
from augbench.metrics.evaluate import evaluate
from augbench.planning.outline import expected_cell
from augbench.storage.store import Store, json_bytes

GOAL_SECONDS, GOAL_BYTES = 10.0, 1_000_000_000
DATASETS, SHOTS, AUGMENTERS, N_AUG, SEEDS = 5, (0, 5, 10, "all"), 10, (20, 40, 80, 120, 200), 10
PROTOCOL = {
    "name": "bench",
    "width": 224,
    "height": 224,
    "lr": 0.01,
    "batch": 5,
    "epochs": 50,
    "ap": "step",
    "holdout": 0.1,
    "false_alarm_rate": 0.05,
}
PARTS = ["test"] * 1004 + ["heldout"] * 208
LABELS = np.where(np.arange(len(PARTS)) < 110, "defect", "good")
IDS = [f"{20000 + i}" for i in range(len(PARTS))]


def cells(number: int) -> Iterator[Cell]:
    """Yield the first ``number`` cells of a grid of datasets, shots, augmenters, N_aug and seeds."""
    protocol = make_protocol(PROTOCOL)
    rows = [("none", 0), *((f"augmenter{a}", n) for a in range(AUGMENTERS) for n in N_AUG)]
    axes = itertools.product(range(DATASETS), SHOTS, rows, range(SEEDS))
    wanted = (axis for axis in axes if not (axis[1] == 0 and axis[2][1] == 0))
    for dataset, shots, (augmenter, n_aug), seed in itertools.islice(wanted, number):
        name = f"surface{dataset}"
        data = DataSpec(name, name, {}, hashlib.sha256(name.encode()).hexdigest(), None, protocol.holdout)
        draw = 0 if isinstance(shots, int) and shots else None
        yield Cell(data, AugmenterSpec(augmenter, augmenter, {}, {}), shots, draw, n_aug, seed, protocol)


def record(cell: Cell, rng: np.random.Generator, scores: pd.DataFrame | None) -> dict:
    """Make a record from these scores, or with random numbers."""
    result = random_metrics(rng) if scores is None else evaluate(scores, cell.protocol)
    result["counts"] = {"train_negatives": 2085, "shots": 5, "synthetic": cell.n_aug, "heldout_negatives": 208}
    result["curves"] = {
        "loss": [float(value) for value in rng.uniform(0, 1, 50)],
        "test": [{"epoch": epoch, "ap": result["ap"]} for epoch in range(1, 51)],
    }
    provenance = {
        "seconds": {"total": 30.0, "fit": 28.0, "gather": 0.1, "judge": 1.9},
        "images_per_second": 400.0,
        "embedded": [],
        "notes": [],
        "device": "bench",
        "git_sha": "a" * 40,
        "versions": {"augbench": "0.2.0", "torch": "2.15.0"},
    }
    return {"schema": 1, "key": cell.key, "spec": cell.as_dict(), "result": result, "provenance": provenance}


def random_metrics(rng: np.random.Generator) -> dict:
    """Draw metrics at random."""
    ap, precision, recall, low = (float(value) for value in rng.uniform(0.4, 0.9, 4))
    at = {"threshold": 0.0, "precision": precision, "recall": recall, "f1": ap, "accuracy": 0.9}
    return {
        "ap": ap,
        "ap_step": ap,
        "ap_trapezoidal": ap,
        "auroc": 0.9,
        "recall_at_1pct_false_alarms": low,
        "oracle": {**at, "false_alarm_rate": 0.1},
        "heldout": {**at, "recall": low, "false_alarm_rate": 0.04},
        "per_class": {"defect": {"support": 110, "ap": ap, "recall": recall, "heldout_recall": low}},
    }


def random_scores(rng: np.random.Generator) -> pd.DataFrame:
    """Draw scores of 1,004 test images and 208 held-out ones."""
    logits = rng.normal(size=len(LABELS)) + (LABELS == "defect")
    columns = {"id": IDS, "part": PARTS, "label": LABELS, "group": IDS, "logit": logits.astype(np.float32)}
    return pd.DataFrame(columns)


def parquet(table: pd.DataFrame) -> bytes:
    """Encode the table as Parquet."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def make_store(folder: Path, number: int, scored: float) -> None:
    """Fill a store. Files are written without fsync, since the store is disposable."""
    store, rng = Store(folder), np.random.default_rng(0)
    for kind in ("cells", "scores", "grids"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    every = list(cells(number))
    for number_of_cell, cell in enumerate(every):
        scores = random_scores(rng) if number_of_cell < scored * number else None
        (folder / store.name("cells", cell.key)).write_bytes(json_bytes(record(cell, rng, scores)))
        if scores is not None:
            (folder / store.name("scores", cell.key)).write_bytes(parquet(scores))
    listing = {
        "name": "bench",
        "cells": [expected_cell(cell, "detection") for cell in every],
        "digest": digest(PROTOCOL),
    }
    (folder / store.name("grids", "bench")).write_bytes(json_bytes(listing))


def measure(*arguments: str) -> tuple[float, int]:
    """Return the seconds and the peak memory in bytes of a command, including the start of Python."""
    code = (
        "import resource, sys; from augbench.cli.app import main; sys.argv = ['augbench', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as end: status = end.code\n"
        "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(status)"
    )
    begun = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - begun
    if ran.returncode:
        raise SystemExit(f"augbench {' '.join(arguments)} ended with {ran.returncode}: {ran.stderr}")
    peak = next(line for line in reversed(ran.stderr.splitlines()) if line.startswith("PEAK"))
    return seconds, int(peak.split()[1]) * 1024


def main() -> None:
    """Create the store, run the commands, print their costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--scored", type=float, default=0.1, help="share of the records that have scores")
    parser.add_argument("--keep", type=Path, help="create the store there, and keep it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="augbench-report-") as temporary:
        folder = given.keep or Path(temporary) / "store"
        if not (folder / "cells").is_dir():
            make_store(folder, given.records, given.scored)
        out = Path(temporary) / "out"
        page = out / "leaderboard"
        runs = {
            "report": ("report", str(folder), "--out", str(out / "report")),
            "leaderboard": ("leaderboard", str(folder), "--out", str(page), "--pictures", "none"),
        }
        for name, arguments in runs.items():
            seconds, peak = measure(*arguments)
            over = name == "report" and (seconds > GOAL_SECONDS or peak > GOAL_BYTES)
            print(f"{name}: {seconds:.1f} s, {peak / 1e6:.0f} MB peak{'; over the goal' if over else ''}")
        print(f"index.html: {(page / 'index.html').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
