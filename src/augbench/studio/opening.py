"""Open what `augbench studio` is asked for: a dataset and an augmenter, or the pool of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augbench.core import registry
from augbench.core.documents import parse_value
from augbench.core.errors import UserError, did_you_mean
from augbench.core.specs import AdapterSpec, PoolSpec
from augbench.planning.library import library_of, open_dataset, resolve_roots
from augbench.report.leaderboard.sources import Pool
from augbench.stages.context import best_device
from augbench.stages.generate import DEFECT
from augbench.storage.store import Store
from augbench.studio.app import Studio
from augbench.studio.catch import Catches
from augbench.studio.generate import Generator, Worker
from augbench.studio.review import Review
from augbench.studio.training import TrainingImages

AUGMENTERS = ("diag", "ddpm", "stablesdg")
SURFACES = {"bundle": "micro-sdxl-inpaint", "prompts": "surfaces", "steps": "10", "guidance": "5"}
"""Settings of diag on the embedded dataset, for a first look without a download."""


@dataclass(frozen=True)
class Asked:
    """The options of the command."""

    dataset: str | None = None  # a name or a folder
    roots: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()  # settings of the augmenter
    augmenter: str = "diag"
    adapter: str | None = None
    pool: str | None = None
    store: str | None = None
    fold: int | None = None
    catch: float = 0.0


def open_studio(asked: Asked, folder: Path) -> Studio:
    """Open the review in ``folder``, and what it is of.

    Raises:
        UserError: an option that cannot be used, or does not fit the others.
    """
    if asked.augmenter not in AUGMENTERS:
        raise UserError(
            f"--augmenter '{asked.augmenter}' makes no images on the page{did_you_mean(asked.augmenter, AUGMENTERS)}"
        )
    if (asked.pool or asked.adapter) and not asked.store:
        raise UserError("--store: give the store of the pool or of the adapter")
    return _of_pool(asked, folder) if asked.pool else _of_augmenter(asked, folder)


def _of_augmenter(asked: Asked, folder: Path) -> Studio:
    settings, spec, adapter = _settings(asked), None, None
    learns = registry.get("augmenters", asked.augmenter).learns
    if learns and not asked.adapter:
        raise UserError(
            f"--augmenter {asked.augmenter} learns before it generates: run a grid with it, and give --adapter KEY "
            "--store STORE (the keys are in STORE/adapters)"
        )
    if asked.adapter:
        store = Store(str(asked.store))
        spec, adapter = _adapter(store, asked.adapter, asked.augmenter)
        settings = {**spec.augmenter.settings, **settings}
        training = TrainingImages.in_library(library_of(spec.data, asked.roots, store), spec.data)
    else:
        name, own = _named(asked)
        training = TrainingImages.of(open_dataset(name, own), asked.fold)
    augmenter = registry.make("augmenters", asked.augmenter, settings, f"augmenter '{asked.augmenter}'")
    augmenter.find_pipeline()
    shots = (spec.shots or 0) if spec else 0
    draw = spec.draw if spec else None
    facts = training.facts() | {"augmenter": asked.augmenter, "shots": shots, "draw": draw}
    worker = Worker()
    generator = Generator(training, augmenter, worker, best_device(), adapter, shots, draw)
    studio = _studio(folder, facts, training, generator, worker, asked.catch, DEFECT)
    if spec:
        studio.review.saw("learned", training.shots(augmenter, shots, draw))
    return studio


def _studio(
    folder: Path,
    facts: dict[str, Any],
    training: TrainingImages,
    generator: Generator | None,
    worker: Worker,
    catch: float,
    label: str,
) -> Studio:
    review = Review(folder, facts)
    try:
        return Studio(review, training, generator, Catches(review, training, catch, label), worker)
    except BaseException:
        review.close()
        raise


def _settings(asked: Asked) -> dict[str, Any]:
    """Return the settings of the augmenter: of the embedded dataset, those of an embedded pipeline."""
    found = dict(SURFACES) if asked.augmenter == "diag" and asked.dataset in (None, "surfaces") else {}
    for change in asked.changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"--set '{change}': write KEY=VALUE, for example --set bundle=micro-sdxl-inpaint")
        found[name.strip()] = value
    return {name: parse_value(value, f"--set {name}") for name, value in found.items()}


def _named(asked: Asked) -> tuple[str, dict[str, Any]]:
    """Return the dataset and its settings."""
    name = asked.dataset or "surfaces"
    if name not in registry.find("datasets") and Path(name).expanduser().is_dir():
        return "folder", {"root": name}
    registry.get("datasets", name)  # raises with the nearest name
    return name, {"root": root} if (root := resolve_roots(asked.roots, {name: name}).get(name)) else {}


def _adapter(store: Store, key: str, augmenter: str) -> tuple[AdapterSpec, Path]:
    name = store.name("adapters", key)
    if key not in store.keys("adapters"):
        raise UserError(f"--adapter '{key}' is not in the store{did_you_mean(key, store.keys('adapters'))}")
    spec = AdapterSpec.from_dict(store.parsed(f"{name}/adapter.json")["spec"])
    if spec.augmenter.name != augmenter:
        raise UserError(f"--adapter '{key}' is of {spec.augmenter.name}: give --augmenter {spec.augmenter.name}")
    return spec, store.files.local_folder(name)


def _of_pool(asked: Asked, folder: Path) -> Studio:
    store = Store(str(asked.store))
    pool = _pool(store, str(asked.pool))
    spec = pool.spec
    for name in ("dataset", "fold", "adapter"):
        if getattr(asked, name) is not None:
            raise UserError(f"--{name}: the pool says which: leave it out with --pool")
    training = TrainingImages.in_library(library_of(spec.data, asked.roots, store), spec.data)
    facts = training.facts() | {"augmenter": spec.augmenter.name, "pool": spec.key, "pool_seed": spec.seed}
    facts |= {"shots": spec.shots if spec.shots is not None else 0, "draw": spec.draw}
    facts |= {"adapter_seed": spec.adapter_seed, "spec": spec.augmenter.as_dict()}
    studio = _studio(folder, facts, training, None, Worker(), asked.catch, DEFECT)
    studio.import_pool(pool)
    return studio


def _pool(store: Store, key: str) -> Pool:
    """Return a pool by its key. Raises UserError if there is none, or it was certified itself."""
    record = store.read_pool(key) if key in store.keys("pools") else None
    if record is None:
        raise UserError(f"--pool '{key}' is not a finished pool of the store{did_you_mean(key, store.keys('pools'))}")
    spec = PoolSpec.from_dict(record["spec"])
    if "review" in spec.augmenter.filters:
        raise UserError(f"--pool '{key}' holds the images that a person accepted already: give the pool they are from")
    return Pool.of(spec, store)
