"""LoRA-C3Lier: what is wrapped, what is trained, what is saved, and what merging does."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save

from augbench.core.errors import UserError
from augbench.diffusion import lora
from augbench.diffusion.lora import AttentionShape, LoraShape
from augbench.diffusion.pipelines import find, load
from augbench.diffusion.sampling import sample

BUNDLE = find("micro-sd")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sd15():
    """The networks of Stable Diffusion 1.5 as its configuration says, without weights."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
        )
        encoder = CLIPTextModel(
            CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12)
        )
    return unet, encoder


def trainable(model, names, rank):
    """Count by hand: in * rank + rank * out, with the kernel area in the down projection."""
    total = 0
    for name in names:
        weight = model.get_submodule(name).weight
        area = weight[0, 0].numel() if weight.ndim == 4 else 1
        total += rank * (weight.shape[1] * area + weight.shape[0])
    return total


def test_c3lier_wraps_in_sd15_what_kohyas_script_does(sd15):
    unet, encoder = sd15
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6) == 860
    main, convolutions = LoraShape().layers("unet", unet)
    assert len(main) + len(convolutions) == 278
    # 22 residual blocks with two convolutions each, three samplers down, three up
    assert len(convolutions) == 22 * 2 + 6
    # 16 transformers of 12 layers; in each residual block the time projection, in 14 the shortcut
    assert len(main) == 16 * 12 + 22 + 14
    never = ("conv_in", "conv_out", "time_embedding", "conv_norm_out")
    assert not [name for name in (*main, *convolutions) if name.startswith(never)]
    text_layers, none = LoraShape().layers("text_encoder", encoder)
    assert len(text_layers) == 12 * 6 and none == []
    main, convolutions = LoraShape(conv_rank=None).layers("unet", unet)  # LierLa
    assert len(main) == 192 and convolutions == []


def test_the_number_of_trained_parameters_is_that_of_the_formula(sd15):
    from peft import inject_adapter_in_model

    shape = LoraShape()
    for part, model in zip(lora.MODELS, copy.deepcopy(sd15), strict=True):  # other tests look at them without LoRA
        main, convolutions = shape.layers(part, model)
        wanted = trainable(model, main, 32) + trainable(model, convolutions, 4)
        with torch.device("meta"):
            inject_adapter_in_model(lora.config(part, model, shape), model, lora.ADAPTER)
        assert sum(p.numel() for n, p in model.named_parameters() if f".{lora.ADAPTER}." in n) == wanted


def sampled(pipeline):
    return sample(pipeline, BUNDLE, ["wood with a crack"] * 2, seeds=[0, 1], steps=3, guidance=2.0)


def change_and_save(pipeline, parameters, folder, seed=1):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.1 * torch.randn_like(parameter)
    lora.save(pipeline, folder)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A folder with an adapter of every layer, images without it, and images with the unmerged adapter."""
    folder, pipeline = tmp_path_factory.mktemp("adapter"), load(BUNDLE)
    before = sampled(pipeline)
    parameters = lora.wrap(pipeline, LoraShape(rank=8, alpha=4.0), seed=0)
    assert (sampled(pipeline) == before).all()  # up is zero
    change_and_save(pipeline, parameters, folder)
    return folder, before, sampled(pipeline)


def test_exactly_the_lora_weights_are_trained():
    pipeline = load(BUNDLE)
    parameters = lora.wrap(pipeline, LoraShape(), seed=0)
    images = torch.randn(2, 4, 32, 32)
    states = pipeline.text_encoder(torch.randint(0, 900, (2, 77)))[0]
    pipeline.unet(images, torch.tensor([10, 500]), states).sample.square().mean().backward()
    assert all(parameter.grad is not None for parameter in parameters)
    others = [p for part in lora.MODELS for p in getattr(pipeline, part).parameters() if not p.requires_grad]
    assert others and all(p.grad is None for p in others)
    assert {p.dtype for p in parameters} == {torch.float32}


def test_every_layer_is_saved_with_its_rank_and_loaded(adapted):
    folder, before, unmerged = adapted
    pipeline = load(BUNDLE)
    main, convolutions = LoraShape().layers("unet", pipeline.unet)
    tensors = load_file(folder / "unet" / lora.WEIGHTS)
    assert len(tensors) == 2 * (len(main) + len(convolutions))
    assert {tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name} == {8, 4}
    config = json.loads((folder / "unet" / "adapter_config.json").read_text())
    assert config["r"] == 8 and set(config["rank_pattern"].values()) == {4}
    lora.merge(pipeline, folder, 1.0)
    assert not [n for n, _ in pipeline.unet.named_parameters() if "lora" in n]
    made = sampled(pipeline).astype(int)
    assert abs(made - unmerged).max() <= 2 and abs(made - before).mean() > 1


def test_peft_itself_reads_it(adapted):
    from peft import PeftModel

    pipeline = load(BUNDLE)
    pipeline.unet = PeftModel.from_pretrained(pipeline.unet, adapted[0] / "unet").get_base_model()
    pipeline.text_encoder = PeftModel.from_pretrained(pipeline.text_encoder, adapted[0] / "text_encoder")
    pipeline.text_encoder = pipeline.text_encoder.get_base_model()
    assert abs(sampled(pipeline).astype(int) - adapted[2]).max() <= 1


def test_alpha_scales_the_update_and_zero_changes_nothing(adapted):
    folder, before, _ = adapted
    pipelines = {alpha: load(BUNDLE) for alpha in (0.0, 0.5, 1.0)}
    own = pipelines[0.0].unet.mid_block.resnets[0].conv1.weight.clone()
    for alpha, pipeline in pipelines.items():
        lora.merge(pipeline, folder, alpha)
    assert (sampled(pipelines[0.0]) == before).all()
    half, whole = (pipelines[a].unet.mid_block.resnets[0].conv1.weight - own for a in (0.5, 1.0))
    assert whole.abs().max() > 0 and torch.allclose(2 * half, whole, atol=1e-6)
    tensors = load_file(folder / "unet" / lora.WEIGHTS)
    up, down = (tensors[f"base_model.model.mid_block.resnets.0.conv1.lora_{x}.weight"] for x in "BA")
    update = torch.einsum("orxy,rihw->oihw", up, down) / 4  # alpha 1 at rank 4
    assert torch.allclose(whole, update, atol=1e-6)


def test_an_adapter_of_other_layers_is_refused(adapted, tmp_path):
    shutil.copytree(adapted[0], tmp_path / "a")
    file = tmp_path / "a" / "unet" / lora.WEIGHTS
    tensors = load_file(file)
    tensors.pop(next(iter(tensors)))
    for content in (save(tensors), b"nothing"):
        file.write_bytes(content)
        with pytest.raises(UserError, match="does not fit"):
            lora.merge(load(BUNDLE), tmp_path / "a", 1.0)


# Attention alone


def test_attention_alone_wraps_in_sd15_what_the_first_lora_wraps(sd15):
    """16 transformers with two attentions of four layers; 12 layers of the text encoder with one."""
    unet, encoder = sd15
    main, convolutions = AttentionShape().layers("unet", unet)
    assert len(main) == 16 * 2 * 4 and convolutions == []
    assert {name.rpartition(".attn")[2][2:] for name in main} == {"to_q", "to_k", "to_v", "to_out.0"}
    text_layers, none = AttentionShape().layers("text_encoder", encoder)
    assert len(text_layers) == 12 * 4 and none == []
    assert {name.rpartition(".")[2] for name in text_layers} == {"q_proj", "k_proj", "v_proj", "out_proj"}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folders of two adapters of the attention layers."""
    folders = [tmp_path_factory.mktemp(name) for name in "ab"]
    for number, folder in enumerate(folders):
        pipeline = load(BUNDLE)
        change_and_save(pipeline, lora.wrap(pipeline, AttentionShape(rank=4, alpha=4.0), seed=number), folder, number)
    return folders


def everything(pipeline):
    return {f"{p}.{k}": v.clone() for p in lora.MODELS for k, v in getattr(pipeline, p).state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_switching_leaves_nothing_of_the_adapter_before(two):
    pipeline = load(BUNDLE)
    original = everything(pipeline)
    switcher = lora.LoraSwitcher(pipeline)
    seen = []
    for folder in (two[0], two[1], two[0], None):
        switcher.merge(folder, 0.7)
        seen.append(everything(pipeline))
    fresh = load(BUNDLE)
    lora.merge(fresh, two[0], 0.7)
    assert equal(seen[0], everything(fresh)) and equal(seen[2], seen[0]) and equal(seen[3], original)
    assert not equal(seen[1], seen[0])
    changed = {name for name in original if not torch.equal(original[name], seen[1][name])}
    assert changed and all(".attn" in name or "self_attn" in name for name in changed)


def test_switching_refuses_an_adapter_that_does_not_fit(two, tmp_path):
    with pytest.raises(UserError, match="does not fit"):
        lora.LoraSwitcher(load(BUNDLE)).merge(tmp_path, 1.0)
