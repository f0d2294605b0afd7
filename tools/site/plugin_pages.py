"""Make the pages of methods and datasets from the plug-ins: docstrings, settings with sources, images, costs."""

from __future__ import annotations

import importlib
import io
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import text as md
from PIL import Image

from augbench.cli.augmenters_view import augmenters_sheet, facts_of, nested_settings, settings_rows
from augbench.cli.datasets_view import datasets_sheet, oddities_of, size_of, split_of
from augbench.core import registry
from augbench.core.contracts import Augmenter, Dataset
from augbench.core.errors import UserError
from augbench.core.types import Request
from augbench.planning.grid import make_grid
from augbench.planning.library import open_dataset
from augbench.planning.plan import make_plan
from augbench.report.contact_sheet import OUTLINE, evenly_spaced, outline
from augbench.report.sheet import Sheet

REPOSITORY = Path(__file__).resolve().parents[2]
PAPERS = {  # in the attribute `paper` of an augmenter -> where to read it
    "Yang et al., EAAI 2023": "https://arxiv.org/abs/2205.00908",
    "Li et al., CVPR 2021": "https://arxiv.org/abs/2104.04015",
    "Schlüter et al., ECCV 2022": "https://arxiv.org/abs/2109.15222",
    "Zavrtanik et al., ICCV 2021": "https://arxiv.org/abs/2108.07610",
    "VISAPP 2024": "https://doi.org/10.5220/0012350400003660",
    "Ital-IA 2024": "https://ceur-ws.org/Vol-3762/519.pdf",
}
EXAMPLES = 9
SCALE = 2  # of the images of `surfaces`, 64 x 176 pixels
DRAWN = REPOSITORY / "docs" / "augmenters.png"
DRAWN_ROWS = {"ddpm": 3, "diag": 4, "stablesdg": 5}  # rows of that sheet, made by tune_configs/demo_surfaces.yaml
DRAWN_AT, DRAWN_STEP, DRAWN_SIZE = (18, 32), (81.875, 250), (73, 204)  # pixels: first tile, from tile to tile, a tile

Files = dict[str, str | bytes]


# -- methods


def method_pages() -> Files:
    """Return the pages of all augmenters, their images, and the page that lists them."""
    files: Files = {}
    plugins = dict(sorted(registry.find("augmenters").items(), key=lambda item: (bool(item[1].control), item[0])))
    costs, draw = _costs(), Examples()
    for name, plugin in plugins.items():
        images = draw.of(plugin)
        files |= {f"methods/img/{name}-{number}.webp": image for number, image in enumerate(images)}
        files[f"methods/{name}.md"] = _method(name, plugin, len(images), costs.get(name, []))
    files |= {f"methods/img/real-{number}.webp": image for number, image in enumerate(draw.real())}
    rows = _rows(augmenters_sheet(), "methods")
    controls = [row[:-1] for row in rows if row[-1] == "control"]
    files["methods/index.md"] = "\n\n".join(
        [
            "# Methods",
            "An *augmenter* makes synthetic defect images. Each page shows images and says what the paper does, what "
            "differs here, where every default comes from, and what it costs.",
            md.table(["name", "method", "reads at zero-shot / with shots", "learns"],
                     [row[:-1] for row in rows if row[-1] != "control"]),
            "## Controls",
            "Rows that lack what an augmenter is praised for: what they gain, no defect gained. "
            "[How to use them](../howto/controls.md).",
            md.table(["name", "control", "reads at zero-shot / with shots", "learns"], controls),
            "From the command line: `augbench list augmenters`, `augbench augmenters show NAME`.",
        ]
    )  # fmt: skip
    return files


def _method(name: str, plugin: type[Augmenter], images: int, costs: Sequence[Sequence[str]]) -> str:
    module = sys.modules[plugin.__module__]
    facts = dict(_facts(plugin))
    parts = [
        f"# {plugin.title}",
        f"`{name}` in a grid. {md.prose(plugin.__doc__)}",
    ]
    if images:
        parts += [
            _tiles(name, images, _caption(name)),
            _tiles(
                "real",
                EXAMPLES,
                "For comparison, real training defects of <code>surfaces</code>, a procedural dataset.",
            ),
        ]
    parts.append(md.table(["", ""], ((f"**{label}**", text) for label, text in facts.items())))
    parts += ["## What it does, and what differs", md.prose(module.__doc__)]
    parts += ["## Settings", f"Under `settings` in a grid, or `--set augmenters.{name}.KEY=VALUE`."]
    if plugin.Config.model_fields:
        parts.append(_settings(plugin.Config))
        for config, keys in nested_settings(plugin.Config).items():
            parts += [f"Inside {' and '.join(f'`{key}`' for key in keys)}:", _settings(config)]
    else:
        parts[-1] = "None."
    parts += ["## Cost", *_cost_text(name, costs)]
    return "\n\n".join(parts)


def _facts(plugin: type[Augmenter]) -> Iterator[tuple[str, str]]:
    """Yield the facts of `augbench augmenters show`; lines without a label belong to the one before."""
    label, lines = "", []
    found = list(facts_of(plugin))
    regimes = [(own, line) for own, line in found if own.endswith("-shot:")]
    if len({line for _, line in regimes}) == 1:
        found = [("any shots:", line) if own == regimes[0][0] else (own, line) for own, line in found
                 if (own, line) not in regimes[1:]]  # fmt: skip
    for own, line in [*found, ("end:", "")]:
        if own and lines:
            yield label, "<br>".join(lines)
        if own:
            label, lines = own.rstrip(":"), []
        lines.append(_linked(line) if own == "paper:" else md.cell(line))


def _linked(paper: str) -> str:
    for words, address in PAPERS.items():
        if words in paper:
            return f"[{paper}]({address})"
    return md.ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", paper)


def _settings(config: type) -> str:
    rows = [
        (md.code(key), md.cell(kind), md.code(default), md.cell(meaning), md.cell(source))
        for key, kind, default, meaning, source in settings_rows(config)
    ]
    return md.table(["setting", "type", "default", "meaning", "source of the default"], rows)


def _rows(sheet: Sheet, folder: str) -> list[list[str]]:
    """Return the rows of a list of plug-ins, the name being a link to its page."""
    return [
        [f"[`{name}`](../{folder}/{name}.md)", *(md.cell(text) for text in rest)]
        for name, *rest in (row.texts for row in sheet.rows)
    ]


# -- images


class Examples:
    """Images of `surfaces`, as WebP files: real ones, and what augmenters make with their defaults."""

    def __init__(self) -> None:
        grid = {"name": "site", "datasets": ["surfaces"], "augmenters": ["none"], "protocols": ["demo"], "shots": [5]}
        plan = make_plan(make_grid(grid))
        self._spec, self._library = plan.cells[0].data, plan.library

    def of(self, plugin: type[Augmenter]) -> list[bytes]:
        """Return images of an augmenter; those of diffusion models are taken from a sheet that is there already."""
        if plugin.name in DRAWN_ROWS:
            return _from_sheet(DRAWN_ROWS[plugin.name])
        try:
            augmenter = registry.make("augmenters", plugin.name, {})
        except UserError:  # it has settings without a default
            return []
        if augmenter.learns or augmenter.uses_gpu or augmenter.parts() or not augmenter.makes_images:
            return []
        view = self._library.view(self._spec, 5, 0, augmenter.reads(5))
        made = augmenter.generate([Request(number, number, "defect") for number in range(EXAMPLES)], view)
        return [_webp(one.image, one.mask) for one in made]

    def normal(self, number: int) -> list[bytes]:
        """Return images without a defect."""
        rows = self._library.split(self._spec).negatives.iloc[: number * 7 : 7]  # one of several materials each
        return [_webp(self._library.dataset("surfaces").read_image(row)) for row in rows.to_dict("records")]

    def real(self) -> list[bytes]:
        """Return training defects, evenly spaced, with their outlines."""
        dataset, rows = self._library.dataset("surfaces"), self._library.split(self._spec).positives
        chosen = evenly_spaced(rows, EXAMPLES).to_dict("records")
        return [_webp(dataset.read_image(row), dataset.read_mask(row)) for row in chosen]


def _webp(pixels: np.ndarray, mask: np.ndarray | None = None) -> bytes:
    """Enlarge an image, outline its defect, and return it as WebP."""
    image = Image.fromarray(pixels)
    size = image.width * SCALE, image.height * SCALE
    image = image.resize(size, Image.Resampling.LANCZOS)
    if mask is not None and mask.any():
        image.paste(OUTLINE, mask=outline(mask, size))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88)
    return buffer.getvalue()


def _from_sheet(row: int) -> list[bytes]:
    with Image.open(DRAWN) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    top = DRAWN_AT[1] + DRAWN_STEP[1] * row
    lefts = [round(DRAWN_AT[0] + DRAWN_STEP[0] * number) for number in range(EXAMPLES)]
    return [_webp(pixels[top : top + DRAWN_SIZE[1], left : left + DRAWN_SIZE[0]]) for left in lefts]


def _tiles(name: str, number: int, caption: str) -> str:
    images = "".join(f'<img src="img/{name}-{n}.webp" alt="" loading="lazy">' for n in range(number))
    return f'<figure class="tiles"><div>{images}</div><figcaption>{caption}</figcaption></figure>'


def _caption(name: str) -> str:
    if name in DRAWN_ROWS:
        return (
            f"Images of <code>{name}</code> in the grid <code>tune_configs/demo_surfaces.yaml</code>, with a packaged "
            "pipeline of three million parameters: they show how it works, not how good it is with real weights."
        )
    made = f"The first {EXAMPLES} images of <code>{name}</code> with its defaults and five shots"
    return f"{made}, on the procedural dataset <code>surfaces</code>. Magenta: its mask, if it makes one."


# -- costs


def _costs() -> dict[str, list[list[str]]]:
    """Return rows by augmenter: seconds of pools and adapters of the published results."""
    rows: dict[str, list[list[str]]] = defaultdict(list)
    for path in sorted((REPOSITORY / "results").glob("*/costs.json")):
        units = json.loads(path.read_text(encoding="utf-8"))["costs"]
        pools, dataset, aliases = defaultdict(list), "", defaultdict(set)
        for unit in units.values():
            if unit["kind"] == "pools":
                spec = unit["spec"]["augmenter"]
                dataset = unit["spec"]["data"]["name"]
                pools[spec["name"], spec["settings"].get("bundle", "-"), unit["device"]].append(unit)
                aliases[spec["name"]].add(spec["alias"])
        for (name, pipeline, device), found in sorted(pools.items()):
            learned = [
                unit["seconds"]
                for key, unit in units.items()
                if unit["kind"] == "adapters" and any(f"-{alias}-" in key for alias in aliases[name])
            ]
            rows[name].append(
                [
                    f"[{path.parent.name}](../results/{path.parent.name}.md)",
                    md.code(dataset),
                    md.cell(pipeline),
                    f"{sum(unit['pictures'] for unit in found):,}",
                    f"{statistics.median(unit['seconds'] / unit['pictures'] for unit in found):.2g}",
                    f"{min(learned):.0f} to {max(learned):.0f}" if learned else "-",
                    md.cell(device or "not recorded"),
                ]
            )
    return rows


def _cost_text(name: str, rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["No published result has it yet. `augbench plan GRID` says how many images and steps a grid means."]
    head = ["result", "dataset", "pipeline", "images", "s per image (median of pools)", "s to adapt", "device"]
    return ["Seconds of one worker in the published results, as they were measured.", md.table(head, rows)]


# -- datasets


def dataset_pages() -> Files:
    """Return the pages of all datasets, and the page that lists them."""
    files: Files = {f"datasets/{name}.md": _dataset(name, one) for name, one in registry.find("datasets").items()}
    files["datasets/index.md"] = "\n\n".join(
        [
            "# Datasets",
            "augbench brings `surfaces` and reads the others where you put them; none is downloaded. "
            "[How to use your data](../howto/data.md), [how to add a dataset](../howto/dataset.md), "
            "[near-copies across splits](../leaks.md).",
            md.table(["name", "dataset", "task", "split", "images", "licence"], _rows(datasets_sheet(), "datasets")),
            "From the command line: `augbench list datasets`, `augbench datasets show NAME`, "
            "`augbench datasets check NAME --root DIR`.",
        ]
    )
    return files


def _dataset(name: str, plugin: type[Dataset]) -> str:
    module, dataset = importlib.import_module(plugin.__module__), open_dataset(name, {})
    split = split_of(plugin)
    facts = {
        "name": f"`{name}`",
        "task": md.cell(plugin.task if isinstance(plugin.task, str) else "by setting"),
        "images": md.cell(size_of(plugin)),
        "split": md.cell(split),
        "licence": md.cell(plugin.licence),
        "citation": md.cell(plugin.citation),
        "homepage": ", ".join(f"<{word.rstrip(',')}>" for word in plugin.homepage.split() if word.startswith("http")),
    }
    rows = [
        (md.code(key), md.cell(kind), md.code(default), md.cell(meaning))
        for key, kind, default, meaning, _ in settings_rows(plugin.Config)
    ]
    parts = [
        f"# {plugin.title}",
        md.prose(module.__doc__),
        md.table(["", ""], ((f"**{label}**", text) for label, text in facts.items() if text)),
        "## Files",
        md.prose(plugin.__doc__),
        "" if plugin.embedded else f"Say where they lie: `--root {name}=DIR`, `root` in a grid, or `AUGBENCH_DATA=DIR` "
        f"where they are in `DIR/{name}/`. Then `augbench datasets check {name}` reads every file once.",
        "## Settings",
        md.table(["setting", "type", "default", "meaning"], rows),
    ]  # fmt: skip
    if dataset.official_counts:
        counts = ((md.cell(what), f"{number:,}") for what, number in dataset.official_counts.items())
        parts += ["## Official counts", md.table(["split and class", "images"], counts)]
    if known := oddities_of(dataset):
        parts += [
            "## Known oddities",
            *(f"- {', '.join(f'`{one}`' for one in ids)}: {what}" for what, ids in known.items()),
        ]
    return "\n\n".join(part for part in parts if part)
