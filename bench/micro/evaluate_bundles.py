"""What the micro bundles can do, against the goals they were made for: the table of their model cards.

    python bench/micro/evaluate_bundles.py OUT [--out evaluation.json] [--device cuda] [--skip-gain]

OUT holds `micro-sd` and `micro-sdxl-inpaint`. A probe that shares nothing with them names material and defect: in the
VAE's reconstructions, in pictures made from text, and in good pictures that were inpainted. All on seeds that no
training saw, and where a picture is given also on the materials that none saw. Needs an idle machine for the speed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import evaluate_vae
import numpy as np
import resnet_gain
import sheets
import torch
import vae as micro_vae
from bundle import SD, SDXL
from corpus.pictures import DEFECT_WORDS, MATERIAL_WORDS, RESERVED, TRAINED, Arrays, Item, captions, make, of_items
from corpus.words import WORDS
from probe import CHECKPOINT, Network, probe, scores
from rich.console import Console
from rich.table import Table

from augbench.core.files import write_atomic
from augbench.core.seeds import rng
from augbench.jobs.provenance import versions

SEEDS = {"text": 13, "inpainting": {"unseen seed": 15, "reserved materials": 16}}  # of prompts and corpora
PARTS = {"unseen seed": TRAINED, "reserved materials": RESERVED}
GOALS = {
    "text, defect, mean": 0.80,
    "text, defect, worst": 0.55,
    "text, material": 0.70,
    "inpainting, inside / outside": 8.0,
    "pictures per second": 4.5,
    "micro_resnet, gain in AP": resnet_gain.GOAL,
}
SPEED = {"batch": 8, "runs": 5}


def text_to_image(folder: Path, judge: Network, count: int, device: str) -> dict:
    """``count`` pictures for each defect word and for none, each with a caption that names its material."""
    draw = rng("evaluate-text", SEEDS["text"])
    items = [
        Item(SEEDS["text"], number, TRAINED[draw.integers(len(TRAINED))], "", defect)
        for number, defect in enumerate(word for word in DEFECT_WORDS for _ in range(count))
    ]
    pipeline = sheets.load(folder, device)
    made = sheets.painted(pipeline, [named(item) for item in items], SEEDS["text"])
    found = judged(judge, made, items)
    words = {word: share for word, share in found["by_defect"].items() if word != "good"}
    worst = min(words, key=words.get)
    return found | {"defect, mean": float(np.mean(list(words.values()))), "worst": words[worst], "worst word": worst}


def named(item: Item) -> str:
    """A caption with the material's first name, as "stone" may be granite or slate."""
    return next(text for text in captions(item, 100) if item.material in text)


def judged(judge: Network, made: np.ndarray, items: list[Item]) -> dict:
    """How often the probe finds what was asked for, N,H,W,3 uint8."""
    device = next(judge.parameters()).device
    pixels = torch.from_numpy(made).permute(0, 3, 1, 2).contiguous().to(device)
    material = np.array([MATERIAL_WORDS.index(item.material) for item in items])
    return scores(judge, pixels, material, np.array([DEFECT_WORDS.index(item.defect) for item in items]))


def inpainting(folder: Path, judge: Network, count: int, device: str, workers: int | None) -> dict[str, dict]:
    """Defects painted into good pictures: change inside against outside the mask before paste-back, and the probe.

    The masks are the regions of the defects that the corpus would have drawn there.
    """
    pipeline, found = sheets.load(folder, device), {}
    for name, materials in PARTS.items():
        seed = SEEDS["inpainting"][name]
        drawn = with_defects(make(2 * count, seed, materials=materials, workers=workers), count)
        masks = sheets.regions(drawn)
        keep = masks.mean((1, 2)) < 0.9  # where all is masked there is no outside
        drawn, masks = select(drawn, keep), masks[keep]
        good = without_defects(drawn)
        prompts = [f"{item.material} background with {WORDS[item.defect].one}" for item in drawn.items]
        made = sheets.inpainted(pipeline, good, prompts, masks, seed)
        change = np.abs(made.astype(float) - good.images).mean(3)
        inside, outside = change[masks].mean(), change[~masks].mean()
        before, after = judged(judge, good.images, drawn.items), judged(judge, made, drawn.items)
        found[name] = {
            "pictures": len(made),
            "inside": inside,
            "outside": outside,
            "inside / outside": inside / outside,
            "defect": after["defect"],
            "defect before": before["defect"],
            "material": after["material"],
            "by_defect": after["by_defect"],
        }
    return found


def with_defects(corpus: Arrays, count: int) -> Arrays:
    """The first ``count`` defective pictures."""
    return select(corpus, np.flatnonzero(corpus.defect)[:count])


def select(corpus: Arrays, rows: np.ndarray) -> Arrays:
    """Some pictures of a corpus."""
    rows = np.arange(len(corpus))[rows]
    items = [corpus.items[row] for row in rows]
    return Arrays(corpus.images[rows], corpus.masks[rows], corpus.material[rows], corpus.defect[rows], items)


def without_defects(corpus: Arrays) -> Arrays:
    """The same pieces under the same light, before anything happened to them."""
    return of_items([replace(item, defect="") for item in corpus.items], 1)


def speed(folder: Path, device: str, dtype: torch.dtype, processes: int, threads: int) -> float:
    """Pictures per second of text to image, 20 steps with guidance, the best of some runs: others only disturb.

    Each of the processes paints a batch. With as many as processors, of one thread each, it is as augbench generates.
    """
    context, given = multiprocessing.get_context("spawn"), (folder, device, dtype, threads)
    painters = [ProcessPoolExecutor(1, context, _begin, given) for _ in range(processes)]

    def timed() -> float:
        begun = time.perf_counter()
        for job in [painter.submit(_paint) for painter in painters]:
            job.result()
        return time.perf_counter() - begun

    timed()
    best = min(timed() for _ in range(SPEED["runs"]))
    for painter in painters:
        painter.shutdown()
    return processes * SPEED["batch"] / best


def _begin(folder: Path, device: str, dtype: torch.dtype, threads: int) -> None:
    global _pipeline  # of the process
    torch.set_num_threads(threads)
    _pipeline = sheets.load(folder, device, dtype)


def _paint() -> None:
    sheets.painted(_pipeline, ["copper metal scratches"] * SPEED["batch"], 0, batch=SPEED["batch"])


def speeds(folder: Path, device: str, threads: int) -> dict[str, dict[str, float]]:
    """By arithmetic: of generators as augbench has them on that device, and of one process that has all threads."""
    generators, each = (threads, 1) if device == "cpu" else (1, threads)
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {
        "speed": {name: speed(folder, device, kind, generators, each) for name, kind in kinds.items()},
        "speed, one process": {name: speed(folder, device, kind, 1, threads) for name, kind in kinds.items()},
    }


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, on unseen seeds and on reserved materials, and what was wanted."""

    what: str
    goal: str
    shown: tuple[str, str]
    met: bool | None = None  # None: no goal

    @property
    def verdict(self) -> str:
        """For the last column."""
        return {None: "", True: "met", False: "short"}[self.met]


def rows(found: dict) -> list[Row]:
    """The table, from the numbers of `evaluate`. A goal is judged on unseen seeds."""
    vae, text, paint = found["vae"], found["text"], found["inpainting"]

    def row(what: str, shown: Sequence[str], value: float | None = None, goal: float = 0, form: str = ".0%") -> Row:
        pair = (shown[0], shown[1] if len(shown) > 1 else "")
        return Row(what, "" if value is None else f">= {goal:{form}}", pair, None if value is None else value >= goal)

    table = [
        row(
            "VAE: PSNR of the round trip, dB",
            [f"{vae[part]['psnr']:.2f}" for part in PARTS],
            vae["unseen seed"]["psnr"],
            evaluate_vae.GOALS["psnr"],
            ".0f",
        )
    ]
    for what in ("material", "defect"):
        left = [vae[part]["left"][what] for part in PARTS]
        goal = evaluate_vae.GOALS[what]
        table.append(row(f"VAE: probe on round trips, {what}, relative", [f"{x:.1%}" for x in left], left[0], goal))
    ratios = [
        f"{part['inside / outside']:.1f} ({part['inside']:.1f} / {part['outside']:.1f})" for part in paint.values()
    ]
    told = [f"{part['defect']:.1%} (before {part['defect before']:.1%})" for part in paint.values()]
    mean, worst, material = text["defect, mean"], text["worst"], text["material"]
    ratio, word = paint["unseen seed"]["inside / outside"], text["worst word"]
    table += [
        row("VAE: fingerprint AP (0.5 is none)", [f"{vae[part]['fingerprint']:.3f}" for part in PARTS]),
        row("text to image: defect, mean", [f"{mean:.1%}"], mean, GOALS["text, defect, mean"]),
        row("text to image: worst defect", [f"{worst:.1%} ({word})"], worst, GOALS["text, defect, worst"]),
        row("text to image: material", [f"{material:.1%}"], material, GOALS["text, material"]),
        row("inpainting: change inside / outside", ratios, ratio, GOALS["inpainting, inside / outside"], "g"),
        row("inpainting: defect recognised", told),
        row("inpainting: material still recognised", [f"{part['material']:.1%}" for part in paint.values()]),
    ]
    for name, rate in found["speed"].items():
        what, single = f"pictures/s, 20 steps with CFG, batch 8, {name}", found["speed, one process"][name]
        shown = f"{rate:.2f} (one process with all threads: {single:.2f})"
        table.append(row(what, [shown], rate, GOALS["pictures per second"], "g"))
    if found["gain"]:
        gain = found["gain"]["all"]
        shown = f"{gain['gain']:+.3f} (worst seed {gain['worst seed']:+.3f})"
        what = "micro_resnet: AP on surfaces against a random start"
        table.append(row(what, [shown], gain["gain"], GOALS["micro_resnet, gain in AP"], "g"))
    return table


def show(found: dict) -> None:
    """Print the table, and the words."""
    table = Table("what", "goal", "unseen seed", "reserved materials", "", title="micro-sd and micro-sdxl-inpaint")
    for row in rows(found):
        table.add_row(row.what, row.goal, *row.shown, row.verdict)
    Console(width=130).print(table)
    words = Table("defect recognised", *found["text"]["by_defect"])
    words.add_row("text to image", *(f"{share:.0%}" for share in found["text"]["by_defect"].values()))
    for name, part in found["inpainting"].items():
        shares = (part["by_defect"].get(word) for word in found["text"]["by_defect"])
        words.add_row(f"inpainting, {name}", *("" if share is None else f"{share:.0%}" for share in shares))
    Console(width=130).print(words)


def main() -> None:
    """Judge, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what train_unet.py wrote to")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, help="processes that draw the corpus (default: one per processor)")
    parser.add_argument("--judged", type=int, default=2000, help="reconstructions of each part")
    parser.add_argument("--per-word", type=int, default=64, help="pictures made from text for each defect word")
    parser.add_argument("--painted", type=int, default=200, help="inpainted pictures of each part")
    parser.add_argument("--probe", type=Path, default=CHECKPOINT, help="where the trained probe is kept")
    parser.add_argument("--skip-gain", action="store_true", help="do not train micro_resnet against a random start")
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    judge = probe(args.probe, args.device, args.workers)
    vae = micro_vae.load(args.folder / SD / "vae", args.device)
    told = evaluate_vae.fingerprint_network(vae, evaluate_vae.FINGERPRINT, args.workers)
    gain_args = resnet_gain.arguments(["--seeds", "3"])
    found = {
        **speeds(args.folder / SD, args.device, args.threads),
        "vae": evaluate_vae.evaluate(vae, judge, told, args.judged, args.workers),
        "text": text_to_image(args.folder / SD, judge, args.per_word, args.device),
        "inpainting": inpainting(args.folder / SDXL, judge, args.painted, args.device, args.workers),
        "gain": {} if args.skip_gain else resnet_gain.gains(resnet_gain.measured(gain_args), gain_args),
        "guidance": sheets.GUIDANCE,
        "steps": sheets.STEPS,
        "versions": versions(),
    }
    show(found)
    if args.out:
        write_atomic(args.out, (json.dumps(found, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
