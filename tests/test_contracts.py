"""Contract tests of every discovered dataset and augmenter; a new plug-in is included automatically."""

import layouts
import pytest
from helpers import tiny_grid, tiny_plan
from reviews import draw_review

from augbench.core import registry
from augbench.planning.plan import make_plan
from augbench.testing import AugmenterContract, AugmenterIdentity, DatasetContract

DATASETS = sorted(registry.find("datasets"))
AUGMENTERS = sorted(registry.find("augmenters"))
SMALL = {  # settings with which a diffusion augmenter takes seconds
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
    "vae_roundtrip": {"bundle": "micro-sd"},
}
NEED_MASKS = ("diag", "toy")
RUNNABLE = [
    name
    for name, plugin in registry.find("augmenters").items()
    if plugin.makes_images and not plugin.not_runnable and plugin.parts is registry.PLUGIN_KINDS["augmenters"].parts
]


class TestDatasets(DatasetContract):
    @pytest.fixture(params=DATASETS)
    def name(self, request):
        return request.param

    @pytest.fixture
    def settings(self, name, tmp_path):
        draw = getattr(layouts, f"draw_{name}", None)
        assert draw, f"add draw_{name} to tests/helpers/layouts.py: a tiny dataset in its official layout"
        return draw(tmp_path / "data")

    def test_states_its_origin(self, dataset):
        assert dataset.embedded or dataset.name == "folder" or (dataset.citation and dataset.homepage)


class TestAugmenters(AugmenterContract):
    @pytest.fixture(params=RUNNABLE)
    def name(self, request):
        return request.param

    @pytest.fixture
    def settings(self, name, tmp_path):
        if name == "images":
            return {**layouts.draw_pool(tmp_path / "pool", [f"{i}.png" for i in range(20)]), "sample": "drawn"}
        if name == "reviewed":
            return draw_review(tmp_path / "review", 20)
        return SMALL.get(name, {})

    @pytest.fixture
    def seeded(self, name):
        return name not in ("copy", "reviewed")


class TestOtherAugmenters(AugmenterIdentity):
    @pytest.fixture(params=sorted(set(AUGMENTERS) - set(RUNNABLE)))
    def name(self, request):
        return request.param


def test_view_never_holds_test_or_heldout():
    plan = tiny_plan(shots=["all"])
    spec = plan.cells[0].data
    split = plan.library.split(spec)
    view = plan.library.view(spec, "all", None, frozenset({"negatives", "shots", "masks", "regions"}))
    for name in (*split.test["id"].head(3), *split.heldout["id"].head(3)):
        for read in (view.image, view.region):
            with pytest.raises(KeyError):
                read(name)


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


@pytest.mark.parametrize("name", sorted(set(AUGMENTERS) - {"mixture", "images", "reviewed"}))
def test_augmenter_can_be_planned_everywhere(name, tmp_path):
    for dataset in DATASETS:
        settings = getattr(layouts, f"draw_{dataset}")(tmp_path / dataset)
        if name in NEED_MASKS and dataset in ("folder", "elpv"):
            continue  # they come without masks
        augmenters = list(dict.fromkeys(["none", name]))  # `none` can be planned for every task
        grid = tiny_grid(datasets=[{"name": dataset, "settings": settings}], augmenters=augmenters, shots=["all"])
        plan = make_plan(grid)
        fits = registry.get("datasets", dataset).task in registry.get("augmenters", name).tasks
        assert any(cell.augmenter.name == name for cell in plan.cells) == fits
        assert fits or any(f"{name}: made for" in reason for reason in plan.dropped)
