"""Captions of images, in the style of the prompts in papers on synthetic defects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Words:
    """The terms for a defect in captions."""

    nouns: tuple[str, ...]  # "copper metal scratches", "scratches on the wall"
    adjectives: tuple[str, ...]  # "skt background scratched", "scratched wall"; may be empty
    one: str  # "wall with a scratch"
    place: str = "on"


WORDS: dict[str, Words] = {
    "scratch": Words(("scratch", "scratches"), ("scratched",), "a scratch"),
    "crack": Words(("crack", "cracks"), ("cracked",), "a crack", "in"),
    "white marks": Words(("white marks", "white mark"), (), "white marks"),
    "spots": Words(("spots", "spot"), ("spotted",), "spots"),
    "dent": Words(("dent", "dents"), ("dented",), "a dent", "in"),
    "stain": Words(("stain", "stains"), ("stained",), "a stain"),
    "hole": Words(("hole", "holes"), (), "a hole", "in"),
    "rust": Words(("rust", "rust stains"), ("rusted", "rusty"), "rust"),
    "chip": Words(("chip", "chips"), ("chipped",), "a chip"),
}

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ANY = "any defect"
ANY_WORDS = Words(("defect", "defects", "damage"), ("defective", "damaged"), "a defect")

GROUNDS = ("background", "background", "surface", "texture")
OPENINGS = ("", "", "", "", "a photo of ", "close up photo of ")
FLAWLESS = ("", "", "", "", "", ", defect free", ", clean", " without defects")


def caption(rng: np.random.Generator, material: str, names: tuple[str, ...], colour: str, defect: str) -> str:
    """Draw a caption. ``colour`` and ``defect`` may be ""; two captions in three name the colour, if there is one."""
    thing = material if rng.random() < 0.6 else str(rng.choice((material, *names)))
    if colour and rng.random() < 0.67:
        thing = f"{colour} {thing}"
    ground = f"{thing} {rng.choice(GROUNDS)}"
    opening = str(rng.choice(OPENINGS))
    if not defect:
        body = ground if rng.random() < 0.8 else thing
        return f"{opening}{body}{rng.choice(FLAWLESS)}"
    words = ANY_WORDS if defect == ANY else WORDS[defect]
    noun = str(rng.choice(words.nouns))
    bodies = [f"{thing} {noun}", f"{noun} {words.place} the {thing}", f"{ground} with {words.one}", f"{ground} {noun}"]
    if words.adjectives:
        adjective = str(rng.choice(words.adjectives))
        bodies += [f"{ground} {adjective}", f"{thing} {adjective}", f"{adjective} {thing}"]
    return opening + str(rng.choice(bodies))


def vague_caption(rng: np.random.Generator, material: str, names: tuple[str, ...], colour: str, defect: str) -> str:
    """Draw a caption with random letters for the material, or "defect" for the kind of defect, or both.

    They teach a model to ignore unknown words, such as the identifier of DreamBooth ("skt background cracked"), and
    what all defects have in common.
    """
    if rng.random() < 0.6:
        material = "".join(rng.choice(list(LETTERS), rng.integers(2, 6)))
        names, colour = (), colour if rng.random() < 0.5 else ""
    if defect and rng.random() < 0.6:
        defect = ANY
    return caption(rng, material, names, colour, defect)
