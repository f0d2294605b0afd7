"""Products by oneDNN are products, whatever the layout of what is multiplied."""

import pytest
import torch
from torch.nn import functional

from augbench.diffusion import products

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=[True, False], ids=["by oneDNN", "as PyTorch does"])
def way(request, monkeypatch):
    if request.param and not products.by_onednn():
        pytest.skip("no oneDNN in this PyTorch")
    monkeypatch.setattr(products, "by_onednn", lambda: request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12)])
def test_a_linear_layer_in_any_layout(shape):
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=draw) for size in (shape, (9, 12), (9,)))
    turned = weight.mT.contiguous().mT
    for given in (x, x.mT.contiguous().mT):
        for own in (weight, turned):
            torch.testing.assert_close(products.linear(given, own, bias), functional.linear(x, weight, bias))
            torch.testing.assert_close(products.linear(given, own), functional.linear(x, weight))


@pytest.mark.parametrize("fault", [AttributeError, RuntimeError, TypeError])
def test_without_the_operation_layers_are_those_of_pytorch(fault, monkeypatch):
    def gone(*_):
        raise fault

    monkeypatch.setattr(products, "_by_onednn", gone)
    monkeypatch.setattr(products, "by_onednn", products.by_onednn.__wrapped__)
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    assert not products.by_onednn() and torch.equal(products.linear(x, weight), functional.linear(x, weight))
    monkeypatch.setattr(products, "_by_onednn", lambda *_: torch.zeros(2, 2))  # another thing by the same name
    assert not products.by_onednn()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("pictures", [1, 2, 16])
def test_a_convolution_of_one_place_in_both_directions(pictures):
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=draw) for size in ((pictures, 12, 4, 3), (9, 12, 1, 1), (9,)))
    weight.requires_grad_()
    usual = functional.conv2d(x, weight, bias)
    torch.testing.assert_close(products.pointwise(x, weight.detach(), bias), usual.detach())
    pull = torch.randn(usual.shape, generator=draw)
    (expected,) = torch.autograd.grad((usual * pull).sum(), weight)
    torch.testing.assert_close(products.of_pointwise(x, pull), expected.flatten(1), rtol=1e-4, atol=1e-5)
