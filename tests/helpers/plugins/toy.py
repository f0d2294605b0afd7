"""Test plug-in: learns one number from the shots, and pastes the shots' defects onto negatives by their masks."""

import json

import numpy as np

from augbench import Augmenter, Settings, Synthetic


class Toy(Augmenter):
    title = "toy"
    tasks = frozenset({"detection", "recognition"})
    learns = True
    chunk_size = 4

    class Config(Settings):
        limit: int | None = None
        broken_from: int | None = None
        user_error: bool = False
        adapt_fails: bool = False

    def reads(self, shots):
        return frozenset({"negatives", "shots", "masks"} if shots else {"negatives"})

    def capacity(self, view):
        return self.config.limit

    def adapt(self, view, out, seed, room):
        if self.config.adapt_fails:
            raise RuntimeError("the adapter broke")
        rows = view.shots if view.reads("shots") else view.negatives
        mean = float(np.mean([view.image(name).mean() for name in rows["id"]]))
        (out / "mean.json").write_text(json.dumps({"mean": mean, "seed": seed}))

    def load(self, adapter, device):
        self.mean = json.loads((adapter / "mean.json").read_text())["mean"]

    def generate(self, requests, view):
        return [self._one(request, view) for request in requests]

    def _one(self, request, view):
        if self.config.broken_from is not None and request.index >= self.config.broken_from:
            if self.config.user_error:
                from augbench import UserError

                raise UserError("toy: the setting broken_from says stop: raise it")
            raise RuntimeError("the toy broke")
        names = view.negatives["id"] if len(view.negatives) else view.shots["id"]
        image = view.image(str(request.rng.choice(names))).copy()
        top = int(request.rng.integers(0, image.shape[0] // 2))
        image[top : top + 4, :8] = int(self.mean) // 2
        mask = np.zeros(image.shape[:2], bool)
        mask[top : top + 4, :8] = True
        return Synthetic(image, request.label, mask, {"mean": self.mean})
