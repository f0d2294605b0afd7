"""`micro_resnet`: a small timm ResNet whose weights are shipped with the package, so that nothing is downloaded.

It was pretrained on a procedural corpus (see the model card next to the file), not on photographs: smoke-test weights,
so results of this backbone are not evidence.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "micro_resnet"
FEATURES = 160  # feature dimension without a head
ARCHITECTURE = {"layers": (1, 1, 2, 1), "channels": (16, 32, 64, FEATURES), "stem_width": 8, "stem_type": "deep"}

default_cfgs: dict[str, Any] = {}  # timm looks up pretrained weights of this module's models here


def weights_file() -> str:
    """Return the path of the shipped weights: fp16 safetensors, without a head."""
    return str(resources.files("augbench") / "assets" / "models" / NAME / "model.safetensors")


def register() -> None:
    """Register the model with timm; a second call does nothing."""
    from timm.models import generate_default_cfgs, is_model, register_model

    if is_model(NAME):
        return
    card = {
        "file": weights_file(),
        "num_classes": 0,
        "input_size": (3, 64, 64),
        "pool_size": (2, 2),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "first_conv": "conv1.0",
        "classifier": "fc",
        "license": "apache-2.0",
    }
    default_cfgs.update(generate_default_cfgs({NAME: card}))
    register_model(micro_resnet)


def micro_resnet(pretrained: bool = False, **options: Any) -> torch.nn.Module:
    """Build the network for ``timm.create_model``: five basic blocks of 3 x 3 convolutions, 0.5 M parameters."""
    from timm.models import build_model_with_cfg
    from timm.models.resnet import BasicBlock, ResNet

    return build_model_with_cfg(ResNet, NAME, pretrained, block=BasicBlock, **{**ARCHITECTURE, **options})
