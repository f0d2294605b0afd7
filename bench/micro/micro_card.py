"""The model card of `micro_resnet`: what was trained on what, how long, how well, and what it is not."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import timm
import torch
from corpus.defects import DEFECTS, FLAWS
from corpus.pictures import GOOD_SHARE, RESERVED, TRAINED

from augbench.classifiers.micro_resnet import FEATURES

CARD = """\
---
license: apache-2.0
library_name: timm
tags: [surface-inspection, procedural-data]
---
# micro_resnet

A ResNet of {parameters:.2f} M parameters (timm's `ResNet` with basic blocks) that augbench uses where ImageNet weights
would stand and cannot be downloaded. `protocol: {{backbone: micro_resnet, weights: timm}}`.

**Mechanics, not evidence.** It has seen procedural pictures only. A result that rests on it shows that the machinery
works; it says nothing about photographs.

| | |
|---|---|
| file | `model.safetensors`, fp16, no head: {features} features per picture |
| input | RGB, mean and standard deviation of ImageNet; any size from 32 x 32, trained at 64 x 64 |
| data | {pictures:,} pictures of augbench's corpus (`bench/micro/corpus`), seed {seed_training}: {materials} \
materials, {defects} kinds of defect, {good} good |
| held out | the dataset `surfaces` (materials; the ranges of defects drawn by the same code), and the corpus's \
materials {reserved} |
| task | material + defect of the picture, and where the defect is; the heads are not shipped |
| augmentation | mirrored, turned by right angles, moved, zoomed {zoom}; light, blur, noise |
| training | {epochs} epochs of batches of {batch}, AdamW, lr {lr}, cosine, bf16 autocast; seed {seed} |
| time | {minutes:.0f} minutes on {device} |
| made with | augbench {version}, torch {torch}, timm {timm}, Python {python}; `bench/micro/train_resnet.py` |
| licence | Apache-2.0 |

## Scores
Of the file as shipped with the heads of its training, on {judged:,} pictures each. AP: defective against good.

| pictures | material | defect | worst word | AP |
|---|---|---|---|---|
{rows}

## Limits
- One renderer is all the world it knows: no photograph, no camera but ours.
- Its defects are coarse: lines from {thinnest} px. Thinner ones it has to learn from the data at hand.
- Trained at 64 x 64. On larger pictures a small defect is a smaller share of what is pooled.
- `surfaces` is held out but is close kin: its light, camera and random fields come from the same code, and five of the
  nine kinds of defect from the same shapes with other ranges. Expect more transfer there than to photographs.
"""


def write_card(
    path: Path,
    args: argparse.Namespace,
    seeds: dict[str, int],
    zoom: tuple[float, float],
    scores: dict[str, dict],
    seconds: float,
    parameters: int,
    version: str,
) -> None:
    """Write the card beside the weights."""
    rows = []
    for name, found in scores.items():
        material = "never seen" if found["material"] != found["material"] else f"{found['material']:.1%}"
        worst = f"{found['worst_word']} {found['worst']:.1%}"
        seed = f"{name} (seed {seeds[name]})"
        rows.append(f"| {seed} | {material} | {found['defect']:.1%} | {worst} | {found['ap']:.3f} |")
    device = f"{args.threads} thread(s) of a CPU" if args.device == "cpu" else torch.cuda.get_device_name()
    text = CARD.format(
        parameters=parameters / 1e6,
        features=FEATURES,
        pictures=args.pictures,
        seed_training=seeds["training"],
        materials=len(TRAINED),
        defects=len(DEFECTS),
        good=f"{GOOD_SHARE:.0%}",
        reserved=", ".join(RESERVED),
        zoom=f"{zoom[0]} to {zoom[1]}",
        thinnest=FLAWS["scratch"].width[0],
        epochs=args.epochs,
        batch=args.batch,
        lr=args.lr,
        seed=args.seed,
        minutes=seconds / 60,
        device=device,
        version=version,
        torch=torch.__version__,
        timm=timm.__version__,
        python=platform.python_version(),
        judged=args.judged,
        rows="\n".join(rows),
    )
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
