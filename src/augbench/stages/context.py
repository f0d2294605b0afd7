"""Context of a worker process, shared by all stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from augbench.core.contracts import Augmenter, TrainView
from augbench.core.determinism import deterministic
from augbench.core.errors import UserError
from augbench.core.gpu import free_gpu
from augbench.core.specs import AdapterSpec, PoolSpec, SearchSpec
from augbench.features.extractor import Extractor
from augbench.planning.library import Library
from augbench.stages.provenance import device_name, versions
from augbench.storage.store import Store

T = TypeVar("T")


@dataclass
class Context:
    """A store, the datasets of the run, and the device; one per worker process."""

    store: Store
    library: Library
    device: str = "cpu"  # a torch device
    save_weights: bool = False
    git_sha: str | None = None  # of the code when the run started: the tree may change during a run
    place: str = ""  # description of the worker in a cluster, for logs
    gpu: float = 1.0  # share of the GPU that this process may use
    model: dict = field(default_factory=dict)  # identity -> augmenter, frozen backbone or extractor: the last one
    features: dict = field(default_factory=dict)  # features that were read, the last ones: `stages.features`
    normals: dict = field(default_factory=dict)  # the fitted normal images of the last fold: `stages.probe`
    thumbnails: dict = field(default_factory=dict)  # dataset -> N,SIDE,SIDE uint8, see `stages.copy_check`
    filters: dict = field(default_factory=dict)  # name -> the last filter of that name, see `stages.filters`
    shared_features: dict = field(default_factory=dict)  # key -> N,D float32: those of datasets, mapped once per node

    def view(self, augmenter: Augmenter, spec: AdapterSpec | PoolSpec) -> TrainView:
        """Return the training data that an augmenter reads for an adapter or a pool."""
        return self.library.view(spec.data, spec.shots, spec.draw, augmenter.reads(spec.shots or 0))

    def origin(self, precision: str = "") -> dict[str, Any]:
        """Return provenance that all results of this process share, and the precision of this one if it is known."""
        found = {"device": device_name(self.device), "git_sha": self.git_sha, "versions": versions()}
        return found | ({"precision": precision} if precision else {})

    def only(self, identity: tuple[str, str], load: Callable[[], T]) -> T:
        """Return the model of that identity. A process holds one: the one before is freed first."""
        if identity not in self.model:
            self.free()
            self.model[identity] = load()
        return self.model[identity]

    def free(self) -> None:
        """Free the models that this process holds, and GPU memory that it does not use."""
        self.model.clear()
        if self.device != "cpu":
            self.filters.clear()  # one may hold a backbone
        free_gpu(self.device)


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
def repeatable(computes: bool, device: str, precision: str = "fp32") -> Iterator[None]:
    """Compute as `deterministic` does, and on a CPU with one thread; nothing changes where torch computes nothing.

    Rounding, and so images, depends on the number of threads. A Ray worker with one CPU has one thread; the inline
    executor must give the same result. Cores are used by more workers, not by more threads.
    """
    if not computes:
        yield
        return
    import torch

    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        with deterministic(device, precision):
            yield
    finally:
        torch.set_num_threads(before)


def loaded_extractor(context: Context, name: str) -> Extractor:
    """Return a feature extractor by name.

    Raises:
        UserError: it is unknown, or its weights are not available.
    """
    return context.only(("extractor", name), lambda: Extractor(name, context.device))


def best_device() -> str:
    """Return ``cuda`` where a GPU is visible to this process, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
