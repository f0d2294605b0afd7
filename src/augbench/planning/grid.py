"""Grid files: YAML that describes many cells, validated strictly, with changes by ``--set``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from augbench.core import registry
from augbench.core.errors import UserError, did_you_mean
from augbench.core.hashing import digest
from augbench.core.protocol import Protocol, first_problem, load_preset, make_protocol

NAME = r"^[A-Za-z][A-Za-z0-9_]*$"  # safe in paths, keys and tables
GRID_NAME = NAME[:-1] + r"(\+[0-9a-f]{6})?$"  # --set appends a digest of the changed grid


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


ShotsField = Annotated[int, Field(ge=0)] | Literal["all"]
Axis = BeforeValidator(_one_or_many)
ShotsAxis = Annotated[tuple[ShotsField, ...], Axis, Field(min_length=1)]
CountAxis = Annotated[tuple[Annotated[int, Field(ge=0, le=1_000_000, strict=True)], ...], Axis, Field(min_length=1)]


class _Entry(_Strict):
    """A dataset or augmenter of a grid; a bare name in YAML stands for ``{name: ...}``."""

    name: str = Field(pattern=NAME)
    alias: str = Field(default="", pattern=NAME + "|^$", alias="as")
    settings: dict[str, Any] = {}

    @property
    def label(self) -> str:
        """Its name in tables and keys."""
        return self.alias or self.name


class DatasetEntry(_Entry):
    """One dataset of a grid."""

    folds: CountAxis | None = None  # replaces the grid's folds


class AugmenterEntry(_Entry):
    """One augmenter of a grid, with axes of its own."""

    shots: ShotsAxis | None = None
    n_aug: CountAxis | None = None
    seeds: CountAxis | None = None


def _bytes(value: Any) -> Any:
    """Convert a size such as ``8GB`` or ``512 MiB`` to bytes; return other values unchanged."""
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return value
    number, prefix, binary = found.groups()
    return round(float(number) * (1024 if binary else 1000) ** " KMGT".index((prefix or " ").upper()))


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError(f"{gpus:g} GPUs: a share of one (up to 1), or a whole number of them")
    return gpus


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(I?))?B", re.IGNORECASE)
GpuField = Annotated[float, Field(ge=0, le=1024, allow_inf_nan=False), AfterValidator(_whole_above_one)]
MemoryField = Annotated[int, BeforeValidator(_bytes), Field(ge=1)]


class StageResources(_Strict):
    """Resources of one worker of a stage. ``None`` = derived from the cluster."""

    cpu: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    gpu: GpuField | None = None  # a fraction of one GPU, or an integer
    memory: MemoryField | None = None  # RAM in bytes, or with a unit, as 8GB
    workers: int | None = Field(default=None, ge=1)  # at the same time, over all nodes
    accelerator: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$")  # Ray accelerator type; None: any


class Resources(_Strict):
    """Resources of a run. They are not part of any key: they never change a result."""

    adapt: StageResources = StageResources()  # unset fields as in `generate`; also for searches
    generate: StageResources = StageResources()
    train: StageResources = StageResources()

    @property
    def adapting(self) -> StageResources:
        """`adapt` with unset fields from `generate`."""
        return self.generate.model_copy(update=self.adapt.model_dump(exclude_none=True))


class FidelitySettings(_Strict):
    """How pools are compared with real defects. Not part of any cell's key: it never changes a training."""

    extractor: str = "auto"  # a timm backbone; auto: Inception if its weights are cached, else micro_resnet
    pictures: int | None = Field(default=None, ge=2)  # images per pool; None: the size of the smallest pool


class Grid(_Strict):
    """A validated grid. Its cells are the product of the axes; an entry may override axes."""

    name: str = Field(pattern=GRID_NAME)
    about: str = ""
    datasets: tuple[DatasetEntry, ...] = Field(min_length=1)
    augmenters: tuple[AugmenterEntry, ...] = Field(min_length=1)
    protocols: tuple[Protocol, ...] = Field(min_length=1)
    shots: ShotsAxis = ("all",)
    draws: CountAxis = (0,)
    folds: CountAxis = (0,)
    n_aug: CountAxis = (100,)
    seeds: CountAxis = (0,)
    fresh_pools: bool = False  # a separate pool for each N_aug, as in the papers
    save_weights: bool = False  # save each trained classifier as safetensors
    resources: Resources = Resources()
    fidelity: FidelitySettings | None = FidelitySettings()  # null: fidelity is not computed

    @property
    def base(self) -> str:
        """The name without the suffix of ``--set``."""
        return self.name.partition("+")[0]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values with all protocol fields; inverse of `make_grid`."""
        return self.model_dump(mode="json", by_alias=True)


def load_grid(path: str | Path, changes: Iterable[str] = ()) -> Grid:
    """Read a grid file and apply ``key=value`` changes.

    A store's ``STORE/grids/<name>.json`` is a valid grid file, too: it describes the same cells.

    Raises:
        UserError: no such file, not YAML, an unknown key or name, or a value out of range.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"grid '{path}' is a folder: give a YAML file")
    if not path.is_file():
        raise UserError(f"grid '{path}': no such file (augbench's own grids are in tune_configs/)")
    try:
        raw = _content(path)
    except UnicodeDecodeError:
        raise UserError(f"grid '{path}' is not UTF-8: save it as UTF-8") from None
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        kind = "JSON" if isinstance(error, json.JSONDecodeError) else "YAML"
        raise UserError(f"grid '{path}' is not valid {kind}: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"grid '{path}': expected keys such as datasets, augmenters, protocols at the top")
    raw = _normalise({"name": path.stem, **raw}, str(path))
    as_written = make_grid(raw, str(path))
    for change in changes:
        _apply_change(raw, change)
    grid = make_grid(raw, str(path))
    if _identity(grid) == _identity(as_written):
        return grid
    return grid.model_copy(update={"name": f"{grid.name}+{digest(_identity(grid))[:6]}"})


def _content(path: Path) -> Any:
    """Parse a grid file; of a store's file, return only the grid."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return _UniqueKeys(text).get_single_data()
    content = json.loads(text)
    known = isinstance(content, dict) and {"grid", "cells"} <= content.keys()
    return content["grid"] if known else content


class _UniqueKeys(yaml.SafeLoader):
    """YAML loader that refuses duplicate keys, which YAML silently overwrites."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Construct a mapping; raise if a key occurs twice."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' occurs twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _identity(grid: Grid) -> dict[str, Any]:
    """Return what determines the cells of a grid: no file locations, resources, prose or defaults."""
    content = grid.as_dict()
    del content["resources"], content["save_weights"], content["fidelity"]
    prose = {"about", "sources"}
    content["protocols"] = [p.model_dump(mode="json", exclude=prose, exclude_defaults=True) for p in grid.protocols]
    for entry in content["datasets"]:
        entry["settings"].pop("root", None)
    return content


def make_grid(raw: dict[str, Any], where: str = "grid") -> Grid:
    """Create a `Grid` from JSON values. Raises UserError as `load_grid`."""
    raw = _normalise(raw, where)
    raw["protocols"] = [_protocol(entry) for entry in raw.get("protocols", [])]
    for axis in ("datasets", "augmenters", "protocols"):
        _refuse_repeats(raw.get(axis, []), axis, where)
    try:
        return Grid(**raw)
    except ValidationError as error:
        raise UserError(f"{where}: {first_problem(error, _model_at(error.errors()[0]['loc']))}") from None


def _model_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    """Return the model that owns the field at this location of a validation error."""
    if len(location) > 1 and location[0] == "resources":
        return Resources if len(location) == 2 else StageResources
    if len(location) > 1 and location[0] == "fidelity":
        return FidelitySettings
    nested = {"datasets": DatasetEntry, "augmenters": AugmenterEntry}
    return nested.get(str(location[0]), Grid) if len(location) > 1 else Grid


def _normalise(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """Turn bare names into entries, so that changes and checks handle one form."""
    raw = dict(raw)
    for axis in ("datasets", "augmenters", "protocols"):
        if axis in raw:
            entries = _one_or_many(raw[axis])
            raw[axis] = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
            for entry in raw[axis]:
                if not isinstance(entry, (dict, Protocol)) or (isinstance(entry, dict) and "name" not in entry):
                    raise UserError(f"{where}: {axis}: '{entry}' needs a name")
    return raw


def _protocol(entry: Any) -> Protocol:
    """Return a preset with the fields that the entry changes, or a protocol that the entry defines in full."""
    if isinstance(entry, Protocol):
        return entry
    fields = {key: value for key, value in entry.items() if key not in ("name", "preset")}
    of_training = ("lr", "batch", "epochs") if fields.get("kind", "finetune") == "finetune" else ()
    if {"width", "height", *of_training} <= set(fields):
        return make_protocol({"name": entry["name"], **fields})
    preset = load_preset(entry.get("preset", entry["name"]))
    if "preset" in entry:  # rename the changed preset
        return preset.under_name(entry["name"], **fields)
    return preset.changed(**fields) if fields else preset


def _refuse_repeats(entries: list[Any], axis: str, where: str) -> None:
    labels = [e.name if isinstance(e, Protocol) else (e.get("as") or e["name"]) for e in entries]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"{where}: {axis} names '{label}' twice: give one of them another name with 'as'")


def _apply_change(raw: dict[str, Any], change: str) -> None:
    """Apply one ``a.b.c=value`` (value in YAML) to a normalised grid."""
    path, equals, text = change.partition("=")
    if not equals:
        raise UserError(f"--set '{change}': write key=value, for example --set seeds=[0,1]")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set '{change}': '{text}' is not a YAML value") from None
    head, *rest = path.strip().split(".")
    if head not in Grid.model_fields:
        raise UserError(f"--set '{change}': unknown key '{head}'{did_you_mean(head, Grid.model_fields)}")
    if not rest:
        raw[head] = value
        raw.update(_normalise({head: value}, f"--set '{change}'") if head in _ENTRY_FIELDS else {})
    elif head in _ENTRY_FIELDS:
        _change_entry(raw, head, rest, value, change)
    else:
        _nested(raw, [head, *rest[:-1]], change)[rest[-1]] = value


_ENTRY_FIELDS = {
    "datasets": set(DatasetEntry.model_fields) - {"settings"},
    "augmenters": set(AugmenterEntry.model_fields) - {"settings"},
    "protocols": None,  # flat: no nested settings
}


def _change_entry(raw: dict[str, Any], axis: str, rest: list[str], value: Any, change: str) -> None:
    """Apply ``datasets.NAME.SETTING=value``, ``augmenters.NAME.SETTING=value`` or ``protocols.NAME.FIELD=value``."""
    name, *field = rest
    entries = [e for e in raw.get(axis, []) if name in (e["name"], e.get("as"))]
    if entries and not field:
        raise UserError(f"--set '{change}': name what to change: {axis}.{name}.KEY=VALUE")
    if not entries:
        known = [e.get("as") or e["name"] for e in raw.get(axis, [])]
        raise UserError(f"--set '{change}': the grid has no {axis} entry '{name}'{did_you_mean(name, known)}")
    for entry in entries:
        own = _ENTRY_FIELDS[axis]
        setting = axis != "protocols" and field[0] in registry.get(axis, entry["name"]).Config.model_fields
        flat = own is None or (not setting and field[0] in {*own, "as", "settings"})
        target = entry if flat else entry.setdefault("settings", {})
        _nested(target, field[:-1], change)[field[-1]] = value


def _nested(target: dict[str, Any], path: list[str], change: str) -> dict[str, Any]:
    for step in path:
        target = target.setdefault(step, {})
        if not isinstance(target, dict):
            raise UserError(f"--set '{change}': '{step}' has no keys inside")
    return target
