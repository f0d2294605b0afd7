"""What a VAE keeps of a picture, on seeds and on materials that it was not trained on.

    python bench/micro/evaluate_vae.py FOLDER [--device cuda] [--sheet sheet.png]

PSNR; how much of the probe's accuracy is left on reconstructions; and the fingerprint: AP of a classifier that was told
to separate good pictures from their own round trip, judged on other good pictures. 0.5 means that it cannot; a
detector trained with pictures that carry a fingerprint learns that instead of the defect.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import vae as micro_vae
from corpus.pictures import RESERVED, TRAINED, make, of_items, plan
from diffusers import AutoencoderKL
from probe import CHECKPOINT, Network, fit, logits_of, probe, scores
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from training import pixels_of

from augbench.core.seeds import derive_seed
from augbench.metrics.detection import average_precision

SEEDS = {"fingerprint": 8, "unseen seed": 9, "reserved materials": 10}  # of the corpus
PARTS = {"unseen seed": TRAINED, "reserved materials": RESERVED}
GOALS = {"psnr": 28.0, "material": 0.90, "defect": 0.92}  # dB; relative to the probe's accuracy on originals
FINGERPRINT = {"pictures": 3000, "epochs": 6, "batch": 128, "lr": 4e-3, "seed": 0}


def good_pictures(count: int, seed: int, workers: int | None, device: str) -> torch.Tensor:
    """Good pictures of the trained materials, N,3,H,W uint8."""
    items = (plan(seed, index) for index in range(6 * count))
    return pixels_of(of_items([item for item in items if not item.defect][:count], workers), device)


def fingerprint_network(vae: AutoencoderKL, settings: dict, workers: int | None) -> Network:
    """Told to separate good pictures (0) from their own round trip (1)."""
    real = good_pictures(settings["pictures"], SEEDS["fingerprint"], workers, vae.device.type)
    both = torch.cat([real, micro_vae.round_trip(vae, real)])
    target = (torch.arange(len(both), device=both.device) >= len(real)).float()
    torch.manual_seed(derive_seed("micro-fingerprint-weights", settings["seed"]))
    network = Network(1).to(both.device)

    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], target[rows])

    fit(network, both, loss, settings, "micro-fingerprint")
    return network


def fingerprint(network: Network, real: torch.Tensor, made: torch.Tensor) -> float:
    """AP of the round trips against the pictures they are of; half of all are round trips, so chance is 0.5."""
    logits = logits_of(network, torch.cat([real, made]))[:, 0].cpu().numpy()
    return average_precision(np.arange(len(logits)) >= len(real), logits)


def evaluate(vae: AutoencoderKL, judge: Network, told: Network, judged: int, workers: int | None) -> dict[str, dict]:
    """The numbers of each part; ``left`` is accuracy on reconstructions relative to that on originals."""
    found = {}
    for name, materials in PARTS.items():
        corpus = make(judged, SEEDS[name], materials=materials, workers=workers)
        real = pixels_of(corpus, vae.device.type)
        made = micro_vae.round_trip(vae, real)
        before, after = (scores(judge, pixels, corpus.material, corpus.defect) for pixels in (real, made))
        good = torch.from_numpy(corpus.defect == 0).to(real.device)
        found[name] = {
            "psnr": micro_vae.psnr(real, made),
            "originals": before,
            "reconstructions": after,
            "left": {what: after[what] / before[what] for what in ("material", "defect")},
            "fingerprint": fingerprint(told, real[good], made[good]),
        }
    return found


def show(found: dict[str, dict]) -> None:
    """Print the table."""
    table = Table("what", "goal", *found, title="VAE, round trip")
    table.add_row("PSNR", f">= {GOALS['psnr']:.0f} dB", *(f"{part['psnr']:.2f} dB" for part in found.values()))
    for what in ("material", "defect"):
        cells = [
            f"{part['left'][what]:.0%}  ({part['reconstructions'][what]:.1%} of {part['originals'][what]:.1%})"
            for part in found.values()
        ]
        table.add_row(f"probe, {what}, relative", f">= {GOALS[what]:.0%}", *cells)
    for word in next(iter(found.values()))["originals"]["by_defect"]:
        shares = [[part[of]["by_defect"][word] for of in ("reconstructions", "originals")] for part in found.values()]
        table.add_row(f"  {word}", "", *(f"{after:.0%} of {before:.0%}" for after, before in shares))
    table.add_row("fingerprint AP", "near 0.5", *(f"{part['fingerprint']:.3f}" for part in found.values()))
    Console().print(table)


def main() -> None:
    """Train the probe where needed, judge, print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a diffusers folder of an AutoencoderKL")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, help="processes that draw the corpus (default: one per processor)")
    parser.add_argument("--judged", type=int, default=2000, help="pictures of each part")
    parser.add_argument("--probe", type=Path, default=CHECKPOINT, help="where the trained probe is kept")
    parser.add_argument("--sheet", type=Path, help="draw reconstructions of reserved materials")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vae = micro_vae.load(args.folder, args.device)
    judge = probe(args.probe, args.device, args.workers)
    found = evaluate(vae, judge, fingerprint_network(vae, FINGERPRINT, args.workers), args.judged, args.workers)
    show(found)
    print(json.dumps({"bench": "evaluate_vae", "goals": GOALS, "judged": args.judged, "parts": found}))
    if args.sheet:
        corpus = make(48, SEEDS["reserved materials"], materials=RESERVED, workers=args.workers)
        pixels = pixels_of(corpus, args.device)
        micro_vae.sheet(pixels, micro_vae.round_trip(vae, pixels)).save(args.sheet)


if __name__ == "__main__":
    main()
