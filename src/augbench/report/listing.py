"""What `augbench list` and `augbench datasets check` print."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from augbench.core import plugins
from augbench.core.contracts import GOOD, Augmenter, Dataset
from augbench.core.errors import UserError
from augbench.core.library import open_dataset
from augbench.core.protocol import load_preset, preset_names
from augbench.core.specs import DataSpec
from augbench.core.splits import checked_samples, make_split


def listing(what: str) -> Table:
    """A table of all datasets, augmenters or protocols."""
    return {"datasets": _datasets, "augmenters": _augmenters, "protocols": _protocols}[what]()


def _table(*columns: str) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD)


def _datasets() -> Table:
    table = _table("dataset", "title", "split", "licence")
    for name, plugin in plugins.find("datasets").items():
        folds = plugin.folds if isinstance(plugin.folds, int) else "yours"
        split = "official" if folds == 0 else "yours" if folds == "yours" else f"{folds} grouped folds"
        table.add_row(name, plugin.title, split, plugin.licence)
    return table


def _augmenters() -> Table:
    table = _table("augmenter", "title", "reads at 0 / some shots", "learns", "status")
    for name, plugin in plugins.find("augmenters").items():
        status = "planned only" if _planned_only(plugin) else "ready"
        table.add_row(name, plugin.title, _reads(plugin), "yes" if plugin.learns else "-", status)
    return table


def _takes_defaults(plugin: type[Augmenter]) -> bool:
    """Whether it can be made without settings."""
    return not any(field.is_required() for field in plugin.Config.model_fields.values())


def _planned_only(plugin: type[Augmenter]) -> bool:
    """Whether it, or a part of it, cannot run yet."""
    parts = plugin().parts() if _takes_defaults(plugin) else ()
    return bool(plugin.not_runnable) or any(_planned_only(plugins.get("augmenters", p.augmenter)) for p in parts)


def _reads(plugin: type[Augmenter]) -> str:
    if not plugin.makes_images:
        return "-"
    if plugin.parts is not Augmenter.parts:
        return "what its parts read"
    if not _takes_defaults(plugin):
        return "as its settings say"
    zero, some = (", ".join(sorted(plugin().reads(shots))) for shots in (0, "all"))
    return zero if zero == some else f"{zero} / {some}"


def _protocols() -> Table:
    table = _table("protocol", "size", "backbone", "training", "AP", "hold-out")
    for name in preset_names():
        p = load_preset(name)
        training = f"{p.optimiser} {p.lr:g}, batch {p.batch}, {p.epochs} epochs, {p.sampler}"
        holdout = f"{p.holdout:.0%} of negatives" if p.holdout else "none"
        table.add_row(name, f"{p.width} x {p.height}", f"{p.backbone} ({p.weights})", training, p.ap, holdout)
    return table


def check_dataset(name: str, root: Path | None, changes: Iterable[str], console: Console) -> list[str]:
    """Count, read every picture and mask once, and print what was found. Returns the problems, one sentence each.

    Raises:
        UserError: the dataset's files are not there at all.
    """
    settings = {"root": str(root)} if root else {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"--set '{change}': write key=value")
        settings[key] = yaml.safe_load(value)
    dataset = open_dataset(name, settings)
    table = checked_samples(dataset)
    counts = table.groupby(["split", "label"]).agg(pictures=("id", "size"), groups=("group", "nunique")).reset_index()
    shown = _table("split", "label", "pictures", "groups")
    for row in counts.itertuples():
        shown.add_row(row.split or "by fold", row.label, str(row.pictures), str(row.groups))
    console.print(shown)
    for name, what in dataset.known.items():
        console.print(f"known: '{name}': {what}", markup=False, highlight=False, soft_wrap=True)
    problems = dataset.check() + _split_problems(dataset) + _read_all(dataset)
    for problem in problems:
        console.print(f"problem: {problem}", markup=False, highlight=False, soft_wrap=True)
    if not problems:
        console.print(f"{len(table)} pictures, {table['group'].nunique()} groups: all is well", highlight=False)
    return problems


def _split_problems(dataset: Dataset) -> list[str]:
    """Whether every fold can be trained and judged."""
    problems = []
    for fold in range(dataset.folds) if dataset.folds else (None,):
        spec = DataSpec(dataset.name, dataset.name, {}, "", fold, 0.0)
        try:
            make_split(dataset, spec)
        except UserError as error:
            problems.append(str(error))
    return problems


def _read_all(dataset: Dataset) -> list[str]:
    """Read every picture and mask; name those that cannot be read or whose sizes differ."""
    problems = []
    for sample in checked_samples(dataset).to_dict("records"):
        try:
            image, mask = dataset.read_image(sample), dataset.read_mask(sample)
        except UserError as error:
            problems.append(str(error))
            continue
        if mask is not None and mask.shape != image.shape[:2]:
            problems.append(f"mask of '{sample['id']}' is {mask.shape[::-1]}, its picture {image.shape[1::-1]}")
        elif mask is not None and sample["label"] != GOOD and not mask.any() and sample["id"] not in dataset.known:
            problems.append(f"mask of '{sample['id']}' ({sample['label']}) is empty")
    return problems
