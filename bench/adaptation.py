"""Measure whether fine-tuning brings generated images closer to unseen real defects, without copying.

    python bench/adaptation.py [--dataset surfaces] [--bundle micro-sd] [--pictures 60] [--epochs 25] [--sheet FILE]

Splits the real defects of the training split into two halves, by group. `ddpm` learns from one; KID to the other is
measured for as many images of the untouched pipeline, of the adapted one, of MemSeg, and for the first half itself.
The table also has the distance of each generated image to the nearest training image, against the same distance among
real ones: copies would be much nearer. The features of `micro_resnet` are smoke-test weights: not evidence.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from augbench.core import registry
from augbench.core.contracts import GOOD, AdaptContext, Augmenter, Dataset, Request, TrainView
from augbench.core.seeds import derive_seed, rng
from augbench.diffusion import lora
from augbench.features.extractor import Extractor, thumbnails
from augbench.metrics.fidelity import kid, memorisation, nearest
from augbench.planning.extractor_choice import EMBEDDED
from augbench.stages.provenance import device_name, versions

SHEET_COLUMNS = 12


def halves(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the rows into two halves; groups stay together."""
    groups = rows["group"].unique()
    order = rng("bench-adaptation", seed).permutation(len(groups))
    first = rows["group"].isin(groups[order[: len(groups) // 2]])
    return rows[first], rows[~first]


def generate(augmenter: Augmenter, view: TrainView, count: int) -> list[np.ndarray]:
    """Generate the first ``count`` images of its pool, chunk by chunk."""
    requests = [Request(i, derive_seed("bench-adaptation", augmenter.name, i), "defect") for i in range(count)]
    size = augmenter.chunk_size
    chunks = [augmenter.generate(requests[start : start + size], view) for start in range(0, count, size)]
    return [sample.image for chunk in chunks for sample in chunk]


def generated_images(args: argparse.Namespace, dataset: Dataset, learned: pd.DataFrame) -> dict[str, list[np.ndarray]]:
    """Generate images with the untouched pipeline, the adapted one and MemSeg; returns them by name."""
    table = dataset.samples()
    negatives = table[(table["label"] == GOOD) & (table["split"] != "test")]
    settings = {"bundle": args.bundle, "full": {"epochs": args.epochs, "alpha": args.alpha}, "lr": args.lr}
    names = ("class_pictures", "steps", "aspect", "min_snr", "guidance")
    settings |= {name: getattr(args, name) for name in names}
    ddpm = registry.make("augmenters", "ddpm", settings)
    view = TrainView(dataset, negatives, learned, ddpm.reads("all"), "all")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)

        def shared(key: str, make) -> Path:
            (scratch / key).mkdir(exist_ok=True)
            make(scratch / key)
            return scratch / key

        out = scratch / "adapter"
        out.mkdir()
        last = [0.0]

        def report_progress(step: int, steps: int, loss: float) -> None:
            if time.monotonic() - last[0] > 10 or step == steps:
                last[0] = time.monotonic()
                print(f"step {step} of {steps}, loss {loss:.3f}", flush=True)

        ddpm.adapt(view, out, args.seed, AdaptContext(scratch, shared, args.device, report_progress))
        generation = json.loads((out / "generation.json").read_text())
        for name, alpha in (("untouched pipeline", 0.0), ("adapted", args.alpha)):
            (out / "generation.json").write_text(json.dumps(generation | {"alpha": alpha}))
            ddpm.load(out, args.device)
            found[name] = generate(ddpm, view, args.pictures)
        size = sum(path.stat().st_size for path in out.rglob(f"*{lora.WEIGHTS}"))
        print(f"adapter: {size / 1e6:.2f} MB")
    memseg = registry.make("augmenters", "memseg", {})
    memseg.load(None, "cpu")
    view = TrainView(dataset, negatives, learned, memseg.reads("all"), "all")
    found["memseg"] = generate(memseg, view, args.pictures)
    return found


def main() -> None:
    """Adapt on one half, evaluate on the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="surfaces")
    parser.add_argument("--root", type=Path, help="the folder of its files")
    parser.add_argument("--bundle", default="micro-sd")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--lr", type=float, default=1e-3, help="a small pipeline needs more than the paper's 1e-5")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--min-snr", type=float, default=5.0, help="0: none")
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--class-pictures", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--aspect", choices=["squeeze", "keep"], default="squeeze")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet: real defects above images of each source")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset = registry.make("datasets", args.dataset, {"root": str(args.root)} if args.root else {})
    table = dataset.samples()
    real = table[(table["label"] != GOOD) & (table["split"] != "test")]
    learned, reference = halves(real, args.seed)
    images = {
        "training half": [dataset.read_image(row) for row in learned.to_dict("records")],
        "reference half": [dataset.read_image(row) for row in reference.to_dict("records")],
    }
    begun = time.perf_counter()
    images |= generated_images(args, dataset, learned)
    seconds = time.perf_counter() - begun
    heights, widths = zip(*(image.shape[:2] for image in images["reference half"]), strict=True)
    size = (int(np.median(widths)), int(np.median(heights)))
    extractor = Extractor(EMBEDDED, args.device)
    known = {name: extractor(own, (size[1], size[0])) for name, own in images.items()}
    small = {name: thumbnails(own) for name, own in images.items()}
    halves_small = small["training half"], small["reference half"]
    rows = {}
    for name in images:
        if name == "reference half":
            continue
        is_training = name == "training half"
        distances = nearest(known[name]) if is_training else nearest(known[name], known["training half"])
        rows[name] = {
            "kid": kid(known["reference half"], known[name]),
            "nearest, median": float(np.median(distances)),
            "nearest, least": float(distances.min()),
            "copies": None if is_training else memorisation(small[name], *halves_small),
            "pictures": len(images[name]),
        }
    columns = ("source", "images", "KID to unseen defects", "nearest training image: median", "least", "thumbnails")
    table = Table(*columns, title=dataset.title)
    for name, row in rows.items():
        cells = [f"{row['kid']:.3f}", f"{row['nearest, median']:.2f}", f"{row['nearest, least']:.2f}"]
        cells.append("-" if row["copies"] is None else f"{row['copies']:.2f}")
        table.add_row(name, str(row["pictures"]), *cells)
    Console().print(table)
    print("The row 'training half' gives distances among its own images. Thumbnails: distance of generated images to")
    print("the nearest training image, over that of unseen real ones: 0 is copies, 1 is as far as they.")
    about = {"dataset": args.dataset, "bundle": args.bundle, "reference": len(reference), "seconds": seconds}
    options = {
        name: getattr(args, name)
        for name in ("epochs", "lr", "alpha", "min_snr", "guidance", "steps", "aspect", "seed")
    }
    where = {"device": device_name(args.device), "versions": versions()}
    print(json.dumps({"bench": "adaptation", **about, **options, "rows": rows, **where}))
    if args.sheet:
        columns = min(SHEET_COLUMNS, *map(len, images.values()))
        lines = [
            np.concatenate([np.asarray(Image.fromarray(p).resize(size)) for p in own[:columns]], 1)
            for own in images.values()
        ]
        Image.fromarray(np.concatenate(lines)).save(args.sheet, optimize=True)


if __name__ == "__main__":
    main()
