"""Test plug-in with a quality search: it paints into the shots it starts from, more or less far from them."""

import json
from pathlib import Path

from augbench import Augmenter, Settings, Synthetic
from augbench.core.contracts import Candidate, Scoring


class Searcher(Augmenter):
    title = "searcher"
    tasks = frozenset({"detection", "recognition"})
    learns = True
    chunk_size = 4

    class Config(Settings):
        strength: float = 0.3  # 0 copies, 1 is noise
        steps: int = 1
        strengths: tuple[float, ...] = ()
        steps_tried: tuple[int, ...] = (1,)
        folds: int = 2
        least_distance: float = 0.02
        metric: str = "kid"
        breaks_at: int | None = None  # number of steps
        learner: bool = True  # False: it generates from the shots alone
        log: str = ""  # a file that is told of each adaptation

    def __init__(self, config=None):
        super().__init__(config)
        self.learns = self.config.learner

    def reads(self, shots):
        return frozenset({"shots"})

    def candidates(self):
        config = self.config
        return tuple(Candidate({"steps": n}, {"strength": s}) for n in config.steps_tried for s in config.strengths)

    def scoring(self):
        return Scoring("micro_resnet", 6, self.config.least_distance, self.config.metric, self.config.folds)

    def adapt(self, view, out, seed, room):
        if self.config.steps == self.config.breaks_at:
            raise RuntimeError("the search broke")
        if self.config.log:
            with Path(self.config.log).open("a") as file:
                file.write(f"{self.config.steps} {len(view.shots)}\n")
        (out / "steps.json").write_text(json.dumps({"steps": self.config.steps, "shots": list(view.shots["id"])}))

    def load(self, adapter, device):
        self.told = json.loads((adapter / "steps.json").read_text()) if adapter else {"steps": 0}

    def generate(self, requests, view):
        return [self._one(request, view) for request in requests]

    def _one(self, request, view):
        rows = view.shots if view.task == "detection" else view.shots[view.shots["label"] == request.label]
        rng = request.rng
        source = view.image(str(rng.choice(rows["id"]))).astype(float)
        strength = self.config.strength
        image = source * (1 - strength) + rng.uniform(0, 255, source.shape) * strength
        meta = {"strength": strength, "steps": self.told["steps"]}
        return Synthetic(image.round().astype("uint8"), request.label, None, meta)
