"""Blur: blurred normal images, labelled as defects. A planted artefact, for tests and teaching.

A row that learns from these images learns sharpness and no defect.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from augbench.augmenters._settings import OURS, setting
from augbench.augmenters._sources import normal_ids
from augbench.core.contracts import Augmenter, Request, Settings, Synthetic, TrainView


class Blur(Augmenter):
    """Blurs normal images as a whole: what a classifier gains from an artefact that is no defect."""

    title = "blurred normal images"
    licence = "Apache-2.0"
    control = "blurred normal images with no defect: a planted artefact"

    class Config(Settings):
        """How much."""

        sigma: float = setting(1.5, "standard deviation of the Gaussian, in pixels", OURS, gt=0, allow_inf_nan=False)

    config: Config

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Make one image per request from a random normal image, which is its source."""
        ids = normal_ids("blur", view)
        sources = [ids[request.rng.integers(len(ids))] for request in requests]
        return [
            Synthetic(self._blurred(view.image(source)), request.label, None, {"source": source})
            for request, source in zip(requests, sources, strict=True)
        ]

    def _blurred(self, image: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(self.config.sigma)))
