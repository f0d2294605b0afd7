"""augbench: a benchmark of synthetic-defect augmentation for classifiers.

The names below are the API for plug-in authors. They are imported on first use, so that importing augbench, and with it
``augbench --help``, is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from augbench.core.contracts import GOOD, Augmenter, Dataset, Part, Request, Settings, Synthetic, TrainView
    from augbench.core.errors import UserError

__version__ = "0.2.0"
__all__ = ["GOOD", "Augmenter", "Dataset", "Part", "Request", "Settings", "Synthetic", "TrainView", "UserError"]


def __getattr__(name: str) -> object:
    """Import one of `__all__` on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'augbench' has no attribute '{name}'")
    return getattr(import_module("augbench.core.errors" if name == "UserError" else "augbench.core.contracts"), name)
