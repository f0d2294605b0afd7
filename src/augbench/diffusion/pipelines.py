"""Bundles: sets of pretrained diffusion weights by name, each an ordinary diffusers folder.

    pipeline = load(find("micro-sd"))

Some come with the package, others from the Hugging Face hub, at a pinned revision. Any local folder that diffusers'
``save_pretrained`` wrote can be named in place of a bundle, if its pipeline is one of `KINDS`; so can a checkpoint, one
file with all weights (`augbench.diffusion.single_file`). Only safetensors files are read, and no code of a folder is
run.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augbench.core.errors import UserError, did_you_mean, listed
from augbench.core.weights import digest, parameters
from augbench.diffusion import single_file

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

MODELS = Path(str(resources.files("augbench"))) / "assets" / "models"
"""The weights that come with the package, a folder each."""

KINDS = {"StableDiffusionPipeline": "sd", "StableDiffusionXLInpaintPipeline": "sdxl-inpaint"}
"""The pipeline that a folder's ``model_index.json`` names -> kind."""

TITLES = {"sd": "text to image", "sdxl-inpaint": "text to image inside a mask"}

WEIGHTS = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Part with weights -> stem of its file, as diffusers and transformers call them."""

LIBRARIES = ("diffusers", "transformers")  # where the classes of a folder's parts may come from

_PARTS = {
    "sd": ("vae", "text_encoder", "tokenizer", "unet", "scheduler"),
    "sdxl-inpaint": ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "scheduler"),
}
_NOT_LOADED: dict[str, dict[str, Any]] = {  # photographs of surfaces need no filter and no watermark
    "sd": {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None, "image_encoder": None},
    "sdxl-inpaint": {"add_watermarker": False, "feature_extractor": None, "image_encoder": None},
}


@dataclass(frozen=True)
class PipelineSource:
    """Pretrained diffusion weights by name."""

    name: str
    kind: str  # "sd": text to image; "sdxl-inpaint": text to the masked part of an image
    title: str
    size: int  # pixels: pictures are squares of that side
    source: str  # the folder they are loaded from, or a repository of the hub
    revision: str = ""  # of the repository
    variant: str = ""  # which of its weights: fp16
    checkpoint: str = ""  # the one file that holds all weights; the source then gives only what such a file lacks


def _shipped(name: str, kind: str, size: int) -> PipelineSource:
    return PipelineSource(name, kind, TITLES[kind], size, str(MODELS / name))


BUNDLES: dict[str, PipelineSource] = {
    bundle.name: bundle
    for bundle in (
        _shipped("micro-sd", "sd", 64),
        _shipped("micro-sdxl-inpaint", "sdxl-inpaint", 64),
        PipelineSource(
            "sd15",
            "sd",
            TITLES["sd"],
            512,
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
            "fp16",
        ),
        PipelineSource(
            "sdxl-inpaint",
            "sdxl-inpaint",
            TITLES["sdxl-inpaint"],
            1024,
            "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
            "115134f363124c53c7d878647567d04daf26e41e",
            "fp16",
        ),
    )
}


def embedded(name: str) -> bool:
    """Whether the weights of that name come with the package: results that rest on them show mechanics only."""
    return name in BUNDLES and Path(BUNDLES[name].source).parent == MODELS


def find(name_or_path: str | Path, known: Iterable[str] = BUNDLES) -> PipelineSource:
    """The bundle of that name, or the one in that folder or file. A name goes first: write ``./NAME`` for a folder.

    ``known`` are the names that an error suggests.

    Raises:
        UserError: there is none, or it holds no pipeline of one of `KINDS`.
    """
    name = str(name_or_path)
    if name in BUNDLES:
        return BUNDLES[name]
    path = Path(name)  # a leading ~ is the shell's to replace
    try:
        if name and path.is_dir():
            return _described(path.resolve())
        if path.is_file() or single_file.named(path):
            return _of_checkpoint(path.absolute())
    except OSError as error:
        raise UserError(f"model '{name}' cannot be looked for ({error.strerror}): check its path") from None
    ways = "give such a name, a diffusers folder or a .safetensors checkpoint"
    raise UserError(f"model '{name}' does not exist{did_you_mean(name, known)}: {ways}")


def load(bundle: PipelineSource, device: str = "cpu", dtype: torch.dtype | None = None) -> DiffusionPipeline:
    """The ordinary diffusers pipeline of a bundle, without progress bars and warnings.

    Args:
        bundle: from `find`.
        device: where it shall lie, e.g. "cuda".
        dtype: of its weights; None: float32.

    Raises:
        UserError: a file of it is missing or damaged, or holds other weights than its configuration wants; or it is on
            the hub, and neither on this machine nor to be had.
    """
    import torch
    from diffusers import StableDiffusionPipeline, StableDiffusionXLInpaintPipeline

    family = {"sd": StableDiffusionPipeline, "sdxl-inpaint": StableDiffusionXLInpaintPipeline}[bundle.kind]
    folder = fetch(bundle)
    held = _check_parts(bundle, folder)
    options = {"local_files_only": True, **_NOT_LOADED[bundle.kind]}
    dtype = dtype or torch.float32
    with _quiet():
        try:
            if bundle.checkpoint:
                options |= {"config": str(folder), "torch_dtype": dtype}
                pipeline = family.from_single_file(bundle.checkpoint, **options)
            else:
                options |= {"use_safetensors": True, "variant": bundle.variant or None, "dtype": dtype}
                pipeline = family.from_pretrained(folder, **options)
        except Exception as error:  # each library has its own for files that are missing or do not fit
            reason = textwrap.shorten(str(error), 160, placeholder=" ...")
            if bundle.checkpoint and isinstance(error, NotImplementedError):  # torch's, of weights without values
                reason = "it lacks weights that they describe"
            raise _unusable(bundle, folder, reason) from error
        _check_complete(pipeline, bundle, folder, held)
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(device)


def of_content(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """Settings for keys: weights in files of ours or of a user count by a digest, so that none stand in for others.

    A folder may lie anywhere; a bundle of the package may be trained on; one of the hub is pinned by its revision.
    """
    value = settings.get(name)
    if embedded(str(value)):
        value = BUNDLES[value].source
    elif value is None or value in BUNDLES:
        return settings
    path = Path(value)
    if path.is_dir():
        return settings | {name: {"files": _content(path, ".safetensors")}}
    if not (path.is_file() and path.suffix == single_file.SUFFIX):
        return settings
    content = {"checkpoint": digest(path)}
    try:
        bundle = _of_checkpoint(path.absolute())
    except UserError:  # planning comes first: `find` will say
        return settings | {name: content}
    return settings | {name: content | {"configuration": bundle.revision or _content(Path(bundle.source))}}


def _content(folder: Path, *weights: str) -> str:
    """Digest of what is loaded from a folder: configurations, words, and files with the suffixes ``weights``."""
    whole = hashlib.sha256()
    loaded = [path for path in folder.glob("*/*") if path.suffix in (".json", ".txt", *weights)]
    for path in sorted([*folder.glob("model_index.json"), *loaded]):  # whether it is a bundle at all, `find` will say
        whole.update(f"{path.relative_to(folder).as_posix()}\0{digest(path)}\n".encode())
    return whole.hexdigest()


def canvas(bundle: PipelineSource, aspect: float, step: int = 8) -> tuple[int, int]:
    """Height and width of about the bundle's area with that aspect (width / height), both multiples of ``step``."""
    height = bundle.size / aspect**0.5
    return tuple(max(step, round(side / step) * step) for side in (height, height * aspect))


def _described(folder: Path) -> PipelineSource:
    """What the configuration files of a folder say."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(f"folder '{folder}' has no model_index.json: give one that diffusers' save_pretrained wrote")
    pipeline = _json(index).get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in KINDS:
        raise UserError(f"'{index}': pipeline '{pipeline}' is none of ours: give a {' or a '.join(KINDS)}")
    kind = KINDS[pipeline]
    return PipelineSource(folder.name, kind, TITLES[kind], _size(folder), str(folder))


def _of_checkpoint(path: Path) -> PipelineSource:
    """A file with all weights; what it lacks is in the folder beside it, else in its kind's repository on the hub."""
    kind, folder = single_file.kind_of(path), single_file.beside(path)
    if not folder.is_dir():
        source = next(bundle for bundle in BUNDLES.values() if bundle.revision and bundle.kind == kind)
    elif not (folder / "model_index.json").is_file():
        reason = f"'{folder}' is where its configurations may lie, and has no model_index.json"
        raise UserError(f"'{path}': {reason}: put those of a diffusers folder there, or rename that folder")
    else:
        source = _described(folder)
    if source.kind != kind:
        kinds = f"is of kind '{kind}' and the configurations in '{folder}' are of '{source.kind}'"
        raise UserError(f"'{path}' {kinds}: put fitting ones there, or rename that folder")
    return replace(source, name=path.stem, checkpoint=str(path), variant="")


def _size(folder: Path) -> int:
    """Pixels that the U-Net was made for: its latents times what the VAE shrinks."""
    latent = _json(folder / "unet" / "config.json").get("sample_size")
    stages = _json(folder / "vae" / "config.json").get("block_out_channels")
    if not isinstance(latent, int) or latent < 1:
        raise UserError(f"'{folder / 'unet' / 'config.json'}': 'sample_size' is no number of pixels: restore the file")
    if not isinstance(stages, list) or not stages:
        raise UserError(f"'{folder / 'vae' / 'config.json'}': 'block_out_channels' is no list: restore the file")
    return latent * 2 ** (len(stages) - 1)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"'{path}' is missing: restore it") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}): check its rights") from None
    except ValueError:
        raise UserError(f"'{path}' is damaged (no JSON): restore it") from None
    if not isinstance(content, dict):
        raise UserError(f"'{path}' is damaged (no JSON object): restore it")
    return content


def fetch(bundle: PipelineSource) -> Path:
    """The folder of a bundle; one from the hub out of its cache if it is there, else downloaded.

    Of a checkpoint it is the folder that gives configurations and words, without weights.

    Raises:
        UserError: it is not on this machine and cannot be had.
    """
    if not bundle.revision:
        return Path(bundle.source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging

    wanted = ["model_index.json"]
    for part in _PARTS[bundle.kind]:
        wanted += [f"{part}/*.json", f"{part}/*.txt"]
        if part in WEIGHTS:
            wanted += [f"{part}/config.json"]
            wanted += [] if bundle.checkpoint else [f"{part}/{WEIGHTS[part]}.{bundle.variant}.safetensors"]
    reason = ""
    for offline in (True, False):
        try:
            asked = {"revision": bundle.revision, "allow_patterns": wanted, "local_files_only": offline}
            with errors_only(logging):  # it would tell of each new try; what came of them is said below
                folder = Path(snapshot_download(bundle.source, **asked))
        except Exception as error:  # the hub's errors, those of its network library, those of the disk
            reason = textwrap.shorten(str(error), 120, placeholder=" ...")
            continue
        if all((folder / name).exists() for name in wanted if "*" not in name):
            return folder
    what, way = f"bundle '{bundle.name}' ({bundle.source}) is", "give a local diffusers folder as bundle"
    if bundle.checkpoint:
        what = f"'{bundle.checkpoint}' has no configurations and no tokenizer, and those of {bundle.source} are"
        way = f"put those of a diffusers folder into '{single_file.beside(Path(bundle.checkpoint))}'"
    raise UserError(
        f"{what} not on this machine and cannot be fetched ({reason}): go online once, to fill the Hugging Face cache, "
        f"or {way}"
    )


def _check_parts(bundle: PipelineSource, folder: Path) -> dict[str, int]:
    """Part with weights -> parameters in its files, after a look at all that will be loaded."""
    index = _json(folder / "model_index.json")
    held = single_file.held(Path(bundle.checkpoint), bundle.kind) if bundle.checkpoint else {}
    for part in _PARTS[bundle.kind]:
        entry = index.get(part)
        if not (isinstance(entry, list) and entry and entry[0] in LIBRARIES):  # diffusers imports what stands there
            raise UserError(f"'{folder / 'model_index.json'}': '{part}' is not of {listed(LIBRARIES)}: restore it")
        if not (folder / part).is_dir():
            raise UserError(f"bundle '{folder}' has no folder '{part}': restore it")
        if part.startswith("tokenizer"):  # without its files transformers makes one that knows no word
            _json(folder / part / "tokenizer_config.json")
            words = [folder / part / name for name in ("tokenizer.json", "vocab.json")]
            for path in [path for path in words if path.exists()] or words[:1]:
                _json(path)
        if part in WEIGHTS:
            _json(folder / part / "config.json")
            if not bundle.checkpoint:
                stem = f"{WEIGHTS[part]}.{bundle.variant}" if bundle.variant else WEIGHTS[part]
                held[part] = sum(map(parameters, _weights_files(folder / part, stem)))
    return held


def _weights_files(folder: Path, stem: str) -> list[Path]:
    """The one file, or the numbered ones that large weights are cut into."""
    numbered = sorted(folder.glob(f"{stem}-*-of-*.safetensors"))
    whole = folder / f"{stem}.safetensors"
    return numbered if numbered and not whole.exists() else [whole]


def _unusable(bundle: PipelineSource, folder: Path, reason: str) -> UserError:
    """Its weights, and the configurations in ``folder``, are damaged or do not belong together."""
    if bundle.checkpoint:
        what = f"'{bundle.checkpoint}' cannot be loaded with the configurations in '{folder}' ({reason})"
        return UserError(f"{what}: give a whole file and configurations that fit it")
    return UserError(f"bundle '{folder}' cannot be loaded ({reason}): restore its files")


def _check_complete(pipeline: DiffusionPipeline, bundle: PipelineSource, folder: Path, held: dict[str, int]) -> None:
    """What a file lacks the libraries would draw at random, with no more than a warning."""
    for part, found in held.items():
        tensors = list(getattr(pipeline, part).parameters())
        wanted = sum(tensor.numel() for tensor in tensors)
        if found != wanted or any(tensor.is_meta for tensor in tensors):
            reason = f"{found:,} parameters do not fit its config.json, which expects {wanted:,}"
            raise _unusable(bundle, folder / part, reason)
    for number in ("", "_2"):
        encoder, tokenizer = (getattr(pipeline, f"{part}{number}", None) for part in ("text_encoder", "tokenizer"))
        if encoder is None:
            continue
        words = encoder.config.vocab_size
        if len(tokenizer) != words:
            place = folder / f"tokenizer{number}"
            raise UserError(f"'{place}' has {len(tokenizer):,} words and its text encoder {words:,}: restore the files")
        # A folder may leave the length out, and then diffusers would pad without end.
        tokenizer.model_max_length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)


@contextmanager
def errors_only(library: Any) -> Iterator[None]:
    """No warnings of diffusers or the hub, whose ``utils.logging`` is given; afterwards as before."""
    verbosity = library.get_verbosity()
    library.set_verbosity_error()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings from the libraries that load; afterwards as before."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    both = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in both]
    try:
        for library in both:
            library.set_verbosity(library.CRITICAL)
            library.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, (verbosity, bars) in zip(both, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
