"""augbench: a benchmark of synthetic-defect augmentation for classifiers.

The names below are the Python API: for users the functions of `augbench.api`, for plug-in authors the base classes.
They are imported on first use, so that importing augbench, and with it ``augbench --help``, is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from augbench.api import compare, leaderboard, load_grid, load_results, plan, run, tables, try_folder
    from augbench.core.contracts import (
        GOOD,
        AdaptContext,
        Augmenter,
        Candidate,
        Dataset,
        Part,
        Request,
        Scoring,
        Settings,
        Synthetic,
        TrainView,
    )
    from augbench.core.errors import UserError
    from augbench.core.protocol import Protocol, load_preset
    from augbench.planning.grid import Grid
    from augbench.storage.store import Store

__version__ = "0.2.0"
__all__ = [
    "GOOD",
    "AdaptContext",
    "Augmenter",
    "Candidate",
    "Dataset",
    "Grid",
    "Part",
    "Protocol",
    "Request",
    "Scoring",
    "Settings",
    "Store",
    "Synthetic",
    "TrainView",
    "UserError",
    "compare",
    "leaderboard",
    "load_grid",
    "load_preset",
    "load_results",
    "plan",
    "run",
    "tables",
    "try_folder",
]

_HOMES = {
    "augbench.api": ("compare", "leaderboard", "load_grid", "load_results", "plan", "run", "tables", "try_folder"),
    "augbench.core.errors": ("UserError",),
    "augbench.core.protocol": ("Protocol", "load_preset"),
    "augbench.planning.grid": ("Grid",),
    "augbench.storage.store": ("Store",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import one of `__all__` on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'augbench' has no attribute '{name}'")
    return getattr(import_module(_HOME.get(name, "augbench.core.contracts")), name)


def __dir__() -> list[str]:
    """List the names of `__all__`, too: for completion, before they are imported."""
    return sorted({*globals(), *__all__})
