"""200 datasets with odd files: never a traceback, every file is accounted for, and what may be wrong is said.

A mutation is *silent* if it changes nothing that matters, so a dataset may be accepted without a word about it. Every
other one must be named: as an error, a problem, a note, or a reason for which files are left out.
"""

import json
import os
import re
import shutil
import unicodedata

import layouts
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_dataset_files import assert_accounted
from test_datasets import deep_png

from augbench.core.errors import UserError
from augbench.core.walk import HIDDEN, LOOP
from augbench.planning.library import open_dataset
from augbench.report.dataset_findings import examine
from augbench.report.left_out import OTHER

CASES, ACCEPTED = 200, 53
"""The accepted ones were looked at: files that belong to no sample are left out with a reason, the rest is silent."""

SILENT, NAMED = {}, {}


def silent(mutate):
    SILENT[mutate.__name__] = mutate
    return mutate


def named(mutate):
    NAMED[mutate.__name__] = mutate
    return mutate


def images_of(root):
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in (".png", ".jpg", ".bmp")
        and path.is_file()
        and not re.search(r"/[.]|MACOSX", str(path))
    )


def an_image(rng, root):
    """Any image that is no mask."""
    images = [path for path in images_of(root) if "_GT" not in path.stem and "mask" not in str(path.relative_to(root))]
    return images[rng.integers(len(images))]


def a_folder(rng, root):
    folders = sorted({path.parent for path in images_of(root)})
    return folders[rng.integers(len(folders))]


@silent
def hidden_folder(rng, root):
    image = an_image(rng, root)
    (image.parent / ".ipynb_checkpoints").mkdir(exist_ok=True)
    shutil.copy(image, image.parent / ".ipynb_checkpoints" / image.name)


@silent
def litter(rng, root):
    for name in ("._" + an_image(rng, root).name, "Thumbs.db", ".DS_Store"):
        (a_folder(rng, root) / name).write_bytes(b"\0\5\26\7")
    (root / "__MACOSX").mkdir(exist_ok=True)
    shutil.copy(an_image(rng, root), root / "__MACOSX")


@silent
def link_instead_of_a_file(rng, root):
    image, store = an_image(rng, root), root.parent / f"{root.name}_store"
    store.mkdir(exist_ok=True)
    target = store / f"{rng.integers(1 << 40)}"
    shutil.move(image, target)
    image.symlink_to(target)


@silent
def loop(rng, root):
    (a_folder(rng, root) / "up").symlink_to(root, target_is_directory=True)


@silent
def text_file(rng, root):
    (a_folder(rng, root) / "notes.txt").write_text("12 images of part 7\n")


@silent
def exif_mark(rng, root):
    path = an_image(rng, root)
    image, exif = Image.open(path), Image.Exif()
    exif[0x0112] = 3
    image.save(path, exif=exif)


@silent
def palette(rng, root):
    path = an_image(rng, root)
    Image.open(path).convert("L").convert("P").save(path.with_suffix(".png"), "PNG")


@named
def truncated(rng, root):
    path = an_image(rng, root)
    path.write_bytes(path.read_bytes()[:60])


@named
def empty_file(rng, root):
    an_image(rng, root).write_bytes(b"")


@named
def deep(rng, root):
    deep_png(an_image(rng, root), 3)


@named
def transparent(rng, root):
    Image.new("RGBA", (32, 40), (90, 90, 90, 9)).save(an_image(rng, root).with_suffix(".png"), "PNG")


@named
def pages(rng, root):
    Image.new("L", (9, 9)).save(
        a_folder(rng, root) / "pages.gif", save_all=True, append_images=[Image.new("L", (9, 9), 9)]
    )


@named
def copied(rng, root):
    images = images_of(root)
    shutil.copy(images[0], images[-1].with_name("kos99_7.png"))


@named
def heic(rng, root):
    (a_folder(rng, root) / "photo.HEIC").write_bytes(b"\0\0\0\30ftypheic")


@named
def without_ending(rng, root):
    image = an_image(rng, root)
    shutil.copy(image, image.with_name("image_7"))


@named
def empty_folder(rng, root):
    (root / "crack").mkdir(exist_ok=True)


@named
def broken_link(rng, root):
    (a_folder(rng, root) / "lost.png").symlink_to(root / "nowhere")


@named
def coco(rng, root):
    (root / "instances.json").write_text(json.dumps({"images": [], "annotations": []}))


@named
def yolo(rng, root):
    (a_folder(rng, root) / "000.txt").write_text("0 .5 .5 .25 .25\n")


@named
def other_spelling(rng, root):
    folder = images_of(root)[0].parent
    twin = folder.with_name(folder.name.upper() if folder.name.islower() else folder.name.lower())
    twin.mkdir(exist_ok=True)
    layouts.save(rng.integers(0, 255, (40, 32)).astype(np.uint8), twin / "new.png")


@named
def masks_folder(rng, root):
    for image in images_of(a_folder(rng, root)):
        layouts.save(np.eye(40, 32) > 0, image.parent / "masks" / f"{image.stem}.png")


@named
def strange_masks(rng, root):
    for index in range(3):
        layouts.save(np.eye(40, 32, index) > 0, a_folder(rng, root) / "gt" / f"region{index}.png")


@named
def mask_beside(rng, root):
    image = an_image(rng, root)
    layouts.save(np.eye(40, 32) > 0, image.with_name(f"{image.stem}_mask.png"))


@named
def image_in_the_root(rng, root):
    shutil.copy(an_image(rng, root), root / "overview.png")


@named
def not_utf8(rng, root):
    image = an_image(rng, root)
    try:
        shutil.copy(image, os.fsencode(image.parent) + b"/\xff\xfe.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")


@named
def special_file(rng, root):
    if not (root / "pipe.png").exists():
        os.mkfifo(root / "pipe.png")


@silent
def removed_folder(rng, root):
    image = an_image(rng, root)
    if any(path.parent != image.parent and "mask" not in str(path) for path in images_of(root)):
        shutil.rmtree(image.parent)


@named
def archive(rng, root):
    (root / "more.tar.gz").write_bytes(b"\x1f\x8b")


@silent
def file_called_train(rng, root):
    if not (root / "train").exists():
        (root / "train").write_text("")


def of_table(change):
    """A mutation of the CSV, where there is one that can still be read."""

    def mutate(rng, root):
        path = root / "table.csv"
        if path.exists():
            try:
                table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            except ValueError:
                return
            if len(table) and {"image", "label", "split", "mask"} <= set(table.columns):
                changed = change(rng, root, table)
                if isinstance(changed, pd.DataFrame):
                    changed.to_csv(path, index=False)

    mutate.__name__ = change.__name__
    return mutate


def at(rng, table, column, value):
    table.loc[rng.integers(len(table)), column] = value
    return table


@silent
@of_table
def absolute_paths(rng, root, table):
    return table.assign(image=[str(root / name) for name in table["image"]])


@silent
@of_table
def backslashes(rng, root, table):
    return table.assign(image=table["image"].str.replace("/", "\\"))


@silent
@of_table
def byte_order_mark(rng, root, table):
    table.to_csv(root / "table.csv", index=False, encoding="utf-8-sig")


@silent
@of_table
def decomposed(rng, root, table):
    row = rng.integers(len(table))
    image = root / table["image"][row].replace("\\", "/")
    if image.is_file():
        image.rename(image.with_name(unicodedata.normalize("NFD", f"ö{row}.png")))
        table.loc[row, "image"] = image.with_name(f"ö{row}.png").relative_to(root).as_posix()
    return table


TABLE_FAULTS = {
    "missing_row_image": lambda rng, root, t: at(rng, t, "image", "images/none.png"),
    "outside": lambda rng, root, t: at(rng, t, "image", "../x.png"),
    "windows_drive": lambda rng, root, t: at(rng, t, "image", "C:\\x.png"),
    "blank": lambda rng, root, t: at(rng, t, "label", " good"),
    "no_label": lambda rng, root, t: at(rng, t, "label", ""),
    "case": lambda rng, root, t: at(rng, t, "label", "GOOD"),
    "twice": lambda rng, root, t: pd.concat([t, t.iloc[:1]]),
    "fewer": lambda rng, root, t: t.iloc[: len(t) // 2],
    "nothing": lambda rng, root, t: t.iloc[:0],
    "further": lambda rng, root, t: t.assign(camera="x"),
    "misspelt": lambda rng, root, t: t.rename(columns={"mask": "masks"}),
    "half_split": lambda rng, root, t: at(rng, t, "split", ""),
    "third_side": lambda rng, root, t: at(rng, t, "split", "val"),
    "group_on_both_sides": lambda rng, root, t: t.assign(group="one"),
    "mask_as_image": lambda rng, root, t: at(rng, t, "image", "masks/scratch_000.png"),
    "mask_of_normal": lambda rng, root, t: t.assign(mask=["masks/scratch_000.png", *t["mask"][1:]]),
    "semicolons": lambda rng, root, t: t.to_csv(root / "table.csv", index=False, sep=";"),
    "latin": lambda rng, root, t: (
        (root / "table.csv").write_bytes("image,label\nä.png,gut\n".encode("latin-1")) and None
    ),
    "binary": lambda rng, root, t: (root / "table.csv").write_bytes(b"\0\1\2,\n\0") and None,
}
for fault, change in TABLE_FAULTS.items():
    change.__name__ = fault
    named(of_table(change))

BASES = (*["folder"] * 3, *["folder_csv"] * 3, *["split"] * 2, *["mvtec_ad"] * 2, *["ksdd2"] * 2, "neu", "elpv")
PLUGIN = {"folder_csv": "folder", "split": "folder", "mvtec_ad": "mvtec"}
SMALL = {"folder": {"good": 6, "bad": 6}, "ksdd2": {"train": 9, "test": 9}, "elpv": {"cells": 24}}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A valid dataset of each layout, and its settings."""
    drawn = {}
    for base in set(BASES):
        root = tmp_path_factory.mktemp(base) / "data"
        if base == "split":
            for index, side in enumerate(("train", "test")):
                layouts.draw_folder(root / side, good=6 + 6 * index, bad=6)
            for number, image in enumerate(sorted((root / "test").rglob("*.png"))):
                layouts.save(np.random.default_rng(number).integers(0, 255, (40, 32)).astype(np.uint8), image)
            settings = {}
        else:
            settings = getattr(layouts, f"draw_{base}")(root, **SMALL.get(base, {}))
        if base == "mvtec_ad":
            root, settings = root / "bottle", {}
        if base == "neu":
            for path in [path for path in root.rglob("*_*.*") if int(path.stem.rpartition("_")[2]) > 2]:
                path.unlink()
        surplus = [*root.rglob("*(copy).png"), *root.glob("t*/*/00[6-9].png"), *root.glob("t*/*/01?.png")]
        for path in surplus if base != "split" else ():
            path.unlink()
        fewer = {"folds": 2} if base == "folder" else {}
        drawn[base] = root, {key: value for key, value in {**settings, **fewer}.items() if key != "root"}
    return drawn


def checked(dataset):
    """Examine a dataset: what is said besides the ordinary, whether all is well, and the findings if there are any."""
    try:
        findings = examine(dataset)
    except UserError as error:
        assert "\n" not in str(error), str(error)
        return [str(error)], False, None
    problems = [problem for problem in findings.problems if "official number" not in problem]
    reasons = set(findings.account.left_out) - {HIDDEN, LOOP, OTHER}
    return [*problems, *findings.notes, *reasons], not problems, findings


def case(number, bases, folder):
    """Mutate one of the datasets: its plug-in, root, settings, and the names of the mutations."""
    rng = np.random.default_rng(number)
    base = BASES[rng.integers(len(BASES))]
    source, settings = bases[base]
    root = folder / f"{number}"
    shutil.copytree(source, root)
    both = {**SILENT, **NAMED}
    tables = [name for name in both if name in TABLE_FAULTS or name in ("absolute_paths", "backslashes", "decomposed")]
    usable = sorted(set(both) - (set() if base == "folder_csv" else {*tables, "byte_order_mark"}))
    chosen = [usable[index] for index in rng.choice(len(usable), rng.integers(1, 4), replace=False)]
    for name in chosen:
        both[name](rng, root)
    return PLUGIN.get(base, base), root, settings, base, chosen


def test_mutated_folders(bases, tmp_path):
    accepted, refused = [], []
    for number in range(CASES):
        name, root, settings, base, chosen = case(number, bases, tmp_path)
        dataset = open_dataset(name, {**settings, "root": str(root)})
        said, well, findings = checked(dataset)
        (accepted if well else refused).append((number, base, *chosen))
        assert said or not set(chosen) & set(NAMED), (number, base, chosen)
        if findings:
            assert_accounted(dataset, findings.account)
            assert findings.account.line().startswith("read ")
    assert len(accepted) == ACCEPTED, "\n".join(map(str, accepted))
