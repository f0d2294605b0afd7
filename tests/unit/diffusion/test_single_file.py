"""Single-file checkpoints: kind detection, loading and refusals.

The pipelines are tiny and untrained, in the structure of Stable Diffusion 1.5 and of SDXL inpainting.
"""

import itertools
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import original
import pytest
import torch
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from rich.console import Console
from safetensors.torch import load_file, save_file

from augbench.cli.models_view import show_model
from augbench.core import registry, weights
from augbench.core.errors import UserError
from augbench.core.weights import digest
from augbench.diffusion.pipelines import BUNDLES, find, load, of_content
from augbench.diffusion.sampling import sample

pytestmark = pytest.mark.usefixtures("one_thread")

MAKERS = {"sd": original.tiny_sd, "sdxl-inpaint": original.tiny_sdxl}
FIRST, NORM = "model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.0.bias"
VAE, ENCODER = "first_stage_model.", "cond_stage_model.transformer.text_model."


@pytest.fixture(scope="module")
def pipelines():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {kind: make() for kind, make in MAKERS.items()}


@pytest.fixture(scope="module")
def written(pipelines, tmp_path_factory):
    """Kind -> its checkpoint, with the folder of configurations next to it."""
    folder = tmp_path_factory.mktemp("written")
    for kind, pipeline in pipelines.items():
        original.write(pipeline, folder / f"{kind}.safetensors")
    return {kind: folder / f"{kind}.safetensors" for kind in pipelines}


@pytest.fixture
def file(written, tmp_path):
    """A copy of the small Stable Diffusion and its folder, to be damaged."""
    shutil.copytree(written["sd"].with_suffix(""), tmp_path / "mine.v1")
    return Path(shutil.copy(written["sd"], tmp_path / "mine.v1.safetensors"))


def changed(path, change):
    """Rewrite a checkpoint with other tensors."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    return path


def refusal(call):
    """Return the one line of a refusal."""
    with pytest.raises(UserError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    return line


def sampled(pipeline, bundle):
    inputs = {}
    if bundle.kind == "sdxl-inpaint":
        inputs = {"image": np.full((64, 64, 3), 90, np.uint8), "mask": np.eye(64, dtype=bool)}
    options = {"seeds": [1, 2], "steps": 2, "guidance": 3.0, **inputs}
    return sample(pipeline, bundle, ["scratch on metal", "wood"], **options)


# -- loading


def test_diffusers_detects_the_same_kind(pipelines):
    assert infer_diffusers_model_type(original.original(pipelines["sd"])) == "v1"


@pytest.mark.parametrize("kind", MAKERS)
def test_a_checkpoint_equals_its_pipeline(pipelines, written, tmp_path, kind):
    bundle, pipeline = find(written[kind]), pipelines[kind]
    assert (bundle.name, bundle.kind, bundle.size) == (kind, kind, 64)
    loaded = load(bundle)
    assert type(loaded) is type(pipeline)
    for part in original.parts_of(pipeline):
        found, wanted = (getattr(each, part).state_dict() for each in (loaded, pipeline))
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    schedules = [each.scheduler for each in (loaded, pipeline)]
    assert schedules[0].to_json_string() == schedules[1].to_json_string()
    assert loaded.tokenizer("scratch on metal").input_ids == pipeline.tokenizer("scratch on metal").input_ids
    pipeline.save_pretrained(tmp_path)
    images, others = (sampled(load(each), each) for each in (bundle, find(tmp_path)))
    assert np.array_equal(images, others) and not np.array_equal(*images)


def test_loading_is_silent_and_offline(written, silent_and_offline):
    with silent_and_offline():
        half = load(find(written["sd"]), dtype=torch.bfloat16)
    tensors = itertools.chain(*(part.parameters() for part in (half.unet, half.vae, half.text_encoder)))
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert half.safety_checker is None and half.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_leftovers_of_training_are_ignored(file):
    def add(tensors):
        tensors.update({f"model_ema.x{index}": torch.ones(1) for index in range(150)})
        tensors.update({"betas": torch.ones(3), "cond_stage_model.logit_scale": torch.ones(())})
        tensors.update({name: tensor.half() for name, tensor in tensors.items() if tensor.is_floating_point()})
        tensors.pop(f"{ENCODER}embeddings.position_ids")

    before = load(find(file)).unet.conv_in.weight.detach().clone()
    pipeline = load(find(changed(file, add)))
    assert pipeline.unet.dtype == torch.float32 and torch.equal(pipeline.unet.conv_in.weight, before.half().float())


def test_a_link_in_the_working_folder(file, monkeypatch, tmp_path):
    """As in the cache of the hub, where names are links to files without a suffix."""
    (tmp_path / "blobs").mkdir()
    file.symlink_to(file.rename(tmp_path / "blobs" / "0a1b"))
    monkeypatch.chdir(tmp_path)
    bundle = find("mine.v1.safetensors")
    assert (bundle.name, bundle.checkpoint, bundle.location) == ("mine.v1", str(file), str(tmp_path / "mine.v1"))
    assert bundle == find("./mine.v1.safetensors") and load(bundle)


@pytest.mark.parametrize(("kind", "name"), [("sd", "sd15"), ("sdxl-inpaint", "sdxl-inpaint")])
def test_without_a_folder_the_pinned_configurations_are_used(written, hub, tmp_path, kind, name):
    asked = hub(written[kind].with_suffix(""))
    alone = shutil.copy(written[kind], tmp_path / "alone.safetensors")
    bundle = find(alone)
    assert (bundle.size, bundle.revision) == (BUNDLES[name].size, BUNDLES[name].revision) and not asked
    load(bundle)
    ((repository, options),) = asked
    assert repository == BUNDLES[name].location and options["revision"] == BUNDLES[name].revision
    assert options["local_files_only"] and "unet/config.json" in options["allow_patterns"]
    assert {Path(pattern).suffix for pattern in options["allow_patterns"]} == {".json", ".txt"}


def test_unavailable_configurations(file, hub):
    cached = file.with_suffix("").rename(file.parent / "cached")
    (cached / "unet" / "config.json").unlink()  # a cache that was not filled
    asked = hub(cached)
    line = refusal(lambda: load(find(file)))
    assert f"'{file}'" in line and BUNDLES["sd15"].location in line
    assert "go online once" in line and f"into '{file.with_suffix('')}'" in line
    assert [options["local_files_only"] for _, options in asked] == [True, False]


# -- keys


def test_keys_hold_content(file, written, tmp_path, monkeypatch):
    def key(path):
        return of_content({"bundle": str(path), "steps": 3}, "bundle")

    first = key(file)
    assert first == key(written["sd"]) and first["steps"] == 3 and "mine" not in str(first)
    folder = file.with_suffix("")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"is not read")
    assert key(file) == first
    schedule = folder / "scheduler" / "scheduler_config.json"
    schedule.write_text(schedule.read_text().replace("v_prediction", "epsilon"))
    other = key(file)
    assert other["bundle"]["checkpoint"] == first["bundle"]["checkpoint"] and other != first
    shutil.rmtree(folder)
    assert key(file)["bundle"]["configuration"] == BUNDLES["sd15"].revision
    changed(file, lambda tensors: tensors[NORM].add_(1))
    assert key(file)["bundle"]["checkpoint"] != first["bundle"]["checkpoint"]
    missing = tmp_path / "none.safetensors"
    assert key(missing)["bundle"] == str(missing)
    save_file({"lora_unet_x": torch.ones(1)}, missing)  # planning goes on
    assert set(key(missing)["bundle"]) == {"checkpoint"}


def test_an_unchanged_file_is_read_once(tmp_path, monkeypatch):
    path, read = tmp_path / "weights.safetensors", []
    honest = weights.hashlib.file_digest
    monkeypatch.setattr(weights.hashlib, "file_digest", lambda *args: read.append(args) or honest(*args))
    path.write_bytes(b"one")
    assert digest(path) == digest(path) and len(read) == 1
    path.write_bytes(b"another")
    digest(path)
    assert len(read) == 2
    assert "missing" in refusal(lambda: digest(tmp_path / "none"))


def test_ddpm_accepts_one(file, written):
    made = [registry.make("augmenters", "ddpm", {"bundle": str(path)}) for path in (file, *written.values())]
    made[0].ready()
    assert made[0].key_settings() == made[1].key_settings() and not made[0].embedded()
    assert "sdxl-inpaint" in refusal(made[2].ready)


# -- the command


@pytest.mark.parametrize("alone", [False, True])
def test_show(file, capsys, alone):
    if alone:
        shutil.rmtree(file.with_suffix(""))
    show_model(str(file), Console())
    out = capsys.readouterr().out
    number = sum(tensor.numel() for name, tensor in load_file(file).items() if not name.endswith("position_ids"))
    for word in (str(file), "text to image", "512 x 512" if alone else "64 x 64", f"{number / 1e6:.2f} M"):
        assert word in out
    assert (BUNDLES["sd15"].revision in out) == alone


# -- refusals


def header(path, *names, channels=None):
    """Write a file that has these tensors, each with one number."""
    tensors = {name: torch.ones(1) for name in names}
    if channels:
        tensors[FIRST] = torch.ones(1, channels, 1, 1)
    save_file(tensors, path)
    return path


TEXT, OPEN = "cond_stage_model.transformer.text_model.x", "conditioner.embedders.1.model.x"


@pytest.mark.parametrize(
    ("names", "channels", "seems"),
    [
        (["lora_unet_mid_block_attentions_0.lora_down.weight"], None, "a LoRA"),
        (["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"], None, "a LoRA"),
        ([TEXT], 9, "Stable Diffusion 1.x with 9 input channels (inpainting)"),
        ([TEXT], None, "Stable Diffusion 1.x without its U-Net"),
        (["cond_stage_model.model.x"], 4, "Stable Diffusion 2"),
        (["cond_stage_model.model.x"], 9, "Stable Diffusion 2"),
        ([OPEN, "conditioner.embedders.0.transformer.x"], 4, "Stable Diffusion XL with 4 input channels"),
        (["conditioner.embedders.0.model.x"], 4, "the SDXL refiner"),
        (["model.diffusion_model.double_blocks.0.x"], None, "Flux"),
        (["model.diffusion_model.joint_blocks.0.x"], None, "Stable Diffusion 3"),
        (["control_model.input_blocks.0.0.weight"], None, "a ControlNet"),
        (["first_stage_model.x"], 4, "a Stable Diffusion without its text encoder"),
        (["down_blocks.0.resnets.0.conv1.weight"], None, "one part of a diffusers folder"),
        (["text_model.encoder.x"], None, "a text encoder alone"),
        (["encoder.down.0.block.0.x"], None, "a VAE alone"),
        (["x"], None, "no known model"),
        ([], None, "no known model"),
    ],
)
def test_other_models_are_detected_by_their_header(tmp_path, names, channels, seems):
    path = header(tmp_path / "other.safetensors", *names, channels=channels)
    line = refusal(lambda: find(path))
    assert line.startswith(f"'{path}' seems to be {seems}") and "SDXL inpainting" in line


def test_a_part_that_is_not_in_the_file(tmp_path):
    path = header(tmp_path / "no_vae.safetensors", TEXT, channels=4)
    assert "lacks its vae ('first_stage_model.*')" in refusal(lambda: find(path))


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".CKPT"])
def test_pickles_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    for _ in range(2):  # whether it is there or not
        line = refusal(lambda: find(path))
        assert f"'{path}' may be a pickle" in line and "convert it to .safetensors" in line
        path.touch()


def test_files_of_other_names(tmp_path, file):
    for name in ("model.gguf", "model", "model.SAFETENSORS"):
        path = shutil.copy(file, tmp_path / name)
        assert f"'{path}' does not end in .safetensors" in refusal(lambda path=path: find(path))


def replaced(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def part(folder, name):
    return folder / name / "config.json"


DAMAGES = {
    "missing": (lambda f, d: f.unlink(), ["missing"]),
    "cut off": (lambda f, d: f.write_bytes(f.read_bytes()[:500_000]), ["500,000 bytes", "restore"]),
    "junk": (lambda f, d: f.write_bytes(b"junk"), ["damaged"]),
    "one fewer in the U-Net": (lambda f, d: changed(f, lambda t: t.pop(NORM)), ["lacks weights"]),
    "one fewer in the VAE": (lambda f, d: changed(f, lambda t: t.pop(f"{VAE}quant_conv.weight")), ["lacks weights"]),
    "one fewer in the texts": (lambda f, d: changed(f, lambda t: t.pop(f"{ENCODER}final_layer_norm.bias")), ["fit"]),
    "one more": (lambda f, d: changed(f, lambda t: t.update({NORM + "es": torch.ones(1)})), ["do not fit", "unet"]),
    "another name": (lambda f, d: changed(f, lambda t: t.update({NORM + "es": t.pop(NORM)})), ["lacks weights"]),
    "other widths": (lambda f, d: replaced(part(d, "unet"), 'attention_dim": 32', 'attention_dim": 48'), ["48", "32"]),
    "other depth": (lambda f, d: replaced(part(d, "unet"), '"layers_per_block": 2', '"layers_per_block": 1'), ["down"]),
    "other text width": (lambda f, d: replaced(part(d, "text_encoder"), '_size": 32', '_size": 64'), ["64", "32"]),
    "gone": (lambda f, d: part(d, "vae").unlink(), ["vae", "missing"]),
    "bad": (lambda f, d: part(d, "unet").write_text("{"), ["unet", "not JSON"]),
    "no index": (lambda f, d: (d / "model_index.json").unlink(), ["has no model_index.json", "rename"]),
    "foreign code": (lambda f, d: replaced(d / "model_index.json", '"transformers"', '"os"'), ["'text_encoder'"]),
    "no tokens": (lambda f, d: [path.unlink() for path in (d / "tokenizer").glob("*o*.json")], ["token", "missing"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_mismatches_are_named_in_one_line(file, damage):
    harm, words = DAMAGES[damage]
    harm(file, file.with_suffix(""))
    line = refusal(lambda: load(find(file)))
    for word in [*words, str(file.with_suffix(""))]:
        assert word in line


def test_configurations_of_another_kind(file, written):
    shutil.rmtree(file.with_suffix(""))
    shutil.copytree(written["sdxl-inpaint"].with_suffix(""), file.with_suffix(""))
    line = refusal(lambda: find(file))
    assert str(file) in line and "of kind 'sd'" in line and "'sdxl-inpaint'" in line


def test_weights_of_the_folder_never_fill_gaps(file, pipelines):
    """diffusers would load the text encoder from there."""
    pipelines["sd"].save_pretrained(file.with_suffix(""))
    changed(file, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith(ENCODER)])
    assert "without its text encoder" in refusal(lambda: load(find(file)))


def test_the_schedule_is_that_of_the_folder(file):
    path = file.with_suffix("") / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "epsilon", "beta_end": 0.015}))
    scheduler = load(find(file)).scheduler
    assert (scheduler.config.prediction_type, scheduler.config.beta_end) == ("epsilon", 0.015)
