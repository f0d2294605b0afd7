"""What every discovered dataset and augmenter must keep. A new plug-in inherits these tests by being there."""

import json
import subprocess
import sys

import layouts
import numpy as np
import pytest
from helpers import library_of, same_picture, tiny_grid, tiny_plan, view_of

from augbench import GOOD, Request
from augbench.core import plugins
from augbench.core.contracts import SAMPLE_COLUMNS, Dataset, Workroom
from augbench.core.keys import canonical_json
from augbench.core.plan import make_plan
from augbench.core.splits import grouped_folds
from augbench.report.findings import examine

DATASETS = sorted(plugins.find("datasets"))
AUGMENTERS = sorted(plugins.find("augmenters"))
SMALL = {  # settings with which an augmenter of diffusion is done in seconds
    "ddpm": {
        "bundle": "micro-sd",
        "zero": {"epochs": 1, "alpha": 0.6, "instances": 2},
        "full": {"epochs": 1, "alpha": 0.8, "instances": 2},
        "class_pictures": 2,
        "repeats": 1,
        "steps": 2,
    },
    "stablesdg": {"bundle": "micro-sd", "token_steps": 1, "lora_steps": 1, "batch": 2, "steps": 2},
    "diag": {"bundle": "micro-sdxl-inpaint", "prompts": "surfaces", "steps": 2},
}
NEED_MASKS = ("diag", "toy")
RUNNABLE = [
    name
    for name, plugin in plugins.find("augmenters").items()
    if plugin.makes_images and not plugin.not_runnable and plugin.parts is plugins.ROOMS["augmenters"].parts
]


@pytest.fixture(params=DATASETS)
def dataset(request, tmp_path):
    draw = getattr(layouts, f"draw_{request.param}", None)
    assert draw, f"add draw_{request.param} to tests/layouts.py: a tiny one in its official layout"
    return library_of(request.param, draw(tmp_path / "data")).dataset(request.param)


def spec_of(dataset, tmp_path, fold=0):
    settings = getattr(layouts, f"draw_{dataset.name}")(tmp_path / "again")
    plan = tiny_plan(
        datasets=[{"name": dataset.name, "settings": settings}], augmenters=["none"], shots=["all"], folds=[fold]
    )
    return plan.library, plan.cells[0].data


def test_dataset_says_what_it_is(dataset):
    assert dataset.title and dataset.licence
    assert dataset.task in ("detection", "recognition")
    assert dataset.embedded or dataset.name == "folder" or (dataset.citation and dataset.homepage)


def test_dataset_table(dataset):
    table = dataset.samples()
    assert tuple(table.columns) == SAMPLE_COLUMNS
    assert table["id"].is_unique and table["id"].is_monotonic_increasing
    assert all(isinstance(value, str) for value in table.to_numpy().ravel())
    assert len(set(table["label"])) > 1
    assert (GOOD in set(table["label"])) == (dataset.task == "detection"), "recognition tells defects apart"
    assert set(table["split"]) == ({""} if dataset.folds else {"train", "test"})


def test_dataset_pictures_and_masks(dataset):
    for row in dataset.samples().groupby("label").head(2).to_dict("records"):
        image, mask = dataset.read_image(row), dataset.read_mask(row)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert same_picture(image, dataset.read_image(row))
        if mask is not None:
            assert mask.dtype == bool and mask.shape == image.shape[:2]
            assert mask.any() or row["label"] == GOOD


def test_dataset_groups_are_on_one_side(dataset, tmp_path):
    for fold in range(dataset.folds or 1):
        library, spec = spec_of(dataset, tmp_path, fold)
        split = library.split(spec)
        parts = {name: set(getattr(split, name)["group"]) for name in ("negatives", "positives", "heldout", "test")}
        assert not parts["test"] & (parts["negatives"] | parts["positives"] | parts["heldout"])
        assert not parts["heldout"] & (parts["negatives"] | parts["positives"])
        if dataset.task == "recognition":
            assert split.heldout.empty and split.negatives.empty
            assert set(split.positives["label"]) == set(split.test["label"]) == set(dataset.classes())
        else:
            assert len(split.heldout), "the tiny protocol holds out a fifth"
            assert set(split.heldout["label"]) == {GOOD}


def test_folds_cover_every_sample_once(dataset):
    if not dataset.folds:
        pytest.skip("official split")
    table = dataset.samples()
    folds = grouped_folds(table, dataset.folds, dataset.name)
    assert set(folds) == set(range(dataset.folds))
    assert (table.assign(fold=folds).groupby("group")["fold"].nunique() == 1).all()


def test_dataset_fingerprint_follows_content(dataset):
    before = dataset.fingerprint()
    assert type(dataset)(dataset.config).fingerprint() == before
    if dataset.config.root is not None:
        path = dataset.files()[0]
        path.write_bytes(path.read_bytes() + b"\0")
        assert type(dataset)(dataset.config).fingerprint() != before


def test_dataset_can_be_shown_and_checked(dataset):
    plugin = type(dataset)
    assert all(field.description for field in plugin.Config.model_fields.values()), "each setting says what it means"
    assert plugin.__doc__ != Dataset.__doc__, "the docstring says which layout is expected"
    findings = examine(dataset)
    counted = tuple(dataset.official_counts)
    assert [problem for problem in findings.problems if not problem.startswith(counted or "-")] == []
    assert all(one.pixels and one.size for one in findings.seen)
    assert len(findings.folds) == (dataset.folds or 1)


def test_draws_nest(dataset, tmp_path):
    library, spec = spec_of(dataset, tmp_path)
    small, large = (set(library.shots(spec, n, 3)["id"]) for n in (2, 4))
    assert small < large
    assert len(small) == 2 * (len(library.dataset(spec.alias).classes()) if spec.classes else 1)
    assert small != set(library.shots(spec, 2, 4)["id"]) or len(large) < 6


@pytest.mark.parametrize("name", AUGMENTERS)
def test_augmenter_says_what_it_is(name):
    plugin = plugins.get("augmenters", name)
    assert plugin.title and plugin.tasks
    assert plugin.chunk_size > 0


@pytest.fixture(params=RUNNABLE)
def augmenter(request):
    return plugins.make("augmenters", request.param, SMALL.get(request.param, {}))


def requests(count, seed=0):
    return [Request(index, seed * 1000 + index, "defect") for index in range(count)]


def room(tmp_path):
    """Where an adapter is made; what is shared lies there, too."""

    def shared(key, make):
        folder = tmp_path / "shared" / key
        if not folder.exists():
            folder.mkdir(parents=True)
            make(folder)
        return folder

    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return Workroom(scratch, shared)


def prepared(augmenter, view, tmp_path):
    adapter = None
    if augmenter.learns:
        adapter = tmp_path / "adapter"
        adapter.mkdir(exist_ok=True)
        augmenter.adapt(view, adapter, 0, room(tmp_path))
        assert {p.suffix for p in adapter.rglob("*") if p.is_file()} <= {".safetensors", ".json"}
    augmenter.load(adapter, "cpu")
    return augmenter


@pytest.mark.parametrize("shots", [0, "all"])
def test_augmenter_makes_pictures_deterministically(augmenter, shots, tmp_path):
    if augmenter.refuses(shots):
        pytest.skip(augmenter.refuses(shots))
    surfaces = library_of("surfaces", layouts.draw_surfaces(None)).dataset("surfaces")
    view = view_of(surfaces, augmenter.reads(shots))
    prepared(augmenter, view, tmp_path)
    first = augmenter.generate(requests(augmenter.chunk_size), view)
    again = augmenter.generate(requests(augmenter.chunk_size), view)
    other = augmenter.generate(requests(augmenter.chunk_size, seed=1), view)
    assert len(first) == augmenter.chunk_size
    for a, b in zip(first, again, strict=True):
        assert same_picture(a.image, b.image) and a.label == "defect"
        assert a.image.dtype == np.uint8 and a.image.shape == (176, 64, 3)
        assert a.mask is None or (a.mask.dtype == bool and a.mask.shape == (176, 64) and a.mask.any())
        assert json.loads(canonical_json(a.meta)) == a.meta
    assert any(not same_picture(a.image, b.image) for a, b in zip(first, other, strict=True))


def test_augmenter_sees_only_what_it_declares(augmenter):
    surfaces = library_of("surfaces", layouts.draw_surfaces(None)).dataset("surfaces")
    view = view_of(surfaces, augmenter.reads(0))
    if "shots" not in augmenter.reads(0):
        with pytest.raises(PermissionError):
            _ = view.shots
        positive = surfaces.samples().query("label != 'good'")["id"].iloc[0]
        with pytest.raises(KeyError):
            view.image(positive)


def test_augmenter_that_reads_no_shots_reads_the_same_in_every_regime(augmenter):
    for shots in (1, 5, "all"):
        assert "shots" in augmenter.reads(shots) or augmenter.reads(shots) == augmenter.reads(0)


def test_augmenter_notes_are_lines(augmenter):
    assert all("\n" not in augmenter.notes(shots) for shots in (0, 5, "all"))


def test_view_never_holds_test_or_heldout(tmp_path):
    plan = tiny_plan(shots=["all"])
    spec = plan.cells[0].data
    split = plan.library.split(spec)
    view = plan.library.view(spec, "all", None, frozenset({"negatives", "shots", "masks", "regions"}))
    for hidden in (split.test, split.heldout):
        for name in hidden["id"].head(3):
            with pytest.raises(KeyError):
                view.image(name)
            with pytest.raises(KeyError):
                view.region(name)


def test_regions_are_masks_of_all_training_positives_and_nothing_more():
    plan = tiny_plan(shots=[0], augmenters=["memseg"])
    spec = plan.cells[0].data
    split = plan.library.split(spec)
    view = plan.library.view(spec, 0, None, frozenset({"negatives", "regions"}))
    assert view.regions == tuple(split.positives["id"])
    for row in split.positives.to_dict("records"):
        assert (view.region(row["id"]) == plan.library.dataset("surfaces").read_mask(row)).all()
        with pytest.raises(KeyError):
            view.image(row["id"])
        with pytest.raises(PermissionError):
            view.mask(row["id"])
    with pytest.raises(KeyError):
        view.region(split.negatives["id"].iloc[0])
    with pytest.raises(PermissionError):
        _ = view.shots
    blind = plan.library.view(spec, "all", None, frozenset({"negatives", "shots", "masks"}))
    with pytest.raises(PermissionError):
        _ = blind.regions
    with pytest.raises(PermissionError):
        blind.region(split.positives["id"].iloc[0])


@pytest.mark.parametrize("name", AUGMENTERS)
def test_augmenter_is_listed_without_heavy_imports(name):
    code = (
        "import sys; from augbench.core import plugins; "
        f"plugins.get('augmenters', '{name}') if '{name}' != 'toy' else None; "
        "print([m for m in ('torch', 'ray', 'diffusers', 'transformers', 'sklearn') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


@pytest.mark.parametrize("name", sorted(set(AUGMENTERS) - {"mixture"}))
def test_augmenter_can_be_planned_everywhere(name, tmp_path):
    for dataset in DATASETS:
        settings = getattr(layouts, f"draw_{dataset}")(tmp_path / dataset)
        if name in NEED_MASKS and dataset == "folder":
            continue  # class folders have no masks
        augmenters = list(dict.fromkeys(["none", name]))  # `none` can be planned for every task
        grid = tiny_grid(datasets=[{"name": dataset, "settings": settings}], augmenters=augmenters, shots=["all"])
        plan = make_plan(grid)
        fits = plugins.get("datasets", dataset).task in plugins.get("augmenters", name).tasks
        assert any(cell.augmenter.name == name for cell in plan.cells) == fits
        assert fits or any(f"{name}: made for" in reason for reason in plan.dropped)
