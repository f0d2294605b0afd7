"""Attention by turned products is attention."""

import pytest
import torch
from torch.nn import functional

from augbench.diffusion import attention
from augbench.diffusion.bundles import find, load

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("asked", [9, 14])
def test_attention_is_softmax_of_products(asked):
    draw = torch.Generator().manual_seed(0)
    given = [torch.randn(6, n, 5, generator=draw, requires_grad=True) for n in (9, asked, asked)]
    ours = attention.attended(*given, 0.4)
    usual = functional.scaled_dot_product_attention(*given, scale=0.4)
    torch.testing.assert_close(ours, usual)
    pull = torch.randn(ours.shape, generator=draw)
    for got, expected in zip(*(torch.autograd.grad((made * pull).sum(), given) for made in (ours, usual)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_only_ordinary_layers_of_attention_are_taken():
    unet = load(find("micro-sd")).unet
    assert len(attention.processors(unet)) == len(unet.attn_processors)
    layer = attention.processors(unet)[0][0]
    layer.residual_connection = True
    assert layer not in [each for each, _ in attention.processors(unet)]


def test_many_pairs_are_left_to_diffusers():
    unet = load(find("micro-sd")).unet
    x = torch.randn(2, 16, attention.processors(unet)[0][0].to_q.in_features)
    asked = []
    for pairs in (16 * 16, 16 * 16 - 1):
        layer, own = attention.processors(unet, pairs)[0]
        usual = layer.processor
        own.usual = lambda *args, usual=usual: asked.append(1) or usual(*args)
        with torch.no_grad():
            torch.testing.assert_close(own(layer, x), usual(layer, x), rtol=1e-4, atol=1e-5)
        assert len(asked) == (pairs < 16 * 16)


def test_texts_that_pictures_share_are_projected_once():
    unet = load(find("micro-sd")).unet
    layer, own = next((layer, own) for layer, own in attention.processors(unet) if layer.is_cross_attention)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 16, layer.to_q.in_features, generator=draw)
    texts, rows = torch.randn(2, 7, layer.to_k.in_features, generator=draw), torch.tensor([1, 0, 1])
    projected = []
    layer.to_k.register_forward_hook(lambda *args: projected.append(len(args[2])))

    def results(shared):
        given = texts.clone().requires_grad_()
        more = {"texts": given, "rows": rows} if shared else {}
        made = own(layer, x, given[rows], **more)
        return made, torch.autograd.grad(made.square().sum(), given)[0]

    for got, expected in zip(results(True), results(False), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert projected == [2, 3]
    layer, own = attention.processors(unet)[0]  # which asks the picture itself
    assert not layer.is_cross_attention
    assert torch.equal(own(layer, x, texts=texts, rows=rows), own(layer, x))


def test_with_a_mask_diffusers_computes_it():
    unet = load(find("micro-sd")).unet
    layer, own = attention.processors(unet)[0]
    x = torch.randn(2, 16, layer.to_q.in_features, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2 * layer.heads, 16, 16).index_fill_(2, torch.tensor([3]), -1e4)
    with torch.no_grad():
        assert torch.equal(own(layer, x, attention_mask=mask), layer.processor(layer, x, attention_mask=mask))
        torch.testing.assert_close(own(layer, x), layer.processor(layer, x), rtol=1e-4, atol=1e-5)
