"""Classic augmentation: flips, small rotations and photometric changes of the real defect images.

A generator that reads the shots has to beat these: they cost nothing and need no model. The operations are those of
`torchvision.transforms.v2` (BSD-3-Clause); which ones, and how far they go, is our choice. A rotation resamples, so it
also blurs a little; ``degrees: 0`` goes without.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augbench.augmenters._settings import OURS, setting
from augbench.augmenters._sources import shot_ids
from augbench.core.contracts import Augmenter, Request, Settings, Shots, Synthetic, TrainView


class Classic(Augmenter):
    """Flips, rotates, brightens and darkens real defect images: what the shots gain without a generator.

    In recognition an image keeps its class.
    """

    title = "classic augmentation of real defects"
    licence = "Apache-2.0"
    control = "real defect images, flipped, rotated and recoloured; no generator"
    tasks = frozenset({"detection", "recognition"})

    class Config(Settings):
        """How far an image is changed."""

        degrees: float = setting(10.0, "largest angle of rotation", OURS, ge=0, le=180)
        brightness: float = setting(0.2, "largest relative change of brightness", OURS, ge=0, lt=1)
        contrast: float = setting(0.2, "largest relative change of contrast", OURS, ge=0, lt=1)

    config: Config

    def reads(self, shots: Shots) -> frozenset[str]:
        """Read the shots."""
        return frozenset({"shots"})

    def refuses(self, shots: Shots) -> str:
        """Refuse zero-shot: there is no defect image to change."""
        return "" if shots else "it changes real defect images"

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Make one image per request from a random shot of its class, which is its source."""
        synthetic = []
        for request in requests:
            rng, ids = request.rng, shot_ids("classic", view, request.label)
            source = ids[rng.integers(len(ids))]
            synthetic.append(Synthetic(self._changed(rng, view.image(source)), request.label, None, {"source": source}))
        return synthetic

    def _changed(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Change an image H,W,3 uint8. Corners that a rotation leaves empty are filled with its mirrored border."""
        import torch
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        config, (height, width) = self.config, image.shape[:2]
        flips, angle = rng.random(2) < 0.5, rng.uniform(-config.degrees, config.degrees)
        margin = int(np.ceil(np.hypot(height, width) / 2))  # enough for any angle
        padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
        changed = torch.from_numpy(padded).permute(2, 0, 1)
        changed = functional.rotate(changed, angle, InterpolationMode.BILINEAR)
        changed = functional.center_crop(changed, [height, width])
        for flip, flipped in zip(flips, (functional.horizontal_flip, functional.vertical_flip), strict=True):
            changed = flipped(changed) if flip else changed
        changed = functional.adjust_brightness(changed, rng.uniform(1 - config.brightness, 1 + config.brightness))
        changed = functional.adjust_contrast(changed, rng.uniform(1 - config.contrast, 1 + config.contrast))
        return changed.permute(1, 2, 0).contiguous().numpy()
