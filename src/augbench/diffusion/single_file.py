"""Single-file checkpoints: all weights of a pipeline in one safetensors file, with the original code's tensor names.

Stable Diffusion was first published in this format, and kohya's scripts and most model sites use it. Such a file has no
configurations and no tokenizer. Its kind is detected from the tensor names in its header.
"""

from __future__ import annotations

from pathlib import Path

from augbench.core.errors import UserError
from augbench.core.weights import parameters, shapes

SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")

PREFIXES = {
    "sd": {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.transformer.text_model.",
    },
    "sdxl-inpaint": {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "conditioner.embedders.0.transformer.text_model.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
"""Kind -> component with weights -> prefix of its tensor names."""

ACCEPTED = "give a checkpoint of Stable Diffusion 1.x (text to image) or SDXL inpainting, or a diffusers folder"

_FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"
_CHANNELS = {4: "text to image", 8: "instructions", 9: "inpainting"}  # input channels of the U-Net -> its task
_FAMILIES = {  # part of a tensor name -> what the file is; the first match counts
    "lora_": "a LoRA",
    ".hada_": "a LoRA",
    "lokr_": "a LoRA",
    "control_model.": "a ControlNet",
    "controlnet_": "a ControlNet",
    "double_blocks.": "Flux or a related model",
    "joint_blocks.": "Stable Diffusion 3",
    "conditioner.embedders.1.model.": "Stable Diffusion XL",
    "conditioner.embedders.0.model.": "the SDXL refiner",
    "cond_stage_model.model.": "Stable Diffusion 2",
    "cond_stage_model.transformer.": "Stable Diffusion 1.x",
    "model.diffusion_model.input_blocks.": "a Stable Diffusion without its text encoder",
    "down_blocks.": "one part of a diffusers folder",
    "text_model.": "a text encoder alone",
    "encoder.down.": "a VAE alone",
    "emb_params": "a textual inversion",
}
_KINDS = {("Stable Diffusion 1.x", 4): "sd", ("Stable Diffusion XL", 9): "sdxl-inpaint"}


def is_checkpoint(path: Path) -> bool:
    """Return whether a path has the suffix of a checkpoint."""
    return path.suffix.lower() in (SUFFIX, *PICKLES)


def kind_of(path: Path) -> str:
    """Detect the kind of a checkpoint from its name and header.

    Raises:
        UserError: it is a pickle, missing, damaged, of another model, or lacks a component.
    """
    if path.suffix.lower() in PICKLES:
        raise UserError(f"'{path}' may be a pickle, which can run code and is not read: convert it to {SUFFIX}")
    if path.suffix != SUFFIX:  # diffusers reads all files of other suffixes as pickles
        raise UserError(f"'{path}' does not end in {SUFFIX}: {ACCEPTED}")
    tensors = shapes(path)
    family = next((family for part, family in _FAMILIES.items() if any(part in name for name in tensors)), None)
    first = tensors.get(_FIRST_LAYER, ())
    channels = first[1] if len(first) == 4 else 0
    kind = _KINDS.get((str(family), channels))
    if kind is None:
        raise UserError(f"'{path}' seems to be {_described(family, channels)}: {ACCEPTED}")
    for part, prefix in PREFIXES[kind].items():
        if not any(name.startswith(prefix) for name in tensors):
            raise UserError(f"'{path}' lacks its {part} ('{prefix}*'): give a checkpoint with all parts")
    return kind


def held(path: Path, kind: str) -> dict[str, int]:
    """Return component -> number of its parameters in the file. Raises as `augbench.core.weights.shapes`."""
    return {part: parameters(path, prefix) for part, prefix in PREFIXES[kind].items()}


def config_folder(path: Path) -> Path:
    """Return where configurations and tokenizer of a checkpoint may be: its path without the suffix."""
    return path.with_suffix("")


def _described(family: str | None, channels: int) -> str:
    if family not in [known for known, _ in _KINDS]:
        return family or "no known model"
    if not channels:
        return f"{family} without its U-Net"
    return f"{family} with {channels} input channels ({_CHANNELS.get(channels, 'of an unknown task')})"
