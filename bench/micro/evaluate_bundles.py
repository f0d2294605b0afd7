"""Evaluate the micro pipelines against their goals: the table of their model cards.

    python bench/micro/evaluate_bundles.py OUT [--out evaluation.json]

OUT holds `micro-sd` and `micro-sdxl-inpaint`. An independent probe classifies material and defect: in the VAE's
reconstructions, in images generated from text, and in inpainted normal images. All use seeds of no training;
reconstruction and inpainting also use materials of no training. The speed needs an idle machine.

The fingerprint of the VAE is the AP of a classifier trained to separate normal images from their own round trip,
evaluated on other normal images. 0.5 means that it cannot; a detector trained with images that carry a fingerprint
learns that instead of the defect.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import bundle
import numpy as np
import sheets
import torch
from accelerate import Accelerator
from bundle import SD, SDXL
from corpus.images import DEFECT_WORDS, RESERVED, TRAINED, Item, captions, make, of_items, plan
from corpus.words import WORDS
from diffusers import AutoencoderKL
from probe import CHECKPOINT, Network, logits_of, probe, scores, trained
from stock import regions
from torch.nn import functional
from torch.utils.data import TensorDataset
from torchmetrics.functional.image import peak_signal_noise_ratio
from training import tensor_of

from augbench.core.seeds import derive_seed, rng
from augbench.metrics.detection import average_precision
from augbench.stages.provenance import versions
from augbench.storage.files import write_atomic

PARTS = {"unseen seed": TRAINED, "reserved materials": RESERVED}
SEEDS = {  # of prompts and corpora
    "fingerprint": 8,
    "text": 13,
    "vae": {"unseen seed": 9, "reserved materials": 10},
    "inpainting": {"unseen seed": 15, "reserved materials": 16},
}
GOALS = {
    "psnr": 28.0,  # dB
    "round trip, material": 0.90,  # relative to the probe's accuracy on originals
    "round trip, defect": 0.92,
    "text, defect, mean": 0.80,
    "text, defect, worst": 0.55,
    "text, material": 0.70,
    "inpainting, inside / outside": 8.0,
    "images per second": 4.5,
}
FINGERPRINT = {"images": 3000, "epochs": 6, "batch": 128, "lr": 4e-3}
SPEED = {"batch": 8, "runs": 3}


def fingerprint_network(vae: AutoencoderKL, settings: dict) -> Network:
    """Train a network to separate normal images (0) from their own round trip (1)."""
    torch.manual_seed(derive_seed("micro-fingerprint"))
    items = (plan(SEEDS["fingerprint"], index) for index in range(6 * settings["images"]))
    real = tensor_of(of_items([item for item in items if not item.defect][: settings["images"]]).images)
    both = torch.cat([real, bundle.round_trip(vae, real)])

    def loss(logits: tuple[torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(logits[0][:, 0], wanted)

    return trained([1], TensorDataset(both, (torch.arange(len(both)) >= len(real)).float()), loss, settings)


def fingerprint(network: Network, real: torch.Tensor, decoded: torch.Tensor) -> float:
    """Compute the AP of round trips against their originals; both are equally many, so chance is 0.5."""
    logits = logits_of(network, torch.cat([real, decoded]))[:, 0].numpy()
    return average_precision(np.arange(len(logits)) >= len(real), logits)


def round_trips(vae: AutoencoderKL, network: Network, count: int, separator: Network) -> dict[str, dict]:
    """Measure what a VAE preserves; ``left`` is the probe's accuracy relative to that on originals."""
    found = {}
    for name, materials in PARTS.items():
        corpus = make(count, SEEDS["vae"][name], materials=materials)
        real = tensor_of(corpus.images)
        made = bundle.round_trip(vae, real)
        before, after = (scores(network, pixels, corpus.items) for pixels in (real, made))
        normal = torch.from_numpy(corpus.defect == 0)
        found[name] = {
            "psnr": peak_signal_noise_ratio(made.float(), real.float(), data_range=255.0).item(),
            "left": {what: after[what] / before[what] for what in ("material", "defect")},
            "fingerprint": fingerprint(separator, real[normal], made[normal]),
        }
    return found


def text_to_image(folder: Path, network: Network, count: int, device: str) -> dict:
    """Evaluate ``count`` images for each defect and for none, each with a caption that names its material."""
    draw = rng("evaluate-text", SEEDS["text"])
    items = [
        Item(SEEDS["text"], number, TRAINED[draw.integers(len(TRAINED))], "", defect)
        for number, defect in enumerate(word for word in DEFECT_WORDS for _ in range(count))
    ]
    # The first name of a material, as "stone" may be granite or slate.
    prompts = [next(text for text in captions(item, 100) if item.material in text) for item in items]
    made = sheets.generated(sheets.load(folder, device), prompts, SEEDS["text"])
    found = scores(network, tensor_of(made), items)
    words = {word: share for word, share in found["by_defect"].items() if word != "good"}
    worst = min(words, key=lambda word: words[word])
    return found | {"defect, mean": float(np.mean(list(words.values()))), "worst": words[worst], "worst word": worst}


def inpainting(folder: Path, network: Network, count: int, device: str) -> dict[str, dict]:
    """Inpaint defects into normal images; compare the change inside and outside the mask before compositing.

    The probe classifies the results. The masks are the regions of the defects that the corpus would have drawn.
    """
    pipeline, found = sheets.load(folder, device), {}
    for name, materials in PARTS.items():
        seed = SEEDS["inpainting"][name]
        items = [item for item in (plan(seed, i, materials) for i in range(2 * count)) if item.defect][:count]
        masks = regions(of_items(items))
        keep = np.flatnonzero(masks.mean((1, 2)) < 0.9)  # a full mask has no outside
        items, masks = [items[row] for row in keep], masks[keep]
        normal = of_items([replace(item, defect="") for item in items])  # the same pieces under the same light
        prompts = [f"{item.material} background with {WORDS[item.defect].one}" for item in items]
        made = sheets.inpainted(pipeline, normal, prompts, masks, seed)
        change = np.abs(made.astype(float) - normal.images).mean(3)
        inside, outside = float(change[masks].mean()), float(change[~masks].mean())
        before, after = (scores(network, tensor_of(images), items) for images in (normal.images, made))
        found[name] = {
            "images": len(made),
            "inside": inside,
            "outside": outside,
            "inside / outside": inside / outside,
            "defect before": before["defect"],
            **after,
        }
    return found


def speed(folder: Path, device: str, dtype: torch.dtype) -> float:
    """Measure the images per second of text to image in one process: the best of several runs."""
    pipeline, times = sheets.load(folder, device, dtype), []
    for _ in range(SPEED["runs"]):
        begun = time.perf_counter()
        sheets.generated(pipeline, ["copper metal scratches"] * SPEED["batch"], 0)
        times.append(time.perf_counter() - begun)
    return SPEED["batch"] / min(times)


def rows(found: dict) -> list[list[str]]:
    """Lay out the table: measure, goal, value on unseen seeds (for the goal), on reserved materials, met or short."""
    vae, text, inpainted = found["vae"], found["text"], found["inpainting"]

    def row(what: str, values: list[str], value: float = 0.0, goal: str = "", form: str = ".0%") -> list[str]:
        verdict = ("met" if value >= GOALS[goal] else "short") if goal else ""
        return [what, f">= {GOALS[goal]:{form}}" if goal else "", *[*values, ""][:2], verdict]

    psnr = [part["psnr"] for part in vae.values()]
    lines = [["what", "goal", "unseen seed", "reserved materials", ""]]
    lines.append(row("VAE: PSNR of the round trip, dB", [f"{value:.2f}" for value in psnr], psnr[0], "psnr", ".0f"))
    for what in ("material", "defect"):
        left = [part["left"][what] for part in vae.values()]
        values = [f"{value:.1%}" for value in left]
        lines.append(row(f"VAE: probe on round trips, {what}, relative", values, left[0], f"round trip, {what}"))
    mean, worst, material = text["defect, mean"], text["worst"], text["material"]
    ratios = [f"{p['inside / outside']:.1f} ({p['inside']:.1f} / {p['outside']:.1f})" for p in inpainted.values()]
    recognised = [f"{part['defect']:.1%} (before {part['defect before']:.1%})" for part in inpainted.values()]
    ratio = inpainted["unseen seed"]["inside / outside"]
    lines += [
        row("VAE: fingerprint AP (0.5 is none)", [f"{part['fingerprint']:.3f}" for part in vae.values()]),
        row("text to image: defect, mean", [f"{mean:.1%}"], mean, "text, defect, mean"),
        row("text to image: worst defect", [f"{worst:.1%} ({text['worst word']})"], worst, "text, defect, worst"),
        row("text to image: material", [f"{material:.1%}"], material, "text, material"),
        row("inpainting: change inside / outside", ratios, ratio, "inpainting, inside / outside", "g"),
        row("inpainting: defect recognised", recognised),
        row("inpainting: material still recognised", [f"{part['material']:.1%}" for part in inpainted.values()]),
    ]
    for name, rate in found["speed"].items():
        what = f"images/s, {found['steps']} steps with CFG, batch {SPEED['batch']}, {name}"
        lines.append(row(what, [f"{rate:.2f}"], rate, "images per second", "g"))
    return lines


def by_word(found: dict) -> list[list[str]]:
    """Lay out the recall of each defect: a header, then a line for each way of generating images."""
    words = list(found["text"]["by_defect"])
    parts = {"text to image": found["text"]} | {f"inpainting, {k}": v for k, v in found["inpainting"].items()}
    lines = [
        [what, *(f"{part['by_defect'][word]:.0%}" if word in part["by_defect"] else "" for word in words)]
        for what, part in parts.items()
    ]
    return [["defect recognised", *words], *lines]


def table(lines: list[list[str]]) -> str:
    """Format lines as a Markdown table; the first is the header."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ["---"] * len(lines[0]), *lines[1:]))


def main() -> None:
    """Evaluate, print the tables in Markdown, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the output folder of train_unet.py")
    parser.add_argument("--evaluated", type=int, default=2000, help="reconstructions of each part")
    parser.add_argument("--per-word", type=int, default=64, help="images generated from text for each defect")
    parser.add_argument("--painted", type=int, default=200, help="inpainted images of each part")
    parser.add_argument("--probe", type=Path, default=CHECKPOINT, help="file of the trained probe")
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    args = parser.parse_args()
    device = Accelerator().device.type
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    network = probe(args.probe)
    vae = bundle.load_vae(args.folder / SD / "vae", device)
    found = {
        "speed": {name: speed(args.folder / SD, device, kind) for name, kind in kinds.items()},
        "vae": round_trips(vae, network, args.evaluated, fingerprint_network(vae, FINGERPRINT)),
        "text": text_to_image(args.folder / SD, network, args.per_word, device),
        "inpainting": inpainting(args.folder / SDXL, network, args.painted, device),
        "guidance": sheets.GUIDANCE,
        "steps": sheets.STEPS,
        "versions": versions(),
    }
    print(table(rows(found)), table(by_word(found)), sep="\n\n")
    if args.out:
        write_atomic(args.out, (json.dumps(found, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
