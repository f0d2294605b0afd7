"""Output of `augbench models`: the weights in the package, their model cards, and samples of pipelines."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markdown import Markdown

from augbench.cli.options import print_line
from augbench.core import registry
from augbench.core.contracts import GOOD
from augbench.core.documents import parse_yaml
from augbench.core.errors import UserError
from augbench.core.images import read_grey, read_rgb
from augbench.core.seeds import rng
from augbench.core.weights import PACKAGED, parameters
from augbench.diffusion import single_file
from augbench.diffusion.pipelines import BUNDLES, MODELS, PipelineSource, embedded, find, load
from augbench.diffusion.sampling import fit_image, fit_mask, sample
from augbench.procedural.drawing import distance, place
from augbench.procedural.noise import perlin
from augbench.report.contact_sheet import Section, Tile, write_sheet
from augbench.report.sheet import Sheet

PROMPTS = {
    "sd": ("brushed metal background", "copper metal scratches", "concrete with a crack", "white marks on the wall"),
    "sdxl-inpaint": (
        "metal surface with a scratch",
        "surface with a crack",
        "white marks on the surface",
        "surface with a stain",
    ),
}
"""Default prompts by kind of pipeline."""

LABEL = "smoke-test parts: not evidence"


# -- list and show


def models_sheet() -> Sheet:
    """Return a table of the weights in the package, then of those on the Hugging Face hub."""
    rows = [(name, *_facts(name, folder)) for name, folder in _shipped().items()]
    for name, one in PACKAGED.items():
        rows.append((name, "backbone", f"{one.title}; from the package {one.package}", one.licence.lower(), "", ""))
    for source in BUNDLES.values():
        if source.revision:
            rows.append((source.name, source.kind, f"{source.title}; from {source.location}", "see there", "", ""))
    sheet = Sheet.of(["model", "kind", "purpose", "licence"], ["parameters", "MB"], rows)
    names = ", ".join(_shipped())
    return replace(sheet, notes=[f'Results that rest on {names} are labelled "{LABEL}".'])


def show_model(name: str, console: Console) -> None:
    """Print the card of a model and the location of its files.

    Raises:
        UserError: there is no such model, or its folder has no card.
    """
    shipped = _shipped()
    on_hub = name in BUNDLES and BUNDLES[name].revision
    source = BUNDLES[name] if on_hub else None if name in shipped else find(name, known=shipped)
    if source and (on_hub or source.checkpoint):
        print_line(console, "\n".join(_origin(source)))
        return
    folder = Path(source.location) if source else shipped[name]
    console.print(Markdown(_card(folder)[1]))
    kind, *_, number, size = _facts(name, folder)
    print_line(console, f"\n{kind}, {number} parameters, {size} MB: {folder}")


def _origin(source: PipelineSource) -> Iterator[str]:
    """Describe the origin of a pipeline on the Hugging Face hub, or what a checkpoint contains."""
    yield f"{source.name}: {source.title}, {source.size} x {source.size} pixels"
    on_hub = f"https://huggingface.co/{source.location}, revision {source.revision}"
    if source.checkpoint:
        path = Path(source.checkpoint)
        number, size = _amounts(sum(single_file.held(path, source.kind).values()), path.stat().st_size)
        yield f"{source.kind}, {number} parameters, {size} MB: {path}"
        yield f"configurations and tokenizers: {on_hub if source.revision else source.location}"
    else:
        yield f"{on_hub}, {source.variant} weights"
        yield "downloaded into the Hugging Face cache on first use; see its page for the licence"


def _shipped() -> dict[str, Path]:
    """Return the models in the package: name -> folder."""
    return {folder.name: folder for folder in sorted(MODELS.iterdir()) if (folder / "README.md").is_file()}


def _facts(name: str, folder: Path) -> tuple[str, str, str, str, str]:
    """Return kind, purpose, licence, parameters and MB."""
    kind, purpose = "backbone", "classifiers: backbone of a protocol"
    if not _is_backbone(name):
        kind, purpose = find(name).kind, find(name).title
    number = sum(map(parameters, folder.rglob("*.safetensors")))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return kind, purpose, str(_card(folder)[0].get("license", "unknown")), *_amounts(number, size)


def _amounts(number: int, size: int) -> tuple[str, str]:
    """Format parameters in millions and bytes in MB."""
    return f"{number / 1e6:.2f} M", f"{size / 1e6:.1f}"


def _is_backbone(name: str) -> bool:
    return name in _shipped() and name not in BUNDLES


def _card(folder: Path) -> tuple[dict[str, Any], str]:
    """Read a model card: its front matter (YAML between two lines ``---``) and its text in Markdown."""
    path = folder / "README.md"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"'{path}' is missing or cannot be read: it would be the model's card") from None
    if not text.startswith("---\n"):
        return {}, text
    top, _, rest = text.removeprefix("---\n").partition("\n---\n")
    try:
        facts = parse_yaml(top, str(path)).value
    except UserError:
        facts = None
    return facts if isinstance(facts, dict) else {}, rest


# -- sample


def write_models_sample(
    name: str,
    prompts: Sequence[str],
    *,
    negative: str | None,
    count: int,
    steps: int,
    guidance: float,
    seed: int,
    out: Path | None,
    image: Path | None,
    mask: Path | None,
    console: Console,
) -> None:
    """Write a contact sheet of samples of a pipeline, ``count`` images per prompt with seeds from ``seed`` on.

    Inpainting pipelines fill ``image`` where ``mask`` is above 127, or a blob in images of `surfaces`.

    Raises:
        UserError: no such pipeline, sizes that do not match, a prompt that is too long, or ``out`` cannot be written.
    """
    if _is_backbone(name):
        raise UserError(f"'{name}' is a classifier backbone and makes no images: see augbench models show {name}")
    source = find(name)
    prompts = list(prompts) or list(PROMPTS[source.kind])
    inputs = _inputs(source, image, mask, count, seed)
    arrays = {
        kind: np.stack([getattr(one, kind) for one in inputs] * len(prompts)) for kind in ("image", "mask") if inputs
    }
    with console.status(f"loading {source.name}"):
        pipeline = load(source)
    started = time.perf_counter()
    with console.status(f"{source.name}: {count * len(prompts)} images"):
        asked = [prompt for prompt in prompts for _ in range(count)]
        seeds = [*range(seed, seed + count)] * len(prompts)
        made = sample(pipeline, source, asked, seeds=seeds, steps=steps, guidance=guidance, negative=negative, **arrays)
    seconds = (time.perf_counter() - started) / len(made)
    title = f"{source.name}: {steps} steps, guidance {guidance:g}" + (f", not {negative!r}" if negative else "")
    sections = [
        _section(prompt, made[index * count : (index + 1) * count], seed, inputs, image is not None)
        for index, prompt in enumerate(prompts)
    ]
    path = out or Path(f"{source.name}.png")
    write_sheet(path, _short(title, 100), sections)
    ours = embedded(source.name) and source == BUNDLES[source.name]  # not a folder of the same name
    label = f" ({LABEL})" if ours else ""
    print_line(console, f"{len(made)} image{'s' if len(made) > 1 else ''}, {seconds:.2f} s each{label}: {path}")


def _section(prompt: str, made: np.ndarray, seed: int, inputs: Sequence[Tile], same: bool) -> Section:
    """Create the section of a prompt: its images, each after its input; only once if the input is the ``same``."""
    tiles = []
    for index, image in enumerate(made):
        if inputs and (index == 0 or not same):
            tiles.append(inputs[index])
        tiles.append(Tile(image, f"seed {seed + index}"))
    return Section(_short(prompt, 150) or "no prompt", "", tiles)


def _short(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder=" ...")


def _inputs(source: PipelineSource, image: Path | None, mask: Path | None, count: int, seed: int) -> list[Tile]:
    """Return an input of the pipeline's size for each of ``count`` images; none for a text-to-image pipeline."""
    if source.kind != "sdxl-inpaint":
        if image is not None or mask is not None:
            option = "--image" if image is not None else "--mask"
            raise UserError(f"{option}: '{source.name}' is a text-to-image pipeline: use an inpainting pipeline")
        return []
    if image is None and mask is None:
        return [_surface(index, seed, source.size) for index in range(count)]
    if mask is None:
        raise UserError(f"--image '{image}' needs a mask of the region to inpaint: give --mask FILE too")
    if image is None:
        raise UserError(f"--mask '{mask}' needs the image to inpaint: give --image FILE too")
    return [_given(image, mask, source.size)] * count


def _given(image: Path, mask: Path, size: int) -> Tile:
    pixels, marked = read_rgb(image), read_grey(mask) > 127
    if marked.shape != pixels.shape[:2]:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (marked.shape, pixels.shape)]
        raise UserError(f"--mask '{mask}' has {sizes[0]} pixels and the image {sizes[1]}: give a mask of the same size")
    if not marked.any():
        raise UserError(f"--mask '{mask}' is empty (no pixel above 127): mark the region to inpaint in white")
    return Tile(fit_image(pixels, (size, size)), image.name, fit_mask(marked, size))


def _surface(index: int, seed: int, size: int) -> Tile:
    """Crop a normal image of the embedded dataset to a square, with a blob as mask."""
    dataset = registry.make("datasets", "surfaces", {})
    table = dataset.samples()
    rows = table[(table["label"] == GOOD) & (table["split"] == "train")]
    row = rows.iloc[(seed + index) % len(rows)]
    image = dataset.read_image(row)
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = image[top : top + side, left : left + side]
    return Tile(fit_image(square, (size, size)), row["id"], _blob(rng("models-sample", seed + index), size))


def _blob(draw: np.random.Generator, size: int) -> np.ndarray:
    """Draw a mask with an irregular blob of 5 to 15 % of the area: size,size bool."""
    shape = (size, size)
    centre = place(draw, shape, size / 4)
    height = perlin(draw, shape, (4, 4)) - 4 * distance(shape, centre, draw.uniform(0.6, 1.6)) / size
    return height > np.quantile(height, 1 - draw.uniform(0.05, 0.15))
