"""Grid files: YAML that describes many cells, validated strictly, with changes by ``--set``."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError

from augbench.core import registry
from augbench.core.documents import Document, parse_value, parse_yaml
from augbench.core.errors import UserError, brief, did_you_mean
from augbench.core.filters import Filters
from augbench.core.hashing import canonical_json, digest
from augbench.core.models import NamedIds, StrictModel, first_problem, needs_quotes
from augbench.core.protocol import UNKEYED, Protocol, load_preset, make_protocol

NAME = r"^[A-Za-z][A-Za-z0-9_]*$"  # safe in paths, keys and tables
GRID_NAME = NAME[:-1] + r"(\+[0-9a-f]{6})?$"  # --set appends a digest of the changed grid


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


ShotsField = Annotated[int, Field(ge=0)] | Literal["all"] | NamedIds
Axis = BeforeValidator(_one_or_many)
ShotsAxis = Annotated[tuple[ShotsField, ...], Axis, Field(min_length=1)]
CountAxis = Annotated[tuple[Annotated[int, Field(ge=0, le=1_000_000, strict=True)], ...], Axis, Field(min_length=1)]


class _Entry(StrictModel):
    """A dataset or augmenter of a grid; a bare name in YAML stands for ``{name: ...}``."""

    name: str = Field(pattern=NAME, description="of the plug-in", examples=["memseg"])
    alias: str = Field(
        default="", pattern=NAME + "|^$", alias="as", description="its name in tables and keys", examples=["structure"]
    )
    settings: dict[str, Any] = Field({}, description="of the plug-in", examples=[{"texture_share": 0.0}])

    @property
    def label(self) -> str:
        """Its name in tables and keys."""
        return self.alias or self.name


class DatasetEntry(_Entry):
    """One dataset of a grid."""

    folds: CountAxis | None = Field(None, description="in place of the grid's folds", examples=[[0, 1, 2, 3, 4]])


class AugmenterEntry(_Entry):
    """One augmenter of a grid, with axes of its own."""

    null_of: tuple[str, ...] = Field(
        (),
        description="augmenters of the grid whose gains this one, which shows no defect, must not have",
        examples=[["diag"]],
    )
    filters: Filters = Field(
        Filters(),
        description="which of its images are dropped and made again; by default none",
        examples=[{"unchanged": True, "memorised": True}],
    )

    shots: ShotsAxis | None = Field(None, description="in place of the grid's shots", examples=[[0, "all"]])
    n_aug: CountAxis | None = Field(None, description="in place of the grid's n_aug", examples=[80])
    seeds: CountAxis | None = Field(None, description="in place of the grid's seeds", examples=[[0, 1]])


def _bytes(value: Any) -> Any:
    """Convert a size such as ``8GB`` or ``512 MiB`` to bytes; return other values unchanged."""
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return value
    number, prefix, binary = found.groups()
    return round(float(number) * (1024 if binary else 1000) ** " KMGT".index((prefix or " ").upper()))


def _from_truth_value(value: Any) -> Any:
    """Read ``save_weights`` of older grids, which was true or false."""
    return ("last" if value else "none") if isinstance(value, bool) else value


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError(f"{gpus:g} GPUs: a share of one (up to 1), or a whole number of them")
    return gpus


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(I?))?B", re.IGNORECASE)
GpuField = Annotated[float, Field(ge=0, le=1024, allow_inf_nan=False), AfterValidator(_whole_above_one)]
MemoryField = Annotated[int, BeforeValidator(_bytes), Field(ge=1)]
SaveWeights = Annotated[Literal["last", "none"], BeforeValidator(_from_truth_value)]


class StageResources(StrictModel):
    """Resources of one worker of a stage. ``None`` = derived from the cluster."""

    cpu: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="CPU cores", examples=[4])
    gpu: GpuField | None = Field(None, description="a share of one GPU, or a whole number of them", examples=[0.25])
    memory: MemoryField | None = Field(None, description="main memory in bytes, or with a unit", examples=["8GB"])
    workers: int | None = Field(default=None, ge=1, description="at the same time, over all machines", examples=[4])
    accelerator: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_.-]+$", description="kind of GPU, as Ray calls it", examples=["A100"]
    )


class Resources(StrictModel):
    """Resources of a run. They are not part of any key: they never change a result."""

    adapt: StageResources = Field(
        StageResources(),
        description="of adaptations and searches; what is not set is as in generate",
        examples=[{"gpu": 1, "memory": "32GB"}],
    )
    generate: StageResources = Field(
        StageResources(), description="of generators of images", examples=[{"gpu": 0.5, "workers": 4}]
    )
    train: StageResources = Field(StageResources(), description="of trainings", examples=[{"gpu": 0.25}])

    @property
    def adapting(self) -> StageResources:
        """`adapt` with unset fields from `generate`."""
        return self.generate.model_copy(update=self.adapt.model_dump(exclude_none=True))


class FidelitySettings(StrictModel):
    """How pools are compared with real defects. Not part of any cell's key: it never changes a training."""

    extractor: str = Field(
        "auto",
        description="a timm backbone; auto: Inception if its weights are cached, else micro_resnet",
        examples=["inception_v3.tf_in1k"],
    )
    pictures: int | None = Field(
        default=None, ge=2, description="images of each pool; none: the size of the smallest pool", examples=[100]
    )
    layers: tuple[Literal[64, 192], ...] = Field(
        (), description="max-pooling layers of Inception, by their features: FID on each, too", examples=[[64, 192]]
    )


class Grid(StrictModel):
    """A validated grid. Its cells are the product of the axes; an entry may override axes."""

    name: str = Field(
        pattern=GRID_NAME, description="of reports; by default the file's name without suffix", examples=["my_grid"]
    )
    about: str = Field("", description="one line that reports begin with", examples=["What does MemSeg add?"])
    datasets: tuple[DatasetEntry, ...] = Field(
        min_length=1,
        description="names, or entries with settings",
        examples=[["elpv", {"name": "folder", "as": "bottles", "root": "/data/bottles"}]],
    )
    augmenters: tuple[AugmenterEntry, ...] = Field(
        min_length=1,
        description="names, or entries with settings",
        examples=[["none", {"name": "memseg", "as": "structure", "settings": {"texture_share": 0.0}}]],
    )
    protocols: tuple[Protocol, ...] = Field(
        min_length=1,
        description="presets, presets with other values, or protocols of your own",
        examples=[["probe", {"name": "larger", "preset": "probe", "width": 384, "height": 384}]],
    )
    shots: ShotsAxis = Field(
        ("all",), description="real defect images in training, or their ids: {ids: FILE}", examples=[[0, 5, "all"]]
    )
    draws: CountAxis = Field((0,), description="which ones: draws of the shots", examples=[[0, 1, 2]])
    folds: CountAxis = Field(
        (0,), description="of datasets without an official split; numbers are averages over them", examples=[[0, 1, 2]]
    )
    n_aug: CountAxis = Field((100,), description="synthetic images added", examples=[[80, 100, 120]])
    seeds: CountAxis = Field((0,), description="of pools and trainings", examples=[[0, 1, 2, 3]])
    adapter_seeds: CountAxis = Field(
        (0,),
        description="adapters of each augmenter that learns: one in the papers; several add their variance",
        examples=[[0, 1]],
    )
    fresh_pools: bool = Field(False, description="a separate pool for each N_aug, as in the papers", examples=[True])
    save_weights: SaveWeights = Field(
        "none",
        description="last: each trained classifier as safetensors, after its last epoch, never a chosen one",
        examples=["last"],
    )
    resources: Resources = Field(
        Resources(),
        description="what a worker of each stage reserves; it changes no result",
        examples=[{"train": {"gpu": 0.25}}],
    )
    fidelity: FidelitySettings | None = Field(
        FidelitySettings(),
        description="how pools are compared with real defects; null: not at all. It changes no training",
        examples=[{"extractor": "inception_v3.tf_in1k", "pictures": 100}],
    )
    _former: Grid | None = PrivateAttr(None)

    @property
    def base(self) -> str:
        """The name without the suffix of ``--set``."""
        return self.name.partition("+")[0]

    @property
    def former(self) -> Grid | None:
        """The same grid with protocols called as earlier versions called them; None if their names are the same.

        A field with the preset's own value changes nothing, and so it is not part of a protocol's name. It used to be,
        and names are part of keys: stores that hold such keys go on with them, see `planning.plan.make_plan`.
        """
        return self._former

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values with all protocol fields; inverse of `make_grid`."""
        return self.model_dump(mode="json", by_alias=True)


GridLike = Grid | Mapping[str, Any] | str | Path
"""A grid, its content, or its file."""

NAMELESS = "grid"


def is_grid_file(grid: str | None) -> bool:
    """Whether what names a grid is a file, not a grid of a store."""
    return grid is not None and (grid.endswith((".yaml", ".yml", ".json")) or Path(grid).is_file())


def load_grid(source: GridLike, changes: Iterable[str] = ()) -> Grid:
    """Read a grid and apply ``key=value`` changes.

    Args:
        source: a grid file; or its content as a dict, whose ``name`` is `NAMELESS` where it has none; or a `Grid`,
            which is returned as it is. A store's ``STORE/grids/<name>.json`` is a valid grid file, too: it describes
            the same cells.
        changes: as ``--set`` has them, for example ``seeds=[0,1]`` or ``augmenters.memseg.n_aug=50``.

    Raises:
        UserError: no such file, not YAML, an unknown key or name, a value out of range, or changes to a `Grid`.
    """
    if isinstance(source, Grid):
        if changes := list(changes):
            raise UserError(f"grid '{source.name}': '{changes[0]}' changes a file or a dict: load the grid with it")
        return source
    if isinstance(source, Mapping):
        document, name = Document(dict(source), "grid"), NAMELESS
    else:
        path = Path(source)
        if path.is_dir():
            raise UserError(f"grid '{path}' is a folder: give a YAML file")
        if not path.is_file():
            raise UserError(f"grid '{path}': no such file (augbench's own grids are in tune_configs/)")
        document, name = _content(path), path.stem
    if not isinstance(document.value, dict):
        raise UserError(f"{document.where}: expected keys such as datasets, augmenters, protocols at the top")
    written = _normalise({"name": name, **document.value}, document)
    _check_settings(_make(written, document), document)
    changed = copy.deepcopy(written)
    for change in changes:
        _apply_change(changed, change)
    after = document if changed == written else Document(changed, document.where)
    grid, former = (
        _with_digest(_make(changed, after, spelled), _make(written, document, spelled)) for spelled in (False, True)
    )
    if [one.name for one in former.protocols] != [one.name for one in grid.protocols]:
        grid._former = former
    return grid


def _with_digest(grid: Grid, as_written: Grid) -> Grid:
    """Append a digest to the name of a grid whose cells --set changed."""
    if _identity(grid) == _identity(as_written):
        return grid
    return grid.model_copy(update={"name": f"{grid.name}+{digest(_identity(grid))[:6]}"})


def _content(path: Path) -> Document:
    """Parse a grid file; of a store's file, take only the grid."""
    where = f"grid '{path}'"
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{where} is not UTF-8: save it as UTF-8") from None
    if path.suffix != ".json":
        return parse_yaml(text, where)
    try:
        content = json.loads(text, object_pairs_hook=_unique)
        canonical_json(content).encode()  # refuses NaN, infinity and halves of surrogate pairs
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON: {' '.join(str(error).split())[:200]}") from None
    known = isinstance(content, dict) and {"grid", "cells"} <= content.keys()
    return Document(content["grid"] if known else content, where)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse repeated keys, which JSON readers silently overwrite."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"key '{Counter(key for key, _ in pairs).most_common(1)[0][0]}' occurs twice")
    return found


def _identity(grid: Grid) -> dict[str, Any]:
    """Return what determines the cells of a grid: no file locations, resources, prose of protocols or defaults.

    The grid's ``about`` counts, although it changes no cell: stores hold grids by the names that follow from it.
    """
    content = grid.as_dict()
    del content["resources"], content["save_weights"], content["fidelity"]
    for entry, own in zip(content["augmenters"], grid.augmenters, strict=True):
        del entry["null_of"], entry["filters"]
        entry |= {"filters": own.filters.as_dict()} if own.filters.names else {}  # as in names older than filters
    if grid.adapter_seeds == (0,):  # no entry for one adapter, as in names older than this axis
        del content["adapter_seeds"]
    prose = set(UNKEYED)
    content["protocols"] = [p.model_dump(mode="json", exclude=prose, exclude_defaults=True) for p in grid.protocols]
    for entry in content["datasets"]:
        entry["settings"].pop("root", None)
    return content


def make_grid(raw: dict[str, Any], where: str = "grid") -> Grid:
    """Create a `Grid` from JSON values. Raises UserError as `load_grid`."""
    return _make(raw, Document(raw, where))


def _make(raw: dict[str, Any], document: Document, spelled: bool = False) -> Grid:
    """Create a `Grid`; ``spelled``: with protocols called as earlier versions called them, see `Grid.former`."""
    raw = _normalise(raw, document)
    raw["protocols"] = [
        _protocol(entry, document.at(("protocols", number))[0], spelled)
        for number, entry in enumerate(raw.get("protocols", []))
    ]
    for axis in ("datasets", "augmenters", "protocols"):
        _refuse_repeats(raw.get(axis, []), axis, document)
    try:
        grid = Grid.model_validate(raw)
    except ValidationError as error:
        _refuse(error, raw, document)
    _refuse_unknown_nulls(grid, document)
    _refuse_judges_that_filter(grid, document)
    return grid


def _refuse_judges_that_filter(grid: Grid, document: Document) -> None:
    """Refuse a filter with the architecture of an evaluating backbone: it would select what that backbone likes."""
    protocols = {protocol.backbone.partition(".")[0]: protocol.name for protocol in grid.protocols}
    for number, entry in enumerate(grid.augmenters):
        unseen = entry.filters.unseen
        if unseen and (architecture := unseen.backbone.partition(".")[0]) in protocols:
            place, _ = document.at(("augmenters", number, "filters", "unseen", "backbone"))
            raise UserError(
                f"{place}: filters.unseen.backbone: protocol '{protocols[architecture]}' evaluates with "
                f"'{architecture}' too, so it would choose its own training images: name another backbone"
            )


def _refuse_unknown_nulls(grid: Grid, document: Document) -> None:
    null_of: dict[str, str] = {}
    for number, entry in enumerate(grid.augmenters):
        others = [one.label for one in grid.augmenters if one is not entry]
        for name in entry.null_of:
            place, _ = document.at(("augmenters", number, "null_of"))
            if name not in others:
                raise UserError(f"{place}: null_of: '{name}' is no other augmenter here{did_you_mean(name, others)}")
            if name in null_of:
                raise UserError(f"{place}: null_of: '{name}' has '{null_of[name]}' already: it can have one null")
            null_of[name] = entry.label


def _refuse(error: ValidationError, raw: dict[str, Any], document: Document) -> NoReturn:
    location = error.errors()[0]["loc"]
    place, written = document.at(location)
    match location:
        case str(axis), int(number), str(key) if (
            axis in registry.PLUGIN_KINDS and error.errors()[0]["type"] == "extra_forbidden"
        ):
            plugin = registry.find(axis).get(raw[axis][number]["name"])
            if plugin is not None and key in plugin.Config.model_fields:
                raise UserError(
                    f"{place}: '{key}' is a setting of '{plugin.name}': write settings: {{{key}: ...}}"
                ) from None
    raise UserError(f"{place}: {first_problem(error, Grid, written)}") from None


def _check_settings(grid: Grid, document: Document) -> None:
    """Validate the settings of plug-ins where their place in the file is known."""
    for axis, entries in (("datasets", grid.datasets), ("augmenters", grid.augmenters)):
        for number, entry in enumerate(entries):
            if (plugin := registry.find(axis).get(entry.name)) is None:
                continue  # planning names it
            try:
                registry.configure(plugin, entry.settings)
            except ValidationError as error:
                place, written = document.at((axis, number, "settings", *error.errors()[0]["loc"]))
                problem = first_problem(error, plugin.Config, written)
                raise UserError(f"{place}: {axis}.{entry.label}: {problem}") from None


def _normalise(raw: dict[str, Any], document: Document) -> dict[str, Any]:
    """Turn bare names into entries, so that changes and checks handle one form; ``root`` is a setting of a dataset."""
    raw = dict(raw)
    for axis in ("datasets", "augmenters", "protocols"):
        if axis in raw:
            entries = [{"name": entry} if _is_scalar(entry) else entry for entry in _one_or_many(raw[axis])]
            for number, entry in enumerate(entries):
                _check_name(entry, axis, number, document)
            raw[axis] = [_with_root(entry) for entry in entries] if axis == "datasets" else entries
    return raw


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float))


def _check_name(entry: Any, axis: str, number: int, document: Document) -> None:
    if isinstance(entry, Protocol):
        return
    if not isinstance(entry, dict) or "name" not in entry:
        raise UserError(f"{document.at((axis, number))[0]}: {axis}: '{brief(entry)}' needs a name")
    for key in ("name", "as", "preset"):
        value = entry.get(key, "")
        if not isinstance(value, str):
            place, written = document.at((axis, number, key))
            what = needs_quotes(value, written) if _is_scalar(value) else f"a name is expected (got {brief(value)})"
            raise UserError(f"{place}: {axis}: '{key}': {what}")


def _with_root(entry: dict[str, Any]) -> dict[str, Any]:
    settings = entry.get("settings", {})
    if "root" not in entry or not isinstance(settings, dict) or "root" in settings:
        return entry
    return {**{k: v for k, v in entry.items() if k != "root"}, "settings": {**settings, "root": entry["root"]}}


def _protocol(entry: Any, place: str = "", spelled: bool = False) -> Protocol:
    """Return a preset with the fields that the entry changes, or a protocol that the entry defines in full.

    ``spelled``: its name lists fields with the preset's own value, too.
    """
    if isinstance(entry, Protocol):
        return entry
    try:
        fields = {key: value for key, value in entry.items() if key not in ("name", "preset")}
        of_training = ("lr", "batch", "epochs") if fields.get("kind", "finetune") == "finetune" else ()
        if {"width", "height", *of_training} <= set(fields):
            return make_protocol({"name": entry["name"], **fields})
        preset = load_preset(entry.get("preset", entry["name"]))
        if "preset" in entry:  # rename the changed preset
            return preset.under_name(entry["name"], **fields)
        changed = preset.changed(**fields)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    if spelled:
        return changed if fields else preset
    own = {key: value for key, value in fields.items() if getattr(changed, key) != getattr(preset, key)}
    return preset.changed(**own) if own else preset


def _refuse_repeats(entries: list[Any], axis: str, document: Document) -> None:
    labels = [e.name if isinstance(e, Protocol) else (e.get("as") or e["name"]) for e in entries]
    for number, label in enumerate(labels):
        if label in labels[:number]:
            way_out = "with 'as'" if axis != "protocols" else f"{{name: NEW, preset: {label}, ...}}"
            place, _ = document.at((axis, number))
            raise UserError(f"{place}: {axis} names '{label}' twice: give one of them another name {way_out}")


def _apply_change(raw: dict[str, Any], change: str) -> None:
    """Apply one ``a.b.c=value`` (value in YAML) to a normalised grid."""
    path, equals, text = change.partition("=")
    change = brief(change)  # for messages
    if not equals:
        raise UserError(f"--set '{change}': write key=value, for example --set seeds=[0,1]")
    value = parse_value(text, f"--set '{change}'")
    head, *rest = path.strip().split(".")
    if head not in Grid.model_fields:
        raise UserError(f"--set '{change}': unknown key '{head}'{did_you_mean(head, Grid.model_fields)}")
    if not rest:
        raw[head] = value
        raw.update(_normalise(raw, Document(raw, f"--set '{change}'")) if head in _ENTRY_FIELDS else {})
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
    labels = [e.get("as") or e["name"] for e in raw.get(axis, [])]
    names = labels if name in labels else [e["name"] for e in raw.get(axis, [])]  # one of the grid, else of the plug-in
    entries = [e for e, own in zip(raw.get(axis, []), names, strict=True) if own == name]
    if entries and not field:
        raise UserError(f"--set '{change}': name what to change: {axis}.{name}.KEY=VALUE")
    if not entries:
        raise UserError(f"--set '{change}': the grid has no {axis} entry '{name}'{did_you_mean(name, labels)}")
    for entry in entries:
        own = _ENTRY_FIELDS[axis]
        setting = axis != "protocols" and field[0] in registry.get(axis, entry["name"]).Config.model_fields
        flat = own is None or (not setting and field[0] in {*own, "as", "settings"})
        target = entry if flat else entry.setdefault("settings", {})
        _nested(target, field[:-1], change)[field[-1]] = value


def _nested(target: Any, path: list[str], change: str) -> dict[str, Any]:
    for step in (*path, None):
        if not isinstance(target, dict):
            raise UserError(f"--set '{change}': there are no keys inside of {brief(target)}")
        if step is not None:
            target = target.setdefault(step, {})
    return target
