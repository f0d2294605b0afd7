"""Choice of the feature extractor. Planning resolves "auto", because the extractor's name is part of keys."""

from __future__ import annotations

AUTO = "auto"
EMBEDDED = "micro_resnet"
INCEPTION = "inception_v3.tf_in1k"  # timm's port of the weights from which the FID network was made


def resolve(name: str) -> str:
    """Return the timm backbone: "auto" is Inception if the Hugging Face cache has its weights, else micro_resnet."""
    if name != AUTO:
        return name
    from huggingface_hub import try_to_load_from_cache

    at_hand = try_to_load_from_cache(f"timm/{INCEPTION}", "model.safetensors")
    return INCEPTION if isinstance(at_hand, str) else EMBEDDED
