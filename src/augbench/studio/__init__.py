"""The expert in the loop: prompts, regions and images that a person chose, on a local page (`augbench studio`).

``Review`` is the directory of a review, without the page. It is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from augbench.studio.review import Review

__all__ = ["Review"]


def __getattr__(name: str) -> object:
    """Import `Review` on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'augbench.studio' has no attribute '{name}'")
    return getattr(import_module("augbench.studio.review"), name)
