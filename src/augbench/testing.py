"""What every dataset and every augmenter must keep, as pytest classes that a plug-in's test file inherits.

    from pathlib import Path

    from augbench.core import registry
    from augbench.testing import AugmenterContract

    registry.load_file(Path(__file__).with_name("stripes.py"))  # not for a package with an entry point


    class TestStripes(AugmenterContract):
        plugin = "stripes"

``augbench new`` writes such a file. The plug-ins of augbench itself inherit the same classes (tests/test_contracts.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
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
"""Settings of the embedded dataset on which augmenters are tried: 20 defects and 36 good pictures, 176 x 64, masks."""


class _Listed:
    """What holds of every plug-in of a room."""

    room: ClassVar[str]
    plugin: ClassVar[str] = ""

    @pytest.fixture
    def name(self) -> str:
        """The plug-in's name; the class attribute ``plugin``."""
        assert self.plugin, f"set plugin = 'NAME' in {type(self).__name__}"
        return self.plugin

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        """Its settings, where the defaults would need hours or files: override it."""
        return {}

    def test_is_listed_without_heavy_imports(self, name: str) -> None:
        """`augbench list` imports every plug-in: what takes seconds to load is imported inside methods."""
        code = (
            "import sys; from augbench.core import registry; "
            f"[registry.load_text(*file) for file in {registry.loaded_files()!r}.items()]; "
            f"registry.get({self.room!r}, {name!r}); "
            f"print([module for module in {HEAVY!r} if module in sys.modules])"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        assert found.stdout.strip() == "[]", f"{name} imports {found.stdout.strip()} at its top: import inside methods"


class DatasetContract(_Listed):
    """Tests of a dataset. Override the fixture ``settings``: draw a tiny one in its layout, and give its root."""

    room = "datasets"

    @pytest.fixture
    def dataset(self, name: str, settings: dict[str, Any]) -> Dataset:
        """The dataset."""
        return open_dataset(name, settings)

    def test_says_what_it_is(self, dataset: Dataset) -> None:
        """Title and licence stand in lists and tables."""
        assert dataset.title, "set title"
        assert dataset.licence, "set licence; 'proprietary' is one"
        assert dataset.task in ("detection", "recognition"), "task is detection or recognition"

    def test_table(self, dataset: Dataset) -> None:
        """`Dataset.samples` keeps its promises."""
        table = dataset.samples()
        assert tuple(table.columns) == SAMPLE_COLUMNS
        assert table["id"].is_unique and table["id"].is_monotonic_increasing, "one row a sample, sorted by id"
        assert all(isinstance(value, str) for value in table.to_numpy().ravel()), "every value is a str"
        assert len(set(table["label"])) > 1, "there is nothing to tell apart"
        assert (GOOD in set(table["label"])) == (dataset.task == "detection"), "recognition tells defects apart"
        assert set(table["split"]) == ({""} if dataset.folds else {"train", "test"}), "an official split, or folds"

    def test_pictures_and_masks(self, dataset: Dataset) -> None:
        """Pictures are RGB, masks are bool and of the same size, and reading is repeatable."""
        for row in dataset.samples().groupby("label").head(2).to_dict("records"):
            image, mask = dataset.read_image(row), dataset.read_mask(row)
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "H,W,3 uint8"
            assert np.array_equal(image, dataset.read_image(row))
            if mask is not None:
                assert mask.dtype == bool and mask.shape == image.shape[:2], "H,W bool, of the size of the picture"
                assert mask.any() or row["label"] == GOOD, f"the mask of '{row['id']}' is empty"

    def test_groups_are_on_one_side(self, dataset: Dataset, settings: dict[str, Any]) -> None:
        """Pictures of one physical item never stand on both sides of a split, nor among the held-out ones."""
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
                assert len(split.heldout), "a fifth is held out"
                assert set(split.heldout["label"]) == {GOOD}

    def test_folds_cover_every_sample_once(self, dataset: Dataset) -> None:
        """Each group is in one fold, and each fold is there."""
        if not dataset.folds:
            pytest.skip("official split")
        table = dataset.samples()
        folds = grouped_folds(table, dataset.folds, dataset.name)
        assert set(folds) == set(range(dataset.folds))
        assert (table.assign(fold=folds).groupby("group")["fold"].nunique() == 1).all()

    def test_fingerprint_follows_content(self, dataset: Dataset) -> None:
        """Another byte in a file makes other keys; nothing else does."""
        before = dataset.fingerprint()
        assert type(dataset)(dataset.config).fingerprint() == before
        if dataset.config.root is not None:
            path = dataset.files()[0]
            path.write_bytes(path.read_bytes() + b"\0")
            assert type(dataset)(dataset.config).fingerprint() != before

    def test_can_be_shown_and_checked(self, dataset: Dataset) -> None:
        """`augbench datasets show` explains it, and `augbench datasets check` finds nothing wrong but its numbers."""
        plugin = type(dataset)
        assert all(field.description for field in plugin.Config.model_fields.values()), (
            "each setting says what it means"
        )
        assert plugin.__doc__ != Dataset.__doc__, "the docstring says which layout is expected"
        findings = examine(dataset)
        counted = tuple(dataset.official_counts)
        assert [problem for problem in findings.problems if not problem.startswith(counted or "-")] == []
        assert all(one.pixels and one.size for one in findings.seen)
        assert len(findings.folds) == (dataset.folds or 1)

    def test_draws_nest(self, dataset: Dataset, settings: dict[str, Any]) -> None:
        """The 2 shots of a draw are among its 4; there must be so many."""
        library, spec = _spec_of(dataset, settings)
        small, large = (set(library.shots(spec, n, 3)["id"]) for n in (2, 4))
        assert small < large
        assert len(small) == 2 * (len(dataset.classes()) if spec.classes else 1)
        assert small != set(library.shots(spec, 2, 4)["id"]) or len(large) < 6


class AugmenterIdentity(_Listed):
    """Tests of an augmenter that makes no pictures of its own: a mixture, or none."""

    room = "augmenters"

    def test_says_what_it_is(self, name: str) -> None:
        """A title for lists, tasks for plans."""
        plugin = registry.get("augmenters", name)
        assert plugin.title, "set title"
        assert plugin.tasks and plugin.tasks <= {"detection", "recognition"}
        assert plugin.chunk_size > 0


class AugmenterContract(AugmenterIdentity):
    """Tests of an augmenter, on a few pictures of the embedded dataset and on a CPU."""

    @pytest.fixture
    def augmenter(self, name: str, settings: dict[str, Any]) -> Augmenter:
        """The augmenter."""
        return registry.make("augmenters", name, settings)

    @pytest.fixture
    def surfaces(self) -> Dataset:
        """What it is tried on."""
        return open_dataset("surfaces", SURFACES)

    @pytest.mark.parametrize("shots", [0, "all"])
    def test_makes_pictures_deterministically(
        self, augmenter: Augmenter, surfaces: Dataset, shots: Shots, tmp_path: Path
    ) -> None:
        """A picture follows from its request and the view, whatever was made before; another seed makes another."""
        if augmenter.refuses(shots):
            pytest.skip(augmenter.refuses(shots))
        view = view_of(surfaces, augmenter.reads(shots))
        prepare(augmenter, view, tmp_path)
        first = augmenter.generate(requests(augmenter.chunk_size), view)
        other = augmenter.generate(requests(augmenter.chunk_size, seed=1), view)
        again = augmenter.generate(requests(augmenter.chunk_size), view)
        assert len(first) == augmenter.chunk_size, "one picture a request"
        height, width = surfaces.read_image(surfaces.samples().iloc[0].to_dict()).shape[:2]
        for a, b in zip(first, again, strict=True):
            assert np.array_equal(a.image, b.image), "draw from request.rng alone"
            assert a.label == "defect", "give the label that was asked for"
            assert a.image.dtype == np.uint8 and a.image.shape == (height, width, 3), "H,W,3 uint8, of the view's size"
            assert a.mask is None or (a.mask.dtype == bool and a.mask.shape == (height, width)), "H,W bool"
            assert a.mask is None or a.mask.any(), "a mask without a pixel: give None"
            assert json.loads(canonical_json(a.meta)) == a.meta, "meta are JSON values"
        assert any(not np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True)), "seeds differ"

    def test_sees_only_what_it_declares(self, augmenter: Augmenter, surfaces: Dataset) -> None:
        """What `reads` does not name is out of its reach."""
        view = view_of(surfaces, augmenter.reads(0))
        if "shots" not in augmenter.reads(0):
            with pytest.raises(PermissionError):
                _ = view.shots
            positive = surfaces.samples().query("label != 'good'")["id"].iloc[0]
            with pytest.raises(KeyError):
                view.image(positive)

    def test_without_shots_reads_the_same_in_every_regime(self, augmenter: Augmenter) -> None:
        """Or its pools could not be shared, as keys say that they are."""
        for shots in (1, 5, "all"):
            assert "shots" in augmenter.reads(shots) or augmenter.reads(shots) == augmenter.reads(0)

    def test_notes_are_lines(self, augmenter: Augmenter) -> None:
        """Reports print them under tables."""
        assert all("\n" not in augmenter.notes(shots) for shots in (0, 5, "all"))


def view_of(dataset: Dataset, reads: frozenset[Reads]) -> TrainView:
    """A view of all samples of a dataset, the test split too: for tests of augmenters."""
    table = dataset.samples()
    good = table["label"] == GOOD
    return TrainView(dataset, table[good], table[~good], reads, regions=table[~good])


def requests(count: int, seed: int = 0) -> list[Request]:
    """Requests for so many pictures, as a pool of that seed has them."""
    return [Request(index, seed * 1000 + index, "defect") for index in range(count)]


def prepare(augmenter: Augmenter, view: TrainView, folder: Path) -> None:
    """Let it learn, if it does, into an empty folder; and load what it learned."""
    adapter = None
    if augmenter.learns:
        adapter = folder / "adapter"
        adapter.mkdir(exist_ok=True)
        augmenter.adapt(view, adapter, 0, workroom(folder))
        endings = {path.suffix for path in adapter.rglob("*") if path.is_file()}
        assert endings <= {".safetensors", ".json"}, f"an adapter is safetensors and JSON, not {endings}"
    augmenter.load(adapter, "cpu")


def workroom(folder: Path) -> AdaptContext:
    """Where an adapter is made, on the CPU; what is shared lies in the folder, too."""

    def shared(key: str, make: Callable[[Path], None]) -> Path:
        place = folder / "shared" / key
        if not place.exists():
            place.mkdir(parents=True)
            make(place)
        return place

    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return AdaptContext(scratch, shared)


def _spec_of(dataset: Dataset, settings: dict[str, Any], fold: int = 0) -> tuple[Library, DataSpec]:
    """The dataset in a plan that holds out a fifth, in one of its folds."""
    protocol = {"name": "contract", "width": 32, "height": 48, "lr": 0.01, "batch": 8, "epochs": 1, "holdout": 0.2}
    raw = {"name": "contract", "datasets": [{"name": dataset.name, "settings": settings}], "augmenters": ["none"],
           "protocols": [protocol], "shots": ["all"], "folds": [fold], "fidelity": None}  # fmt: skip
    plan = make_plan(make_grid(raw))
    return plan.library, plan.cells[0].data
