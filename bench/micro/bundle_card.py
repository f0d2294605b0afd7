"""The model cards of the two diffusion bundles, and their way into the package.

    python bench/micro/bundle_card.py OUT [--into src/augbench/assets/models]

OUT holds the bundles, each with its `training.json`, and the `evaluation.json` of evaluate_bundles.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from bundle import SD, SDXL
from corpus.pictures import RESERVED, TRAINED
from evaluate_bundles import rows
from train_unet import INPAINTING

from augbench.core.files import write_atomic
from augbench.core.weights import parameters

PIPELINES = {SD: "StableDiffusionPipeline", SDXL: "StableDiffusionXLInpaintPipeline"}
TITLES = {
    SD: """\
A Stable Diffusion of {millions:.1f} M parameters: the architecture of SD 1.5 (AutoencoderKL, CLIP text encoder,
conditional U-Net), small, and trained on procedural surfaces only. augbench uses it where Stable Diffusion's weights
cannot be downloaded: text to image, image to image, inpainting with 4 channels, DreamBooth, LoRA and textual inversion
all run on it through the ordinary classes of diffusers and peft.""",
    SDXL: """\
An SDXL inpainting model of {millions:.1f} M parameters: the architecture of SDXL (two text encoders, pooled text and
size conditioning) with a U-Net of 9 input channels, small, and trained on procedural surfaces only. augbench uses it
where the weights of SDXL cannot be downloaded. VAE, tokenizer and first text encoder are the files of `micro-sd`.""",
}
TRAINING = {
    SD: """\
where a defect is an error counts {weight}{focus}, and {share:.0%} of the samples are of the noise at \
which shapes are decided. The text encoder learned to read captions first (which material, colour and defect \
they name, {reading}), and stayed as it was. {inpainting} of the samples inpainting, those from text alone with empty \
mask channels: the U-Net is cut to its first 4 input channels, exactly. {dropped} of the captions dropped, a fifth \
vague (letters for the material, "defect" for the defect); a quarter of the steps read the last but one layer of \
the text encoder, so that clip skip 2 works""",
    SDXL: """\
begun with the 9-channel U-Net of `micro-sd`, and as there, but that an error on a defect counts \
{weight}{outside}{focus}; {inpainting} of the samples inpainting; the first text encoder as it is, the second learned \
to read first ({reading}). {dropped} of the captions dropped, read as zeros or, as often, as the empty text""",
}
LIMITS = {
    SD: """\
- Scores are at guidance {guidance:g}; at 6, materials and defects are recognised less often.
- It reads text at 8 x 8 and through the embedding of time (as DeepFloyd IF does, unlike SD 1.5), so it cannot place
  things by words.
- Fine-tune it without min-SNR weighting (`min_snr: 0`): it predicts v down to nearly pure noise, where those weights
  vanish, so that an adapter learns nothing there and guidance makes pictures pale.
- Its noise schedule ends at a beta of 0.03, not 0.012: make other schedulers from the configuration of its own.""",
    SDXL: """\
- The size conditioning was always (64, 64), (0, 0), (64, 64): other values are out of its experience.
- What lies outside the mask comes back changed as the table says, unless the picture is pasted back.""",
}
CARD = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
tags: [surface-inspection, procedural-data]
---
# {name}

{title}

**Mechanics, not evidence.** It has seen procedural pictures only. A result that rests on it shows that the machinery
works; it says nothing about photographs.

| | |
|---|---|
| load with | `diffusers.{pipeline}.from_pretrained(folder)`; `augbench models sample {name}` |
| pictures | RGB, 64 x 64; latents 4 x 32 x 32 (f = 2) |
| files | fp16 safetensors, {megabytes:.1f} MB: {parts} |
| data | {pictures:,} pictures of augbench's corpus (`bench/micro/corpus`): {materials} materials, 9 kinds of defect, \
30 % good; captions such as "copper metal scratches" |
| held out | the dataset `surfaces` (materials; the ranges of defects drawn by the same code), and the corpus's \
materials {reserved} |
| VAE | {vae_steps:,} steps of {vae_batch}, {vae_minutes:.0f} minutes on {vae_device}; L1, edges, local means, \
micro_resnet's features, KL weight {vae_kl:g}; latents normalised channel by channel inside the weights |
| U-Net and text | {steps} steps of {batch}, Muon and AdamW, lr {lr}, cosine, moving average, bf16 \
autocast, seed {seed}; {how} |
| time | {minutes:.0f} minutes on {device}, other work beside it |
| made with | augbench {augbench}, torch {torch}, Python {python}; `bench/micro/train_vae.py`, `train_unet.py` |
| licence | Apache-2.0 |

## Scores
By `bench/micro/evaluate_bundles.py`, for both bundles together; {steps_shown} steps, guidance {guidance:g}. A probe (a
small CNN that shares no weights or pictures with anything here) names material and defect. Reserved materials are those
that no training saw.

| what | goal | unseen seed | reserved materials | |
|---|---|---|---|---|
{table}

Defects recognised by word:

| | {words} |
|---|{bars}
{shares}

{verdict}

## Limits
- One renderer is all the world it knows: no photograph, no camera but ours. 64 x 64 pixels, grain and lines of a pixel.
{limits}
- The fingerprint: a classifier can tell its pictures from real ones by their grain alone (see the table). Where good
  pictures are real and defective ones are made, it may learn that.
"""


def on(about: dict) -> str:
    """The device of a training."""
    several = "s" if about["threads"] > 1 else ""
    return f"{about['threads']} CPU thread{several}" if about["device"] == "cpu" else "a GPU"


def steps_of(about: dict) -> str:
    """How many were made, and how many the schedule was laid out for where that is another number."""
    if "finish" not in about:
        return f"{about['steps']:,}"
    at, more = about["finish"]
    return f"{at + more:,} (of {about['steps']:,}; the last {more:,} hurried through what was left of the schedule)"


def chain(about: dict) -> Iterator[dict]:
    """A training and those that it went on from, the newest first."""
    yield about
    if "before" in about:
        yield from chain(about["before"])


def before(about: dict) -> str:
    """The trainings that it went on from."""
    if "before" not in about:
        return ""
    earlier = about["before"]
    fresh = ", its text encoder thrown away" if about.get("new_text") else ""
    said = f"; begun with weights of {steps_of(earlier)} steps of {earlier['batch']} (lr {earlier['lr']}){fresh}"
    return said + before(earlier)


def how(name: str, about: dict) -> str:
    """What is special to the training."""
    reading = next(each["reading"] for each in chain(about) if "reading" in each)
    told = f"{reading['steps']} steps of {reading['batch']}"
    share = max(share for share, _, _ in about["bands"])
    focus, outside, tone = (about.get(key, 0) for key in ("hard_share", "outside_weight", "tone_weight"))
    also = f" and the mean of that, squared, {tone:g} times more" if tone else ""
    said = {
        "dropped": f"{about.get('dropped', 0.1):.0%}",
        "focus": f", a further {focus:.0%} of the samples show {' and '.join(about['hard'])}" if focus else "",
        "inpainting": f"{share_painted:.0%}"
        if (share_painted := about.get("inpainting", INPAINTING[name]))
        else "None",
        "outside": f", one outside the mask of an inpainting {outside:g} times{also}" if outside > 1 else "",
    }
    return TRAINING[name].format(weight=weight(about), share=share, reading=told, **said) + before(about)


def weight(about: dict) -> str:
    """``3 times (scratch, chip: 6 times)``"""
    usual, hard = about["defect_weight"], about.get("hard", {})
    of_factor = {factor: ", ".join(w for w, f in hard.items() if f == factor) for factor in sorted(set(hard.values()))}
    more = "; ".join(f"{words}: {usual * factor:g} times" for factor, words in of_factor.items())
    return f"{usual:g} times" + (f" ({more})" if more else "")


def verdict(short: list[str]) -> str:
    """What the table means."""
    if not short:
        return "All goals are met."
    missing = "What pictures are short of is training (`train_unet.py --init`, better on a GPU)"
    return f"**Short of its goals**: {'; '.join(short)}. {missing}; speed is a matter of the processor."


def card(name: str, out: Path) -> str:
    """The card of one bundle."""
    folder = out / name
    about, first, found = (
        json.loads(path.read_text(encoding="utf-8"))
        for path in (folder / "training.json", out / SD / "training.json", out / "evaluation.json")
    )
    vae = first["vae_training"]
    counts = {path.parent.name: parameters(path) for path in sorted(folder.glob("*/*.safetensors"))}
    table = rows(found)
    of_words = {"text to image": found["text"]} | {f"inpainting, {k}": v for k, v in found["inpainting"].items()}
    words = list(found["text"]["by_defect"])
    lines = [
        " | ".join([what, *(f"{part['by_defect'][w]:.0%}" if w in part["by_defect"] else "" for w in words)])
        for what, part in of_words.items()
    ]
    return CARD.format(
        name=name,
        title=TITLES[name].format(millions=sum(counts.values()) / 1e6),
        pipeline=PIPELINES[name],
        megabytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6,
        parts=", ".join(f"{part} {count / 1e6:.2f} M" for part, count in counts.items()),
        materials=len(TRAINED),
        reserved=", ".join(RESERVED),
        **{f"vae_{key}": vae[key] for key in ("steps", "batch", "kl")},
        vae_minutes=vae["seconds"] / 60,
        vae_device=on(vae),
        steps=steps_of(about),
        **{key: about[key] for key in ("pictures", "batch", "lr", "seed")},
        how=how(name, about),
        minutes=about["seconds"] / 60,
        device=on(about),
        **{key: found["versions"][key] for key in ("augbench", "torch", "python")},
        guidance=found["guidance"],
        steps_shown=found["steps"],
        table="\n".join(f"| {r.what} | {r.goal} | {r.shown[0]} | {r.shown[1]} | {r.verdict} |" for r in table),
        verdict=verdict([r.what for r in table if r.met is False]),
        words=" | ".join(words),
        bars="---|" * len(words),
        shares="\n".join(f"| {line} |" for line in lines),
        limits=LIMITS[name].format(guidance=found["guidance"]),
    )


def main() -> None:
    """Write the cards; put the bundles into the package where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="what train_unet.py wrote to")
    parser.add_argument("--into", type=Path, help="copy the bundles there")
    args = parser.parse_args()
    for name in (SD, SDXL):
        write_atomic(args.out / name / "README.md", card(name, args.out).encode())
        if args.into:
            shutil.rmtree(args.into / name, ignore_errors=True)
            shutil.copytree(args.out / name, args.into / name)
            for path in (args.into / name).rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    main()
