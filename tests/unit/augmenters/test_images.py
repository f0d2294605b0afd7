"""Images made elsewhere: layouts, what does not fit, lineage, and near-copies of test images."""

import json
import shutil

import numpy as np
import pytest
from helpers import TINY_PROBE, cli, grid_file, on_disk, path_of, tiny_grid, tiny_plan, view_of
from layouts import NEU_SHORT, draw_neu, draw_pool, save

from augbench.augmenters.images import SAME, UNKNOWN
from augbench.core import registry
from augbench.core.contracts import Request, Synthetic
from augbench.core.errors import UserError
from augbench.core.images import read_rgb
from augbench.planning.library import open_dataset
from augbench.planning.plan import notes_of
from augbench.report.frame import load_records
from augbench.runner.driver import run
from augbench.stages.context import Context
from augbench.stages.copy_check import refuse_test_copies
from augbench.storage.store import Store
from augbench.testing import SURFACES, requests

FLAT = ["b.png", "a.png", "c.JPG"]
MVTEC = ["test/bent/000.png", "test/bent/001.png", "test/cut/000.png", "test/good/000.png"]


def mvtec_mask(name):
    return name.replace("test/", "ground_truth/").replace(".png", "_mask.png")


def beside(name):
    return f"masks/{name.split('.')[0]}.png"


def pool(folder, **settings):
    return registry.make("augmenters", "images", {"folder": str(folder), **settings})


def view():
    return view_of(open_dataset("surfaces", SURFACES), frozenset({"negatives"}))


def taken(folder, count=3, **settings):
    return pool(folder, **settings).generate(requests(count), view())


def files_of(samples):
    return [sample.meta["file"] for sample in samples]


def entry(folder, **settings):
    return {"name": "images", "settings": {"folder": str(folder), **settings}}


def refused(folder):
    with pytest.raises(UserError) as error:
        augmenter = pool(folder)
        augmenter.key_settings()
        augmenter.ready()
    assert "\n" not in str(error.value)
    return str(error.value)


# -- layouts


def test_a_flat_folder_is_taken_in_the_order_of_its_names(tmp_path):
    draw_pool(tmp_path, FLAT)
    made = taken(tmp_path, 4)
    assert files_of(made) == ["a.png", "b.png", "c.JPG", "a.png"], "a chunk beyond the last image starts anew"
    assert np.array_equal(made[0].image, read_rgb(tmp_path / "a.png")) and made[0].mask is None
    assert pool(tmp_path).capacity(view()) == 3


def test_class_folders_with_masks_take_turns_without_normal_images(tmp_path):
    draw_pool(tmp_path, MVTEC, mvtec_mask)
    made = taken(tmp_path)
    assert files_of(made) == ["test/bent/000.png", "test/cut/000.png", "test/bent/001.png"]
    assert [sample.meta["class"] for sample in made] == ["bent", "cut", "bent"]
    assert all(sample.mask.sum() == 64 for sample in made)
    assert pool(tmp_path).capacity(view()) == 3


def test_folders_of_images_and_masks_within_each_class(tmp_path):
    draw_pool(tmp_path, ["cut/image/0.png", "cut/image/1.png"], lambda name: name.replace("image", "mask"))
    assert [sample.meta["class"] for sample in taken(tmp_path, 2) if sample.mask.any()] == ["cut", "cut"]


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_a_table_decides_order_labels_and_masks(tmp_path, table):
    draw_pool(tmp_path, FLAT, lambda name: f"m/{name}.png")
    rows = [{"file_name": name, "label": "defect", "mask_file_name": f"m/{name}.png"} for name in ("c.JPG", "b.png")]
    lines = [json.dumps(row) for row in rows]
    if table.endswith("csv"):
        lines = ["mask_file_name,file_name", *(f"{row['mask_file_name']},{row['file_name']}" for row in rows)]
    (tmp_path / table).write_text("\n".join(lines) + "\n")
    made = taken(tmp_path, 2)
    assert files_of(made) == ["c.JPG", "b.png"] and all(sample.mask.any() for sample in made)


def test_the_class_0_of_a_table_is_a_class(tmp_path):
    draw_pool(tmp_path, FLAT)
    rows = [{"file_name": name, "label": label} for label, name in enumerate(("c.JPG", "b.png"))]
    (tmp_path / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert [sample.meta["class"] for sample in taken(tmp_path, 2)] == ["0", "1"]


def test_lines_of_a_table_end_at_line_feeds_alone(tmp_path):
    draw_pool(tmp_path, FLAT, beside)
    rows = [{"file_name": name, "mask_file_name": beside(name), "prompt": "a\u2028b\u2029c\x85d"} for name in FLAT]
    text = "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8", newline="")
    assert files_of(taken(tmp_path)) == FLAT


def test_a_pool_of_a_store_comes_back_as_it_is(store):
    axes = {"shots": [0, 5], "n_aug": [6], "protocols": [TINY_PROBE]}
    run(tiny_grid(augmenters=["memseg"], **axes), store, executor="inline")
    (key,) = store.keys("pools")
    run(tiny_grid(name="again", augmenters=[entry(path_of(store, "pools", key))], **axes), store, executor="inline")
    of = load_records(store).pivot(index="shots", columns="augmenter", values="ap")
    assert len(of) == 2 and (of["images"] == of["memseg"]).all()


def test_masks_mark_half_of_their_largest_value_and_more(tmp_path):
    draw_pool(tmp_path, ["a.png"])
    for values in ((0, 1), (0, 255), (9, 250)):  # 0 and 1; 0 and 255; with the noise of JPEG
        mask = np.full((176, 64), values[0], np.uint8)
        mask[:4, :4] = values[1]
        save(mask, tmp_path / "masks" / "a.png")
        assert taken(tmp_path, 1)[0].mask.sum() == 16


def test_recognition_takes_class_folders(tmp_path):
    classes = sorted(NEU_SHORT)
    draw_pool(tmp_path / "p", [f"{name}/{i}.png" for name in classes for i in range(3)], size=(40, 32))
    changes = on_disk("neu", draw_neu(tmp_path / "neu"), augmenters=[entry(tmp_path / "p")], shots=[2], n_aug=[3])
    plan = tiny_plan(**changes)
    spec = plan.cells[0].data
    seen = plan.library.view(spec, None, None, frozenset({"negatives"}))
    asked = [Request(i, i, spec.classes[i % 6]) for i in range(18)]
    made = pool(tmp_path / "p").generate(asked, seen)
    assert sorted(files_of(made)) == sorted(f"{name}/{i}.png" for name in classes for i in range(3))
    with pytest.raises(UserError, match="can make 18 images on 'neu', the grid asks for 24"):
        tiny_plan(**{**changes, "n_aug": [4]})
    shutil.rmtree(tmp_path / "p" / classes[0])
    with pytest.raises(UserError, match=f"no image of class '{classes[0]}'"):
        tiny_plan(**changes)


# -- keys


def test_keys_follow_the_content_and_not_the_place(tmp_path):
    draw_pool(tmp_path / "one", FLAT, beside)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first, second = (pool(tmp_path / name).key_settings() for name in ("one", "two"))
    assert first == second and str(tmp_path) not in json.dumps(first)
    (tmp_path / "two" / "notes.txt").write_text("not an image")
    assert pool(tmp_path / "two").key_settings() == first
    shutil.copy(tmp_path / "two/masks/a.png", tmp_path / "two/masks/b.png")
    assert pool(tmp_path / "two").key_settings() != first
    assert pool(tmp_path / "one", trained_on={"ids": ["x"]}).key_settings() != first


def test_the_plan_refuses_more_images_than_there_are(tmp_path):
    draw_pool(tmp_path, FLAT)
    with pytest.raises(UserError, match="augmenter 'images' can make 3 images on 'surfaces', the grid asks for 6"):
        tiny_plan(augmenters=[entry(tmp_path)])


# -- what does not fit


def test_wrong_folders_are_one_line(tmp_path):
    assert "is not a folder" in refused(tmp_path / "none")
    assert "holds no images" in refused(tmp_path)
    draw_pool(tmp_path, ["good/0.png"])
    assert "no defect images" in refused(tmp_path)
    draw_pool(tmp_path, ["cut/0.png"])
    (tmp_path / "cut/1.png").write_bytes(b"no image")
    assert "cut/1.png' cannot be read" in refused(tmp_path)


def test_wrong_masks_are_one_line(tmp_path):
    draw_pool(tmp_path, FLAT, beside)
    save(np.eye(176, 64, dtype=bool), tmp_path / "masks" / "d.png")
    assert "'masks/d.png' look like masks, and no image has their name" in refused(tmp_path)
    (tmp_path / "masks" / "d.png").unlink()
    (tmp_path / "masks" / "a.png").unlink()
    assert "'a.png' lack a mask, others have one" in refused(tmp_path)
    save(np.eye(64, 64, dtype=bool), tmp_path / "masks" / "a.png")
    assert "mask 'masks/a.png' is 64 x 64, its image 64 x 176" in refused(tmp_path)
    save(np.zeros((176, 64), bool), tmp_path / "masks" / "a.png")
    assert "mask 'masks/a.png' is empty" in refused(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"file_name": "x.png"}', "line 1 names 'x.png', which is not there"),
        ('{"label": "x"}', "line 1 has no file_name"),
        ('{"file_name": "../a.png"}', "leaves the root"),
        ('{"file_name": "a.png"}\n{"file_name": "a.png"}', "names 'a.png' twice"),
        ("[1]", "'metadata.jsonl' cannot be read"),
        ("{", "'metadata.jsonl' cannot be read"),
        ('{"file_name": "a.png", "mask_file_name": "b.png"}\n{"file_name": "c.JPG"}', "'c.JPG' lack a mask"),
    ],
)
def test_wrong_tables_are_one_line(tmp_path, line, words):
    draw_pool(tmp_path, FLAT)
    (tmp_path / "metadata.jsonl").write_text(line)
    assert words in refused(tmp_path)


def test_other_sizes_are_refused_or_resized(tmp_path):
    draw_pool(tmp_path, ["a.png"], lambda name: f"masks/{name}", size=(88, 32))
    with pytest.raises(UserError, match=r"'a.png' is 32 x 88, and no real image is: set resize: true"):
        taken(tmp_path, 1)
    (made,) = taken(tmp_path, 1, resize=True)
    assert made.image.shape == (176, 64, 3) and made.mask.sum() == 4 * 64
    tiny = np.zeros((880, 320), bool)
    tiny[0, 0] = True  # a pixel that a smaller mask must not lose
    draw_pool(tmp_path, ["a.png"], lambda name: f"masks/{name}", size=(880, 320))
    save(tiny, tmp_path / "masks" / "a.png")
    assert taken(tmp_path, 1, resize=True)[0].mask.sum() == 1


# -- lineage


def test_notes_say_what_the_generator_was_trained_on(tmp_path):
    draw_pool(tmp_path, [f"{i}.png" for i in range(6)])
    plan = tiny_plan(augmenters=[entry(tmp_path)], shots=[2, "all"])
    notes = [notes_of(plan.library, cell, plan.needs[cell.key]) for cell in plan.cells]
    assert notes == [[f"images: {UNKNOWN}; {SAME}"]] * 2

    split = plan.library.split(plan.cells[0].data)
    ids = [*split.positives["id"].iloc[:3], split.negatives["id"].iloc[0]]
    plan = tiny_plan(augmenters=[entry(tmp_path, trained_on={"ids": ids}, sample="drawn")], shots=[0, {"ids": ids[:3]}])
    beyond, same = (notes_of(plan.library, cell, plan.needs[cell.key]) for cell in plan.cells)
    assert same == ["images: its generator was trained on 4 training images, 3 of them defects"]
    assert beyond == [f"{same[0]}, of which 3 are not among the shots"]
    with pytest.raises(UserError, match=r"'trained_on': \{ids: FILE\}, or 'unknown' \(got 'all'\)"):
        tiny_plan(augmenters=[entry(tmp_path, trained_on="all")])
    wrong = [*ids, split.test["id"].iloc[0]]
    with pytest.raises(UserError, match=f"was trained on '{wrong[-1]}', not in the training part of 'surfaces'"):
        tiny_plan(augmenters=[entry(tmp_path, trained_on={"ids": wrong})])


# -- near-copies


@pytest.fixture(scope="module")
def held():
    """The context of a store, a pool of `surfaces`, and sound images."""
    plan = tiny_plan(augmenters=["memseg"], shots=[0])
    (made,) = plan.pools.values()
    context = Context(Store("memory://copies"), plan.library)
    augmenter = plan.library.augmenter(made.augmenter)
    return context, made, augmenter.generate(requests(8), context.view(augmenter, made))


def real(held, part, row=0):
    context, made, _ = held
    rows = getattr(context.library.split(made.data), part)
    row = rows[rows["label"] != "good"].iloc[row] if part == "test" else rows.iloc[row]
    return row["id"], context.library.dataset("surfaces").read_image(row.to_dict())


def brighter(image):
    return np.clip(image.astype(int) * 0.9 + 12, 0, 255).astype(np.uint8)


def test_patched_normal_images_are_no_copies(held):
    context, made, sound = held
    assert refuse_test_copies(context, made, sound) == []


@pytest.mark.parametrize(("part", "called"), [("test", "test"), ("heldout", "held-out")])
def test_a_copy_of_an_evaluated_image_is_refused_by_name(held, part, called):
    context, made, sound = held
    name, image = real(held, part)
    copy = Synthetic(brighter(image), "defect", None, {"file": "x.png"})
    with pytest.raises(UserError, match=f"image 'x.png' is a near-copy of the {called} image '{name}'"):
        refuse_test_copies(context, made, [*sound, copy])


def test_copies_of_training_defects_are_counted(held):
    context, made, sound = held
    copies = [Synthetic(brighter(real(held, "positives", row)[1]), "defect") for row in range(2)]
    assert refuse_test_copies(context, made, [*sound, *copies]) == [8, 9]


def test_a_run_notes_copies_of_shots_and_ends_at_a_copy_of_a_test_image(tmp_path, held):
    folder = tmp_path / "pool"
    for index, sample in enumerate(held[2]):
        save(sample.image, folder / f"{index}.png")
    save(brighter(real(held, "positives")[1]), folder / "0.png")
    store = Store(str(tmp_path / "store"))
    grid = grid_file(tmp_path, augmenters=[entry(folder)], shots=[0], n_aug=[8])
    assert cli("run", grid, "--store", store.url, "--executor", "inline").returncode == 0
    (record,) = store.read_records(sorted(store.keys("cells")))
    assert record["provenance"]["notes"][-1] == "images: 1 of 8 images are near-copies of real training defects"
    save(brighter(real(held, "test")[1]), folder / "7.png")
    ended = cli("run", grid, "--store", store.url, "--executor", "inline")
    assert ended.returncode == 2
    assert "image '7.png' is a near-copy of the test image" in ended.stdout + ended.stderr
