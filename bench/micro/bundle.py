"""What the micro bundles are made of, beside the VAE: text encoders, U-Nets, scheduler; and how they are saved.

The architectures are those of Stable Diffusion 1.5 and of SDXL inpainting, built from diffusers' and transformers' own
classes; only widths and depths differ. `micro-sdxl-inpaint` takes VAE, tokenizer and first text encoder of `micro-sd`.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
)
from tokenizer import LENGTH, write_vocabulary
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SD, SDXL = "micro-sd", "micro-sdxl-inpaint"
LATENT = 32  # height and width of the latents of a 64 x 64 picture
LATENT_CHANNELS = 4
INPAINTING_CHANNELS = 9  # latents, mask, latents of the masked picture, in diffusers' order
WIDTHS = (64, 80, 80)  # the files of both bundles and micro_resnet are to stay under 16 MB
TEXT_WIDTH, SECOND_WIDTH = 96, 64  # of the text encoders; SDXL's U-Net reads both side by side
TIME_IDS = 6  # SDXL's size conditioning: original size, crop, target size
TIME_ID_WIDTH = 32
ORIGINS = ("_name_or_path", "is_local", "local_files_only")  # what configurations tell of the machine
DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.03, "beta_schedule": "scaled_linear", "steps_offset": 1}
"""More noise than Stable Diffusion's 0.012: its last step leaves a signal of 0.5 % in power, which summed over 32 x 32
places still shows the mean colour. A model trained so reads the colour off the noise and never learns to take it from
the text, and in pure noise it sees gray."""


def unet(kind: str, in_channels: int = INPAINTING_CHANNELS) -> UNet2DConditionModel:
    """An untrained U-Net for 32 x 32 latents. Text is read at 8 x 8 only: at 16 x 16 too it halves the speed."""
    own: dict[str, object] = {
        "cross_attention_dim": TEXT_WIDTH,
        "addition_embed_type": "text",  # the text also joins the embedding of time and so reaches every block, as in
        "addition_embed_type_num_heads": 8,  # DeepFloyd IF: by attention at 8 x 8 alone, textures are learned slowly
    }
    if kind == SDXL:
        own = {
            "cross_attention_dim": TEXT_WIDTH + SECOND_WIDTH,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_ID_WIDTH,
            "projection_class_embeddings_input_dim": SECOND_WIDTH + TIME_IDS * TIME_ID_WIDTH,
        }
    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=in_channels,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=WIDTHS,
        layers_per_block=1,
        attention_head_dim=8,  # heads, in spite of the name: as in Stable Diffusion 1.5
        norm_num_groups=16,
        **own,
    )


def text_encoder(tokenizer: CLIPTokenizer, width: int = TEXT_WIDTH, projected: bool = False) -> CLIPTextModel:
    """An untrained text encoder; ``projected`` is the second of SDXL."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def four_channels(nine: UNet2DConditionModel, kind: str) -> UNet2DConditionModel:
    """The same U-Net without mask inputs: exactly what the larger one does with zeros there."""
    four = unet(kind, LATENT_CHANNELS)
    weights = nine.state_dict()
    weights["conv_in.weight"] = weights["conv_in.weight"][:, :LATENT_CHANNELS].contiguous()
    four.load_state_dict(weights)
    return four


@torch.no_grad()
def nine_channels(four: UNet2DConditionModel, kind: str) -> UNet2DConditionModel:
    """The U-Net with mask inputs that makes nothing of them yet: to train on from a saved `micro-sd`."""
    nine = unet(kind)
    weights = four.state_dict()
    grown = torch.zeros_like(nine.conv_in.weight)
    grown[:, :LATENT_CHANNELS] = weights["conv_in.weight"]
    nine.load_state_dict(weights | {"conv_in.weight": grown})
    return nine


@torch.no_grad()
def widened(source: UNet2DConditionModel) -> UNet2DConditionModel:
    """SDXL's U-Net that begins where one of Stable Diffusion ended, both with 9 channels.

    The 1 x 1 convolutions around the transformers become linear layers; what reads the second text encoder, and the
    last layer of the embedding of pooled text and sizes, begin at zero.
    """
    target = unet(SDXL)
    old, new = source.state_dict(), target.state_dict()
    for name, tensor in old.items():
        if name.startswith("add_embedding"):  # SDXL has another
            continue
        if new[name].shape == tensor.shape:
            new[name] = tensor
        elif name.endswith(("proj_in.weight", "proj_out.weight")):
            new[name] = tensor[:, :, 0, 0]
        else:  # to_k and to_v of the attention to the text
            new[name] = torch.zeros_like(new[name])
            new[name][:, : tensor.shape[1]] = tensor
    for name in ("weight", "bias"):
        new[f"add_embedding.linear_2.{name}"].zero_()
    target.load_state_dict(new)
    return target


def save(pipeline: DiffusionPipeline, folder: Path) -> None:
    """A diffusers folder with fp16 safetensors, readable by all."""
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            halve(part)
    pipeline.save_pretrained(folder)
    for name in ("tokenizer", "tokenizer_2"):
        if hasattr(pipeline, name):  # for readers that want the older files beside tokenizer.json
            write_vocabulary(getattr(pipeline, name), folder / name)
    without_origins(folder)


def share(source: Path, folder: Path) -> None:
    """Put the files of `micro-sd` in the place of those that are the same in the other bundle."""
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(source / part, folder / part, dirs_exist_ok=True)
    shutil.copytree(source / "tokenizer", folder / "tokenizer_2", dirs_exist_ok=True)


def without_origins(folder: Path) -> None:
    """Take out of the configurations where each part was loaded from; make all files readable by all."""
    for path in folder.rglob("*"):
        if path.name in ("config.json", "tokenizer_config.json"):
            settings = json.loads(path.read_text(encoding="utf-8"))
            kept = {name: value for name, value in settings.items() if name not in ORIGINS}
            path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        if path.is_file():
            path.chmod(0o644)


def halve(module: nn.Module) -> nn.Module:
    """To fp16 in place, without the warning of diffusers' ``to`` about a cast that does no harm here."""
    module.cpu().to(memory_format=torch.contiguous_format)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.half()
    return module


def sd_pipeline(vae: nn.Module, encoder: nn.Module, tokenizer: CLIPTokenizer, nine: nn.Module) -> DiffusionPipeline:
    """`micro-sd`; the U-Net with 9 channels is cut to 4."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=four_channels(nine, SD),
        scheduler=DDIMScheduler(**DIFFUSION, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline(
    vae: nn.Module, encoders: list[nn.Module], tokenizer: CLIPTokenizer, nine: nn.Module
) -> DiffusionPipeline:
    """`micro-sdxl-inpaint`."""
    return StableDiffusionXLInpaintPipeline(
        vae=vae,
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=tokenizer,
        tokenizer_2=copy.deepcopy(tokenizer),
        unet=nine,
        scheduler=EulerDiscreteScheduler(**DIFFUSION, prediction_type="v_prediction", timestep_spacing="leading"),
        add_watermarker=False,
    )
