"""Find and load pretrained diffusion pipelines by name, local folder or single-file checkpoint.

    pipeline = load(find("micro-sd"))

Some named pipelines are shipped with the package, others come from the Hugging Face hub at a pinned revision. A local
folder in the format of diffusers' ``save_pretrained`` works too, if its pipeline class is one of `KINDS`; so does a
checkpoint, a single file with all weights (`augbench.diffusion.single_file`). Only safetensors files are read, and no
code from a folder is executed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augbench.core.errors import UserError, WeightsError, did_you_mean, listed
from augbench.core.temporary import log_levels
from augbench.core.weights import digest, parameters
from augbench.diffusion import single_file

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

MODELS = Path(str(resources.files("augbench"))) / "assets" / "models"
"""The pipelines and backbones shipped with the package, a folder each."""

KINDS = {"StableDiffusionPipeline": "sd", "StableDiffusionXLInpaintPipeline": "sdxl-inpaint"}
"""Pipeline class in a folder's ``model_index.json`` -> kind."""

TITLES = {"sd": "text to image", "sdxl-inpaint": "text to image inside a mask"}

WEIGHTS = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Component with weights -> stem of its file name in diffusers and transformers."""

LIBRARIES = ("diffusers", "transformers")  # allowed sources of the component classes of a folder

_PARTS = {
    "sd": ("vae", "text_encoder", "tokenizer", "unet", "scheduler"),
    "sdxl-inpaint": ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "scheduler"),
}
_NOT_LOADED: dict[str, dict[str, Any]] = {  # images of surfaces need no safety checker and no watermark
    "sd": {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None, "image_encoder": None},
    "sdxl-inpaint": {"add_watermarker": False, "feature_extractor": None, "image_encoder": None},
}


@dataclass(frozen=True)
class PipelineSource:
    """Where a pretrained diffusion pipeline is loaded from, and what it is."""

    name: str
    kind: str  # "sd": text to image; "sdxl-inpaint": inpainting
    size: int  # side length of its square images, in pixels
    location: str  # a folder, or a repository of the hub
    revision: str = ""  # of the repository
    variant: str = ""  # of its weights, e.g. fp16
    checkpoint: str = ""  # single file with all weights; ``location`` then gives configurations and tokenizers only

    @property
    def title(self) -> str:
        """What it does, in words."""
        return TITLES[self.kind]


BUNDLES: dict[str, PipelineSource] = {
    source.name: source
    for source in (
        PipelineSource("micro-sd", "sd", 64, str(MODELS / "micro-sd")),
        PipelineSource("micro-sdxl-inpaint", "sdxl-inpaint", 64, str(MODELS / "micro-sdxl-inpaint")),
        PipelineSource(
            "sd15",
            "sd",
            512,
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
            "fp16",
        ),
        PipelineSource(
            "sdxl-inpaint",
            "sdxl-inpaint",
            1024,
            "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
            "115134f363124c53c7d878647567d04daf26e41e",
            "fp16",
        ),
    )
}


def embedded(name: str) -> bool:
    """Return whether the pipeline of that name is shipped with the package: smoke-test weights, not evidence."""
    return name in BUNDLES and Path(BUNDLES[name].location).parent == MODELS


def find(name_or_path: str | Path, known: Iterable[str] = BUNDLES) -> PipelineSource:
    """Find a pipeline by name, folder or checkpoint file. Names take precedence: write ``./NAME`` for a folder.

    Args:
        name_or_path: a key of `BUNDLES`, a diffusers folder or a safetensors file.
        known: names that an error message may suggest.

    Raises:
        UserError: there is none, or its pipeline class is not one of `KINDS`.
    """
    name = str(name_or_path)
    if name in BUNDLES:
        return BUNDLES[name]
    path = Path(name)  # a leading ~ is left to the shell
    try:
        if name and path.is_dir():
            return _from_folder(path.resolve())
        if path.is_file() or single_file.is_checkpoint(path):
            return _from_checkpoint(path.absolute())
    except OSError as error:
        raise UserError(f"model '{name}' cannot be looked for ({error.strerror}): check its path") from None
    ways = "give such a name, a diffusers folder or a .safetensors checkpoint"
    raise UserError(f"model '{name}' does not exist{did_you_mean(name, known)}: {ways}")


def load(source: PipelineSource, device: str = "cpu", dtype: torch.dtype | None = None) -> DiffusionPipeline:
    """Load a diffusers pipeline, without progress bars and warnings.

    Args:
        source: from `find`.
        device: torch device of the pipeline, e.g. "cuda".
        dtype: of its weights; None: float32.

    Raises:
        UserError: a file is missing or damaged, or its weights do not match its configuration; or the pipeline is on
            the hub, and is neither cached nor downloadable.
    """
    import torch
    from diffusers import StableDiffusionPipeline, StableDiffusionXLInpaintPipeline

    family = {"sd": StableDiffusionPipeline, "sdxl-inpaint": StableDiffusionXLInpaintPipeline}[source.kind]
    folder = fetch(source)
    parameter_counts = _check_parts(source, folder)
    options = {"local_files_only": True, **_NOT_LOADED[source.kind]}
    dtype = dtype or torch.float32
    with _quiet():
        try:
            if source.checkpoint:
                options |= {"config": str(folder), "torch_dtype": dtype}
                pipeline = family.from_single_file(source.checkpoint, **options)
            else:
                options |= {"use_safetensors": True, "variant": source.variant or None, "dtype": dtype}
                pipeline = family.from_pretrained(folder, **options)
        except Exception as error:  # each library raises its own for missing or unfitting files
            reason = textwrap.shorten(str(error), 160, placeholder=" ...")
            if source.checkpoint and isinstance(error, NotImplementedError):  # raised by torch for meta tensors
                reason = "it lacks weights that they describe"
            raise _unusable(source, folder, reason) from error
        _check_complete(pipeline, source, folder, parameter_counts)
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(device)


def of_content(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """Return settings for keys, with the path of a pipeline replaced by a digest of its content.

    A folder may be moved, and a shipped pipeline may be retrained in a later version. A pipeline of the hub is pinned
    by its revision, so its name stays.
    """
    value = settings.get(name)
    if embedded(str(value)):
        value = BUNDLES[value].location
    elif value is None or value in BUNDLES:
        return settings
    path = Path(value)
    if path.is_dir():
        return settings | {name: {"files": _content(path, ".safetensors")}}
    if not (path.is_file() and path.suffix == single_file.SUFFIX):
        return settings
    content = {"checkpoint": digest(path)}
    try:
        source = _from_checkpoint(path.absolute())
    except UserError:  # planning goes on: `find` reports the error later
        return settings | {name: content}
    return settings | {name: content | {"configuration": source.revision or _content(Path(source.location))}}


def _content(folder: Path, *weights: str) -> str:
    """Return a digest of the loaded files: configurations, tokenizers, and files with the suffixes ``weights``."""
    total = hashlib.sha256()
    loaded = [path for path in folder.glob("*/*") if path.suffix in (".json", ".txt", *weights)]
    for path in sorted([*folder.glob("model_index.json"), *loaded]):  # `find` checks later whether it is a pipeline
        total.update(f"{path.relative_to(folder).as_posix()}\0{digest(path)}\n".encode())
    return total.hexdigest()


def canvas(source: PipelineSource, aspect: float) -> tuple[int, int]:
    """Return height and width, multiples of 8, of about the pipeline's area and an aspect (width / height)."""
    height = source.size / aspect**0.5
    return tuple(max(8, round(side / 8) * 8) for side in (height, height * aspect))


def _from_folder(folder: Path) -> PipelineSource:
    """Describe the pipeline of a diffusers folder by its configuration files."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(f"folder '{folder}' has no model_index.json: give one that diffusers' save_pretrained wrote")
    pipeline = _json(index).get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in KINDS:
        raise UserError(f"'{index}': pipeline '{pipeline}' is not supported: give a {' or a '.join(KINDS)}")
    return PipelineSource(folder.name, KINDS[pipeline], _size(folder), str(folder))


def _from_checkpoint(path: Path) -> PipelineSource:
    """Describe a checkpoint. Configurations and tokenizers come from the folder next to it, else from the hub."""
    kind, folder = single_file.kind_of(path), single_file.config_folder(path)
    if not folder.is_dir():
        source = next(source for source in BUNDLES.values() if source.revision and source.kind == kind)
    elif not (folder / "model_index.json").is_file():
        reason = f"its configurations are searched in '{folder}', which has no model_index.json"
        raise UserError(f"'{path}': {reason}: copy those of a diffusers folder there, or rename that folder")
    else:
        source = _from_folder(folder)
    if source.kind != kind:
        kinds = f"is of kind '{kind}' and the configurations in '{folder}' are of '{source.kind}'"
        raise UserError(f"'{path}' {kinds}: put matching ones there, or rename that folder")
    return replace(source, name=path.stem, checkpoint=str(path), variant="")


def _size(folder: Path) -> int:
    """Return the side length of images in pixels: the U-Net's latent size times the VAE's downsampling factor."""
    latent = _json(folder / "unet" / "config.json").get("sample_size")
    stages = _json(folder / "vae" / "config.json").get("block_out_channels")
    if not isinstance(latent, int) or latent < 1:
        raise UserError(f"'{folder / 'unet' / 'config.json'}': 'sample_size' is not a pixel count: restore the file")
    if not isinstance(stages, list) or not stages:
        raise UserError(f"'{folder / 'vae' / 'config.json'}': 'block_out_channels' is not a list: restore the file")
    return latent * 2 ** (len(stages) - 1)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"'{path}' is missing: restore it") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}): check its permissions") from None
    except ValueError:
        raise UserError(f"'{path}' is damaged (not JSON): restore it") from None
    if not isinstance(content, dict):
        raise UserError(f"'{path}' is damaged (not a JSON object): restore it")
    return content


def at_hand(name: str) -> bool:
    """Return whether the weights of a pipeline of `BUNDLES` are on this machine, so that nothing is downloaded."""
    source = BUNDLES[name]
    return not source.revision or _snapshot(source, offline=True)[0] is not None


def fetch(source: PipelineSource) -> Path:
    """Return the folder of a pipeline; one of the hub from the cache, else downloaded.

    For a checkpoint this is the folder with its configurations and tokenizers, without weights.

    Raises:
        WeightsError: it is not on this machine and cannot be downloaded.
    """
    if not source.revision:
        return Path(source.location)
    for offline in (True, False):
        folder, reason = _snapshot(source, offline)
        if folder:
            return folder
    what = f"pipeline '{source.name}' ({source.location}) is"
    way = "set `bundle` (of a protocol: `roundtrip`) to a local diffusers folder"
    if source.checkpoint:
        what = f"'{source.checkpoint}' has no configurations and no tokenizer, and those of {source.location} are"
        way = f"copy those of a diffusers folder into '{single_file.config_folder(Path(source.checkpoint))}'"
    raise WeightsError(
        f"{what} not on this machine and cannot be downloaded ({reason}): go online once, to fill the Hugging Face "
        f"cache, or {way}"
    )


def _snapshot(source: PipelineSource, offline: bool) -> tuple[Path | None, str]:
    """Return the folder of a pipeline of the hub, None where a file is missing, and why."""
    from huggingface_hub import snapshot_download

    wanted = ["model_index.json"]
    for part in _PARTS[source.kind]:
        wanted += [f"{part}/*.json", f"{part}/*.txt"]
        if part in WEIGHTS:
            wanted += [f"{part}/config.json"]
            wanted += [] if source.checkpoint else [f"{part}/{WEIGHTS[part]}.{source.variant}.safetensors"]
    options = {"revision": source.revision, "allow_patterns": wanted, "local_files_only": offline}
    try:
        with log_levels(logging.ERROR, "huggingface_hub"):  # it warns of each retry; the caller reports the outcome
            folder = Path(snapshot_download(source.location, **options))
    except Exception as error:  # the hub's errors, those of its network library, those of the disk
        return None, textwrap.shorten(str(error), 120, placeholder=" ...")
    missing = [name for name in wanted if "*" not in name and not (folder / name).exists()]
    return (None, f"{missing[0]} is missing") if missing else (folder, "")


def _check_parts(source: PipelineSource, folder: Path) -> dict[str, int]:
    """Check all files that will be loaded. Returns component with weights -> number of parameters in its files."""
    index = _json(folder / "model_index.json")
    counts = single_file.held(Path(source.checkpoint), source.kind) if source.checkpoint else {}
    for part in _PARTS[source.kind]:
        entry = index.get(part)
        if not (isinstance(entry, list) and entry and entry[0] in LIBRARIES):  # diffusers imports what is named there
            raise UserError(f"'{folder / 'model_index.json'}': '{part}' is not of {listed(LIBRARIES)}: restore it")
        if not (folder / part).is_dir():
            raise UserError(f"pipeline '{folder}' has no folder '{part}': restore it")
        if part.startswith("tokenizer"):  # without its files transformers builds one with an empty vocabulary
            _json(folder / part / "tokenizer_config.json")
            vocabularies = [folder / part / name for name in ("tokenizer.json", "vocab.json")]
            for path in [path for path in vocabularies if path.exists()] or vocabularies[:1]:
                _json(path)
        if part in WEIGHTS:
            _json(folder / part / "config.json")
            if not source.checkpoint:
                stem = f"{WEIGHTS[part]}.{source.variant}" if source.variant else WEIGHTS[part]
                counts[part] = sum(map(parameters, _weights_files(folder / part, stem)))
    return counts


def _weights_files(folder: Path, stem: str) -> list[Path]:
    """Return the weights file, or the shards of a large one."""
    shards = sorted(folder.glob(f"{stem}-*-of-*.safetensors"))
    single = folder / f"{stem}.safetensors"
    return shards if shards and not single.exists() else [single]


def _unusable(source: PipelineSource, folder: Path, reason: str) -> UserError:
    """Return the error for weights that are damaged, or do not match the configurations in ``folder``."""
    if source.checkpoint:
        what = f"'{source.checkpoint}' cannot be loaded with the configurations in '{folder}' ({reason})"
        return UserError(f"{what}: give a complete file and matching configurations")
    return UserError(f"pipeline '{folder}' cannot be loaded ({reason}): restore its files")


def _check_complete(pipeline: DiffusionPipeline, source: PipelineSource, folder: Path, counts: dict[str, int]) -> None:
    """Check that all weights were loaded: the libraries randomly initialise missing ones, with only a warning."""
    for part, found in counts.items():
        tensors = list(getattr(pipeline, part).parameters())
        wanted = sum(tensor.numel() for tensor in tensors)
        if found != wanted or any(tensor.is_meta for tensor in tensors):
            reason = f"{found:,} parameters do not fit its config.json, which expects {wanted:,}"
            raise _unusable(source, folder / part, reason)
    for number in ("", "_2"):
        encoder, tokenizer = (getattr(pipeline, f"{part}{number}", None) for part in ("text_encoder", "tokenizer"))
        if encoder is None:
            continue
        vocabulary = encoder.config.vocab_size
        if len(tokenizer) != vocabulary:
            place = folder / f"tokenizer{number}"
            found = f"'{place}' has {len(tokenizer):,} tokens and its text encoder {vocabulary:,}"
            raise UserError(f"{found}: restore the files")
        # A folder may omit the maximum length; diffusers would then pad to a huge default.
        tokenizer.model_max_length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and warnings of diffusers and transformers inside the block."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with_bars = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    try:
        for library in with_bars:
            library.disable_progress_bar()
        with log_levels(logging.CRITICAL, "diffusers", "transformers"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library in with_bars:
            library.enable_progress_bar()
