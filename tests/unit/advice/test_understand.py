"""What `augbench try` understands of a folder: layouts, classes, items, and what cannot be used."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from augbench.advice.understand import WhichIsNormal, understand
from augbench.core.errors import UserError


def picture(seed, size=(48, 40)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write(path, seed, size=(48, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, size)).save(path)


def folders(root, counts, start=0):
    """Write class folders: class -> number of images, each another one."""
    for offset, (label, number) in enumerate(counts.items()):
        for index in range(number):
            write(root / label / f"{index:03d}.png", start + 1000 * offset + index)
    return root


def understood(root, tmp_path, **options):
    return understand(root, tmp_path / "out" / "images.csv", **options)


@pytest.mark.parametrize(
    ("classes", "good"),
    [
        ({"good": 8, "scratch": 5, "dent": 4}, "good"),
        ({"OK": 8, "NOK": 6}, "OK"),
        ({"parts": 8, "defect": 6}, "parts"),  # of two, the other one
        ({"MT_Free": 8, "MT_Crack": 6}, "MT_Free"),  # by a word of its name
    ],
)
def test_the_class_of_normal_images_is_found_by_its_name(tmp_path, classes, good):
    found = understood(folders(tmp_path / "parts", classes), tmp_path)
    assert found.good == good and found.normal == 8
    assert sum(found.classes.values()) == sum(classes.values()) - 8


def test_it_asks_only_where_no_name_tells(tmp_path):
    root = folders(tmp_path / "parts", {"blue": 8, "red": 5, "green": 5})
    with pytest.raises(WhichIsNormal, match="--good") as error:
        understood(root, tmp_path)
    assert error.value.classes == ["blue", "green", "red"]
    assert understood(root, tmp_path, good="Blue").good == "blue"
    with pytest.raises(UserError, match="--good 'white' is no class"):
        understood(root, tmp_path, good="white")


def test_masks_are_no_images(tmp_path):
    root = folders(tmp_path / "parts", {"good": 8, "scratch": 5})
    mask = np.zeros((48, 40), np.uint8)
    mask[10:20, 10:20] = 255
    for index in range(5):
        (root / "scratch" / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "scratch" / "masks" / f"{index:03d}.png")
    found = understood(root, tmp_path)
    assert len(found.table) == 13 and (found.table["mask"] != "").sum() == 5


def test_a_single_folder_inside_is_entered(tmp_path):
    folders(tmp_path / "download" / "parts", {"good": 8, "scratch": 5})
    found = understood(tmp_path / "download", tmp_path)
    assert found.root.name == "parts" and found.name == "download"


@pytest.mark.parametrize(
    ("folder", "name"), [("Teile 7-b", "Teile_7_b"), ("2024 parts", "folder_2024_parts"), ("elpv", "folder_elpv")]
)
def test_its_name_can_stand_in_grids(tmp_path, folder, name):
    assert understood(folders(tmp_path / folder, {"good": 8, "scratch": 5}), tmp_path).name == name


def test_a_split_is_kept_where_both_sides_can_be_used(tmp_path):
    root = tmp_path / "parts"
    folders(root / "train", {"good": 8, "scratch": 5})
    folders(root / "test", {"good": 6, "scratch": 4}, start=50_000)
    found = understood(root, tmp_path)
    assert found.folds == 0 and set(found.table["split"]) == {"train", "test"}


def test_folds_replace_a_split_without_defects_in_training(tmp_path):
    """MVTec's layout: the few defects are worth more in folds."""
    root = tmp_path / "bottle"
    folders(root / "train", {"good": 8})
    folders(root / "test", {"good": 4, "broken_large": 6, "contamination": 4}, start=50_000)
    found = understood(root, tmp_path)
    assert found.folds == 5 and set(found.table["split"]) == {""} and found.items == 10


def test_near_copies_are_one_item(tmp_path):
    root = folders(tmp_path / "parts", {"good": 20, "scratch": 12})
    image = Image.open(root / "scratch" / "000.png")
    image.save(root / "scratch" / "copy.jpg", quality=90)
    found = understood(root, tmp_path)
    groups = found.table.set_index("id")["group"]
    assert groups["scratch/copy.jpg"] == groups["scratch/000.png"] and found.items == 12


def test_the_names_of_files_tell_items(tmp_path):
    root = tmp_path / "parts"
    for part in range(6):
        for view in range(2):
            for offset, label in enumerate(("good", "scratch")):
                write(root / label / f"part{part}_{view}.png", 10_000 * offset + 10 * part + view)
    found = understood(root, tmp_path, group=r"(part\d+)_.*")
    assert found.items == 6 and found.folds == 3


def test_a_table_tells_labels_of_a_flat_folder(tmp_path):
    root = tmp_path / "flat"
    rows = []
    for index in range(14):
        write(root / f"{index:03d}.png", index)
        rows.append((f"{index:03d}.png", "ok" if index < 8 else "crack"))
    with pytest.raises(UserError, match="nothing says which have a defect"):
        understood(root, tmp_path)
    pd.DataFrame(rows, columns=["image", "label"]).to_csv(root / "labels.csv", index=False)
    assert understood(root, tmp_path).classes == {"crack": 6}


def test_a_table_beside_a_single_folder_is_not_passed_over(tmp_path):
    """The folders inside are cameras, no classes."""
    root, rows = tmp_path / "parts", []
    for index in range(14):
        name = f"images/camera_{index % 2}/{index:03d}.png"
        write(root / name, index)
        rows.append((name, "ok" if index < 8 else "crack"))
    pd.DataFrame(rows, columns=["image", "label"]).to_csv(root / "labels.csv", index=False)
    assert understood(root, tmp_path).classes == {"crack": 6}


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({"good": 8, "scratch ": 6}, "has 'scratch ', which begins or ends with a blank: rename it"),
        ({"good": 8, "scratch": 6, "Scratch": 6}, "classes that differ in spelling alone"),
    ],
)
def test_names_that_no_table_can_hold_are_those_of_folders(tmp_path, classes, words):
    root = folders(tmp_path / "parts", classes)
    with pytest.raises(UserError, match=words):
        understood(root, tmp_path)


def test_what_cannot_be_used_is_left_out_by_name(tmp_path):
    root = folders(tmp_path / "parts", {"good": 10, "scratch": 6})
    (root / "good" / "broken.png").write_bytes(b"\x89PNG\r\n")
    Image.open(root / "good" / "001.png").save(root / "scratch" / "same.png")  # of two classes
    found = understood(root, tmp_path)
    assert found.left_out["cannot be read"] == ["good/broken.png"]
    assert sorted(found.left_out["are equal, but of two classes"]) == ["good/001.png", "scratch/same.png"]
    assert len(found.table) == 15
    assert "broken.png" in dict(found.lines())["left out"]


def test_of_many_normal_images_a_part_is_used(tmp_path):
    root = folders(tmp_path / "parts", {"good": 30, "scratch": 6})
    found = understood(root, tmp_path, most=20)
    assert found.normal == 14 and found.items == 6 and not found.left_out
    assert "the folder has 36 images" in dict(found.lines())["images"]
    again = understood(root, tmp_path, most=20)
    assert again.table.equals(found.table)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({"good": 10}, "none with a defect"),
        ({"good": 10, "scratch": 1}, "1 usable image with a defect, of 1 item"),
        ({"scratch": 5, "dent": 5}, "--good"),
        ({"good": 2, "scratch": 8}, "2 usable images with no defect"),
    ],
)
def test_too_little_is_said_in_one_line(tmp_path, classes, words):
    with pytest.raises(UserError, match=words):
        understood(folders(tmp_path / "parts", classes), tmp_path)


def test_folders_that_are_none(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a.png", 1)
    for name, words in (("empty", "no images"), ("nowhere", "does not exist"), ("a.png", "is a file")):
        with pytest.raises(UserError, match=words):
            understood(tmp_path / name, tmp_path)
    for category in ("bottle", "cable"):
        folders(tmp_path / "mvtec" / category / "train", {"good": 4})
        folders(tmp_path / "mvtec" / category / "test", {"good": 4, "bent": 4})
    with pytest.raises(UserError, match=r"several datasets.*bottle"):
        understood(tmp_path / "mvtec", tmp_path)
