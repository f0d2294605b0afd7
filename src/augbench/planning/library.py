"""The datasets and augmenters of a run, with cached fingerprints, splits and views."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from augbench.core import registry
from augbench.core.contracts import Augmenter, Dataset, Shots, TrainView
from augbench.core.errors import UserError, did_you_mean, listed
from augbench.core.guard import overrides
from augbench.core.hashing import digest
from augbench.core.specs import AugmenterSpec, DataSpec, Draw
from augbench.planning.grid import NAME, DatasetEntry, GridLike, load_grid
from augbench.planning.splits import Split, checked_samples, choose_shots, make_split, train_view
from augbench.storage.files import expanded
from augbench.storage.store import Store

DATA_VARIABLE = "AUGBENCH_DATA"  # folder with one subfolder per dataset name
ABSENT = "absent"  # fingerprint of a dataset without files: its grid can be planned, not run


def open_dataset(name: str, settings: Mapping[str, Any], where: str = "") -> Dataset:
    """Open a dataset by name. Its root comes from the settings, else from ``AUGBENCH_DATA``/name if that exists.

    ``where`` is what an error about a setting begins with; by default the dataset in a grid.

    Raises:
        UserError: no such dataset, or an unknown setting.
    """
    settings = dict(settings)
    base = os.environ.get(DATA_VARIABLE)
    root = settings.get("root")
    if root in (None, ""):
        if base and (Path(base) / name).is_dir():
            settings["root"] = str((Path(base) / name).resolve())
    elif isinstance(root, (str, Path)):
        settings["root"] = str(expanded(root).resolve())
    return registry.make("datasets", name, settings, where)


def resolve_roots(roots: Iterable[str], datasets: Mapping[str, str]) -> dict[str, str]:
    """Return name in the grid -> folder, from the values of ``--root``: NAME=DIR, or DIR where there is one dataset.

    What stands before the first ``=`` is a name if it can be one: ``./a=b`` is a folder.

    Args:
        roots: as written; of two for one dataset the last counts.
        datasets: those that are meant: name in the grid -> plug-in. NAME is the first; where none is called so, it is
            the second, and means all that have it.

    Raises:
        UserError: no such dataset, several where DIR has no NAME, or DIR is not a folder.
    """
    found: dict[str, str] = {}
    for root in roots:
        name, equals, folder = root.partition("=")
        if not equals or not re.fullmatch(NAME, name):
            if len(datasets) != 1:
                raise UserError(f"--root '{root}': which of the datasets {listed(datasets)}? Write NAME={root}")
            (name,), folder = datasets, root
        meant = [name] if name in datasets else [label for label, plugin in datasets.items() if plugin == name]
        if not meant:
            raise UserError(f"--root '{root}': there is no dataset '{name}' here{did_you_mean(name, datasets)}")
        if not folder or not expanded(folder).is_dir():
            raise UserError(f"--root '{root}': '{folder}' is not a folder: give the one with the dataset's files")
        found.update(dict.fromkeys(meant, folder))
    return found


def with_roots(grid: GridLike, changes: Iterable[str] | None, roots: Iterable[str] | None) -> list[str]:
    """Return the changes of ``--set`` and those that ``--root`` stands for: ``datasets.NAME.root=DIR``.

    Raises:
        UserError: the grid is invalid, or a root names no dataset of it or no folder.
    """
    every = list(changes or ())
    if roots:
        folders = resolve_roots(roots, {entry.label: entry.name for entry in load_grid(grid, every).datasets})
        every += [root_change(name, folder) for name, folder in folders.items()]
    return every


def root_change(label: str, folder: str) -> str:
    """Return the change of ``--set`` that gives a dataset its root."""
    # quoted, since YAML would read a folder called 2026 as a number, and take what follows " #" for a comment
    return f"datasets.{label}.root={json.dumps(folder, ensure_ascii=False)}"


class Library:
    """Datasets by their name in the grid, their splits and views for augmenters; and the augmenters."""

    def __init__(self, settings: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
        """``settings``: name in the grid -> (plug-in, its settings including locations)."""
        self.settings = dict(settings)
        self._datasets: dict[str, Dataset] = {}
        self._splits: dict[str, Split] = {}
        self._rows: dict[str, pd.Series] = {}
        self._groups: dict[str, dict[str, str]] = {}
        self._evaluated: dict[str, pd.DataFrame] = {}
        self._samples: dict[str, pd.DataFrame] = {}
        self._augmenters: dict[str, Augmenter] = {}

    @classmethod
    def of(cls, entries: tuple[DatasetEntry, ...]) -> Library:
        """Create the library of a grid. Roots are resolved here, so that all workers use the same."""
        library = cls({})
        for entry in entries:
            dataset = open_dataset(entry.name, entry.settings)
            library._datasets[entry.label] = dataset
            library.settings[entry.label] = (entry.name, dataset.config.model_dump(mode="json"))
        return library

    def dataset(self, label: str) -> Dataset:
        """Return the dataset of that name in the grid."""
        if label not in self._datasets:
            name, settings = self.settings[label]
            self._datasets[label] = registry.make("datasets", name, dict(settings))
        return self._datasets[label]

    def augmenter(self, spec: AugmenterSpec) -> Augmenter:
        """Return the augmenter of that spec; created once."""
        if spec.digest not in self._augmenters:
            self._augmenters[spec.digest] = registry.make("augmenters", spec.name, dict(spec.settings))
        return self._augmenters[spec.digest]

    def split(self, spec: DataSpec) -> Split:
        """Return the split of the dataset in the spec's fold."""
        if spec.digest not in self._splits:
            self._splits[spec.digest] = make_split(self.dataset(spec.alias), spec)
        return self._splits[spec.digest]

    def row_of(self, label: str) -> pd.Series:
        """Map sample id -> row in the dataset's table, which is also the index in the array of decoded images."""
        if label not in self._rows:
            ids = self.samples(label)["id"]
            self._rows[label] = pd.Series(range(len(ids)), index=ids)
        return self._rows[label]

    def group_of(self, label: str) -> dict[str, str]:
        """Map sample id -> group."""
        if label not in self._groups:
            table = self.samples(label)
            self._groups[label] = dict(zip(table["id"], table["group"], strict=True))
        return self._groups[label]

    def evaluated(self, spec: DataSpec) -> pd.DataFrame:
        """Return the evaluated samples: those of the test split, then those held out, as the column ``part`` says."""
        if spec.digest not in self._evaluated:
            split = self.split(spec)
            parts = [split.test.assign(part="test"), split.heldout.assign(part="heldout")]
            self._evaluated[spec.digest] = pd.concat(parts, ignore_index=True)
        return self._evaluated[spec.digest]

    def samples(self, label: str) -> pd.DataFrame:
        """Return the dataset's table, checked and sorted by id."""
        if label not in self._samples:
            self._samples[label] = checked_samples(self.dataset(label))
        return self._samples[label]

    def view(self, spec: DataSpec, shots: Shots | None, draw: Draw, reads: frozenset[str]) -> TrainView:
        """Return the view of an augmenter that declares ``reads``."""
        return train_view(self.dataset(spec.alias), self.split(spec), spec, shots, draw, reads)

    def shots(self, spec: DataSpec, shots: Shots | None, draw: Draw) -> pd.DataFrame:
        """Return the real positives to use."""
        per_class = self.dataset(spec.alias).task == "recognition"
        return choose_shots(self.split(spec), spec, shots, draw, per_class)

    def fingerprint(self, label: str, store: Store | None) -> str:
        """Return the fingerprint, `ABSENT` without root. A store caches it until a file's size or time changes.

        Raises:
            UserError: a root is set, but its files are missing or invalid.
        """
        dataset = self.dataset(label)
        if dataset.config.root is None and _made_of_files(dataset):
            return ABSENT
        if not _made_of_files(dataset):
            return dataset.fingerprint()
        signature = digest([dataset.samples().to_json(orient="values"), [_stat(path) for path in dataset.files()]])
        cached = store.read_json("fingerprints", label) if store else None
        if cached and cached["signature"] == signature:
            return cached["fingerprint"]
        fingerprint = dataset.fingerprint()
        if store and not store.files.publication:
            store.write_json("fingerprints", label, {"signature": signature, "fingerprint": fingerprint})
        return fingerprint


def library_of(data: DataSpec, roots: Iterable[str], store: Store) -> Library:
    """Return the library with the dataset of a record alone.

    Args:
        data: the dataset.
        roots: as ``--root`` has them.
        store: holds the record; its grids say where the dataset was, unless ``roots`` do.

    Raises:
        UserError: there is no such dataset here, or a root names another dataset or no folder.
    """
    root = resolve_roots(roots, {data.alias: data.name}).get(data.alias)
    version = registry.version("datasets", data.name)
    settings = {k: v for k, v in data.settings.items() if k not in version} | _places(data, store)
    settings |= {"root": root} if root else {}
    return Library.of((DatasetEntry(name=data.name, **{"as": data.alias}, settings=settings),))


def _places(data: DataSpec, store: Store) -> dict[str, str]:
    """Return the root, and tables outside it, as the grids of a store have them: those that exist here."""
    grids = [(store.read_json("grids", name) or {}).get("grid") or {} for name in sorted(store.keys("grids"))]
    entries = [entry for grid in grids for entry in grid.get("datasets", ())]
    return {
        key: value
        for entry in entries
        if (entry["name"], entry.get("as") or entry["name"]) == (data.name, data.alias)
        for key, value in entry["settings"].items()
        if isinstance(value, str) and expanded(value).exists()
        if key == "root" or (Path(value).is_absolute() and Path(value).name == data.settings.get(key))
    }


def _made_of_files(dataset: Dataset) -> bool:
    return not overrides(type(dataset), "fingerprint")


def _stat(path: Path) -> list[int | str]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise UserError(f"image '{path}' is missing: restore it, or remove its row from the dataset") from None
    return [path.name, stat.st_size, stat.st_mtime_ns]
