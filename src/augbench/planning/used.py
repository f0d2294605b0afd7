"""What synthetic images were made from, in words: the information that methods are to be compared at."""

from __future__ import annotations

from augbench.core import registry
from augbench.core.contracts import Augmenter, Shots
from augbench.core.filters import Filters

WORDS = {"negatives": "normal images", "masks": "their masks", "regions": "masks of all real defects"}


def used_by(augmenter: Augmenter, shots: Shots, filters: Filters) -> tuple[str, ...]:
    """Return what an augmenter makes its images from in a shot regime, a few words each; a mixture, all its parts.

    The filters that its images passed come last, with what they look at.
    """
    found = _made_from(augmenter, shots)
    looks_at = {"memorised": f" ({_defects(shots)})" if _defects(shots) in found else ""}
    if filters.unseen:
        looks_at["unseen"] = f" by {filters.unseen.backbone} (normal images)"
    passed = ", ".join(name + looks_at.get(name, "") for name in filters.before_review.names)
    found = (*found, f"filtered: {passed}") if passed else found
    return (*found, filters.review.words) if filters.review else found


def _made_from(augmenter: Augmenter, shots: Shots) -> tuple[str, ...]:
    parts = augmenter.parts()
    if parts:
        made = [registry.make("augmenters", part.augmenter, dict(part.settings)) for part in parts]
        return tuple(dict.fromkeys(word for one in made for word in _made_from(one, shots)))
    words = WORDS | {"shots": _defects(shots)}
    found = [words[what] for what in ("negatives", "shots", "masks", "regions") if what in augmenter.reads(shots)]
    if prompts := augmenter.prompts_from():
        found.append(f"prompts (chosen by looking at: {prompts})")
    return (*found, augmenter.certified()) if augmenter.certified() else tuple(found)


def _defects(shots: Shots) -> str:
    return "1 real defect" if shots == 1 else f"{shots} real defects"
