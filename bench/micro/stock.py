"""The training data of the U-Nets, encoded once: latents of images and of masked images, masks, tokenized captions.

An image's mask is the widened region of its defect, or a random shape for normal images, so that the defect of a
caption lies inside the region to inpaint.
"""

from __future__ import annotations

import bundle
import numpy as np
import torch
from bundle import LENGTH
from corpus.images import SHAPE, Arrays, Item, captions, vague_captions
from diffusers import AutoencoderKL
from scipy import ndimage
from torch.nn import functional
from torch.utils.data import TensorDataset
from training import tensor_of
from transformers import CLIPTokenizer

from augbench.core.seeds import rng
from augbench.procedural.noise import perlin

CAPTIONS, VAGUE = 4, 1  # of each image
GRAY = 0.0  # in [-1, 1]: diffusers' fill value under the mask


def region(item: Item, defect: np.ndarray) -> np.ndarray:
    """Draw the mask to inpaint, H,W bool, from the defect's (H,W bool, empty if the image is normal)."""
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
    """Draw a box, an ellipse, a rotated bar, or thresholded noise."""
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


def regions(corpus: Arrays) -> np.ndarray:
    """Draw the mask of each image of a corpus: N,H,W bool."""
    return np.stack([region(item, mask) for item, mask in zip(corpus.items, corpus.masks, strict=True)])


def encoded(corpus: Arrays, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> TensorDataset:
    """Encode a corpus.

    Returns:
        latents: N,4,32,32 float16.
        masked: N,4,32,32 float16, of the image with gray under the mask.
        masks: N,1,32,32 bool.
        defects: N,1,32,32 bool, where any pixel of a latent's patch is in the defect mask.
        words: N int64, indices in `DEFECT_WORDS`.
        tokens: N,CAPTIONS + VAGUE,LENGTH int16; the last VAGUE ones are vague.
    """
    covered, defects = (torch.from_numpy(masks)[:, None].float() for masks in (regions(corpus), corpus.masks))
    texts = [text for item in corpus.items for text in (*captions(item, CAPTIONS), *vague_captions(item, VAGUE))]
    latents, masked = [], []
    for pixels, cover in zip(tensor_of(corpus.images).split(1024), covered.split(1024), strict=True):
        images = bundle.from_pixels(pixels)
        latents.append(bundle.encode(vae, images).half().cpu())
        masked.append(bundle.encode(vae, images.masked_fill(cover > 0, GRAY)).half().cpu())
    return TensorDataset(
        torch.cat(latents),
        torch.cat(masked),
        functional.interpolate(covered, scale_factor=0.5).bool(),  # nearest, as diffusers downsamples masks
        functional.max_pool2d(defects, 2).bool(),
        torch.from_numpy(corpus.defect),
        tokenized(texts, tokenizer).to(torch.int16).view(len(corpus), CAPTIONS + VAGUE, LENGTH),
    )


def tokenized(texts: list[str], tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Tokenize N texts, truncated and padded as in diffusers: N,LENGTH int64."""
    return tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
