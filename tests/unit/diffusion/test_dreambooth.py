"""DreamBooth: the loss equals a loop without caching, the paper's numbers of steps, and interruptions."""

import math
from collections import Counter
from statistics import median_low

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from augbench.core.errors import UserError
from augbench.core.seeds import derive_seed
from augbench.diffusion import dreambooth, lora
from augbench.diffusion.dreambooth import Checkpoint, Examples, Recipe, Training
from augbench.diffusion.lora import LoraShape
from augbench.diffusion.pipelines import find, load

BUNDLE = find("micro-sd")
PROMPTS = ("skt background", "background")
SMALL = LoraShape(rank=4, alpha=2.0, conv_rank=2)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(8)]


def training(images, seed=0, **changes):
    """With 3 instances and 5 class images."""
    pipeline = load(BUNDLE)
    recipe = Recipe(**{"epochs": 2, "repeats": 2, "batch": 4, "lr": 1e-3, "shape": SMALL} | changes)
    own, others = (dreambooth.encode(pipeline, (64, 64), part) for part in (images[:3], images[3:]))
    return Training(pipeline, recipe, PROMPTS, own, others, seed)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_training_that_diverges_stops_and_names_the_learning_rate(images, tmp_path, loss):
    made = training(images)
    steps = []
    made.step = lambda step: steps.append(step) or (loss if step == 1 else 0.5)
    with pytest.raises(UserError, match=f"step 2 of {made.steps} is {loss} at a learning rate of .*: lower"):
        made.run(tmp_path)
    assert steps == [0, 1]


# The arithmetic of fp16: its scaler works on a CPU too


def test_a_scaled_loss_gives_the_same_step(images):
    plain, scaled = training(images), training(images)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    assert [plain.step(step) for step in range(3)] == [scaled.step(step) for step in range(3)]
    assert all(map(torch.equal, plain.parameters, scaled.parameters)), "a power of two is no rounding"


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_survives_a_checkpoint(images, tmp_path):
    made = training(images)
    made.scaler, loss = torch.amp.GradScaler("cpu", init_scale=2.0**127), made.loss
    made.loss = lambda step: loss(step) * 1e6
    before = [parameter.detach().clone() for parameter in made.parameters]
    assert math.isfinite(made.step(0)) and made.scaler.get_scale() == 2.0**126
    assert all(map(torch.equal, before, made.parameters))
    Checkpoint(tmp_path / made.file, made).save(1)
    resumed = training(images)
    resumed.scaler = torch.amp.GradScaler("cpu")
    assert Checkpoint(tmp_path / made.file, resumed).load() == 1 and resumed.scaler.get_scale() == 2.0**126


def test_a_training_is_strictly_deterministic(images):
    made, strict = training(images, epochs=1), []
    made.step = lambda step: strict.append(torch.is_deterministic_algorithms_warn_only_enabled()) or 0.5
    made.run()
    assert strict == [False] * made.steps and not torch.are_deterministic_algorithms_enabled()


# Numbers


def test_learning_rate_restarts_three_times(images):
    made = training(images, epochs=20)
    assert made.steps == 60
    rates = [made.rate(step) for step in range(60)]
    assert [step for step in range(60) if rates[step] == max(rates)] == [0, 20, 40]
    assert rates[0] == 1e-3 and rates[10] == pytest.approx(5e-4) and rates[19] < 1e-5
    longer = training(images, epochs=10, schedule_epochs=50)
    assert (longer.steps, longer.per_epoch) == (30, 3)
    assert longer.rate(29) == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 3 * 29 / 150)))


def test_min_snr_weights(images):
    made = training(images)
    timesteps = torch.tensor([0, 300, 700, 999])
    snr = made.alphas_cumprod[timesteps] / (1 - made.alphas_cumprod[timesteps])
    assert made.predicts_v and torch.allclose(made.weights(timesteps), snr.clamp(max=5) / (snr + 1))
    made.predicts_v = False
    assert torch.allclose(made.weights(timesteps), snr.clamp(max=5) / snr)


def test_an_epoch_from_the_published_files_repeats_every_image(images):
    made = training(images, epochs_from="published")
    assert made.per_epoch == 4  # (3 + 5) * 2 / 4
    counts = Counter(pair for step in range(4) for pair in zip(*map(tuple, made.rows(step)), strict=True))
    assert len(counts) == 8 and set(counts.values()) == {2}


def test_an_epoch_balances_instances_and_class_images(images):
    made = training(images)
    for epoch in range(2):
        counts = Counter()
        for step in range(epoch * made.per_epoch, (epoch + 1) * made.per_epoch):
            counts.update(zip(*(part.tolist() for part in made.rows(step)), strict=True))
        assert all(counts[0, i] == 2 for i in range(3))
        assert sum(count for (kind, _), count in counts.items() if kind == 1) == 6
        assert max(counts[1, i] for i in range(5)) - min(counts[1, i] for i in range(5)) <= 1
    assert made.rows(0)[1].tolist() != made.rows(made.per_epoch)[1].tolist()


# The loop


def plain_loss(made, images, step):
    """Compute the loss as a script that encodes prompt and image of every sample in every step."""
    from diffusers import DDPMScheduler

    pipeline, recipe = made.pipeline, made.recipe
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    kinds, which = made.rows(step)
    chosen = [images[i] if kind == 0 else images[3 + i] for kind, i in zip(kinds, which, strict=True)]
    batch = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = pipeline.vae.encode(batch).latent_dist
    draw = torch.Generator().manual_seed(derive_seed("dreambooth-step", made.seed, step))
    latents = found.mean + found.std * torch.randn(found.mean.shape, generator=draw)
    noise = torch.randn(found.mean.shape, generator=draw)
    times = torch.randint(1000, (len(batch),), generator=draw)
    texts = [PROMPTS[kind] for kind in kinds]
    ids = pipeline.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    states = pipeline.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
    hidden = pipeline.text_encoder.final_layer_norm(states)
    predicted = pipeline.unet(scheduler.add_noise(latents, noise, times), times, hidden).sample
    error = (predicted - scheduler.get_velocity(latents, noise, times)) ** 2
    alphas_cumprod = scheduler.alphas_cumprod[times]
    snr = alphas_cumprod / (1 - alphas_cumprod)
    weighted = error.mean((1, 2, 3)) * snr.clamp(max=5) / (snr + 1)
    own, prior = (weighted[torch.from_numpy(kinds) == kind].sum() for kind in (0, 1))
    return (own + recipe.prior_weight * prior) / len(batch)


def test_the_loss_equals_a_loop_without_caching(images):
    made = training(images, prior_weight=0.5)
    for step in range(3):
        made.step(step)  # so that the LoRA weights are not zero
    for step in (3, 4):
        with torch.no_grad():
            assert made.loss(step).item() == pytest.approx(plain_loss(made, images, step).item(), rel=1e-5)


def moved_layers(part, folder):
    """Yield |dW| / |W| of each layer that merging the saved adapter changes."""
    merged, own = load(BUNDLE), dict(getattr(load(BUNDLE), part).named_parameters())
    lora.merge(merged, folder, 1.0)
    for name, weight in getattr(merged, part).named_parameters():
        if not torch.equal(weight, own[name]):
            yield ((weight - own[name]).norm() / own[name].norm()).item()


def test_training_reduces_the_loss_and_changes_lora_alone(images, tmp_path):
    made = training(images, epochs=12, cycles=1)

    def loss():
        with torch.no_grad():
            return np.mean([made.loss(step).item() for step in range(6)])

    assert made.update_norm() == 0
    own, before, progress = made.pipeline.unet.conv_in.weight.clone(), loss(), []
    record = made.run(report_progress=lambda step, total, loss: progress.append((step, total)))
    assert loss() < before
    assert torch.equal(made.pipeline.unet.conv_in.weight, own)
    assert progress[0] == (1, 36) and progress[-1] == (36, 36)
    assert record["optimiser"] == "AdamW" and record["steps"] == 36
    lora.save(made.pipeline, tmp_path)
    moved = [ratio for part in lora.MODELS for ratio in moved_layers(part, tmp_path)]
    wrapped = len(made.parameters) // 2  # two matrices a layer
    assert wrapped // 2 < len(moved) < wrapped  # clip skip leaves the text encoder's last layer as it is
    ratios = moved + [0.0] * (wrapped - len(moved))
    assert record["update_norm"] == pytest.approx(median_low(ratios), rel=0.01)
    assert record["trained_parameters"] == sum(p.numel() for p in made.parameters)


def test_an_interrupted_training_has_the_same_result(images, tmp_path, monkeypatch):
    def weights(made, folder):
        lora.save(made.pipeline, folder)
        return [load_file(folder / part / lora.WEIGHTS) for part in lora.MODELS]

    whole = training(images)
    learned = whole.run()
    assert len(learned["loss"]) == whole.steps  # a point for each step
    assert learned["loss"][-1] == pytest.approx(whole.losses[-1].item(), rel=1e-3)
    stopped_after(training(images), 4, tmp_path, monkeypatch)
    rest = []
    resumed = training(images)
    assert resumed.run(tmp_path, lambda step, total, loss: rest.append(step)) == learned
    assert rest == list(range(4, whole.steps + 1))  # the fourth was lost with its checkpoint
    for a, b in zip(weights(whole, tmp_path / "a"), weights(resumed, tmp_path / "b"), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    checkpoint = tmp_path / "dreambooth.safetensors"
    assert dreambooth.Checkpoint(checkpoint, training(images, seed=1)).load() == 0  # of another training
    monkeypatch.setattr("augbench.__version__", "9.0.0")
    assert dreambooth.Checkpoint(checkpoint, training(images)).load() == 0  # by another version


def stopped_after(made, step, folder, monkeypatch):
    """Run a training with a checkpoint after each step until that step is done; its checkpoint is lost."""

    def cut(done, total, loss):
        if done == step:
            raise RuntimeError("cut")

    monkeypatch.setattr(dreambooth, "FLUSH", -1.0)
    with pytest.raises(RuntimeError, match="cut"):
        made.run(folder, cut)


def test_an_interrupted_training_in_8_bits_has_the_same_result(images, tmp_path, monkeypatch):
    """The state of bitsandbytes' optimiser holds numbers and nested dicts; small parameters have 32 bits there."""
    pytest.importorskip("bitsandbytes")
    whole, resumed = (training(images, optimiser="adamw8bit", shape=LoraShape(rank=32)) for _ in range(2))
    learned = whole.run()
    assert learned["optimiser"] == "AdamW8bit" and learned["recipe"]["optimiser"] == "adamw8bit"
    assert any(p.numel() >= 4096 for p in whole.parameters)
    stopped_after(training(images, optimiser="adamw8bit", shape=LoraShape(rank=32)), 4, tmp_path, monkeypatch)
    assert resumed.run(tmp_path) == learned
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters, resumed.parameters, strict=True))
    assert dreambooth.Checkpoint(tmp_path / "dreambooth.safetensors", training(images)).load() == 0  # in 32 bits


def test_8_bits_without_bitsandbytes_say_what_to_install(monkeypatch):
    monkeypatch.setattr(dreambooth, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'augbench\[bitsandbytes\]', or set optimiser to adamw or auto"):
        dreambooth.make_optimiser("adamw8bit", [], 1e-3, "cpu")


def test_precision_hardly_changes_the_loss(images):
    plain, half = (training(images, **changes).step(0) for changes in ({}, {"precision": "bf16"}))
    assert half == pytest.approx(plain, rel=0.05)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])  # emulated on a CPU
def test_checkpointing_changes_no_bit_and_is_on_for_large_unets(images, precision, monkeypatch):
    plain = training(images, precision=precision)
    monkeypatch.setattr(dreambooth, "LARGE_UNET", 1)
    saving = training(images, precision=precision)
    assert saving.recipe.gradient_checkpointing and not plain.recipe.gradient_checkpointing
    assert saving.pipeline.unet.is_gradient_checkpointing and not plain.pipeline.unet.is_gradient_checkpointing
    assert plain.run()["loss"] == saving.run()["loss"]
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters, saving.parameters, strict=True))


def test_without_class_pictures_there_is_no_prior():
    blank, recipe = torch.zeros(2, 4, 2, 2), Recipe(epochs=1, repeats=3, batch=2, shape=SMALL)
    made = Training(load(BUNDLE), recipe, PROMPTS, Examples(blank, blank), None, 0)
    assert made.steps == 3
    assert all(set(made.rows(step)[0]) == {0} for step in range(3))
