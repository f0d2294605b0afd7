"""Which feature extractor a setting means. Its name is part of keys, so it is decided when a grid is planned."""

from __future__ import annotations

AUTO = "auto"
EMBEDDED = "micro_resnet"
INCEPTION = "inception_v3.tf_in1k"  # timm's, with the weights that the network of FID was made from


def resolve(name: str) -> str:
    """The timm backbone: "auto" is Inception where its weights are in the Hugging Face cache, else the embedded one."""
    if name != AUTO:
        return name
    from huggingface_hub import try_to_load_from_cache

    at_hand = try_to_load_from_cache(f"timm/{INCEPTION}", "model.safetensors")
    return INCEPTION if isinstance(at_hand, str) else EMBEDDED
