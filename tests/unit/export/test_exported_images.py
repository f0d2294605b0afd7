"""Exported pools and datasets, read back by what reads such folders: datasets, pycocotools, `mvtec`."""

import errno
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import assert_one_line, cli, tiny_plan
from layouts import draw_folder, draw_folder_csv
from PIL import Image

from augbench.cli.options import Layout
from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.export.layouts import LAYOUTS, export_images, outlines
from augbench.export.samples import dataset_source, pool_source
from augbench.export.whole_folder import whole_folder
from augbench.planning.library import open_dataset
from augbench.stages.context import Context
from augbench.stages.generate import assemble_pool, generate_chunk
from augbench.storage.store import Store


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A store and the spec of its pool of twenty images."""
    store = Store(tmp_path_factory.mktemp("pool") / "store")
    plan = tiny_plan(augmenters=["memseg"], shots=[0])
    (spec,) = plan.pools.values()
    context = Context(store, plan.library)
    generate_chunk(context, spec, 0)
    assemble_pool(context, spec)
    return store, spec


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset with masks, groups and an official split."""
    folder = tmp_path_factory.mktemp("data")
    return open_dataset("folder", draw_folder_csv(folder))


def export(source, layout, out):
    export_images(source, layout, out)
    return out


def images_of(source):
    """Name -> sample."""
    return {sample.name: sample for sample in source.samples()}


def test_the_command_offers_every_layout():
    assert [str(layout) for layout in Layout] == list(LAYOUTS)


def test_datasets_loads_an_imagefolder(pool, dataset, tmp_path):
    from datasets import load_dataset

    source = pool_source(*pool_key(pool))
    folder = export(source, "imagefolder", tmp_path / "pool")
    (loaded,) = load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache")).values()
    assert len(loaded) == source.images == 20 and set(loaded["label"]) == {"defect"}
    first = images_of(source)["00000"]
    assert np.array_equal(loaded[0]["image"], first.image)
    assert np.array_equal(np.asarray(loaded[0]["mask"]) > 0, first.mask)
    assert loaded[0]["source"] == first.about["source"]

    source = dataset_source(dataset, None)
    folder = export(source, "imagefolder", tmp_path / "dataset")
    loaded = load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 12, "test": 12}
    for split, rows in loaded.items():
        counts = {label: rows["label"].count(label) for label in sorted(set(rows["label"]))}
        assert counts == source.counts[split]
    assert all((row["mask"] is None) == (row["label"] == GOOD) for row in loaded["test"])


def pool_key(pool):
    store, spec = pool
    return store, spec.key


def test_pycocotools_reads_coco(pool, dataset, tmp_path, capsys):
    from pycocotools.coco import COCO

    for name, source in (("pool", pool_source(*pool_key(pool))), ("dataset", dataset_source(dataset, None))):
        folder, samples = export(source, "coco", tmp_path / name), images_of(source)
        for split, counts in source.counts.items():
            coco = COCO(folder / "annotations" / f"instances_{split}.json")
            assert len(coco.getImgIds()) == sum(counts.values())
            assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == list(source.classes)
            for image in coco.loadImgs(coco.getImgIds()):
                sample = samples[image["file_name"].removesuffix(".png")]
                parts = coco.loadAnns(coco.getAnnIds(image["id"]))
                assert bool(parts) == (sample.label != GOOD) and sample.split == split
                found = np.zeros(sample.image.shape[:2], bool)
                for part in parts:
                    assert source.classes[part["category_id"] - 1] == sample.label
                    found |= coco.annToMask(part) > 0
                    assert part["bbox"][2] >= 1 and part["bbox"][3] >= 1 and part["area"] > 0
                if parts:
                    assert (found & sample.mask).sum() > 0.95 * (found | sample.mask).sum()
                with Image.open(folder / split / image["file_name"]) as file:
                    assert file.size == (image["width"], image["height"])
    capsys.readouterr()  # pycocotools prints


def test_mvtec_reads_its_layout(pool, dataset, tmp_path):
    source = dataset_source(dataset, None)
    folder = export(source, "mvtec", tmp_path / "dataset")
    read = open_dataset("mvtec", {"root": str(folder)})
    table = read.samples()
    counts = {split: rows["label"].value_counts().to_dict() for split, rows in table.groupby("split")}
    assert counts == {"train": {GOOD: 8}, "test": source.counts["test"]}  # it has no place for training defects
    samples = images_of(source)
    for row in table[table["label"] != GOOD].to_dict("records"):
        assert np.array_equal(read.read_mask(row), samples[row["id"].rpartition("/")[2]].mask)
    defects = sorted(path.stem for path in (folder / "train_defects" / "scratch").iterdir())
    masks = sorted(path.stem for path in (folder / "train_defects_ground_truth" / "scratch").iterdir())
    assert len(defects) == source.counts["train"]["scratch"] and masks == [f"{name}_mask" for name in defects]

    folder = export(pool_source(*pool_key(pool)), "mvtec", tmp_path / "pool")
    Image.new("L", (8, 8)).save(folder / "train" / "good" / "normal.png")  # of the category that it is copied into
    table = open_dataset("mvtec", {"root": str(folder)}).samples()
    assert table["split"].value_counts().to_dict() == {"test": 20, "train": 1} and (table["mask"] != "").sum() == 20


def test_yolo_labels_hold_the_outlines(dataset, tmp_path):
    source = dataset_source(dataset, None)
    folder = export(source, "yolo", tmp_path / "dataset")
    about = yaml.safe_load((folder / "data.yaml").read_text())
    assert about == {"path": ".", "train": "images/train", "val": "images/test", "names": {0: "scratch"}}
    for sample in source.samples():
        assert (folder / "images" / sample.split / f"{sample.name}.png").is_file()
        lines = (folder / "labels" / sample.split / f"{sample.name}.txt").read_text().splitlines()
        expected = outlines(sample.mask)
        assert len(lines) == len(expected)
        height, width = sample.image.shape[:2]
        for line, outline in zip(lines, expected, strict=True):
            number, *values = line.split()
            points = np.array(values, float).reshape(-1, 2)
            assert number == "0" and points.min() >= 0 and points.max() <= 1
            assert np.allclose(points * [width, height], outline, atol=0.01)


@pytest.mark.parametrize(
    ("rows", "area"),
    [(["1"], 1), (["111"], 3), (["1", "1", "1"], 3), (["11", "11"], 4), (["111", "101", "111"], 9), (["000"], 0)],
)
def test_outlines_run_along_borders_of_pixels(rows, area):
    """A line of one pixel has an area, and holes are filled."""
    import cv2

    found = outlines(np.array([[one == "1" for one in row] for row in rows]))
    assert sum(cv2.contourArea(one.astype(np.int32)) for one in found) == area and len(found) == bool(area)


def test_the_card_and_the_provenance(pool, dataset, tmp_path):
    from huggingface_hub import DatasetCard

    store, spec = pool
    folder = export(pool_source(store, spec.key), "coco", tmp_path / "pool")
    card = DatasetCard.load(folder / "README.md")
    assert (
        card.data.license == "apache-2.0" and "synthetic" in card.data.tags and "| train | defect | 20 |" in card.text
    )
    about = json.loads((folder / "provenance.json").read_text())
    assert about["pool"] == spec.key and about["spec"] == json.loads(json.dumps(spec.as_dict()))
    assert about["licences"].keys() == {"dataset", "augmenter"} and about["made"]["versions"]
    folder = export(dataset_source(dataset, None), "mvtec", tmp_path / "dataset")
    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == "other" and "train_defects_ground_truth" in card.text


def test_defects_without_a_mask_are_left_out_where_they_would_count_as_normal(tmp_path):
    draw_folder_csv(tmp_path / "data")
    Image.fromarray(np.zeros_like(Image.open(tmp_path / "data/masks/scratch_000.png"))).save(
        tmp_path / "data/masks/scratch_000.png"
    )
    source = dataset_source(open_dataset("folder", {"root": str(tmp_path / "data"), "csv": "table.csv"}), None)
    lines = export_images(source, "coco", tmp_path / "coco")
    assert "left out" in lines[1] and "scratch_000" in lines[1] and "scratch 3" in lines[0]
    assert json.loads((tmp_path / "coco/provenance.json").read_text())["left_out"][0].endswith("scratch_000_png")
    assert len(export_images(source, "imagefolder", tmp_path / "all")) == 1


def test_folds_are_the_split(tmp_path):
    data = draw_folder(tmp_path)
    first, second = (dataset_source(open_dataset("folder", data), fold) for fold in (None, 1))
    assert (first.name, second.name) == ("folder-f0", "folder-f1")
    tested = [{one.about["id"] for one in each.samples() if one.split == "test"} for each in (first, second)]
    assert not tested[0] & tested[1] and first.images == second.images == 32


def test_mistakes_are_one_line_and_nothing_is_written(pool, dataset, tmp_path):
    store, spec = pool
    root, out = tmp_path / "data", tmp_path / "out"
    draw_folder(root)
    show = ("pool", "export", "--store", store.url, "--out", out, "--format")
    assert_one_line(cli(*show, "coco", "nothing"), "pool 'nothing' is not in the store")
    assert "Invalid value for '--format'" in cli(*show, "voc", spec.key).stderr
    assert_one_line(cli(*show[:3], store.url, "--out", root, "--format", "coco", spec.key), "holds other things")
    data = ("datasets", "export", root, "--out", out, "--format")
    assert_one_line(cli(*data, "yolo"), "has no masks", "--format imagefolder or mvtec")
    assert_one_line(cli(*data, "mvtec", "--fold", "9"), "--fold 9", "has 5 folds")
    with pytest.raises(UserError, match="has an official split: leave --fold out"):
        dataset_source(dataset, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_pools_that_cannot_be_read_are_named(pool, tmp_path):
    import shutil

    store, spec = pool
    changed = Store(shutil.copytree(store.files.folder, tmp_path / "changed"))
    image = changed.files.folder / changed.image_name(spec, 7)
    image.unlink()
    with pytest.raises(UserError, match=r"00007.png' is missing or damaged: chunk '.*/chunks/00000.jsonl': delete it"):
        export_images(pool_source(changed, spec.key), "mvtec", tmp_path / "out")
    changed.files.remove(changed.chunk_name(spec, 0))
    with pytest.raises(UserError, match="has no image yet: run its grid"):
        pool_source(changed, spec.key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changed"]


def test_a_folder_is_whole_or_not_there(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "out") as folder:
        (folder / "half").touch()
        _ = 1 / 0
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"]


def test_a_full_disk_is_one_line_that_names_the_folder(pool, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    store, spec = pool
    monkeypatch.setattr(Path, "write_bytes", full)
    told = cli("pool", "export", spec.key, "--store", store.url, "--format", "coco", "--out", tmp_path / "out")
    assert_one_line(told, f"--out '{tmp_path / 'out'}' cannot be written (No space left on device): free space")
    assert not list(tmp_path.iterdir())


def test_a_link_to_an_empty_folder_is_followed(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    with whole_folder(tmp_path / "link") as folder:
        (folder / "whole").touch()
    assert (tmp_path / "target" / "whole").exists() and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("label", ["../../escaped", "..", "N/A", "a\\b", "no\u200bwidth"])
def test_a_class_that_is_no_folder_name_is_refused_in_mvtec(tmp_path, label):
    settings = draw_folder_csv(tmp_path / "data")
    path = tmp_path / "data" / settings["csv"]
    table = pd.read_csv(path)
    table.loc[table["label"] != "good", "label"] = label
    table.to_csv(path, index=False)
    source = dataset_source(open_dataset("folder", settings), None)
    with pytest.raises(UserError, match="cannot name a folder: give another --format"):
        export_images(source, "mvtec", tmp_path / "out" / "inner")
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("escaped"))
