"""What `augbench list` prints."""

from __future__ import annotations

from rich import box
from rich.table import Table

from augbench.cli.datasets_view import datasets_table
from augbench.cli.models_view import models_table
from augbench.cli.protocols_view import list_protocols
from augbench.core import registry
from augbench.core.contracts import Augmenter


def listing(what: str) -> Table:
    """A table of all datasets, augmenters, models or protocols."""
    tables = {
        "datasets": datasets_table,
        "augmenters": _augmenters,
        "models": models_table,
        "protocols": list_protocols,
    }
    return tables[what]()


def _table(*columns: str) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD)


def _augmenters() -> Table:
    table = _table("augmenter", "title", "reads at 0 / some shots", "learns", "status")
    for name, plugin in registry.find("augmenters").items():
        status = "planned only" if _planned_only(plugin) else "ready"
        table.add_row(name, plugin.title, _reads(plugin), "yes" if plugin.learns else "-", status)
    return table


def _takes_defaults(plugin: type[Augmenter]) -> bool:
    """Whether it can be made without settings."""
    return not any(field.is_required() for field in plugin.Config.model_fields.values())


def _planned_only(plugin: type[Augmenter]) -> bool:
    """Whether it, or a part of it, cannot run yet."""
    parts = plugin().parts() if _takes_defaults(plugin) else ()
    return bool(plugin.not_runnable) or any(_planned_only(registry.get("augmenters", p.augmenter)) for p in parts)


def _reads(plugin: type[Augmenter]) -> str:
    if not plugin.makes_images:
        return "-"
    if plugin.parts is not Augmenter.parts:
        return "what its parts read"
    if not _takes_defaults(plugin):
        return "as its settings say"
    zero, some = (", ".join(sorted(plugin().reads(shots))) for shots in (0, "all"))
    return zero if zero == some else f"{zero} / {some}"
