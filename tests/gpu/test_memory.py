"""Estimates of GPU memory against what PyTorch allocates. Without a GPU only the work itself is run, on a CPU small."""

import gpu_memory as bench
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from helpers import TINY

from augbench.classifiers.fit import fit
from augbench.classifiers.loader import DeviceImages, on_device
from augbench.core.determinism import deterministic
from augbench.core.protocol import load_preset, make_protocol
from augbench.features.frozen import BATCH, FrozenBackbone
from augbench.planning import gpu_memory
from augbench.planning.gpu_memory import CONTEXT, GIB, MARGIN, PIPELINES

LEAST = 0.4  # of an estimate: one that is far too large wastes the card


def check(place, estimate, work):
    """Compare the GiB allocated at the peak with an estimate of what lies inside PyTorch's allocator."""
    if place != "cuda":
        work()
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    peak = torch.cuda.max_memory_allocated() / GIB
    assert LEAST * estimate <= peak <= estimate, f"{peak:.2f} GiB allocated, {estimate:.2f} estimated"


def test_a_fit(device, place, precision):
    changes = {"width": 64, "height": 64, "batch": 4} if place == "cpu" else {"width": 632, "height": 224, "batch": 32}
    fields = {**TINY, "backbone": "resnet50", "weights": "scratch", "precision": precision, **changes, "epochs": 1}
    protocol, count = make_protocol({"name": "full", **fields}), 2 * changes["batch"]
    pixels = np.zeros((count, protocol.height, protocol.width, 3), np.uint8)

    def work():
        data = DeviceImages([on_device(pixels, torch.device(device))], np.arange(count), protocol, torch.device(device))
        with deterministic(device, precision):
            fit(data, np.arange(count) % 2, 1, protocol, 0, lambda *_: None)

    check(place, gpu_memory.training(protocol, count) - CONTEXT, work)


def test_a_pass_of_the_unet_of_stable_diffusion(device, place):
    known, images = PIPELINES["sd"], 1 if place == "cpu" else 20
    config = bench.SD["unet"] | ({"block_out_channels": (32, 64)} if place == "cpu" else {})
    layers = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2} if place == "cpu" else {}
    dtype = torch.float32 if place == "cpu" else torch.float16

    def work():
        with torch.device(device):
            unet = UNet2DConditionModel(**config, **layers).to(dtype)
            size = unet.config.sample_size
            latents = torch.zeros(images, 4, size, size, dtype=dtype)
            text = torch.zeros(images, 77, config["cross_attention_dim"], dtype=dtype)
            with torch.inference_mode():
                assert unet(latents, torch.zeros(images), text).sample.shape == latents.shape

    # Built in fp32, before it is cast: weights of 4 bytes.
    check(place, max(known.unet * 4 / GIB, known.unet * 2 / GIB + MARGIN * known.denoise * images), work)


def test_features(device, place):
    protocol = load_preset("probe")
    images = np.zeros((2 if place == "cpu" else BATCH, protocol.height, protocol.width, 3), np.uint8)
    estimate = gpu_memory.extracting(protocol.backbone, protocol.width * protocol.height)
    check(place, estimate - CONTEXT, lambda: FrozenBackbone(protocol, device)(images))


def test_an_estimate_that_does_not_hold_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    for peak in (1.1, 0.3):
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda peak=peak: peak * GIB)
        with pytest.raises(AssertionError, match=f"{peak:.2f} GiB allocated, 1.00 estimated"):
            check("cuda", 1.0, lambda: None)
