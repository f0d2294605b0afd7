"""The augmenter `stablesdg` on the small pipeline: separate classes, start of generation, search, errors."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from helpers import library_of, same_image, tiny_plan
from layouts import draw_neu
from PIL import Image
from safetensors.torch import load_file, save_file

from augbench import Request, UserError
from augbench.augmenters import stablesdg
from augbench.augmenters.stablesdg import StableSDG
from augbench.core import registry
from augbench.core.contracts import AdaptContext, TrainView
from augbench.diffusion import dreambooth, textual_inversion
from augbench.diffusion.img2img import img2img
from augbench.diffusion.pipelines import find, load
from augbench.diffusion.sampling import fit_image, sample
from augbench.planning.grid import load_grid
from augbench.planning.plan import make_plan
from augbench.runner.worker import WorkerSetup
from augbench.stages.search import decide, run_arm
from augbench.testing import adapt_context, requests

TINY = {"bundle": "micro-sd", "token_steps": 2, "lora_steps": 2, "batch": 2, "rank": 2, "steps": 2}
STRONG = TINY | {"token_lr": 0.5, "lora_lr": 0.1}  # so that classes are far from one another
BUNDLE = find("micro-sd")
CLASSES = ("crazing", "scratches")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def steel(tmp_path_factory):
    return library_of("neu", draw_neu(tmp_path_factory.mktemp("neu"))).dataset("neu")


def made(settings=TINY, **changes):
    return registry.make("augmenters", "stablesdg", settings | changes)


def shots_of(dataset, count=2, classes=None):
    table = dataset.samples()
    rows = table[table["label"].isin(classes)] if classes else table[table["label"] != "good"]
    chosen = rows.groupby("label").head(count) if classes else rows.head(count)
    return TrainView(dataset, table.head(0), chosen, frozenset({"shots"}), count)


def adapted(view, place, **changes):
    augmenter, out = made(**changes), place / "adapter"
    out.mkdir(parents=True)
    learned = augmenter.adapt(view, out, 0, adapt_context(place))
    augmenter.load(out, "cpu")
    return augmenter, out, learned


@pytest.fixture(scope="module")
def two_classes(steel, tmp_path_factory):
    view = shots_of(steel, 2, CLASSES)
    augmenter, out, learned = adapted(view, tmp_path_factory.mktemp("two"), settings=STRONG)
    return augmenter, view, out, learned


def asked(*labels):
    return [Request(index, 100 + index, label) for index, label in enumerate(labels)]


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Settings


def test_the_prompt_is_the_papers_and_the_token_is_frozen_in_stage_two():
    config = StableSDG().config
    assert (config.prompt, config.bundle) == ("A photo of <unknown>", "sd15")
    assert (config.stages, config.start, config.train_token_in_stage_two) == ("both", "real", False)
    assert StableSDG().key_settings() == {} and not StableSDG().embedded() and made().embedded()
    files = made().key_settings()["bundle"]
    assert "files" in files and "micro-sd" not in str(files)  # by content
    assert StableSDG.tasks == {"detection", "recognition"}


def test_zero_shot_is_refused():
    assert not made().refuses(5) and not made().refuses("all")
    plan = tiny_plan(augmenters=["none", "memseg", {"name": "stablesdg", "settings": TINY}])
    assert any("stablesdg at zero-shot: it learns and starts from real" in reason for reason in plan.dropped)
    assert {cell.shots for cell in plan.cells if cell.augmenter.name == "stablesdg"} == {5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "A photo of a defect"}, "does not contain the learned token '<unknown>'"),
        ({"stages": "token", "token": "<other>"}, "does not contain the learned token '<other>'"),
        ({"token": "unknown"}, "'token'"),
        ({"strength": -0.1}, "'strength'"),
        ({"stagse": "both"}, "did you mean 'stages'"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        made(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle": "micro-sdxl-inpaint"}, "set bundle to sd15 or micro-sd"),
        ({"bundle": "micro-sdd"}, "does not exist"),
        ({"prompt": "A photo of <unknown> " + "word " * 90}, "tokens long"),
        ({"init_word": " "}, "give a word"),
    ],
)
def test_errors_are_one_line(surfaces, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        adapted(shots_of(surfaces), tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_nothing_to_learn_from(surfaces, tmp_path):
    with pytest.raises(UserError, match="no image to learn from"):
        adapted(shots_of(surfaces, 0), tmp_path)


def test_too_little_memory_names_what_saves_some(surfaces, tmp_path, out_of_memory):
    out_of_memory(stablesdg, "run_stages")
    with pytest.raises(UserError, match=r"1.0 of 8.0 GiB free.*'batch' and 'gradient_checkpointing'"):
        adapted(shots_of(surfaces), tmp_path)


# Detection


def test_in_detection_all_shots_are_one_class(surfaces, tmp_path):
    view = shots_of(surfaces, 3)
    augmenter, out, learned = adapted(view, tmp_path)
    assert learned["classes"].keys() == {"defect"} and learned["classes"]["defect"]["instances"] == 3
    assert [len(stage["loss"]) for stage in learned["classes"]["defect"]["stages"]] == [2, 2]
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    generation = json.loads((out / stablesdg.GENERATION).read_text())
    assert generation["classes"] == {"defect": {"folder": "00-defect", "shape": [64, 64]}}
    asked_for = [generation[name] for name in ("prompt", "token", "init_word")]
    assert asked_for == ["A photo of <unknown>", "<unknown>", "defect"]
    images = augmenter.generate(requests(6), view)
    assert Counter(image.meta["source"] for image in images) == dict.fromkeys(view.shots["id"], 2)
    assert all(p.meta == {"prompt": generation["prompt"], "strength": 0.5, "source": p.meta["source"]} for p in images)
    assert all(p.image.shape == (176, 64, 3) and p.image.dtype == np.uint8 and p.mask is None for p in images)


def test_aspect_can_be_kept(surfaces, tmp_path):
    view = shots_of(surfaces, 1)
    augmenter, out, _ = adapted(view, tmp_path, aspect="keep", stages="token", token_steps=1)
    assert json.loads((out / stablesdg.GENERATION).read_text())["classes"]["defect"]["shape"] == [104, 40]
    assert augmenter.generate(requests(1), view)[0].image.shape == (176, 64, 3)


# Recognition


def test_each_class_has_its_own_token_and_lora(two_classes):
    augmenter, view, out, learned = two_classes
    assert tuple(learned["classes"]) == CLASSES
    files = files_of(out)
    for own in ("learned_embeds.safetensors", "unet/adapter_model.safetensors", "text_encoder/adapter_config.json"):
        assert {f"00-crazing/{own}", f"01-scratches/{own}"} <= files.keys()
    assert files["00-crazing/learned_embeds.safetensors"] != files["01-scratches/learned_embeds.safetensors"]
    images = augmenter.generate(asked(*CLASSES * 4), view)
    assert [image.label for image in images] == [*CLASSES * 4]
    labels = dict(zip(view.shots["id"], view.shots["label"], strict=True))
    assert all(labels[image.meta["source"]] == image.label for image in images)
    assert set(Counter(image.meta["source"] for image in images).values()) == {2}  # two shots each, in turn


def test_changing_classes_leaves_no_trace(two_classes):
    augmenter, view, out, _ = two_classes
    alone = made(STRONG)
    alone.load(out, "cpu")
    first, second = asked("crazing", "crazing"), asked("scratches", "scratches")
    wanted = alone.generate(first, view)
    for request in (first, second, first):
        found = augmenter.generate(request, view)
    assert all(same_image(a.image, b.image) for a, b in zip(found, wanted, strict=True))
    as_other = alone.generate([Request(r.index, r.seed, "scratches") for r in first], view)
    assert not any(same_image(a.image, b.image) for a, b in zip(as_other, wanted, strict=True))


def test_an_image_among_others_is_equal_up_to_rounding(two_classes):
    augmenter, view, *_ = two_classes
    mixed = asked(*CLASSES * 3)
    together, again = augmenter.generate(mixed, view), augmenter.generate(mixed, view)
    assert all(same_image(a.image, b.image) for a, b in zip(together, again, strict=True))
    for request, image in zip(mixed[:3], together, strict=False):
        (alone,) = augmenter.generate([request], view)
        assert alone.meta == image.meta
        assert abs(alone.image.astype(int) - image.image.astype(int)).max() <= 3


def test_a_class_without_shots_is_refused(two_classes):
    augmenter, view, *_ = two_classes
    with pytest.raises(UserError, match=r"learned nothing of class 'patches'.*'crazing' and 'scratches'") as caught:
        augmenter.generate(asked("patches"), view)
    assert "\n" not in str(caught.value)


def test_an_adaptation_cut_off_in_any_class_ends_the_same(two_classes, tmp_path, monkeypatch):
    def cut(step, total, loss):
        if step == 7 and total == 8:  # second class, second stage
            raise RuntimeError("cut")

    _, view, whole, learned = two_classes
    place, augmenter, reported = adapt_context(tmp_path), made(STRONG), []
    monkeypatch.setattr(dreambooth, "FLUSH", -1.0)
    for number, say in enumerate((cut, lambda *progress: reported.append(progress[0]))):
        out = tmp_path / str(number)
        out.mkdir()
        try:
            found = augmenter.adapt(view, out, 0, AdaptContext(place.scratch, place.shared, "cpu", say))
        except RuntimeError:
            assert number == 0
    assert reported == [7, 8]
    assert found == learned and files_of(out) == files_of(whole)


# Start of generation


@pytest.fixture(scope="module")
def untouched():
    return load(BUNDLE)


@pytest.fixture(scope="module")
def shot(two_classes):
    _, view, *_ = two_classes
    return view.image(view.shots["id"].iloc[0])


def varied(pipeline, image, prompt="defect", seed=0, guidance=1.0, strength=0.5):
    options = {"seeds": [seed], "steps": 4, "guidance": guidance, "strength": strength, "shape": (64, 64)}
    return img2img(pipeline, BUNDLE, [prompt], [image], **options)[0]


def varied_by_diffusers(pipeline, image, prompt, seed, guidance, strength):
    """As `varied`, but in [0, 1]."""
    plain = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    begin = Image.fromarray(image).resize((64, 64), Image.Resampling.LANCZOS)
    options = {"strength": strength, "num_inference_steps": 4, "guidance_scale": guidance, "output_type": "np"}
    return plain(prompt, begin, generator=torch.Generator().manual_seed(seed), **options).images[0]


def test_the_less_strength_the_nearer_to_the_shot(untouched, shot):
    made = [varied(untouched, shot, strength=strength).astype(int) for strength in (0.25, 0.5, 1.0)]
    away = [abs(image - fit_image(shot, (64, 64))).mean() for image in made]
    assert away[0] < away[1] < away[2]


def test_img2img_equals_diffusers(surfaces, untouched):
    view = shots_of(surfaces, 2)
    images = [view.image(name) for name in view.shots["id"]]
    options = {"steps": 4, "guidance": 3.0, "strength": 0.5, "shape": (64, 64), "batch": 1}
    ours = img2img(untouched, BUNDLE, ["a crack"] * 2, images, seeds=[3, 4], **options)
    for seed, image, own in zip((3, 4), images, ours, strict=True):
        theirs = varied_by_diffusers(untouched, image, "a crack", seed, 3.0, 0.5)
        assert abs((theirs * 255).round() - own).max() <= 1


def test_no_strength_is_the_shot_through_the_vae(untouched, shot):
    """Independent of prompt, guidance and seed."""
    ways = ({}, {"prompt": "a crack", "seed": 5, "guidance": 7.5})
    made = [varied(untouched, shot, strength=0.0, **changes) for changes in ways]
    assert same_image(*made)
    fitted = fit_image(shot, (64, 64))
    pixels = torch.tensor(fitted).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        back = untouched.vae.decode(untouched.vae.encode(pixels).latent_dist.mode()).sample[0]
    wanted = ((back / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0).numpy()
    assert abs(made[0] - wanted).max() <= 1
    assert abs(made[0].astype(int) - fitted).mean() < 12


def test_full_strength_holds_nothing_of_the_shot(untouched):
    """Image-to-image alone would leave some of it: the same seed from two shots makes two images there."""
    images = [np.full((64, 64, 3), grey, np.uint8) for grey in (0, 255)]
    made = [varied(untouched, image, seed=3, strength=1.0) for image in images]
    assert same_image(*made)
    options = {"seeds": [3], "steps": 4, "guidance": 1.0, "shape": (64, 64)}
    assert same_image(made[0], sample(untouched, BUNDLE, ["defect"], **options)[0])
    left = [varied_by_diffusers(untouched, image, "defect", 3, 1.0, 1.0) for image in images]
    assert abs(left[0] - left[1]).mean() > 0.01


@pytest.mark.parametrize(("start", "prompt"), [("noise", "A photo of <unknown>"), ("real", "steel surface defect")])
def test_without_a_stage_it_is_the_untouched_pipeline(surfaces, tmp_path, start, prompt):
    """The token then has the embedding of init_word; the prompt need not contain it."""
    view = shots_of(surfaces, 1)
    augmenter, out, learned = adapted(view, tmp_path, stages="none", start=start, prompt=prompt)
    assert files_of(out).keys() == {stablesdg.GENERATION} and learned["classes"]["defect"]["stages"] == []
    (image,) = augmenter.generate(requests(1), view)
    plain = load(BUNDLE)
    plain.scheduler = augmenter._pipeline.scheduler
    real = view.image(view.shots["id"].iloc[0])
    options = {"seeds": [0], "steps": 2, "guidance": 7.5, "shape": (64, 64)}
    if start == "noise":
        wanted = sample(plain, BUNDLE, ["A photo of defect"], **options)[0]
        assert image.meta == {"prompt": prompt}
    else:
        wanted = img2img(plain, BUNDLE, [prompt], [real], strength=0.5, **options)[0]
    assert same_image(image.image, fit_image(wanted, real.shape[:2]))


@pytest.mark.parametrize(("stages", "holds"), [("token", {".safetensors"}), ("lora", {".safetensors", ".json"})])
def test_stages_can_be_left_out(surfaces, tmp_path, stages, holds):
    view = shots_of(surfaces, 1)
    augmenter, out, learned = adapted(view, tmp_path, stages=stages)
    assert len(learned["classes"]["defect"]["stages"]) == 1
    assert {path.suffix for path in (out / "00-defect").rglob("*") if path.is_file()} == holds
    assert augmenter.generate(requests(1), view)[0].meta["source"] == view.shots["id"].iloc[0]


def test_stage_two_starts_with_the_token_of_stage_one(surfaces, tmp_path, monkeypatch):
    """Stage two starts with the embedding of stage one and freezes it; generation uses it."""
    seen, begin = [], textual_inversion.Stage.__init__

    def spy(self, pipeline, word, recipe, *rest):
        begin(self, pipeline, word, recipe, *rest)
        ids = pipeline.tokenizer("A photo of <unknown>", return_tensors="pt").input_ids
        seen.append((word.vector.detach().clone(), pipeline.text_encoder(ids)[0].detach().clone()))

    monkeypatch.setattr(textual_inversion.Stage, "__init__", spy)
    view = shots_of(surfaces, 2)
    augmenter, out, _ = adapted(view, tmp_path, settings=STRONG)
    (before, encoded_before), (after, encoded_after) = seen
    assert not torch.equal(before, after) and not torch.allclose(encoded_before, encoded_after)
    kept = load_file(out / "00-defect" / textual_inversion.EMBEDDING)["<unknown>"]
    assert torch.equal(kept, after)  # frozen in stage two
    with_word = augmenter.generate(requests(1), view)[0].image
    save_file({"<unknown>": before}, out / "00-defect" / textual_inversion.EMBEDDING)
    augmenter.load(out, "cpu")
    assert not same_image(augmenter.generate(requests(1), view)[0].image, with_word)


# The search


def test_all_combinations_are_tried_and_those_that_share_an_adaptation_are_known():
    tried = made(quality_search={"strengths": [0.2, 0.4], "lora_steps": [1, 2], "guidances": [1, 3]}).candidates()
    assert len(tried) == 8 and len({json.dumps(one.adapting) for one in tried}) == 2
    assert tried[1].settings == {"lora_steps": 1, "strength": 0.2, "guidance": 3.0}
    assert made().candidates() == ()
    chosen = made(quality_search={"strengths": [0.2]}).chosen({"strength": 0.2})
    assert chosen.config.strength == 0.2 and chosen.candidates() == ()


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"strengths": []}, "strengths"),
        ({"strengths": [1.5]}, "strengths"),
        ({"lora_steps": [0]}, "lora_steps"),
        ({"folds": 3}, "folds"),
        ({"strength": [0.5]}, "strength"),
    ],
)
def test_a_search_that_makes_no_sense_is_named(search, message):
    with pytest.raises(UserError, match=message):
        made(quality_search=search)


def test_a_search_finds_that_copies_are_copies(store):
    """The real thing, at its smallest: one arm on one half, two strengths."""
    search = {"strengths": [0.0, 0.5], "pictures": 4, "folds": 1}
    entry = {"name": "stablesdg", "settings": TINY | {"guidance": 1.0, "quality_search": search}}
    plan = tiny_plan(augmenters=[entry], shots=[8], n_aug=[2])
    (pool,) = plan.pools.values()
    spec = plan.search(pool)
    store.write_json("grids", plan.grid.name, {})  # a run writes the grid there before workers start
    context = WorkerSetup.of(plan, store).context(gpu=0)
    rows = {row["settings"]["strength"]: row for row in run_arm(context, spec, 0)}
    assert rows.keys() == {0.0, 0.5} and all(np.isfinite(row["score"]) for row in rows.values())
    assert rows[0.0]["memorisation"] < rows[0.5]["memorisation"]
    assert set(decide(context, spec)["result"]["chosen"]) <= {"strength"}


# Grids


def test_the_grid_of_neu_can_be_planned_without_data():
    plan = make_plan(load_grid("tune_configs/stablesdg_neu.yaml"))
    assert plan.absent == ["neu"] and not plan.not_runnable
    assert {cell.augmenter.alias for cell in plan.cells} == {"none", "memseg", "stablesdg", "unadapted"}
    assert {cell.seed for cell in plan.cells} == {0, 1, 2, 3} and {cell.shots for cell in plan.cells} == {10, "all"}
