"""Tests of every official layout, of image files, and of `datasets check`, which reports all planted errors at once."""

import errno
import io
import os
import pickle
import shutil
import struct
import zlib
from collections import Counter
from pathlib import Path

import layouts
import numpy as np
import pandas as pd
import pytest
from helpers import assert_one_line, cli, library_of
from PIL import Image
from rich.console import Console

from augbench import GOOD
from augbench.cli import datasets_view
from augbench.cli.datasets_view import check_dataset, show_dataset, write_sample
from augbench.core import contracts, images, registry
from augbench.core.errors import DatasetError, StoreError, UserError
from augbench.core.images import decode_grey, decode_rgb, look, read_grey, read_rgb
from augbench.planning.library import open_dataset
from augbench.report import dataset_findings as findings_module
from augbench.report.contact_sheet import OUTLINE
from augbench.report.dataset_findings import examine
from augbench.storage.store import Store


def about_files(problems):
    """The problems that are not about official counts, which tiny datasets miss."""
    return [problem for problem in problems if "official number" not in problem]


def check(name, root, *changes, store=None):
    """Run `datasets check`; return its output and the problems."""
    text = io.StringIO()
    problems = check_dataset(name, Path(root), changes, store, Console(file=text, width=120))
    return text.getvalue(), problems


def open_drawn(name, settings):
    return library_of(name, settings).dataset(name)


# -- image files


def deep_png(path, channels):
    """Write a PNG with 16 bits per channel: 1 grey, 3 RGB, 4 RGBA. Pillow cannot write these."""
    kind = {1: 0, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + bytes(8 * channels * 2) for _ in range(6))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 8, 6, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def deep_tiff(path, order):
    """Write an RGB TIFF with 16 bits per channel, little ("<") or big (">") endian. Pillow cannot write these."""
    pixels = bytes(4 * 4 * 6)
    tags = [  # number, type (3 short, 4 long), count, value
        (256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, 8 + len(pixels)), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
        (277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    directory = struct.pack(order + "H", len(tags))
    for number, kind, times, value in tags:
        short = kind == 3 and times == 1
        directory += struct.pack(order + ("HHIHH" if short else "HHII"), number, kind, times, value, *[0] * short)
    start = 8 + len(pixels) + 6
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    path.write_bytes(header + pixels + struct.pack(order + "HHH", 16, 16, 16) + directory + bytes(4))


def test_deep_images_are_refused_and_not_cut_to_8_bits(tmp_path):
    for channels in (1, 3, 4):
        deep_png(tmp_path / f"{channels}.png", channels)
    deep_tiff(tmp_path / "little.tif", "<")
    deep_tiff(tmp_path / "big.tif", ">")
    (tmp_path / "deep.ppm").write_bytes(b"P6\n4 4\n65535\n" + bytes(96))
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            image.load()  # the file is complete: it is refused for its depth
        for read in (read_rgb, read_grey):
            with pytest.raises(UserError, match=rf"{path.name}.*16.*convert it to 8 bits per channel"):
                read(path)


def test_transparent_masks_are_refused_and_opaque_ones_read(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[1, 1] = 255
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    with pytest.raises(UserError, match=r"clear\.png.*transparent"):
        read_grey(tmp_path / "clear.png")
    rgba[..., 3] = 255
    Image.fromarray(rgba).save(tmp_path / "opaque.png")
    assert np.array_equal(read_grey(tmp_path / "opaque.png"), rgba[..., 0])


def test_unusual_but_valid_files_are_read_correctly(tmp_path):
    mask = np.zeros((6, 5), np.uint8)
    mask[2:4, 1:3] = 255
    Image.fromarray(mask).convert("1").save(tmp_path / "bit.png")
    Image.fromarray(mask).save(tmp_path / "grey.bmp")
    palette = Image.fromarray((mask > 0).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 0, 0, 3])  # class 1 is a blue whose luminance rounds to 0
    palette.save(tmp_path / "palette.png")
    for name, value in (("bit.png", 255), ("grey.bmp", 255), ("palette.png", 3)):
        assert np.array_equal(read_grey(tmp_path / name), np.where(mask, value, 0)), name
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 1:3] = 255  # magenta and yellow ink: red
    Image.fromarray(ink, mode="CMYK").save(tmp_path / "ink.jpg", quality=100)
    assert np.abs(read_rgb(tmp_path / "ink.jpg").astype(int) - [255, 0, 0]).max() < 8
    assert look((tmp_path / "ink.jpg").read_bytes(), "ink").kind == "CMYK"


def test_files_that_are_not_one_image(tmp_path):
    pages = [Image.new("L", (4, 4), value) for value in (0, 9)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    Image.new("RGB", (16, 16)).save(tmp_path / "deep.jp2")
    (tmp_path / "text.png").write_text("hello")
    for name, message in (("pages.tif", "holds 2 images"), ("deep.jp2", "JPEG2000"), ("text.png", "not an image")):
        with pytest.raises(UserError, match=message) as error:
            read_rgb(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_rgb(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_a_truncated_image_is_never_read(kind):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    data = buffer.getvalue()
    assert decode_rgb(data, "x").shape == noise.shape
    for share in (0.0, 0.3, 0.6, 0.9):
        with pytest.raises(UserError, match="'x'"):
            decode_rgb(data[: int(share * len(data))], "x")


def test_flipped_bits_in_a_png_never_pass():
    """Without checking the CRC, a quarter of such masks would decode to other pixels."""
    buffer, rng = io.BytesIO(), np.random.default_rng(1)
    mask = (np.arange(40 * 320).reshape(40, 320) % 97 < 7).astype(np.uint8) * 255
    Image.fromarray(mask).save(buffer, "PNG")
    data = buffer.getvalue()
    for _ in range(100):
        damaged = bytearray(data)
        damaged[rng.integers(data.index(b"IDAT") + 4, len(data) - 16)] ^= 1 << rng.integers(8)
        with pytest.raises(UserError, match="'x' cannot be read"):
            decode_grey(bytes(damaged), "x")


# -- NEU


def test_neu_is_the_same_in_every_layout(tmp_path):
    tables = {}
    for layout in ("cls", "cls folders", "det", "kaggle", "by class"):
        dataset = open_drawn("neu", layouts.draw_neu(tmp_path / layout, layout))
        tables[layout] = dataset.samples()
        assert dataset.has_masks() == (not layout.startswith("cls"))
        assert not about_files(examine(dataset).problems)
    first = tables["det"].drop(columns=["image", "mask"])
    assert len(first) == 6 * len(layouts.NEU_NUMBERS)
    assert set(first["label"]) == set(layouts.NEU_SHORT)
    for table in tables.values():
        pd.testing.assert_frame_equal(table.drop(columns=["image", "mask"]), first)
    groups = first.set_index("id")["group"]
    assert groups["patches_105"] == groups["patches_101"] and groups.nunique() == len(first) - 1


def test_neu_masks_are_the_boxes_of_the_class(tmp_path):
    dataset = open_drawn("neu", layouts.draw_neu(tmp_path))
    boxes = [("crazing", (1, 2, 3, 4)), ("patches", (10, 10, 20, 20)), ("crazing", (32, 40, 32, 40))]
    layouts.write_boxes(tmp_path / "ANNOTATIONS/crazing_1.xml", (40, 32), boxes)
    row = dataset.samples().set_index("id").loc["crazing_1"]
    expected = np.zeros((40, 32), bool)
    expected[1:4, 0:3] = True  # both corners belong to the box
    expected[39, 31] = True
    assert np.array_equal(dataset.read_mask(row), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "DOCTYPE"),
        ("<annotation><size>", "no XML"),
        ("<annotation/>", "size/width is '', not a number"),
        ("<annotation><size><width>x</width><height>9</height></size></annotation>", "'x', not a number"),
        ("<annotation><size><width>99999999</width><height>9</height></size></annotation>", "99999999 x 9"),
        ((1, 1, 33, 2), "box 1 1 33 2 leaves the image"),
        ((0, 1, 2, 2), "leaves the image"),
        ((5, 1, 2, 2), "leaves the image"),
    ],
)
def test_neu_damaged_annotations_are_named(tmp_path, text, message):
    layouts.draw_neu(tmp_path)
    path = tmp_path / "ANNOTATIONS/scratches_99.xml"
    if isinstance(text, str):
        path.write_text(text)
    else:
        layouts.write_boxes(path, (40, 32), [("scratches", text)])
    (problem,) = about_files(check("neu", tmp_path)[1])
    assert "scratches_99.xml" in problem and message in problem


def test_neu_twice_below_the_root(tmp_path):
    layouts.draw_neu(tmp_path)
    shutil.copytree(tmp_path / "IMAGES", tmp_path / "copies")
    shutil.copy(tmp_path / "ANNOTATIONS/crazing_1.xml", tmp_path / "copies/crazing_1.xml")
    with pytest.raises(UserError, match=r"'IMAGES/crazing_1.jpg' and 'copies/crazing_1.jpg' are both crazing_1.*more"):
        open_dataset("neu", {"root": str(tmp_path)}).samples()
    _, problems = check("neu", tmp_path)
    assert sum("are both" in problem for problem in problems) == 6 * len(layouts.NEU_NUMBERS) + 1


def test_neu_duplicate_is_known_and_an_unknown_one_is_not(tmp_path):
    layouts.draw_neu(tmp_path)
    images = tmp_path / "IMAGES"
    text, _ = check("neu", tmp_path)
    assert "(not found in these files)" in text
    shutil.copy(images / "patches_101.jpg", images / "patches_105.jpg")
    text, problems = check("neu", tmp_path)
    assert "patches_101, patches_105: these two are pixel-identical" in text and "(found)" in text
    assert not about_files(problems)
    shutil.copy(images / "patches_1.jpg", images / "scratches_3.jpg")
    problem, leak = about_files(check("neu", tmp_path)[1])
    assert "'patches_1' and 'scratches_3'" in problem and "labelled patches and scratches" in problem
    assert "a fold can put them on both sides" in problem and leak.startswith("near-copies across the split: 4 %")


# -- MVTec AD, BTech, VisA


def test_mvtec_layout(tmp_path):
    dataset = open_drawn("mvtec", layouts.draw_mvtec_ad(tmp_path))
    table = dataset.samples().set_index("id")
    assert dict(table.groupby(["split", "label"]).size()) == {
        ("test", "broken"): 8, ("test", GOOD): 10, ("test", "stain"): 6, ("train", GOOD): 20,
    }  # fmt: skip
    row = table.loc["test/broken/003"]
    assert (row["image"], row["mask"]) == ("bottle/test/broken/003.png", "bottle/ground_truth/broken/003_mask.png")
    assert set(table.loc[table["label"] == GOOD, "mask"]) == {""}
    assert dataset.check() == [
        "train good: 20 images, the official number is 209",
        "test good: 10 images, the official number is 20",
        "test defective: 14 images, the official number is 63",
    ]
    inside = open_drawn("mvtec", {"root": str(tmp_path / "bottle")})  # the root is the category's folder
    assert list(inside.samples()["id"]) == list(table.index) and not inside.check()


def test_btech_layout(tmp_path):
    layouts.draw_btech(tmp_path)
    dataset = open_drawn("mvtec", {"root": str(tmp_path), "category": 1})  # YAML reads 01 as a number
    table = dataset.samples().set_index("id")
    assert dict(table.groupby(["split", "label"]).size()) == {
        ("test", "defect"): 5, ("test", GOOD): 6, ("train", GOOD): 12,
    }  # fmt: skip
    masks = table.loc[table["label"] == "defect", "mask"]
    assert masks["test/ko/0001"] == "01/ground_truth/ko/0001.bmp" and masks["test/ko/0002"].endswith("0002.png")
    assert all(dataset.read_mask(row).sum() == 64 for _, row in table[table["label"] == "defect"].iterrows())
    assert "test defective: 5 images, the official number is 49" in dataset.check()


def test_visa_layout_and_its_splits(tmp_path):
    settings = layouts.draw_visa(tmp_path)
    expected = {"official": (9, 0), "2cls_fewshot": (3, 2), "2cls_highshot": (7, 4)}
    for split, (normal, defective) in expected.items():
        dataset = open_drawn("mvtec", {**settings, "split": split})
        table = dataset.samples()
        train = table[table["split"] == "train"]
        assert (sum(train["label"] == GOOD), sum(train["label"] == "defect")) == (normal, defective)
        assert len(table) == 18 and dataset.folds == 0
    defects = table[table["label"] == "defect"].to_dict("records")
    assert all(dataset.read_mask(row).sum() == 64 for row in defects), "masks hold 1, 2 or 3"
    assert "train good: 7 images, the official number is 600" in dataset.check()
    assert "test defective: 2 images, the official number is 40" in dataset.check()
    (tmp_path / "candle/Data/Images/Anomaly/002.JPG").unlink()  # named by the CSV
    assert any("002.JPG' is missing" in problem for problem in check("mvtec", tmp_path, "category=candle")[1])


def test_visa_without_its_csv(tmp_path):
    settings = layouts.draw_visa(tmp_path)
    (tmp_path / "split_csv/1cls.csv").write_text("object,split,image\ncandle,train,a,b\n")
    with pytest.raises(UserError, match=r"1cls\.csv' cannot be read \(line 2 has more values than the header"):
        open_drawn("mvtec", settings).samples()
    shutil.rmtree(tmp_path / "split_csv")
    with pytest.raises(UserError, match=r"1cls\.csv' is missing: .*split: folds"):
        open_drawn("mvtec", settings).samples()
    pooled = open_drawn("mvtec", {**settings, "split": "folds"})
    assert pooled.folds == 5 and set(pooled.samples()["split"]) == {""} and len(pooled.samples()) == 18
    assert pooled.check() == [
        "good: 12 images, the official number is 1000",
        "defective: 6 images, the official number is 100",
    ]


def test_mvtec_mistakes_are_one_line(tmp_path):
    layouts.draw_mvtec_ad(tmp_path)

    def refused(message, **settings):
        with pytest.raises(UserError, match=message) as error:
            open_drawn("mvtec", {"root": str(tmp_path), **settings}).samples()
        assert "\n" not in str(error.value)

    refused(r"no folder 'botle'.*did you mean 'bottle'", category="botle")
    refused("set category to one of its folders")
    refused("is one of VisA's", category="bottle", split="2cls_fewshot")
    refused("category", category="../x")
    mask = tmp_path / "bottle/ground_truth/broken/003_mask.png"
    second = shutil.copy(mask, mask.with_name("003.png"))
    refused(
        "image 'test/broken/003.png' has two masks, '.*/003.png' and '.*/003_mask.png': keep one", category="bottle"
    )
    second.unlink()
    mask.unlink()
    problems = check("mvtec", tmp_path, "category=bottle")[1]
    assert any("003_mask.png' is missing" in problem for problem in problems)


def test_mvtec_settings_are_part_of_keys_and_the_root_is_not(tmp_path):
    settings = layouts.draw_mvtec(tmp_path)
    assert open_drawn("mvtec", settings).key_settings() == {"category": "bottle", "split": "folds"}
    assert open_drawn("mvtec", {"root": str(tmp_path)}).key_settings() == {}


# -- KolektorSDD


def test_ksdd_groups_are_items(tmp_path):
    dataset = open_drawn("ksdd", layouts.draw_ksdd(tmp_path))
    table = dataset.samples()
    assert (table["group"] == table["id"].str.split("/").str[0]).all() and table["group"].nunique() == 9
    assert (table["label"] == "defect").groupby(table["group"]).sum().eq(1).all()
    assert dataset.folds == 3


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("ksdd", ("kos01/Part1_label.bmp", "kos02/Part1_label.bmp")),
        ("ksdd2", ("train/10001_GT.png", "train/10002_GT.png")),
    ],
)
def test_unreadable_masks_are_one_error_and_check_goes_on(tmp_path, name, broken):
    getattr(layouts, f"draw_{name}")(tmp_path)
    dataset = open_dataset(name, {"root": str(tmp_path)})
    image = tmp_path / dataset.samples()["image"].iloc[-1]
    image.write_bytes(image.read_bytes()[:200])
    cut, gone = (tmp_path / path for path in broken)
    cut.write_bytes(cut.read_bytes()[:60])
    gone.unlink()
    with pytest.raises(DatasetError) as error:
        open_dataset(name, {"root": str(tmp_path)}).samples()
    assert "\n" not in str(error.value) and "and 1 more" in str(error.value)
    assert len(error.value.problems) == 2 and (error.value.table["label"] == "").sum() == 2
    assert pickle.loads(pickle.dumps(error.value)).problems == error.value.problems
    text, problems = check(name, tmp_path)
    for path in (cut, gone, image):
        assert sum(f"'{path}'" in problem for problem in problems) == 1, path
    assert "unknown" in text and "fingerprint: none" in text
    assert cli("datasets", "check", name, "--root", tmp_path).returncode == 2


def test_a_check_whose_store_or_search_fails_never_says_that_all_is_well(tmp_path, monkeypatch):
    layouts.draw_folder(tmp_path / "images")
    assert check("folder", tmp_path / "images", store=str(tmp_path / "store"))[1] == []
    with (
        monkeypatch.context() as patch,
        pytest.raises(StoreError, match=r"cannot write '.*new/fingerprints/folder.json'"),
    ):
        patch.setattr(Path, "replace", raising(OSError(errno.EROFS, "Read-only file system")))
        check("folder", tmp_path / "images", store=str(tmp_path / "new"))
    monkeypatch.setattr(datasets_view, "audit", raising(UserError("it broke")))
    with pytest.raises(UserError, match="it broke"):
        check("folder", tmp_path / "images")


def raising(error):
    def fail(*arguments, **options):
        raise error

    return fail


def test_unused_files_are_reported_as_left_out(tmp_path):
    layouts.draw_ksdd2(tmp_path)
    (tmp_path / "train" / "._10000.png").write_bytes(b"a macOS resource fork")
    text, problems = check("ksdd2", tmp_path)
    assert "left out  'train/10301 (copy).png', 'train/10301_GT (copy).png'" in text
    assert not about_files(problems)


# -- what `datasets check` finds


def odd_folder(root):
    """Write a folder with a CSV and one of each error in `PLANTED`; return its settings."""
    settings = layouts.draw_folder_csv(root)
    table = pd.read_csv(root / "table.csv", dtype=str, keep_default_na=False).set_index("image", drop=False)
    images, masks = root / "images", root / "masks"
    for path in (images / "good_000.png", masks / "scratch_000.png"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (images / "good_001.png").write_text("not an image")
    deep_png(images / "good_004.png", 1)
    deep_png(images / "good_005.png", 3)
    clear = np.full((40, 32, 4), 200, np.uint8)
    clear[:5, :5, 3] = 0
    Image.fromarray(clear).save(images / "good_008.png")
    (images / "good_009.png").unlink()
    layouts.save(np.full((20, 20), 255, np.uint8), masks / "scratch_001.png")
    layouts.save(np.zeros((40, 32), np.uint8), masks / "scratch_002.png")
    table.loc["images/scratch_003.png", "mask"] = ""
    (masks / "scratch_004.png").unlink()
    shutil.copy(images / "good_012.png", images / "good_002.png")  # in training and test
    shutil.copy(images / "good_006.png", images / "good_010.png")  # both in test, in different groups
    shutil.copy(images / "good_014.png", images / "good_015.png")  # in one group
    shutil.copy(images / "good_003.png", images / "scratch_007.png")
    table.loc["images/scratch_006.png", "group"] = "scratch2"  # the group of 4 and 5, which are in training
    layouts.save(np.zeros((40, 32), np.uint8), images / "not_listed.png")
    # valid, but unusual
    Image.open(images / "good_013.png").convert("P").save(images / "good_013.png")
    turned = Image.open(images / "good_007.png").rotate(90, expand=True)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(images / "good_007.png", exif=exif)
    Image.open(masks / "scratch_005.png").convert("1").save(masks / "scratch_005.png")
    table.to_csv(root / "table.csv", index=False)
    return settings


PLANTED = {
    "good_000.png": "cannot be read",
    "good_001.png": "not an image",
    "good_004.png": "I;16 pixels",
    "good_005.png": "16-bit RGB",
    "good_008.png": "transparent",
    "good_009.png": "is missing",
    "masks/scratch_000.png": "cannot be read",
    "masks/scratch_001.png": "is 20 x 20, its image 32 x 40",
    "mask of 'images/scratch_002.png'": "is empty",
    "images/scratch_003.png": "has no mask",
    "masks/scratch_004.png": "is missing",
    "'images/good_002.png' and 'images/good_012.png'": "on both sides of the split",
    "'images/good_006.png' and 'images/good_010.png'": "in different groups ('good3' and 'good5'):",
    "'images/good_003.png' and 'images/scratch_007.png'": "labelled good and scratch",
    "group 'scratch2' is in training": "'images/scratch_004.png' and 'images/scratch_005.png'",
}


def test_check_reports_every_planted_error_at_once(tmp_path):
    odd_folder(tmp_path)
    text, problems = check("folder", tmp_path, "csv=table.csv")
    for subject, message in PLANTED.items():
        assert sum(subject in problem and message in problem for problem in problems) == 1, (subject, problems)
    assert len(problems) == len(PLANTED), problems
    assert all("\n" not in problem for problem in problems)
    assert "left out  'images/not_listed.png'" in text
    assert "'images/good_014.png' and 'images/good_015.png' are pixel-identical; they are in one group" in text
    assert "turned    1 marked as rotated or mirrored" in text and "1 PNG, palette" in text and "1 PNG, 1-bit" in text
    result = cli("datasets", "check", "folder", "--root", tmp_path, "--set", "csv=table.csv")
    assert result.returncode == 2 and not result.stderr
    assert result.stdout.count("problem: ") == len(PLANTED) and f"{len(PLANTED)} problems" in result.stdout


def test_unusual_but_valid_images_of_a_dataset_are_read_correctly(tmp_path):
    whole, odd = tmp_path / "whole", tmp_path / "odd"
    plain, strange = open_drawn("folder", layouts.draw_folder_csv(whole)), open_drawn("folder", odd_folder(odd))
    rows = plain.samples().set_index("id", drop=False)
    for name in ("images/good_007.png", "images/good_013.png"):
        assert np.array_equal(strange.read_image(rows.loc[name]), plain.read_image(rows.loc[name])), name
    row = rows.loc["images/scratch_005.png"]
    assert np.array_equal(strange.read_mask(row), plain.read_mask(row)) and plain.read_mask(row).any()


def test_normal_images_with_a_mask_and_one_sided_splits(tmp_path):
    settings = layouts.draw_folder_csv(tmp_path)
    table = pd.read_csv(tmp_path / "table.csv", dtype=str, keep_default_na=False)
    table.loc[0, "mask"] = "masks/scratch_000.png"
    table.loc[table["label"] != GOOD, "split"] = "train"
    table.to_csv(tmp_path / "table.csv", index=False)
    _, problems = check("folder", tmp_path, f"csv={settings['csv']}")
    assert len(problems) == 2
    assert "test side has no defect images" in problems[0]
    assert "mask of 'images/good_000.png' marks a defect, its label is good" in problems[1]


def test_folds_that_cannot_be_evaluated(tmp_path):
    layouts.draw_folder(tmp_path, good=12, bad=2)
    shutil.rmtree(tmp_path / "stain")
    _, problems = check("folder", tmp_path)
    assert len(problems) == 3, "two defect images lie in two of five folds"
    assert len({problem.split("of fold ")[1][0] for problem in problems}) == 3
    assert all("has no defect images" in problem for problem in problems)


def test_missing_images_show_in_the_counts(tmp_path):
    settings = layouts.draw_magnetic_tile(tmp_path)
    text, problems = check("magnetic_tile", settings["root"])
    found = sum(1 for _ in (tmp_path / "MT_Break/Imgs").glob("*.jpg"))
    assert f"break: {found} images, the official number is 85" in problems
    assert len(problems) == 6 and not about_files(problems)
    assert "groups    " in text


def test_known_empty_masks_are_no_problem_and_others_are(tmp_path, monkeypatch):
    layouts.draw_magnetic_tile(tmp_path)
    folder = tmp_path / "MT_Uneven/Imgs"
    known, other = sorted(path.stem for path in folder.glob("*.png"))[:2]
    monkeypatch.setattr(registry.get("datasets", "magnetic_tile"), "known", {known: "its mask is empty"})
    assert f"{known}: its mask is empty (not found in these files)" in check("magnetic_tile", tmp_path)[0]
    for name in (known, other):
        layouts.save(np.full_like(np.asarray(Image.open(folder / f"{name}.png")), 127), folder / f"{name}.png")
    text, problems = check("magnetic_tile", tmp_path)
    assert about_files(problems) == [f"mask of '{other}' (uneven) is empty, no value exceeds 127: mark the defect"]
    assert f"{known}: its mask is empty (found)" in text


def test_fingerprint_is_stored_and_files_are_read_once_but_for_pairs_that_may_be_near_copies(tmp_path, monkeypatch):
    settings = layouts.draw_folder_csv(tmp_path / "data")
    read = []

    def counted(path):
        read.append(path)
        return images.read_bytes(path)

    for module in (contracts, findings_module):
        monkeypatch.setattr(module, "read_bytes", counted)
    text, problems = check("folder", tmp_path / "data", "csv=table.csv", store=str(tmp_path / "store"))
    assert not problems and len(set(read)) == 24 + 8
    assert all(times == 1 or "images" in path.parts for path, times in Counter(read).items())  # images: twice at most
    assert max(Counter(read).values()) <= 2
    fingerprint = open_drawn("folder", settings).fingerprint()
    assert f"fingerprint: {fingerprint}" in text
    read.clear()
    library = library_of("folder", settings)  # a grid without an alias
    assert library.fingerprint("folder", Store(tmp_path / "store")) == fingerprint and not read
    data = tmp_path / "data"
    assert_one_line(cli("datasets", "check", "folder", "--root", data, "--store", data), "store")


def test_a_changed_file_is_read_again(tmp_path):
    dataset = open_drawn("folder", layouts.draw_folder(tmp_path))
    path = dataset.files()[0]
    dataset.remember(path, path.read_bytes())
    before = dataset.fingerprint()
    path.write_bytes(path.read_bytes() + b"\0")
    assert dataset.fingerprint() != before
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name}' is missing"):
        dataset.fingerprint()


# -- show, list, sample


@pytest.mark.parametrize("name", sorted(registry.find("datasets")))
def test_show_prints_all_metadata(name):
    plugin, text = registry.get("datasets", name), io.StringIO()
    show_dataset(name, (), Console(file=text, width=120))
    printed = text.getvalue()
    for fact in (plugin.title, plugin.licence, plugin.citation, plugin.homepage, plugin.task, *plugin.known.values()):
        assert fact in printed
    assert all(f"  {key} (" in printed for key in plugin.Config.model_fields)
    assert all(f"{what} {number:,}" in printed for what, number in plugin.official_counts.items())
    assert plugin.embedded or "AUGBENCH_DATA" in printed


def test_show_takes_settings_and_lists_agree():
    printed = cli("datasets", "show", "mvtec", "--set", "category=screw").stdout
    assert "train good 320, train defective 0, test good 41, test defective 119" in printed
    assert cli("datasets", "list").stdout == cli("list", "datasets").stdout
    assert_one_line(cli("datasets", "show", "neo"), "neo", "did you mean 'neu'")
    assert_one_line(cli("datasets", "show", "neu", "--set", "size=3"), "size")
    assert_one_line(cli("datasets", "check", "neu", "--set", "root"), "key=value")
    assert_one_line(cli("datasets", "check", "neu"), "root", "AUGBENCH_DATA")


@pytest.mark.parametrize("draw", ["folder_csv", "neu", "ksdd", "mvtec"])
def test_sample_is_a_deterministic_sheet(tmp_path, draw):
    settings = getattr(layouts, f"draw_{draw}")(tmp_path / "data")
    name = draw.removesuffix("_csv")
    changes = [f"{key}={value}" for key, value in settings.items() if key != "root"]
    sheets = []
    for out in ("a.png", "b.png"):
        write_sample(name, tmp_path / "data", changes, tmp_path / out, 12, Console(file=io.StringIO()))
        sheets.append((tmp_path / out).read_bytes())
    assert sheets[0] == sheets[1]
    pixels = read_rgb(tmp_path / "a.png")
    assert pixels.shape[0] > 200 and pixels.shape[1] > 400
    assert (pixels == OUTLINE).all(axis=2).sum() > 100, "masks are outlined"


def test_sample_of_a_damaged_dataset_is_one_line(tmp_path):
    layouts.draw_folder(tmp_path)
    (tmp_path / "scratch/000.png").write_text("")
    assert_one_line(cli("datasets", "sample", "folder", "--root", tmp_path, "--out", tmp_path / "x.png"), "000.png")
    assert not (tmp_path / "x.png").exists()


# -- the real files, where they are available


def real(name):
    base = os.environ.get("AUGBENCH_TEST_DATA")
    if not base or not (Path(base) / name).is_dir():
        pytest.skip(f"set AUGBENCH_TEST_DATA to a folder that holds {name}/ to run this on the real files")
    return Path(base) / name


def test_real_neu():
    text, problems = check("neu", real("neu_det"))
    assert not problems and "1,800 images: all is well" in text
    assert "1,799 of 1-2 images" in text and "patches_101, patches_105: these two are pixel-identical" in text
    dataset = open_dataset("neu", {"root": str(real("neu_det"))})
    areas = [dataset.read_mask(row).sum() for row in dataset.samples().to_dict("records")]
    assert min(areas) > 0, "every file has a box of its own class"


def test_real_magnetic_tile():
    text, problems = check("magnetic_tile", real("magnetic_tile"))
    assert not problems and "1,344 images: all is well" in text
    assert "196 of 1-24 images (median 6); 66 with a defect; 16 mix classes" in text
    assert "1,344 JPEG, 8-bit grey" in text and "103-632 x 222-403" in text
    known = registry.get("datasets", "magnetic_tile").known
    assert f"{', '.join(known)}: its mask holds no value above 127 (found)" in text
