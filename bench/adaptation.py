"""Whether fine-tuning brings generated pictures closer to real defects that it was not fine-tuned on, without copying.

    python bench/adaptation.py [--dataset surfaces] [--bundle micro-sd] [--pictures 60] [--epochs 25] [--sheet FILE]

The real defects of the training split are cut in two halves, by group. `ddpm` learns from one; KID is measured to the
other, for as many pictures of the untouched bundle, of the adapted one, of MemSeg, and for the first half itself.
Beside it stands how far each made picture is from the nearest one that was learned from, against the same distance
among real ones: copies would be much nearer. Features are those of `micro_resnet`. Mechanics, not evidence.
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
    """The rows in two halves; what belongs to one group stays together."""
    groups = rows["group"].unique()
    order = rng("bench-adaptation", seed).permutation(len(groups))
    first = rows["group"].isin(groups[order[: len(groups) // 2]])
    return rows[first], rows[~first]


def drawn(augmenter: Augmenter, view: TrainView, count: int) -> list[np.ndarray]:
    """The first ``count`` pictures of its pool, chunk by chunk."""
    requests = [Request(i, derive_seed("bench-adaptation", augmenter.name, i), "defect") for i in range(count)]
    size = augmenter.chunk_size
    chunks = [augmenter.generate(requests[start : start + size], view) for start in range(0, count, size)]
    return [made.image for chunk in chunks for made in chunk]


def made_pictures(args: argparse.Namespace, dataset: Dataset, learned: pd.DataFrame) -> dict[str, list[np.ndarray]]:
    """Pictures of each source, and the sources' names."""
    table = dataset.samples()
    good = table[(table["label"] == GOOD) & (table["split"] != "test")]
    settings = {"bundle": args.bundle, "full": {"epochs": args.epochs, "alpha": args.alpha}, "lr": args.lr}
    same = ("class_pictures", "steps", "aspect", "min_snr", "guidance")
    settings |= {name: getattr(args, name) for name in same}
    ddpm = registry.make("augmenters", "ddpm", settings)
    view = TrainView(dataset, good, learned, ddpm.reads("all"), "all")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def shared(key: str, make) -> Path:
            (place / key).mkdir(exist_ok=True)
            make(place / key)
            return place / key

        out = place / "adapter"
        out.mkdir()
        last = [0.0]

        def say(step: int, steps: int, loss: float) -> None:
            if time.monotonic() - last[0] > 10 or step == steps:
                last[0] = time.monotonic()
                print(f"step {step} of {steps}, loss {loss:.3f}", flush=True)

        ddpm.adapt(view, out, args.seed, AdaptContext(place, shared, args.device, say))
        told = json.loads((out / "generation.json").read_text())
        for name, alpha in (("untouched bundle", 0.0), ("adapted", args.alpha)):
            (out / "generation.json").write_text(json.dumps(told | {"alpha": alpha}))
            ddpm.load(out, args.device)
            found[name] = drawn(ddpm, view, args.pictures)
        size = sum(path.stat().st_size for path in out.rglob(f"*{lora.WEIGHTS}"))
        print(f"adapter: {size / 1e6:.2f} MB")
    memseg = registry.make("augmenters", "memseg", {})
    memseg.load(None, "cpu")
    found["memseg"] = drawn(memseg, TrainView(dataset, good, learned, memseg.reads("all"), "all"), args.pictures)
    return found


def main() -> None:
    """Adapt on one half, judge by the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="surfaces")
    parser.add_argument("--root", type=Path, help="where its files lie")
    parser.add_argument("--bundle", default="micro-sd")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--lr", type=float, default=1e-3, help="a small bundle takes more than the paper's 1e-5")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--min-snr", type=float, default=5.0, help="0: none")
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--class-pictures", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--aspect", choices=["squeeze", "keep"], default="squeeze")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path, help="draw real defects above pictures of each source")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset = registry.make("datasets", args.dataset, {"root": str(args.root)} if args.root else {})
    table = dataset.samples()
    real = table[(table["label"] != GOOD) & (table["split"] != "test")]
    learned, judged = halves(real, args.seed)
    pictures = {
        "learned from": [dataset.read_image(row) for row in learned.to_dict("records")],
        "judged by": [dataset.read_image(row) for row in judged.to_dict("records")],
    }
    begun = time.perf_counter()
    pictures |= made_pictures(args, dataset, learned)
    seconds = time.perf_counter() - begun
    heights, widths = zip(*(picture.shape[:2] for picture in pictures["judged by"]), strict=True)
    size = (int(np.median(widths)), int(np.median(heights)))
    extractor = Extractor(EMBEDDED, args.device)
    known = {name: extractor(own, (size[1], size[0])) for name, own in pictures.items()}
    small = {name: thumbnails(own) for name, own in pictures.items()}
    rows = {}
    for name in pictures:
        if name == "judged by":
            continue
        same = name == "learned from"
        apart = nearest(known[name]) if same else nearest(known[name], known["learned from"])
        rows[name] = {
            "kid": kid(known["judged by"], known[name]),
            "nearest, median": float(np.median(apart)),
            "nearest, least": float(apart.min()),
            "copies": None if same else memorisation(small[name], small["learned from"], small["judged by"]),
            "pictures": len(pictures[name]),
        }
    columns = ("pictures", "number", "KID to unseen defects", "nearest learned: median", "least", "thumbnails")
    table = Table(*columns, title=dataset.title)
    for name, row in rows.items():
        cells = [f"{row['kid']:.3f}", f"{row['nearest, median']:.2f}", f"{row['nearest, least']:.2f}"]
        cells.append("-" if row["copies"] is None else f"{row['copies']:.2f}")
        table.add_row(name, str(row["pictures"]), *cells)
    Console().print(table)
    print("The row 'learned from' gives distances among those pictures themselves. Thumbnails: how near made pictures")
    print("are to the nearest learned one, over how near unseen real ones are: 0 is copies, 1 is as far as they.")
    about = {"dataset": args.dataset, "bundle": args.bundle, "judged": len(judged), "seconds": seconds}
    options = {
        name: getattr(args, name)
        for name in ("epochs", "lr", "alpha", "min_snr", "guidance", "steps", "aspect", "seed")
    }
    where = {"device": device_name(args.device), "versions": versions()}
    print(json.dumps({"bench": "adaptation", **about, **options, "rows": rows, **where}))
    if args.sheet:
        columns = min(SHEET_COLUMNS, *map(len, pictures.values()))
        lines = [
            np.concatenate([np.asarray(Image.fromarray(p).resize(size)) for p in own[:columns]], 1)
            for own in pictures.values()
        ]
        Image.fromarray(np.concatenate(lines)).save(args.sheet, optimize=True)


if __name__ == "__main__":
    main()
