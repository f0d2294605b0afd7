"""Faults that only a GPU would show, planted: the tests beside this one must fail on each."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from test_devices import fitted, training

from augbench.classifiers.loader import DeviceImages
from augbench.diffusion.dreambooth import Finetuning

pytestmark = pytest.mark.usefixtures("one_thread")


def test_images_that_stay_on_the_cpu(monkeypatch):
    batch = DeviceImages.batch
    monkeypatch.setattr(DeviceImages, "batch", lambda self, indices: batch(self, indices).cpu())
    with fake_cuda(), pytest.raises(RuntimeError, match="on the same device"):
        fitted("cuda", "fp32")


def test_noise_that_stays_on_the_cpu(monkeypatch):
    encoded = Finetuning.encoded
    monkeypatch.setattr(Finetuning, "encoded", lambda *given: [one.cpu() for one in encoded(*given)])
    with fake_cuda(), pytest.raises(RuntimeError, match="at least two devices"):
        training("cuda", "fp32").run()


def test_weights_in_fp16_without_autocast(monkeypatch):
    with fake_cuda():
        begun = training("cuda", "fp16")
        monkeypatch.setattr(torch, "autocast", lambda *_, **options: nullcontext())
        with pytest.raises(RuntimeError, match=r"should be the same|same dtype"):
            begun.run()


def test_an_array_of_a_tensor_on_the_gpu():
    with fake_cuda():
        tensor = torch.ones(2, device="cuda")
        assert np.array_equal(tensor.cpu().numpy(), np.zeros(2)) and tensor.sum().item() == 1
        with pytest.raises(TypeError, match="numpy"):
            tensor.numpy()


def test_gradients_reach_the_parameters():
    with fake_cuda():
        layer, other = (torch.nn.Linear(2, 2).to("cuda") for _ in range(2))
        layer(torch.ones(1, 2, device="cuda")).sum().backward()
        assert layer.weight.grad.device.type == "cuda" and other.weight.grad is None
