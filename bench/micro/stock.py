"""What the U-Nets are trained on, made once: latents of pictures and of their masked selves, masks, captions as tokens.

    stock = Stock.make(vae_folder, tokenizer, pictures, seed, device, workers)

A picture's mask is the region of its defect, widened, or any shape where there is no defect: so that what a caption
names lies inside, where it is to be painted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import vae as micro_vae
from corpus.pictures import SHAPE, Arrays, Item, captions, make, vague_captions
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import ndimage
from tokenizer import LENGTH
from training import pixels_of
from transformers import CLIPTokenizer

from augbench.core.keys import digest
from augbench.core.noise import perlin
from augbench.core.seeds import rng

CAPTIONS, VAGUE = 4, 1  # of each picture
GRAY = 0.0  # of [-1, 1]: what diffusers puts under the mask


def region(item: Item, defect: np.ndarray) -> np.ndarray:
    """The mask to paint in, H,W bool, from the defect's (H,W bool, empty if the picture is good)."""
    draw = rng("micro-region", item.seed, item.index)
    if draw.random() < 0.05:
        return np.ones(SHAPE, bool)
    if not defect.any():
        return _shape(draw)
    if draw.random() < 0.5:
        rows, columns = (np.flatnonzero(defect.any(axis)) for axis in (1, 0))
        region = np.zeros(SHAPE, bool)
        margins = draw.integers(1, 9, 4)
        region[max(rows[0] - margins[0], 0) : rows[-1] + 1 + margins[1]] = True
        region[:, : max(columns[0] - margins[2], 0)] = region[:, columns[-1] + 1 + margins[3] :] = False
        return region
    return ndimage.binary_dilation(defect, iterations=int(draw.integers(1, 7)))


def _shape(draw: np.random.Generator) -> np.ndarray:
    """A box, an ellipse, a bar at any angle, or the upper part of noise."""
    kind = draw.integers(4)
    if kind == 3:
        noise = perlin(draw, SHAPE, (int(2 ** draw.integers(1, 3)), int(2 ** draw.integers(1, 3))))
        return noise > np.quantile(noise, draw.uniform(0.6, 0.92))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    angle = draw.uniform(0, np.pi) if kind == 2 else 0.0
    centre = draw.uniform(0.15, 0.85, 2) * SHAPE
    half = draw.uniform(0.06, 0.35, 2) * SHAPE
    if kind == 2:
        half = np.array([draw.uniform(0.15, 0.5), draw.uniform(0.03, 0.1)]) * SHAPE
    u, v = y - centre[0], x - centre[1]
    along, across = (u * np.cos(angle) + v * np.sin(angle)) / half[0], (v * np.cos(angle) - u * np.sin(angle)) / half[1]
    return along**2 + across**2 <= 1 if kind == 1 else np.maximum(abs(along), abs(across)) <= 1


@dataclass
class Stock:
    """Tensors of N pictures, each with as many captions."""

    latents: torch.Tensor  # N,4,32,32 float16
    masked: torch.Tensor  # N,4,32,32 float16, of the picture with gray under the mask
    masks: torch.Tensor  # N,1,32,32 bool
    defects: torch.Tensor  # N,1,32,32 bool, where any of a latent's pixels is defective
    tokens: torch.Tensor  # N,CAPTIONS + VAGUE,LENGTH int16; the last VAGUE ones are vague

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, device: str) -> Stock:
        """On another device."""
        return Stock(*(getattr(self, field.name).to(device) for field in fields(self)))

    @classmethod
    def make(
        cls,
        vae: Path,
        tokenizer: CLIPTokenizer,
        pictures: int,
        seed: int,
        device: str,
        workers: int | None,
        keep: Path | None = None,
    ) -> Stock:
        """Draw and encode the first ``pictures`` of the corpus of that seed; read from ``keep`` if it has just that."""
        words = digest(tokenizer.get_vocab())
        made_with = {"pictures": str(pictures), "seed": str(seed), "vae": micro_vae.digest(vae), "words": words}
        if keep and keep.exists():
            with safe_open(keep, "pt", device=device) as file:
                if file.metadata() == made_with:
                    return cls(*(file.get_tensor(field.name) for field in fields(cls)))
        corpus = make(pictures, seed, workers=workers)
        stock = cls(*encoded(micro_vae.load(vae, device), corpus, device), tokens_of(corpus.items, tokenizer))
        if keep:
            keep.parent.mkdir(parents=True, exist_ok=True)
            save_file({f.name: getattr(stock, f.name).cpu().contiguous() for f in fields(cls)}, keep, made_with)
        return stock.to(device)


def encoded(vae: torch.nn.Module, corpus: Arrays, device: str) -> tuple[torch.Tensor, ...]:
    """Latents, latents of the masked pictures, masks and defects at the size of latents, for a whole corpus."""
    regions = np.stack([region(item, mask) for item, mask in zip(corpus.items, corpus.masks, strict=True)])
    covered = torch.from_numpy(regions)[:, None]
    pixels = pixels_of(corpus, "cpu")
    clean, masked = [], []
    for start in range(0, len(pixels), 1024):
        part = pixels[start : start + 1024].to(device)
        under = covered[start : start + 1024].to(device)
        clean.append(micro_vae.encode(vae, part).half())
        masked.append(micro_vae.encode_float(vae, micro_vae.from_pixels(part).masked_fill(under, GRAY)).half())
    # nearest, as diffusers makes masks smaller
    small = torch.nn.functional.interpolate(covered.float(), scale_factor=0.5).bool()
    defects = torch.nn.functional.max_pool2d(torch.from_numpy(corpus.masks)[:, None].float(), 2).bool()
    return torch.cat(clean), torch.cat(masked), small, defects


def tokens_of(items: list[Item], tokenizer: CLIPTokenizer) -> torch.Tensor:
    """N,CAPTIONS + VAGUE,LENGTH int16."""
    texts = [text for item in items for text in (*captions(item, CAPTIONS), *vague_captions(item, VAGUE))]
    return tokenized(texts, tokenizer).to(torch.int16).view(len(items), CAPTIONS + VAGUE, LENGTH)


def tokenized(texts: list[str], tokenizer: CLIPTokenizer) -> torch.Tensor:
    """N,LENGTH int64, cut and padded as diffusers does."""
    return tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
