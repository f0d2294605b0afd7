"""dark_lines: what it does, in a line.

Say here which paper or code it follows (title, venue, section), and under which licence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from augbench import Augmenter, Request, Settings, Synthetic, TrainView
from pydantic import Field

# Heavy libraries (torch, diffusers, scipy, ...) are imported inside methods: `augbench list` imports this file.


class DarkLines(Augmenter):
    """A straight scratch across a good picture. It stands here to be replaced."""

    title = "dark_lines"  # in lists
    paper = ""
    licence = ""
    tasks = frozenset({"detection"})  # "recognition" too, if it can show the class that a request names
    chunk_size = 20  # pictures that are made and committed together; part of the keys of pools

    class Config(Settings):
        """What a grid may set. A default that was published is never changed: keys hold what differs from it."""

        width: int = Field(2, ge=1, le=50, description="of the scratch, in pixels")
        contrast: int = Field(80, ge=1, le=255, description="grey values that the scratch is brighter by")

    # The base class reads good training pictures alone, and learns nothing. To change that, override
    #   reads(shots)                  what it looks at in a shot regime: negatives, shots, masks, regions
    #   refuses(shots)                why a regime makes no sense for it
    #   adapt(view, out, seed, room)  what is learned before anything is generated; set learns = True
    #   load(adapter, device)         get ready to generate; set uses_gpu = True if it can use one
    #   notes(shots)                  what a reader of its numbers must know, in a line

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """One picture for each request, in order."""
        return [self._one(request, view) for request in requests]

    def _one(self, request: Request, view: TrainView) -> Synthetic:
        rng = request.rng  # every random number comes from here: the same request makes the same picture
        source = str(rng.choice(view.negatives["id"]))
        image = view.image(source).copy()  # H,W,3 uint8
        height, width = image.shape[:2]
        middle = rng.uniform(0.2, 0.8) * width + rng.uniform(-0.5, 0.5) * np.arange(height)  # of the scratch, per row
        mask = np.abs(np.arange(width)[None, :] - middle[:, None]) < self.config.width / 2 + 0.5  # H,W bool
        image[mask] = np.clip(image[mask].astype(int) + self.config.contrast, 0, 255).astype(np.uint8)
        return Synthetic(image, request.label, mask, {"source": source})
