"""Tiny, untrained pipelines with the structure of Stable Diffusion 1.5 and SDXL inpainting.

`original` converts their weights to the names of the original training code, which single-file checkpoints use.
"""

import diffusers
import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from augbench.diffusion.pipelines import MODELS

RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
VAE = {
    "resnets.": "block.",
    "downsamplers.0.": "downsample.",
    "upsamplers.0.": "upsample.",
    "down_blocks.": "down.",
    "mid_block.block.0.": "mid.block_1.",
    "mid_block.block.1.": "mid.block_2.",
    "mid_block.attentions.0.": "mid.attn_1.",
    "group_norm.": "norm.",
    "to_q.": "q.",
    "to_k.": "k.",
    "to_v.": "v.",
    "to_out.0.": "proj_out.",
    "conv_norm_out.": "norm_out.",
    "conv_shortcut.": "nin_shortcut.",
}
OPEN_CLIP = {
    "encoder.layers.": "transformer.resblocks.",
    "embeddings.token_embedding.": "token_embedding.",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.": "ln_final.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
}


def tiny_sd():
    """Stable Diffusion 1.5 with few channels, untrained; the tokenizer is that of the embedded pipeline."""
    torch.manual_seed(0)
    tokens, channels = tokenizer(), (32, 32, 64, 64)
    config = {"sample_size": 8, "block_out_channels": channels, "cross_attention_dim": 32, "norm_num_groups": 16}
    unet = diffusers.UNet2DConditionModel(**config)
    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(tokens, 32)),
        tokenizer=tokens,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_sdxl():
    """SDXL inpainting with few channels, untrained."""
    torch.manual_seed(1)
    tokens = tokenizer()
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=9,
        block_out_channels=(32, 32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=32 + 64,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 64,
        norm_num_groups=16,
    )
    return diffusers.StableDiffusionXLInpaintPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(tokens, 32)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokens, 64)),
        tokenizer=tokens,
        tokenizer_2=tokens,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(),
        add_watermarker=False,
    )


def tokenizer():
    return CLIPTokenizer.from_pretrained(MODELS / "micro-sd", subfolder="tokenizer")


def vae():
    return diffusers.AutoencoderKL(
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        force_upcast=False,
    )


def text_config(tokens, width):
    ids = {name: getattr(tokens, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "projection_dim": width}
    return CLIPTextConfig(vocab_size=len(tokens), num_hidden_layers=2, num_attention_heads=4, **sizes, **ids)


def parts_of(pipeline):
    """The names of a pipeline's components with weights."""
    return [name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)]


def write(pipeline, path):
    """Write a single-file checkpoint to ``path``, and all other files of the pipeline to a folder beside it."""
    save_file(original(pipeline), path, {"format": "pt"})
    pipeline.save_pretrained(path.with_suffix(""))
    for weights in list(path.with_suffix("").rglob("*.safetensors")):
        weights.unlink()


def original(pipeline):
    """All weights of a pipeline: name in the original code -> tensor."""
    parts = {"model.diffusion_model": unet_of(pipeline.unet), "first_stage_model": vae_of(pipeline.vae)}
    encoder = {f"transformer.{name}": tensor for name, tensor in clip_of(pipeline.text_encoder).items()}
    if hasattr(pipeline, "text_encoder_2"):
        parts["conditioner.embedders.0"] = encoder
        parts["conditioner.embedders.1.model"] = open_clip_of(pipeline.text_encoder_2)
    else:
        parts["cond_stage_model"] = encoder
    return {
        f"{prefix}.{name}": tensor.detach().clone().contiguous()
        for prefix, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def renamed(name, rules):
    for old, new in rules.items():
        name = name.replace(old, new)
    return name


def unet_of(unet):
    prefixes = dict(unet_prefixes(unet))
    found = {}
    for name, tensor in unet.state_dict().items():
        prefix = next(old for old in prefixes if name.startswith(old))
        rest = renamed(name.removeprefix(prefix), RESNET if ".resnets." in prefix else {})
        found[prefixes[prefix] + rest] = tensor
    return found


def unet_prefixes(unet):
    """Yield the prefix of each block in diffusers and in the original's three block lists."""
    yield from {
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "add_embedding.linear_1.": "label_emb.0.0.",
        "add_embedding.linear_2.": "label_emb.0.2.",
        "conv_in.": "input_blocks.0.0.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
    }.items()
    for blocks, ours, theirs, number in ((unet.down_blocks, "down", "input", 0), (unet.up_blocks, "up", "output", -1)):
        for level, block in enumerate(blocks):
            for layer in range(len(block.resnets)):
                number += 1
                yield f"{ours}_blocks.{level}.resnets.{layer}.", f"{theirs}_blocks.{number}.0."
                yield f"{ours}_blocks.{level}.attentions.{layer}.", f"{theirs}_blocks.{number}.1."
            if ours == "up":
                after = 2 if getattr(block, "attentions", None) else 1
                yield f"up_blocks.{level}.upsamplers.0.conv.", f"output_blocks.{number}.{after}.conv."
            elif block.downsamplers:
                number += 1
                yield f"down_blocks.{level}.downsamplers.0.conv.", f"input_blocks.{number}.0.op."


def vae_of(vae):
    levels = len(vae.config.block_out_channels)
    rules = {f"up_blocks.{level}.": f"up.{levels - 1 - level}." for level in range(levels)} | VAE
    found = {}
    for name, tensor in vae.state_dict().items():
        is_conv = "attentions" in name and name.endswith("weight") and tensor.ndim == 2  # a 1 x 1 convolution there
        found[renamed(name, rules)] = tensor[:, :, None, None] if is_conv else tensor
    return found


def clip_of(encoder):
    """As older versions of transformers saved it: names begin with ``text_model.``, and position ids are included."""
    found = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in encoder.state_dict().items()}
    positions = torch.arange(encoder.config.max_position_embeddings)[None]
    return found | {"text_model.embeddings.position_ids": positions}


def open_clip_of(encoder):
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
    found = {"text_projection": tensors.pop("text_projection.weight").T, "logit_scale": torch.ones(())}
    for name in [name for name in tensors if ".q_proj." in name]:
        qkv = [tensors.pop(name.replace(".q_proj.", f".{letter}_proj.")) for letter in "qkv"]
        fused = renamed(name.replace("self_attn.q_proj.", "attn.in_proj_"), OPEN_CLIP)
        found[fused] = torch.cat(qkv)
    return found | {renamed(name, OPEN_CLIP): tensor for name, tensor in tensors.items()}
