"""Batched inpainting around masks against diffusers' own ``padding_mask_crop``; regions by rules and by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from augbench import UserError
from augbench.diffusion.inpaint import Inpainted, box_around, composited, feathered, inpaint_around, overlaid
from augbench.diffusion.masks import procedural_region, read_drawn
from augbench.diffusion.pipelines import find, load

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = ["metal surface with a scratch", "surface with a crack"] * 2
AMOUNT = {"steps": 3, "guidance": 5.0, "strength": 0.99, "negative": "dark"}
SIZE = 64


@pytest.fixture(scope="module")
def bundle():
    return find("micro-sdxl-inpaint")


@pytest.fixture(scope="module")
def pipeline(bundle):
    return load(bundle)


@pytest.fixture(scope="module")
def images():
    """Four smooth images with masks: small and large, at edges, sharp (even) and with grey edges (odd)."""
    draw = np.random.default_rng(0)
    coarse = [Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(4)]
    smooth = [np.asarray(image.resize((SIZE, SIZE))) for image in coarse]
    masks = []
    for number, (top, left) in enumerate([(0, 40), (30, 10), (20, 20), (57, 3)]):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[top : top + 6 * (number + 1), left : left + 20] = 255
        masks.append(np.asarray(Image.fromarray(mask).resize((47, 31)).resize((SIZE, SIZE))) if number % 2 else mask)
    return smooth, masks


def by_diffusers(pipeline, prompt, image, mask, seed):
    inputs = {"image": Image.fromarray(image), "mask_image": Image.fromarray(mask), "padding_mask_crop": 2}
    amount = {"num_inference_steps": AMOUNT["steps"], "guidance_scale": AMOUNT["guidance"]}
    amount |= {"negative_prompt": AMOUNT["negative"], "strength": AMOUNT["strength"], "height": SIZE, "width": SIZE}
    made = pipeline(prompt, **inputs, **amount, generator=torch.Generator("cpu").manual_seed(seed))
    return np.asarray(made.images[0])


@pytest.mark.parametrize(("batch", "apart"), [(1, 0), (4, 2)])
def test_a_batch_gives_what_diffusers_gives_one_by_one(bundle, pipeline, images, batch, apart):
    """Bit-identical with one image at a time; in a batch equal up to rounding, in grey levels of 255."""
    options = {"seeds": range(4), "padding": 2, "batch": batch, **AMOUNT}
    made = inpaint_around(pipeline, bundle, PROMPTS, *images, **options)
    for seed, (prompt, image, mask, inpainted) in enumerate(zip(PROMPTS, *images, made, strict=True)):
        ours = overlaid(image, mask, inpainted).astype(int)
        theirs = by_diffusers(pipeline, prompt, image, mask, seed)
        assert np.abs(ours - theirs).max() <= apart
        assert np.abs(theirs.astype(int) - image).max() > 5  # something was inpainted


def test_boxes_are_those_of_diffusers(pipeline):
    draw = np.random.default_rng(1)
    for _ in range(200):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        (top, left), (height, width) = draw.integers(0, SIZE, 2), draw.integers(1, SIZE, 2)
        mask[top : top + height, left : left + width] = draw.integers(1, 256)
        padding = int(draw.integers(0, 6))
        theirs = pipeline.mask_processor.get_crop_region(Image.fromarray(mask), SIZE, SIZE, pad=padding)
        assert box_around(mask, padding) == theirs


def test_overlays_are_those_of_diffusers(pipeline):
    draw = np.random.default_rng(2)
    for _ in range(20):
        image, inpainted = draw.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[10:30, 40:] = draw.integers(0, 256, (20, 24))
        box = box_around(mask, 2)
        one, two, three = map(Image.fromarray, (mask, image, inpainted))
        theirs = np.asarray(pipeline.image_processor.apply_overlay(one, two, three, box))
        assert (overlaid(image, mask, Inpainted(inpainted, box)) == theirs).all()


@pytest.mark.parametrize("shape", [(176, 64), (40, 100), (64, 64), (300, 201)])
def test_compositing_leaves_other_pixels_unchanged(shape):
    draw = np.random.default_rng(3)
    source = draw.integers(0, 256, (*shape, 3), dtype=np.uint8)
    region = np.zeros(shape, bool)
    region[5:20, 30:50] = True
    white = Inpainted(np.full((SIZE, SIZE, 3), 255, np.uint8), (0, 0, SIZE, SIZE))
    result = composited(source, region, white)
    near = np.asarray(Image.fromarray(region).convert("L").resize(shape[::-1])) > 0
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            near |= np.roll(region, (down, right), (0, 1))
    assert (result[~near] == source[~near]).all()
    assert (result[region] == 255).all()
    assert (feathered(region)[~near] == 0).all() and (feathered(region)[region] == 1).all()
    assert feathered(region)[near & ~region].max() <= 0.5


@pytest.mark.parametrize("kind", ["noise", "line", "blob"])
@pytest.mark.parametrize("shape", [(176, 64), (632, 224), (40, 200), (5, 4)])
def test_procedural_regions_have_the_size_that_is_asked_for(kind, shape):
    shares = []
    for seed in range(20):
        region, drawn_kind = procedural_region(np.random.default_rng(seed), shape, (kind,), (0.02, 0.1))
        assert drawn_kind == kind and region.shape == shape and region.dtype == bool and region.any()
        again, _ = procedural_region(np.random.default_rng(seed), shape, (kind,), (0.02, 0.1))
        assert (region == again).all()
        shares.append(region.mean())
    if min(shape) > 30:
        assert max(shares) <= (0.12 if kind == "line" else 0.1001)
        assert np.median(shares) > 0.015


def test_an_area_of_all_is_all():
    region, _ = procedural_region(np.random.default_rng(0), (20, 30), ("blob",), (1.0, 1.0))
    assert region.all()


def test_drawn_masks_are_read_right_or_refused_by_name(tmp_path):
    white = np.zeros((20, 30), np.uint8)
    white[3:9, 4:12] = 255
    grey = Image.fromarray(white)
    kinds = {"grey": grey, "bit": grey.convert("1"), "rgb": grey.convert("RGB"), "opaque": grey.convert("RGBA")}
    for name, image in kinds.items():
        image.save(tmp_path / f"{name}.png")
        assert (read_drawn(tmp_path / f"{name}.png") == (white > 0)).all()
    hole = np.dstack([np.stack([white] * 3, 2), white])
    refused = {
        "16-bit|I;16": Image.fromarray(white.astype(np.uint16) * 257),
        "transparent": Image.fromarray(hole),
        "empty": Image.fromarray(white // 10),
    }
    for message, image in refused.items():
        image.save(tmp_path / "bad.png")
        with pytest.raises(UserError, match=message) as caught:
            read_drawn(tmp_path / "bad.png")
        assert "bad.png" in str(caught.value) and "\n" not in str(caught.value)
