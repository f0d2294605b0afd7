"""The quick ways of a training on a CPU are the ordinary ones by other sums, and leave nothing behind."""

import numpy as np
import pytest
import torch
from torch import nn

from augbench.diffusion import attention, lowrank, quick
from augbench.diffusion.bundles import find, load
from augbench.diffusion.lora import ADAPTER, MODELS, LoraShape, wrap
from augbench.diffusion.quick import Passes, optimiser, sampling

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pipeline():
    """Wrapped, with matrices that do something."""
    found = load(find("micro-sd"))
    parameters = wrap(found, LoraShape(rank=4, alpha=2.0, conv_rank=2), 0)
    torch.manual_seed(0)
    for parameter in parameters:
        nn.init.normal_(parameter, std=0.05)
    return found


def test_a_pass_gives_the_same_and_leaves_no_trace(pipeline):
    unet, draw = pipeline.unet, torch.Generator().manual_seed(0)
    x, told = (torch.randn(shape, generator=draw) for shape in ((2, 4, 8, 8), (2, 77, 96)))
    times = torch.tensor([10, 700])
    parameters = [p for p in unet.parameters() if p.requires_grad]

    def gradients():
        made = unet(x, times, told, return_dict=False)[0]
        return [made, *torch.autograd.grad(made.square().mean(), parameters)]

    def state():
        return {name: dict(module.__dict__) for name, module in unet.named_modules()}

    passes = Passes(pipeline, "fp32", 64)
    layers = {name for _, name, _ in passes.own}
    assert layers == {"forward", "processor", "output_scale_factor"}
    before, usual = state(), gradients()
    with passes():
        assert state() != before
        quick = gradients()
    assert state() == before
    for got, expected in zip(quick, usual, strict=True):
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max().clamp_min(1e-6)


def test_a_pass_is_told_the_same_whether_texts_are_shared_or_not(pipeline):
    passes, draw = Passes(pipeline, "fp32", 64), torch.Generator().manual_seed(0)
    x, texts = (torch.randn(shape, generator=draw) for shape in ((3, 4, 8, 8), (2, 77, 96)))
    rows, times, found = torch.tensor([1, 0, 1]), torch.tensor([10, 700, 3]), []
    parameters = [p for n, p in pipeline.unet.named_parameters() if p.requires_grad and "attn2.to_k" in n]
    for shares in (True, False):
        assert passes.shares_texts
        passes.shares_texts = shares
        with passes():
            made = pipeline.unet(x, times, **passes.conditions(texts, rows), return_dict=False)[0]
            found.append([made, *torch.autograd.grad(made.square().mean(), parameters)])
        passes.shares_texts = True
    for got, expected in zip(*found, strict=True):
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max().clamp_min(1e-6)


def test_a_factor_that_is_not_one_divides(pipeline):
    blocks = quick.undivided(pipeline.unet)
    assert all(block.output_scale_factor == 1.0 for block, _, _ in blocks)
    x = torch.ones(2, requires_grad=True)
    assert all(x / one is x for _, _, one in blocks)
    blocks[0][0].output_scale_factor = 2.0
    try:
        assert len(quick.undivided(pipeline.unet)) == len(blocks) - 1
    finally:
        blocks[0][0].output_scale_factor = 1.0


def test_texts_are_shared_where_all_attention_is_ordinary(pipeline):
    assert not Passes(pipeline, "bf16", 64).shares_texts  # diffusers' own attention knows nothing of it
    layer = attention.processors(pipeline.unet)[0][0]
    layer.residual_connection = True
    try:
        assert not Passes(pipeline, "fp32", 64).shares_texts
    finally:
        layer.residual_connection = False


def test_every_layer_of_lora_is_computed_at_once(pipeline):
    from peft.tuners.lora import LoraLayer

    for part in MODELS:
        model = getattr(pipeline, part)
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        found = [module for module, _ in lowrank.forwards(model, ADAPTER)]
        assert found[: len(layers)] == layers
        assert {type(module).__name__ for module in found[len(layers) :]} == (
            {"Upsample2D"} if part == "unet" else set()
        )


def test_reduced_arithmetic_and_large_pictures_go_the_ordinary_way(pipeline):
    assert Passes(pipeline, "bf16", 64).own == []
    large = {name for _, name, _ in Passes(pipeline, "fp32", attention.PLACES + 1).own}
    assert large == {"forward", "output_scale_factor"}


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_pictures_are_made_by_ways_of_our_own_that_leave_no_trace(kind):
    found = load(find("micro-sd"), "cpu", kind)
    unet, draw = found.unet, torch.Generator().manual_seed(0)
    x, told = (torch.randn(shape, generator=draw).to(kind) for shape in ((2, 4, 32, 32), (2, 77, 96)))
    x = x.contiguous(memory_format=torch.channels_last)

    def state():
        return {name: dict(module.__dict__) for name, module in unet.named_modules()}

    def made():
        with torch.inference_mode():
            return unet(x, torch.tensor([10, 700]), told, return_dict=False)[0].float()

    before, usual = state(), made()
    with sampling(found, 1):
        assert state() == before and torch.equal(made(), usual)
    with sampling(found, 2):
        changed = {name for name, own in state().items() if own != before[name]}
        ours = made()
    assert state() == before
    assert any(name.endswith("attn2") for name in changed)
    assert any("norm" in name for name in changed) == (kind == torch.bfloat16)
    apart = (ours - usual).abs().max() / usual.abs().max()
    assert 0 < apart < (0.05 if kind == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("shape", [(2, 8, 16, 16), (2, 8, 32, 32), (2, 8, 5)])
def test_a_group_norm_in_bf16_is_a_group_norm(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    norm = nn.GroupNorm(4, 8).bfloat16()
    for given in (x, x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.mT.contiguous().mT):
        made = quick._normed(norm, given)
        torch.testing.assert_close(made, norm(given), rtol=0.02, atol=0.02)
        assert made.stride() == norm(given).stride()


def test_the_fused_optimiser_is_adamw():
    draw = np.random.default_rng(0)
    start, grads = draw.normal(size=(2, 7, 5)), draw.normal(size=(4, 2, 7, 5))
    found = []
    for make in (lambda p: optimiser(p, 1e-2, "cpu")[0], lambda p: torch.optim.AdamW(p, lr=1e-2)):
        parameters = [nn.Parameter(torch.tensor(each, dtype=torch.float32)) for each in start]
        made = make(parameters)
        for step in grads:
            for parameter, grad in zip(parameters, step, strict=True):
                parameter.grad = torch.tensor(grad, dtype=torch.float32)
            made.step()
        found.append(torch.stack([parameter.detach() for parameter in parameters]))
    torch.testing.assert_close(*found)
