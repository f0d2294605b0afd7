"""What runs on a GPU: it repeats bit for bit, and on a GPU that is not there its tensors fit together."""

import numpy as np
import pytest
import torch
from helpers import TINY, TINY_PROBE

from augbench.classifiers.fit import fit, predict
from augbench.classifiers.loader import DeviceImages, on_device
from augbench.core.determinism import deterministic
from augbench.core.protocol import make_protocol
from augbench.diffusion import dreambooth
from augbench.diffusion.dreambooth import Recipe, Training, encode
from augbench.diffusion.img2img import img2img
from augbench.diffusion.inpaint import inpaint_around
from augbench.diffusion.lora import LoraShape
from augbench.diffusion.pipelines import find, load
from augbench.diffusion.sampling import sample
from augbench.features.extractor import Extractor
from augbench.features.frozen import FrozenBackbone

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def on(device, name, precision):
    """A packaged pipeline on a device, with what it was loaded from."""
    source = find(name)
    return load(source, device, DTYPES.get(precision)), source


# -- fit


def fitted(device, precision, **changes):
    """Losses and logits of a small fit; its backbone has batch norm and max pooling, as ResNet-50 has."""
    fields = {**TINY, "width": 64, "height": 64, "backbone": "test_resnet", "flip": True, "precision": precision}
    protocol = make_protocol({"name": "tiny", **fields, **changes})
    place = torch.device(device)
    data = DeviceImages([on_device(IMAGES, place)], np.arange(12), protocol, place)
    logits = []

    def evaluate(model, epoch):
        logits.append(predict(model, data, protocol))

    with deterministic(device, precision):
        made = fit(data, np.arange(12) % 2, 1, protocol, 0, evaluate, weights=np.ones(12, np.float32))
    return made.step_losses, logits[-1]


def test_a_fit_repeats(device, precision):
    (losses, logits), again = fitted(device, precision), fitted(device, precision)
    assert len(losses) == 4 and logits.shape == (12, 1) and logits.dtype == np.float32
    assert losses == again[0] and np.array_equal(logits, again[1])


# -- DreamBooth


def training(device, precision):
    pipeline, _ = on(device, "micro-sd", precision)
    shape = LoraShape(rank=4, alpha=2.0, conv_rank=2)
    recipe = Recipe(epochs=1, repeats=2, batch=4, lr=1e-3, shape=shape, precision=precision, optimiser="adamw")
    examples = [encode(pipeline, (64, 64), list(part)) for part in (IMAGES[:4], IMAGES[4:])]
    return Training(pipeline, recipe, ("skt background", "background"), *examples, 0)


def kill(step, steps, loss):
    if step == 3:
        raise KeyboardInterrupt


def test_dreambooth_resumes_with_the_same_result(device, place, precision_of_pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(dreambooth, "FLUSH", -1.0)  # a checkpoint after each step
    whole = training(device, precision_of_pipeline)
    assert whole.run()["steps"] == 4
    if place == "fake":
        return  # there are no values to save
    with pytest.raises(KeyboardInterrupt):
        training(device, precision_of_pipeline).run(tmp_path, kill)
    resumed, steps = training(device, precision_of_pipeline), []
    resumed.run(tmp_path, lambda step, *_: steps.append(step))
    assert steps == [3, 4] and torch.equal(whole.losses, resumed.losses)
    assert all(map(torch.equal, whole.parameters, resumed.parameters))


# -- images

MASKS = np.zeros((2, 64, 64), np.uint8)
MASKS[:, 20:40, 10:50] = 255
AMOUNT = {"seeds": (0, 1), "steps": 3, "guidance": 5.0, "batch": 2}
PROMPTS = ("surface with a crack", "surface with a stain")


def text_to_image(device, precision):
    return sample(*on(device, "micro-sd", precision), PROMPTS, clip_skip=2, **AMOUNT)


def image_to_image(device, precision):
    images = {"images": IMAGES[:2], "strength": 0.5, "shape": (64, 64)}
    return img2img(*on(device, "micro-sd", precision), PROMPTS, **images, **AMOUNT)


def inpainting(device, precision):
    pipeline, source = on(device, "micro-sdxl-inpaint", precision)
    images = list(IMAGES[:2]), list(MASKS)
    return np.stack([one.image for one in inpaint_around(pipeline, source, PROMPTS, *images, padding=2, **AMOUNT)])


@pytest.mark.parametrize("generate", [text_to_image, image_to_image, inpainting])
def test_images_repeat(generate, device, precision_of_pipeline):
    precision = precision_of_pipeline
    with deterministic(device, precision):
        images, again = generate(device, precision), generate(device, precision)
    assert images.shape == (2, 64, 64, 3) and images.dtype == np.uint8 and np.array_equal(images, again)


# -- features


def test_features_repeat(device, precision):
    backbone = FrozenBackbone(make_protocol({**TINY_PROBE, "precision": precision}), device)
    with deterministic(device, precision):
        features, again = backbone(IMAGES), backbone(IMAGES)
    assert features.dtype == np.float32 and len(features) == 12 and np.array_equal(features, again)


def test_features_for_fidelity_repeat(device, place):
    extractor = Extractor("micro_resnet", device)
    features, again = extractor(IMAGES, (64, 64)), extractor(IMAGES, (64, 64))
    assert len(features) == 12 and np.array_equal(features, again)
