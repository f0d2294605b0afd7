"""Write the model cards of other weights than the shipped ones: the same text, with other settings and scores.

    python bench/micro/cards.py OUT

OUT holds the pipelines, each with its `training.json`, and the `evaluation.json` of evaluate_bundles.py. The card of a
`micro_resnet` is written by train_resnet.py.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from bundle import SD, SDXL
from corpus.defects import DEFECTS
from corpus.images import NORMAL_SHARE, TRAINED
from evaluate_bundles import by_word, rows, table

from augbench.core.weights import parameters
from augbench.diffusion.pipelines import MODELS
from augbench.stages.provenance import versions

HOW = {
    SD: "the text encoder was pretrained on captions, then frozen; see `bench/micro/train_unet.py`",
    SDXL: "initialised from the 9-channel U-Net of `micro-sd`; the second text encoder was pretrained on captions; "
    "see `bench/micro/train_unet.py`",
}


def card(name: str, settings: dict[str, str], scores: str) -> str:
    """Fill in the shipped card of that name: lines of its first table by key, and the section Scores."""
    text = (MODELS / name / "README.md").read_text(encoding="utf-8")
    for key, value in settings.items():
        text, count = re.subn(
            rf"^\| {key} \|.*$", lambda _, line=f"| {key} | {value} |": line, text, flags=re.MULTILINE
        )
        assert count == 1, f"the card of {name} has {count} lines '{key}'"
    head, limits = text.split("## Scores")[0], text.split("## Limits")[1]
    return f"{head}## Scores\n{scores}\n\n## Limits{limits}"


def common(about: dict) -> dict[str, str]:
    """Format the settings that all cards have."""
    several = "s" if about["threads"] > 1 else ""
    device = f"{about['threads']} CPU thread{several}" if about["device"] == "cpu" else "a GPU"
    return {
        "data": f"{about['images']:,} images of augbench's corpus (`bench/micro/corpus`): {len(TRAINED)} materials, "
        f"{len(DEFECTS)} kinds of defect, {NORMAL_SHARE:.0%} normal",
        "time": f"{about['seconds'] / 60:.0f} minutes on {device}",
        "made with": ", ".join(f"{package} {version}" for package, version in versions().items()),
    }


def training(about: dict) -> str:
    """Format steps, optimiser and precision of a training."""
    return (
        f"{about['steps']:,} steps of {about['batch']}, AdamW, lr {about['lr']}, cosine, mixed precision: "
        f"{about['mixed_precision']}, seed {about['seed']}"
    )


def resnet_card(about: dict, found: dict[str, dict]) -> str:
    """Write the card of a `micro_resnet` from its settings and the scores of each part."""
    lines = [["images", "material", "defect", "worst word", "AP"]]
    for part, scores in found.items():
        material = "never seen" if scores["material"] is None else f"{scores['material']:.1%}"
        worst = f"{scores['worst word']} {scores['worst']:.1%}"
        lines.append([part, material, f"{scores['defect']:.1%}", worst, f"{scores['ap']:.3f}"])
    intro = (
        f"Of the file with the heads of its training, {about['evaluated']:,} images each. AP: defect against normal."
    )
    return card("micro_resnet", common(about) | {"training": training(about)}, f"{intro}\n\n{table(lines)}")


def bundle_card(name: str, out: Path) -> str:
    """Write the card of one pipeline."""
    folder = out / name
    about, found = (json.loads(path.read_text()) for path in (folder / "training.json", out / "evaluation.json"))
    vae = about["vae_training"]
    counts = {path.parent.name: parameters(path) for path in sorted(folder.glob("*/*.safetensors"))}
    parts = ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in counts.items())
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    settings = common(about) | {
        "files": f"fp16 safetensors, {megabytes:.1f} MB: {parts}",
        "VAE": f"{training(vae)}; L1, edges, local means, micro_resnet's features, KL weight {vae['kl']:g}; latents "
        "normalised channel by channel inside the weights",
        "U-Net and text": f"{training(about)}, moving average; {HOW[name]}",
    }
    short = [line[0] for line in rows(found) if line[-1] == "short"]
    scores = [
        f"By `bench/micro/evaluate_bundles.py`, for both pipelines together; {found['steps']} steps, guidance "
        f"{found['guidance']:g}. A probe (a small CNN that\nshares no weights or images with anything here) names "
        "material and defect. Reserved materials are those that no training saw.",
        table(rows(found)),
        table(by_word(found)),
        f"**Short of its goals**: {'; '.join(short)}." if short else "All goals are met.",
    ]
    return card(name, settings, "\n\n".join(scores))


def main() -> None:
    """Write the cards of both pipelines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the output folder of train_unet.py")
    args = parser.parse_args()
    for name in (SD, SDXL):
        (args.out / name / "README.md").write_text(bundle_card(name, args.out), encoding="utf-8")


if __name__ == "__main__":
    main()
