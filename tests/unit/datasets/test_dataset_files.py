"""Every file of every dataset is read, or left out with a reason; odd files, masks and tables never pass unseen."""

import json
import os
import shutil
from pathlib import Path

import layouts
import numpy as np
import pandas as pd
import pytest
from helpers import assert_one_line, cli, library_of
from PIL import Image
from test_datasets import about_files, check

from augbench.core.contracts import GOOD, SAMPLE_COLUMNS, Dataset
from augbench.core.errors import UserError
from augbench.planning.library import open_dataset
from augbench.planning.splits import checked_samples, table_problems
from augbench.report.dataset_findings import examine
from augbench.report.left_out import account_for

LAYOUTS = ("folder", "folder_csv", "ksdd", "ksdd2", "neu", "mvtec_ad", "btech", "visa", "magnetic_tile", "elpv")
PLUGIN = {"folder_csv": "folder", "mvtec_ad": "mvtec", "btech": "mvtec", "visa": "mvtec"}


def opened(layout, settings):
    return open_dataset(PLUGIN.get(layout, layout), settings)


def draw(layout, root):
    return getattr(layouts, f"draw_{layout}")(root)


def files_below(root):
    """All files, and links to folders, below ``root``: an account of its own, to compare with."""
    found = set()
    for place, folders, names in os.walk(root):
        found |= {os.path.join(place, name) for name in names}  # noqa: PTH118
        found |= {os.path.join(place, name) for name in folders if os.path.islink(os.path.join(place, name))}  # noqa: PTH114, PTH118
    return found


def assert_accounted(dataset, account):
    """The files that were read and those that were left out are all files below the home."""
    home, root = dataset.home(), dataset.root()
    read = {name for name in account.read if (root / name).is_relative_to(home)}
    left = sum(sum(names.values()) for names in account.left_out.values())
    through_links = [name for name in read if any(folder.is_symlink() for folder in (root / name).parents)]
    links = [name for name in files_below(home) if Path(name).is_dir()]
    if not through_links and not links:
        assert len(read) + left == len(files_below(home)), (sorted(read), account.left_out)
    assert all(reason and names for reason, names in account.left_out.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_litter_never_changes_a_table_and_every_file_is_accounted_for(tmp_path, layout):
    dataset = opened(layout, draw(layout, tmp_path))
    table, image = dataset.samples(), dataset.root() / dataset.samples()["image"].iloc[0]
    places = {path.parent for path in tmp_path.rglob("*") if path.is_file()} | {dataset.home()}
    for place in places:
        for name in (f"._{image.name}", "Thumbs.db", ".DS_Store"):
            (place / name).write_bytes(b"\0\5\26\7")
        for folder in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
            (place / folder).mkdir()
            shutil.copy(image, place / folder / image.name)
    (dataset.home() / "readme.md").write_text("hello")
    again = opened(layout, dataset.config.model_dump())
    pd.testing.assert_frame_equal(again.samples(), table)
    findings = examine(again)
    assert not about_files(findings.problems)
    assert_accounted(again, findings.account)
    assert any("readme.md" in name for name in findings.account.left_out["that are no images"])


@pytest.mark.parametrize("layout", sorted({*LAYOUTS} - {"folder_csv", "elpv", "visa"}))  # their tables name the files
def test_endings_in_upper_case_are_read(tmp_path, layout):
    settings = draw(layout, tmp_path)
    before = opened(layout, settings).samples()
    for path in [path for path in tmp_path.rglob("*.*") if path.is_file()]:
        path.rename(path.with_suffix(path.suffix.upper()))
    dataset = opened(layout, settings)
    after = dataset.samples()
    columns = ["label", "split"]
    assert list(after[columns].value_counts().sort_index()) == list(before[columns].value_counts().sort_index())
    assert ((after["mask"] != "") == (before["mask"] != "")).all()
    assert layout == "folder" or list(after["id"]) == list(before["id"]), "official ids have no suffix"
    assert not about_files(examine(dataset).problems)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_linked_files_and_folders_are_read(tmp_path, layout):
    settings = draw(layout, tmp_path / "real")
    before = opened(layout, settings).samples()
    for place, _, names in os.walk(tmp_path / "real"):  # every file a link to one elsewhere
        linked = tmp_path / "files" / Path(place).relative_to(tmp_path / "real")
        linked.mkdir(parents=True)
        for name in names:
            (linked / name).symlink_to(Path(place) / name)
    (tmp_path / "folders").mkdir()
    for path in (tmp_path / "real").iterdir():  # every folder a link
        (tmp_path / "folders" / path.name).symlink_to(path)
    for way in ("files", "folders"):
        dataset = opened(layout, {**settings, "root": str(tmp_path / way)})
        pd.testing.assert_frame_equal(dataset.samples(), before)
        assert not account_for(dataset, dataset.samples()).problems()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_class_folder_without_images_and_files_of_other_formats_are_named(tmp_path, layout):
    dataset = opened(layout, draw(layout, tmp_path))
    home = dataset.home()
    (home / "empty").mkdir()
    shutil.copy(dataset.root() / dataset.samples()["image"].iloc[0], home / "image_without_ending")
    for name in ("a.heic", "b.jp2", "more.zip"):
        (home / name).write_bytes(b"\0")
    findings = examine(opened(layout, dataset.config.model_dump()))
    assert any("empty/'" in note and "no image in it is read" in note for note in findings.notes)
    problems = about_files(findings.problems)
    assert len(problems) == 2, problems
    assert any("a.heic" in problem and "b.jp2" in problem and "save them as PNG" in problem for problem in problems)
    assert any("image_without_ending" in problem and "rename them" in problem for problem in problems)
    assert any("more.zip" in note for note in findings.notes)


ANNOTATIONS = {
    "coco.json": (json.dumps({"images": [], "annotations": []}), "COCO"),
    "000.json": (json.dumps({"shapes": [], "imagePath": "000.png"}), "LabelMe"),
    "000.txt": ("0 0.5 0.5 0.25 0.125\n", "YOLO"),
    "000b.txt": ("1 0.1 0.1 0.9 0.1 0.9 0.9 1e-3 .5\n", "YOLO"),
    "train.csv": ("ImageId_ClassId,EncodedPixels\n000.png_1,29102 12\n", "Severstal"),
    "000.xml": ("<annotation></annotation>", "Pascal VOC"),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations_beside_images_are_named_with_the_way_to_convert(tmp_path, name):
    layouts.draw_folder(tmp_path)
    text, what = ANNOTATIONS[name]
    (tmp_path / "scratch" / name).write_text(text)
    (tmp_path / "scratch" / "notes.txt").write_text("12 images\n")
    printed, problems = check("folder", tmp_path)
    (note,) = [line for line in printed.splitlines() if line.startswith("note")]
    assert what in note and f"scratch/{name}" in note and "convert" in note and not problems
    assert "1 that are no images ('scratch/notes.txt')" in printed.splitlines()[-1]


# -- one check for every table


class Table(Dataset):
    """A dataset of any table, as a plug-in might have it."""

    name = title = "table"

    def __init__(self, rows, folds=0, task="detection"):
        super().__init__()
        self.folds, self.task = folds, task
        self.table = pd.DataFrame(rows, columns=SAMPLE_COLUMNS)

    def samples(self):
        return self.table


def rows_of(labels, splits=("train", "test")):
    return [(f"{s}{i}", f"{s}{i}.png", "", label, s, f"{s}{i}") for s in splits for i, label in enumerate(labels)]


def test_one_check_of_every_table():
    assert table_problems(Table(rows_of("ab"), task="recognition"), Table(rows_of("ab")).samples()) == []
    for labels in (("good", "Good "), ("good", "gOOD"), ("two  words", "two words")):
        (problem,) = table_problems(Table([]), Table(rows_of(labels)).samples())
        assert "spelt in several ways" in problem and repr(labels[1]) in problem
    for column in ("id", "image", "mask", "group"):
        table = Table(rows_of("ab")).samples()
        table.loc[0, column] = "/home/me/0.png"
        assert any("'/home/me/0.png'" in problem for problem in table_problems(Table([]), table))
    table = Table(rows_of("ab")).samples()
    table.loc[0, "mask"] = table.loc[1, "image"]
    (problem,) = table_problems(Table([]), table)
    assert "image of one sample and mask of another" in problem
    table = pd.concat([Table(rows_of("abc", ["train"])).samples(), Table(rows_of("abd", ["test"])).samples()])
    assert table_problems(Table([]), table) == [], "in detection a test may hold unseen kinds of defects"
    assert table_problems(Table([], task="recognition"), table) == [
        "class 'c' has no test images: recognition needs both",
        "class 'd' has no training images: recognition needs both",
    ]
    table = Table(rows_of("aabbc", [""])).samples()
    (problem,) = table_problems(Table([], folds=2, task="recognition"), table)
    assert "class 'c' is one group" in problem
    with pytest.raises(UserError, match="class 'c' is one group"):
        checked_samples(Table(rows_of("aabbc", [""]), folds=2, task="recognition"))


@pytest.mark.parametrize("layout", ["folder", "mvtec_ad"])
def test_class_folders_that_differ_in_case_or_forms(tmp_path, layout):
    dataset = opened(layout, draw(layout, tmp_path))
    place = dataset.home() / ("test" if layout == "mvtec_ad" else "")
    shutil.copytree(place / "stain", place / "Stain")
    if layout == "mvtec_ad":
        truth = dataset.home() / "ground_truth"
        shutil.copytree(truth / "stain", truth / "Stain")
    with pytest.raises(UserError, match="spelt in several ways, 'Stain' and 'stain'"):
        checked_samples(opened(layout, dataset.config.model_dump()))


# -- a CSV


def csv_folder(root):
    settings = layouts.draw_folder_csv(root)
    return settings, pd.read_csv(root / "table.csv", dtype=str, keep_default_na=False)


def written(root, table, **settings):
    table.to_csv(root / "table.csv", index=False)
    return open_dataset("folder", {"root": str(root), "csv": "table.csv", **settings})


def test_absolute_paths_and_windows_separators_give_the_same_table(tmp_path):
    _, table = csv_folder(tmp_path)
    expected = written(tmp_path, table).samples()
    for change in (lambda name: str(tmp_path / name), lambda name: name.replace("/", "\\"), lambda name: f"./{name}"):
        changed = table.assign(image=table["image"].map(change), mask=[change(m) if m else "" for m in table["mask"]])
        dataset = written(tmp_path, changed)
        pd.testing.assert_frame_equal(dataset.samples(), expected)
    assert not written(tmp_path, table, csv=str(tmp_path / "table.csv")).key_settings()["csv"].startswith("/")


def test_absolute_paths_through_a_link_to_the_root(tmp_path):
    _, table = csv_folder(tmp_path / "real")
    expected = written(tmp_path / "real", table).samples()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for one, other in (("real", "link"), ("link", "real")):
        named = table.assign(image=[str(tmp_path / one / name) for name in table["image"]])
        pd.testing.assert_frame_equal(written(tmp_path / other, named).samples(), expected)


@pytest.mark.parametrize("name", ["elpv", "visa"])
def test_windows_separators_in_official_tables(tmp_path, name):
    settings = draw(name, tmp_path)
    before = opened(name, settings).samples()
    for path in [tmp_path / "labels.csv", *tmp_path.glob("split_csv/*.csv")]:
        if path.exists():
            path.write_text(path.read_text().replace("/", "\\"))
    pd.testing.assert_frame_equal(opened(name, settings).samples(), before)


def test_composed_and_decomposed_letters_are_one_name(tmp_path):
    _, table = csv_folder(tmp_path)
    (tmp_path / "images" / "good_000.png").rename(tmp_path / "images" / "o\u0308.png")
    table.loc[table["image"] == "images/good_000.png", "image"] = "images/\u00f6.png"
    written(tmp_path, table)
    text, problems = check("folder", tmp_path, "csv=table.csv")
    assert not problems and "read all 33 files" in text
    assert "images/\u00f6.png" in set(written(tmp_path, table).samples()["id"])


def test_further_columns_are_allowed_and_misspelt_ones_are_not(tmp_path):
    _, table = csv_folder(tmp_path)
    written(tmp_path, table.assign(camera="left", exposure="2"))
    text, problems = check("folder", tmp_path, "csv=table.csv")
    assert not problems and "columns of 'table.csv' that are not used: camera, exposure" in text
    for wrong, right in (("masks", "mask"), ("Group", "group"), ("spilt", "split")):
        with pytest.raises(UserError, match=f"a column '{wrong}' .did you mean '{right}'"):
            written(tmp_path, table.rename(columns={right: wrong})).samples()


def test_a_mask_that_is_listed_as_an_image(tmp_path):
    _, table = csv_folder(tmp_path)
    row = {"image": "masks/scratch_000.png", "label": "scratch", "mask": "", "split": "train", "group": "x"}
    dataset = written(tmp_path, pd.concat([table, pd.DataFrame([row])]))
    with pytest.raises(UserError, match=r"'masks/scratch_000.png': image of one sample and mask of another"):
        checked_samples(dataset)
    lone = table.assign(mask="")
    written(tmp_path, pd.concat([lone, pd.DataFrame([row])]))
    _, problems = check("folder", tmp_path, "csv=table.csv")
    assert any("'masks/scratch_000.png': two colours only, and named like other images" in p for p in problems)


# -- masks among images


def masks_beside(root, place, good=4, bad=4):
    """Draw class folders and masks at ``place``, a pattern of label and number."""
    rng, masks = np.random.default_rng(0), {}
    for label, count in (("good", good), ("scratch", bad)):
        for index in range(count):
            image, mask = layouts.noise_image(rng, mark=label != "good")
            folder = "scratch/images" if "images" in place and label != "good" else label
            layouts.save(image, root / folder / f"{label}{index}.png")
            if label != "good":
                layouts.save(mask, root / place.format(f"{label}{index}"))
                masks[f"{folder}/{label}{index}.png"] = mask
    return masks


@pytest.mark.parametrize(
    "place",
    [
        "scratch/masks/{}.png", "scratch/mask/{}.png", "masks/scratch/{}.png", "scratch/Labels/{}_mask.bmp",
        "ground_truth/scratch/{}_mask.png", "gt/{}.png", "scratch/{}_mask.png", "scratch/{}_GT.png", "scratch/{}.bmp",
        "scratch/images/../masks/{}.png",
    ],
)  # fmt: skip
def test_masks_among_the_images_are_used_as_masks(tmp_path, place):
    masks = masks_beside(tmp_path, place)
    dataset = open_dataset("folder", {"root": str(tmp_path), "folds": 2})
    table = dataset.samples().set_index("image", drop=False)
    assert len(table) == 8 and set(table["label"]) == {GOOD, "scratch"}
    for name, mask in masks.items():
        assert np.array_equal(dataset.read_mask(table.loc[name]), mask)
    text, problems = check("folder", tmp_path, "folds=2")
    assert not problems and "4 of the images are used as masks" in text and "read all 12 files" in text


@pytest.mark.parametrize("place", ["masks/m{}.png", "scratch_bw/{}.png", "masks/x/{}_m.png"])
def test_masks_that_match_no_image_are_refused(tmp_path, place):
    masks_beside(tmp_path, place)
    with pytest.raises(UserError, match=r"look like masks.*: call them like their images.*CSV") as error:
        open_dataset("folder", {"root": str(tmp_path)}).samples()
    assert "\n" not in str(error.value)


def test_photographs_in_a_folder_called_label_stay_a_class(tmp_path):
    layouts.draw_folder(tmp_path)
    (tmp_path / "stain").rename(tmp_path / "label")
    assert set(open_dataset("folder", {"root": str(tmp_path)}).samples()["label"]) == {GOOD, "scratch", "label"}


def test_black_masks_of_normal_images_and_masks_without_image(tmp_path):
    masks_beside(tmp_path, "masks/scratch/{}.png")
    for index in range(4):
        layouts.save(np.zeros((40, 32), bool), tmp_path / f"masks/good/good{index}.png")
    layouts.save(np.eye(40, 32) > 0, tmp_path / "masks/scratch/other.png")
    text, problems = check("folder", tmp_path, "folds=2")
    assert not problems and "8 of the images are used as masks" in text
    assert "read 16 files, left out 1: 1 masks without an image of their name ('masks/scratch/other.png')" in text


@pytest.mark.parametrize("layout", ["folder", "mvtec_ad", "ksdd2"])
def test_a_mask_beside_an_image_is_never_a_sample(tmp_path, layout):
    dataset = opened(layout, draw(layout, tmp_path))
    row = dataset.samples().query("label != 'good'").iloc[0]
    image = dataset.root() / row["image"]
    Image.fromarray(np.eye(40, 32) > 0).save(image.with_name(f"{image.stem}_mask.png"))
    again = opened(layout, dataset.config.model_dump())
    if layout == "folder":
        assert len(again.samples()) == len(dataset.samples()) and (again.samples()["mask"] != "").sum() == 1
    else:
        with pytest.raises(UserError, match="looks like masks"):
            again.samples()


def odd_mask(kind, mask):
    if kind == "grey":
        noise = np.random.default_rng(0).integers(0, 12, mask.shape)
        return np.where(mask, 255 - noise, noise).astype(np.uint8)
    if kind == "inverted":
        return ~mask
    large = np.zeros_like(mask)
    large[1:-1, 1:-1] = True
    return large


ODD = {"grey": "grey values", "inverted": "inverted?", "large": "more than half of the image is defect"}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("layout", ["folder_csv", "mvtec_ad", "ksdd2"])
def test_odd_masks_are_noted_by_name(tmp_path, layout, kind):
    dataset = opened(layout, draw(layout, tmp_path))
    row = dataset.samples().query("label != 'good'").iloc[0].to_dict()
    layouts.save(odd_mask(kind, dataset.read_mask(row)), dataset.root() / row["mask"])
    notes = [note for note in examine(opened(layout, dataset.config.model_dump())).notes if row["id"] in note]
    assert any(ODD[kind] in note for note in notes), notes


def test_turned_images_with_unturned_masks_are_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    settings = layouts.draw_folder_csv(tmp_path)
    for name, sides in (("000", (40, 40)), ("001", (40, 32))):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 255, sides).astype(np.uint8))
        image.save(tmp_path / f"images/scratch_{name}.png", exif=exif)
        layouts.save(np.eye(*sides) > 0, tmp_path / f"masks/scratch_{name}.png")
    findings = examine(open_dataset("folder", settings))
    assert any("'images/scratch_000.png'" in n and "is turned by its EXIF mark" in n for n in findings.notes)
    (problem,) = findings.problems
    assert "scratch_001.png" in problem and "turned by its EXIF mark: make them agree" in problem


# -- groups


def test_groups_by_a_pattern_over_file_names(tmp_path):
    layouts.draw_folder(tmp_path)
    for path in sorted(tmp_path.rglob("*.png")):
        path.rename(path.with_name(f"part{int(path.stem) // 2}_{path.name}"))
    dataset = open_dataset("folder", {"root": str(tmp_path), "group": r"(part\d+)_.*"})
    table = dataset.samples()
    assert set(table["group"]) == {f"part{number}" for number in range(8)}
    assert (table.groupby("group")["label"].nunique() == [3] * 4 + [1] * 4).all(), "an item with several labels"
    assert dataset.key_settings() == {"group": r"(part\d+)_.*"}
    by_path = open_dataset("folder", {"root": str(tmp_path), "group": "([a-z]+)/part([0-9]+)_.*"}).samples()
    assert by_path["group"].nunique() == 16 and by_path["group"].iloc[0] == "good_0"
    with pytest.raises(UserError, match=r"does not fit the whole of 'part0_000.png'"):
        open_dataset("folder", {"root": str(tmp_path), "group": "part"}).samples()
    with pytest.raises(UserError, match="no regular expression"):
        open_dataset("folder", {"root": str(tmp_path), "group": "(part"})


def test_groups_by_a_table(tmp_path):
    layouts.draw_folder(tmp_path)
    rows = [("good/000.png", "a", "0.99"), ("good\\001.png", "a", ""), (str(tmp_path / "stain/000.png"), "b", "")]
    groups = pd.DataFrame(rows, columns=["image", "group", "correlation"])
    groups.to_csv(tmp_path / "groups.csv", index=False)
    dataset = open_dataset("folder", {"root": str(tmp_path), "groups": "groups.csv"})
    table = dataset.samples().set_index("id")["group"]
    assert table["good/000.png"] == table["good/001.png"] == "a" and table["stain/000.png"] == "b"
    assert table["good/002.png"] == "good/002.png"
    text, problems = check("folder", tmp_path, "groups=groups.csv")
    assert not problems and "read all 33 files" in text and "31 of 1-2 images" in text
    assert dataset.fingerprint() != open_dataset("folder", {"root": str(tmp_path)}).fingerprint()
    for rows, message in (
        ([("good/0.png", "a")], "names 'good/0.png', not an image"),
        ([("good/000.png", "")], "line 2 has no group"),
        ([("good/000.png", "a"), ("./good/000.png", "b")], "line 3 names 'good/000.png' in two groups"),
    ):
        pd.DataFrame(rows, columns=["image", "group"]).to_csv(tmp_path / "groups.csv", index=False)
        with pytest.raises(UserError, match=message):
            open_dataset("folder", {"root": str(tmp_path), "groups": "groups.csv"}).samples()
    with pytest.raises(UserError, match="give one of them"):
        open_dataset("folder", {"root": str(tmp_path), "groups": "groups.csv", "group": ".*"})


# -- messages


def test_hints_name_the_option_of_the_command_that_was_typed(tmp_path):
    layouts.draw_folder(tmp_path)
    (tmp_path / "good").rename(tmp_path / "no")
    assert_one_line(cli("datasets", "check", tmp_path), "--set 'good=\"no\"'", "--set task=recognition")
    unquoted = cli("datasets", "check", tmp_path, "--set", "good=no")
    assert_one_line(unquoted, "--set 'good'", "reads no as false", 'write "no"')
    assert_one_line(cli("datasets", "check", tmp_path, "--set", "good=0"), "as a number", 'write "0"')
    good = cli("datasets", "check", tmp_path, "--set", 'good="no"')
    assert good.returncode == 0 and "no groups given: each image is its own group" in good.stdout
    with pytest.raises(UserError, match=r"--set 'datasets\.folder\.good=\"no\"'"):
        library_of("folder", {"root": str(tmp_path)}).dataset("folder").samples()
    assert_one_line(cli("datasets", "check", tmp_path / "gone"), "neither a dataset", "nor a folder")
    assert_one_line(cli("datasets", "check", "neu"), "--root DIR")


def test_a_wrong_data_variable_is_named(tmp_path, monkeypatch):
    for value, message in ((tmp_path, "which has no folder 'neu'"), (tmp_path / "x", "which is not a folder")):
        monkeypatch.setenv("AUGBENCH_DATA", str(value))
        with pytest.raises(UserError, match=f"AUGBENCH_DATA is '{value}', {message}"):
            open_dataset("neu", {}).samples()
    with pytest.raises(UserError, match="AUGBENCH_DATA is"):
        library_of("neu", {}).dataset("neu").root()


def test_train_and_test_in_any_case_and_other_sides(tmp_path):
    for side in ("Train", "Test"):
        layouts.draw_folder(tmp_path / side)
    table = open_dataset("folder", {"root": str(tmp_path)}).samples()
    assert set(table["split"]) == {"train", "test"} and set(table["label"]) == {GOOD, "scratch", "stain"}
    (tmp_path / "Test").rename(tmp_path / "val")
    with pytest.raises(UserError, match="'Train' and 'val': a split has two sides, called train and test"):
        open_dataset("folder", {"root": str(tmp_path), "task": "recognition"}).samples()
