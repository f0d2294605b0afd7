"""What every job works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from augbench.core.contracts import Augmenter
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


@contextmanager
def one_thread(augmenter: Augmenter, device: str) -> Iterator[None]:
    """One thread for an augmenter that computes with torch on a CPU: sums, and so pictures, depend on their number.

    It is what Ray gives to a worker that reserves no more; pools made inline must be the same. More generators, not
    more threads, use more cores.
    """
    if device != "cpu" or not augmenter.uses_gpu:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best_device() -> str:
    """``cuda`` where a GPU is visible to this process, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
