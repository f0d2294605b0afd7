"""Setup of a worker process anywhere in the cluster, from plain values only: nothing of a script is pickled."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from augbench.core import registry
from augbench.core.errors import StoreError, UserError
from augbench.core.gpu import ran_out_of_memory
from augbench.core.specs import AdapterSpec, Cell, FeatureSpec, FidelitySpec, PoolSpec, SearchSpec
from augbench.planning.gpu_memory import CONTEXT, GIB
from augbench.planning.library import Library
from augbench.planning.plan import Plan, PoolSlice
from augbench.stages.context import Context, best_device
from augbench.stages.decoded_images import DecodedImages
from augbench.stages.features import extract_chunk
from augbench.stages.generate import generate_chunk
from augbench.stages.log_capture import unit_log
from augbench.stages.provenance import git_sha
from augbench.storage.store import Store

Unit = SearchSpec | AdapterSpec | PoolSpec | FidelitySpec | FeatureSpec | Cell
Job = Callable[[Context, DecodedImages, Cell, tuple[PoolSlice, ...]], dict]
"""The function that trains a cell: `stages.train.train_cell`, except in benchmarks."""


@dataclass(frozen=True)
class WorkerSetup:
    """What another process needs to make a `Context`."""

    store: str
    datasets: Mapping[str, tuple[str, Mapping[str, Any]]]
    plugin_files: Mapping[str, bytes]  # path on the driver's machine -> source: other machines may lack the file
    save_weights: bool
    git_sha: str | None

    @classmethod
    def of(cls, plan: Plan, store: Store) -> WorkerSetup:
        """Create the setup of a run."""
        return cls(
            store.url, plan.library.settings, registry.loaded_files(), plan.grid.save_weights == "last", git_sha()
        )

    def uses_gpu(self, unit: AdapterSpec | PoolSpec | FeatureSpec) -> bool:
        """Return whether the work of a unit can use a GPU."""
        self._load_plugins()
        return isinstance(unit, FeatureSpec) or registry.get("augmenters", unit.augmenter.name).uses_gpu

    def context(self, gpu: float) -> Context:
        """Create the context of this process.

        Args:
            gpu: the share of a GPU that it may use; 0: it uses none; 1 and more: it has a GPU to itself.
        """
        self._load_plugins()
        device = best_device() if gpu else "cpu"
        if device == "cuda":
            cap_memory(gpu)
        store, library = Store(self.store, look=False), Library(self.datasets)
        return Context(store, library, device, self.save_weights, self.git_sha, _ray_worker(), gpu)

    def _load_plugins(self) -> None:
        for file, text in self.plugin_files.items():
            registry.load_text(file, text)


def chunk_maker(spec: PoolSpec | FeatureSpec) -> Callable[[Context, Any, int], None]:
    """Return the stage that makes a chunk of that unit."""
    return extract_chunk if isinstance(spec, FeatureSpec) else generate_chunk


def _ray() -> ModuleType | None:
    """Return Ray, if this process belongs to it. It is not imported here: inline runs do not need it."""
    ray = sys.modules.get("ray")
    return ray if ray is not None and ray.is_initialized() else None


def _ray_worker() -> str:
    """Return Ray's node and worker id of this process; "" without Ray."""
    if (ray := _ray()) is None:
        return ""
    here = ray.get_runtime_context()
    return f"Ray node {here.get_node_id()}, worker {here.get_worker_id()}"


def cap_memory(share: float) -> None:
    """Cap PyTorch's allocator in this process at its share of the GPU, less what lies outside of it."""
    import torch

    if share < 1:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(max(share - CONTEXT * GIB / total, 0.0))


@dataclass(frozen=True)
class Failure:
    """An exception as plain values for the driver: not every exception can be pickled."""

    line: str
    by_user: bool  # the user can fix it
    fatal: bool = False  # the store is out of reach: nothing can be committed
    again: bool = False  # memory ran out on a shared GPU: it is tried once more on a whole one

    @classmethod
    def of(cls, error: BaseException, gpu: float = 1.0) -> Failure:
        """Create the failure of an exception: a `UserError` as it is, others with type, file and line number.

        ``gpu`` is the share of a GPU that the worker had.
        """
        line = " ".join(str(error).split())
        if not isinstance(error, UserError):
            frames = traceback.extract_tb(error.__traceback__)
            location = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
            line = f"{type(error).__name__}: {line}{location}"
        again = gpu < 1 and ran_out_of_memory(error)
        return cls(line, isinstance(error, UserError), isinstance(error, StoreError), again)


def attempt(
    context: Context, spec: Unit, work: Callable[[], object], part: int | None = None, whole_process: bool = True
) -> Failure | None:
    """Do the work of one unit and record its failure: a failed unit never stops a sweep.

    Logging and output go into the unit's log; see `stages.log_capture` for ``part`` and ``whole_process``.

    Returns:
        None, or why the work failed.
    """
    try:
        with unit_log(context, spec.key, part, whole_process):
            work()
    except Exception as error:
        context.store.record_failure(spec.key, spec.as_dict(), error)
        return Failure.of(error, context.gpu)
    return None
