"""The augmenter `ddpm` on the small pipeline: fine-tuning and generation in each regime."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from helpers import TINY_DDPM, tiny_plan, view_of
from layouts import draw_ksdd2
from PIL import Image

from augbench import UserError
from augbench.augmenters import ddpm
from augbench.augmenters.ddpm import DDPM
from augbench.core import registry
from augbench.core.contracts import GOOD, TrainView
from augbench.diffusion.captioned import CaptionedTraining
from augbench.diffusion.pipelines import MODELS, find, load
from augbench.diffusion.sampling import sample
from augbench.stages.context import Context
from augbench.stages.train import _unmoved_adapters
from augbench.storage.store import ADAPTER_MARKER
from augbench.testing import adapt_context, requests

BUNDLE = find("micro-sd")

pytestmark = pytest.mark.usefixtures("one_thread")


def made(**changes):
    return registry.make("augmenters", "ddpm", TINY_DDPM | changes)


def seen(surfaces, augmenter, shots):
    """A view with two shots where there are any."""
    table = surfaces.samples()
    normal, defects = (table[(table["label"] == "good") == wanted] for wanted in (True, False))
    return TrainView(surfaces, normal.head(6), defects.head(2 if shots else 0), augmenter.reads(shots), shots)


def adapted(surfaces, tmp_path, shots, **changes):
    augmenter = made(**changes)
    view = seen(surfaces, augmenter, shots)
    out = tmp_path / "adapter"
    out.mkdir(parents=True)
    learned = augmenter.adapt(view, out, 0, adapt_context(tmp_path))
    augmenter.load(out, "cpu")
    return augmenter, view, out, learned


def plain(pipeline, count, clip_skip):
    """What the pipeline itself samples, at the size of the real images."""
    options = {"seeds": range(count), "steps": 2, "guidance": 7.5, "batch": 10, "clip_skip": clip_skip}
    made = sample(pipeline, BUNDLE, ["skt background"] * count, **options)
    return [np.asarray(Image.fromarray(one).resize((64, 176), Image.Resampling.LANCZOS)) for one in made]


def test_defaults_are_those_of_the_paper():
    config = DDPM().config
    assert (config.zero.epochs, config.few.epochs, config.full.epochs) == (5, 49, 25)
    assert (config.zero.alpha, config.few.alpha, config.full.alpha) == (0.6, 0.95, 0.8)
    assert config.zero.instances == 50 and config.few.instances is None and config.full.instances is None
    assert config.zero.prompts == ("skt background cracked", "skt background scratched")
    assert (config.batch, config.repeats, config.lr, config.min_snr, config.clip_skip) == (12, 10, 1e-5, 5.0, 2)
    assert (config.rank, config.rank_alpha, config.conv_rank, config.conv_alpha) == (32, 16.0, 4, 1.0)
    assert (config.steps, config.guidance, config.class_pictures) == (50, 7.5, 200)
    assert DDPM().key_settings() == {} and not DDPM().embedded() and made().embedded()


@pytest.mark.parametrize(("shots", "alpha", "instances"), [(0, 0.6, 2), (2, 0.95, 2), ("all", 1.0, 2)])
def test_each_regime_has_its_own_instances_and_prompts(surfaces, tmp_path, shots, alpha, instances):
    augmenter, view, out, learned = adapted(surfaces, tmp_path, shots)
    assert (learned["instances"], learned["class_pictures"]) == (instances, 3)
    generation = json.loads((out / ddpm.GENERATION).read_text())
    assert generation["alpha"] == alpha
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    images = augmenter.generate(requests(4), view)
    asked = [image.meta["prompt"] for image in images]
    assert asked == (["skt background"] * 4 if shots else TINY_DDPM["zero"]["prompts"] * 2)
    assert all(p.image.shape == (176, 64, 3) and p.image.dtype == np.uint8 and p.mask is None for p in images)


def test_a_partial_regime_keeps_its_other_defaults():
    few = made(few={"epochs": 3}).config.few
    assert (few.epochs, few.alpha, few.prompts) == (3, 0.95, ("skt background",))
    with pytest.raises(UserError, match=r"few\.epoch"):
        made(few={"epoch": 3})


def test_alpha_zero_is_the_untouched_pipeline_and_one_is_not(surfaces, tmp_path):
    wanted = plain(load(BUNDLE), 2, clip_skip=2)
    for alpha, equal in ((0.0, True), (1.0, False)):
        augmenter, view, *_ = adapted(surfaces, tmp_path / str(alpha), 2, few={"epochs": 2, "alpha": alpha}, lr=1e-2)
        images = augmenter.generate(requests(2), view)
        assert all((p.image == s).all() for p, s in zip(images, wanted, strict=True)) == equal


def test_class_images_are_made_once_for_all_adapters(surfaces, tmp_path, monkeypatch):
    made_so_far, honest, place = [], ddpm.sample, adapt_context(tmp_path)
    monkeypatch.setattr(ddpm, "sample", lambda *args, **kwargs: made_so_far.append(args[2]) or honest(*args, **kwargs))
    for number, changes in enumerate(({}, {"lr": 1e-2}, {"class_prompt": "wall"}, {"class_pictures": 0})):
        augmenter, out = made(**changes), tmp_path / str(number)
        out.mkdir()
        learned = augmenter.adapt(seen(surfaces, augmenter, 2), out, 0, place)
        assert learned["class_pictures"] == augmenter.config.class_pictures
    assert made_so_far == [["background"] * 3, ["wall"] * 3]
    assert sorted(path.name for path in (tmp_path / "shared").iterdir())[0].startswith("class-background-")


def test_bf16_on_a_cpu_is_bf16_and_has_its_own_class_images(surfaces, tmp_path):
    augmenter, view, _, learned = adapted(surfaces, tmp_path, 2, precision="bf16")
    assert augmenter._pipeline.unet.dtype == augmenter._pipeline.vae.dtype == torch.bfloat16
    assert learned["recipe"]["precision"] == "bf16" and np.isfinite(learned["loss"]).all()
    usual, *_ = adapted(surfaces, tmp_path / "usual", 2)
    assert usual._pipeline.unet.dtype == torch.float32
    pairs = zip(augmenter.generate(requests(2), view), usual.generate(requests(2), view), strict=True)
    apart = [np.abs(a.image.astype(int) - b.image).mean() for a, b in pairs]
    assert 0 < max(apart) < 10
    names = {path.name for place in (tmp_path, tmp_path / "usual") for path in (place / "shared").iterdir()}
    assert len(names) == 2


@pytest.fixture(scope="module")
def ksdd2(tmp_path_factory):
    """KSDD2 drawn at a tenth of its size; micro-sd has an eighth of the size of Stable Diffusion."""
    return registry.make("datasets", "ksdd2", draw_ksdd2(tmp_path_factory.mktemp("ksdd2")))


def test_files_are_the_published_captions_buckets_and_steps(ksdd2, tmp_path, monkeypatch):
    """5 shots of 23 x 63: 15 files, 30 a epoch, 10 batches of 3; 4 class images: 8, 3 batches; 2 epochs of 13."""
    trained = []
    monkeypatch.setattr(ddpm, "CaptionedTraining", lambda *args: trained.append(CaptionedTraining(*args)) or trained[0])
    changes = {"class_pictures": 4, "repeats": 2, "batch": 3, "few": {"epochs": 2, "alpha": 0.95}, "conv_rank": 4}
    augmenter = made(as_published="files", **changes)
    train = ksdd2.samples().query("split == 'train'")
    view = TrainView(ksdd2, train.head(0), train[train["label"] != GOOD].head(5), augmenter.reads(5), 5)
    learned = augmenter.adapt(view, tmp_path, 0, adapt_context(tmp_path))
    assert learned["buckets"] == {"40 x 96": {"skt background": 15}, "64 x 64": {"background": 4}}
    assert learned["steps"] == augmenter.training_steps(5, 5, 1) == 26
    (training,) = trained
    for step in range(26):
        kinds, which = training.rows(step)
        assert len(training.encoded(kinds, which)[0]) == len(which) <= 3  # of one bucket
    (mean, _), (other, _) = (training.encoded(np.array([kind]), np.array([0])) for kind in (0, 1))
    assert mean.shape[2:] == (48, 20) and other.shape[2:] == (32, 32)
    seen = Counter(pair for step in range(13) for pair in zip(*map(tuple, training.rows(step)), strict=True))
    assert len(seen) == 19 and set(seen.values()) == {2}
    losses = training.mean_of(torch.tensor([1.0, 3.0]), np.array([0, 1]))
    assert losses == 2  # no prior weight
    recipe = learned["recipe"]
    assert (recipe["schedule_epochs"], recipe["shape"]["conv_rank"]) == (50, None)
    assert json.loads((tmp_path / ddpm.GENERATION).read_text())["shape"] == [64, 64]


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, [420, 441, 10_250]),
        ({"epochs_from": "published"}, [1_045, 8_379, 9_300]),
        ({"as_published": "files"}, [1_460, 8_820, 19_550]),
    ],
)
def test_steps_of_the_regimes_on_ksdd2(changes, steps):
    """By hand: batches of 12 of 50 normal images, 5 shots and 246 shots, ten times each, and 200 class images."""
    augmenter = registry.make("augmenters", "ddpm", changes)
    assert [augmenter.training_steps(*regime, 1) for regime in ((0, 2085), (5, 5), ("all", 246))] == steps


def test_what_files_decide_cannot_be_set():
    with pytest.raises(UserError, match="'epochs_from' is not read with as_published: files: leave it out"):
        made(as_published="files", epochs_from="published", conv_rank=4)


def test_the_old_as_published_keeps_its_meaning_and_says_what_is_wrong(surfaces, tmp_path):
    augmenter, view, out, learned = adapted(surfaces, tmp_path, 2, as_published=True)
    assert "trains class images under the prompt of the instances" in augmenter.notes(2) and not made().notes(2)
    assert (learned["instances"], learned["class_pictures"]) == (2 * 2 + 3, 0)  # mirrored instances, joint training
    assert learned["recipe"]["shape"]["conv_rank"] is None
    assert learned["recipe"]["schedule_epochs"] == 50 and learned["recipe"]["epochs"] == 1
    config = json.loads((out / "unet" / "adapter_config.json").read_text())
    assert not [name for name in config["target_modules"] if "conv1" in name or "sampler" in name]
    assert (augmenter.generate(requests(1), view)[0].image == plain(augmenter._pipeline, 1, clip_skip=1)[0]).all()


@pytest.mark.parametrize(("moved", "said"), [(4.2e-4, "4.2e-04, below 9.8e-04"), (0.002, ""), (None, "")])
def test_an_adapter_that_hardly_moved_is_named_in_records(store, moved, said):
    """Reports print the notes of records; adapters of older versions have no norm."""
    plan = tiny_plan(augmenters=[{"name": "ddpm", "settings": TINY_DDPM}], shots=[2])
    (cell,) = plan.cells
    (pool,) = plan.pools.values()
    learned = {} if moved is None else {"update_norm": moved}
    store.write_json_at(f"{store.name('adapters', pool.adapter.key)}/{ADAPTER_MARKER}", {"learned": learned})
    notes = _unmoved_adapters(Context(store, plan.library), plan.needs[cell.key])
    assert len(notes) == bool(said)
    assert all(note.startswith(f"ddpm: its adapter hardly moved: the median |dW|/|W| is {said}, so") for note in notes)


def test_aspect_can_be_kept(surfaces, tmp_path):
    augmenter, view, out, _ = adapted(surfaces, tmp_path, 2, aspect="keep")
    assert json.loads((out / ddpm.GENERATION).read_text())["shape"] == [104, 40]
    assert augmenter.generate(requests(1), view)[0].image.shape == (176, 64, 3)


def test_a_pipeline_in_a_folder_enters_keys_by_its_content(tmp_path):
    for place in ("a", "b"):
        shutil.copytree(MODELS / "micro-sd", tmp_path / place)
    keys = [made(bundle=str(tmp_path / place)).key_settings() for place in ("a", "b")]
    assert keys[0] == keys[1] == made().key_settings()  # copies of the one in the package
    assert "micro-sd" not in str(keys[0])
    (tmp_path / "b" / "unet" / "config.json").write_text("{}")
    assert made(bundle=str(tmp_path / "b")).key_settings() != keys[0]


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path):
    augmenter = made(bundle=str(tmp_path))
    augmenter.key_settings()  # planning comes first
    with pytest.raises(UserError, match=r"model_index\.json"):
        augmenter.ready()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle": "micro-sdxl-inpaint"}, "set bundle to sd15 or micro-sd"),
        ({"bundle": "micro-sdd"}, "does not exist"),
        ({"precision": "fp16"}, "precision fp16 needs a GPU: set it to bf16 or fp32"),
        ({"instance_prompt": "word " * 90}, "tokens long"),
        ({"few": {"epochs": 1, "alpha": 1.0, "prompts": ["word " * 90]}}, "tokens long"),
    ],
)
def test_errors_are_one_line(surfaces, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        adapted(surfaces, tmp_path, 2, **changes)
    assert "\n" not in str(caught.value)


def test_nothing_to_learn_from(surfaces, tmp_path):
    augmenter = made()
    table = surfaces.samples().head(0)
    with pytest.raises(UserError, match="no image to learn from"):
        augmenter.adapt(TrainView(surfaces, table, table, augmenter.reads(2), 2), tmp_path, 0, adapt_context(tmp_path))


def test_too_little_memory_names_what_saves_some(surfaces, tmp_path, out_of_memory):
    out_of_memory(ddpm.Training, "run")
    with pytest.raises(UserError, match=r"1.0 of 8.0 GiB free.*'batch' and 'gradient_checkpointing'"):
        adapted(surfaces, tmp_path, 2)


def test_a_view_without_a_number_of_shots_is_full_shot(surfaces):
    view = view_of(surfaces, made().reads("all"))
    assert made()._regime(view) == made().config.full
