"""Test plug-in: a bright patch on a normal image, or, as the seed has it, one of the duds that filters drop."""

import numpy as np

from augbench import Augmenter, Settings, Synthetic


class Dud(Augmenter):
    title = "dud"
    chunk_size = 4

    class Config(Settings):
        kinds: tuple[str, ...] = ("sound",)  # also: unchanged, hidden, copied
        mask: bool = True
        source: bool = True

    def reads(self, shots):
        return frozenset({"negatives", "shots"} if shots else {"negatives"})

    def generate(self, requests, view):
        return [self._one(request, view) for request in requests]

    def _one(self, request, view):
        rng = request.rng
        kind = str(rng.choice(self.config.kinds))
        rows = view.shots if kind == "copied" else view.negatives
        source = str(rng.choice(rows["id"]))
        image = view.image(source).copy()
        mask = np.zeros(image.shape[:2], bool)
        mask[40:100, 10:50] = True
        if kind == "sound":
            image[mask] = rng.integers(0, 256, (1, 3)) ^ (image[mask] > 127) * 255
        elif kind == "hidden":
            image[50, 20] ^= 64
        elif kind == "copied":
            image = (image * 0.9 + 12).astype(np.uint8)
        meta = {"kind": kind} | ({"source": source} if self.config.source else {})
        return Synthetic(image, request.label, mask if self.config.mask else None, meta)
