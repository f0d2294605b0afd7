"""Every material (rows) with every defect (columns; the first is good) on one picture.

python bench/micro/corpus_sheet.py --out sheet.png [--seed 0] [--scale 2]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from corpus.pictures import DEFECT_WORDS, MATERIAL_WORDS, Item, choose_colour, render
from PIL import Image, ImageDraw

from augbench.core.seeds import rng

GAP, LEFT, TOP = 2, 90, 16


def sheet(seed: int) -> Image.Image:
    """The sheet at its own size, with words at the edges."""
    pitch = 64 + GAP
    out = Image.new("RGB", (LEFT + pitch * len(DEFECT_WORDS), TOP + pitch * len(MATERIAL_WORDS)))
    pen = ImageDraw.Draw(out)
    for row, material in enumerate(MATERIAL_WORDS):
        pen.text((2, TOP + row * pitch + 26), material, fill="white")
        for column, defect in enumerate(DEFECT_WORDS):
            index = row * len(DEFECT_WORDS) + column
            colour = choose_colour(rng("corpus-sheet", seed, index), material, defect)
            image, _ = render(Item(seed, index, material, colour, defect))
            out.paste(Image.fromarray(np.ascontiguousarray(image)), (LEFT + column * pitch, TOP + row * pitch))
    for column, defect in enumerate(DEFECT_WORDS):
        pen.text((LEFT + column * pitch + 2, 2), defect or "good", fill="white")
    return out


def main() -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=int, default=2, help="enlargement (default 2)")
    args = parser.parse_args()
    image = sheet(args.seed)
    image.resize((image.width * args.scale, image.height * args.scale), Image.Resampling.NEAREST).save(args.out)


if __name__ == "__main__":
    main()
