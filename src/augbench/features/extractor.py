"""Features of pictures, by which sets of pictures are compared: the pooled output of a timm backbone without its head.

FID and KID of the literature take the Inception network of Heusel et al. (2017), whose weights are a pickle of another
framework's; timm has Inception v3 with the weights that network was made from. Numbers are comparable within one
extractor only, so every record names it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from PIL import Image

from augbench.classifiers import micro_resnet
from augbench.classifiers.backbone import refuse_unknown
from augbench.core.errors import UserError
from augbench.core.temporary import log_levels

BATCH = 32  # fixed, as features depend a little on it
AREA = 128 * 128  # pixels that `micro_resnet` looks at, at the aspect of the pictures: it was trained on their grain
THUMBNAIL = 32  # pixels
GRID = 8  # heights and widths are multiples of it


class Extractor:
    """A backbone that turns pictures into features."""

    def __init__(self, name: str, device: str) -> None:
        """Load it.

        Raises:
            UserError: timm knows no such backbone, or its weights cannot be had.
        """
        import timm
        import torch

        micro_resnet.register()
        refuse_unknown(name)
        try:
            with log_levels(logging.ERROR, "huggingface_hub"):  # it logs each new try; what came of them is said below
                model = timm.create_model(name, pretrained=True, num_classes=0)
            self.model = model.eval().to(device)
        except Exception as error:  # hub, network and cache errors have no common base
            ways = "put it into the Hugging Face cache (HF_HOME) on a machine with a network, or take 'micro_resnet'"
            what = f"no weights of the feature extractor '{name}' at hand ({type(error).__name__})"
            raise UserError(f"{what}: {ways}") from error
        card = self.model.pretrained_cfg
        self.name, self.device = name, device
        self.input_size: tuple[int, int] = tuple(card["input_size"][1:])
        self.mean, self.std = (torch.tensor(card[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))

    def size(self, aspect: float) -> tuple[int, int]:
        """Height and width at which it looks at pictures of about this ``aspect`` (width / height)."""
        if self.name != micro_resnet.NAME:
            return self.input_size
        height, width = (AREA / aspect) ** 0.5, (AREA * aspect) ** 0.5
        return tuple(max(GRID, round(side / GRID) * GRID) for side in (height, width))

    def __call__(self, pictures: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Of pictures H,W,3 uint8 of any sizes, looked at in ``size`` (height, width): N,D float32."""
        import torch

        found = []
        for start in range(0, len(pictures), BATCH):
            fitted = [_fitted(picture, size) for picture in pictures[start : start + BATCH]]
            batch = torch.from_numpy(np.stack(fitted)).to(self.device).permute(0, 3, 1, 2).float() / 255
            with torch.inference_mode():
                found.append(self.model((batch - self.mean) / self.std).float().cpu().numpy())
        return np.concatenate(found)


def thumbnails(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of any sizes shrunk to `THUMBNAIL` squares: N,3072 float32 in [0, 1]. By these copies are found.

    Features of a network say more of grain than of what is where: a shot that went through a VAE and came back is as
    far from itself as another picture is (measured on `surfaces`: 0.6 to 0.8 times), while thumbnails of the two are
    alike (0.1), and the further a picture is perturbed, the further away they are.
    """
    fitted = [Image.fromarray(picture).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX) for picture in pictures]
    return np.stack([np.asarray(picture, np.float32).ravel() / 255 for picture in fitted])


def aspect_of(pictures: Sequence[np.ndarray]) -> float:
    """The median of width / height."""
    return float(np.median([picture.shape[1] / picture.shape[0] for picture in pictures]))


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR))
