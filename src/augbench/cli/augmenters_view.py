"""Print `augbench augmenters list` and `show`."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from augbench.cli.plugin_lists import plugins_sheet
from augbench.core import registry
from augbench.core.contracts import Augmenter, Shots
from augbench.core.errors import UserError
from augbench.core.guard import calling, overrides
from augbench.diffusion.pipelines import find
from augbench.report.sheet import Sheet

REGIMES: dict[str, Shots] = {"zero-shot": 0, "few-shot": 5, "full-shot": "all"}
LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
WIDEST = 120  # columns
WIDE = 110  # from here on the table of settings has five columns, below it three
OR_NONE = " | none"
LABEL = 10  # columns of a fact's label
NARROW = 19  # columns of type and default at most
RATIOS = {"meaning": 3, "source": 2, "meaning, source": 1}  # share of the width that is left


# -- list


def augmenters_sheet() -> Sheet:
    """Return one row per augmenter: title, what it reads, whether it learns, whether it is a control or cannot run."""
    columns = ["augmenter", "title", "reads at 0 / some shots", "learns", "status"]
    return plugins_sheet("augmenters", columns, _row)


def _row(plugin: type[Augmenter]) -> tuple[str, ...]:
    status = "planned only" if _planned_only(plugin) else "control" if plugin.control else "ready"
    return plugin.title, _reads_in_short(plugin), "yes" if plugin.learns else "-", status


def _has_defaults(plugin: type[Augmenter]) -> bool:
    """Whether it can be constructed without settings."""
    return not any(field.is_required() for field in plugin.Config.model_fields.values())


def _is_mixture(plugin: type[Augmenter]) -> bool:
    return overrides(plugin, "parts")


def _planned_only(plugin: type[Augmenter]) -> bool:
    """Whether it, or one of its parts, cannot run yet."""
    parts = _make(plugin.name, {}).parts() if _has_defaults(plugin) else ()
    return bool(plugin.not_runnable) or any(_planned_only(registry.get("augmenters", p.augmenter)) for p in parts)


def _reads_in_short(plugin: type[Augmenter]) -> str:
    if not plugin.makes_images:
        return "-"
    if _is_mixture(plugin):
        return "what its parts read"
    if not _has_defaults(plugin):
        return "as its settings say"
    zero, some = (", ".join(sorted(_make(plugin.name, {}).reads(shots))) for shots in (0, "all"))
    return zero if zero == some else f"{zero} / {some}"


# -- show


def show_augmenter(name: str, console: Console) -> None:
    """Print what is known about an augmenter without running it or using the network.

    Raises:
        UserError: no such augmenter.
    """
    plugin = registry.get("augmenters", name)
    width = min(console.width, WIDEST)
    console.print(Text.assemble((plugin.title or name, "bold"), f" ({name})"), width=width)
    if plugin.__doc__:
        console.print(Text(_first_line(plugin)), width=width)
    facts = Table.grid(padding=(0, 1))
    facts.add_column(width=LABEL)
    facts.add_column()
    for label, text in facts_of(plugin):
        facts.add_row(label, Text(text))
    console.print(Padding(facts, (1, 0)), width=width)
    if not plugin.Config.model_fields:
        _print("Settings: none", console)
        return
    _print(f"Settings (under `settings` in a grid, or --set augmenters.{name}.KEY=VALUE):", console)
    with calling(plugin, "Config"):  # defaults may be made by its code
        settings = _settings_table(plugin.Config, width)
    console.print(settings)
    for config, keys in nested_settings(plugin.Config).items():
        _print(f"Settings inside {' and '.join(', '.join(keys).rsplit(', ', 1))}:", console)
        console.print(_settings_table(config, width))


def _print(line: str, console: Console) -> None:
    console.print(line, markup=False, highlight=False)


def _first_line(plugin: Any) -> str:
    """Return the first line of a class's or method's own docstring, without markup."""
    lines = inspect.cleandoc(plugin.__doc__ or "").splitlines() or ["-"]
    return lines[0].replace("``", "'").replace("`", "'")


def facts_of(plugin: type[Augmenter]) -> Iterator[tuple[str, str]]:
    """Yield label and text of each line above the table of settings."""
    made = _make(plugin.name, {}) if _has_defaults(plugin) else None
    yield "paper:", plugin.paper or "-"
    yield "licence:", plugin.licence or "not stated"
    if plugin.control:
        yield "control:", plugin.control
    yield "tasks:", ", ".join(sorted((made or plugin).tasks))
    parts = made.parts() if made else ()
    if parts:
        yield "parts:", ", ".join(f"{part.augmenter} (share {part.share:g})" for part in parts)
    for label, shots in REGIMES.items():
        yield f"{label}:", _regime(plugin, made, shots)
    nothing = "what its parts need" if _is_mixture(plugin) else "nothing besides the dataset"
    for number, need in enumerate([*_needs(plugin, made)] or [nothing]):
        yield "" if number else "needs:", need
    adapter = "trained before generation" if plugin.learns else "none: nothing is trained"
    yield "adapter:", "those of its parts" if _is_mixture(plugin) else adapter
    yield "search:", "those of its parts" if _is_mixture(plugin) else _search(plugin, made)


def _regime(plugin: type[Augmenter], made: Augmenter | None, shots: Shots) -> str:
    """Return what an augmenter reads in a shot regime, and what to know about it there."""
    if made is None:
        return "depends on its settings"
    if reason := made.refuses(shots):
        return f"not supported: {reason}"
    if not plugin.makes_images:
        return "reads nothing and makes no images (N_aug is 0)"
    if parts := made.parts():
        found = "; ".join(f"{p.augmenter} reads {_read(_make(p.augmenter, p.settings), shots)}" for p in parts)
    else:
        found = f"reads {_read(made, shots)}"
    note = made.notes(shots) if overrides(plugin, "notes") else ""  # else its line `control` says so
    return f"{found} (note: {note})" if note else found


def _make(name: str, settings: Any) -> Augmenter:
    return registry.make("augmenters", name, dict(settings))


def _read(augmenter: Augmenter, shots: Shots) -> str:
    return ", ".join(sorted(augmenter.reads(shots))) or "nothing"


def _needs(plugin: type[Augmenter], made: Augmenter | None) -> Iterator[str]:
    """Yield what an augmenter needs besides images of the dataset."""
    if plugin.not_runnable:
        yield f"cannot run yet: {plugin.not_runnable}"
    required = [key for key, field in plugin.Config.model_fields.items() if field.is_required()]
    if required:
        yield f"the setting{'s' if len(required) > 1 else ''} {', '.join(required)}, without default"
    if made is not None and any({"masks", "regions"} & made.reads(shots) for shots in REGIMES.values()):
        yield f"a dataset with masks; without: {plugin.without_masks}"
    name = getattr(made.config, "bundle", None) if made else None
    if isinstance(name, str) and (pipeline := _pipeline(name)):
        yield pipeline
    if made is not None and made.embedded():
        yield 'smoke-test weights of this package: results are labelled "smoke-test parts: not evidence"'
    if plugin.uses_gpu:
        yield "a GPU if there is one; it also runs on CPUs"
    if overrides(plugin, "ready"):
        yield f"before a run: {_first_line(plugin.ready)}"
    if overrides(plugin, "capacity"):
        yield f"limited number of images: {_first_line(plugin.capacity)}"


def _pipeline(name: str) -> str:
    """Describe the pipeline of that name, without the network; "" if there is none."""
    try:
        source = find(name)
    except UserError:
        return ""
    where = f"huggingface.co/{source.location}" if source.revision else f"folder {source.location}"
    return f"pipeline {name} ({source.title}, {source.size} x {source.size}): {where}"


def _search(plugin: type[Augmenter], made: Augmenter | None) -> str:
    if not overrides(plugin, "candidates"):
        return "none"
    number = len(made.candidates()) if made else 0
    return f"{number} candidates by default" if number else "possible, off by default"


# -- settings


def _settings_table(config: type[BaseModel], width: int) -> Table:
    """Return one row per setting: name, type, default, meaning, source.

    In a narrow terminal the default stands below the type, and the source below the meaning.
    """
    wide = width >= WIDE
    between = ("type", "default", "meaning", "source") if wide else ("type, default", "meaning, source")
    table = Table(box=box.SIMPLE_HEAD, width=width)
    for head in ("setting", *between):
        ratio = RATIOS.get(head)
        most = None if ratio or head == "setting" else NARROW
        table.add_column(head, no_wrap=head == "setting", overflow="fold", ratio=ratio, max_width=most)
    for key, kind, default, meaning, source in settings_rows(config):
        if wide:
            table.add_row(*(Text(cell) for cell in (key, kind, default, meaning, source)))
        else:
            table.add_row(Text(key), Text(f"{kind}\n{default}"), Text.assemble(meaning, "\n", (f"[{source}]", "dim")))
    return table


def settings_rows(config: type[BaseModel]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield name, type with limits, default, meaning and source of each setting, as a grid spells them."""
    for key, field in config.model_fields.items():
        yield field.alias or key, _type(field), _default(field), field.description or "-", _source(field)


def _source(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("source", "-")) if isinstance(extra, dict) else "-"


def nested_settings(config: type[BaseModel]) -> dict[type[BaseModel], list[str]]:
    """Return the settings classes inside a config, each with the settings of that class."""
    found: dict[type[BaseModel], list[str]] = {}
    for key, field in config.model_fields.items():
        for inner in _settings_classes(field.annotation):
            found.setdefault(inner, []).append(key)
    return found


def _settings_classes(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _settings_classes(inner)


def _type(field: FieldInfo) -> str:
    """Return the type of a setting with its limits, such as ``int >= 1``."""
    name, limits = _type_name(field.annotation), _limits(field.metadata)
    return f"{name.removesuffix(OR_NONE)}{limits}{OR_NONE}" if name.endswith(OR_NONE) else f"{name}{limits}"


def _type_name(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return f"{_type_name(inner[0])}{_limits(_flat(inner[1:]))}"
    if origin is Literal:
        return " | ".join(str(value) for value in inner)
    if origin in (Union, types.UnionType):
        return " | ".join("none" if one is type(None) else _type_name(one) for one in inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return f"list of {_type_name(inner[0])}"
    if origin is tuple:
        return f"{len(inner)} x {_type_name(inner[0])}"
    kind = origin or annotation
    if not inspect.isclass(kind):
        return str(annotation).removeprefix("typing.")
    if issubclass(kind, BaseModel | dict):
        return "settings"
    return "path" if issubclass(kind, Path) else kind.__name__


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    """Return the limits in the metadata of an ``Annotated`` type, where a ``Field`` holds several."""
    return [limit for one in metadata for limit in (one.metadata if isinstance(one, FieldInfo) else [one])]


def _limits(metadata: list[Any]) -> str:
    found = ((sign, getattr(one, name, None)) for one in metadata for name, sign in LIMITS.items())
    limits = ", ".join(f"{sign} {limit:g}" for sign, limit in found if limit is not None)
    return f" {limits}" if limits else ""


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else _short(field.get_default(call_default_factory=True))


def _short(value: Any) -> str:
    """Return a default as it would stand in a grid; of nested settings only what differs from their own defaults."""
    if isinstance(value, BaseModel):
        changed = value.model_dump(exclude_defaults=True)
        return ", ".join(f"{key}: {_short(one)}" for key, one in changed.items()) or "{}"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value or "''"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_short(one) for one in value)}]"
    if isinstance(value, bool | dict):
        return yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
    return str(value)
