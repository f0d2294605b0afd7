"""The parts of the micro pipelines: VAE, tokenizer, text encoders, U-Nets; and how to use and save them.

The architectures are those of Stable Diffusion 1.5 and of SDXL inpainting, built from diffusers' and transformers' own
classes; only widths and depths differ. `micro-sdxl-inpaint` shares VAE, tokenizer and first text encoder of `micro-sd`.

The VAE has f = 2: 64 x 64 images become 4 x 32 x 32 latents. Four channels, as diffusers' inpainting supports only
U-Nets with 4 or 9 input channels. With four, f = 4 would lose too much of fine-grained images: PCA of the corpus with
four components reaches 24.5 dB on 4 x 4 patches, and 29.0 dB on 2 x 2 patches. Images are N,3,H,W, uint8 or float in
[-1, 1].
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from augbench.diffusion.pipelines import MODELS

SD, SDXL = "micro-sd", "micro-sdxl-inpaint"
LATENT = 32  # height and width of the latents of a 64 x 64 image
LATENT_CHANNELS = 4
INPAINTING_CHANNELS = 9  # latents, mask, latents of the masked image, in diffusers' order
VAE_WIDTHS = (24, 48)  # one halving: f = 2
VAE_BATCH = 64  # of a round trip
WIDTHS = (64, 80, 80)  # keeps both pipelines and micro_resnet under 16 MB
TEXT_WIDTH, SECOND_WIDTH = 96, 64  # of the text encoders; SDXL's U-Net reads both, concatenated
TIME_IDS = 6  # SDXL's size conditioning: original size, crop, target size
TIME_ID_WIDTH = 32
ORIGINS = ("_name_or_path", "is_local", "local_files_only")  # fields of configurations that reveal local paths
DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.03,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}
"""More noise than Stable Diffusion's beta_end of 0.012, whose last step leaves a signal of 0.5 % in power. Summed over
32 x 32 positions, that still shows the mean colour: a model then learns the colour from the residual signal, not from
the text, and generates gray from pure noise."""
LENGTH = 77  # tokens of a prompt, as in Stable Diffusion
VOCABULARY = 2048  # at most; only pieces that occur twice are merged
MORE = (
    "a an the of on in at with without and or no for to from by near small large big thin thick long short deep "
    "light dark bright smooth plain rough shiny dirty clean old new broken good bad perfect flawless normal "
    "defective damaged damage defect defects anomaly anomalous flaw flaws fault faulty mark marks line lines pit "
    "pitted pits blister bubble corrosion corroded contamination contaminated oil water paint glue burn burnt "
    "bent fray fracture blowhole uneven patches patch inclusion scale rolled crazing break cut tear worn wear "
    "black red blue green white yellow orange brown gray grey beige silver gold golden pink purple photo "
    "photograph picture image close up macro top view industrial inspection factory product part object machine "
    "production quality sharp focus blurry high low resolution detailed texture surface background material metal "
    "steel iron aluminium aluminum glass ceramic magnetic commutator electrical plate sheet strip hot cold "
    "asphalt road floor pavement bottle cable capsule grid hazelnut nut screw pill toothbrush transistor zipper "
    "shadow"
)
"""Words outside the corpus's captions that get their own tokens; the models learn no meaning for them."""
ENDS = [chr(code) for code in (*range(0x21, 0x7F), *range(0x680, 0x6C0))]
"""Characters that cover every possible last byte: the tokenizer's trainer keeps only word endings that it has seen."""


def vae() -> AutoencoderKL:
    """Make an untrained VAE. Its ``scaling_factor`` is 1: train_vae.py normalises the latents in the weights."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(VAE_WIDTHS),
        up_block_types=["UpDecoderBlock2D"] * len(VAE_WIDTHS),
        block_out_channels=VAE_WIDTHS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,  # on 32 x 32 positions it would dominate the cost
        sample_size=2 * LATENT,
        scaling_factor=1.0,
        force_upcast=False,
    )


def load_vae(folder: Path, device: torch.device | str = "cpu") -> AutoencoderKL:
    """Load a saved VAE in float32: fp16 weights, but float32 arithmetic."""
    return AutoencoderKL.from_pretrained(folder, dtype=torch.float32).to(device).eval()


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """Convert float to uint8, rounded as diffusers' pipelines round."""
    return ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def from_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """Convert uint8 to float32."""
    return pixels.float() / 127.5 - 1


@torch.inference_mode()
def encode(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Encode float images, N,3,H,W, as the means of their latents, N,4,H/2,W/2 float32."""
    parts = images.to(model.device).split(VAE_BATCH)
    return torch.cat([model.encode(part).latent_dist.mode() for part in parts])


@torch.inference_mode()
def round_trip(model: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Encode and decode N,3,H,W uint8; returns the same, on the CPU."""
    parts = [model.decode(encode(model, from_pixels(part))).sample for part in pixels.split(VAE_BATCH)]
    return torch.cat([to_pixels(part).cpu() for part in parts])


def trained_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """Train CLIP's tokenizer on these texts and the words of `MORE`.

    Their words become one token each; other text splits into pieces, down to bytes, so any text can be encoded.
    """
    shipped = CLIPTokenizer.from_pretrained(MODELS / "micro-sd" / "tokenizer")  # for its rules, not its vocabulary
    seen = [*texts, *(f"{word} {word}" for word in MORE.split()), *ENDS]
    return shipped.train_new_from_iterator(seen, VOCABULARY, min_frequency=2, show_progress=False)


def unet(kind: str, in_channels: int = INPAINTING_CHANNELS) -> UNet2DConditionModel:
    """Make an untrained U-Net for 32 x 32 latents. Cross-attention only at 8 x 8, as 16 x 16 halves the speed."""
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
    """Make an untrained text encoder; ``projected`` is the second of SDXL."""
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


def four_channels(nine: UNet2DConditionModel) -> UNet2DConditionModel:
    """Remove the mask inputs from the U-Net of `micro-sd`; equals the larger one with zeros there."""
    four = unet(SD, LATENT_CHANNELS)
    weights = nine.state_dict()
    weights["conv_in.weight"] = weights["conv_in.weight"][:, :LATENT_CHANNELS].contiguous()
    four.load_state_dict(weights)
    return four


@torch.no_grad()
def widened(source: UNet2DConditionModel) -> UNet2DConditionModel:
    """Make SDXL's U-Net, initialised from one of Stable Diffusion, both with 9 channels.

    The 1 x 1 convolutions around the transformers become linear layers. The weights for the second text encoder, and
    the last layer of the embedding of pooled text and sizes, are zero-initialised.
    """
    target = unet(SDXL)
    old, new = source.state_dict(), target.state_dict()
    for name, tensor in old.items():
        if name.startswith("add_embedding"):  # differs in SDXL
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


def sd_pipeline(vae: nn.Module, encoder: nn.Module, tokenizer: CLIPTokenizer, nine: nn.Module) -> DiffusionPipeline:
    """Assemble `micro-sd`; the U-Net with 9 channels is cut to 4."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=four_channels(nine),
        scheduler=DDIMScheduler(**DIFFUSION, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline(
    vae: nn.Module, encoders: list[nn.Module], tokenizer: CLIPTokenizer, nine: nn.Module
) -> DiffusionPipeline:
    """Assemble `micro-sdxl-inpaint`."""
    return StableDiffusionXLInpaintPipeline(
        vae=vae,
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=nine,
        scheduler=EulerDiscreteScheduler(**DIFFUSION, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )


def save(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Write a diffusers folder with fp16 safetensors, without local paths in its configurations."""
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.cpu().half()
    pipeline.save_pretrained(folder)
    for path in folder.glob("tokenizer*"):  # vocab.json and merges.txt, for transformers before version 5
        pipeline.tokenizer.backend_tokenizer.model.save(str(path))
    for path in folder.rglob("*config.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        public = {name: value for name, value in settings.items() if name not in ORIGINS}
        path.write_text(json.dumps(public, indent=2) + "\n", encoding="utf-8")
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files with mode 0600
