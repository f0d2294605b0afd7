"""The shipped backbone: its file, loading by timm, and that its weights are not randomly initialised."""

import hashlib
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open

from augbench.classifiers import micro_resnet

SHIPPED = "da2475a7dcd09eac9d2383067195e2b782d3592dd61646c3f32e780158222b76"


@pytest.fixture(scope="module", autouse=True)
def _registered():
    micro_resnet.register()


def test_the_file_is_small_fp16_safetensors_with_a_card():
    path = Path(micro_resnet.weights_file())
    assert path.stat().st_size < 1.5e6
    # Keys name the backbone, not its file: other weights need another name.
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHIPPED
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    floats = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
    assert floats and all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in floats)
    assert not any(name.startswith("fc.") for name in tensors)
    card = (path.parent / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in card and "Smoke-test weights: not evidence" in card
    assert sorted(p.name for p in path.parent.iterdir()) == ["README.md", "model.safetensors"]


def test_registering_twice_is_once(recwarn):
    micro_resnet.register()
    assert not [w for w in recwarn if "registry" in str(w.message)]
    assert timm.is_model("micro_resnet")
    assert timm.models.is_model_pretrained("micro_resnet")


def test_timm_loads_it_with_and_without_a_head():
    features = timm.create_model("micro_resnet", pretrained=True).eval()
    headed = timm.create_model("micro_resnet", pretrained=True, num_classes=1).eval()
    images = torch.rand(2, 3, 176, 64)
    with torch.inference_mode():
        assert features(images).shape == (2, micro_resnet.FEATURES)
        assert headed(images).shape == (2, 1)
        assert torch.equal(features(images), headed.forward_head(headed.forward_features(images), pre_logits=True))


def test_its_features_differ_from_random_initialisation():
    torch.manual_seed(0)
    shipped, scratch = (timm.create_model("micro_resnet", pretrained=pretrained).eval() for pretrained in (True, False))
    images = torch.rand(4, 3, 64, 64)
    with torch.inference_mode():
        assert not torch.allclose(shipped(images), scratch(images), atol=1e-2)
    for name, tensor in shipped.state_dict().items():
        if name.endswith("running_mean"):
            assert tensor.abs().max() > 0.01, name
