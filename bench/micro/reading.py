"""Teaches a text encoder to read, before any picture is made from what it says.

Stable Diffusion's text encoders come from CLIP: they were taught, with pictures, to tell captions apart, and then stay
as they are. Learned through a U-Net alone a small encoder keeps the colour and little of the defect, as few pixels
show it: a linear probe told nine defects apart in 20 to 28 % of captions, by chance in 11 %. So ours learns first to
say which material, colour and defect a caption of the corpus names, in both of its last layers, since clip skip reads
the last but one. Vague captions ask only for what they name. The heads that are asked are thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from augbench.diffusion.attention import for_training
from corpus.materials import MATERIALS
from corpus.pictures import DEFECT_WORDS, MATERIAL_WORDS, Item, captions, plan, vague_captions
from stock import tokenized
from tokenizer import LENGTH
from torch import nn
from torch.nn import functional
from training import rows_of, set_rate
from transformers import CLIPTokenizer

from augbench.core.seeds import derive_seed
from augbench.diffusion.text import told

COLOUR_WORDS = ("", *sorted({word for material in MATERIALS.values() for word in material.colours}))
SIZES = (len(MATERIAL_WORDS), len(COLOUR_WORDS), len(DEFECT_WORDS))
UNSAID = -100  # what cross-entropy passes over
CAPTIONS, VAGUE = 4, 2  # of each item
WARM_UP = 50  # steps
READING = {"items": 10_000, "steps": 120, "batch": 128, "lr": 2e-3}

Read = Callable[[torch.Tensor], list[torch.Tensor]]
"""N,LENGTH tokens -> what the encoder says of them, each N,LENGTH,D or N,D."""


def last_layers(encoder: nn.Module) -> Read:
    """What Stable Diffusion reads, without and with clip skip 2."""
    return lambda tokens: [told(encoder, tokens, skip) for skip in (1, 2)]


def pooled_layers(encoder: nn.Module) -> Read:
    """What SDXL reads of its second encoder: the last layer but one, and the projection of the text's end."""

    def read(tokens: torch.Tensor) -> list[torch.Tensor]:
        states = encoder(tokens, output_hidden_states=True)
        return [states.hidden_states[-2], states.text_embeds]

    return read


def questions(items: list[Item]) -> tuple[list[str], torch.Tensor]:
    """Captions, and what each names: N,3 int64, places in materials, colours, defects; `UNSAID` where it does not."""
    texts, answers = [], []
    for item in items:
        answer = [MATERIAL_WORDS.index(item.material), COLOUR_WORDS.index(item.colour), DEFECT_WORDS.index(item.defect)]
        for text in (*captions(item, CAPTIONS), *vague_captions(item, VAGUE)):
            names = MATERIALS[item.material].names
            vague = not any(name in text for name in (item.material, *names))
            said = [UNSAID if vague else answer[0], answer[1] if item.colour in text.split() else 0, answer[2]]
            if item.defect and ("defect" in text or "damage" in text):
                said[2] = UNSAID
            texts.append(text)
            answers.append(said)
    return texts, torch.tensor(answers)


class Heads(nn.Module):
    """Answers from the mean over a text and from its end; of N,D from that alone."""

    def __init__(self, said: list[torch.Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(part.shape[-1] * (part.ndim - 1), sum(SIZES)) for part in said)

    def forward(self, said: list[torch.Tensor], ends: torch.Tensor) -> list[torch.Tensor]:
        """``ends``: N, where each text ends. One N,answers of each part."""
        places = torch.arange(len(ends), device=ends.device)
        seen = [torch.cat([p.mean(1), p[places, ends]], 1) if p.ndim == 3 else p for p in said]
        return [layer(part) for layer, part in zip(self.layers, seen, strict=True)]


def teach(read: Read, encoder: nn.Module, tokenizer: CLIPTokenizer, seed: int, settings: dict) -> dict:
    """Train ``encoder`` in place; returns the settings, the seconds, and how often it answers right at the end."""
    device, begun = next(encoder.parameters()).device, time.perf_counter()
    texts, answers = questions([plan(seed, index) for index in range(settings["items"])])
    tokens = tokenized(texts, tokenizer)
    torch.manual_seed(derive_seed("micro-reading-heads", seed))
    with torch.no_grad():
        heads = Heads(read(tokens[:2].to(device))).to(device)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], settings["lr"], weight_decay=0.01)
    right = torch.zeros(len(SIZES))
    for step in range(settings["steps"]):
        set_rate(optimiser, settings["lr"], step, settings["steps"], WARM_UP)
        rows = rows_of("micro-reading-order", seed, step, settings["batch"], len(tokens))
        seen, wanted = tokens[rows], answers[rows].to(device)
        seen = seen.to(device)
        with for_training(device.type, LENGTH):
            found = heads(read(seen), ends_of(seen, tokenizer))
        loss = sum(
            functional.cross_entropy(part, wanted[:, i], ignore_index=UNSAID)
            for answer in found
            for i, part in enumerate(answer.split(SIZES, 1))
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step >= settings["steps"] - 20:
            guessed = [answer.argmax(1) for answer in found[0].split(SIZES, 1)]
            hits = [(guess == wanted[:, i])[wanted[:, i] != UNSAID] for i, guess in enumerate(guessed)]
            right += torch.tensor([hit.float().mean().item() for hit in hits]) / min(20, settings["steps"])
    names = ("material", "colour", "defect")
    scores = {name: round(value, 4) for name, value in zip(names, right.tolist(), strict=True)}
    seconds = round(time.perf_counter() - begun, 1)
    print(f"the text encoder reads: {scores} after {seconds:.0f} s", flush=True)
    return {**settings, "seconds": seconds, "right": scores}


def ends_of(tokens: torch.Tensor, tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Where each text ends: the first place of the end token, N int64."""
    return (tokens == tokenizer.eos_token_id).int().argmax(1)
