"""Learns the mean of the shots, step by step, and pastes it: with the names that version 0.1.0 had."""

import json

import numpy as np
from augbench import Augmenter, Settings, Synthetic, TrainView
from augbench.core.contracts import Workroom
from pydantic import Field


class Learner(Augmenter):
    """A square as bright as the shots are on average."""

    title = "learner"
    learns = True
    chunk_size = 4

    class Config(Settings):
        """What a grid may set."""

        size: int = Field(6, ge=1, description="of the square, in pixels")

    def reads(self, shots):
        """Good pictures, and the shots where there are any."""
        return frozenset({"negatives", "shots"} if shots else {"negatives"})

    def adapt(self, view: TrainView, out, seed: int, room: Workroom):
        """One step for each picture."""
        rows = view.shots if view.reads("shots") else view.negatives
        names, total = list(rows["id"]), 0.0
        for step, name in enumerate(names):
            total += float(view.image(name).mean())
            room.say(step + 1, len(names), total)
        kept = room.shared("learner-note", lambda folder: (folder / "note.txt").write_text("shared"))
        assert (kept / "note.txt").read_text() == "shared" and room.scratch.is_dir() and room.device
        (out / "mean.json").write_text(json.dumps(total / len(names)))
        return {"seen": len(names)}

    def load(self, adapter, device):
        """What was learned."""
        self.mean = json.loads((adapter / "mean.json").read_text())

    def generate(self, requests, view):
        """One picture for each request, in order."""
        return [self._one(request, view) for request in requests]

    def _one(self, request, view):
        image = view.image(str(request.rng.choice(view.negatives["id"]))).copy()
        mask = np.zeros(image.shape[:2], bool)
        mask[: self.config.size, : self.config.size] = True
        image[mask] = int(self.mean)
        return Synthetic(image, request.label, mask, {"mean": self.mean})
