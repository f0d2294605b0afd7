"""Features of a frozen backbone for probes: maximum and mean over space of each of its last four stages.

For `tf_efficientnet_lite0` these are 992 numbers, of stages with 24, 40, 112 and 320 channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from augbench.classifiers.backbone import build
from augbench.core.errors import UserError
from augbench.core.protocol import Protocol

if TYPE_CHECKING:
    import torch

BATCH = 32  # fixed, as rounding of features depends on it
STAGES = 4


class FrozenBackbone:
    """A backbone that is never trained."""

    def __init__(self, protocol: Protocol, device: str) -> None:
        """Load the backbone of a protocol.

        Raises:
            UserError: it is unknown, its weights are not at hand, or it gives no feature maps.
        """
        import torch

        self.protocol, self.device = protocol, device
        self.model = build(protocol, 0, 0).eval().to(device)
        if not hasattr(self.model, "forward_intermediates"):
            raise UserError(f"backbone '{protocol.backbone}' gives no feature maps of its stages: choose another")
        self.mean, self.std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (protocol.mean, protocol.std)
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Extract features N,D float32 of images N,H,W,3 uint8 of the protocol's size."""
        import torch

        found = []
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                batch = torch.from_numpy(images[start : start + BATCH]).to(self.device)
                found.append(self.features(batch).cpu().numpy())
        return np.concatenate(found)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features B,D float32 of images B,H,W,3 uint8 on the device."""
        batch = images.permute(0, 3, 1, 2).float() / 255
        return self._pooled((batch - self.mean) / self.std)

    def _pooled(self, batch: torch.Tensor) -> torch.Tensor:
        """Return B,D float32 of normalised images B,3,H,W."""
        import torch

        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.protocol.precision == "bf16"):
            maps = self.model.forward_intermediates(batch, indices=STAGES, intermediates_only=True)  # B,C,h,w each
        return torch.cat([pooled for one in maps for pooled in (one.amax((2, 3)), one.mean((2, 3)))], 1).float()
