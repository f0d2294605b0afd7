"""What `augbench models` prints: the weights that come with the package, their cards, and what bundles paint."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from augbench.core import registry
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.core.images import read_grey, read_rgb
from augbench.core.seeds import rng
from augbench.core.weights import parameters
from augbench.diffusion import single_file
from augbench.diffusion.pipelines import BUNDLES, MODELS, PipelineSource, embedded, find, load
from augbench.diffusion.sampling import fit_image, fit_mask, sample
from augbench.procedural.drawing import distance, place
from augbench.procedural.noise import perlin
from augbench.storage.files import write_atomic

PROMPTS = {
    "sd": (
        "brushed metal background",
        "copper metal scratches",
        "concrete with a crack",
        "white marks on the wall",
    ),
    "sdxl-inpaint": (
        "metal surface with a scratch",
        "surface with a crack",
        "white marks on the surface",
        "surface with a stain",
    ),
}
"""What is painted where no prompt is given."""

LABEL = "mechanics, not evidence"


# -- list and show


def models_table() -> Table:
    """The weights that come with the package, then those of the hub."""
    note = f'Results that rest on these weights are labelled "{LABEL}".'
    table = Table(box=box.SIMPLE_HEAD, caption=note, caption_justify="left")
    for column in ("model", "kind", "parameters", "MB", "what for", "licence"):
        right = column in ("parameters", "MB")
        table.add_column(column, no_wrap=column != "what for", justify="right" if right else "left")
    for name, folder in _shipped().items():
        table.add_row(name, *_facts(name, folder))
    for bundle in BUNDLES.values():
        if bundle.revision:
            table.add_row(bundle.name, bundle.kind, "", "", f"{bundle.title}; from {bundle.source}", "see there")
    return table


def show_model(name: str, console: Console) -> None:
    """Print the card of a model, and where its files are.

    Raises:
        UserError: there is no such model, or its folder has no card.
    """
    shipped = _shipped()
    if name in BUNDLES and BUNDLES[name].revision:
        _show_hub(BUNDLES[name], console)
        return
    bundle = None if name in shipped else find(name, known=shipped)
    if bundle and bundle.checkpoint:
        _show_checkpoint(bundle, console)
        return
    folder = Path(bundle.source) if bundle else shipped[name]
    console.print(Markdown(_card(folder)[1]))
    kind, number, size, *_ = _facts(name, folder)
    facts = f"{kind}, {number} parameters, {size} MB: {folder}"
    console.print(f"\n{facts}", markup=False, highlight=False, soft_wrap=True)


def _show_hub(bundle: PipelineSource, console: Console) -> None:
    """Where a bundle of the Hugging Face hub comes from."""
    _show_lines(
        bundle,
        f"{_on_hub(bundle)}, {bundle.variant} weights",
        "fetched into the Hugging Face cache when it is first used; its licence stands there",
        console=console,
    )


def _show_checkpoint(bundle: PipelineSource, console: Console) -> None:
    """What a single file with weights is, and what it is used with."""
    path = Path(bundle.checkpoint)
    number, size = _amounts(sum(single_file.held(path, bundle.kind).values()), path.stat().st_size)
    _show_lines(
        bundle,
        f"{bundle.kind}, {number} parameters, {size} MB: {path}",
        f"configurations and words: {_on_hub(bundle) if bundle.revision else bundle.source}",
        console=console,
    )


def _on_hub(bundle: PipelineSource) -> str:
    return f"https://huggingface.co/{bundle.source}, revision {bundle.revision}"


def _show_lines(bundle: PipelineSource, *lines: str, console: Console) -> None:
    for line in (f"{bundle.name}: {bundle.title}, {bundle.size} x {bundle.size} pixels", *lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _shipped() -> dict[str, Path]:
    """Name -> folder."""
    return {folder.name: folder for folder in sorted(MODELS.iterdir()) if (folder / "README.md").is_file()}


def _facts(name: str, folder: Path) -> tuple[str, str, str, str, str]:
    """Kind, parameters, MB, what for, licence."""
    bundle = None if _is_backbone(name) else find(name)
    number = sum(map(parameters, folder.rglob("*.safetensors")))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return (
        bundle.kind if bundle else "backbone",
        *_amounts(number, size),
        bundle.title if bundle else "classifiers: backbone of a protocol",
        str(_card(folder)[0].get("license", "not said")),
    )


def _amounts(number: int, size: int) -> tuple[str, str]:
    """Parameters and bytes, as they are printed."""
    return f"{number / 1e6:.2f} M", f"{size / 1e6:.1f}"


def _is_backbone(name: str) -> bool:
    """Whether it comes with the package and is no bundle."""
    return name in _shipped() and name not in BUNDLES


def _card(folder: Path) -> tuple[dict[str, Any], str]:
    """The facts at the top of a model card (YAML between two lines ``---``), and its text in Markdown."""
    path = folder / "README.md"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"'{path}' is missing or cannot be read: it would be the model's card") from None
    if not text.startswith("---\n"):
        return {}, text
    top, _, rest = text.removeprefix("---\n").partition("\n---\n")
    try:
        facts = yaml.safe_load(top)
    except yaml.YAMLError:
        facts = None
    return facts if isinstance(facts, dict) else {}, rest


# -- sample


@dataclass(frozen=True)
class Source:
    """Where an inpainting bundle paints, of the bundle's size."""

    image: np.ndarray  # H,W,3 uint8
    mask: np.ndarray  # H,W bool
    caption: str


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
    """Write a contact sheet of what a bundle paints, ``count`` pictures a prompt with seeds from ``seed`` on.

    Inpainting bundles paint in ``image`` where ``mask`` is bright, or in pictures of `surfaces`.

    Raises:
        UserError: no such bundle, pictures that do not fit, a prompt that is too long, or ``out`` cannot be written.
    """
    from augbench.report.contact_sheet import draw_sheet, png

    if _is_backbone(name):
        raise UserError(f"'{name}' is a backbone of classifiers and paints nothing: see augbench models show {name}")
    bundle = find(name)
    prompts = list(prompts) or list(PROMPTS[bundle.kind])
    sources = _sources(bundle, image, mask, count, seed)
    places: dict[str, Any] = {}
    if sources:
        places["image"] = np.stack([source.image for source in sources] * len(prompts))
        places["mask"] = np.stack([source.mask for source in sources] * len(prompts))
    with console.status(f"loading {bundle.name}"):
        pipeline = load(bundle)
    started = time.perf_counter()
    with console.status(f"{bundle.name}: {count * len(prompts)} pictures"):
        made = sample(
            pipeline,
            bundle,
            [prompt for prompt in prompts for _ in range(count)],
            seeds=list(range(seed, seed + count)) * len(prompts),
            steps=steps,
            guidance=guidance,
            negative=negative,
            **places,
        )
    seconds = (time.perf_counter() - started) / len(made)
    title = f"{bundle.name}: {steps} steps, guidance {guidance:g}" + (f", not {negative!r}" if negative else "")
    sections = [
        _section(prompt, made[index * count : (index + 1) * count], seed, sources, image is not None)
        for index, prompt in enumerate(prompts)
    ]
    path = out if out is not None else Path(f"{bundle.name}.png")
    write_atomic(path, png(draw_sheet(_short(title, 100), sections)))
    ours = embedded(bundle.name) and bundle == BUNDLES[bundle.name]  # not a folder that happens to be called so
    label = f" ({LABEL})" if ours else ""
    said = f"{len(made)} picture{'s' if len(made) > 1 else ''}, {seconds:.2f} s each{label}: {path}"
    console.print(said, markup=False, highlight=False, soft_wrap=True)


def _section(prompt: str, made: np.ndarray, seed: int, sources: Sequence[Source], same: bool) -> Any:
    """The pictures of a prompt; before each what it was painted in, once where that is the ``same`` for all."""
    from augbench.report.contact_sheet import Section, Tile

    tiles = []
    for index, picture in enumerate(made):
        if sources and (index == 0 or not same):
            source = sources[index]
            tiles.append(Tile(source.image, source.caption, source.mask))
        tiles.append(Tile(picture, f"seed {seed + index}"))
    return Section(_short(prompt, 150) or "no prompt", "", tiles)


def _short(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder=" ...")


def _sources(bundle: PipelineSource, image: Path | None, mask: Path | None, count: int, seed: int) -> list[Source]:
    """One for each of ``count`` pictures; none for a bundle that makes pictures from text alone."""
    if bundle.kind != "sdxl-inpaint":
        if image is not None or mask is not None:
            option = "--image" if image is not None else "--mask"
            raise UserError(f"{option}: '{bundle.name}' makes pictures from text alone: take an inpainting bundle")
        return []
    if image is None and mask is None:
        return [_surface(index, seed, bundle.size) for index in range(count)]
    if mask is None:
        raise UserError(f"--image '{image}' needs a mask of where to paint: give --mask FILE too")
    if image is None:
        raise UserError(f"--mask '{mask}' needs the picture to paint in: give --image FILE too")
    return [_given(image, mask, bundle.size)] * count


def _given(image: Path, mask: Path, size: int) -> Source:
    """A user's picture and mask."""
    picture, marked = read_rgb(image), read_grey(mask) > 127
    if marked.shape != picture.shape[:2]:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (marked.shape, picture.shape)]
        raise UserError(f"--mask '{mask}' has {sizes[0]} pixels and the picture {sizes[1]}: give one of its size")
    if not marked.any():
        raise UserError(f"--mask '{mask}' is empty (no pixel above 127): mark in white where to paint")
    return Source(fit_image(picture, (size, size)), fit_mask(marked, size), image.name)


def _surface(index: int, seed: int, size: int) -> Source:
    """A good picture of the embedded dataset cut to a square, and a blob in it."""
    dataset = registry.make("datasets", "surfaces", {})
    table = dataset.samples()
    rows = table[(table["label"] == GOOD) & (table["split"] == "train")]
    row = rows.iloc[(seed + index) % len(rows)]
    picture = dataset.read_image(row)
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    square = picture[top : top + side, left : left + side]
    return Source(fit_image(square, (size, size)), _blob(rng("models-sample", seed + index), size), row["id"])


def _blob(draw: np.random.Generator, size: int) -> np.ndarray:
    """An uneven patch of 5 to 15 % of a square: size,size bool."""
    shape = (size, size)
    centre = place(draw, shape, size / 4)
    height = perlin(draw, shape, (4, 4)) - 4 * distance(shape, centre, draw.uniform(0.6, 1.6)) / size
    return height > np.quantile(height, 1 - draw.uniform(0.05, 0.15))
