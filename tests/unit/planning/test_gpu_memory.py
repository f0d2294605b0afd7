"""Estimates of GPU memory: parameter counts of full architectures, activations, and what a plan says."""

import gpu_memory as bench
import pytest
import timm
import torch
from helpers import TINY, tiny_plan
from inpaint import SDXL

from augbench.classifiers import micro_resnet
from augbench.diffusion.pipelines import WEIGHTS, find, load
from augbench.planning.gpu_memory import (
    BACKBONES,
    CONTEXT,
    PIPELINES,
    estimates,
    generating,
    learning,
    pipeline_of,
    training,
)

SD, INPAINT = PIPELINES["sd"], PIPELINES["sdxl-inpaint"]


@pytest.mark.parametrize(("name", "config"), [("sd", bench.SD), ("sdxl-inpaint", SDXL)])
def test_parameters_of_full_pipelines(name, config):
    unet, vae, texts = bench.modules(config)
    counts = bench.parameters(unet), bench.parameters(vae), sum(map(bench.parameters, texts))
    known = PIPELINES[name]
    assert counts == (known.unet, known.vae, known.text_encoders)
    assert known.size == config["vae"]["sample_size"] and known.upcast == config["vae"]["force_upcast"]


@pytest.mark.parametrize("name", ["micro-sd", "micro-sdxl-inpaint"])
def test_parameters_of_micro_pipelines(name):
    source = find(name)
    pipeline = load(source)
    parts = [getattr(pipeline, part) for part in WEIGHTS if getattr(pipeline, part, None) is not None]
    assert pipeline_of(source.kind, source.size).weights == sum(map(bench.parameters, parts))


@pytest.mark.parametrize("name", BACKBONES)
def test_parameters_of_backbones(name):
    micro_resnet.register()
    with torch.device("meta"):
        options = {"img_size": 224} if name.startswith("vit") else {}
        assert bench.parameters(timm.create_model(name, num_classes=1, **options)) == BACKBONES[name].parameters


def test_activations_of_a_backbone_are_those_counted():
    for counted, known in zip(bench.of_backbone("resnet18"), ("fp32", "bf16", "forward"), strict=True):
        assert getattr(BACKBONES["resnet18"], known) == pytest.approx(counted, abs=1e-4)


def test_activations_of_a_pass_of_the_unet_are_those_counted():
    unet, _, _ = bench.modules(bench.SD)
    assert SD.denoise == pytest.approx(bench.peak(bench.forward(unet.half(), **bench.denoising(unet, 1))), rel=0.02)


def test_the_papers_settings():
    """By the same arithmetic on paper: 20 and 6 to 7, 6.5, 10 to 11, and 9 GiB."""
    assert 20 < learning(SD, 512, 12, 2, saves=False) < 22 and 6 < learning(SD, 512, 12, 2, saves=True) < 7.5
    assert 6 < generating(SD, 512, 10, 2) < 7.5 and 10 < generating(INPAINT, 1024, 4, 2, 1) < 11.5
    (protocol,) = tiny_plan(protocols=["diag"]).grid.protocols
    assert 8 < training(protocol, 0) < 10 < training(protocol, 3335) < 11, "with the images of KSDD2"


def test_estimates_grow_with_what_needs_memory():
    assert generating(SD, 512, 10, 4) > 1.8 * generating(SD, 512, 10, 2)
    assert generating(SD, 1024, 10, 2) - CONTEXT > 2 * (generating(SD, 512, 10, 2) - CONTEXT)
    assert generating(INPAINT, 1024, 4, 2) > generating(INPAINT, 1024, 4, 2, 1)
    (plain,) = tiny_plan(protocols=["diag"]).grid.protocols
    for changes in ({"precision": "bf16"}, {"gradients": "summed"}, {"batch": 8}, {"width": 96}):
        assert training(plain.model_copy(update=changes), 0) < training(plain, 0) < training(plain, 1000)


def test_estimates_of_a_plan():
    ddpm = {"name": "ddpm", "settings": {"bundle": "sd15"}}
    found = estimates(tiny_plan(augmenters=["none", "memseg", ddpm, "diag"], shots=[5]))
    assert found["adapt"].keys() == {"ddpm"} and found["generate"].keys() == {"ddpm", "diag"}
    assert found["generate"]["diag"] > 10 and found["adapt"]["ddpm"] < 8, "with gradient checkpointing"
    assert found["train"].keys() == {"tiny"}
    other = {**TINY, "name": "other", "backbone": "resnet26"}
    assert estimates(tiny_plan(augmenters=["none"], shots=[5], protocols=[other])) == {"train": {"other": None}}
