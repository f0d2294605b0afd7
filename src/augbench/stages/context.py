"""Context of a worker process, shared by all stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from augbench.core.contracts import Augmenter, TrainView
from augbench.core.errors import UserError
from augbench.core.specs import AdapterSpec, PoolSpec, SearchSpec
from augbench.features.extractor import Extractor
from augbench.planning.library import Library
from augbench.stages.provenance import device_name, versions
from augbench.storage.store import Store


@dataclass
class Context:
    """A store, the datasets of the run, and the device; one per worker process."""

    store: Store
    library: Library
    device: str = "cpu"  # a torch device
    save_weights: bool = False
    git_sha: str | None = None  # of the code when the run started: the tree may change during a run
    place: str = ""  # description of the worker in a cluster, for logs
    loaded: dict = field(default_factory=dict)  # the loaded augmenter, see `stages.generate`
    extractors: dict = field(default_factory=dict)  # the loaded feature extractor
    backbones: dict = field(default_factory=dict)  # the loaded frozen backbone, this and the next: `stages.features`
    features: dict = field(default_factory=dict)  # features that were read, the last ones
    normals: dict = field(default_factory=dict)  # the fitted normal images of the last fold: `stages.probe`
    thumbnails: dict = field(default_factory=dict)  # dataset -> N,SIDE,SIDE uint8, see `stages.copy_check`
    shared_features: dict = field(default_factory=dict)  # key -> N,D float32: those of datasets, mapped once per node

    def view(self, augmenter: Augmenter, spec: AdapterSpec | PoolSpec) -> TrainView:
        """Return the training data that an augmenter reads for an adapter or a pool."""
        return self.library.view(spec.data, spec.shots, spec.draw, augmenter.reads(spec.shots or 0))

    def origin(self) -> dict[str, Any]:
        """Return the part of the provenance that all results of this process share."""
        return {"device": device_name(self.device), "git_sha": self.git_sha, "versions": versions()}


def chosen_augmenter(context: Context, spec: AdapterSpec) -> tuple[Augmenter, dict[str, Any] | None]:
    """Return the augmenter of an adapter with the settings its quality search chose, and the search's record.

    The record is None for an augmenter without a search.

    Raises:
        UserError: the search it needs is not in the store.
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
    """Limit torch to one thread on a CPU, as rounding, and so images, depends on the number of threads.

    A Ray worker with one CPU has one thread; the inline executor must give the same result. Cores are used by more
    workers, not by more threads.
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
    """Return a feature extractor by name. Each process holds the last one.

    Raises:
        UserError: it is unknown, or its weights are not available.
    """
    if name not in context.extractors:
        context.extractors.clear()
        context.extractors[name] = Extractor(name, context.device)
    return context.extractors[name]


def best_device() -> str:
    """Return ``cuda`` where a GPU is visible to this process, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
