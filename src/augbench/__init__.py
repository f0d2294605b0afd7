"""augbench: which way of making synthetic defects improves a classifier, by how much, at what cost.

The names below are what a plug-in author needs. They are loaded when they are first used, so that importing augbench,
and with it ``augbench --help``, costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from augbench.core.contracts import GOOD, Augmenter, Dataset, Part, Request, Settings, Synthetic, TrainView
    from augbench.core.errors import UserError

__version__ = "0.2.0"
__all__ = ["GOOD", "Augmenter", "Dataset", "Part", "Request", "Settings", "Synthetic", "TrainView", "UserError"]


def __getattr__(name: str) -> object:
    """Load one of `__all__` from its home."""
    if name not in __all__:
        raise AttributeError(f"module 'augbench' has no attribute '{name}'")
    return getattr(import_module("augbench.core.errors" if name == "UserError" else "augbench.core.contracts"), name)
