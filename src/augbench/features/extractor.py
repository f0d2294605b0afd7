"""Extract features of images for FID, KID and memorisation: the pooled output of a timm backbone without its head.

FID and KID in the literature use the Inception network of Heusel et al. (2017), whose weights are a pickle of another
framework; timm has Inception v3 with the weights that network was converted from. Values are comparable within one
extractor only, so every record names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from augbench.classifiers import micro_resnet
from augbench.classifiers.backbone import pretrained, refuse_unknown

BATCH = 32  # fixed, as rounding of features depends on it
AREA = 128 * 128  # input pixels of `micro_resnet`, at the aspect of the images; it was trained at this scale
THUMBNAIL = 32  # side length in pixels
GRID = 8  # heights and widths are multiples of it
LAYERS = {64: "Pool1", 192: "Pool2"}
"""Features of the first and the second max-pooling layer of Inception -> timm's names."""


class Extractor:
    """Frozen backbone that extracts features of images."""

    def __init__(self, name: str, device: str) -> None:
        """Load the backbone.

        Raises:
            UserError: timm does not know the backbone, or its weights are not available.
        """
        import torch

        micro_resnet.register()
        refuse_unknown(name)
        ways = "put it into the Hugging Face cache (HF_HOME) on a machine with a network, or use 'micro_resnet'"
        model = pretrained(name, 0, f"no weights of the feature extractor '{name}' at hand", ways)
        self.model = model.eval().to(device)
        card = self.model.pretrained_cfg
        self.name, self.device = name, device
        self.input_size: tuple[int, int] = tuple(card["input_size"][1:])
        self.mean, self.std = (torch.tensor(card[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))

    def size(self, aspect: float) -> tuple[int, int]:
        """Return the input height and width for images of about this ``aspect`` (width / height)."""
        if self.name != micro_resnet.NAME:
            return self.input_size
        height, width = (AREA / aspect) ** 0.5, (AREA * aspect) ** 0.5
        return tuple(max(GRID, round(side / GRID) * GRID) for side in (height, width))

    def __call__(self, images: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Extract features N,D float32 of images H,W,3 uint8 of any sizes, resized to ``size`` (height, width)."""
        return self.with_layers(images, size, ())[0]

    def with_layers(
        self, images: Sequence[np.ndarray], size: tuple[int, int], layers: Sequence[int]
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Return these features, and for each of Inception's max-pooling ``layers`` its mean over space.

        Args:
            images: H,W,3 uint8 of any sizes.
            size: height and width to which they are resized.
            layers: keys of `LAYERS`: the numbers of their features.

        Returns:
            N,D float32; and layer -> N,layer float32.
        """
        import torch

        features: list[np.ndarray] = []
        pooled: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}

        def keep(layer: int) -> Callable[..., None]:
            return lambda _, inputs, output: pooled[layer].append(output.mean((2, 3)).float().cpu().numpy())

        hooks = [self.model.get_submodule(LAYERS[layer]).register_forward_hook(keep(layer)) for layer in layers]
        for start in range(0, len(images), BATCH):
            resized = [_resized(image, size) for image in images[start : start + BATCH]]
            batch = torch.from_numpy(np.stack(resized)).to(self.device).permute(0, 3, 1, 2).float() / 255
            with torch.inference_mode():
                features.append(self.model((batch - self.mean) / self.std).float().cpu().numpy())
        for hook in hooks:
            hook.remove()
        return np.concatenate(features), {layer: np.concatenate(parts) for layer, parts in pooled.items()}


def thumbnails(images: Sequence[np.ndarray]) -> np.ndarray:
    """Downscale images to `THUMBNAIL` squares, N,3072 float32 in [0, 1], to detect copies of training images.

    Network features respond more to texture than to layout: a VAE reconstruction of a shot is nearly as far from the
    shot as another image is (0.6 to 0.8 times, measured on `surfaces`), while their thumbnails are close (0.1). The
    thumbnail distance grows with the perturbation of an image.
    """
    small = [Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image, np.float32).ravel() / 255 for image in small])


def aspect_of(images: Sequence[np.ndarray]) -> float:
    """Return the median of width / height."""
    return float(np.median([image.shape[1] / image.shape[0] for image in images]))


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
