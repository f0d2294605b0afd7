"""What synthetic images were made from, in words: the information that methods are to be compared at."""

from __future__ import annotations

from augbench.core import registry
from augbench.core.contracts import Augmenter, Shots

WORDS = {"negatives": "normal images", "masks": "their masks", "regions": "masks of all real defects"}


def used_by(augmenter: Augmenter, shots: Shots) -> tuple[str, ...]:
    """Return what an augmenter makes its images from in a shot regime, a few words each; a mixture, all its parts."""
    parts = augmenter.parts()
    if parts:
        made = [registry.make("augmenters", part.augmenter, dict(part.settings)) for part in parts]
        return tuple(dict.fromkeys(word for one in made for word in used_by(one, shots)))
    words = WORDS | {"shots": "1 real defect" if shots == 1 else f"{shots} real defects"}
    found = [words[what] for what in ("negatives", "shots", "masks", "regions") if what in augmenter.reads(shots)]
    prompts = augmenter.prompts_from()
    return (*found, f"prompts (chosen by looking at: {prompts})") if prompts else tuple(found)
