"""Contract tests of datasets and augmenters, as pytest classes that a plug-in's test file subclasses.

    from pathlib import Path

    from augbench.core import registry
    from augbench.testing import AugmenterContract

    registry.load_file(Path(__file__).with_name("stripes.py"))  # not for a package with an entry point


    class TestStripes(AugmenterContract):
        plugin = "stripes"

``augbench new`` writes such a file. The plug-ins of augbench itself run the same tests (tests/test_contracts.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from augbench.core import registry
from augbench.core.contracts import (
    GOOD,
    SAMPLE_COLUMNS,
    AdaptContext,
    Augmenter,
    Dataset,
    Reads,
    Request,
    Shots,
    TrainView,
)
from augbench.core.hashing import canonical_json
from augbench.core.specs import DataSpec
from augbench.planning.grid import make_grid
from augbench.planning.library import Library, open_dataset
from augbench.planning.plan import make_plan
from augbench.planning.splits import grouped_folds
from augbench.report.dataset_findings import examine

HEAVY = ("torch", "ray", "diffusers", "transformers", "sklearn")
SURFACES = {"train_good": 24, "train_defective": 8, "test_good": 12, "test_defective": 8}
"""Settings of the dataset `surfaces` for augmenter tests: 36 normal and 16 defect images, 176 x 64 (H x W)."""


class _Listed:
    """Tests of every plug-in, of either kind."""

    kind: ClassVar[str]  # "datasets" or "augmenters", as in `registry`
    plugin: ClassVar[str] = ""

    @pytest.fixture
    def name(self) -> str:
        """The plug-in's name: the class attribute ``plugin``."""
        assert self.plugin, f"set plugin = 'NAME' in {type(self).__name__}"
        return self.plugin

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        """The plug-in's settings; override it where the defaults would need hours or files."""
        return {}

    def test_is_listed_without_heavy_imports(self, name: str) -> None:
        """`augbench list` imports every plug-in, so slow imports belong inside methods."""
        names, heavy = _listed(self.kind, tuple(registry.loaded_files().items()))
        assert name in names, f"no {self.kind[:-1]} {name!r} is found in a new process"
        assert not heavy, f"{name}, or another of the {self.kind}, imports {heavy} at its top: import inside methods"


@cache  # one process for all plug-ins of a kind: listing imports all of them
def _listed(kind: str, files: tuple[tuple[str, bytes], ...]) -> tuple[list[str], list[str]]:
    """List the plug-ins of a kind in a new process; return their names and the slow modules that were imported."""
    code = (
        "import json, sys; from augbench.core import registry; "
        f"[registry.load_text(*file) for file in {files!r}]; names = list(registry.find({kind!r})); "
        f"print(json.dumps([names, [module for module in {HEAVY!r} if module in sys.modules]]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    names, heavy = json.loads(found.stdout)
    return names, heavy


class DatasetContract(_Listed):
    """Tests of a dataset. Override the fixture ``settings``: write a tiny dataset in its layout and return its root."""

    kind = "datasets"

    @pytest.fixture
    def dataset(self, name: str, settings: dict[str, Any]) -> Dataset:
        """The dataset."""
        return open_dataset(name, settings)

    def test_metadata(self, dataset: Dataset) -> None:
        """Lists and tables print title, licence and task."""
        assert dataset.title, "set title"
        assert dataset.licence, "set licence, e.g. 'proprietary'"
        assert dataset.task in ("detection", "recognition"), "task must be detection or recognition"

    def test_table(self, dataset: Dataset) -> None:
        """`Dataset.samples` returns the documented table."""
        table = dataset.samples()
        assert tuple(table.columns) == SAMPLE_COLUMNS
        assert table["id"].is_unique and table["id"].is_monotonic_increasing, "one row per sample, sorted by id"
        assert all(isinstance(value, str) for value in table.to_numpy().ravel()), "every value is a str"
        assert len(set(table["label"])) > 1, "at least two labels are needed"
        assert (GOOD in set(table["label"])) == (dataset.task == "detection"), "detection alone has normal images"
        assert set(table["split"]) == ({""} if dataset.folds else {"train", "test"}), "an official split, or folds"

    def test_images_and_masks(self, dataset: Dataset) -> None:
        """Images are RGB uint8, masks are bool and of the same size, and reading is repeatable."""
        for row in dataset.samples().groupby("label").head(2).to_dict("records"):
            image, mask = dataset.read_image(row), dataset.read_mask(row)
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "H,W,3 uint8"
            assert np.array_equal(image, dataset.read_image(row))
            if mask is not None:
                assert mask.dtype == bool and mask.shape == image.shape[:2], "H,W bool, of the image's size"
                assert mask.any() or row["label"] == GOOD, f"the mask of '{row['id']}' is empty"

    def test_groups_are_on_one_side(self, dataset: Dataset, settings: dict[str, Any]) -> None:
        """Training, held-out and test samples share no group (physical item)."""
        for fold in range(dataset.folds or 1):
            library, spec = _spec_of(dataset, settings, fold)
            split = library.split(spec)
            parts = {name: set(getattr(split, name)["group"]) for name in ("negatives", "positives", "heldout", "test")}
            assert not parts["test"] & (parts["negatives"] | parts["positives"] | parts["heldout"])
            assert not parts["heldout"] & (parts["negatives"] | parts["positives"])
            if dataset.task == "recognition":
                assert split.heldout.empty and split.negatives.empty
                assert set(split.positives["label"]) == set(split.test["label"]) == set(dataset.classes())
            else:
                assert len(split.heldout), "a fifth of the negatives must be held out"
                assert set(split.heldout["label"]) == {GOOD}

    def test_folds_cover_every_sample_once(self, dataset: Dataset) -> None:
        """Each group is in exactly one fold, and no fold is empty."""
        if not dataset.folds:
            pytest.skip("official split")
        table = dataset.samples()
        folds = grouped_folds(table, dataset.folds, dataset.name)
        assert set(folds) == set(range(dataset.folds))
        assert (table.assign(fold=folds).groupby("group")["fold"].nunique() == 1).all()

    def test_fingerprint_follows_content(self, dataset: Dataset) -> None:
        """The fingerprint changes with a byte of a file, and only then."""
        before = dataset.fingerprint()
        assert type(dataset)(dataset.config).fingerprint() == before
        if dataset.config.root is not None:
            path = dataset.files()[0]
            path.write_bytes(path.read_bytes() + b"\0")
            assert type(dataset)(dataset.config).fingerprint() != before

    def test_can_be_shown_and_checked(self, dataset: Dataset) -> None:
        """`augbench datasets show` describes it; `augbench datasets check` finds no problem except official counts."""
        plugin = type(dataset)
        described = all(field.description for field in plugin.Config.model_fields.values())
        assert described, "each setting needs a description"
        assert plugin.__doc__ != Dataset.__doc__, "the docstring must describe the expected layout"
        findings = examine(dataset)
        counted = tuple(dataset.official_counts)
        assert [problem for problem in findings.problems if not problem.startswith(counted or "-")] == []
        assert all(one.pixels and one.size for one in findings.seen)
        assert len(findings.folds) == (dataset.folds or 1)

    def test_few_shot_draws_are_nested(self, dataset: Dataset, settings: dict[str, Any]) -> None:
        """The 2 shots of a draw are among its 4; the training split must have 4."""
        library, spec = _spec_of(dataset, settings)
        small, large = (set(library.shots(spec, n, 3)["id"]) for n in (2, 4))
        assert small < large
        assert len(small) == 2 * (len(dataset.classes()) if spec.classes else 1)
        assert small != set(library.shots(spec, 2, 4)["id"]) or len(large) < 6


class AugmenterIdentity(_Listed):
    """Tests of an augmenter that generates no images itself: a mixture, or `none`."""

    kind = "augmenters"

    def test_metadata(self, name: str) -> None:
        """Lists print its title, and plans read its tasks."""
        plugin = registry.get("augmenters", name)
        assert plugin.title, "set title"
        assert plugin.tasks and plugin.tasks <= {"detection", "recognition"}
        assert plugin.chunk_size > 0


class AugmenterContract(AugmenterIdentity):
    """Tests of an augmenter, on a few images of the dataset `surfaces`, on the CPU."""

    @pytest.fixture
    def augmenter(self, name: str, settings: dict[str, Any]) -> Augmenter:
        """The augmenter."""
        return registry.make("augmenters", name, settings)

    @pytest.fixture
    def seeded(self) -> bool:
        """Whether another seed gives other images; override it where the images are given."""
        return True

    @pytest.fixture
    def surfaces(self) -> Dataset:
        """The dataset that it reads."""
        return open_dataset("surfaces", SURFACES)

    @pytest.mark.parametrize("shots", [0, "all"])
    def test_generates_images_deterministically(
        self, augmenter: Augmenter, seeded: bool, surfaces: Dataset, shots: Shots, tmp_path: Path
    ) -> None:
        """An image depends only on its request and the view, not on earlier calls; another seed gives another image."""
        if augmenter.refuses(shots):
            pytest.skip(augmenter.refuses(shots))
        view = view_of(surfaces, augmenter.reads(shots))
        prepare(augmenter, view, tmp_path)
        first = augmenter.generate(requests(augmenter.chunk_size), view)
        other = augmenter.generate(requests(augmenter.chunk_size, seed=1), view)
        again = augmenter.generate(requests(augmenter.chunk_size), view)
        assert len(first) == augmenter.chunk_size, "one image per request"
        height, width = surfaces.read_image(surfaces.samples().iloc[0].to_dict()).shape[:2]
        for a, b in zip(first, again, strict=True):
            assert np.array_equal(a.image, b.image), "draw random numbers only from request.rng"
            assert a.label == "defect", "return the requested label"
            assert a.image.dtype == np.uint8 and a.image.shape == (height, width, 3), "H,W,3 uint8, of the view's size"
            assert a.mask is None or (a.mask.dtype == bool and a.mask.shape == (height, width)), "H,W bool"
            assert a.mask is None or a.mask.any(), "an empty mask: return None"
            assert json.loads(canonical_json(a.meta)) == a.meta, "meta must hold JSON values"
        changed = [not np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True)]
        assert any(changed) == seeded, "another seed must give other images"

    def test_every_method_returns_what_the_contract_declares(self, augmenter: Augmenter, surfaces: Dataset) -> None:
        """`core.guard` checks each call of a third-party plug-in: its error names the method and what is wrong."""
        for shots in (0, 5, "all"):
            assert augmenter.reads(shots) <= {"negatives", "shots", "masks", "regions"}
            assert isinstance(augmenter.refuses(shots), str) and isinstance(augmenter.prompts_from(), str)
            augmenter.capacity(view_of(surfaces, augmenter.reads(shots)))
        assert json.loads(canonical_json(augmenter.key_settings())) == augmenter.key_settings(), "use JSON values"
        augmenter.parts(), augmenter.embedded()
        for candidate in augmenter.candidates():
            assert augmenter.scoring().pictures > 0
            assert not augmenter.chosen(candidate.settings).candidates(), "without a search of its own"

    def test_sees_only_what_it_declares(self, augmenter: Augmenter, surfaces: Dataset) -> None:
        """The view refuses what `reads` does not name."""
        view = view_of(surfaces, augmenter.reads(0))
        if "shots" not in augmenter.reads(0):
            with pytest.raises(PermissionError):
                _ = view.shots
            positive = surfaces.samples().query("label != 'good'")["id"].iloc[0]
            with pytest.raises(KeyError):
                view.image(positive)

    def test_without_shots_reads_the_same_in_every_regime(self, augmenter: Augmenter) -> None:
        """Keys let such an augmenter share one pool across regimes."""
        for shots in (1, 5, "all"):
            assert "shots" in augmenter.reads(shots) or augmenter.reads(shots) == augmenter.reads(0)

    def test_notes_are_lines(self, augmenter: Augmenter) -> None:
        """Reports print each note as one line under a table."""
        assert all("\n" not in augmenter.notes(shots) for shots in (0, 5, "all"))


def view_of(dataset: Dataset, reads: frozenset[Reads]) -> TrainView:
    """Return a view of all samples of a dataset, including the test split, for augmenter tests."""
    table = dataset.samples()
    is_normal = table["label"] == GOOD
    return TrainView(dataset, table[is_normal], table[~is_normal], reads, regions=table[~is_normal])


def requests(count: int, seed: int = 0) -> list[Request]:
    """Return ``count`` requests; another ``seed`` gives them other seeds."""
    return [Request(index, seed * 1000 + index, "defect") for index in range(count)]


def prepare(augmenter: Augmenter, view: TrainView, folder: Path) -> None:
    """Adapt the augmenter into an empty folder, if it learns, and load the adapter on the CPU."""
    adapter = None
    if augmenter.learns:
        adapter = folder / "adapter"
        adapter.mkdir(exist_ok=True)
        augmenter.adapt(view, adapter, 0, adapt_context(folder))
        suffixes = {path.suffix for path in adapter.rglob("*") if path.is_file()}
        assert suffixes <= {".safetensors", ".json"}, f"an adapter is safetensors and JSON, not {suffixes}"
    augmenter.load(adapter, "cpu")


def adapt_context(folder: Path) -> AdaptContext:
    """Return a context for `Augmenter.adapt` on the CPU, with scratch and shared files below ``folder``."""

    def shared(key: str, make: Callable[[Path], None]) -> Path:
        path = folder / "shared" / key
        if not path.exists():
            path.mkdir(parents=True)
            make(path)
        return path

    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return AdaptContext(scratch, shared)


workroom = adapt_context  # the old name, which tests of third-party plug-ins import


def _spec_of(dataset: Dataset, settings: dict[str, Any], fold: int = 0) -> tuple[Library, DataSpec]:
    """Plan a grid with the dataset and a hold-out of a fifth; return its library and the data spec of a fold."""
    protocol = {"name": "contract", "width": 32, "height": 48, "lr": 0.01, "batch": 8, "epochs": 1, "holdout": 0.2}
    raw = {"name": "contract", "datasets": [{"name": dataset.name, "settings": settings}], "augmenters": ["none"],
           "protocols": [protocol], "shots": ["all"], "folds": [fold], "fidelity": None}  # fmt: skip
    plan = make_plan(make_grid(raw))
    return plan.library, plan.cells[0].data
