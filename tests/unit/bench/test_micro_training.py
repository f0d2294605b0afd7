"""The training scripts of the VAE and micro_resnet, and their evaluation: on a handful of images, for a few steps."""

import json
import logging
import warnings

import bundle
import cards
import evaluate_bundles
import probe
import pytest
import sheets
import timm
import torch
import train_resnet
import train_unet
import train_vae
import training
from corpus.images import make
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch.utils.data import TensorDataset

from augbench.classifiers import micro_resnet

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = ["--images", "16", "--batch", "4", "--steps", "3"]


@pytest.fixture(scope="module")
def pixels():
    return training.tensor_of(make(12, seed=0).images)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return bundle.vae().eval()


def test_the_vae_script_writes_a_folder_that_diffusers_loads_without_a_warning(tmp_path, pixels, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    train_vae.main([*TINY, "--out", str(tmp_path)])
    name = "diffusion_pytorch_model.safetensors"
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", name, "sheet.png", "training.json"}
    weights = load_file(tmp_path / name)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        loaded = AutoencoderKL.from_pretrained(tmp_path)
    assert not caplog.records
    assert loaded.config.scaling_factor == 1.0 and loaded.config.latent_channels == 4
    made = bundle.round_trip(bundle.load_vae(tmp_path), pixels)
    assert made.shape == pixels.shape and made.dtype == torch.uint8
    about = json.loads((tmp_path / "training.json").read_text())
    assert (about["steps"], about["images"]) == (3, 16) and about["psnr"] > 5


def test_the_resnet_script_writes_weights_that_timm_loads_and_a_card(tmp_path):
    train_resnet.main([*TINY, "--evaluated", "12", "--out", str(tmp_path)])
    state = load_file(tmp_path / "model.safetensors")
    assert all(tensor.dtype == torch.float16 for tensor in state.values() if tensor.is_floating_point())
    timm.create_model("micro_resnet", num_classes=0).load_state_dict(state)
    card = (tmp_path / "README.md").read_text()
    assert "3 steps of 4, AdamW" in card and "never seen" in card and "What it gains" not in card


def test_baking_normalises_the_latents_and_preserves_images(pixels, vae):
    with torch.no_grad():
        vae.quant_conv.bias += torch.randn(8)  # a mean to remove
    images = bundle.from_pixels(pixels)
    with torch.inference_mode():
        before, spread = vae(images).sample, vae.encode(images).latent_dist
    found = train_vae.bake(vae, pixels)
    latents = bundle.encode(vae, images)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    with torch.inference_mode():
        after, spread_after = vae(images).sample, vae.encode(images).latent_dist
    assert torch.allclose(before, after, atol=1e-5)
    shrunk = spread.std / torch.tensor(found["std"]).view(1, 4, 1, 1)  # the noise shrinks with the latents
    assert torch.allclose(spread_after.std, shrunk, rtol=1e-4)


def test_the_perceptual_loss_is_zero_for_equal_images_only(pixels):
    micro_resnet.register()
    net = timm.create_model("micro_resnet", pretrained=True, features_only=True).eval()
    images = bundle.from_pixels(pixels[:4])
    assert len(net(images)) == 5  # the stem and four stages
    assert train_vae.perceptual_loss(net, images, images).item() == pytest.approx(0, abs=1e-6)
    assert train_vae.perceptual_loss(net, images, images.flip(0)).item() > 0.1


def test_every_row_is_drawn_once_per_epoch():
    loader = training.batches(TensorDataset(torch.arange(6)), 3, 4)
    rows = [batch.tolist() for (batch,) in loader]
    assert len(rows) == 4
    assert sorted(rows[0] + rows[1]) == sorted(rows[2] + rows[3]) == list(range(6))


def test_the_probe_is_trained_once_and_reloaded(tmp_path, pixels):
    file = tmp_path / "probe.safetensors"
    first = probe.logits_of(probe.probe(file, images=16, epochs=1, batch=8), pixels)
    written = file.stat().st_mtime_ns
    network = probe.probe(file)
    assert torch.equal(probe.logits_of(network, pixels), first)
    assert file.stat().st_mtime_ns == written
    corpus = make(12, seed=0)
    found = probe.scores(network, pixels, corpus.items)
    assert 0 <= found["material"] <= 1 and 0 <= found["defect"] <= 1
    assert "good" in found["by_defect"]


def test_round_trips_are_evaluated_part_by_part(vae, monkeypatch):
    network = evaluate_bundles.fingerprint_network(vae, {"images": 8, "epochs": 1, "batch": 8, "lr": 1e-3})
    answers = iter([{"material": 0.8, "defect": 0.5}, {"material": 0.4, "defect": 0.5}] * 2)
    monkeypatch.setattr(evaluate_bundles, "scores", lambda *_: next(answers))
    found = evaluate_bundles.round_trips(vae, network, 12, network)
    assert set(found) == {"unseen seed", "reserved materials"}
    for part in found.values():
        assert part["left"] == {"material": 0.5, "defect": 1.0}
        assert 0 < part["fingerprint"] <= 1


def test_identical_images_have_no_fingerprint(pixels):
    torch.manual_seed(0)
    network = probe.Network(1).eval()
    assert evaluate_bundles.fingerprint(network, pixels, pixels) == pytest.approx(0.5, abs=0.1)


def test_a_card_keeps_its_text_and_gets_other_settings_and_scores():
    card = cards.card("micro-sd", {"time": r"a \d moment"}, "| none |")
    assert r"| time | a \d moment |" in card and "Smoke-test weights: not evidence" in card
    assert "## Scores\n| none |\n\n## Limits" in card and "87.8%" not in card
    with pytest.raises(AssertionError, match="0 lines 'colour'"):
        cards.card("micro-sd", {"colour": "red"}, "")


def test_no_two_uses_share_a_corpus():
    seeds = [seed for script in (train_resnet, train_vae) for seed in script.SEEDS.values()]
    seeds += [train_unet.SEED, sheets.SHEET_SEED, probe.SEED]
    for seed in evaluate_bundles.SEEDS.values():
        seeds += seed.values() if isinstance(seed, dict) else [seed]
    assert len(set(seeds)) == len(seeds)
