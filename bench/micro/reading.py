"""Pretrain a text encoder on captions, before it conditions a U-Net.

Stable Diffusion's text encoders come from CLIP: pretrained on images and captions, then frozen. A small encoder trained
through a U-Net alone encodes the colour but hardly the defect, which few pixels show: a linear probe classified nine
defects correctly in 20 to 28 % of captions (chance: 11 %). So ours first learns to classify the material, colour and
defect that a caption names, from each layer that a U-Net reads. Vague captions train only what they name. The
classification heads are discarded.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from corpus.images import DEFECT_WORDS, MATERIAL_WORDS, Item, captions, plan, vague_captions
from corpus.materials import MATERIALS
from stock import tokenized
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from training import batches, fit
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from augbench.diffusion.text_encoding import encode_tokens

COLOUR_WORDS = ("", *sorted({word for material in MATERIALS.values() for word in material.colours}))
SIZES = (len(MATERIAL_WORDS), len(COLOUR_WORDS), len(DEFECT_WORDS))
UNNAMED = -100  # ignored by cross-entropy
CAPTIONS, VAGUE = 4, 2  # of each item
READING = {"items": 10_000, "steps": 120, "batch": 128, "lr": 2e-3}


def questions(items: list[Item]) -> tuple[list[str], torch.Tensor]:
    """List captions and the labels they name: N,3 int64, indices of material, colour, defect, or `UNNAMED`."""
    texts, answers = [], []
    for item in items:
        answer = [MATERIAL_WORDS.index(item.material), COLOUR_WORDS.index(item.colour), DEFECT_WORDS.index(item.defect)]
        for text in (*captions(item, CAPTIONS), *vague_captions(item, VAGUE)):
            names = MATERIALS[item.material].names
            vague = not any(name in text for name in (item.material, *names))
            named = [UNNAMED if vague else answer[0], answer[1] if item.colour in text.split() else 0, answer[2]]
            if item.defect and ("defect" in text or "damage" in text):
                named[2] = UNNAMED
            texts.append(text)
            answers.append(named)
    return texts, torch.tensor(answers)


class Reader(nn.Module):
    """A text encoder with a linear head for each of its layers that a U-Net reads."""

    def __init__(self, encoder: CLIPTextModel | CLIPTextModelWithProjection) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.hidden_size
        projected = isinstance(encoder, CLIPTextModelWithProjection)
        inputs = (2 * width, encoder.config.projection_dim if projected else 2 * width)
        self.heads = nn.ModuleList(nn.Linear(size, sum(SIZES)) for size in inputs)

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Classify N,LENGTH tokens by mean and end of a text, or by the pooled text: N,classes for each layer.

        SDXL reads the last layer but one of its second encoder, and the projection of the text's end; Stable Diffusion
        the last layer, or with clip skip 2 the last but one.
        """
        if isinstance(self.encoder, CLIPTextModelWithProjection):
            output = self.encoder(tokens, output_hidden_states=True)
            layers = [output.hidden_states[-2], output.text_embeds]
        else:
            layers = [encode_tokens(self.encoder, tokens, skip) for skip in (1, 2)]
        rows = torch.arange(len(tokens), device=tokens.device)
        ends = (tokens == self.encoder.config.eos_token_id).int().argmax(1)
        seen = [torch.cat([x.mean(1), x[rows, ends]], 1) if x.ndim == 3 else x for x in layers]
        return [head(x) for head, x in zip(self.heads, seen, strict=True)]


def teach(accelerator: Accelerator, encoder: nn.Module, tokenizer: CLIPTokenizer, settings: dict) -> dict[str, float]:
    """Train a text encoder in place; return its training accuracy for material, colour and defect."""
    texts, answers = questions([plan(0, index) for index in range(settings["items"])])
    tokens, reader = tokenized(texts, tokenizer), Reader(encoder)

    def loss(_: int, tokens: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return sum(
            functional.cross_entropy(part, wanted[:, i], ignore_index=UNNAMED)
            for answer in reader(tokens)
            for i, part in enumerate(answer.split(SIZES, 1))
        )

    loader = batches(TensorDataset(tokens, answers), settings["batch"], settings["steps"])
    fit(accelerator, reader, loader, loss, lr=settings["lr"], warm_up=50, weight_decay=0.01)
    with torch.no_grad():
        guessed = [part.argmax(1).cpu() for part in reader(tokens[:1000].to(accelerator.device))[0].split(SIZES, 1)]
    wanted = answers[:1000].unbind(1)
    right = [
        (guess == want)[want != UNNAMED].float().mean().item() for guess, want in zip(guessed, wanted, strict=True)
    ]
    return dict(zip(("material", "colour", "defect"), right, strict=True))
