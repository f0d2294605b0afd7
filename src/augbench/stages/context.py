"""What every job works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from augbench.core.contracts import Augmenter
from augbench.core.errors import UserError
from augbench.core.specs import AdapterSpec, SearchSpec
from augbench.features.extractor import Extractor
from augbench.planning.library import Library
from augbench.storage.store import Store


@dataclass
class Context:
    """A store, the datasets of the run, and the device; one per worker process."""

    store: Store
    library: Library
    device: str = "cpu"  # a torch device
    save_weights: bool = False
    git_sha: str | None = None  # of the code, read when the run started: the tree may change while it goes on
    place: str = ""  # in a cluster, in words
    loaded: dict = field(default_factory=dict)  # the augmenter that is loaded right now, see jobs.generate
    extractors: dict = field(default_factory=dict)  # the feature extractor that is loaded right now


def chosen_augmenter(context: Context, spec: AdapterSpec) -> tuple[Augmenter, dict[str, Any] | None]:
    """The augmenter of an adapter or a pool, with the settings that its search chose; and the search's record.

    Raises:
        UserError: it needs a search that has not been made.
    """
    augmenter = context.library.augmenter(spec.augmenter)
    if not augmenter.candidates():
        return augmenter, None
    search = SearchSpec(spec)
    record = context.store.read_json("searches", search.key)
    if record is None:
        raise UserError(f"search '{search.key}' is missing: run the grid again to make it anew")
    return augmenter.chosen(record["result"]["chosen"]), record


@contextmanager
def one_thread(computes: bool, device: str) -> Iterator[None]:
    """One thread for what computes with torch on a CPU: sums, and so pictures, depend on their number.

    It is what Ray gives to a worker that reserves no more; what is made inline must be the same. More generators, not
    more threads, use more cores.
    """
    if device != "cpu" or not computes:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def loaded_extractor(context: Context, name: str) -> Extractor:
    """The feature extractor of that name, loaded once per process; only the last one stays.

    Raises:
        UserError: there is none, or its weights cannot be had.
    """
    if name not in context.extractors:
        context.extractors.clear()
        context.extractors[name] = Extractor(name, context.device)
    return context.extractors[name]


def best_device() -> str:
    """``cuda`` where a GPU is visible to this process, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
