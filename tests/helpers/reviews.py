"""Small reviews, without a page."""

from __future__ import annotations

import numpy as np

from augbench.core.seeds import rng
from augbench.studio.review import Review

FACTS = {"dataset": "surfaces", "settings": {}, "fold": None, "augmenter": "diag"}


def draw_review(folder, accepted, rejected=0, shape=(176, 64), facts=FACTS, seen=(), **about):
    """Write a review with so many accepted and rejected images; return the settings of `reviewed`."""
    with Review(folder, facts) as review:
        for number in range(accepted + rejected):
            image = rng("picture", number).integers(0, 256, (*shape, 3), np.uint8)
            mask = np.zeros(shape, bool)
            mask[number % shape[0], 3:9] = True
            made = {"source": "none", "prompt": "a scratch", "index": number, "seed": number, **about}
            name = review.add(image, mask, "defect", made)
            review.decide(name, "accept" if number < accepted else "reject")
        review.saw("normal", seen)
    return {"root": str(folder / "accepted")}
