"""What every job works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from augbench.core.library import Library
from augbench.core.store import Store


@dataclass
class Context:
    """A store, the datasets of the run, and the device; one per worker process."""

    store: Store
    library: Library
    device: str = "cpu"  # a torch device
    save_weights: bool = False
    git_sha: str | None = None  # of the code, read when the run started: the tree may change while it goes on
    loaded: dict = field(default_factory=dict)  # the augmenter that is loaded right now, see jobs.generate


def best_device() -> str:
    """``cuda`` where a GPU is visible to this process, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
