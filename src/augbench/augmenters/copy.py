"""Copies of the real defect images: more positives, and nothing new.

What fine-tuning gains from them is due to the class prior and the number of steps. A probe gives both labels the same
weight and fits its scaler to real images, so there copies change nothing, where N_aug is a multiple of the number of
shots (up to rounding; a test). Otherwise some shots count once more than others.
"""

from __future__ import annotations

from collections.abc import Sequence

from augbench.augmenters._sources import shot_ids
from augbench.core.contracts import Augmenter, Request, Shots, Synthetic, TrainView


class Copy(Augmenter):
    """Repeats the real defect images: what class prior and training steps gain without a new image.

    All shots of a class are taken in turn, in the order of the view, whatever the seed. In recognition an image keeps
    its class.
    """

    title = "copies of real defects"
    licence = "Apache-2.0"
    control = "the real defect images once more; no new image"
    tasks = frozenset({"detection", "recognition"})

    def reads(self, shots: Shots) -> frozenset[str]:
        """Read the shots."""
        return frozenset({"shots"})

    def refuses(self, shots: Shots) -> str:
        """Refuse zero-shot: there is no defect image to repeat."""
        return "" if shots else "it repeats real defect images"

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Return one shot per request, which is its source."""
        classes = view.shots["label"].nunique() if view.task == "recognition" else 1
        synthetic = []
        for request in requests:
            ids = shot_ids("copy", view, request.label)
            source = ids[request.index // classes % len(ids)]  # consecutive requests alternate between classes
            synthetic.append(Synthetic(view.image(source), request.label, None, {"source": source}))
        return synthetic
