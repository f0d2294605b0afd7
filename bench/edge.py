"""Measure exported classifiers on one thread: torch against the ONNX graph against the graph of int8.

    python bench/edge.py STORE EXPORT [STORE EXPORT ...] [--rounds 20] [--out results/edge]

EXPORT is a folder that ``augbench export STORE CELL --int8`` wrote; torch runs the same cell from the store. Latency is
of one image, in rounds of ten runs in which the three take turns, so that disturbances meet all of them; the ratio to
torch is the median over rounds. Throughput is of batches of 32, in turns too. Memory is what a process of its own holds
once it has loaded the classifier and run one image (VmRSS), and its peak (VmHWM): torch's with torch alone, that of a
graph with onnxruntime and numpy alone, as on a line.

AP, recall and size are from model.json: measured when the classifier was exported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RUNS = 10  # of each classifier in a round
BATCH = 32
GRAPHS = {"ONNX": "model.onnx", "ONNX int8": "model-int8.onnx"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
MEMORY = """
def report():
    lines = open("/proc/self/status").read().splitlines()
    found = dict(line.split(":") for line in lines if line.startswith(("VmRSS", "VmHWM")))
    print("MiB", *(int(found[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")))
"""
TORCH = """
import sys, torch
torch.set_num_threads(1)
from edge import torch_run
import numpy as np
run, shape = torch_run(*sys.argv[1:3])
run(np.zeros((1, *shape), np.uint8))
report()
"""
ONNX = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
session.run(None, {"images": numpy.zeros((1, *session.get_inputs()[0].shape[1:]), numpy.uint8)})
report()
"""

Run = Callable[[np.ndarray], Any]


def torch_run(store: str, key: str) -> tuple[Run, tuple[int, int, int]]:
    """Return a function that classifies images N,H,W,3 uint8 by torch, and H, W, 3."""
    import torch

    from augbench.export.classifier import module_of, read_classifier
    from augbench.storage.store import Store

    stored = read_classifier(Store(store), key)
    module, protocol = module_of(stored), stored.cell.protocol
    module = module.to(memory_format=torch.channels_last)

    def run(images: np.ndarray) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(images))[0].numpy()

    return run, (protocol.height, protocol.width, 3)


def onnx_run(path: Path) -> Run:
    """Return a function that classifies images N,H,W,3 uint8 by a graph."""
    from augbench.export.graph import INPUT, session_of

    session = session_of(path.read_bytes())
    return lambda images: session.run(None, {INPUT: images})[0]


def timed(run: Run, images: np.ndarray) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    run(images)
    return time.perf_counter() - started


def memory(script: str, *arguments: str) -> dict[str, float]:
    """Return the MiB that a process holds after one image, and its peak."""
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", MEMORY + script, *arguments]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    resident, peak = map(float, next(line for line in text.splitlines() if line.startswith("MiB")).split()[1:])
    return {"resident_mib": resident, "peak_mib": peak}


def measure(store: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Measure one export; see the module."""
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    run, shape = torch_run(store, model["key"])
    runs = {"torch": run, **{name: onnx_run(folder / file) for name, file in GRAPHS.items() if file in model["graphs"]}}
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *shape), np.uint8)
    for one in runs.values():
        one(images[:1]), one(images)
    single: dict[str, list[list[float]]] = {name: [] for name in runs}
    many: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, one in runs.items():
            single[name].append([timed(one, images[:1]) for _ in range(RUNS)])
            if number % 4 == 0:
                many[name].append(timed(one, images))
    found: dict[str, Any] = {}
    for name in runs:
        every, own = np.concatenate(single[name]), np.median(single[name], axis=1)
        file = GRAPHS.get(name)
        held = memory(TORCH, store, model["key"]) if file is None else memory(ONNX, str((folder / file).resolve()))
        found[name] = {
            "median_ms": 1000 * float(np.median(every)),
            "p99_ms": 1000 * float(np.quantile(every, 0.99)),
            "times_torch": float(np.median(own / np.median(single["torch"], axis=1))),
            "images_per_second": BATCH / float(np.median(many[name])),
            **held,
            "megabytes": None if file is None else model["graphs"][file]["bytes"] / 1e6,
        }
    return {"model": model, "size": list(shape[:2]), "runs": rounds * RUNS, "measured": found}


def lines_of(results: list[dict[str, Any]]) -> list[str]:
    """Return the table as Markdown."""
    lines = [
        "| classifier | runs on | median ms | p99 ms | times torch | images/s | MiB resident (peak) | MB of the file |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        model, (height, width) = result["model"], result["size"]
        for name, one in result["measured"].items():
            file = "-" if one["megabytes"] is None else f"{one['megabytes']:.1f}"
            lines.append(
                f"| {model['kind']}, {model['backbone']}, {width} x {height} | {name} | {one['median_ms']:.1f} | "
                f"{one['p99_ms']:.1f} | {one['times_torch']:.2f} | {one['images_per_second']:.0f} | "
                f"{one['resident_mib']:.0f} ({one['peak_mib']:.0f}) | {file} |"
            )
    lines += ["", "| classifier | cell | | float32 | int8 | |", "|---|---|---|---:|---:|---|"]
    for result in results:
        model = result["model"]
        graphs = model["graphs"]
        small = graphs.get(GRAPHS["ONNX int8"])
        if small is None:
            continue
        low, high = small["metric"]["interval_of_difference"]
        start = f"| {model['kind']}, {model['backbone']} | `{model['key']}` |"
        change = f"difference {low:+.3f} to {high:+.3f} (95 %, over test items)"
        metric = small["metric"]
        lines.append(f"{start} {metric['name']} | {metric['float32']:.3f} | {metric['int8']:.3f} | {change} |")
        if "recall" in small:
            point = graphs[GRAPHS["ONNX"]]["threshold"]
            where = f"at thresholds that {point['above']} of {point['heldout_images']} held-out normal images exceed"
            recall = small["recall"]
            lines.append(f"{start} recall | {recall['float32']:.3f} | {recall['int8']:.3f} | {where} |")
        decisions = f"{small['different_decisions']} of {small['test_images']} test images differ"
        lines.append(f"{start} decisions | | | {decisions} |")
    return lines


def main() -> None:
    """Measure, print the tables and write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("exports", nargs="+", metavar="STORE EXPORT", help="pairs of a store and an export of its cell")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="write edge.json into this folder")
    options = parser.parse_args()
    if len(options.exports) % 2:
        parser.error("give pairs: STORE EXPORT")
    import onnxruntime
    import torch

    from augbench.stages.provenance import device_name

    torch.set_num_threads(1)
    pairs = zip(options.exports[::2], options.exports[1::2], strict=True)
    results = [measure(store, Path(folder), options.rounds) for store, folder in pairs]
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "python": platform.python_version()}
    lines = lines_of(results)
    print("\n".join(lines))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        content = {"device": device_name("cpu"), "threads": 1, "versions": versions, "results": results}
        (options.out / "edge.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
