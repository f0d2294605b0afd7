"""Make the reference pages from the code: the command line, the grid with its JSON Schema, protocols, the store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

import text as md
import typer
import yaml
from pydantic import BaseModel
from typer.core import TyperGroup

import augbench
from augbench.cli.app import app
from augbench.cli.augmenters_view import settings_rows
from augbench.cli.protocols_view import GROUPS, protocols_sheet
from augbench.core.filters import Filters, Unchanged, Unseen
from augbench.core.protocol import READ_BY, SWITCHES, Protocol, load_preset, preset_names
from augbench.planning.grid import (
    AugmenterEntry,
    DatasetEntry,
    FidelitySettings,
    Grid,
    Resources,
    StageResources,
)
from augbench.report.frame import RESULT_COLUMNS

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = "grid.schema.json"


# -- command line


def cli_page() -> str:
    """Return the reference of all commands, as `--help` prints them."""
    root = typer.main.get_command(app)
    parts = [
        "# Command line",
        "Every command, as `augbench COMMAND --help` prints it. An error that you can mend is one line with the way "
        "out, and exit status 2.",
    ]
    parts += ["## augbench", _options(root, typer.Context(root, info_name="augbench"))]
    for path, command in _commands(root, ()):
        parts.append(f"{'#' * min(len(path) + 1, 3)} {' '.join(path)}")
        help_text, example = _help(command.help or "")
        parts.append(help_text)
        if not isinstance(command, TyperGroup):
            context = typer.Context(command, info_name=" ".join(("augbench", *path)))
            usage = " ".join(["augbench", *path, *command.collect_usage_pieces(context)])
            parts += [md.fence(_usual(usage)), _options(command, context)]
        if example:
            parts += ["For example:", md.fence(example)]
    return "\n\n".join(part for part in parts if part)


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield (*path, name), command
        if isinstance(command, TyperGroup):
            yield from _commands(command, (*path, name))


def _help(text: str) -> tuple[str, str]:
    """Return the help of a command as Markdown, and the example that it begins with."""
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", cleandoc(text))]
    examples = [block.removeprefix("Example: ") for block in blocks if block.startswith("Example: ")]
    others = [md.cell(block) for block in blocks if not block.startswith("Example: ")]
    return "\n\n".join(others), "\n".join(examples)


def _options(command: Any, context: Any) -> str:
    records = [one.get_help_record(context) for one in command.params if one.name != "help"]
    rows = [(md.code(_name(record[0])), md.cell(record[1])) for record in records if record]
    return md.table(["", ""], rows) if rows else ""


def _usual(usage: str) -> str:
    """Spell arguments as manuals do: NAME, or [NAME] where it may be left out."""
    usage = re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), usage)
    return re.sub(r"\[\[(\w+)\]\]", lambda found: f"[{found[1].upper()}]", usage)


def _name(text: str) -> str:
    """Leave out the type of a flag, which takes no value."""
    return text.removesuffix(" <bool>")


# -- grid

PARTS: dict[str, tuple[type[BaseModel], str]] = {
    "The grid": (Grid, "The keys at the top of a grid file. The cells are the product of the axes `datasets`, "
                 "`augmenters`, `protocols`, `shots`, `draws`, `folds`, `n_aug`, `seeds` and `adapter_seeds`."),
    "A dataset": (DatasetEntry, "An entry of `datasets`. A bare name stands for `{name: ...}`; `root` may stand here "
                  "or in `settings`. Settings: [datasets](../datasets/index.md)."),
    "An augmenter": (AugmenterEntry, "An entry of `augmenters`. A bare name stands for `{name: ...}`. "
                     "Settings: [methods](../methods/index.md)."),
    "filters": (Filters, "In an entry of `augmenters`, beside `settings` ([how to](../howto/filters.md))."),
    "filters.unchanged": (Unchanged, "`true` stands for the default."),
    "filters.unseen": (Unseen, ""),
    "fidelity": (FidelitySettings, "How pools are compared with real defects ([meaning](../tables.md#fidelity))."),
    "resources": (Resources, "What a worker reserves ([on a cluster](../howto/cluster.md))."),
    "Resources of a stage": (StageResources, "What is not set follows from the machines."),
}  # fmt: skip


def grid_page() -> str:
    """Return the reference of the grid file: every key with type, default, meaning and an example."""
    parts = [
        "# Grid file",
        "A grid is a YAML file. Any key can be changed on the command line: `--set seeds=[0,1]`, "
        "`--set augmenters.memseg.texture_share=0`, `--set protocols.probe.width=384`.",
        md.fence((REPOSITORY / "tune_configs" / "demo.yaml").read_text(encoding="utf-8"), "yaml"),
        f"**In an editor.** [{SCHEMA}]({SCHEMA}) is a JSON Schema. Editors with a YAML language server (VS Code's YAML "
        "extension, Neovim, ...) complete and check keys when the first line of a grid names it:",
        md.fence(f"# yaml-language-server: $schema=path/to/{SCHEMA}", "yaml"),
    ]
    for title, (model, text) in PARTS.items():
        rows = [
            (md.code(key), md.cell(kind), _default(default), md.cell(meaning), md.code(_example(model, key)))
            for key, kind, default, meaning, _ in settings_rows(model)
        ]
        parts += [f"## {title}", text, md.table(["key", "type", "default", "meaning", "example"], rows)]
    parts += [
        "## A protocol",
        "An entry of `protocols`: the name of a [preset](protocols.md); a preset with other values, "
        "`{name: probe, width: 384, height: 384}`, under a name of its own with `preset: probe`; or one in full. "
        "Which keys are read depends on `kind`; another one is refused.",
        *_protocol_tables(),
    ]
    return "\n\n".join(part for part in parts if part)


def _default(text: str) -> str:
    return "*required*" if text == "required" else md.code(text)


def _example(model: type[BaseModel], key: str) -> str:
    """Return the example of a field as it stands in a grid."""
    field = next(field for name, field in model.model_fields.items() if key in (name, field.alias))
    if not field.examples:
        raise ValueError(f"{model.__name__}.{key} has no example")
    return f"{key}: {_inline(field.examples[0])}"


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).removesuffix("...\n").strip()


def _protocol_tables() -> Iterator[str]:
    rows = {key: (kind, default, meaning) for key, kind, default, meaning, _ in settings_rows(Protocol)}
    presets = [load_preset(name) for name in preset_names()]
    for group, fields in GROUPS.items():
        yield f"### {group}"
        lines = []
        for field in fields:
            kind, default, meaning = rows[field]
            value = _of_presets(presets, field)
            read = ", ".join(name for name, read in READ_BY.items() if field in read)
            lines.append(
                (md.code(field), md.cell(kind), _default(default), md.cell(meaning), md.code(value), md.cell(read))
            )
        yield md.table(["key", "type", "default", "meaning", "example", "read by"], lines)
    yield "### What the values of a switch mean"
    switches = ((md.code(f"{field}: {value}"), md.cell(meaning)) for field, values in SWITCHES.items()
                for value, meaning in values.items())  # fmt: skip
    yield md.table(["switch", "what it does"], switches)


SWITCHED = {"harmonise": 90, "roundtrip": "sd15", "flip": True, "shuffle_labels": True, "budget": "steps",
            "class_weights": "equal", "gradients": "summed", "labels": "masks", "epoch_pictures": 256, "crop": "centre",
            "ap_beside": "step", "test_share": 0.3, "head": "mlp", "C": 0.01, "normality": True}  # fmt: skip
"""Examples of fields that no preset changes, or that a preset changes in another kind."""


def _of_presets(presets: list[Protocol], field: str) -> str:
    """Return ``field: value`` as a preset has it, the first that differs from the default."""
    default = Protocol.model_fields[field].default
    found = (one.model_dump(mode="json")[field] for one in presets if getattr(one, field) != default)
    return f"{field}: {_inline(next(found, SWITCHED.get(field, default)))}"


def grid_schema() -> str:
    """Return the JSON Schema of grid files as people write them.

    Pydantic's schema is that of a normalised grid. A file may give a bare name for an entry, one value for a list, a
    preset in place of a protocol, and its own name from the file.
    """
    schema = Grid.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "augbench grid"}
    schema["required"].remove("name")
    definitions = schema["$defs"]
    definitions["DatasetEntry"]["properties"]["root"] = {"type": "string", "description": "the folder of its files"}
    definitions["Protocol"]["properties"]["preset"] = {"enum": preset_names(), "description": "what it changes"}
    definitions["Protocol"]["required"] = ["name"]
    definitions["Protocol"]["properties"]["name"]["examples"] = preset_names()
    definitions["NamedIds"]["properties"]["ids"]["anyOf"] = [
        {"type": "string"}, {"type": "array", "items": {"type": "string"}}]  # fmt: skip
    for name in ("type", "items", "minItems"):
        del definitions["NamedIds"]["properties"]["ids"][name]
    for unit in ("gpu", "memory"):  # sizes such as 8GB are text
        field = definitions["StageResources"]["properties"][unit]
        field["anyOf"] = [*field["anyOf"], *([{"type": "string"}] if unit == "memory" else [])]
    for entry in ("DatasetEntry", "AugmenterEntry", "Protocol"):
        definitions[f"{entry}OrName"] = {"anyOf": [{"$ref": f"#/$defs/{entry}"}, {"type": "string"}]}
    _as_written(schema["properties"])
    _as_written(definitions["DatasetEntry"]["properties"])
    _as_written(definitions["AugmenterEntry"]["properties"])
    definitions["Filters"]["properties"]["unchanged"]["anyOf"].append({"type": "boolean"})
    return json.dumps(schema, indent=1)


AXES = ("datasets", "augmenters", "protocols", "shots", "draws", "folds", "n_aug", "seeds", "adapter_seeds")


def _as_written(properties: dict[str, Any]) -> None:
    """Let an axis be one value, and an entry a bare name."""
    for key in [key for key in AXES if key in properties]:
        field = properties[key]
        branches = field.pop("anyOf", None) or [
            {name: field.pop(name) for name in ("type", "items", "minItems") if name in field}
        ]
        items = next(branch["items"] for branch in branches if branch.get("type") == "array")
        if "$ref" in items:
            items["$ref"] += "OrName"
        field["anyOf"] = [*branches, items]


# -- Python

PYTHON = """
# Python

Everything is in `augbench` itself, and importing it is fast: names are loaded on first use. What a user can get wrong
raises `augbench.UserError`, one line with the way out. What functions return prints as text, and shows tables in a
notebook.

```python
import augbench

grid = "tune_configs/first_look.yaml"
print(augbench.plan(grid, store="runs/first"))  # trainings and images, what is left
augbench.run(grid, store="runs/first", executor="inline")
table = augbench.load_results("runs/first")  # a pandas.DataFrame, one row per training
augbench.compare("runs/first").gains  # one row per difference, with its interval and verdict
```
"""


def python_page() -> str:
    """Return the Python API: every name of `augbench.__all__`, documented by its docstring."""
    homes = {name: getattr(getattr(augbench, name), "__module__", "") for name in augbench.__all__}
    functions = [name for name, home in homes.items() if home == "augbench.api"]
    plugins = [name for name, home in homes.items() if home in ("augbench.core.contracts", "augbench.core.types")]
    others = [name for name, home in homes.items() if home.startswith("augbench.") and name not in functions + plugins]
    columns = ((md.code(name), md.cell(meaning)) for name, meaning in RESULT_COLUMNS.items())
    return "\n\n".join([
        PYTHON.strip(),
        "## Functions",
        *(f"::: augbench.api.{name}" for name in functions),
        "## Columns of `load_results`",
        "Metrics are in [0, 1]; NaN where the task has them not.",
        md.table(["column", "meaning"], columns),
        "## What they return",
        *(f"::: augbench.api.{name}" for name in ("GridPlan", "Run", "Tables", "Comparison")),
        "## Grids, protocols, stores, errors",
        "The keys of a grid and of a protocol: [grid file](grid.md).",
        *(_documented(homes[name], name, members=False) for name in others),
        "## For plug-ins",
        "How to write one: [an augmenter](../howto/augmenter.md), [a dataset](../howto/dataset.md).",
        *(_documented(homes[name], name, members=True) for name in plugins),
    ])  # fmt: skip


def _documented(home: str, name: str, members: bool) -> str:
    options = "" if members else "\n    options: {members: false}"
    return f"::: {home}.{name}{options}"


# -- protocols, store, leaderboard


def protocols_page() -> str:
    """Return every preset: all numbers, each with its source."""
    rows = [[f"[`{name}`](#{name})", *(md.cell(text) for text in rest)]
            for name, *rest in (row.texts for row in protocols_sheet().rows)]  # fmt: skip
    parts = [
        "# Protocols",
        "A protocol says how a classifier is trained and evaluated. Here is every number of every preset, and where it "
        "comes from, as `augbench protocols show NAME` prints it. What kinds there are, and what decides a verdict: "
        "[probes and fine-tuning](../protocols.md).",
        md.table(["preset", "size", "backbone", "training", "AP", "hold-out"], rows),
    ]
    for name in preset_names():
        protocol = load_preset(name)
        values = protocol.model_dump(mode="json")
        fields = [field for group in GROUPS.values() for field in group if field in READ_BY[protocol.kind]]
        lines = [(md.code(field), md.code(_inline(values[field])), md.cell(protocol.source_of(field) or "-"))
                 for field in fields]  # fmt: skip
        parts += [f"## {name} {{ #{name} }}", md.cell(protocol.about)]
        if protocol.superseded_by:
            newer = protocol.superseded_by
            parts.append(f"Superseded by [`{newer}`](#{newer}); kept for what was made with it.")
        parts.append(md.table(["key", "value", "source"], lines))
    return "\n\n".join(part for part in parts if part)


def section(path: str, heading: str) -> str:
    """Return the text below a heading of a page of the repository, up to the next one of its level."""
    content = (REPOSITORY / path).read_text(encoding="utf-8")
    level = heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", content, re.DOTALL | re.MULTILINE)
    if not found:
        raise ValueError(f"{path} has no '{heading}'")
    return found[1].strip()


def store_page() -> str:
    """Return the layout of a store, which the page on architecture defines."""
    return "\n\n".join([
        "# Store layout",
        "What a run writes, and what may be deleted. Stores on object stores: [how to](../howto/store.md).",
        section("docs/design.md", "## The store on disk"),
    ])  # fmt: skip


def leaderboard_page() -> str:
    """Return the overview of the published leaderboard."""
    return "\n\n".join([
        "# Leaderboard",
        "[**Open the page**](leaderboard/index.html): plots, example images, the images that classifiers get wrong, "
        "and the records behind every number. [All tables as text](leaderboard/leaderboard.md). "
        "`augbench leaderboard` makes such a page of your stores: [publish results](howto/publish.md).",
        section("docs/leaderboard/leaderboard.md", "## Overview"),
    ])  # fmt: skip
