"""The scripts that make the embedded models: on a handful of pictures, for a handful of steps."""

import functools
import logging
import stat
import warnings

import evaluate_bundles
import evaluate_vae
import fast
import muon
import probe
import pytest
import sheets
import torch
import train_resnet
import train_unet
import train_vae
import training
import vae as micro_vae
from corpus.pictures import make
from diffusers import AutoencoderKL
from safetensors.torch import load_file

TINY = ["--pictures", "24", "--batch", "4", "--widths", "8", "16", "--workers", "1", "--checkpoint-every", "0"]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """Fewer watched pictures; the scripts' number of threads is theirs alone."""
    monkeypatch.setattr(train_vae, "WATCHED", 12)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pixels():
    return training.pixels_of(make(12, seed=0, workers=1), "cpu")


def trained(folder, *more):
    """Run the script with its checkpoint in that folder; the weights it saved, or None."""
    places = ["--out", str(folder / "out"), "--checkpoint", str(folder / "at.safetensors")]
    train_vae.main([*TINY, "--steps", "4", *places, *more])
    file = folder / "out" / "diffusion_pytorch_model.safetensors"
    return file.read_bytes() if file.exists() else None


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path, capsys):
    looks = ("--perceptual", "0.1")
    whole = trained(tmp_path / "whole", *looks)
    (tmp_path / "parts").mkdir()
    assert trained(tmp_path / "parts", *looks, "--session", "0") is None
    assert trained(tmp_path / "parts", *looks, "--session", "0", "--resume") is None
    assert "stopped after step 2" in capsys.readouterr().out
    assert trained(tmp_path / "parts", *looks, "--resume") == whole
    assert not list(tmp_path.rglob("*.part"))
    assert {path.name for path in (tmp_path / "parts" / "out").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "sheet.png",
        "training.json",
    }


def test_another_seed_is_another_training_and_does_not_take_up_this_one(tmp_path):
    assert trained(tmp_path / "a", "--steps", "1") != trained(tmp_path / "b", "--steps", "1", "--seed", "1")
    with pytest.raises(SystemExit, match="was made with"):
        trained(tmp_path / "a", "--steps", "1", "--seed", "1", "--resume")


def test_minutes_become_steps_once(tmp_path, monkeypatch):
    monkeypatch.setattr(train_vae, "steps_in", functools.partial(training.steps_in, timed=2))  # 20 take half a minute
    options = ["--minutes", "1", "--out", str(tmp_path), "--checkpoint", str(tmp_path / "at.safetensors")]
    train_vae.main([*TINY, *options, "--session", "0"])
    about = training.about_checkpoint(tmp_path / "at.safetensors")
    assert about["step"] == 1 and about["settings"]["steps"] > 1
    resumed = train_vae.arguments([*TINY, *options, "--resume"])
    assert (resumed.steps, resumed.minutes) == (about["settings"]["steps"], None)


def test_baking_normalises_the_latents_and_changes_no_picture(pixels):
    torch.manual_seed(0)
    vae = micro_vae.build((8, 16)).eval()
    with torch.no_grad():
        vae.quant_conv.bias += torch.randn(8)  # a mean to take away
    pictures = micro_vae.from_pixels(pixels)
    with torch.inference_mode():
        before, spread = vae(pictures).sample, vae.encode(pictures).latent_dist
    found = micro_vae.bake(vae, pixels)
    latents = micro_vae.encode(vae, pixels)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    with torch.inference_mode():
        after, spread_after = vae(pictures).sample, vae.encode(pictures).latent_dist
    assert torch.allclose(before, after, atol=1e-5)
    assert torch.allclose(torch.tensor(found["noise"]), spread_after.std[:8].mean((0, 2, 3)), rtol=1e-4)
    shrunk = spread.std / torch.tensor(found["std"]).view(1, 4, 1, 1)  # the noise shrinks with the latents
    assert torch.allclose(spread_after.std, shrunk, rtol=1e-4)
    assert vae.config.scaling_factor == 1.0


def test_what_is_saved_loads_without_a_word_and_makes_round_trips(tmp_path, pixels, caplog):
    vae = micro_vae.build((8, 16)).eval()
    micro_vae.save(vae, tmp_path)
    weights = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in tmp_path.iterdir())
    assert next(vae.parameters()).dtype == torch.float32
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        logging.getLogger("diffusers").propagate = True
        loaded = AutoencoderKL.from_pretrained(tmp_path)
    assert not caplog.records
    assert loaded.config.scaling_factor == 1.0 and loaded.config.latent_channels == 4
    judged = micro_vae.load(tmp_path)
    assert micro_vae.encode(judged, pixels).shape == (12, 4, 32, 32)
    made = micro_vae.round_trip(judged, pixels)
    assert made.shape == pixels.shape and made.dtype == torch.uint8
    assert micro_vae.psnr(micro_vae.round_trip(vae, pixels), made) > 45  # fp16 rounding is not to be seen
    assert micro_vae.sheet(pixels, made, columns=6, scale=1).size == (6 * 66, 2 * 134)


def test_the_probe_is_trained_once_and_judged_with(tmp_path, pixels):
    file = tmp_path / "probe.safetensors"
    small = {"pictures": 16, "epochs": 1, "batch": 8}
    first = probe.logits_of(probe.probe(file, workers=1, **small), pixels)
    written = file.stat().st_mtime_ns
    network = probe.probe(file, workers=1, **small)
    assert torch.equal(probe.logits_of(network, pixels), first)
    assert file.stat().st_mtime_ns == written
    corpus = make(12, seed=0, workers=1)
    found = probe.scores(network, pixels, corpus.material, corpus.defect)
    assert 0 <= found["material"] <= 1 and 0 <= found["defect"] <= 1
    assert "good" in found["by_defect"]


def test_the_evaluation_reports_each_part(monkeypatch, capsys):
    vae = micro_vae.build((8, 16)).eval()
    told = evaluate_vae.fingerprint_network(vae, {"pictures": 8, "epochs": 1, "batch": 8, "lr": 1e-3, "seed": 0}, 1)
    words = {"by_defect": {"good": 1.0}}
    answers = iter([{"material": 0.8, "defect": 0.5, **words}, {"material": 0.4, "defect": 0.5, **words}] * 2)
    monkeypatch.setattr(evaluate_vae, "scores", lambda *_: next(answers))
    found = evaluate_vae.evaluate(vae, told, told, judged=24, workers=1)
    assert set(found) == {"unseen seed", "reserved materials"}
    for part in found.values():
        assert part["left"] == {"material": 0.5, "defect": 1.0}
        assert 0 < part["fingerprint"] <= 1
    evaluate_vae.show(found)
    assert "50%" in capsys.readouterr().out


def test_a_fingerprint_is_found_only_where_there_is_one(pixels):
    torch.manual_seed(0)
    network = probe.Network(1).eval()
    assert evaluate_vae.fingerprint(network, pixels, pixels) == pytest.approx(0.5, abs=0.1)


def test_no_two_uses_share_a_corpus():
    seeds = [seed for script in (train_resnet, train_vae, probe, evaluate_vae) for seed in script.SEEDS.values()]
    seeds += [train_unet.SEED, sheets.SHEET_SEED, evaluate_bundles.SEEDS["text"]]
    seeds += evaluate_bundles.SEEDS["inpainting"].values()
    assert len(set(seeds)) == len(seeds)


def test_the_faster_group_norm_is_the_ordinary_one():
    torch.manual_seed(0)
    ordinary, faster = torch.nn.GroupNorm(4, 12), torch.nn.GroupNorm(4, 12)
    with torch.no_grad():
        ordinary.weight.normal_(1, 0.3)
        ordinary.bias.normal_()
    faster.load_state_dict(ordinary.state_dict())
    fast.speed_up(faster)
    assert type(faster) is fast.GroupNorm
    x = (torch.randn(3, 12, 6, 5) * 2 + 1).contiguous(memory_format=torch.channels_last)
    pull = torch.randn(3, 12, 6, 5)
    found = []
    for norm in (ordinary, faster):
        seen = x.clone(memory_format=torch.preserve_format).requires_grad_()
        made = norm(seen)
        (made * pull).sum().backward()
        found.append((made.detach(), seen.grad, norm.weight.grad, norm.bias.grad))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_muon_makes_all_singular_values_alike():
    torch.manual_seed(0)
    uneven = torch.randn(2, 8, 3) @ torch.diag(torch.tensor([10.0, 1.0, 0.1]))
    for shape in (uneven, uneven.mT.contiguous()):
        values = torch.linalg.svdvals(muon.orthogonal(shape))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_muon_takes_steps_of_the_size_of_adam():
    weight = torch.nn.Parameter(torch.zeros(4, 2, 3, 3))
    torch.manual_seed(0)
    weight.grad = torch.randn(4, 2, 3, 3) * 1e-6
    muon.Muon([weight], lr=0.1).step()
    size = weight.detach().square().mean().sqrt().item()
    assert size == pytest.approx(0.1 * muon.ADAM_SIZE, rel=0.3)
    kinds = torch.nn.ModuleDict({"conv_in": torch.nn.Conv2d(2, 2, 3), "inner": torch.nn.Conv2d(2, 2, 3)})
    assert [one is kinds["inner"].weight for one in muon.matrices(kinds)] == [True]
