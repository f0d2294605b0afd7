"""Layers of LoRA computed at once are those of peft and diffusers by other sums."""

import pytest
import torch
from torch import nn

from augbench.diffusion import lowrank
from augbench.diffusion.lora import ADAPTER

pytestmark = pytest.mark.usefixtures("one_thread")


def wrapped(layer, rank):
    """A layer as peft wraps it, with matrices that do something."""
    from peft import LoraConfig, inject_adapter_in_model

    model = nn.Sequential(layer)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=3.0, target_modules=["0"]), model, ADAPTER)
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def results(run, x, parameters):
    x = x.clone().requires_grad_()
    made = run(x)
    pull = torch.randn(made.shape, generator=torch.Generator().manual_seed(1))
    return [made, *torch.autograd.grad((made * pull).sum(), (x, *parameters))]


LAYERS = {
    "linear": (nn.Linear(12, 8), (2, 5, 12), 2),
    "linear, rank above its width": (nn.Linear(6, 8, bias=False), (3, 6), 16),
    "3 x 3": (nn.Conv2d(6, 8, 3, padding=1), (2, 6, 7, 5), 2),
    "3 x 3, rank above its width": (nn.Conv2d(4, 4, 3, padding=1, bias=False), (2, 4, 5, 5), 8),
    "3 x 3, half the size": (nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 8, 6), 2),
    "3 x 3, without padding": (nn.Conv2d(6, 8, 3), (2, 6, 8, 6), 2),
    "1 x 1": (nn.Conv2d(12, 10, 1), (2, 12, 4, 3), 2),
    "1 x 1, rank above its width": (nn.Conv2d(4, 6, 1), (2, 4, 4, 3), 8),
}


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "made again"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_joined_is_that_of_peft_in_both_directions(name, kept, monkeypatch):
    monkeypatch.setattr(lowrank, "KEPT", 10**6 if kept else 0)
    layer, shape, rank = LAYERS[name]
    model = wrapped(layer, rank)
    matrices = [p for n, p in model.named_parameters() if f".{ADAPTER}." in n]
    ((module, forward),) = lowrank.forwards(model, ADAPTER)
    assert module is model[0] and len(matrices) == 2
    for layout in (torch.contiguous_format, torch.channels_last)[: 2 if len(shape) == 4 else 1]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2)).contiguous(memory_format=layout)
        for expected, got in zip(results(model, x, matrices), results(forward, x, matrices), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [2, 8])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "made again"])
def test_a_doubled_picture_is_that_of_diffusers_in_both_directions(rank, kept, monkeypatch):
    from diffusers.models.upsampling import Upsample2D

    monkeypatch.setattr(lowrank, "KEPT", 10**6 if kept else 0)
    module = Upsample2D(6, use_conv=True, out_channels=5)
    module.conv = wrapped(module.conv, rank)[0]
    matrices = [p for n, p in module.named_parameters() if f".{ADAPTER}." in n]
    _, (own, forward) = lowrank.forwards(module, ADAPTER)
    assert own is module and len(matrices) == 2
    x = torch.randn((2, 6, 5, 3), generator=torch.Generator().manual_seed(2))
    for expected, got in zip(results(module, x, matrices), results(forward, x, matrices), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert forward(x, (9, 5)).shape == (2, 5, 9, 5)


def test_what_is_not_a_plain_layer_of_peft_stays_as_it_is():
    for layer in (nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, padding="same")):
        assert lowrank.forwards(wrapped(layer, 2), ADAPTER) == []
    assert lowrank.forwards(wrapped(nn.Linear(4, 4).half(), 2), ADAPTER) == []
    assert lowrank.forwards(nn.Sequential(nn.Linear(4, 4)), ADAPTER) == []
