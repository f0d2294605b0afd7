"""Pipelines and `augbench models`: shipped files, loading and refusals, reproducible sampling.

The quality of the weights is not tested here.
"""

import filecmp
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLInpaintPipeline
from diffusers.utils import logging as diffusers_logging
from helpers import assert_one_line, cli
from huggingface_hub.utils import logging as hub_logging
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from augbench.cli.models_view import show_model
from augbench.core.errors import UserError
from augbench.core.weights import parameters, shapes
from augbench.diffusion.pipelines import BUNDLES, MODELS, at_hand, canvas, embedded, find, load
from augbench.diffusion.sampling import fit_mask, sample

SD, SDXL = "micro-sd", "micro-sdxl-inpaint"
SHIPPED = {name: bundle for name, bundle in BUNDLES.items() if embedded(name)}
LONG = "scratch on metal " * 60


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pipelines():
    return {name: load(find(name)) for name in SHIPPED}


@pytest.fixture
def folder(tmp_path):
    """A copy of the small pipeline, to be damaged."""
    return shutil.copytree(MODELS / SD, tmp_path / "mine")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def output(*arguments):
    """What `augbench models` prints."""
    ran = cli("models", *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(*arguments, words):
    assert_one_line(cli("models", *arguments), *words)


def sampled(pipelines, name=SD, prompts=("metal", "wood", "a crack"), **options):
    inputs = {}
    if name == SDXL:
        inputs["image"] = np.full((64, 64, 3), 90, np.uint8)
        inputs["mask"] = np.zeros((64, 64), bool)
        inputs["mask"][20:40, 10:50] = True
    options = {"seeds": range(len(prompts)), "steps": 2, "guidance": 3.0, **inputs, **options}
    return sample(pipelines[name], find(name), prompts, **options)


# -- what is shipped


def test_shipped_folders_hold_no_pickles_and_are_small():
    files = [path for path in MODELS.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md", ".png"}
    assert sum(path.stat().st_size for path in files) <= 16 * 10**6
    for path in files:
        if path.suffix == ".safetensors":
            assert parameters(path) == sum(tensor.numel() for tensor in load_file(path).values())


def test_the_registry_matches_the_folders():
    assert {path.parent.name for path in MODELS.glob("*/model_index.json")} == set(SHIPPED)
    for name, bundle in SHIPPED.items():
        assert find(name) is bundle and embedded(name)
        assert find(MODELS / name) == bundle
        assert (MODELS / name / "README.md").is_file()
    assert not embedded("mine") and not embedded(str(MODELS / SD))


@pytest.mark.parametrize("part", ["vae", "tokenizer", "text_encoder"])
def test_shared_parts_are_equal_files(part):
    names = sorted(path.name for path in (MODELS / SD / part).iterdir())
    assert names == sorted(path.name for path in (MODELS / SDXL / part).iterdir())
    assert filecmp.cmpfiles(MODELS / SD / part, MODELS / SDXL / part, names, shallow=False)[0] == names


@pytest.mark.parametrize(
    ("name", "family", "channels"), [(SD, StableDiffusionPipeline, 4), (SDXL, StableDiffusionXLInpaintPipeline, 9)]
)
def test_ordinary_diffusers_loads_them(name, family, channels):
    pipeline = family.from_pretrained(MODELS / name)
    assert pipeline.unet.config.in_channels == channels
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == find(name).size


# -- loading


def test_loading_is_silent_offline_and_leaves_the_libraries_as_they_were(silent_and_offline):
    libraries = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    with silent_and_offline():
        pipeline, half = load(find(SDXL)), load(find(SD), dtype=torch.bfloat16)
    assert before == [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    assert pipeline.unet.dtype == torch.float32 and half.unet.dtype == torch.bfloat16
    assert pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_weights_in_several_files_are_read(folder):
    unet = folder / "unet"
    tensors = load_file(unet / "diffusion_pytorch_model.safetensors")
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    files = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    weight_map = {name: files[index % 2] for index, name in enumerate(tensors)}
    for file in files:
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, unet / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    whole = load(find(SD)).unet.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load(find(folder)).unet.state_dict().items())


def drop_a_tensor(path):
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[3])
    save_file(tensors, path, {"format": "pt"})


def replaced(path, old, new):
    path.write_text(path.read_text().replace(old, new))


UNET, ENCODER = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
DAMAGES = {
    "no weights": (lambda f: (f / UNET).unlink(), [UNET, "missing"]),
    "a pickle": (lambda f: (f / UNET).rename(f / "unet/diffusion_pytorch_model.bin"), [UNET, "missing"]),
    "cut off": (lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:100_000]), [UNET, "100,000 bytes"]),
    "junk": (lambda f: (f / UNET).write_bytes(b"junk"), [UNET, "damaged"]),
    "no tensors": (lambda f: (f / UNET).write_bytes(b"\x02\0\0\0\0\0\0\0[]"), [UNET, "damaged"]),
    "another's": (lambda f: shutil.copy(MODELS / SDXL / UNET, f / UNET), ["mine", "conv_in", "restore"]),
    "a tensor is gone": (lambda f: drop_a_tensor(f / ENCODER), ["text_encoder", "do not fit"]),
    "no vae": (lambda f: shutil.rmtree(f / "vae"), ["vae", "missing"]),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), ["'scheduler'", "restore"]),
    "no tokens": (lambda f: [path.unlink() for path in (f / "tokenizer").glob("*o*.json")], ["token", "missing"]),
    "bad tokens": (lambda f: (f / "tokenizer/tokenizer.json").write_text("{"), ["tokenizer.json", "not JSON"]),
    "few tokens": (lambda f: replaced(f / "text_encoder/config.json", '"vocab_size": ', '"vocab_size": 9'), ["mine"]),
    "bad config": (lambda f: (f / "unet/config.json").write_text("[]"), ["unet/config.json", "damaged"]),
    "no size": (lambda f: replaced(f / "unet/config.json", '"sample_size"', '"size"'), ["sample_size"]),
    "no stages": (lambda f: (f / "vae/config.json").write_text("{}"), ["block_out_channels"]),
    "foreign code": (lambda f: replaced(f / "model_index.json", '"diffusers"', '"os"'), ["model_index.json", "'vae'"]),
    "another pipeline": (lambda f: replaced(f / "model_index.json", "DiffusionPip", "FluxPip"), ["not supported"]),
    "no index": (lambda f: (f / "model_index.json").unlink(), ["no model_index.json"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_named_in_one_line(folder, damage):
    harm, words = DAMAGES[damage]
    harm(folder)
    with pytest.raises(UserError) as error:
        load(find(folder))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    for word in [*words, str(folder)]:
        assert word in str(error.value)


def test_a_tokenizer_that_does_not_say_its_length(folder):
    config = folder / "tokenizer" / "tokenizer_config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "model_max_length"}))
    assert load(find(folder)).tokenizer.model_max_length == 77


def test_unknown_names():
    with pytest.raises(UserError, match="did you mean 'micro-sd'"):
        find("micro-ds")
    for name in ("nothing", "~nobody", "", "x" * 5000, "a\0b"):
        with pytest.raises(UserError, match=r"known: micro-sd, micro-sdxl-inpaint|cannot be looked for"):
            find(name)
    with pytest.raises(UserError, match="missing"):
        shapes(MODELS / "none.safetensors")


# -- sampling


@pytest.mark.parametrize("name", [SD, SDXL])
def test_images_depend_on_seeds_alone(pipelines, name):
    first = sampled(pipelines, name)
    assert first.shape == (3, 64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, sampled(pipelines, name))
    others = sampled(pipelines, name, seeds=[7, 8, 9])
    same_prompt = sampled(pipelines, name, prompts=["metal"] * 2)
    assert all(not np.array_equal(a, b) for a, b in [*zip(first, others, strict=True), same_prompt])


@pytest.mark.parametrize("name", [SD, SDXL])
def test_batch_sizes_are_equal_up_to_rounding(pipelines, name):
    together, alone = sampled(pipelines, name).astype(int), sampled(pipelines, name, batch=1).astype(int)
    assert np.abs(together - alone).mean() <= 2


def test_prompt_negative_image_mask_and_strength_are_read(pipelines):
    def one(name, prompt="metal", **options):
        return sampled(pipelines, name, [prompt], **options)[0]

    grey, other = one(SD), np.full((64, 64, 3), 200, np.uint8)
    for changed in (one(SD, "wood"), one(SD, ""), one(SD, negative="wood"), one(SD, guidance=1.0), one(SD, steps=3)):
        assert not np.array_equal(grey, changed)
    inside = one(SDXL)
    for changed in (one(SDXL, image=other), one(SDXL, mask=np.ones((64, 64), bool)), one(SDXL, steps=4, strength=0.5)):
        assert not np.array_equal(inside, changed)


@pytest.mark.parametrize("steps", [1, 3, 49])
def test_any_number_of_steps_with_any_strength_is_at_least_one_step(pipelines, monkeypatch, steps):
    done = []
    forward = pipelines[SDXL].unet.forward
    monkeypatch.setattr(pipelines[SDXL].unet, "forward", lambda *a, **k: done.append(1) or forward(*a, **k))
    sampled(pipelines, SDXL, ["a"], steps=steps, strength=0.001)
    assert len(done) == 1


def test_other_sizes_are_fitted_and_thin_masks_stay(pipelines):
    mask = np.zeros((300, 200), bool)
    mask[150, 20:180] = True
    assert fit_mask(mask, 64).any()
    image = np.zeros((300, 200, 3), np.uint8)
    assert sampled(pipelines, SDXL, ["a"], image=image, mask=mask).shape == (1, 64, 64, 3)
    each = sampled(pipelines, SDXL, ["a", "a"], image=np.stack([image, image + 90]), mask=np.stack([mask, mask]))
    assert not np.array_equal(*each)


def test_long_prompts_are_never_truncated(pipelines):
    fits = " ".join(["a"] * 75)
    assert len(sampled(pipelines, SD, [fits], negative=fits)) == 1
    for prompts, negative in (([f"{fits} a"], None), (["a"], LONG)):
        with pytest.raises(UserError, match=r"prompt '.*\.\.\.' is \d+ tokens long and 'micro-sd' supports 77"):
            sampled(pipelines, SD, prompts, negative=negative)


def test_misuse_is_a_value_error(pipelines):
    mask = np.ones((64, 64), bool)
    for name, options in (
        (SD, {"seeds": [0]}),
        (SD, {"mask": mask}),
        (SDXL, {"mask": None}),
        (SDXL, {"mask": ~mask}),
        (SDXL, {"mask": mask[:9]}),
        (SDXL, {"mask": np.stack([mask, mask])}),
    ):
        with pytest.raises(ValueError, match=r"prompts|text alone|needs an image|mask"):
            sampled(pipelines, name, **options)


def test_nan_is_refused(pipelines, monkeypatch):
    forward = pipelines[SD].vae.decode
    monkeypatch.setattr(pipelines[SD].vae, "decode", lambda z, **k: forward(z * float("nan"), **k))
    with pytest.raises(UserError, match="NaN"):
        sampled(pipelines, SD, ["a"])


# -- the commands


def test_list_and_show_need_no_torch():
    listed = output("list")
    for word in (*BUNDLES, "micro_resnet", "backbone", "0.49 M", "apache-2.0"):
        assert word in listed
    assert listed.rstrip().endswith('labelled "smoke-test parts: not evidence".')
    code = (
        "from augbench.cli.models_view import models_sheet; models_sheet(); import sys; print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize("name", [*SHIPPED, "micro_resnet"])
def test_show_prints_the_card(name):
    out = output("show", name)
    assert name in out and "parameters" in out and "---\n" not in out


def test_a_card_that_is_missing_or_strange(folder):
    (folder / "README.md").write_text("---\n[ no: yaml\n---\nThe card.\n")
    assert "The card." in output("show", folder)
    (folder / "README.md").unlink()
    refused("show", folder, words=["README.md", "card"])
    refused("show", "micro_resnt", words=["did you mean 'micro_resnet'"])
    refused("show", "nothing", words=["nothing", "micro-sd"])


@pytest.mark.parametrize("name", [SD, SDXL])
def test_sample_writes_a_sheet(here, name):
    command = ("sample", name, "--count", 2, "--steps", 1)
    out = output(*command)
    assert "s each (smoke-test parts: not evidence)" in out and f"{name}.png" in out
    first = np.asarray(Image.open(f"{name}.png"))
    assert len(first) > 4 * 168  # a row for each prompt
    for changes, equal in (((), True), (("--seed", 9), False)):
        output(*command, *changes, "--out", "again.png")
        assert np.array_equal(first, np.asarray(Image.open("again.png"))) == equal
    chosen = ("--prompt", "", "--prompt", "wood", "--negative", "metal", "--guidance", 2, "--out", "new/sheet.png")
    output(*command, *chosen)
    assert sorted(p.name for p in here.rglob("*") if p.is_file()) == ["again.png", f"{name}.png", "sheet.png"]


def test_sample_of_a_folder_is_not_called_embedded(here, folder):
    for name in ("mine", SD):  # its own name, then that of a shipped pipeline
        folder = folder.rename(folder.with_name(name))
        out = output("sample", f"./{name}", "--count", 1, "--steps", 1, "--prompt", "a")
        assert "1 image, " in out and "evidence" not in out and f"{name}.png" in out


@pytest.fixture
def files(tmp_path):
    """Files by name: an image, a mask of it, and unusable ones."""
    draw = np.random.default_rng(0)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:50] = 255
    rgb = draw.integers(0, 256, (40, 60, 4), np.uint8)
    deep = draw.integers(0, 65535, (40, 60)).astype(np.uint16)
    arrays = {"image": rgb[..., :3], "alpha": rgb, "deep": deep, "mask": mask, "grey": mask // 3, "small": mask[:20]}
    for name, array in arrays.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "image.png").read_bytes()[:500])
    return {name: tmp_path / f"{name}.png" for name in (*arrays, "cut", "none")}


def test_sample_inpaints_a_given_image(here, files):
    given = ("--image", files["image"], "--mask", files["mask"], "--out", "given.png")
    assert "2 images" in output("sample", SDXL, "--prompt", "a", "--count", 2, "--steps", 2, *given)
    assert np.asarray(Image.open("given.png")).any()


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        ("image", None, ["image.png", "--mask FILE"]),
        (None, "mask", ["mask.png", "--image FILE"]),
        ("image", "grey", ["grey.png", "empty"]),
        ("image", "small", ["small.png", "60 x 20", "60 x 40"]),
        ("alpha", "mask", ["alpha.png", "transparent"]),
        ("deep", "mask", ["deep.png", "8 bits"]),
        ("cut", "mask", ["cut.png", "cannot be read"]),
        ("none", "mask", ["none.png", "missing"]),
        ("image", "deep", ["deep.png", "8 bits"]),
    ],
)
def test_images_that_do_not_fit(here, files, image, mask, words):
    given = [*(("--image", files[image]) if image else ()), *(("--mask", files[mask]) if mask else ())]
    refused("sample", SDXL, *given, words=words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["micro_resnet"], ["micro_resnet", "backbone", "models show"]),
        (["micro-ds"], ["did you mean 'micro-sd'"]),
        (["."], ["no model_index.json"]),
        ([SD, "--image", "x.png"], ["--image", SD]),
        ([SD, "--mask", "x.png"], ["--mask", SD]),
        ([SD, "--count", 0], ["--count"]),
        ([SD, "--steps", 0], ["--steps"]),
        ([SD, "--steps", 501], ["--steps"]),
        ([SD, "--guidance", "nan"], ["--guidance"]),
        ([SD, "--seed", -1], ["--seed"]),
        ([SD, "--prompt", LONG], ["prompt 'scratch on metal", "77"]),
        ([SD, "--prompt", "a", "--count", 1, "--steps", 1, "--out", "."], ["cannot write", "elsewhere"]),
    ],
)
def test_mistakes(here, arguments, words):
    refused("sample", *arguments, words=words)


# -- the hub


@pytest.fixture
def cached(folder):
    """What the hub's cache would hold of `sd15`, in the shape of the small pipeline."""
    for path in list(folder.rglob("*.safetensors")):
        path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))
    return folder


def test_a_pipeline_of_the_hub_is_loaded_at_its_revision_without_the_network(hub, cached):
    asked = hub(cached)
    assert at_hand("sd15") and at_hand("micro-sd") and len(asked) == 1
    asked.clear()
    assert sum(p.numel() for p in load(find("sd15")).unet.parameters()) > 1e6
    ((repository, options),) = asked
    assert repository == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert len(options["revision"]) == 40 and options["local_files_only"]
    wanted = options["allow_patterns"]
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in wanted and "text_encoder/model.fp16.safetensors" in wanted
    assert not [pattern for pattern in wanted if "safety" in pattern or pattern.endswith(".bin")]


def test_an_unavailable_pipeline_is_one_line_with_both_ways_out(monkeypatch, hub, cached, caplog):
    asked = hub(cached)
    (cached / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()  # a cache that was not filled
    assert not at_hand("sd15")
    asked.clear()
    with pytest.raises(UserError, match=r"Hugging Face cache, or set `bundle` .*to a local diffusers folder"):
        load(find("sd15"))
    assert [options["local_files_only"] for _, options in asked] == [True, False]

    def unreachable(*_, **__):
        hub_logging.get_logger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(UserError, match=r"sdxl-inpaint.*no route to host") as caught:
        load(find("sdxl-inpaint"))
    assert "\n" not in str(caught.value) and not caplog.messages
    with pytest.raises(OSError):
        unreachable()
    assert len(caplog.messages) == 1  # outside it the hub logs as before


def test_show_prints_the_hub_repository(capsys):
    from rich.console import Console

    show_model("sdxl-inpaint", Console())
    out = capsys.readouterr().out
    assert "1024 x 1024" in out and "huggingface.co/diffusers/" in out


# -- prompts


def test_prompts_are_encoded_as_diffusers_does(pipelines):
    """Without clip skip, the images are those of diffusers."""
    pipeline, prompts = pipelines[SD], ["copper metal scratches", "wood", "wood"]
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4, 5)]
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 64, "width": 64, "output_type": "np"}
    plain = pipeline(prompts, negative_prompt=["dark"] * 3, generator=generators, **options).images
    options = {"prompts": prompts, "seeds": [3, 4, 5], "negative": "dark"}
    ours, skipped = (sampled(pipelines, clip_skip=clip_skip, **options) for clip_skip in (1, 2))
    assert (abs(ours - plain * 255) <= 0.51).all() and (ours != skipped).any()


def test_images_of_another_shape(pipelines):
    shape = canvas(find(SD), aspect=64 / 176)
    assert shape == (104, 40)
    assert sampled(pipelines, prompts=["wood"], steps=1, shape=shape).shape == (1, *shape, 3)
