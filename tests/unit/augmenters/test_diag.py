"""The augmenter `diag` on the small pipeline: regions, prompts, keys, and pixels that stay unchanged."""

import csv
import io
import json
import shutil
from pathlib import Path

import layouts
import numpy as np
import pytest
from helpers import assert_one_line, cli, on_disk, tiny, tiny_grid, tiny_plan
from PIL import Image
from rich.console import Console

from augbench import UserError
from augbench.augmenters import diag
from augbench.augmenters.diag import DIAG
from augbench.cli.plan_view import print_plan
from augbench.core import registry
from augbench.core.contracts import Request, TrainView
from augbench.core.specs import PoolSpec
from augbench.diffusion.inpaint import feathered
from augbench.diffusion.pipelines import MODELS
from augbench.diffusion.prompts import FOLDER, prompt_set_names, read_prompts
from augbench.planning.grid import load_grid
from augbench.planning.plan import make_plan, notes_of
from augbench.planning.remaining import subtract
from augbench.report.frame import load_records
from augbench.report.store_report import report
from augbench.runner.driver import run
from augbench.testing import requests

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"bundle": "micro-sdxl-inpaint", "prompts": "surfaces", "steps": 2, "guidance": 3.0}
PAPER = ("white marks on the wall", "copper metal scratches")


def made(**changes):
    return registry.make("augmenters", "diag", TINY | changes)


def loaded(**changes):
    augmenter = made(**changes)
    augmenter.load(None, "cpu")
    return augmenter


def seen(dataset, augmenter, shots, few=3):
    """A view with that many shots where there are any."""
    table = dataset.samples()
    normal, defects = table[table["label"] == "good"], table[table["label"] != "good"]
    return TrainView(
        dataset, normal.head(6), defects.head(few if shots else 0), augmenter.reads(shots), shots, defects.head(8)
    )


def folder_of_masks(tmp_path, count=2, shape=(30, 50)):
    folder = tmp_path / "masks"
    folder.mkdir()
    for number in range(count):
        mask = np.zeros(shape, np.uint8)
        mask[5 : 12 + number, 6:20] = 255
        Image.fromarray(mask).save(folder / f"{number}.png")
    return folder


# -- settings


def test_defaults_are_those_of_the_paper_and_its_code():
    config = DIAG().config
    assert (config.bundle, config.masks, config.as_published) == ("sdxl-inpaint", "positives", False)
    assert (config.steps, config.guidance, config.strength, config.padding) == (30, 20.0, 0.99, 2)
    prompts = read_prompts(config.prompts)
    assert prompts.prompts == PAPER
    assert prompts.negative_prompt == "smooth, plain, black, dark, shadow"
    assert not DIAG().embedded() and made().embedded()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strength": 0}, "strength"),
        ({"strength": 1.01}, "strength"),
        ({"guidance": -1}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"steps": 0}, "steps"),
        ({"padding": -1}, "padding"),
        ({"area": (0.2, 0.1)}, "must not be larger"),
        ({"area": (0.0, 0.1)}, "area"),
        ({"kinds": ()}, "kinds"),
        ({"masks": "positive"}, "masks"),
        ({"masks": "drawn"}, "'mask_folder': masks: drawn needs one"),
        ({"masks": "drawn", "mask_folder": "nowhere"}, "mask_folder 'nowhere' is not a folder: set diag's"),
        ({"mask_folder": "somewhere"}, "'mask_folder': is for masks: drawn"),
        ({"promts": "diag"}, "did you mean 'prompts'"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        made(**changes).key_settings()
    assert "\n" not in str(caught.value)


def test_a_pipeline_of_another_kind_is_refused():
    augmenter = made(bundle="micro-sd")
    line = r"'diag' cannot use pipeline 'micro-sd' \(text to image\): set bundle to sdxl-inpaint or micro-sdxl-inpaint"
    for method in (augmenter.ready, lambda: augmenter.load(None, "cpu")):
        with pytest.raises(UserError, match=line):
            method()


# -- images


@pytest.mark.parametrize("shots", [0, 2, "all"])
def test_images_are_unchanged_outside_the_region(surfaces, shots):
    augmenter = loaded()
    view = seen(surfaces, augmenter, shots)
    images = augmenter.generate(requests(8), view)
    rows = {row["id"]: row for row in surfaces.samples().to_dict("records")}
    for number, image in enumerate(images):
        assert image.meta["prompt"] == augmenter._prompts.prompts[number % len(augmenter._prompts.prompts)]
        source = view.image(image.meta["source"])
        outside = feathered(image.mask) == 0
        assert image.image.shape == source.shape == (176, 64, 3) and image.mask.shape == (176, 64)
        assert (image.image[outside] == source[outside]).all()
        assert (image.image[image.mask] != source[image.mask]).any()
        assert (image.mask == surfaces.read_mask(rows[image.meta["mask"]])).all()
    sources, masks = ({image.meta[name] for image in images} for name in ("source", "mask"))
    assert len(sources) > 1 and len(masks) > 1  # each drawn anew
    assert masks <= set(view.regions if shots in (0, "all") else view.shots["id"])


def test_an_image_depends_on_its_seed_and_its_chunk_alone(surfaces):
    augmenter = loaded(batch=2)
    view = seen(surfaces, augmenter, 0)
    first, second = requests(4), [Request(index, 900 + index, "defect") for index in range(4, 8)]
    forwards = augmenter.generate(first, view) + augmenter.generate(second, view)
    again = loaded(batch=2)
    later, earlier = again.generate(second, view), again.generate(first, view)
    for a, b in zip(forwards, earlier + later, strict=True):
        assert (a.image == b.image).all() and a.meta == b.meta


def test_as_published_the_whole_image_is_resized(surfaces):
    augmenter = loaded(as_published=True)
    view = seen(surfaces, augmenter, 0)
    for image in augmenter.generate(requests(2), view):
        source = view.image(image.meta["source"])
        trip = Image.fromarray(source).resize((64, 64)).resize((64, 176))
        far = feathered(feathered(feathered(image.mask) > 0) > 0) == 0
        far &= np.abs(image.image.astype(int) - source).max(2) > 0  # resizing changes pixels
        assert far.mean() > 0.1
        apart = np.abs(image.image.astype(int) - np.asarray(trip)).max(2)
        assert np.median(apart) == 0


def test_regions_by_rules_need_no_mask(surfaces):
    augmenter = loaded(masks="procedural", kinds=["blob"], area=[0.05, 0.05])
    assert augmenter.reads(0) == augmenter.reads("all") == {"negatives"}
    table = surfaces.samples().query("label == 'good'").head(3)
    view = TrainView(surfaces, table, table.head(0), augmenter.reads(0))
    for image in augmenter.generate(requests(4), view):
        assert (image.meta["masks"], image.meta["mask"]) == ("procedural", "blob")
        assert abs(image.mask.mean() - 0.05) < 0.001


@pytest.mark.parametrize("as_published", [False, True])
def test_grey_images_stay_grey_unless_as_published(surfaces, monkeypatch, as_published):
    honest = surfaces.read_image
    monkeypatch.setattr(surfaces, "read_image", lambda row: np.repeat(honest(row)[..., :1], 3, 2))
    augmenter = loaded(as_published=as_published, guidance=20.0)
    images = augmenter.generate(requests(4), seen(surfaces, augmenter, 0))
    assert all((made.image == made.image[..., :1]).all() for made in images) == (not as_published)


def test_drawn_regions_fit_any_image(surfaces, tmp_path):
    folder = folder_of_masks(tmp_path)
    augmenter = loaded(masks="drawn", mask_folder=str(folder))
    augmenter.ready()
    images = augmenter.generate(requests(6), seen(surfaces, augmenter, 0))
    assert {image.meta["mask"] for image in images} == {"0.png", "1.png"}
    assert all(image.mask.shape == (176, 64) and 0 < image.mask.mean() < 0.2 for image in images)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "2.png")
    with pytest.raises(UserError, match=r"2\.png' is empty"):
        made(masks="drawn", mask_folder=str(folder)).ready()


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("all_of_it", [False, True])
def test_a_mask_of_one_pixel_and_one_of_all(surfaces, tmp_path, all_of_it, as_published):
    mask = np.full((500, 500), 255 if all_of_it else 0, np.uint8)
    mask[250, 250] = 255
    Image.fromarray(mask).save(tmp_path / "0.png")
    augmenter = loaded(masks="drawn", mask_folder=str(tmp_path), as_published=as_published)
    image = augmenter.generate(requests(1), seen(surfaces, augmenter, 0))[0]
    assert image.mask.any() and image.mask.all() == all_of_it


def test_empty_masks_are_skipped(surfaces, monkeypatch):
    augmenter = loaded()
    view = seen(surfaces, augmenter, 0)
    one = view.regions[3]
    honest, empty = surfaces.read_mask, np.zeros((176, 64), bool)
    monkeypatch.setattr(surfaces, "read_mask", lambda row: honest(row) if row["id"] == one else empty)
    assert {image.meta["mask"] for image in augmenter.generate(requests(4), view)} == {one}
    monkeypatch.setattr(surfaces, "read_mask", lambda row: empty)
    with pytest.raises(UserError, match="none of 8 real defects has one: set its masks to procedural"):
        augmenter.generate(requests(1), view)


def test_no_normal_image(surfaces):
    augmenter = loaded(masks="procedural")
    nothing = surfaces.samples().head(0)
    with pytest.raises(UserError, match="give the dataset normal images"):
        augmenter.generate(requests(1), TrainView(surfaces, nothing, nothing, augmenter.reads(0)))


def test_too_little_memory_names_what_saves_some(surfaces, out_of_memory):
    augmenter = loaded()
    out_of_memory(diag, "inpaint_around")
    with pytest.raises(UserError, match=r"1.0 of 8.0 GiB free.*'batch' and 'precision'"):
        augmenter.generate(requests(1), seen(surfaces, augmenter, 0))


# -- prompts


def write(path, text):
    path.write_text(text)
    return str(path)


def test_every_set_of_prompts_says_what_it_is():
    assert {"diag", "surfaces"} <= set(prompt_set_names())
    assert all(found.about and found.source for found in map(read_prompts, prompt_set_names()))


def test_prompts_enter_keys_by_their_content(tmp_path):
    key = made(prompts="diag").key_settings()
    copy = tmp_path / "mine.yaml"
    shutil.copy(FOLDER / "diag.yaml", copy)
    assert made(prompts=str(copy)).key_settings() == key
    write(copy, copy.read_text().replace("about: ", "about: Mine. "))
    assert made(prompts=str(copy)).key_settings() == key  # prose decides nothing
    write(copy, copy.read_text().replace("copper metal", "zinc metal"))
    assert made(prompts=str(copy)).key_settings() != key
    assert str(tmp_path) not in json.dumps(made(prompts=str(copy)).key_settings())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompts: []", "'prompts' is missing or empty"),
        ("negative_prompt: dark", "'prompts' is missing or empty"),
        ("prompts: ['  ']", "prompts"),
        ("prompts: a scratch", "prompts"),
        ("prompts: [a scratch]\nnegative: dark", "unknown key 'negative' .*negative_prompt"),
        ("prompts: [a scratch", "not valid YAML"),
        ("- a scratch", "expected the keys"),
        ("", "expected the keys"),
        ("prompts: [a scratch]\n1: 2", "line 2: unknown key '1'"),
    ],
)
def test_a_file_of_prompts_that_cannot_be_used(tmp_path, text, message):
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(UserError, match=message) as caught:
        made(prompts=path).key_settings()
    assert "bad.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_prompts_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="did you mean 'surfaces'"):
        made(prompts="surface").key_settings()
    augmenters = [{"name": "diag", "settings": {"prompts": "nowhere/my.yaml"}}]
    grid = write(tmp_path / "grid.yaml", json.dumps(tiny(augmenters=augmenters)))
    assert_one_line(cli("plan", grid), "nowhere/my.yaml", "give a .yaml file of prompts")


def test_a_prompt_that_is_too_long(tmp_path):
    augmenter = made(prompts=write(tmp_path / "long.yaml", f"prompts: [{'word ' * 90}]"))
    with pytest.raises(UserError, match="tokens long"):
        augmenter.load(None, "cpu")


# -- keys and plans


def test_drawn_masks_and_pipelines_in_folders_enter_keys_by_their_content(tmp_path):
    folder = folder_of_masks(tmp_path)
    drawn = {"masks": "drawn"}
    shutil.copytree(folder, tmp_path / "moved")
    keys = [made(**drawn, mask_folder=str(place)).key_settings() for place in (folder, tmp_path / "moved")]
    assert keys[0] == keys[1] and str(tmp_path) not in json.dumps(keys[0])
    (folder / "0.png").rename(folder / "9.png")  # names decide who gets which
    assert made(**drawn, mask_folder=str(folder)).key_settings() != keys[0]
    shutil.copytree(MODELS / "micro-sdxl-inpaint", tmp_path / "bundle")
    assert made(bundle=str(tmp_path / "bundle")).key_settings() == made().key_settings()


def test_zero_and_full_shot_share_a_pool_that_says_what_it_read():
    plan = tiny_plan(augmenters=[{"name": "diag", "settings": TINY}, "memseg"], shots=[0, 2, "all"])
    pools = [pool for pool in plan.pools.values() if pool.augmenter.name == "diag"]
    assert [(pool.shots, pool.regions) for pool in pools] == [(None, True), (2, False)]
    for pool in plan.pools.values():
        assert PoolSpec.from_dict(json.loads(json.dumps(pool.as_dict()))) == pool
        assert ("regions" in pool.as_dict()) == pool.regions == pool.adapter.regions
    rules = tiny_plan(augmenters=[{"name": "diag", "settings": {**TINY, "masks": "procedural"}}], shots=[0, 2, "all"])
    assert [(pool.shots, pool.regions) for pool in rules.pools.values()] == [(None, False)]


def test_regions_respect_folds_and_what_is_held_out(tmp_path):
    """Every item of KolektorSDD has a defect somewhere, so whole items are held out, their masks too."""
    settings = layouts.draw_ksdd(tmp_path)
    for fold in (0, 1):
        plan = tiny_plan(**on_disk("ksdd", settings), augmenters=["diag"], shots=[0], folds=[fold])
        spec = plan.cells[0].data
        split = plan.library.split(spec)
        table = plan.library.dataset("ksdd").samples().set_index("id")
        hidden = set(split.test["group"]) | set(split.heldout["group"])
        regions = plan.library.view(spec, 0, None, DIAG().reads(0)).regions
        assert regions and not hidden & set(table.loc[list(regions), "group"])
        assert hidden & set(table.query("label != 'good'")["group"])


@pytest.mark.parametrize("shots", [0, 2, "all"])
def test_without_masks_the_plan_names_the_way_out(tmp_path, shots):
    without = on_disk("folder", layouts.draw_folder(tmp_path), shots=[shots])
    line = "'diag' needs masks, and dataset 'folder' has none: set its masks to procedural"
    with pytest.raises(UserError, match=line):
        tiny_plan(**without, augmenters=["diag"])
    assert tiny_plan(**without, augmenters=[{"name": "diag", "settings": {"masks": "procedural"}}]).cells


def test_a_training_side_without_defects_has_no_regions(surfaces):
    small = {"train_good": 12, "train_defective": 0, "test_good": 6, "test_defective": 4}
    with pytest.raises(UserError, match="has none on its training side: set its masks to procedural"):
        tiny_plan(**on_disk("surfaces", small), augmenters=["diag"], shots=[0])


def test_plans_say_where_regions_come_from(store):
    plan = tiny_plan(augmenters=["none", "diag", "memseg"], shots=[0, 5])
    notes = {note for cell in plan.cells for note in notes_of(plan.library, cell, plan.needs[cell.key])}
    assert notes == {f"diag: {diag.LEAK}", "diag: regions are the masks of its real defects"}
    console = Console(width=300, record=True, file=io.StringIO())
    print_plan(plan, subtract(plan, store), store, console)
    text = console.export_text()
    assert f"note (zero): diag: {diag.LEAK}" in text and "note (few5): diag: regions are" in text


@pytest.mark.parametrize(("name", "published"), [("diag_ksdd2", False), ("diag_ksdd2_as_published", True)])
def test_the_tables_of_the_paper(name, published):
    plan = make_plan(load_grid(f"tune_configs/{name}.yaml"))
    assert plan.absent == ["ksdd2"]
    assert {(c.augmenter.name, c.shots, c.n_aug) for c in plan.cells} == {
        ("none", "all", 0),
        *(("diag", shots, n_aug) for shots in (0, "all") for n_aug in (80, 100, 120)),
    }
    assert {cell.protocol.name for cell in plan.cells} == {"diag_as_published" if published else "diag"}
    assert {p.augmenter.settings.get("as_published", False) for p in plan.pools.values()} == {published}
    assert len(plan.pools) == 4 and plan.images == 480


# -- reports


def test_reports_mark_rows_and_say_where_regions_come_from(store, tmp_path):
    rules = {"name": "diag", "as": "diag_rules", "settings": TINY | {"masks": "procedural"}}
    parts = [{"name": "memseg", "share": 0.5}, {"name": "diag", "share": 0.5, "settings": TINY}]
    mixed = {"name": "mixture", "as": "mixed", "settings": {"parts": parts}}
    augmenters = ["none", {"name": "diag", "settings": TINY}, rules, mixed]
    grid = tiny_grid(augmenters=augmenters, shots=[0, "all"], n_aug=[4, 6])
    summary = run(grid, store, executor="inline", console=Console(file=io.StringIO()))
    assert summary.done == summary.cells
    assert len(store.keys("pools")) == 3  # of diag, of its rules, and of memseg
    console = Console(width=100, record=True, file=io.StringIO())
    files = {Path(name).suffix: Path(name) for name in report(store, grid.name, out=tmp_path, console=console)}
    zero, full = json.loads(files[".json"].read_text())["tables"]
    assert zero["notes"][:2] == [f"(1) diag: {diag.LEAK}", f"(2) diag: {diag.NOTES['procedural']}"]
    assert full["notes"][:2] == [f"(1) diag: {diag.NOTES['positives']}", f"(2) diag: {diag.NOTES['procedural']}"]
    marks = {row["augmenter"]: row["text"]["augmenter"] for row in zero["rows"]}
    assert marks == {"diag": "diag (1)", "diag_rules": "diag_rules (2)", "mixed": "mixed (1)"}
    assert {row["augmenter"]: row["notes"] for row in full["rows"]}["none"] == []
    for text in (console.export_text(), files[".md"].read_text().replace("\\", ""), files[".tex"].read_text()):
        assert "diag (1)" in text and "mixed (1)" in text
        assert "(1) diag: regions are the masks of all training defects" in " ".join(text.split())
    lines = list(csv.DictReader(files[".csv"].open()))
    notes = {(line["augmenter"], line["shots"], line["notes"]) for line in lines}
    assert {note for name, shots, note in notes if (name, shots) == ("diag", "0")} == {f"diag: {diag.LEAK}"}
    assert {note for name, _, note in notes if name == "none"} == {""}


def test_records_from_before_there_were_notes_can_be_read(store):
    run(tiny_grid(augmenters=["none"], shots=["all"]), store, executor="inline", console=Console(file=io.StringIO()))
    (key,) = store.keys("cells")
    record = store.read_record(key)
    assert record["provenance"].pop("notes") == []
    store.write_json("cells", key, record)
    assert load_records(store)["notes"].tolist() == [()]
